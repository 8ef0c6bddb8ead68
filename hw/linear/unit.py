"""The matrix product as a unit: one matrix, loaded at run time."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.hdl import Value
from amaranth.lib import wiring

from hw.linear.config import LinearConfig
from hw.linear.engine import Engine
from hw.stream import FaultCounter, FrameGuard, members


class Linear(wiring.Component):
    """Compute ``out[t, n] = weights @ spikes[t, n] + bias`` by adding up weights.

    Parameters
    ----------
    config : LinearConfig

    Attributes
    ----------
    spikes : stream, in
    weights, bias : stream, in
        Taken between inferences.
    out : stream, out
    faults : Signal(8), out
        Broken frames so far, saturating.
    """

    def __init__(self, config: LinearConfig) -> None:
        self.config = config
        super().__init__(members(config))

    def elaborate(self, platform: object) -> Module:
        c, p = self.config, self.config.plan
        m = Module()
        m.submodules.guard = guard = FrameGuard(c.stream("spikes"))
        m.submodules.engine = engine = Engine(p)
        wiring.connect(m, wiring.flipped(self.spikes), guard.i)
        closed = Signal()  # settings are taken, or wait for what is on its way
        moves = Signal()
        final = Signal(init=p.beats == 1)  # the next beat is the last one of its token
        m.d.comb += [
            moves.eq(guard.o.valid & guard.o.ready),
            guard.o.ready.eq(engine.i_ready & ~closed),
            engine.i_valid.eq(guard.o.valid & ~closed),
            engine.i_bits.eq(guard.o.payload.data.as_value()),
            engine.i_final.eq(final),
            engine.i_restart.eq((guard.beat < p.beats) if c.bias_per_token else 1),
            engine.i_tag.eq(Cat(guard.opening & (guard.beat < p.beats), guard.o.payload.last)),
            engine.drop.eq(guard.broken),
            engine.stride.eq(p.slices),
            engine.last_group.eq(p.groups - 1),
            engine.last_plane.eq(p.input_bits - 1),
        ]
        if p.beats > 1:
            beat = Signal(range(p.beats))
            with m.If(guard.broken):
                m.d.sync += [beat.eq(0), final.eq(0)]
            with m.Elif(moves):
                m.d.sync += [
                    beat.eq(Mux(final, 0, beat + 1)),
                    final.eq(beat == p.beats - 2),
                ]

        first, last = engine.o_tag
        m.d.comb += [
            self.out.valid.eq(engine.o_valid),
            self.out.payload.data.eq(engine.o_values),
            self.out.payload.first.eq(first & engine.o_first),
            self.out.payload.last.eq(last & engine.o_last),
            engine.o_ready.eq(self.out.ready),
        ]
        found = self._load(m, engine, closed, moves, guard.opening & (guard.beat == 0))
        m.submodules.fault_counter = faults = FaultCounter(3)
        m.d.comb += [faults.fault.eq(Cat(guard.fault, *found)), self.faults.eq(faults.count)]
        return m

    def _load(
        self, m: Module, engine: Engine, closed: Signal, moves: Signal, between: Value
    ) -> list[Signal]:
        """Take settings between inferences, of which none begins once there are some."""
        c, p = self.config, self.config.plan
        loading = Signal()
        wanted = Signal()
        guards = []
        for name in ("weights", "bias"):
            guard = FrameGuard(c.stream(name))
            m.submodules[f"{name}_guard"] = guard
            wiring.connect(m, wiring.flipped(getattr(self, name)), guard.i)
            m.d.comb += guard.o.ready.eq(loading)
            guards.append(guard)
        weights, bias = guards
        offered = self.weights.valid | self.bias.valid
        under_way = (weights.beat != 0) | (bias.beat != 0)
        m.d.comb += closed.eq(loading | (wanted & between))
        m.d.sync += [
            wanted.eq(offered),
            loading.eq(Mux(loading, offered | under_way, offered & between & engine.idle & ~moves)),
        ]

        # Weights come output by output, a slice a beat, and lie group by group.
        slice_ = Signal(range(p.slices)) if p.slices > 1 else Signal()
        start = Signal.like(engine.weights_address)  # of the group
        place = Signal.like(start)
        lane = Signal(p.lanes, init=1)
        ends = slice_ == p.slices - 1
        write = weights.o.valid & loading
        m.d.comb += [
            engine.weights_enable.eq(Mux(write, lane, 0)),
            engine.weights_address.eq(place),
            engine.weights_data.eq(weights.o.payload.data.as_value()),
            engine.bias_enable.eq(bias.o.valid & loading),
            engine.bias_address.eq(bias.beat),
            engine.bias_data.eq(bias.o.payload.data),
        ]
        with m.If(weights.broken | weights.done):
            m.d.sync += [slice_.eq(0), start.eq(0), place.eq(0), lane.eq(1)]
        with m.Elif(write):
            m.d.sync += [slice_.eq(slice_ + 1), place.eq(place + 1)]
            with m.If(ends):
                m.d.sync += [slice_.eq(0), lane.eq(lane.rotate_left(1))]
                with m.If(lane[-1]):
                    m.d.sync += start.eq(place + 1)
                with m.Else():
                    m.d.sync += place.eq(start)
        return [weights.fault, bias.fault]
