"""The parameters of an encoder block on one engine, and what follows from them."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar

from hw.attention import AttentionConfig
from hw.config import Array, ConfigError, HeadedConfig, most_divisor, param
from hw.lif import LifConfig
from hw.linear.plan import value_bits
from hw.sdsa import SdsaConfig
from hw.stream import Stream
from hw.transformer.schedule import Schedule

MOST_CHANNELS, MOST_LANES = 16, 8
"""Spikes of a word and outputs that are worked on at once, unless more are asked for."""

USUAL_HEADS, USUAL_HEAD_DIM = 2, 16
"""Heads, and channels of one, unless they follow from what is asked for."""

SETTINGS = ("weights", "bias", "threshold", "shift")
"""What is loaded at run time, whatever the attention is."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockConfig(HeadedConfig):
    """Parameters that `Encoder` and `Transformer` have in common.

    The sums of a layer are shifted by up to ``2^shift_bits - 1`` to the scale of the residual;
    what leaves `residual_bits` saturates.
    """

    SIM_SETTINGS: ClassVar[Mapping[str, Any]] = {"trace": True}

    tokens: int = param(16, "tokens N: patches of an image", low=1, high=1024)
    channels: int = param(
        None, "channels D of a token", low=1, high=4096, derived="heads * head_dim"
    )
    heads: int = param(
        None, "heads H", low=1, high=64,
        derived="channels / head_dim if both are given, else the most up to 2",
    )  # fmt: skip
    head_dim: int = param(
        None,
        "channels of one head",
        low=1,
        high=4096,
        derived="channels / heads; or 16, or the next that gives whole groups and words",
    )
    hidden: int = param(
        None, "channels between the two layers of the MLP, or of an expert", low=1, high=16384,
        derived="2 * channels",
    )  # fmt: skip
    experts: int = param(
        0, "experts E in place of the MLP, which a token is given to by masks; 0 for none",
        low=0, high=64,
    )  # fmt: skip
    attention: str = param(
        "sdsa", "of a block: spike-driven, stochastic, or none", choices=("sdsa", "ssa", "none")
    )
    variant: int = param(1, "of sdsa", low=1, high=4)
    encoder: str = param("sample", "of ssa", choices=("count", "sample"))
    rng: str = param("lfsr", "of ssa", choices=("lfsr", "sobol"))
    seed: int = param(1, "of ssa", low=1, high=2**32 - 1)
    reseed: bool = param(False, "of ssa: every pass through a block's attention draws the same")
    tau: float = param(2.0, "membrane time constant in time steps", low=1, high=1024)
    decay_input: bool = param(True, "the input is divided by tau as well (U = tau * h)")
    reset: str = param(
        "hard", "to 0, minus the threshold, or none", choices=("hard", "soft", "none")
    )
    fire: str = param("ge", "U >= threshold or U > threshold", choices=("ge", "gt"))
    threshold_bits: int = param(16, "bits of a loaded threshold, unsigned", low=1, high=24)
    attention_threshold: int = param(
        None, "of the neurons in sdsa; with variant 4 until others are loaded, which have as many "
        "bits", low=1, high=2**24, derived="1, and 8 with variants 3 and 4",
    )  # fmt: skip
    weight_bits: int = param(8, "bits of a weight, signed", low=2, high=8)
    bias_bits: int = param(16, "bits of a bias, signed", low=2, high=24)
    shift_bits: int = param(
        3, "bits of how far sums are shifted to the left to the scale of the residual",
        low=0, high=4,
    )  # fmt: skip
    residual_bits: int = param(
        None, "bits of the residual, signed, which saturates", low=2, high=24,
        derived="16, or as many as a sum has if that is more",
    )  # fmt: skip
    lanes: int = param(
        None, "outputs that are worked on at once; divides channels and hidden", low=1, high=256,
        derived="the most up to 8",
    )  # fmt: skip
    channels_per_beat: int = param(
        None, "spikes of a word; divides channels and hidden, and head_dim with variants 3 and 4",
        low=1, high=256, derived="the most up to 16",
    )  # fmt: skip
    columns: int = param(
        1, "inputs whose weights are added up in a clock; divides channels_per_beat",
        low=1, high=64,
    )  # fmt: skip
    mode: str = param(
        "dense",
        "each slice of the inputs takes its clocks; or none if all of it is 0, so that clocks "
        "depend on the data, up to a bound",
        choices=("dense", "events"),
    )
    trace: bool = param(False, "a stream of the spikes of every layer")

    def resolve(self) -> None:
        channels: int | None = self.channels
        if channels is None:
            self.derive(heads=USUAL_HEADS)
            part = math.lcm(self.lanes or 1, self.channels_per_beat or self.columns)
            part //= math.gcd(part, self.heads)
            self.derive(head_dim=-(-USUAL_HEAD_DIM // part) * part)
        self.derive_heads(USUAL_HEADS, USUAL_HEAD_DIM)
        self.derive(hidden=2 * self.channels)
        common = math.gcd(self.channels, self.hidden)
        product = self.attention == "sdsa" and self.variant > 2
        word = math.gcd(common, self.head_dim) if product else common
        self.derive(
            lanes=most_divisor(common, MOST_LANES),
            channels_per_beat=most_divisor(word, max(self.most_channels, self.columns)),
            attention_threshold=8 if product else 1,
        )
        for name, whole, size in (
            ("lanes", "channels and hidden", common),
            ("channels_per_beat", "channels, hidden and head_dim" if product
             else "channels and hidden", word),
            ("columns", "channels_per_beat", self.channels_per_beat),
        ):  # fmt: skip
            if size % getattr(self, name):
                raise ConfigError(
                    f"{name}: want a divisor of {whole} ({size}), got {getattr(self, name)}"
                )
        self.derive(residual_bits=max(16, min(self.value_bits, 24)))
        if self.residual_bits < self.value_bits:
            raise ConfigError(
                f"residual_bits: want at least {self.value_bits}, which sums have, "
                f"got {self.residual_bits}"
            )
        self.neuron, self.unit  # which refuse what they can't do

    @property
    def most_channels(self) -> int:
        """Spikes of a word, unless more are asked for."""
        return MOST_CHANNELS

    @property
    def schedule(self) -> Schedule:
        """The passes of an inference."""
        raise NotImplementedError

    @property
    def value_bits(self) -> int:
        """Bits of a sum in the engine."""
        most = max(p.inputs for p in self.schedule.passes)
        return value_bits(most, 1, self.weight_bits, self.bias_bits)

    @property
    def most_shift(self) -> int:
        """The most that a sum is shifted: also by the number of the bit that it is of."""
        return 2**self.shift_bits - 1 + self.schedule.planes - 1

    @property
    def neuron(self) -> LifConfig:
        """The neurons of a token, which take turns, with a threshold for each layer."""
        layers = len(self.schedule.firing)
        places = max(p.outputs for p in self.schedule.firing)
        most = max(places, 16)  # fewer lie in no memory
        return LifConfig(
            timesteps=self.timesteps, neurons=-(-most // layers) * layers, lanes=1,
            channels=layers, current_bits=self.residual_bits, tau=self.tau,
            decay_input=self.decay_input, reset=self.reset, fire=self.fire,
            threshold_load="neuron", threshold_bits=self.threshold_bits,
            threshold=2**self.threshold_bits - 1,
        )  # fmt: skip

    @property
    def unit(self) -> SdsaConfig | AttentionConfig | None:
        """The attention unit."""
        if self.attention == "none":
            return None
        settings: dict[str, Any] = {
            name: getattr(self, name) for name in ("timesteps", "tokens", "heads", "head_dim")
        }
        if self.attention == "ssa":
            settings |= {name: getattr(self, name) for name in ("encoder", "rng", "seed", "reseed")}
            settings |= {"columns": 1} if self.encoder == "count" else {}
            return AttentionConfig(**settings)
        settings |= {
            n: getattr(self, n) for n in ("variant", "tau", "decay_input", "reset", "fire")
        }
        if self.variant > 2:
            settings["columns"] = 1
        else:
            settings["channels_per_beat"] = self.channels_per_beat
        return SdsaConfig(**settings, threshold=self.attention_threshold)

    @property
    def weight_count(self) -> int:
        """Weights of all layers, those of what sizes are filled up with among them."""
        return self.schedule.plan.words * self.lanes * self.columns

    @property
    def bias_count(self) -> int:
        """Biases of all layers, likewise."""
        return self.schedule.plan.biases * self.lanes

    @property
    def layers(self) -> int:
        """Layers with neurons of their own, those of the attention unit not among them."""
        return len(self.schedule.firing)

    @property
    def attention_thresholds(self) -> int:
        """Thresholds that the attention is loaded with: of each channel of each block, or none."""
        loaded = self.attention == "sdsa" and self.variant == 4
        return self.schedule.blocks * self.channels if loaded else 0

    @property
    def settings(self) -> tuple[str, ...]:
        """Streams of what is loaded at run time."""
        return (*SETTINGS, "attention_threshold") if self.attention_thresholds else SETTINGS

    @property
    def shifts(self) -> int:
        """Layers that go into the residual."""
        return len(self.schedule.shifted)

    @property
    def spike_count(self) -> int:
        """Spikes and their absences in an inference."""
        return self.schedule.traced * self.channels_per_beat

    def stream(self, name: str) -> Stream:
        """Return a stream by its name: of settings, or the trace."""
        loaded = "; taken between inferences"

        def one(
            direction: str, lanes: int, width: int, signed: bool, elements: int, help: str
        ) -> Stream:
            return Stream(
                name, direction, lanes=lanes, width=width, signed=signed,
                beats=-(-elements // lanes), elements=elements, steps=1, help=help, auxiliary=True,
            )  # fmt: skip

        match name:
            case "weights":
                return one("in", self.columns, self.weight_bits, True, self.weight_count,
                           "weights of all layers in the engine's order" + loaded)  # fmt: skip
            case "bias":
                return one("in", self.lanes, self.bias_bits, True, self.bias_count,
                           "biases of all layers, likewise")  # fmt: skip
            case "threshold":
                return one("in", 1, self.threshold_bits, False, self.layers,
                           "thresholds, a layer a beat" + loaded)  # fmt: skip
            case "shift":
                return one("in", 1, max(self.shift_bits, 1), False, self.shifts,
                           "shifts into the residual, a layer a beat" + loaded)  # fmt: skip
            case "attention_threshold":
                assert isinstance(self.unit, SdsaConfig)
                return one("in", 1, self.unit.threshold_bits, False, self.attention_thresholds,
                           "thresholds of the attention, a channel a beat, block by block"
                           + loaded)  # fmt: skip
            case _:
                return one("out", self.channels_per_beat, 1, False, self.spike_count,
                           "spikes, layer by layer: tokens, time steps, channels; of the "
                           "attention time steps, tokens, channels")  # fmt: skip

    @property
    def stimulus(self) -> dict[str, Array]:
        weight, bias = 2 ** (self.weight_bits - 1), 2 ** (self.bias_bits - 1)
        arrays = {
            "weights": Array(("weight_count",), -weight, weight - 1, "weights", "weights"),
            "bias": Array(("bias_count",), -bias, bias - 1, "bias", "biases"),
            "threshold": Array(("layers",), 1, 2**self.threshold_bits - 1, "threshold",
                               "thresholds of the neurons"),
            "shift": Array(("shifts",), 0, 2**self.shift_bits - 1, "shift",
                           "shifts of what goes into the residual"),
        }  # fmt: skip
        if self.attention_thresholds:
            assert isinstance(self.unit, SdsaConfig)
            arrays["attention_threshold"] = Array(
                ("attention_thresholds",), 1, 2**self.unit.threshold_bits - 1,
                "attention_threshold", "thresholds of the attention's channels, block by block",
                optional=True,
            )  # fmt: skip
        return arrays

    @property
    def result(self) -> dict[str, Array]:
        spikes = Array(("spike_count",), 0, 1, "trace", "spikes of every layer")
        return {"spikes": spikes} if self.trace else {}

    @property
    def large_memory(self) -> bool:
        return True

    @property
    def by_inference(self) -> bool:
        return True

    @property
    def steady(self) -> dict[str, int]:
        """With `events`: settings with which whatever takes a 1 puts out a 1."""
        if self.mode == "dense":
            return {}
        most = {"weights": 2 ** (self.weight_bits - 1) - 1, "bias": 2 ** (self.bias_bits - 1) - 1}
        loaded = {"attention_threshold": 1} if self.attention_thresholds else {}
        return {**most, "threshold": 1, "shift": 0, **loaded}

    @property
    def busiest(self) -> dict[str, int]:
        if self.mode == "dense":
            return {}
        return {name: a.high for name, a in self.stimulus.items() if name in ("patches", "current")}

    @property
    def latency(self) -> int:
        return self.schedule.latency

    @property
    def cycles(self) -> int:
        return self.schedule.cycles

    @property
    def notes(self) -> dict[str, Any]:
        s = self.schedule
        return {
            "passes": ", ".join(f"{p.name} {s.pass_clocks(p)} clocks" for p in s.passes),
            "weights": f"{s.plan.words} words of {self.lanes * self.columns * self.weight_bits} "
            "bit, layer by layer in the order of the passes: group of outputs, slice of inputs, "
            "output, input",
            "spikes": f"{s.spike_words} words of {self.channels_per_beat} bit",
            "residual": f"signed {self.residual_bits} bit, saturates",
            **(
                {"latency, interval, cycles": "bounds, which an inference without a 0 reaches"}
                if self.mode == "events"
                else {}
            ),
            **(
                {"experts": f"expand and contract come {self.experts} times in a row"}
                if self.experts
                else {}
            ),
        }
