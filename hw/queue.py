"""A queue at the end of a pipeline that never waits."""

from amaranth import Module, Mux, Signal
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from hw.buffer import NO_COLLISION


class OutputQueue(wiring.Component):
    """Take what a pipeline puts out whenever it comes; say whether more may be issued into it.

    With a queue that has room for all that is on its way no clock enable has to run from the output
    back through the pipeline. In LUT memory where there is any: up to 16 words take a RAM cell for
    four bits.

    Parameters
    ----------
    width : int
    depth : int
        Words; one more is at the output.
    unasked : int
        Words that are issued without looking at `room` again.

    Attributes
    ----------
    issued : Signal(), in
        A word enters the pipeline.
    room : Signal(), out
        `unasked` words may be issued: there is room for them beside all that are on their way.
    arrives : Signal(), in
        A word has come.
    word : Signal(width), in
        Which one.
    valid, data, ready : out, out, in
        The output, two clocks behind `arrives`.
    """

    def __init__(self, width: int, depth: int, unasked: int) -> None:
        self._depth = depth
        self._unasked = unasked
        super().__init__(
            {
                "issued": In(1),
                "room": Out(1),
                "arrives": In(1),
                "word": In(width),
                "valid": Out(1),
                "data": Out(width),
                "ready": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.memory = store = memory.Memory(
            shape=len(self.word), depth=self._depth, init=[], attrs=NO_COLLISION
        )
        # Not the read port's own register, which is not known before the first read.
        write, read = store.write_port(), store.read_port(domain="comb")
        stored = Signal(range(self._depth + 1))
        some = Signal()  # there are any stored
        fetch, leaves = Signal(), Signal()
        m.d.comb += [
            leaves.eq(self.valid & self.ready),
            fetch.eq(some & (self.ready | ~self.valid)),
            write.data.eq(self.word),
            write.en.eq(self.arrives),
        ]
        m.d.sync += [
            some.eq(self.arrives | (some & ~(fetch & (stored == 1)))),
            self.valid.eq(fetch | (self.valid & ~self.ready)),
        ]
        last = self._depth - 1
        with m.If(self.arrives):
            m.d.sync += write.addr.eq(Mux(write.addr == last, 0, write.addr + 1))
        with m.If(fetch):
            m.d.sync += [
                self.data.eq(read.data),
                read.addr.eq(Mux(read.addr == last, 0, read.addr + 1)),
            ]
        with m.If(self.arrives != fetch):
            m.d.sync += stored.eq(stored + Mux(self.arrives, 1, -1))

        # A clock late, in which one more may have been issued.
        credit = Signal(range(self._depth + 2), init=self._depth + 1)
        with m.If(self.issued != leaves):
            m.d.sync += credit.eq(credit + Mux(leaves, 1, -1))
        m.d.sync += self.room.eq(credit > self._unasked)
        return m
