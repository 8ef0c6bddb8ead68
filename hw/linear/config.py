"""The parameters of the matrix product, and what follows from them."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from hw.config import Array, Config, ConfigError, most_divisor, param
from hw.linear.plan import Plan, sum_range, value_bits
from hw.stream import Stream

MOST_CHANNELS, MOST_LANES = 16, 8
"""Inputs and outputs of a beat unless more are asked for."""

USUAL_CHANNELS = 32
"""Channels of a token unless they follow from what is asked for."""


def _whole(number: int, part: int) -> int:
    """Return the least multiple of a part from a number on."""
    return -(-number // part) * part


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearConfig(Config):
    """Parameters of `Linear`.

    A token is ``inputs / channels_per_beat`` beats in and ``outputs / lanes`` beats out.
    """

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {},
        "digits": {"tokens": 16, "inputs": 64, "outputs": 128, "timesteps": 4, "mode": "events"},
        "icebreaker": {"tokens": 16, "inputs": 64, "outputs": 64, "timesteps": 4, "lanes": 4,
                       "channels_per_beat": 16, "mode": "events"},
    }  # fmt: skip

    tokens: int = param(16, "tokens N", low=1, high=1024)
    inputs: int = param(
        None, "inputs I: channels of a token that comes in", low=1, high=4096,
        derived="32, or the next whole number of beats",
    )  # fmt: skip
    outputs: int = param(
        None, "outputs O: channels of a token that goes out", low=1, high=4096,
        derived="32, or the next whole number of beats",
    )  # fmt: skip
    lanes: int = param(
        None, "outputs that are worked on at once, and of a beat; divides outputs",
        low=1, high=256, derived="the most up to 8",
    )  # fmt: skip
    channels_per_beat: int = param(
        None, "inputs of a beat; divides inputs", low=1, high=4096, derived="the most up to 16"
    )
    columns: int = param(
        1, "inputs of a slice, whose weights are added up in a clock; divides channels_per_beat",
        low=1, high=64,
    )  # fmt: skip
    mode: str = param(
        "dense",
        "each slice takes its clocks; or none if all its inputs are 0, so that clocks depend on "
        "the data, up to a bound",
        choices=("dense", "events"),
    )
    input_bits: int = param(
        1, "bits of an input, unsigned: 1 for spikes; each multiplies the clocks", low=1, high=8
    )
    weight_bits: int = param(8, "bits of a weight, signed", low=2, high=8)
    bias_bits: int = param(16, "bits of a bias, signed", low=2, high=24)
    bias_per_token: bool = param(False, "each token has biases of its own: a position embedding")

    def resolve(self) -> None:
        self.derive(
            inputs=_whole(USUAL_CHANNELS, self.channels_per_beat or self.columns),
            outputs=_whole(USUAL_CHANNELS, self.lanes or 1),
        )
        self.derive(
            lanes=most_divisor(self.outputs, MOST_LANES),
            channels_per_beat=most_divisor(
                self.inputs, max(MOST_CHANNELS, self.columns), self.columns
            ),
        )
        for name, whole in (
            ("lanes", "outputs"), ("channels_per_beat", "inputs"), ("columns", "channels_per_beat"),
        ):  # fmt: skip
            size, part = getattr(self, whole), getattr(self, name)
            if size % part:
                raise ConfigError(f"{name}: want a divisor of {whole} ({size}), got {part}")

    @property
    def plan(self) -> Plan:
        """What the engine is built for."""
        groups = self.outputs // self.lanes
        return Plan(
            lanes=self.lanes, columns=self.columns, channels=self.channels_per_beat,
            inputs=self.inputs, groups=groups, input_bits=self.input_bits,
            weight_bits=self.weight_bits, bias_bits=self.bias_bits, value_bits=self.value_bits,
            words=groups * self.inputs // self.columns,
            biases=groups * (self.tokens if self.bias_per_token else 1),
            least_turns=groups * self.input_bits, events=self.mode == "events", tag_bits=2,
        )  # fmt: skip

    @property
    def _sizes(self) -> tuple[int, int, int, int]:
        return self.inputs, self.input_bits, self.weight_bits, self.bias_bits

    @property
    def value_bits(self) -> int:
        """Bits of an output that never wraps."""
        return value_bits(*self._sizes)

    @property
    def streams(self) -> tuple[Stream, ...]:
        return tuple(self.stream(name) for name in ("spikes", "weights", "bias", "out"))

    def stream(self, name: str) -> Stream:
        """Return a stream by its name."""
        match name:
            case "spikes":
                elements = self.tokens * self.inputs
                return Stream(
                    name, "in", lanes=self.channels_per_beat, width=self.input_bits, signed=False,
                    beats=elements // self.channels_per_beat, elements=elements,
                    steps=self.timesteps, help="tokens, channels ascending",
                )  # fmt: skip
            case "weights":
                elements = self.outputs * self.inputs
                return Stream(
                    name, "in", lanes=self.columns, width=self.weight_bits, signed=True,
                    beats=elements // self.columns, elements=elements, steps=1, auxiliary=True,
                    help="weights, inputs ascending, then outputs; taken between inferences",
                )  # fmt: skip
            case "bias":
                elements = self.plan.biases * self.lanes
                return Stream(
                    name, "in", lanes=self.lanes, width=self.bias_bits, signed=True,
                    beats=self.plan.biases, elements=elements, steps=1, auxiliary=True,
                    help="biases, outputs ascending" + ", then tokens" * self.bias_per_token
                    + "; taken between inferences",
                )  # fmt: skip
            case _:
                elements = self.tokens * self.outputs
                return Stream(
                    name, "out", lanes=self.lanes, width=self.value_bits, signed=True,
                    beats=elements // self.lanes, elements=elements, steps=self.timesteps,
                    help="sums, channels ascending",
                )  # fmt: skip

    @property
    def stimulus(self) -> dict[str, Array]:
        weight, bias = 2 ** (self.weight_bits - 1), 2 ** (self.bias_bits - 1)
        top = 2**self.input_bits - 1
        return {
            "spikes": Array(
                ("timesteps", "tokens", "inputs"), 0, top, "spikes", "tokens: spikes or integers"
            ),
            "weights": Array(("outputs", "inputs"), -weight, weight - 1, "weights", "weights"),
            "bias": Array(
                ("tokens", "outputs") if self.bias_per_token else ("outputs",),
                -bias, bias - 1, "bias", "biases, added in every time step",
            ),
        }  # fmt: skip

    @property
    def result(self) -> dict[str, Array]:
        shape = ("timesteps", "tokens", "outputs")
        return {"out": Array(shape, *sum_range(*self._sizes), "out", "weights @ spikes + bias")}

    @property
    def busiest(self) -> dict[str, int]:
        return {"spikes": 2**self.input_bits - 1} if self.mode == "events" else {}

    @property
    def latency(self) -> int:
        p = self.plan
        return p.wait_clocks + p.input_bits * p.slices - 1 + p.pipe_clocks

    @property
    def interval(self) -> int:
        return self.tokens * self.plan.interval

    @property
    def cycles(self) -> int:
        p = self.plan
        first_token = self.latency + p.token_clocks - p.input_bits * p.slices
        return first_token + (self.timesteps * self.tokens - 1) * p.interval

    @property
    def notes(self) -> dict[str, Any]:
        p = self.plan
        low, high = sum_range(*self._sizes)
        clocks = {
            "latency, interval, cycles": "bounds, which tokens without a 0 reach: a token takes "
            f"{p.groups * p.input_bits} clocks for each of its {p.slices} slices that is not "
            f"empty, and at least one for each of its {p.groups} groups",
        }
        return {
            "out": f"signed {self.value_bits} bit; reaches {low}..{high}, so it never wraps",
            "weights": f"{p.words} words of {p.lanes * p.columns * p.weight_bits} bit",
            **(clocks if p.events else {}),
        }
