"""Where everything is when: the clocks and buffers of both encoders."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from amaranth.utils import ceil_log2

from hw.arith import CHAIN, LAYERS_PER_CLOCK, count_clocks
from hw.blocks import BlockShape, cut
from hw.buffer import BufferShape, TokenShape
from hw.queue import BLOCK_QUEUE_CLOCKS, QUEUE_CLOCKS, SHORT_QUEUE

if TYPE_CHECKING:
    from hw.attention.config import AttentionConfig

LARGE = 1024
"""Pairs of bits that a design compares in a clock from which on it is too large for an iCE40: there
each layer of full adders has its own flip-flops."""

DENSE = 4096
"""Pairs from which on carry chains are short: wires decide over the clock rate there, and a tool
for timing follows a carry to the end of its chain, though its count ends before."""

SHORT_CHAIN = 16
"""Places of such a chain. At 8192 pairs 4 % more cells, and a clock rate up by 9 % as placed."""

HUGE = 12288
"""Pairs from which on flip-flops would run out on an ECP5 before LUTs do."""

SMALL_COLUMNS = 4
"""Up to this many columns cells come before clock rate: outputs are counted in one clock."""

READ_CLOCKS = 3
"""Clocks in which Q is read where keys are held: the memory, its register, and one beside them."""

COUNT_READ_CLOCKS = 3
"""Clocks in which the counts of earlier keys are read: a register more, which can be cleared."""

HOP = 8
"""Keys, or channels, that a query or a row of scores meets in a clock before it goes on."""

MOST_HELD = 4
"""Most groups of keys that are held one after another."""

WORD = 4
"""Tokens of a word of the sample encoder's memories."""

RAM_WORDS = 16
"""Words of one of them: what a RAM in LUTs has, so that none needs a multiplexer of its own."""


