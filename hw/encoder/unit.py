"""An encoder block: residual in, residual out."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.encoder.config import EncoderConfig
from hw.stream import FaultCounter, FrameGuard, members
from hw.transformer.core import Core


class Encoder(wiring.Component):
    """One block of the Spike-driven Transformer, from residual to residual.

    Neurons, q, k and v with theirs, the attention, a projection, which is added to the residual in
    front of the next neurons (membrane shortcut, arXiv 2307.01694, fig. 2 and eq. 5-12), then the
    MLP, or the experts that each token is given to, which is added likewise.

    It is the `Core` of `hw.transformer` with other ends. The residual comes in and goes out over
    streams, a current a beat, straight into its memory and from there::

        current -> residual <-> Finish <- Engine <- spikes ...
                       |
                       +-> out

    As it comes in time step by time step and is worked on token by token, addresses leap; the first
    pass takes the residual as it is, adds the zeros that an engine without inputs puts out, and
    lets the neurons fire.

    Clocks of an inference: ``T N C`` for what comes in, the passes as `hw.transformer.Transformer`
    has them, and ``T N C`` for what goes out; when the last number is taken the next one comes in.

    Parameters
    ----------
    config : EncoderConfig

    Attributes
    ----------
    current : stream, in
        The residual in front of the block.
    weights, bias, threshold, shift, attention_threshold : stream, in
        Those that the configuration has. Taken between inferences; none begins once there are some.
    out : stream, out
        The residual behind the block.
    trace : stream, out
        With `trace`: all spikes, word by word as they are stored.
    faults : Signal(8), out
        Broken frames so far, saturating.
    """

    def __init__(self, config: EncoderConfig) -> None:
        self.config = config
        super().__init__(members(config))

    def elaborate(self, platform: object) -> Module:
        c = self.config
        m = Module()
        m.submodules.guard = guard = FrameGuard(c.stream("current"))
        m.submodules.core = core = Core(c)
        m.submodules.places = places = Places(c)
        wiring.connect(m, wiring.flipped(self.current), guard.i)
        for name in (*c.settings, *(["trace"] if c.trace else [])):
            wiring.connect(m, wiring.flipped(getattr(self, name)), getattr(core, name))

        rests, puts, fetch, comes = Signal(init=1), Signal(), Signal(), Signal()
        leaves = Signal()  # the last number waits to be taken, in the memory's own register
        out = self.out
        m.d.comb += [
            comes.eq(guard.o.valid & guard.o.ready),
            guard.o.ready.eq(rests & ~core.closed),
            core.rests.eq(rests & places.first),
            core.moves.eq(comes),
            core.start.eq(comes & places.final),
            core.outside.eq(rests | puts),
            core.outside_address.eq(places.address),
            core.outside_write.eq(comes),
            core.outside_value.eq(guard.o.payload.data[0]),
            core.outside_read.eq(fetch),
            fetch.eq(puts & (~out.valid | out.ready)),
            places.next.eq(comes | fetch),
            places.restart.eq(guard.broken),
            out.payload.data[0].eq(core.outside_word),
        ]
        m.d.sync += out.valid.eq(fetch | (out.valid & ~out.ready))
        with m.If(fetch):
            m.d.sync += [out.payload.first.eq(places.first), out.payload.last.eq(places.last)]
        with m.If(core.start):
            m.d.sync += rests.eq(0)
        with m.If(core.done):
            m.d.sync += puts.eq(1)
        with m.If(fetch & places.final):
            m.d.sync += [puts.eq(0), leaves.eq(1)]
        with m.Elif(leaves & out.ready):
            m.d.sync += [leaves.eq(0), rests.eq(1)]

        m.submodules.fault_counter = faults = FaultCounter(1 + len(c.settings))
        m.d.comb += [
            faults.fault.eq(Cat(guard.fault, core.fault)),
            self.faults.eq(faults.count),
        ]
        return m


class Places(wiring.Component):
    """Where the currents of a stream lie, which come time step by time step.

    The memory holds all time steps of a token, then the next token.

    Parameters
    ----------
    config : EncoderConfig

    Attributes
    ----------
    next, restart : Signal(), in
        Go on to the next one, or back to the first.
    address : out
    first, last, final : Signal(), out
        It is the first one of all, the last of its time step, the last of all.
    """

    def __init__(self, config: EncoderConfig) -> None:
        self._config = config
        super().__init__(
            {
                "next": In(1),
                "restart": In(1),
                "address": Out(range(max(config.schedule.residual_words, 2))),
                "first": Out(1),
                "last": Out(1),
                "final": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        c = self._config
        m = Module()
        channel = Signal(range(max(c.channels, 2)))
        token = Signal(range(max(c.tokens, 2)))
        step = Signal(range(max(c.timesteps, 2)))
        origin = Signal.like(self.address)  # of the time step
        ends = channel == c.channels - 1
        others = (c.timesteps - 1) * c.channels  # currents of the other time steps of a token
        first = Signal(init=1)  # a register: whether anything is loaded hangs on it
        m.d.comb += [
            self.first.eq(first),
            self.last.eq(ends & (token == c.tokens - 1)),
            self.final.eq(self.last & (step == c.timesteps - 1)),
        ]
        with m.If(self.restart | (self.next & self.final)):
            m.d.sync += [s.eq(0) for s in (channel, token, step, origin, self.address)]
            m.d.sync += first.eq(1)
        with m.Elif(self.next):
            m.d.sync += [
                first.eq(0),
                channel.eq(Mux(ends, 0, channel + 1)),
                self.address.eq(self.address + 1 + Mux(ends, others, 0)),
            ]
            with m.If(ends):
                m.d.sync += token.eq(Mux(self.last, 0, token + 1))
            with m.If(self.last):
                begins = origin + c.channels
                m.d.sync += [step.eq(step + 1), origin.eq(begins), self.address.eq(begins)]
        return m
