"""Which expert is given which token."""

from amaranth import Module
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from hw.attributes import NO_COLLISION
from hw.transformer.block import BlockConfig


class Route(wiring.Component):
    """Keep the spikes of the routers' neurons, and go through those of an expert.

    A bit a word, so that one counter is all the addresses of what comes, and another of what is
    asked for: the bits of an expert lie as far apart as a token has.

    Parameters
    ----------
    config : BlockConfig

    Attributes
    ----------
    start : Signal(), in
        A pass begins.
    write, fired : Signal(), in
        A spike of the router's, or its absence.
    expert : in
        Whose bits are read; while `start`.
    read, ends : Signal(), in
        A word of a token is read, and it is the last one in its time step.
    given : Signal(), out
        The expert is given the token whose word was read in the clock before.
    """

    def __init__(self, config: BlockConfig) -> None:
        self._config = config
        super().__init__(
            {
                "start": In(1),
                "write": In(1),
                "fired": In(1),
                "expert": In(range(max(config.experts, 2))),
                "read": In(1),
                "ends": In(1),
                "given": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        c = self._config
        m = Module()
        (outputs,) = {p.outputs for p in c.schedule.passes if p.routes}
        m.submodules.masks = store = memory.Memory(
            shape=1, depth=c.timesteps * c.tokens * outputs, init=[], attrs=NO_COLLISION
        )
        # A pass writes or reads.
        write, read = store.write_port(), store.read_port()
        m.d.comb += [
            write.en.eq(self.write),
            write.data.eq(self.fired),
            read.en.eq(self.read),
            self.given.eq(read.data),
        ]
        with m.If(self.start):
            m.d.sync += [write.addr.eq(0), read.addr.eq(self.expert)]
        with m.Else():
            with m.If(self.write):
                m.d.sync += write.addr.eq(write.addr + 1)
            with m.If(self.read & self.ends):
                m.d.sync += read.addr.eq(read.addr + outputs)
        return m
