"""Where everything is when in the spike-driven engine."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from amaranth.utils import ceil_log2

from hw.arith import count_clocks, tree_clocks

if TYPE_CHECKING:
    from hw.sdsa.config import SdsaConfig

SPARE_TOKENS = 3
"""Tokens of a time step in which the neurons do nothing, so that they are done in time."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """The engine that makes a page of one time step while it applies that of the one before."""

    config: SdsaConfig

    @property
    def parts(self) -> int:
        """Clocks that a beat is worked on: one makes or applies a word."""
        return 1

    @property
    def words(self) -> int:
        """Words of a page."""
        return self.config.groups * self.parts

    @property
    def word_places(self) -> int:
        """Places of the words in a page; the part of a beat lies in the low bits."""
        return max(self.config.groups << ceil_log2(self.parts), 2)

    @property
    def word_sums(self) -> int:
        """Sums of a word."""
        return self.config.channels_per_beat

    @property
    def word_bits(self) -> int:
        """Bits of a word: here the spikes that the sums lead to."""
        return self.word_sums

    @property
    def step_clocks(self) -> int:
        """Clocks of a time step on the inputs."""
        return self.config.tokens * self.words

    @property
    def flush(self) -> int:
        """Clocks of a time step in which no token comes in."""
        c = self.config
        return (c.width + 1) * c.groups if c.pool else 0

    @property
    def claims_in_a_row(self) -> bool:
        """Whether work on a last token can follow what claims a place for its page."""
        return self.config.tokens == 1

    @property
    def registered(self) -> bool:
        """Whether a register is behind the memory of the sums: not if they come round too soon."""
        return self.words >= 4

    @property
    def page_clocks(self) -> int:
        """Clocks from the last beat of a time step in to the page that can be used."""
        return 2 + self.parts + self.registered

    @property
    def lag(self) -> int:
        """Clocks from the page that can be used to the first beat out."""
        return 0

    @property
    def pages(self) -> int:
        """Pages that are held: each from where its first word is claimed to its last use."""
        if self.words == 1:
            return 1
        held = self.words + 4 + self.registered + self.step_clocks
        return max(-(-held // self.step_clocks), 2)

    @property
    def count_clocks(self) -> int:
        """Clocks in which the synaptic operations of a word are counted."""
        return count_clocks(self.word_sums, max(ceil_log2(self.word_sums), 1))

    @property
    def counted(self) -> int:
        """Time steps whose operations are counted, or that wait until their page was used."""
        held = max(self.page_clocks + self.step_clocks, self.count_clocks) + 4
        return -(-held // self.interval) + 1

    @property
    def queued(self) -> int:
        """Beats of the masked operand that are kept with `buffer_q`: none of them has to wait."""
        return self.config.beats + -(-(self.lead + self.page_clocks) // self.parts) + 2

    @property
    def latency(self) -> int:
        """Clocks from the first beat in to the first beat out."""
        # The last beat comes in as many clocks after the first as the others are worked on.
        return self.lead + self.step_clocks - self.parts + 1 + self.page_clocks + self.lag

    @property
    def lead(self) -> int:
        """Clocks that pooling takes before the first beat is worked on."""
        return self.flush + self.config.pool

    @property
    def turn(self) -> int:
        """Least clocks from one time step to the next."""
        return 4 if self.words == 1 else 0

    @property
    def interval(self) -> int:
        """Clocks from one time step to the next."""
        return max(self.step_clocks + self.flush, self.turn)

    @property
    def cycles(self) -> int:
        """Clocks of one inference."""
        begins = (self.config.timesteps - 1) * self.interval  # the last time step
        ends = begins + self.latency + self.step_clocks - self.parts
        return max(ends, begins + self.sops_at) if self.config.count_sops else ends

    @property
    def sops_at(self) -> int:
        """Clocks from the first beat of a time step in to the count of its operations out."""
        counted = self.lead + self.step_clocks + self.registered + self.count_clocks + 2
        return max(counted, self.used_at)

    @property
    def used_at(self) -> int:
        """Clocks to where it is known that the page was used for the whole time step."""
        return self.latency + self.step_clocks - 1

    def ahead(self, name: str) -> int:
        """Return the beats of an input that are accepted with nothing on the others."""
        c = self.config
        if name == c.masked:
            return self.queued + 2 if c.buffer_q else 0
        if len(c.summed) > 1:
            return 1
        pages = self.pages + (c.groups == 1) + (not c.exact_or)
        if c.count_sops:
            pages = min(pages, self.counted)
        return pages * c.beats + (c.tokens - 1) * c.groups + 1


@dataclasses.dataclass(frozen=True)
class NeuronPlan(Plan):
    """With neurons between the sums and the mask."""

    @property
    def lanes(self) -> int:
        """Neurons that are served in a clock: as few as get through a time step's in its clocks."""
        c = self.config
        return -(-c.channels_per_beat // max(c.tokens - SPARE_TOKENS, 1))

    @property
    def shares(self) -> int:
        """Clocks that the neurons take for a group."""
        return -(-self.config.channels_per_beat // self.lanes)

    @property
    def page_clocks(self) -> int:
        c = self.config
        return 4 + (c.groups > 1) + self.registered + c.groups * self.shares

    @property
    def turn(self) -> int:
        # The sums of a time step are written again once the neurons are through with them.
        return 3 if self.words == 1 else 2 * self.words + 2 + self.registered


@dataclasses.dataclass(frozen=True)
class ProductPlan(Plan):
    """With K^T V as the page: a word holds some of its columns."""

    @property
    def parts(self) -> int:
        c = self.config
        return max(c.head_dim // c.columns, 1)

    @property
    def word_sums(self) -> int:
        return self.config.columns * self.config.head_dim

    @property
    def word_bits(self) -> int:
        return self.word_sums * self.config.sum_bits

    @property
    def sum_clocks(self) -> int:
        """Clocks in which the masked sums over a column are made, behind a register."""
        return tree_clocks(self.config.head_dim)

    @property
    def lag(self) -> int:
        """The registers of words and spikes, the sums between, and the queue."""
        return self.parts + self.sum_clocks + 3

    @property
    def queue_depth(self) -> int:
        """Beats in the output queue: no beat has to wait for room as long as they leave."""
        return -(-(self.parts + self.lag + 6) // self.parts)

    @property
    def q_count_clocks(self) -> int:
        """Clocks in which the spikes of Q in a beat are counted."""
        return count_clocks(
            self.config.channels_per_beat, max(ceil_log2(self.config.channels_per_beat), 1)
        )

    @property
    def counted(self) -> int:
        held = self.page_clocks + self.step_clocks + self.count_clocks + self.q_count_clocks + 6
        return -(-held // self.interval) + 1

    @property
    def used_at(self) -> int:
        return self.latency - self.lag + self.step_clocks + self.q_count_clocks + 1
