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

    SPARE: ClassVar[int] = 3
    """Tokens that may still come once the window is full, since that is known two clocks late."""

    NEAR: ClassVar[int] = 4
    """Tables that are beside each other; what more of them say is registered on the way."""

    DECISIONS: ClassVar[int] = 4
    """Decisions that wait to be carried out, at most: a token is copied as fast as one comes."""

    @property
    def lanes(self) -> int:
        """Experts of a tile whose neurons are served in a clock."""
        c = self.config
        if c.tiles == 1:
            return -(-c.experts // c.groups)
        # The same number in each clock, so that settings can be cut between tiles.
        least = -(-c.own * (c.tiles if c.meets else 1) // c.groups)
        return next(n for n in range(least, c.own + 1) if c.own % n == 0)

    @property
    def parts(self) -> int:
        """Clocks in which the neurons of a token are served."""
        return -(-self.config.own // self.lanes)

    @property
    def slots(self) -> int:
        """Clocks in which a token's experts are compared: a tile's own, then the others'."""
        return self.parts * (self.config.tiles if self.config.meets else 1)

    @property
    def tables(self) -> int:
        """Tables of partial sums that are read for a beat."""
        return self.config.channels_per_beat // self.config.shared

    @property
    def score_clocks(self) -> int:
        """Clocks from the last beat of a token in to its scores: table, registers, tree, sum."""
        return self.read_clocks + tree_clocks(self.tables) + 1

    @property
    def read_clocks(self) -> int:
        """Clocks from a beat in to what the tables say of it: their registers, and one more."""
        return 3 if self.tables > self.NEAR else 2

    @property
    def decision_clocks(self) -> int:
        """Clocks from the last beat of a token in to who gets it.

        Where tiles meet, values wait in a queue, and there is a register behind the link.
        """
        return self.score_clocks + self.slots + (7 if self.config.meets else 3)

    @property
    def waiting(self) -> int:
        """Tokens that wait for the decision on them, at most, and one that comes in.

        Where tiles meet, one may be as far behind another as tokens may be on their way.
        """
        if self.config.meets:
            return self.held + 1
        return -(-(self.decision_clocks + 2 * self.config.groups + 8) // self.config.groups) + 1

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
        """Clocks from the decision that nobody gets it until a token is merged.

        Four in a queue, and in each tile four to gate, add up and queue again. From the last beat
        of an answer it is one less.
        """
        return 4 + 4 * self.config.tiles

    @property
    def latency(self) -> int:
        """Clocks from the first beat in to the first beat out."""
        c = self.config
        if c.always:
            return self.sends_at
        decided = c.groups - 1 + self.decision_clocks + self.merge_clocks - 4
        # Who got a token comes out when its last beat is merged; several tiles' masks are queued.
        return decided + (min(4, c.groups + (c.tiles > 1)) if c.trace else 4)

    @property
    def cycles(self) -> int:
        """Clocks of an inference; an expert's answer begins behind the last beat of a token."""
        c = self.config
        last = (c.timesteps * c.tokens - 1) * c.groups
        if not c.always:
            return c.groups - 1 + self.decision_clocks + self.merge_clocks + last + c.groups - 1
        return self.sends_at + last + 3 * (c.groups - 1) + self.due_clocks + self.merge_clocks - 1

    @property
    def due_clocks(self) -> int:
        """Clocks from the last beat of a token to the first one of its answer, at least.

        The tag that is due is known four clocks behind the first beat of the token.
        """
        return 2 if self.config.groups == 1 else 1

    @property
    def own_clocks(self) -> int:
        """Clocks that the window must cover beside what an expert takes to answer.

        From a token's first beat in to that of it to the expert; two times a token, which is taken
        and answered; its way through the merge, less the output's queue; and what may not come in
        while it is seen that it has left.
        """
        groups = self.config.groups
        return self.sends_at + 2 * (groups - 1) + self.merge_clocks - 4 + groups

    @property
    def answer_clocks(self) -> int:
        """Clocks that experts may take to answer so that tokens come in at once for ever.

        From the last beat of a token to the first one of its answer, beyond the next clock.
        """
        return self.config.window * self.config.groups - self.own_clocks
