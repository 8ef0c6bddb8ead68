"""The parameters of stochastic spiking attention, and what follows from them."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from amaranth.utils import ceil_log2

from hw.attention.plan import MOST_HELD, CountPlan, FoldedPlan, HeldPlan, SamplePlan
from hw.bernoulli import permutation, splitmix64
from hw.config import Array, Config, ConfigError, param
from hw.stream import Stream


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionConfig(Config):
    """Parameters of `hw.attention.attention`.

    With the count encoder a time step is ``folds = ceil(tokens / rows)`` folds of
    ``groups = ceil(tokens / columns)`` clocks each, or of ``rows / tokens_per_beat`` clocks where
    that is more, since so many beats leave. The two loops change places where keys are held
    (`held`). With the sample encoder it is `tokens` clocks.
    """

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {},
        "icebreaker": {"tokens": 16, "heads": 1, "head_dim": 16, "columns": 2, "timesteps": 16},
        "paper_small": {"tokens": 64, "heads": 1, "head_dim": 64, "columns": 1, "timesteps": 10},
        "sample": {"encoder": "sample", "tokens": 64, "heads": 1, "head_dim": 64, "timesteps": 10},
    }

    tokens: int = param(16, "tokens N", low=1, high=256)
    heads: int = param(1, "heads H", low=1, high=64)
    head_dim: int = param(16, "channels dK of one head", low=1, high=256)
    encoder: str = param(
        "count", "how a bit is drawn: by counting, or from one place", choices=("count", "sample")
    )
    rng: str = param(
        "lfsr", "random numbers: shift registers, or Sobol's sequence", choices=("lfsr", "sobol")
    )
    tokens_per_beat: int = param(1, "tokens of a beat on every stream", low=1, high=64)
    rows: int = param(
        None, "output rows (queries) in parallel", low=1, high=256, derived="tokens_per_beat"
    )
    columns: int = param(
        None,
        "keys, and values, in parallel",
        low=1,
        high=256,
        derived="as many as rows have clocks for; with the count encoder at most 16",
    )
    causal: bool = param(False, "a token attends only to itself and those before it")
    seed: int = param(1, "seed of both random sources and of the skews", low=1, high=2**32 - 1)
    reseed: bool = param(False, "restart the shift registers with every inference")

    def resolve(self) -> None:
        if self.tokens_per_beat > self.tokens:
            raise ConfigError(
                f"tokens_per_beat: want at most tokens ({self.tokens}), got {self.tokens_per_beat}"
            )
        self.derive(rows=self.tokens_per_beat)
        self.derive(columns=self._most_columns())
        for name in ("rows", "columns"):
            if getattr(self, name) > self.tokens:
                raise ConfigError(
                    f"{name}: want at most tokens ({self.tokens}), got {getattr(self, name)}"
                )
            if getattr(self, name) % self.tokens_per_beat and getattr(self, name) < self.tokens:
                raise ConfigError(
                    f"{name}: want a multiple of tokens_per_beat ({self.tokens_per_beat}), "
                    f"got {getattr(self, name)}"
                )
        if self.encoder == "sample":
            for name, want in (("tokens_per_beat", 1), ("rows", 1), ("columns", self.tokens)):
                if getattr(self, name) != want:
                    raise ConfigError(
                        f"{name}: want {want} with encoder=sample, got {getattr(self, name)}"
                    )
            for name in ("tokens", "head_dim"):
                if getattr(self, name) & (getattr(self, name) - 1):
                    raise ConfigError(
                        f"{name}: want a power of two with encoder=sample, "
                        f"got {getattr(self, name)}"
                    )

    def _most_columns(self) -> int:
        """Return the columns that follow from the other parameters."""
        if self.encoder == "sample":
            return self.tokens
        p = self.tokens_per_beat
        # With more there are clocks in which rows wait for their turn to leave.
        busy = -(-self.tokens // -(-self.rows // p))
        most = self.tokens if self.tokens <= 16 else max(16 // p, 1) * p
        return min(-(-busy // p) * p, most, self.tokens)

    @property
    def channels(self) -> int:
        """Channels D of a token, all heads."""
        return self.heads * self.head_dim

    @property
    def beats(self) -> int:
        """Beats of a time step on every stream."""
        return -(-self.tokens // self.tokens_per_beat)

    @property
    def folds(self) -> int:
        """Passes over K and V in a time step."""
        return -(-self.tokens // self.rows)

    @property
    def groups(self) -> int:
        """Groups of `columns` tokens in a time step."""
        return -(-self.tokens // self.columns)

    @property
    def fold_clocks(self) -> int:
        """Clocks of a fold."""
        return max(self.groups, -(-self.rows // self.tokens_per_beat))

    @property
    def plan(self) -> CountPlan | SamplePlan:
        """Clocks and buffers of the encoder."""
        if self.encoder == "sample":
            return SamplePlan(self)
        return HeldPlan(self) if self.held else FoldedPlan(self)

    @property
    def held(self) -> bool:
        """Whether keys are held while queries pass: the form for many columns."""
        if self.encoder == "sample" or self.rows != self.tokens_per_beat:
            return False
        if self.groups == 1:
            return True
        return self.groups <= MOST_HELD and self.beats >= HeldPlan(self).count_clocks

    @property
    def score_seed(self) -> int:
        """Initial state of the 32-bit register of the scores."""
        return splitmix64(self.seed + 2**40) % (2**32 - 1) + 1

    @property
    def output_seed(self) -> int:
        """Initial state of the 31-bit register of the outputs."""
        return splitmix64(self.seed) % (2**31 - 1) + 1

    def _table(self, head: int, axis: int, bound: int, length: int) -> list[int]:
        """Return constants below `bound`; if they are few, their top bits are spread evenly."""
        key = splitmix64(self.seed + 2**32 * (4 * head + axis))
        if length < bound and not (bound & (bound - 1) or length & (length - 1)):
            step = bound // length
            high, low = permutation(key, length, length), permutation(splitmix64(key), step, length)
            return [h * step + x for h, x in zip(high, low, strict=True)]
        return permutation(key, bound, length)

    @property
    def token_order(self) -> list[int]:
        """What the sample encoder takes the second dimension of Sobol's sequence for."""
        return permutation(splitmix64(self.seed + 2**41), self.tokens, self.tokens)

    def skews(self, stage: str) -> tuple[list[list[int]], list[list[int]]]:
        """Return the skews of a stage per head: of its rows, and of its columns.

        Score (n, m) of head h is skewed by ``rows[h][n]`` and ``columns[h][m]``, output (n, d) by
        ``rows[h][n]`` and ``columns[h][d]``.
        """
        bound, width, axis = {
            "score": (self.head_dim, self.tokens, 0),
            "output": (self.tokens, self.head_dim, 2),
        }[stage]
        heads = range(self.heads)
        return (
            [self._table(h, axis, bound, self.tokens) for h in heads],
            [self._table(h, axis + 1, bound, width) for h in heads],
        )

    def places(self, head: int) -> tuple[list[int], list[int], list[int], list[int]]:
        """Return the tables of a head with the sample encoder: a, b, pick and h.

        With a draw (r, j), output (n, d) is taken from channel ``pick[r ^ a[n] ^ h[d]]`` and token
        ``j ^ b[n] ^ spread(h[d])``.
        """
        size, tokens = self.head_dim, self.tokens
        return (
            self._table(head, 0, size, tokens),
            self._table(head, 2, tokens, tokens),
            self._table(head, 1, size, size),
            self._table(head, 3, size, size),
        )

    def spread(self, head: int) -> list[list[int]]:
        """Return, for each bit of a token's index, the bits of a channel's whose XOR it is.

        The map from a channel's place to a token's with the sample encoder: its low bits, and
        above them, where there are more tokens than channels, parities under pseudo-random masks.
        """
        size, bits = self.head_dim, ceil_log2(self.tokens)
        key = splitmix64(self.seed + 2**32 * (4 * head + 3) + 2**31)
        masks = [1 << i for i in range(min(bits, ceil_log2(size)))]
        for i in range(len(masks), bits):
            masks.append(splitmix64((key + i + 1) % 2**64) % (size - 1) + 1 if size > 1 else 0)
        return [[i for i in range(size.bit_length()) if mask >> i & 1] for mask in masks]

    @property
    def streams(self) -> tuple[Stream, ...]:
        inputs = [self.stream(name) for name in "qkv"]
        return (
            *(dataclasses.replace(s, ahead=self.plan.slots(s.name) * self.beats) for s in inputs),
            self.stream("out"),
        )

    def stream(self, name: str) -> Stream:
        """Return a stream without what follows from its buffer."""
        what = {"q": "queries", "k": "keys", "v": "values", "out": "outputs"}[name]
        one = self.tokens_per_beat == 1
        return Stream(
            name,
            "out" if name == "out" else "in",
            lanes=self.tokens_per_beat * self.channels,
            width=1,
            signed=False,
            beats=self.beats,
            elements=self.tokens * self.channels,
            steps=self.timesteps,
            help=f"{what}, {'a token a beat' if one else 'first token lowest'}, head 0 lowest",
        )

    @property
    def stimulus(self) -> dict[str, Array]:
        shape = ("timesteps", "tokens", "channels")
        names = {"q": "queries", "k": "keys", "v": "values"}
        return {name: Array(shape, 0, 1, name, help) for name, help in names.items()}

    @property
    def result(self) -> dict[str, Array]:
        return {"out": Array(("timesteps", "tokens", "channels"), 0, 1, "out", "output spikes")}

    @property
    def latency(self) -> int:
        return self.plan.latency

    @property
    def interval(self) -> int:
        return self.plan.interval

    @property
    def cycles(self) -> int:
        return self.plan.cycles

    @property
    def notes(self) -> dict[str, Any]:
        exact = not (self.tokens & (self.tokens - 1) or self.head_dim & (self.head_dim - 1))
        if self.rng == "sobol":
            source: dict[str, Any] = {
                "random sources": "none: Sobol's sequence, dimension 0 for the scores and 1 for "
                "the outputs; restarts with every inference"
            }
        else:
            source = {
                "score_seed": self.score_seed,
                "output_seed": self.output_seed,
                "random sources": "advance once per time step that is whole on q, k and v; "
                + ("restart with every inference" if self.reseed else "reset by rst alone"),
            }
        sharing = (
            "one draw (channel, token) a time step serves all outputs, each moved by constants"
            if self.encoder == "sample"
            else "one draw a stage and time step serves all positions, each with a fixed skew of "
            "its own"
        )
        return {
            **source,
            "sharing": sharing,
            "bias": "0" if exact else "below 2^-19 per output bit",
        }
