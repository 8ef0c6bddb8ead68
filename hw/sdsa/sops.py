"""Count the synaptic operations of a time step."""

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.hdl import Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for, ceil_log2

from hw.arith import count_clocks, multiply, pipelined_counts
from hw.queue import Marks
from hw.sdsa.config import SdsaConfig


class SopCounter(wiring.Component):
    """Count the ones that are summed up in a time step, and where a product is made those of Q.

    The count is put out when the page was used, or dropped with it.

    Parameters
    ----------
    config : SdsaConfig

    Attributes
    ----------
    claim : Signal(), in
        A time step is whole, with this or an earlier word; only while not `full`.
    full, to_full : Signal(), out
        No time step more can be counted, now or in the next clock.
    works, first, last : Signal(), in
        There are `ones`, the first or last ones of a time step.
    ones : in
    used : Signal(), in
        The oldest page was used for a whole time step.
    opening : Signal(), in
        It was the first one of an inference. Not where a product is made.
    moves, q_first, q_last : Signal(), in
        A beat of Q is used, and the marks of its payload. Where a product is made.
    q : in
        Its spikes.
    dropped : Signal(), in
        The oldest page was dropped.
    o : stream, out
        The count, once for each page that was used.
    """

    def __init__(self, config: SdsaConfig) -> None:
        self._config = config
        flags = ("claim", "works", "first", "last", "used", "dropped")
        q = {"q": In(config.channels_per_beat)} | dict.fromkeys(
            ("moves", "q_first", "q_last"), In(1)
        )
        super().__init__(
            dict.fromkeys(flags, In(1))
            | {
                "full": Out(1),
                "to_full": Out(1),
                "ones": In(config.plan.word_sums),
                "o": Out(config.stream("sops").signature),
            }
            | (q if config.variant > 2 else {"opening": In(1)})
        )

    def elaborate(self, platform: object) -> Module:
        c, plan = self._config, self._config.plan
        m = Module()
        pops = Signal()
        credit = Signal(range(plan.counted + 1), init=plan.counted)
        m.d.comb += [
            self.full.eq(credit == 0),
            self.to_full.eq(self.full | (self.claim & (credit == 1) & plan.claims_in_a_row)),
        ]
        m.d.sync += credit.eq(credit - self.claim + pops)

        m.submodules.sums = sums = Marks(
            bits_for(plan.word_sums * plan.words * c.tokens), plan.counted
        )
        total, (ends,) = _count(
            m, "ones", self.ones, self.works, self.first, [self.works & self.last], len(sums.word)
        )
        m.d.comb += [sums.write.eq(ends), sums.word.eq(total)]
        used, opening, more, dropped = self._use(m)
        m.submodules.uses = uses = Marks(2 + len(more), plan.counted)
        m.d.comb += [
            uses.write.eq(used | dropped),
            uses.word.eq(Cat(used, opening, more)),
            self.o.valid.eq(sums.waiting & uses.waiting & uses.oldest[0]),
            self.o.payload.data[0].eq(sums.oldest + multiply(uses.oldest[2:], c.head_dim)),
            self.o.payload.first.eq(uses.oldest[1]),
            self.o.payload.last.eq(1),
            pops.eq(sums.waiting & uses.waiting & (self.o.ready | ~uses.oldest[0])),
            sums.pop.eq(pops),
            uses.pop.eq(pops),
        ]
        return m

    def _use(self, m: Module) -> tuple[Value, Value, Value, Value]:
        """Return whether a page was used, its mark, the spikes of Q that used it, if it dropped."""
        if self._config.variant < 3:
            return self.used, self.opening, Const(0, 0), self.dropped
        after_last, was_opening = Signal(), Signal()
        opening = self.q_first | (was_opening & ~after_last)
        with m.If(self.moves):
            m.d.sync += [after_last.eq(self.q_last), was_opening.eq(opening)]
        most = self._config.tokens * self._config.channels
        marks = [self.used, opening, self.dropped]
        first = self.q_first | after_last
        total, (used, opening, dropped) = _count(
            m, "q", self.q, self.moves, first, marks, bits_for(most)
        )
        return used, opening, total, dropped


def _count(
    m: Module, name: str, bits: Value, comes: Value, first: Value, marks: list[Value], width: int
) -> tuple[Signal, Value]:
    """Count ones over several clocks; return the count, and `marks` when it holds their clock."""
    size = max(ceil_log2(len(bits)), 1)
    clocks = count_clocks(len(bits), size)
    zero = Signal(size)
    (ones,) = pipelined_counts(m, [list(bits)], [[zero] * clocks], name)
    later: Value = Cat(comes, first, *marks)
    for clock in range(clocks):
        delayed = Signal(2 + len(marks), name=f"{name}_marks{clock}")
        m.d.sync += delayed.eq(later)
        later = delayed
    total = Signal(width, name=f"{name}_total")
    with m.If(later[0]):
        m.d.sync += total.eq(Mux(later[1], 0, total) + ones)
    at = Signal(len(marks), name=f"{name}_at")
    m.d.sync += at.eq(later[2:])
    return total, at