@dataclasses.dataclass(frozen=True)
class CountPlan:
    """The pipeline of the count encoder; a stage is a clock behind the decision on a group."""

    config: AttentionConfig

    @property
    def _pairs(self) -> int:
        """Pairs of bits that are compared in a clock."""
        return self.config.rows * self.config.columns * self.config.channels

    @property
    def layers(self) -> int:
        """Layers of full adders between registers."""
        return 1 if LARGE <= self._pairs < HUGE else LAYERS_PER_CLOCK

    @property
    def inner(self) -> int:
        """Clocks of the inner one of the two loops of a time step."""
        raise NotImplementedError

    @property
    def outer(self) -> int:
        """Rounds of the outer one."""
        raise NotImplementedError

    @property
    def interval(self) -> int:
        """Clocks from one time step to the next."""
        return self.inner * self.outer

    @property
    def issues_first(self) -> bool:
        """Whether something leaves in the first clock of a time step."""
        return self.config.groups == 1

    @property
    def begins_at(self) -> int:
        """Clocks from where a time step waits on all inputs to where it is begun."""
        raise NotImplementedError

    @property
    def key_stage(self) -> int:
        """Stage at which Q and K are there."""
        raise NotImplementedError

    @property
    def start_stage(self) -> int:
        """Stage at which the scores' random number is there: read, and moved by row and column."""
        return max(self.key_stage, 3)

    @property
    def score_clocks(self) -> int:
        """Clocks from Q and K to the counts of their scores."""
        size = self.config.head_dim
        late = self.start_stage - self.key_stage
        return count_clocks(size, ceil_log2(size), late, self.layers)

    @property
    def value_stage(self) -> int:
        """Stage at which the scores are there, and V."""
        return self.key_stage + self.score_clocks

    @property
    def output_clocks(self) -> int:
        """Clocks from the scores of a group to its counts."""
        c = self.config
        return count_clocks(c.columns, ceil_log2(c.tokens), 0, self.layers)

    @property
    def output_stage(self) -> int:
        """Stage at which the outputs are there."""
        return self.value_stage + self.output_clocks

    @property
    def last_stage(self) -> int:
        """Last stage at which anything is done."""
        return self.output_stage

    @property
    def queue_depth(self) -> int:
        """Words that may be on their way to the output: with fewer the pipeline would wait."""
        return -(-(self.output_stage + BLOCK_QUEUE_CLOCKS + 2) // self.issue_clocks) + 1

    @property
    def issue_clocks(self) -> int:
        """Clocks from one word to the next."""
        raise NotImplementedError

    @property
    def block_queue(self) -> bool:
        """Whether the output queue is in block RAM."""
        return self.queue_depth > SHORT_QUEUE

    @property
    def queue_clocks(self) -> int:
        """Clocks from the write of a word into the output queue to where it can be read."""
        return BLOCK_QUEUE_CLOCKS if self.block_queue else QUEUE_CLOCKS

    def buffer(self, name: str) -> BufferShape:
        """Return what the buffer of an input is like."""
        raise NotImplementedError

    def slots(self, name: str) -> int:
        """Return the time steps that are buffered of an input."""
        return self.buffer(name).slots

    @property
    def latency(self) -> int:
        """Clocks from the first beat in to the first beat out."""
        raise NotImplementedError

    @property
    def cycles(self) -> int:
        """Clocks of one inference."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class FoldedPlan(CountPlan):
    """Folds of queries, for each of which all groups of keys are read."""

    @property
    def deep(self) -> bool:
        """Whether clock rate comes before cells."""
        return self.config.columns > SMALL_COLUMNS

    @property
    def inner(self) -> int:
        return self.config.fold_clocks

    @property
    def outer(self) -> int:
        return self.config.folds

    @property
    def begins_at(self) -> int:
        return int(self.deep)

    @property
    def read_clocks(self) -> int:
        """Clocks in which Q, K and V are read.

        Where K and V lie in many memories, some are far from where their bits are used.
        """
        return 3 if self.deep else 1

    @property
    def key_stage(self) -> int:
        return self.read_clocks

    @property
    def output_clocks(self) -> int:
        """Clocks from the scores of a group to its counts; 0 if they are summed up at once."""
        return super().output_clocks if self.deep else 0

    @property
    def issue_clocks(self) -> int:
        return self.inner

    def buffer(self, name: str) -> TokenShape:
        c = self.config
        return TokenShape(
            stream=c.stream(name),
            tokens=c.tokens_per_beat,
            columns=c.rows if name == "q" else c.columns,
            begins_at=self.begins_at,
            used_at=self.value_stage if name == "v" else self.key_stage,
            interval=self.interval,
            read_clocks=self.read_clocks,
        )

    @property
    def latency(self) -> int:
        c = self.config
        serial = 0 if c.rows == c.tokens_per_beat or c.beats == 1 else 1
        last_group = self.begins_at + c.groups - 1
        return c.beats + last_group + self.output_stage + self.queue_clocks + serial

    @property
    def cycles(self) -> int:
        c = self.config
        last_rows = c.tokens - (c.folds - 1) * c.rows
        before = c.timesteps * self.interval - self.inner
        return self.latency + before + -(-last_rows // c.tokens_per_beat) - 1


@dataclasses.dataclass(frozen=True)
class HeldPlan(CountPlan):
    """Passes of all queries, through each of which a group of keys is held."""

    @property
    def longest(self) -> int:
        """Places of the longest carry chain of a count."""
        return SHORT_CHAIN if self._pairs >= DENSE else CHAIN

    @property
    def inner(self) -> int:
        return self.config.beats

    @property
    def outer(self) -> int:
        return self.config.groups

    @property
    def begins_at(self) -> int:
        return int(self.interval > 1)

    @property
    def issue_clocks(self) -> int:
        return 1

    @property
    def key_stage(self) -> int:
        return self.blocks("k", 0).soonest

    @property
    def value_stage(self) -> int:
        # All hops in step, and a register more: the keys lie apart from the values.
        return self.key_stage + self.score_clocks + len(self.blocks("k", 0).hops)

    @property
    def output_hops(self) -> list[range]:
        """Channels of each hop."""
        return cut(self.config.channels, HOP)

    @property
    def output_stage(self) -> int:
        return self.value_stage + self.output_clocks + len(self.output_hops) - 1

    @property
    def last_stage(self) -> int:
        """Counts of a group go into memory a clock behind the last output."""
        return self.output_stage + (self.config.groups > 1)

    @property
    def count_clocks(self) -> int:
        """Least clocks of a pass, for its counts to be there in the next one."""
        return self.output_clocks + COUNT_READ_CLOCKS + 2

    def blocks(self, name: str, used_at: int | None = None) -> BlockShape:
        """Return what the buffer of k or v is like, if it is used at a stage."""
        c = self.config
        if used_at is None:
            used_at = self.value_stage if name == "v" else self.key_stage
        p = c.tokens_per_beat
        return BlockShape(
            stream=c.stream(name),
            tokens=p,
            columns=c.columns,
            begins_at=self.begins_at,
            used_at=used_at,
            interval=self.interval,
            hop=HOP if name == "v" else -(-HOP // p) * p,
            by_channel=name == "v",
        )

    def queries(self) -> TokenShape:
        """Return what the buffer of q is like."""
        c = self.config
        return TokenShape(
            stream=c.stream("q"),
            tokens=c.tokens_per_beat,
            columns=c.tokens_per_beat,
            begins_at=self.begins_at,
            used_at=self.key_stage,
            interval=self.interval,
            read_clocks=READ_CLOCKS,
        )

    def buffer(self, name: str) -> BufferShape:
        return self.queries() if name == "q" else self.blocks(name)

    @property
    def latency(self) -> int:
        c = self.config
        last_pass = self.begins_at + (c.groups - 1) * c.beats
        return c.beats + last_pass + self.output_stage + self.queue_clocks

    @property
    def cycles(self) -> int:
        c = self.config
        return self.latency + (c.timesteps - 1) * self.interval + c.beats - 1


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
