"""The parameters of an encoder block as a top, and what follows from them."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from hw.config import Array
from hw.stream import Stream
from hw.transformer.block import BlockConfig
from hw.transformer.schedule import READ_CLOCKS, Pass, Schedule


@dataclasses.dataclass(frozen=True)
class EncoderSchedule(Schedule):
    """The passes of a block by itself: neurons take the residual that came, then as ever."""

    @property
    def entry(self) -> Pass:
        c = self.config
        # A beat of no spikes for each token, as where experts' answers are merged.
        return Pass("enter", c.channels_per_beat, c.channels, residual="added")

    @property
    def out_at(self) -> int:
        """Clocks from the first beat of an inference to the first one that comes out."""
        return self.residual_words + sum(map(self.pass_clocks, self.sequence)) + READ_CLOCKS

    @property
    def latency(self) -> int:
        if not self.config.trace:
            return self.out_at
        return self.residual_words + self.first_word(self.entry)

    @property
    def cycles(self) -> int:
        return self.out_at + self.residual_words - 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderConfig(BlockConfig):
    """Parameters of `Encoder`."""

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {},
        "experts": {"tokens": 16, "channels": 64, "heads": 4, "threshold_bits": 11, "shift_bits": 4,
                    "experts": 4, "hidden": 32, "timesteps": 4},
        "icebreaker": {"tokens": 16, "channels": 64, "heads": 4, "threshold_bits": 11,
                       "shift_bits": 2, "timesteps": 2, "lanes": 4, "channels_per_beat": 4},
    }  # fmt: skip

    @property
    def schedule(self) -> EncoderSchedule:
        return EncoderSchedule(self)

    @property
    def streams(self) -> tuple[Stream, ...]:
        names = ["current", *self.settings, "out"] + ["trace"] * self.trace
        return tuple(self.stream(name) for name in names)

    def stream(self, name: str) -> Stream:
        """Return a stream by its name."""
        if name not in ("current", "out"):
            return super().stream(name)
        where = "in front of" if name == "current" else "behind"
        elements = self.tokens * self.channels
        return Stream(
            name, "in" if name == "current" else "out", lanes=1, width=self.residual_bits,
            signed=True, beats=elements, elements=elements, steps=self.timesteps,
            help=f"the residual {where} the block, tokens, channels ascending",
        )  # fmt: skip

    @property
    def stimulus(self) -> dict[str, Array]:
        return {"current": self._residual("current", "in front of"), **super().stimulus}

    @property
    def result(self) -> dict[str, Array]:
        return {"out": self._residual("out", "behind"), **super().result}

    def _residual(self, name: str, where: str) -> Array:
        top = 2 ** (self.residual_bits - 1)
        shape = ("timesteps", "tokens", "channels")
        return Array(shape, -top, top - 1, name, f"the residual {where} the block")

    @property
    def interval(self) -> int:
        return self.tokens * self.channels

    @property
    def pause(self) -> int:
        # The next one comes when the last number has been taken.
        return self.cycles + 1 - self.timesteps * self.interval
