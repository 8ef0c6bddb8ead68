"""The head's last step: sums over time steps and tokens, and the greatest of them."""

from amaranth import Module, Mux, Signal, signed
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from hw.attributes import NO_COLLISION
from hw.transformer.config import TransformerConfig


class Readout(wiring.Component):
    """Add up the sums of each class, then put them out one after another.

    Parameters
    ----------
    config : TransformerConfig

    Attributes
    ----------
    start : Signal(), in
        The pass of the head begins.
    coming : Signal(), in
        There will be a sum in the next clock; classes come round in order.
    valid, value : in
        A sum.
    go : Signal(), in
        The pass has ended.
    logits, answer : stream, out
    done : Signal(), out
        All is out.
    """

    def __init__(self, config: TransformerConfig) -> None:
        self._config = config
        super().__init__(
            {
                "start": In(1),
                "coming": In(1),
                "valid": In(1),
                "value": In(signed(config.residual_bits)),
                "go": In(1),
                "logits": Out(config.stream("logits").signature),
                "answer": Out(config.stream("answer").signature),
                "done": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        c = self._config
        m = Module()
        places = c.schedule.passes[-1].outputs
        m.submodules.sums = store = memory.Memory(
            shape=signed(c.logit_bits), depth=max(places, 2), init=[], attrs=NO_COLLISION
        )
        # A class comes round several clocks later, and in the clock behind its read it is written.
        read, write = store.read_port(), store.write_port()
        first = Signal()  # token
        at = Signal(range(max(places, 2)))
        ends = at == places - 1
        puts_out, fetched = Signal(), Signal()
        last = at == c.classes - 1
        m.d.comb += [
            read.addr.eq(at),
            read.en.eq(self.coming | (puts_out & ~fetched)),
            write.en.eq(self.valid),
            write.data.eq(Mux(first, 0, read.data) + self.value),
        ]
        with m.If(self.coming):
            m.d.sync += [write.addr.eq(at), at.eq(Mux(ends, 0, at + 1))]
        with m.If(self.valid & (write.addr == places - 1)):
            m.d.sync += first.eq(0)
        with m.If(self.start):
            m.d.sync += [first.eq(1), at.eq(0)]

        logits, answer = self.logits, self.answer
        most = Signal(signed(c.logit_bits))
        m.d.comb += [
            logits.valid.eq(fetched),
            logits.payload.data[0].eq(read.data),
            logits.payload.first.eq(at == 0),
            logits.payload.last.eq(last),
            answer.payload.first.eq(1),
            answer.payload.last.eq(1),
            self.done.eq(answer.valid & answer.ready),
        ]
        m.d.sync += fetched.eq(puts_out & ~(fetched & logits.ready))
        with m.If(self.go):
            m.d.sync += [puts_out.eq(1), at.eq(0)]
        with m.If(fetched & logits.ready):
            with m.If((at == 0) | (read.data > most)):
                m.d.sync += [most.eq(read.data), answer.payload.data[0].eq(at)]
            m.d.sync += at.eq(at + 1)
            with m.If(last):
                m.d.sync += [puts_out.eq(0), fetched.eq(0), answer.valid.eq(1)]
        with m.If(self.done):
            m.d.sync += answer.valid.eq(0)
        return m
