"""The parameters of dynamic head pruning, and what follows from them."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from amaranth.utils import bits_for, ceil_log2

from hw.arith import count_clocks
from hw.config import Array, ConfigError, HeadedConfig, divisors, param
from hw.stream import Stream

USUAL_HEADS, USUAL_HEAD_DIM = 4, 16
"""Heads, and channels of one, unless they follow from what is asked for."""

MOST_CHANNELS = 512
"""Channels of a beat unless more are asked for."""

BLOCK_WORDS = 512
"""Words up to which a power of two takes no more block RAM (ECP5: 512 x 36, iCE40: 256 x 16)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadsConfig(HeadedConfig):
    """Parameters of `Heads`.

    To keep the share p of H heads, `keep` is ceil(p * H). A token is
    ``groups = channels / channels_per_beat`` beats, or a beat is `tokens_per_beat` tokens.
    """

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {},
        "cifar": {"tokens": 64, "channels": 512, "heads": 8, "timesteps": 4},
        "icebreaker": {"tokens": 64, "channels": 256, "heads": 8, "timesteps": 4,
                       "channels_per_beat": 32},
    }  # fmt: skip

    tokens: int = param(16, "tokens N", low=1, high=1024)
    channels: int = param(
        None, "channels D of a token, all heads", low=1, high=4096, derived="heads * head_dim"
    )
    heads: int = param(
        None, "heads H", low=1, high=64,
        derived="channels / head_dim if both are given, else the most up to 4",
    )  # fmt: skip
    head_dim: int = param(
        None, "channels of one head", low=1, high=4096, derived="channels / heads, or 16"
    )
    keep: int = param(
        None, "heads that stay: ceil(p * heads) for the share p; at most heads", low=1, high=64,
        derived="half of them, rounded up",
    )  # fmt: skip
    channels_per_beat: int = param(
        None, "channels of a beat; divides channels, and is part of a head or some whole heads",
        low=1, high=4096, derived="the most up to 512; all with tokens_per_beat above 1",
    )  # fmt: skip
    tokens_per_beat: int = param(1, "tokens of a beat, as attention has them", low=1, high=64)
    gate: bool = param(
        True, "put out Q with the heads that do not stay at 0; if not, only which ones stay"
    )

    def resolve(self) -> None:
        self.derive_heads(USUAL_HEADS, USUAL_HEAD_DIM)
        self.derive(keep=-(-self.heads // 2))
        if self.keep > self.heads:
            raise ConfigError(f"keep: want at most heads ({self.heads}), got {self.keep}")
        if self.tokens_per_beat > self.tokens:
            raise ConfigError(
                f"tokens_per_beat: want at most tokens ({self.tokens}), got {self.tokens_per_beat}"
            )
        many = self.tokens_per_beat > 1
        fitting = [d for d in divisors(self.channels) if self._fits(d)]
        self.derive(
            channels_per_beat=self.channels
            if many
            else max(d for d in fitting if d <= MOST_CHANNELS)
        )
        if many and self.channels_per_beat != self.channels:
            raise ConfigError(
                f"channels_per_beat: want channels ({self.channels}) with "
                f"tokens_per_beat={self.tokens_per_beat}, got {self.channels_per_beat}"
            )
        if self.channels_per_beat not in fitting:
            raise ConfigError(
                f"channels_per_beat: want a divisor of channels ({self.channels}) that divides "
                f"head_dim ({self.head_dim}) or is a multiple of it, got {self.channels_per_beat}"
            )

    def _fits(self, channels: int) -> bool:
        """Return whether so many channels are a part of a head, or whole heads."""
        return not (channels % self.head_dim and self.head_dim % channels)

    @property
    def groups(self) -> int:
        """Beats of a token, or of `tokens_per_beat` of them."""
        return self.channels // self.channels_per_beat

    @property
    def beats(self) -> int:
        """Beats of a time step."""
        return -(-self.tokens // self.tokens_per_beat) * self.groups

    @property
    def words(self) -> int:
        """Beats of an inference."""
        return self.timesteps * self.beats

    @property
    def lanes(self) -> int:
        """Heads that are in a beat, or have a part in it."""
        return max(self.channels_per_beat // self.head_dim, 1)

    @property
    def shares(self) -> int:
        """Turns of `lanes` heads in a token."""
        return self.heads // self.lanes

    @property
    def parts(self) -> int:
        """Beats of a turn: those of a head where it is more than a beat."""
        return self.groups // self.shares

    @property
    def bits(self) -> int:
        """Bits of a head in a beat."""
        return min(self.head_dim, self.channels_per_beat) * self.tokens_per_beat

    @property
    def score_bits(self) -> int:
        """Bits of a score: that of a head whose channels spike in all tokens and time steps."""
        return bits_for(self.timesteps * self.tokens * self.head_dim)

    @property
    def count_bits(self) -> int:
        """Bits of the start of a `pipelined_counts` of `bits`."""
        return max(ceil_log2(self.bits), 1)

    @property
    def count_clocks(self) -> int:
        """Clocks that it takes."""
        return count_clocks(self.bits, self.count_bits)

    def _decision_clocks(self, comparators: int) -> int:
        ranks = self.heads // comparators * (self.heads + comparators)
        return self.count_clocks + 3 + ranks

    @property
    def comparators(self) -> int:
        """Heads that are ranked at once: as many as it takes that nobody waits, if that is enough.

        The scores of the next inference come with the beats of its last token.
        """
        for comparators in divisors(self.heads):
            if self._decision_clocks(comparators) <= self.words - self.groups:
                break
        return comparators

    @property
    def decision_clocks(self) -> int:
        """Clocks from the last beat of an inference to where it is known who stays.

        ``count_clocks + 3 + heads / comparators * (heads + comparators)``
        """
        return self._decision_clocks(self.comparators)

    @property
    def places(self) -> int:
        """Beats that are kept: an inference, and what comes of the next until it is decided."""
        places = self.words + min(self.decision_clocks, self.words - self.groups) + 1
        return 2 ** ceil_log2(places) if places <= BLOCK_WORDS else places

    @property
    def streams(self) -> tuple[Stream, ...]:
        names = ("q", "out", "kept") if self.gate else ("q", "kept")
        return tuple(self.stream(name) for name in names)

    def stream(self, name: str) -> Stream:
        """Return a stream by its name."""
        if name == "kept":
            return Stream("kept", "out", lanes=self.heads, width=1, signed=False, beats=1,
                          elements=self.heads, steps=1, auxiliary=True,
                          help="which heads stay, one beat an inference")  # fmt: skip
        what = "queries" if name == "q" else "queries of the heads that stay, 0 elsewhere"
        return Stream(
            name, "in" if name == "q" else "out",
            lanes=self.tokens_per_beat * self.channels_per_beat, width=1, signed=False,
            beats=self.beats, elements=self.tokens * self.channels, steps=self.timesteps,
            help=f"{what}; channels ascending, head 0 lowest",
        )  # fmt: skip

    @property
    def stimulus(self) -> dict[str, Array]:
        return {"q": Array(("timesteps", "tokens", "channels"), 0, 1, "q", "queries")}

    @property
    def result(self) -> dict[str, Array]:
        kept = {"kept": Array(("heads",), 0, 1, "kept", "which heads stay")}
        if not self.gate:
            return kept
        shape = ("timesteps", "tokens", "channels")
        return {"out": Array(shape, 0, 1, "out", "queries of the heads that stay")} | kept

    @property
    def by_inference(self) -> bool:
        return True

    @property
    def latency(self) -> int:
        """That of `kept`; `out` comes one clock later."""
        return self.words + self.decision_clocks

    @property
    def interval(self) -> int:
        return self.beats

    @property
    def pause(self) -> int:
        """``max(0, decision_clocks + groups - timesteps * beats)``."""
        return max(0, self.decision_clocks + self.groups - self.words)

    @property
    def cycles(self) -> int:
        return self.latency + (self.words if self.gate else 0)

    @property
    def notes(self) -> dict[str, Any]:
        memory = {
            "memory": f"{self.places} beats",
            "delay": f"q leaves {self.latency + 1} clocks after it came: what it is to meet needs "
            "a queue of so many beats, or waits at its source",
        }
        return {
            "score": f"spikes of a head in an inference, {self.score_bits} bit; of equal ones the "
            "lower head stays",
            "comparators": self.comparators,
            "pause": f"{self.pause} clocks between inferences in which no beat is taken",
            **(memory if self.gate else {}),
        }
