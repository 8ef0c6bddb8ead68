"""What one half of the engine makes of a time step and the other half applies."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.hdl import Value
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from hw.attributes import NO_COLLISION
from hw.queue import Marks
from hw.sdsa.config import SdsaConfig
from hw.turns import following

PAGES = ("waiting", "first", "none", "fits", "next_fits", "settled")
FOLLOWER = ("for_opening", "next_opening", "pop", "release", "drop")
"""What pages and their follower tell each other."""


class Pages(wiring.Component):
    """Keep what was made of whole time steps in their order: masks, or K^T V.

    A page of one word waits in a register and goes on to a second one, where it is applied. Pages
    of more words lie in memory, as many as it takes that nobody waits (`Plan.pages`).

    Parameters
    ----------
    config : SdsaConfig

    Attributes
    ----------
    claim : Signal(), in
        A page, or a mark of a void inference, is on its way; only while not `full`.
    full, to_full : Signal(), out
        There is no place for another one, now or in the next clock.
    write : Signal(), in
        Write `word` to `address` of the page that is being made.
    done : Signal(), in
        With the last `write` of a page.
    void : Signal(), in
        A mark comes instead of a page: of an inference that has none.
    opening : Signal(), in
        With `done`: of the first time step of an inference.
    waiting, first : Signal(), out
        There is a page, the oldest, and it is of the first time step of an inference.
    none : Signal(), out
        It is a mark of a void inference instead.
    fits, next_fits : Signal(), out
        In the next clock there is an oldest page, if none is popped or if one is, and it is of the
        first time step of an inference as `for_opening` or `next_opening` says.
    for_opening, next_opening : Signal(), in
    pop : Signal(), in
        The next one takes its place in `waiting`, `first` and `none`.
    release : Signal(), in
        The one in `data` is done with, which was popped before.
    settled : Signal(), out
        `data` is of the oldest one: it may be dropped.
    drop : Signal(), in
        Both at once.
    next_address : Signal(), in
        Address in the clock that follows.
    data : Signal(), out
        A word of the oldest page that is not released.
    """

    def __init__(self, config: SdsaConfig) -> None:
        self._config = config
        width = config.plan.word_bits
        address = range(config.plan.word_places)
        inputs = ("claim", "write", "done", "void", "opening", *FOLLOWER)
        super().__init__(
            dict.fromkeys(inputs, In(1))
            | dict.fromkeys(("full", "to_full", *PAGES), Out(1))
            | {
                "address": In(address),
                "word": In(width),
                "next_address": In(address),
                "data": Out(width),
            }
        )

    def elaborate(self, platform: object) -> Module:
        plan = self._config.plan
        m = Module()
        used = Signal(range(plan.pages + 1))
        freed = Signal()
        m.d.comb += [
            self.full.eq(used == plan.pages),
            self.to_full.eq(
                self.full | (self.claim & (used == plan.pages - 1) & plan.claims_in_a_row)
            ),
        ]
        m.d.sync += used.eq(used + self.claim - freed)
        comes = self.done | self.void
        self._marks(m, comes)
        if plan.words == 1:
            self._registers(m, comes, freed)
        else:
            m.d.comb += [freed.eq(self.release | self.drop), self.settled.eq(1)]
            self._memory(m, comes)
        return m

    def _marks(self, m: Module, comes: Value) -> None:
        """Keep the marks of the pages that wait."""
        depth = self._config.plan.pages + (self._config.plan.words == 1)
        m.submodules.marks = marks = Marks(2, depth)
        m.d.comb += [
            marks.write.eq(comes),
            marks.word.eq(Cat(self.opening, self.void)),
            marks.pop.eq(self.pop | self.drop),
            self.waiting.eq(marks.waiting),
            Cat(self.first, self.none).eq(marks.oldest),
            self.fits.eq(
                marks.will_wait & ~marks.to_come[1] & (marks.to_come[0] == self.for_opening)
            ),
            self.next_fits.eq(
                marks.will_follow & ~marks.to_follow[1] & (marks.to_follow[0] == self.next_opening)
            ),
        ]

    def _registers(self, m: Module, comes: Value, freed: Signal) -> None:
        ahead = Signal(len(self.word), reset_less=True)
        applied = Signal.like(ahead)
        some = Signal()  # there is one `ahead`
        m.d.comb += [freed.eq(some & (~self.settled | self.release)), self.data.eq(applied)]
        m.d.sync += [
            some.eq(comes | (some & ~freed)),
            self.settled.eq(freed | (self.settled & ~self.release & ~self.drop)),
        ]
        with m.If(self.done):
            m.d.sync += ahead.eq(self.word)
        # Whatever it is, and by a flip-flop of its own: the way to so many takes long.
        unsettled = Signal(init=1)
        m.d.sync += unsettled.eq(~(freed | (self.settled & ~self.release & ~self.drop)))
        with m.If(unsettled | self.release):
            m.d.sync += applied.eq(ahead)

    def _memory(self, m: Module, comes: Value) -> None:
        pages = self._config.plan.pages
        # The page that is written is not one that is read.
        m.submodules.memory = store = memory.Memory(
            shape=len(self.word), depth=pages * 2 ** len(self.address), init=[], attrs=NO_COLLISION
        )
        into, out_of = Signal(range(pages)), Signal(range(pages))

        read_page = Mux(self.release | self.drop, following(out_of, pages), out_of)
        m.d.sync += out_of.eq(read_page)
        with m.If(comes):
            m.d.sync += into.eq(following(into, pages))
        write, read = store.write_port(), store.read_port()
        m.d.comb += [
            write.addr.eq(Cat(self.address, into)),
            write.data.eq(self.word),
            write.en.eq(self.write),
            read.addr.eq(Cat(self.next_address, read_page)),
            self.data.eq(read.data),
        ]
