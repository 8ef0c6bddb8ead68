"""Where everything is when in the router tile."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

from hw.arith import tree_clocks

if TYPE_CHECKING:
    from hw.moe.config import MoeConfig


@dataclasses.dataclass(frozen=True)
class Plan:
    """Clocks and buffers of a tile."""

    config: MoeConfig

    SPARE: ClassVar[int] = 2
    """Tokens that may still come once the window is full, since that is known a clock late."""

    DECISIONS: ClassVar[int] = 4
    """Decisions that wait to be carried out, at most: a token is copied as fast as one comes."""

    @property
    def lanes(self) -> int:
        """Experts whose neurons are served in a clock."""
        return -(-self.config.experts // self.config.groups)

    @property
    def parts(self) -> int:
        """Clocks in which the neurons of a token are served."""
        return -(-self.config.experts // self.lanes)

    @property
    def tables(self) -> int:
        """Tables of partial sums that are read for a beat."""
        return self.config.channels_per_beat // self.config.shared

    @property
    def score_clocks(self) -> int:
        """Clocks from the last beat of a token in to its scores: table, register, tree, sum."""
        return 2 + tree_clocks(self.tables) + 1

    @property
    def decision_clocks(self) -> int:
        """Clocks from the last beat of a token in to who gets it."""
        return self.score_clocks + self.parts + 3

    @property
    def queued(self) -> int:
        """Beats that wait for the decision on their token, at most."""
        return self.decision_clocks + 2 * self.config.groups + 8

    @property
    def held(self) -> int:
        """Tokens for which every queue has room."""
        return self.config.window + self.SPARE

    @property
    def sends_at(self) -> int:
        """Clocks from the first beat of a token in to the first beat that an expert gets of it."""
        return self.config.groups - 1 + self.decision_clocks + 4

    @property
    def merge_clocks(self) -> int:
        """Clocks from the last beat of an answer, or the decision that nobody gets it, to merged.

        Three in a queue, and four to gate, add up and queue again.
        """
        return 3 + 4

    @property
    def latency(self) -> int:
        """Clocks from the first beat in to the first beat out."""
        c = self.config
        if c.always:
            return self.sends_at
        decided = c.groups - 1 + self.decision_clocks + 3
        # Who got a token comes out behind its last beat is merged.
        return decided + (min(4, c.groups) if c.trace else 4)

    @property
    def cycles(self) -> int:
        """Clocks of an inference; an expert's answer begins behind the last beat of a token."""
        c = self.config
        last = (c.timesteps * c.tokens - 1) * c.groups
        if not c.always:
            return c.groups - 1 + self.decision_clocks + self.merge_clocks + last + c.groups - 1
        return self.sends_at + last + 3 * (c.groups - 1) + 1 + self.merge_clocks

    @property
    def own_clocks(self) -> int:
        """Clocks from a token's first beat in until it is merged, without what its expert takes.

        In and decided on, to the expert, sent and answered whole, merged, and its place free again.
        """
        return self.sends_at + 2 * (self.config.groups - 1) + self.merge_clocks + 2

    @property
    def answer_clocks(self) -> int:
        """Clocks that experts may take to answer so that tokens come in at once for ever.

        From the last beat of a token to the first one of its answer, beyond the next clock.
        """
        return self.config.window * self.config.groups - self.own_clocks
