"""The matrix product as a unit: one matrix, loaded at run time."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.hdl import Value
from amaranth.lib import wiring

from hw.linear.config import LinearConfig
from hw.linear.engine import Engine
from hw.stream import FaultCounter, FrameGuard, members


class Linear(wiring.Component):
    """Compute ``out[t, n] = weights @ spikes[t, n] + bias`` by adding up weights.

    The pipeline::

        spikes -> slices of a token, some tokens of them -> weights of a slice -> sums -> out
                                                            (weights)    (bias)

    A token of I inputs is cut into slices of `columns`; `lanes` outputs are a group, of which there
    are G. A slice takes a clock in each group, and with P bits of an input P times that::

        clocks of a token = G * P * slices                                        mode=dense
                          = max(G * P * max(K, 1), K + beats) if nobody waits     mode=events

    where K are the slices that are not empty. In ``events`` all slices are the worst case, and
    latency, interval and cycles are those. The next token comes in meanwhile, and the output may
    stall for as long as it likes. No clock is lost between groups, tokens or inferences.

    Latency: ``slices + beats + 3`` (dense: ``slices + 1``) clocks until a token waits,
    ``P * slices - 1`` to its last slice in the first group, and 5 of the pipeline: one more where
    slices lie in block RAM, and those of a tree with several columns.

    Integers go bit by bit, lowest bit first: the accumulator is halved in front of each next bit,
    and the bits that it loses are the lowest of the result. The same adder serves all, nothing is
    as wide as the result, and the bias is where the sum starts.

    Cells. With 8-bit weights and 64 inputs a lane takes 17 to 18 LUT4-equivalents on ECP5, which is
    its carry chain of 17 bits and nothing else; there are 350 beside for scan, lists, addresses and
    the guards of three streams. What was tried and weighed:

    * Groups outside, inputs inside, so that there is one accumulator a lane, and a token's list of
      slices is read again for each group: a block RAM. Inputs outside needs accumulators for all
      outputs, twice, since those of one token go out while the next one comes: at 128 outputs 68
      DPR16X4, 272 LUT4-equivalents.
    * Weights are masked by the reset of the flip-flops behind the memory: as ANDs they took 64
      LUT4 more, since the carry chain's own cell has no pin left. It adds the weight to the bias or
      to the sum so far, whichever it is: that choice costs nothing on ECP5 (`gen.absorb`), and one
      LUT a bit on iCE40.
    * A stalled output stops the pipeline by clock enables, and the accumulator is the output
      register. A queue would take 34 DPR16X4 for 8 lanes, and a register.
    * The scan looks for the lowest set bit among those of a beat: 32 bits take 58 LUT4-equivalents
      more than 16, and save a clock a beat, which only a single group would notice.

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
        slice_ = Signal(range(max(p.slices, 2)))
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
