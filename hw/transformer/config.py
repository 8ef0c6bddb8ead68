"""The parameters of a whole spiking transformer, and what follows from them."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from amaranth.utils import bits_for, ceil_log2

from hw.config import Array, param
from hw.linear.plan import sum_range
from hw.stream import Stream
from hw.transformer.block import BlockConfig
from hw.transformer.schedule import NetworkSchedule


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransformerConfig(BlockConfig):
    """Parameters of `Transformer`; `gen.network` finds all of them for a trained model."""

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {},
        "digits": {"tokens": 16, "features": 4, "input_bits": 5, "channels": 64, "heads": 4,
                   "blocks": 2, "threshold_bits": 11, "shift_bits": 2, "timesteps": 4},
        "primer": {"tokens": 16, "features": 4, "input_bits": 5, "channels": 64, "heads": 4,
                   "blocks": 2, "threshold_bits": 11, "shift_bits": 2, "timesteps": 4, "lanes": 4},
        "icebreaker": {"tokens": 16, "features": 4, "input_bits": 5, "channels": 64, "heads": 4,
                       "blocks": 1, "threshold_bits": 11, "shift_bits": 2, "timesteps": 2,
                       "lanes": 4},
    }  # fmt: skip

    features: int = param(4, "numbers of a patch", low=1, high=1024)
    input_bits: int = param(4, "bits of such a number, unsigned (direct coding)", low=1, high=8)
    blocks: int = param(1, "encoder blocks L", low=1, high=64)
    classes: int = param(10, "classes", low=1, high=4096)

    @property
    def most_channels(self) -> int:
        return min(super().most_channels, self.features)

    @property
    def schedule(self) -> NetworkSchedule:
        return NetworkSchedule(self)

    @property
    def logit_bits(self) -> int:
        """Bits of a sum over time steps and tokens."""
        low, high = self.logit_range
        return max(bits_for(low, True), bits_for(high, True))

    @property
    def logit_range(self) -> tuple[int, int]:
        """Least and greatest logit."""
        low, high = sum_range(self.channels, 1, self.weight_bits, self.bias_bits)
        return low * self.timesteps * self.tokens, high * self.timesteps * self.tokens

    @property
    def streams(self) -> tuple[Stream, ...]:
        names = ["patches", *self.settings, "logits", "answer"] + ["trace"] * self.trace
        return tuple(self.stream(name) for name in names)

    def stream(self, name: str) -> Stream:
        """Return a stream by its name."""
        match name:
            case "patches":
                beats = self.schedule.image_beats
                return Stream(
                    name, "in", lanes=self.channels_per_beat, width=self.input_bits, signed=False,
                    beats=beats, elements=beats * self.channels_per_beat, steps=1,
                    help="an image: tokens, their numbers ascending, filled up to whole beats",
                )  # fmt: skip
            case "logits":
                return Stream(
                    name, "out", lanes=1, width=self.logit_bits, signed=True, beats=self.classes,
                    elements=self.classes, steps=1,
                    help="sums over time steps and tokens, a class a beat",
                )  # fmt: skip
            case "answer":
                return Stream(
                    name, "out", lanes=1, width=max(ceil_log2(self.classes), 1), signed=False,
                    beats=1, elements=1, steps=1, auxiliary=True,
                    help="the class of the greatest logit, of equal ones the first",
                )  # fmt: skip
            case _:
                return super().stream(name)

    @property
    def beat_features(self) -> int:
        """Numbers of a token, filled up to whole beats."""
        return self.schedule.feature_beats * self.channels_per_beat

    @property
    def stimulus(self) -> dict[str, Array]:
        patches = Array(
            ("tokens", "beat_features"), 0, 2**self.input_bits - 1, "patches",
            "an image: the numbers of its tokens, filled up to whole beats",
        )  # fmt: skip
        return {"patches": patches, **super().stimulus}

    @property
    def result(self) -> dict[str, Array]:
        logits = Array(("classes",), *self.logit_range, "logits", "sums over the spikes")
        answer = Array((), 0, self.classes - 1, "answer", "the class")
        return {"logits": logits, "answer": answer, **super().result}

    @property
    def interval(self) -> int:
        return self.schedule.interval // self.timesteps

    @property
    def pause(self) -> int:
        return self.schedule.interval % self.timesteps

    @property
    def notes(self) -> dict[str, Any]:
        between = f"those between the first and the last come {self.blocks} times in a row"
        return {**super().notes, "blocks": between}
