"""The parameters of spike-driven self-attention, and what follows from them."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar

from amaranth.utils import bits_for, ceil_log2

from hw.config import Array, ConfigError, HeadedConfig, most_divisor, param
from hw.lif import LifConfig
from hw.sdsa.plan import NeuronPlan, Plan, ProductPlan
from hw.stream import Stream

OPERANDS = {"q": "queries", "k": "keys", "v": "values"}

MOST_CHANNELS = 512
"""Channels of a beat unless more are asked for."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SdsaConfig(HeadedConfig):
    """Parameters of `Sdsa`.

    A token is ``groups = channels / channels_per_beat`` beats, and a time step `tokens` tokens.
    """

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {},
        "cifar": {"tokens": 64, "channels": 512, "heads": 8, "timesteps": 4},
        "icebreaker": {"tokens": 64, "channels": 256, "heads": 8, "timesteps": 4,
                       "channels_per_beat": 32},
        "product": {"variant": 3, "tokens": 64, "channels": 512, "heads": 8, "timesteps": 4,
                    "columns": 2},
    }  # fmt: skip
    SIM_SETTINGS: ClassVar[Mapping[str, Any]] = {"count_sops": True}

    variant: int = param(
        1, "1: mask by the sum of an AND, 2: by a sum, 3: Q (K^T V), 4: with loaded thresholds",
        low=1, high=4,
    )  # fmt: skip
    masked: str = param(
        None,
        "the operand that is masked, by what is made of the others",
        choices=("q", "k", "v"),
        derived="q (as the released code has it), v with variant 2",
    )
    tokens: int = param(16, "tokens N", low=1, high=1024)
    channels: int = param(
        None, "channels D of a token, all heads", low=1, high=4096, derived="heads * head_dim"
    )
    heads: int = param(
        None, "heads H", low=1, high=4096, derived="channels / head_dim if both are given, else 1"
    )
    head_dim: int = param(
        None, "channels of one head", low=1, high=4096, derived="channels / heads, or 64"
    )
    channels_per_beat: int = param(
        None,
        "channels of a beat on every stream; divides channels",
        low=1,
        high=4096,
        derived="the most up to 512; with variants 3 and 4 head_dim, or columns if that is more",
    )
    columns: int = param(
        None,
        "columns of K^T V in a clock with variants 3 and 4; divides head_dim, or is that of "
        "several heads",
        low=1, high=4096, derived="the most up to 4",
    )  # fmt: skip
    tau: float = param(2.0, "membrane time constant in time steps", low=1, high=1024)
    decay_input: bool = param(True, "the sum is divided by tau as well (U = tau * h)")
    threshold: int = param(
        None, "what U is compared with, in units of the sum; tau * v_threshold with decay_input, "
        "over the scale",
        low=1, high=2**24,
        derived="1, and 8 (scale 0.125) with variants 3 and 4: v_threshold 0.5 at tau 2",
    )  # fmt: skip
    threshold_bits: int = param(
        None, "bits of a loaded threshold (variant 4), unsigned", low=1, high=24,
        derived="as many as threshold has",
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

    pool: bool = param(
        False, "3 x 3 max pool of K and V over the grid of tokens first (the models for DVS)"
    )
    width: int = param(
        None, "tokens of a row of that grid; divides tokens", low=1, high=1024,
        derived="the greatest divisor of tokens up to its square root",
    )  # fmt: skip
    buffer_q: bool = param(
        False, "keep the masked operand in block RAM until its mask is there; else it waits"
    )
    count_sops: bool = param(False, "count the synaptic operations of each time step")

    def resolve(self) -> None:
        self.derive_heads(1, 64)
        product = self.variant > 2
        self.derive(
            masked="v" if self.variant == 2 else "q",
            columns=most_divisor(self.head_dim, 4),
            threshold=8 if product else 1,
            width=most_divisor(self.tokens, math.isqrt(self.tokens)),
        )
        self.derive(
            channels_per_beat=max(self.columns, self.head_dim)
            if product
            else most_divisor(self.channels, MOST_CHANNELS),
            threshold_bits=bits_for(self.threshold),
        )
        if self.channels % self.channels_per_beat:
            raise ConfigError(
                f"channels_per_beat: want a divisor of channels ({self.channels}), "
                f"got {self.channels_per_beat}"
            )
        allowed = {1: "qkv", 2: "qv"}.get(self.variant, "q")
        if self.masked not in allowed:
            raise ConfigError(
                f"masked: want {' or '.join(allowed)} with variant={self.variant}, "
                f"got {self.masked!r}"
            )
        if self.tokens % self.width:
            raise ConfigError(f"width: want a divisor of tokens ({self.tokens}), got {self.width}")
        if self.pool and self.summed != ("k", "v"):
            raise ConfigError(
                "pool: want keys and values that are summed, as with variant=1 and "
                f"masked=q, got variant={self.variant} and masked={self.masked}"
            )
        if product:
            self._check_columns()
        neuron = LifConfig(tau=self.tau)
        self.derive(fraction_bits=neuron.fraction_bits, decay_bits=neuron.decay_bits)
        self.neuron(1, 1)  # refuses what it can't do

    def _check_columns(self) -> None:
        if self.head_dim % self.columns and (
            self.columns % self.head_dim or self.channels % self.columns
        ):
            raise ConfigError(
                f"columns: want a divisor of head_dim ({self.head_dim}), or a multiple of it that "
                f"divides channels ({self.channels}), got {self.columns}"
            )
        if self.channels_per_beat != max(self.columns, self.head_dim):
            raise ConfigError(
                f"channels_per_beat: want {max(self.columns, self.head_dim)} with "
                f"variant={self.variant}, head_dim={self.head_dim} and columns={self.columns}, "
                f"got {self.channels_per_beat}"
            )

    def neuron(self, neurons: int, lanes: int) -> LifConfig:
        """Return the neurons behind the sum: SN in the papers."""
        loaded = self.variant == 4
        return LifConfig(
            timesteps=self.timesteps, neurons=neurons, lanes=lanes,
            channels=self.channels if loaded and neurons > 1 else neurons,
            current_bits=self.total_bits, current_signed=False,
            tau=self.tau, decay_input=self.decay_input,
            threshold=self.threshold, reset=self.reset, fire=self.fire,
            threshold_load="neuron" if loaded else "none", threshold_bits=self.threshold_bits,
            fraction_bits=self.fraction_bits, decay_bits=self.decay_bits,
        )  # fmt: skip

    def _bits(self, most: int) -> int:
        """Return the bits of a sum of at most `most`.

        A neuron that is reset to 0 by whatever fires it does not see by how much a sum is over
        its threshold. So as soon as the top bit is set it may stay, and the others be anything, if
        it stands for the greatest threshold or more. Elsewhere the sum takes all its bits.
        """
        limit = 2**self.threshold_bits - 1 if self.variant == 4 else self.threshold
        limit += self.fire == "gt"
        if self.reset != "hard":
            return bits_for(most)
        return min(bits_for(most), ceil_log2(limit) + 1)

    @property
    def sum_bits(self) -> int:
        """Bits of a sum over tokens, whose top bit stays."""
        return self._bits(self.tokens)

    @property
    def total_bits(self) -> int:
        """Bits of what the neurons get, likewise."""
        return self._bits(self.tokens * self.head_dim) if self.variant > 2 else self.sum_bits

    @property
    def exact_or(self) -> bool:
        """Whether SN of the sum is an OR, with no state.

        Whatever fires goes back to 0 and whatever does not was 0, so a neuron fires exactly if
        its sum is not 0: sums are integers, and the threshold is 1.
        """
        if self.variant > 2:
            return False
        returns = self.reset == "hard" or (self.reset == "soft" and self.tokens == 1)
        return returns and self.fire == "ge" and self.threshold == 1

    @property
    def groups(self) -> int:
        """Beats of a token."""
        return self.channels // self.channels_per_beat

    @property
    def heads_per_beat(self) -> int:
        """Heads of a beat, where a beat is that of whole heads."""
        return self.channels_per_beat // self.head_dim

    @property
    def beats(self) -> int:
        """Beats of a time step on every stream."""
        return self.tokens * self.groups

    @property
    def summed(self) -> tuple[str, ...]:
        """The operands that the mask is made of."""
        operands = ("q", "v") if self.variant == 2 else ("q", "k", "v")
        return tuple(name for name in operands if name != self.masked)

    @property
    def plan(self) -> Plan:
        """Clocks and buffers."""
        if self.variant > 2:
            return ProductPlan(self)
        return Plan(self) if self.exact_or else NeuronPlan(self)

    @property
    def streams(self) -> tuple[Stream, ...]:
        names = sorted((*self.summed, self.masked), key="qkv".index)
        return (
            *(
                dataclasses.replace(
                    self.stream(n),
                    ahead=self.plan.ahead(n),
                    lockstep=n in self.summed and len(self.summed) > 1,
                )
                for n in names
            ),
            *((self.stream("threshold"),) if self.variant == 4 else ()),
            self.stream("out"),
            *((self.stream("sops"),) if self.count_sops else ()),
        )

    def stream(self, name: str) -> Stream:
        """Return a stream without what follows from its buffer."""
        if name == "threshold":
            neurons = self.neuron(self.tokens * self.channels, self.columns)
            (stream,) = (s for s in neurons.streams if s.name == name)
            return stream
        if name == "sops":
            return Stream("sops", "out", lanes=1, width=bits_for(self.most_sops), signed=False,
                          beats=1, elements=1, steps=self.timesteps, auxiliary=True,
                          help="synaptic operations of a time step")  # fmt: skip
        return Stream(
            name,
            "out" if name == "out" else "in",
            lanes=self.channels_per_beat,
            width=1,
            signed=False,
            beats=self.beats,
            elements=self.tokens * self.channels,
            steps=self.timesteps,
            help=f"{OPERANDS.get(name, 'outputs')}, channels ascending, head 0 lowest",
        )

    def origins(self, layers: int) -> range:
        """Return where thresholds of so many layers may begin, in beats of their stream."""
        return range(max(layers * self.stream("threshold").beats, 2))

    @property
    def stimulus(self) -> dict[str, Array]:
        shape = ("timesteps", "tokens", "channels")
        arrays = {
            name: Array(shape, 0, 1, name, OPERANDS[name])
            for name in OPERANDS
            if name in (*self.summed, self.masked)
        }
        if self.variant == 4:
            arrays["threshold"] = Array(
                ("channels",), 1, 2**self.threshold_bits - 1, "threshold", "thresholds",
                optional=True,
            )  # fmt: skip
        return arrays

    @property
    def result(self) -> dict[str, Array]:
        arrays = {"out": Array(("timesteps", "tokens", "channels"), 0, 1, "out", "output spikes")}
        if self.count_sops:
            arrays["sops"] = Array(("timesteps",), 0, self.most_sops, "sops", "synaptic operations")
        return arrays

    @property
    def most_sops(self) -> int:
        """Most synaptic operations of a time step.

        One is a bit that is summed up; with variants 3 and 4 also an element of K^T V.
        """
        ones = self.tokens * self.channels
        return 2 * ones * self.head_dim if self.variant > 2 else ones

    @property
    def latency(self) -> int:
        return min(self.plan.latency, self.plan.sops_at) if self.count_sops else self.plan.latency

    @property
    def interval(self) -> int:
        return self.plan.interval

    @property
    def cycles(self) -> int:
        return self.plan.cycles

    @property
    def notes(self) -> dict[str, Any]:
        terms = " AND ".join(name.upper() for name in self.summed)
        function = f"{self.masked.upper()} AND SN(sum over tokens of {terms})"
        if self.variant > 2:
            function = "SN(Q (K^T V)) for each head"
            form = f"{self.columns} of {self.channels} columns a clock"
        elif self.exact_or:
            form = "an OR over tokens, which equals it for these parameters: no counters, no state"
        else:
            assert isinstance(self.plan, NeuronPlan)
            form = f"counted, {self.plan.shares} clocks a group in {self.plan.lanes} neurons"
        return {
            "function": function,
            "SN of the sum": form,
            "v_threshold": self.threshold / self.tau if self.decay_input else self.threshold,
        }
