"""The operand that waits for what is made of the others."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.hdl import Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.sdsa.config import SdsaConfig
from hw.sdsa.pages import FOLLOWER, PAGES
from hw.stream import FrameGuard
from hw.turns import following


class Follower(wiring.Component):
    """Let each whole time step of an operand out with its page, and keep the two together.

    Latency 1 clock. Beats go alternately into two registers, so that no path leads from the output
    to the input; picking one of them costs nothing, since it is in the LUT that applies a mask.

    A time step without its page waits; where one of them lacks an inference, or the rest of one,
    that of the other is dropped.

    Parameters
    ----------
    config : SdsaConfig

    Attributes
    ----------
    i : stream, in
    o : stream, out
    group, next_group : Signal(), out
        Place of the beat on `o` in its token, or of the next one; of that in the next clock.
    waiting, first, none, fits, next_fits, settled : Signal(), in
    for_opening, next_opening, pop, release, drop : Signal(), out
        As `hw.sdsa.pages.Pages` has them.
    fault : Signal(), out
        A broken frame is found.
    """

    def __init__(self, config: SdsaConfig) -> None:
        self._config = config
        self._stream = config.stream(config.masked)
        group = range(max(config.groups, 2))
        super().__init__(
            {
                "i": In(self._stream.signature),
                "o": Out(config.stream("out").signature),
                "group": Out(group),
                "next_group": Out(group),
            }
            | dict.fromkeys(PAGES, In(1))
            | dict.fromkeys((*FOLLOWER, "fault"), Out(1))
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.guard = guard = FrameGuard(self._stream, joined=True, lockstep=True)
        wiring.connect(m, wiring.flipped(self.i), guard.i)
        goes = Signal()
        discard = Signal()  # the rest of an inference, or all of the next
        broken = Signal()  # what came of a broken time step is still to leave
        voided = Signal()  # and it was all that the oldest page was for
        drop = Signal()  # the oldest page, which the operand lacks
        states = Cat(discard, broken, drop)
        both = Signal()  # registers are full
        opens = Signal(init=1)  # none of this is the case, and one is empty
        at_step = Signal(init=1)  # no beat of the time step at hand has come
        admits = Signal()  # there is a page for the time step at hand: known from the clock before
        idle = Signal()
        lacks = Signal()  # the pages lack what is left of the inference at hand
        m.d.comb += [
            self.for_opening.eq(guard.opening),
            self.next_opening.eq(guard.in_final),
            idle.eq(self.waiting & ~states.any() & at_step & self.settled & ~self.o.valid),
            lacks.eq(idle & (self.none | (self.first & ~guard.opening))),
            goes.eq(guard.o.valid & admits & opens),
            guard.o.ready.eq(discard | (admits & opens)),
            self.pop.eq(guard.done & ~discard),
            self.drop.eq(drop),
            self.fault.eq(guard.fault),
        ]
        breaks = guard.broken | guard.void
        spare = idle & guard.opening & (self.none | ~self.first)  # the operand lacks it
        m.d.sync += [
            discard.eq(Mux(discard, ~guard.whole & ~guard.failed, lacks)),
            broken.eq(Mux(broken, self.o.valid | voided, ~discard & breaks)),
            drop.eq(spare | (voided & ~drop & self.settled & ~self.o.valid)),
            voided.eq(Mux(voided, ~drop, ~discard & guard.void)),
            # One clock later than it could, and as if whatever may come did: a beat comes too late
            # in its clock to be looked at.
            opens.eq(
                ~(states.any() | breaks | lacks | spare)
                & (~self.o.valid | self.o.ready | ~(both | admits))
            ),
        ]
        m.d.sync += at_step.eq(Mux(goes, guard.o.payload.last, at_step | guard.broken))
        with m.If(guard.broken):
            m.d.sync += admits.eq(0)
        with m.Elif(goes & guard.o.payload.last):
            m.d.sync += admits.eq(self.next_fits)
        with m.Elif(at_step):
            m.d.sync += admits.eq(self.fits)
        self._hold(m, guard, goes, both)
        self._place(m, broken)
        return m

    def _hold(self, m: Module, guard: FrameGuard, goes: Signal, both: Signal) -> None:
        """Keep up to two beats, and put the older one out."""
        o, i = self.o, guard.o.payload
        leaves = o.valid & o.ready
        m.d.sync += [
            o.valid.eq(goes | both | (o.valid & ~o.ready)),
            both.eq((both | (o.valid & goes)) & ~leaves),
        ]
        first, last = Signal(), Signal()  # the marks of the younger one
        at_last = Signal()  # there is an older one, and it is the last of a time step
        with m.If(goes):
            m.d.sync += [first.eq(i.first), last.eq(i.last)]
        with m.If(o.ready | ~o.valid):
            m.d.sync += [
                o.payload.first.eq(Mux(both, first, i.first)),
                o.payload.last.eq(Mux(both, last, i.last)),
                at_last.eq(Mux(both, last, i.last & goes)),
            ]
        m.d.comb += self.release.eq(at_last & o.ready)
        into, out_of = Signal(), Signal()
        m.d.sync += [into.eq(into ^ goes), out_of.eq(out_of ^ leaves)]
        held = []
        for k in range(2):  # takes whatever comes until it is full
            full = Signal(name=f"full{k}")
            word = Signal(self._config.channels_per_beat, name=f"held{k}", reset_less=True)
            m.d.sync += full.eq(Mux(full, ~(leaves & (out_of == k)), goes & (into == k)))
            with m.If(~full):
                m.d.sync += word.eq(i.data.as_value())
            held.append(word)
        m.d.comb += o.payload.data.as_value().eq(Mux(out_of, held[1], held[0]))

    def _place(self, m: Module, broken: Value) -> None:
        """Keep the group of the beat that is put out."""
        o = self.o
        group = self.group
        after = following(group, self._config.groups)
        m.d.comb += self.next_group.eq(
            Mux(o.valid, Mux(o.ready, after, group), Mux(broken, 0, group))
        )
        m.d.sync += group.eq(self.next_group)
