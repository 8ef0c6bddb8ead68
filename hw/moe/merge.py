"""The sums of what experts answered, in the order of the tokens."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.hdl import Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.arith import popcount
from hw.moe.config import MoeConfig
from hw.queue import OutputQueue, PacketQueue

QUEUED = 8
"""Beats that are merged and not yet taken: as many as keep one coming in each clock."""


class Merge(wiring.Component):
    """Put the tokens out in their order, each as the sum of the answers of those who got it.

    Parameters
    ----------
    config : MoeConfig
    adds : bool
        To what another tile has merged.

    Attributes
    ----------
    write : Signal(), in
        There is a decision on a token.
    chosen, got : Signal(experts), in
        Who should have got it, and who did.
    first, last : Signal(), in
        It is the first one of an inference; it is the last one of a time step.
    valid, data, ready : in, in, out
        The beats of the answers of every expert.
    partial : stream, in
        With `adds`: the sums so far.
    merged : stream, out
    mask, dropped : stream, out
        With `trace`.
    leaves : Signal(), out
        A token has left.
    """

    def __init__(self, config: MoeConfig, *, adds: bool = False) -> None:
        self._config = config
        self._adds = adds
        experts = config.own
        names = ("merged", *(("mask", "dropped") if config.trace else ()))
        super().__init__(
            {
                "write": In(1),
                "chosen": In(experts),
                "got": In(experts),
                "first": In(1),
                "last": In(1),
                "valid": In(experts),
                "data": In(config.channels_per_beat).array(experts),
                "ready": Out(experts),
                "leaves": Out(1),
            }
            | {name: Out(config.stream(name, experts).signature) for name in names}
            | ({"partial": In(config.stream("merged").signature)} if adds else {})
        )

    def elaborate(self, platform: object) -> Module:
        c, plan = self._config, self._config.plan
        m = Module()
        mark = Cat(self.got, self.first, self.last, self.chosen if c.trace else ())
        m.submodules.marks = marks = PacketQueue(
            len(mark), 1, plan.held, paced=c.groups > 1, near=True
        )
        m.d.comb += [
            marks.offer.eq(self.write), marks.write.eq(self.write),
            marks.commit.eq(self.write), marks.word.eq(mark),
        ]  # fmt: skip
        got, first, last = Signal(c.own), Signal(), Signal()
        m.d.comb += Cat(got, first, last).eq(marks.data)

        group = Signal(range(max(c.groups, 2)))
        at_first, at_last = group == 0, group == c.groups - 1
        # What goes is gated, added up a clock later, and then queued: so no path leads from the
        # output back to all that is joined here.
        o = self.merged
        out = o.payload.as_value()
        m.submodules.queue = queue = OutputQueue(len(out), QUEUED, 1)
        goes = Signal()
        free = [queue.room]
        if self._adds:
            free.append(self.partial.valid)
            m.d.comb += self.partial.ready.eq(goes)
        if c.trace:
            free += [~s.valid | s.ready for s in (self.mask, self.dropped)]
        m.d.comb += [
            goes.eq(marks.valid & ~(got & ~self.valid).any() & Cat(*free).all()),
            marks.ready.eq(goes & at_last),
            self.leaves.eq(marks.ready),
            self.ready.eq(Mux(goes, got, 0)),
            queue.issued.eq(goes),
            o.valid.eq(queue.valid),
            out.eq(queue.data),
            queue.ready.eq(o.ready),
        ]
        with m.If(goes):
            m.d.sync += group.eq(Mux(at_last, 0, group + 1))
        gated = [Signal(c.channels_per_beat, name=f"gated{e}") for e in range(c.own)]
        for e, register in enumerate(gated):
            m.d.sync += register.eq(self.data[e])
            # A reset of flip-flops, not a gate in front of them.
            with m.If(~got[e]):
                m.d.sync += register.eq(0)
        arrives: list[Value] = [goes, first & at_first, last & at_last]
        for clock in range(2):
            later = Signal(3, name=f"arrives{clock}")
            m.d.sync += later.eq(Cat(*arrives))
            arrives = list(later)
        sums = Signal.like(o.payload.data, name="sums")
        counts: list[Value] = [
            popcount([register[channel] for register in gated])
            for channel in range(c.channels_per_beat)
        ]
        if self._adds:
            so_far = Signal.like(o.payload.data, name="so_far")
            m.d.sync += so_far.eq(self.partial.payload.data)
            counts = [a + b for a, b in zip(counts, so_far, strict=True)]
        m.d.sync += [sum_.eq(count) for sum_, count in zip(sums, counts, strict=True)]
        word = data.View(o.payload.shape(), queue.word)
        m.d.comb += [
            queue.arrives.eq(arrives[0]),
            word.first.eq(arrives[1]),
            word.last.eq(arrives[2]),
            word.data.eq(sums),
        ]
        if c.trace:
            self._trace(m, goes & at_last, got, marks.data[-c.own :], first, last)
        return m

    def _trace(
        self, m: Module, leaves: Signal, got: Signal, chosen: Signal, first: Signal, last: Signal
    ) -> None:
        """Put out who got the token that leaves, and behind a time step how many were dropped."""
        c = self._config
        mask, dropped = self.mask, self.dropped
        opening = Signal()  # the time step at hand is the first one of an inference
        begins = Signal(init=1)
        with m.If(leaves):
            m.d.sync += [begins.eq(last), opening.eq((first | opening) & ~last)]
        m.d.sync += [
            mask.valid.eq(leaves | (mask.valid & ~mask.ready)),
            dropped.valid.eq((leaves & last) | (dropped.valid & ~dropped.ready)),
        ]
        with m.If(leaves):
            m.d.sync += [
                mask.payload.data.as_value().eq(got),
                mask.payload.first.eq(first),
                mask.payload.last.eq(last),
                dropped.payload.first.eq(first | opening),
                dropped.payload.last.eq(1),
            ]
        for e in range(c.own):
            count = Signal(range(c.tokens + 1), name=f"dropped{e}")
            total = Mux(begins | first, 0, count) + (chosen[e] & ~got[e])
            with m.If(leaves):
                m.d.sync += [count.eq(total), dropped.payload.data[e].eq(total)]
