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
    merged : stream, out
    mask, dropped : stream, out
        With `trace`.
    leaves : Signal(), out
        A token has left.
    """

    def __init__(self, config: MoeConfig) -> None:
        self._config = config
        experts = config.experts
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
            | {name: Out(config.stream(name).signature) for name in names}
        )

    def elaborate(self, platform: object) -> Module:
        c, plan = self._config, self._config.plan
        m = Module()
        mark = Cat(self.got, self.first, self.last, self.chosen if c.trace else ())
        m.submodules.marks = marks = PacketQueue(len(mark), 1, plan.held, paced=c.groups > 1)
        m.d.comb += [
            marks.offer.eq(self.write), marks.write.eq(self.write),
            marks.commit.eq(self.write), marks.word.eq(mark),
        ]  # fmt: skip
        got, first, last = Signal(c.experts), Signal(), Signal()
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
        gated = [Signal(c.channels_per_beat, name=f"gated{e}") for e in range(c.experts)]
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
        m.d.sync += [
            sum_.eq(popcount([register[channel] for register in gated]))
            for channel, sum_ in enumerate(sums)
        ]
        word = data.View(o.payload.shape(), queue.word)
        m.d.comb += [
            queue.arrives.eq(arrives[0]),
            word.first.eq(arrives[1]),
            word.last.eq(arrives[2]),
            word.data.eq(sums),
        ]
        if c.trace:
            self._trace(m, goes & at_last, got, marks.data[-c.experts :], first, last)
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
        for e in range(c.experts):
            count = Signal(range(c.tokens + 1), name=f"dropped{e}")
            total = Mux(begins | first, 0, count) + (chosen[e] & ~got[e])
            with m.If(leaves):
                m.d.sync += [count.eq(total), dropped.payload.data[e].eq(total)]
