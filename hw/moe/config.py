"""The parameters of the mixture-of-experts router tile, and what follows from them."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from amaranth import Shape, signed, unsigned
from amaranth.lib import data, stream
from amaranth.utils import bits_for, ceil_log2

from hw.config import Array, Config, ConfigError, most_divisor, param
from hw.lif import LifConfig
from hw.moe.plan import Plan
from hw.stream import Stream

MOST_CHANNELS = 32
"""Channels of a beat unless more are asked for."""

BLOCK_WORDS = 512
"""Words of a block RAM of an ECP5 at its greatest width."""

LEAST_ANSWER, USUAL_ANSWER = 4, 32
"""Clocks that experts may take to answer at the smallest window, and unless it is said."""

MOST_SHARED = 4
"""Channels that share a table of partial sums: a table of 2^4 entries replaces three adders."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MoeConfig(Config):
    """Parameters of `Moe`.

    A token is ``groups = channels / channels_per_beat`` beats, and a time step `tokens` tokens.
    """

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {},
        "semm": {"tokens": 64, "channels": 384, "experts": 4, "timesteps": 4},
        "icebreaker": {"tokens": 16, "channels": 64, "experts": 4, "timesteps": 4,
                       "channels_per_beat": 8},
    }  # fmt: skip
    SIM_SETTINGS: ClassVar[Mapping[str, Any]] = {"trace": True}

    tokens: int = param(16, "tokens N", low=1, high=1024)
    channels: int = param(64, "channels D of a token", low=1, high=4096)
    experts: int = param(4, "experts E", low=1, high=64)
    tiles: int = param(1, "tiles that the experts are split over; divides experts", low=1, high=64)
    channels_per_beat: int = param(
        None, "channels of a beat on every stream; divides channels", low=1, high=4096,
        derived="the most up to 32",
    )  # fmt: skip
    weight_bits: int = param(8, "bits of a weight, signed", low=2, high=8)
    bias_bits: int = param(16, "bits of a bias, signed", low=2, high=16)
    routing: str = param(
        "mask",
        "who gets a token: whose neuron fires, the k of the greatest membrane, or the k with most "
        "spikes so far",
        choices=("mask", "topk", "kwta"),
    )
    k: int = param(None, "experts of a token with topk and kwta", low=1, high=64, derived="1")
    fill: bool = param(False, "with kwta, also experts that have not spiked")
    capacity: int = param(
        None, "tokens of a time step that an expert takes", low=1, high=1024, derived="tokens"
    )
    overflow: str = param(
        "drop",
        "a token above the capacity is dropped and counted; or it waits until the expert, which "
        "then has at most so many at once, has answered another",
        choices=("drop", "stall"),
    )
    window: int = param(
        None, "tokens that may be on their way at once", low=2, high=4096,
        derived="those of a time step as far as 512 beats hold them, and enough for experts that "
        "take 32 clocks to answer",
    )  # fmt: skip
    tau: float = param(2.0, "membrane time constant in time steps", low=1, high=1024)
    decay_input: bool = param(True, "the score is divided by tau as well (U = tau * h)")
    threshold: int = param(
        None, "what U is compared with, in units of the score; tau * v_threshold with decay_input",
        low=1, high=2**24, derived="v_threshold 1.0: round(tau) with decay_input, 1 without",
    )  # fmt: skip
    reset: str = param(
        "hard", "to 0, minus the threshold, or none", choices=("hard", "soft", "none")
    )
    fire: str = param("ge", "U >= threshold or U > threshold", choices=("ge", "gt"))
    fraction_bits: int = param(
        None, "fraction bits of U", low=0, high=24, derived="0 for tau 1 and 2, 6 elsewhere"
    )
    decay_bits: int = param(
        None, "bits of the decay factor 1 - 1/tau", low=0, high=24,
        derived="log2(tau) where tau is a power of two (exact), 16 elsewhere",
    )  # fmt: skip
    readback: bool = param(False, "a stream of the weights as they are stored, after each load")
    trace: bool = param(False, "streams of who got each token, and of dropped tokens")

    def resolve(self) -> None:
        self.derive(
            channels_per_beat=most_divisor(self.channels, MOST_CHANNELS), k=1,
            capacity=self.tokens,
        )  # fmt: skip
        if self.channels % self.channels_per_beat:
            raise ConfigError(
                f"channels_per_beat: want a divisor of channels ({self.channels}), "
                f"got {self.channels_per_beat}"
            )
        if self.experts % self.tiles:
            raise ConfigError(
                f"tiles: want a divisor of experts ({self.experts}), got {self.tiles}"
            )
        if self.meets and self.tiles > self.groups:
            raise ConfigError(
                f"tiles: want at most {self.groups}, the beats of a token, in which their scores "
                f"meet, got {self.tiles}"
            )
        if self.k > self.experts:
            raise ConfigError(f"k: want at most experts ({self.experts}), got {self.k}")
        if self.routing == "mask" and self.k != 1:
            raise ConfigError(f"k: want routing=topk or kwta with it, got {self.k}")
        if self.fill and self.routing != "kwta":
            raise ConfigError(f"fill: want routing=kwta with it, got {self.routing}")
        if self.capacity > self.tokens:
            raise ConfigError(f"capacity: want at most tokens ({self.tokens}), got {self.capacity}")
        most = min(self.tokens, BLOCK_WORDS // self.groups - Plan.SPARE)
        self.derive(window=max(most, self.window_for(USUAL_ANSWER)))
        neuron = LifConfig(tau=self.tau)
        self.derive(
            fraction_bits=neuron.fraction_bits, decay_bits=neuron.decay_bits,
            threshold=max(1, round(self.tau)) if self.decay_input else 1,
        )  # fmt: skip
        if self.window < (least := self.window_for(LEAST_ANSWER)):
            raise ConfigError(
                f"window: want at least {least} for tokens to come in at once, got {self.window}"
            )
        self.neurons  # refuses what it can't do

    def window_for(self, answer: int) -> int:
        """Return how many tokens are on their way if experts take so many clocks to answer."""
        return -(-(self.plan.own_clocks + answer) // self.groups)

    @property
    def own(self) -> int:
        """Experts of a tile."""
        return self.experts // self.tiles

    @property
    def meets(self) -> bool:
        """Whether the scores of tiles meet."""
        return self.tiles > 1 and self.routing != "mask"

    @property
    def always(self) -> bool:
        """Whether each token is for somebody."""
        return self.routing == "topk" or self.fill

    @property
    def waits(self) -> bool:
        return self.overflow == "stall" and self.capacity < self.tokens

    @property
    def echoes(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        return {"stored": ("weights", (1, 0))} if self.readback else {}

    @property
    def steady(self) -> dict[str, int]:
        return {"weights": 0, "bias": -(2 ** (self.bias_bits - 1))}

    @property
    def groups(self) -> int:
        """Beats of a token."""
        return self.channels // self.channels_per_beat

    @property
    def shared(self) -> int:
        """Channels that share a table of partial sums; weights of a beat."""
        return most_divisor(self.channels_per_beat, MOST_SHARED)

    @property
    def entry_bits(self) -> int:
        """Bits of a partial sum."""
        return bits_for(-(self.shared << (self.weight_bits - 1)), True)

    @property
    def score_bits(self) -> int:
        """Bits of a score without its bias."""
        return bits_for(-(self.channels << (self.weight_bits - 1)), True)

    @property
    def current_bits(self) -> int:
        """Bits of a score with its bias."""
        least = (self.channels << (self.weight_bits - 1)) + (1 << (self.bias_bits - 1))
        return bits_for(-least, True)

    @property
    def value_shape(self) -> Shape:
        """What experts are compared by: membranes, or spikes so far."""
        if self.routing == "topk":
            return signed(self.neurons.membrane_bits)
        return unsigned(bits_for(self.timesteps))

    @property
    def link_signature(self) -> stream.Signature:
        """The stream between tiles: values of some experts of a token."""
        return stream.Signature(data.ArrayLayout(self.value_shape, self.plan.lanes).size)

    @property
    def tag_bits(self) -> int:
        """Bits of what tells a token: its index, and its time step above it."""
        return self.token_bits + ceil_log2(self.timesteps)

    @property
    def token_bits(self) -> int:
        """Bits of the index of a token."""
        return ceil_log2(self.tokens)

    @property
    def drops(self) -> bool:
        """Whether a token can be dropped."""
        return self.overflow == "drop" and self.capacity < self.tokens

    @property
    def plan(self) -> Plan:
        """Clocks and buffers."""
        return Plan(self)

    @property
    def neurons(self) -> LifConfig:
        """The neurons of the experts: `Plan.parts` beats a token, idle ones included."""
        lanes, parts = self.plan.lanes, self.plan.parts
        return LifConfig(
            timesteps=self.timesteps, neurons=self.tokens * parts * lanes, lanes=lanes,
            current_bits=self.current_bits, tau=self.tau,
            decay_input=self.decay_input, threshold=self.threshold, reset=self.reset,
            fire=self.fire, fraction_bits=self.fraction_bits, decay_bits=self.decay_bits,
        )  # fmt: skip

    @property
    def streams(self) -> tuple[Stream, ...]:
        return tuple(self.stream(name) for name in self._names(self.experts))

    @property
    def tile_streams(self) -> tuple[Stream, ...]:
        """The streams of one tile, inputs first."""
        return tuple(self.stream(name, self.own) for name in self._names(self.own))

    def _names(self, experts: int) -> tuple[str, ...]:
        answers, takers = (
            [f"{kind}{e}" for e in range(experts)] for kind in ("answer", "expert")
        )  # fmt: skip
        return (
            "tokens", "weights", "bias", *answers, "merged", *takers,
            *(("stored",) if self.readback else ()),
            *(("mask", "dropped") if self.trace else ()),
        )  # fmt: skip

    def stream(self, name: str, experts: int | None = None) -> Stream:
        """Return a stream by its name; of all experts, or so many."""
        kind = name.rstrip("0123456789")
        experts = experts or self.experts
        beats = self.tokens * self.groups
        elements = self.tokens * self.channels
        match kind:
            case "tokens" | "merged":
                inward = kind == "tokens"
                return Stream(
                    name, "in" if inward else "out", lanes=self.channels_per_beat,
                    width=1 if inward else bits_for(self.experts), signed=False, beats=beats,
                    elements=elements, steps=self.timesteps,
                    help="tokens, channels ascending" if inward
                    else "sums of the answers to each token, channels ascending",
                )  # fmt: skip
            case "answer" | "expert":
                return Stream(
                    name, "in" if kind == "answer" else "out", lanes=self.channels_per_beat,
                    width=1, signed=False, beats=self.groups, elements=self.channels, steps=1,
                    help="answers, with the tag of the token, in the order in which they were given"
                    if kind == "answer"
                    else "tokens for an expert; the tag is the index and above it the time step",
                    auxiliary=True, peer=True, tag=self.tag_bits,
                )  # fmt: skip
            case "weights":
                count = experts * self.channels
                return Stream(name, "in", lanes=self.shared, width=self.weight_bits, signed=True,
                              beats=count // self.shared, elements=count, steps=1, auxiliary=True,
                              help="weights, channels ascending, then experts")  # fmt: skip
            case "stored":
                return Stream(name, "out", lanes=experts, width=self.weight_bits, signed=True,
                              beats=self.channels, elements=experts * self.channels, steps=1,
                              auxiliary=True, peer=True, help="weights as they are stored, "
                              "experts ascending, then channels")  # fmt: skip
            case "bias":
                lanes = self.plan.lanes
                return Stream(name, "in", lanes=lanes, width=self.bias_bits, signed=True,
                              beats=-(-experts // lanes), elements=experts, steps=1, auxiliary=True,
                              help="biases, taken between inferences")  # fmt: skip
            case "mask":
                return Stream(name, "out", lanes=experts, width=1, signed=False,
                              beats=self.tokens, elements=self.tokens * experts,
                              steps=self.timesteps, auxiliary=True,
                              help="who got each token")  # fmt: skip
            case _:
                return Stream(name, "out", lanes=experts, width=bits_for(self.tokens),
                              signed=False, beats=1, elements=experts, steps=self.timesteps,
                              auxiliary=True, help="dropped tokens, by expert")  # fmt: skip

    @property
    def stimulus(self) -> dict[str, Array]:
        weight, bias = 2 ** (self.weight_bits - 1), 2 ** (self.bias_bits - 1)
        return {
            "tokens": Array(("timesteps", "tokens", "channels"), 0, 1, "tokens", "tokens"),
            "weights": Array(("experts", "channels"), -weight, weight - 1, "weights", "weights"),
            "bias": Array(("experts",), -bias, bias - 1, "bias", "biases"),
            "expert_out": Array(
                ("timesteps", "tokens", "experts", "channels"), 0, 1, "answer",
                "what experts answer; 0 where it is left out", optional=True,
            ),
        }  # fmt: skip

    @property
    def result(self) -> dict[str, Array]:
        shape = ("timesteps", "tokens", "channels")
        arrays = {"merged": Array(shape, 0, self.experts, "merged", "sums of answers")}
        if self.trace:
            arrays["mask"] = Array(
                ("timesteps", "tokens", "experts"), 0, 1, "mask", "who got the token"
            )
            arrays["dropped"] = Array(
                ("timesteps", "experts"), 0, self.tokens, "dropped", "tokens that were dropped"
            )
        return arrays

    @property
    def latency(self) -> int:
        return self.plan.latency

    @property
    def interval(self) -> int:
        return self.tokens * self.groups

    @property
    def cycles(self) -> int:
        return self.plan.cycles

    @property
    def notes(self) -> dict[str, Any]:
        return {
            "window": f"at most {self.window} tokens are on their way: they come in at once for "
            f"ever if experts take at most {self.plan.answer_clocks} clocks from the last beat of "
            "a token to the first one of its answer",
            "latency, cycles": "where somebody gets each token, with experts that answer at once"
            if self.always
            else "where nobody gets a token",
            "score": f"signed {self.score_bits} bit, without bias",
        }
