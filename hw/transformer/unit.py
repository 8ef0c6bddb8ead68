"""A whole spiking transformer: one engine for all layers, blocks and time steps."""

from collections.abc import Callable

from amaranth import Array, Cat, Const, Module, Mux, Signal
from amaranth.hdl import Value
from amaranth.lib import memory, wiring

from hw.attributes import BLOCK, NO_COLLISION
from hw.linear.engine import Engine
from hw.queue import OutputQueue
from hw.stream import FaultCounter, FrameGuard, members
from hw.transformer.attend import Attend
from hw.transformer.config import TransformerConfig
from hw.transformer.finish import Finish
from hw.transformer.load import Load
from hw.transformer.readout import Readout
from hw.transformer.schedule import Pass
from hw.transformer.walk import Walk

TRACED = 12
"""Words of spikes that may be on their way to the trace."""


class Transformer(wiring.Component):
    """Classify images: patches in, logits and the class out."""

    def __init__(self, config: TransformerConfig) -> None:
        self.config = config
        super().__init__(members(config))

    def elaborate(self, platform: object) -> Module:
        c, s = self.config, self.config.schedule
        m = Module()
        m.submodules.guard = guard = FrameGuard(c.stream("patches"))
        m.submodules.engine = engine = Engine(s.plan, shared=True, repeats=True)
        m.submodules.load = load = Load(c, engine)
        m.submodules.walk = walk = Walk(c)
        m.submodules.finish = finish = Finish(c)
        m.submodules.readout = readout = Readout(c)
        wiring.connect(m, wiring.flipped(self.patches), guard.i)
        for name in ("weights", "bias", "threshold", "shift"):
            wiring.connect(m, wiring.flipped(getattr(self, name)), getattr(load, name))
        for name in ("threshold", "shift"):
            wiring.connect(m, getattr(load, f"o_{name}"), getattr(finish, name))
        for name in ("logits", "answer"):
            wiring.connect(m, wiring.flipped(getattr(self, name)), getattr(readout, name))

        # Which pass it is.
        kind = Signal(range(len(s.passes)))

        def of(what: Callable[[Pass], int | bool]) -> Value:
            """Return a constant of the pass at hand."""
            return Array(Const(int(what(p))) for p in s.passes)[kind]

        rests = Signal(init=1)
        start, done, runs = Signal(), Signal(), Signal()
        block = Signal(range(max(c.blocks, 2)))
        plane = Signal(range(max(c.input_bits, 2)))  # of the inputs of the first layer
        more = Signal()  # planes
        last_block = block == c.blocks - 1
        head = kind == len(s.passes) - 1
        ends_block = kind == len(s.passes) - 2
        first = kind == 0
        attends = of(lambda p: p.attends)
        comes = guard.o.valid & guard.o.ready
        m.d.comb += [
            guard.o.ready.eq(rests & ~load.closed),
            load.rests.eq(rests & (guard.beat == 0)),
            load.moves.eq(comes),
            more.eq(first & (plane != c.input_bits - 1)),
        ]
        m.d.sync += start.eq(guard.done | (done & ~head))
        with m.If(guard.done):
            m.d.sync += [rests.eq(0), kind.eq(0), block.eq(0)]
        with m.If(done & more):
            m.d.sync += plane.eq(plane + 1)
        with m.Elif(done & ~head):
            m.d.sync += plane.eq(0)
            m.d.sync += kind.eq(Mux(ends_block & ~last_block, 1, kind + 1))
            with m.If(ends_block):
                m.d.sync += block.eq(block + 1)
        with m.If(readout.done):
            m.d.sync += rests.eq(1)
        counters: list[tuple[Signal, Callable[[Pass], int | bool]]] = [
            (engine.base, s.words),
            (engine.bias_base, s.biases),
            (finish.layer, lambda p: p.fires),
            (finish.shifted, lambda p: bool(p.residual)),
        ]
        for port, step in counters:
            place = Signal.like(port, name=f"{port.name}_of_pass")
            m.d.comb += port.eq(place)
            with m.If(guard.done):
                m.d.sync += place.eq(0)
            with m.Elif(done & ~more):
                m.d.sync += place.eq(place + of(lambda p, step=step: 0 if p.attends else step(p)))

        # The image and the spikes.
        m.submodules.image = image = memory.Memory(
            shape=c.channels_per_beat * c.input_bits, depth=s.image_beats, init=[],
            attrs=NO_COLLISION,
        )  # fmt: skip
        # It is written between inferences.
        image_write, image_read = image.write_port(), image.read_port()
        m.submodules.spikes = spikes = memory.Memory(
            shape=c.channels_per_beat, depth=s.spike_words, init=[], attrs=NO_COLLISION
        )
        # A pass writes where it does not read, or where it has read.
        write, read = spikes.write_port(), spikes.read_port()
        m.d.comb += [
            image_write.en.eq(comes),
            image_write.addr.eq(guard.beat),
            image_write.data.eq(guard.o.payload.data),
            image_read.en.eq(walk.read),
            image_read.addr.eq(walk.address),
            read.en.eq(walk.read),
            read.addr.eq(walk.address),
            write.en.eq(finish.write),
            write.addr.eq(finish.address),
            write.data.eq(finish.word),
        ]

        pixels = [image_read.data.word_select(i, c.input_bits) for i in range(c.channels_per_beat)]
        m.d.comb += [
            walk.start.eq(start & ~attends),
            walk.image.eq(first),
            walk.source.eq(of(lambda p: p.source)),
            walk.last_beat.eq(of(lambda p: max(s.beats(p) - 1, 0))),
            walk.ready.eq(engine.i_ready),
            engine.i_valid.eq(walk.valid),
            engine.i_final.eq(walk.final),
            engine.i_restart.eq(walk.restart),
            engine.i_tag.eq(walk.repeat),
            engine.i_bits.eq(Mux(first, Cat(x.bit_select(plane, 1) for x in pixels), read.data)),
            engine.stride.eq(of(s.slices)),
            engine.last_group.eq(of(lambda p: max(s.groups(p) - 1, 0))),
            engine.mute.eq(plane != 0),
            finish.start.eq(start & ~attends),
            finish.plane.eq(plane),
            finish.kept.eq(first & (plane == 0)),
            finish.added.eq(Mux(first, plane != 0, of(lambda p: p.residual == "added"))),
            finish.fires.eq(~head & ~more),
            finish.last_place.eq(of(lambda p: max(p.outputs - 1, 0))),
            finish.target.eq(of(lambda p: p.target)),
            finish.i_valid.eq(engine.o_valid),
            finish.i_values.eq(engine.o_values),
            engine.o_ready.eq(finish.i_ready),
            readout.start.eq(start & head),
            readout.coming.eq(finish.coming & head),
            readout.valid.eq(finish.o_valid & head),
            readout.value.eq(finish.o_value),
            readout.go.eq(finish.done & head),
            done.eq(finish.done),
        ]
        room: Value = Const(1)
        written = finish.write
        if c.attention != "none":
            m.submodules.attend = attend = Attend(c)
            m.d.comb += [
                attend.start.eq(start & attends),
                attend.read_word.eq(read.data),
                done.eq(finish.done | attend.done),
                read.en.eq(walk.read | attend.read),
                write.en.eq(finish.write | attend.write),
            ]
            with m.If(attends):
                m.d.comb += [
                    read.addr.eq(attend.read_address),
                    write.addr.eq(attend.address),
                    write.data.eq(attend.word),
                ]
        if c.trace:
            m.submodules.queue = queue = OutputQueue(c.channels_per_beat, TRACED, 1)
            count = Signal(range(max(s.traced, 2)))
            m.d.comb += [
                queue.issued.eq(finish.word_starts),
                queue.arrives.eq(write.en),
                queue.word.eq(write.data),
                queue.ready.eq(self.trace.ready),
                self.trace.valid.eq(queue.valid),
                self.trace.payload.data.eq(queue.data),
                self.trace.payload.first.eq(count == 0),
                self.trace.payload.last.eq(count == s.traced - 1),
            ]
            with m.If(self.trace.valid & self.trace.ready):
                m.d.sync += count.eq(Mux(self.trace.payload.last, 0, count + 1))
            room = queue.room
            if c.attention != "none":
                m.d.comb += queue.issued.eq(finish.word_starts | attend.write)
        m.d.comb += finish.room.eq(room)
        if c.attention != "none":
            m.d.comb += attend.room.eq(room)

        m.submodules.fault_counter = faults = FaultCounter(5)
        m.d.comb += [
            faults.fault.eq(Cat(guard.fault, load.fault, finish.fault)),
            self.faults.eq(faults.count),
        ]
        return m
