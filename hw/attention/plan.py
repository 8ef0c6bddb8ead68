"""Where everything is when: the clocks and buffers of both encoders."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from amaranth.utils import ceil_log2

from hw.arith import LAYERS_PER_CLOCK, count_clocks
from hw.buffer import BufferShape

if TYPE_CHECKING:
    from hw.attention.config import AttentionConfig

LARGE = 1024
"""Pairs of bits that a design compares in a clock from which on it is too large for an iCE40: there
each layer of full adders has its own flip-flops."""

SMALL_COLUMNS = 4
"""Up to this many columns cells come before clock rate: outputs are counted in one clock."""

QUEUE_CLOCKS = 2
"""Clocks from the write of a word into the output queue to where it can be read."""

WORD = 4
"""Tokens of a word of the sample encoder's memories."""

RAM_WORDS = 16
"""Words of one of them: what a RAM in LUTs has, so that none needs a multiplexer of its own."""


@dataclasses.dataclass(frozen=True)
class CountPlan:
    """The pipeline of the count encoder; a stage is a clock behind the decision on a group."""

    config: AttentionConfig

    @property
    def deep(self) -> bool:
        """Whether clock rate comes before cells."""
        return self.config.columns > SMALL_COLUMNS

    @property
    def layers(self) -> int:
        """Layers of full adders between registers."""
        c = self.config
        return 1 if c.rows * c.columns * c.channels >= LARGE else LAYERS_PER_CLOCK

    @property
    def begins_at(self) -> int:
        """Clocks from where a time step waits on all inputs to where it is begun."""
        return int(self.deep and self.interval > 1)

    @property
    def read_clocks(self) -> int:
        """Clocks in which Q, K and V are read.

        Where K and V lie in many memories, some are far from where their bits are used.
        """
        if not self.deep:
            return 1
        return 3 if self.config.groups > 1 else 2

    @property
    def key_stage(self) -> int:
        """Stage at which Q and K are there."""
        return self.read_clocks

    @property
    def start_stage(self) -> int:
        """Stage at which the scores' random number is there: read, and moved by row and column."""
        return 3

    @property
    def value_stage(self) -> int:
        """Stage at which the scores are there, and V."""
        size = self.config.head_dim
        late = self.start_stage - self.key_stage
        return self.key_stage + count_clocks(size, ceil_log2(size), late, self.layers)

    @property
    def output_clocks(self) -> int:
        """Clocks from the scores of a group to its counts; 0 if they are summed up at once."""
        c = self.config
        if c.groups > 1 and not self.deep:
            return 0
        return count_clocks(c.columns, ceil_log2(c.tokens), 0, self.layers)

    @property
    def output_stage(self) -> int:
        """Stage at which the outputs are there."""
        return self.value_stage + self.output_clocks

    @property
    def queue_depth(self) -> int:
        """Folds that may be on their way to the output: with fewer the pipeline would wait."""
        return -(-(self.output_stage + QUEUE_CLOCKS + 2) // self.config.fold_clocks) + 1

    def buffer(self, name: str) -> BufferShape:
        """Return what the buffer of an input is like."""
        c = self.config
        return BufferShape(
            stream=c.stream(name),
            tokens=c.tokens_per_beat,
            columns=c.rows if name == "q" else c.columns,
            begins_at=self.begins_at,
            used_at=self.value_stage if name == "v" else self.key_stage,
            interval=self.interval,
            read_clocks=self.read_clocks,
        )

    def slots(self, name: str) -> int:
        """Return the time steps that are buffered of an input."""
        return self.buffer(name).slots

    @property
    def latency(self) -> int:
        """Clocks from the first beat in to the first beat out."""
        c = self.config
        serial = 0 if c.rows == c.tokens_per_beat or c.beats == 1 else 1
        last_group = self.begins_at + c.groups - 1
        return c.beats + last_group + self.output_stage + QUEUE_CLOCKS + serial

    @property
    def interval(self) -> int:
        """Clocks from one time step to the next."""
        return self.config.folds * self.config.fold_clocks

    @property
    def cycles(self) -> int:
        """Clocks of one inference."""
        c = self.config
        last_rows = c.tokens - (c.folds - 1) * c.rows
        before = c.timesteps * self.interval - c.fold_clocks
        return self.latency + before + -(-last_rows // c.tokens_per_beat) - 1


@dataclasses.dataclass(frozen=True)
class SamplePlan:
    """The pipeline and the memories of the sample encoder."""

    config: AttentionConfig

    @property
    def word(self) -> int:
        """Tokens that are written at once."""
        return min(WORD, self.config.tokens)

    @property
    def buffered(self) -> int:
        """Time steps that are buffered of each input.

        It starts to read a time step 3 clocks after its last token came, and a clock after the
        first token of the last word is read the slot is free again.
        """
        return 2 + max(0, -((self.word - 4) // self.config.tokens))

    @property
    def words(self) -> int:
        """Words of a time step."""
        return self.config.tokens // self.word

    @property
    def segments(self) -> int:
        """Memories of `RAM_WORDS` words that hold a time step."""
        return -(-self.words // RAM_WORDS)

    @property
    def gather_clocks(self) -> int:
        """Clocks in which what was read of one channel is brought together.

        Each of the buffered time steps and `segments` gives the bits of a word; four are joined at
        a time, until there are two.
        """
        parts = self.buffered * self.segments * self.word
        clocks = 0
        while parts > 2:
            parts, clocks = -(-parts // 4), clocks + 1
        return clocks

    @property
    def butterfly_clocks(self) -> int:
        """Stages of the exchange of channels, of two bits of the draw each."""
        return -(-ceil_log2(self.config.head_dim) // 2)

    def slots(self, name: str) -> int:
        """Return the time steps that are buffered of an input: of all alike."""
        return self.buffered

    @property
    def latency(self) -> int:
        """Clocks from the first beat in to the first beat out."""
        return self.config.tokens + 8 + self.gather_clocks + self.butterfly_clocks

    @property
    def interval(self) -> int:
        """Clocks from one time step to the next."""
        return self.config.tokens

    @property
    def cycles(self) -> int:
        """Clocks of one inference."""
        return self.latency + self.config.timesteps * self.config.tokens - 1
