"""The engine of a block or a network, and what gives it one pass after another."""

from collections.abc import Callable

from amaranth import Array, Cat, Const, Module, Mux, Signal, signed
from amaranth.hdl import Value
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from hw.attributes import NO_COLLISION
from hw.linear.engine import Engine
from hw.queue import OutputQueue
from hw.transformer.attend import Attend
from hw.transformer.block import BlockConfig
from hw.transformer.finish import Finish
from hw.transformer.load import Load
from hw.transformer.route import Route
from hw.transformer.schedule import Pass
from hw.transformer.walk import Walk

TRACED = 12
"""Words of spikes that may be on their way to the trace."""

OUTSIDE = ("outside", "outside_address", "outside_read", "outside_write", "outside_value")
"""Inputs of `Finish` that are handed on."""


class Core(wiring.Component):
    """Go through the passes of a schedule.

    What comes in and goes out is left to who puts it to use: `Transformer` has an image in front
    and a readout behind, `Encoder` fills the residual and reads it.

    Parameters
    ----------
    config : BlockConfig

    Attributes
    ----------
    start, done : Signal(), in, out
        The first pass begins in the next clock; the last one has ended.
    weights, bias, threshold, shift, attention_threshold : stream, in
        Those that the configuration has.
    rests, moves, closed : in, in, out
        As `Load` has them.
    plane : out
        Which bit of an image's numbers is worked on.
    image_read, image_address, image_bits : out, out, in
        Of an image, if there is one: those bits of a beat, a clock later.
    starts, ends : Signal(), out
        The last pass begins, and has not ended.
    coming, o_valid, o_value : out
        Its sums, as `Finish` has them.
    outside and so on : in, out
        The residual, if it comes and goes: as `Finish` has it.
    trace : stream, out
        With `trace`: all spikes, word by word as they are stored.
    fault : out
        A broken frame of settings, a bit for each stream of them.
    """

    def __init__(self, config: BlockConfig) -> None:
        self._config = c = config
        s = c.schedule
        self._finish = Finish(c)
        own = self._finish.signature.members
        super().__init__(
            {name: In(c.stream(name).signature) for name in c.settings}
            | ({"trace": Out(c.stream("trace").signature)} if c.trace else {})
            | {name: own[name] for name in (*OUTSIDE, "outside_word") if s.entry.enters}
            | {
                "start": In(1),
                "done": Out(1),
                "rests": In(1),
                "moves": In(1),
                "closed": Out(1),
                "plane": Out(range(max(s.planes, 2))),
                "image_read": Out(1),
                "image_address": Out(range(max(s.image_beats, 2))),
                "image_bits": In(c.channels_per_beat),
                "starts": Out(1),
                "ends": Out(1),
                "coming": Out(1),
                "o_valid": Out(1),
                "o_value": Out(signed(c.residual_bits)),
                "fault": Out(len(c.settings)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        c, s = self._config, self._config.schedule
        m = Module()
        m.submodules.engine = engine = Engine(s.plan, shared=True, repeats=True)
        m.submodules.load = load = Load(c, engine)
        m.submodules.walk = walk = Walk(c)
        m.submodules.finish = finish = self._finish
        for name in c.settings:
            wiring.connect(m, wiring.flipped(getattr(self, name)), getattr(load, name))
        for name in ("threshold", "shift"):
            wiring.connect(m, getattr(load, f"o_{name}"), getattr(finish, name))
        m.d.comb += [
            load.rests.eq(self.rests),
            load.moves.eq(self.moves),
            self.closed.eq(load.closed),
            self.fault.eq(Cat(load.fault, finish.fault)),
        ]

        # Which pass it is.
        kind = Signal(range(max(len(s.passes), 2)))

        def of(what: Callable[[Pass], int | bool]) -> Value:
            """Return a constant of the pass at hand."""
            return Array(Const(int(what(p))) for p in s.passes)[kind]

        start, done = Signal(), Signal()
        block = Signal(range(max(s.blocks, 2)))
        plane = self.plane
        more = Signal()  # planes
        expert = Signal(range(max(c.experts, 2)))
        more_experts = Signal()
        last = kind == len(s.passes) - 1
        ends_block = kind == len(s.kinds)
        blank = of(lambda p: p.blank)
        merges = of(lambda p: p.merges)
        answers = of(lambda p: p.answers)
        first = kind == 0
        attends = of(lambda p: p.attends)
        m.d.comb += [
            more.eq(first & (plane != s.planes - 1)),
            more_experts.eq(answers & (expert != c.experts - 1)),
            self.done.eq(done & last),
            self.starts.eq(start & last),
            self.ends.eq(last),
        ]
        m.d.sync += start.eq(self.start | (done & ~last))
        with m.If(self.start):
            m.d.sync += [kind.eq(0), block.eq(0)]
        with m.Elif(done & more):
            m.d.sync += plane.eq(plane + 1)
        with m.Elif(done & more_experts):
            m.d.sync += [kind.eq(kind - 1), expert.eq(expert + 1)]
        with m.Elif(done & ~last):
            again = ends_block & (block != s.blocks - 1)
            m.d.sync += [plane.eq(0), kind.eq(Mux(again, 1, kind + 1))]
            with m.If(answers):
                m.d.sync += expert.eq(0)
            with m.If(ends_block):
                m.d.sync += block.eq(block + 1)

        counters: list[tuple[Signal, Callable[[Pass], int | bool]]] = [
            (engine.base, s.words),
            (engine.bias_base, s.biases),
            (finish.layer, lambda p: p.fires and not p.attends),
            (finish.shifted, lambda p: p.shifts),
        ]
        if c.attention_thresholds:
            origin = Signal(range(max(c.attention_thresholds, 2)))
            counters.append((origin, s.thresholds))
        for port, step in counters:
            place = Signal.like(port, name=f"{port.name}_of_pass")
            m.d.comb += port.eq(place)
            with m.If(self.start):
                m.d.sync += place.eq(0)
            with m.Elif(done & ~more):
                m.d.sync += place.eq(place + of(step))

        m.submodules.spikes = spikes = memory.Memory(
            shape=c.channels_per_beat, depth=s.spike_words, init=[], attrs=NO_COLLISION
        )
        # A pass writes where it does not read, or where it has read.
        write, read = spikes.write_port(), spikes.read_port()
        puts = Signal()  # a pass puts out a word of spikes
        m.d.comb += [
            self.image_read.eq(walk.read),
            self.image_address.eq(walk.address),
            read.en.eq(walk.read),
            read.addr.eq(walk.address),
            puts.eq(finish.write),
            write.en.eq(puts & of(lambda p: p.stored)),
            write.addr.eq(finish.address),
            write.data.eq(finish.word),
        ]
        given: Value = Const(1)
        if c.experts:
            m.submodules.route = route = Route(c)
            given = route.given | ~of(lambda p: p.expert)
        # What is not given to an expert would be added up for nothing.
        word = Mux(blank | ~given, 0, read.data) if s.events else Mux(blank, 0, read.data)
        kept = of(lambda p: p.residual == "kept")
        m.d.comb += [
            walk.start.eq(start & ~attends),
            walk.image.eq(first & ~blank),
            walk.source.eq(of(lambda p: p.source)),
            walk.last_beat.eq(of(lambda p: max(s.beats(p) - 1, 0))),
            walk.ready.eq(engine.i_ready),
            engine.i_valid.eq(walk.valid),
            engine.i_final.eq(walk.final),
            engine.i_restart.eq(walk.restart),
            engine.i_tag[0].eq(walk.repeat),
            engine.i_bits.eq(Mux(first, self.image_bits, word) if s.feature_beats else word),
            engine.stride.eq(of(s.stride)),
            engine.last_group.eq(of(lambda p: max(s.groups(p) - 1, 0))),
            engine.mute.eq((plane != 0) | blank),
            finish.start.eq(start & ~attends),
            finish.plane.eq(plane),
            finish.kept.eq(kept & (plane == 0)),
            finish.added.eq((kept & (plane != 0)) | of(lambda p: p.residual == "added")),
            finish.fires.eq(of(lambda p: p.fires) & ~more),
            finish.last_place.eq(of(lambda p: max(p.outputs - 1, 0))),
            finish.target.eq(of(lambda p: p.target)),
            finish.i_valid.eq(engine.o_valid),
            finish.i_values.eq(engine.o_values),
            engine.o_ready.eq(finish.i_ready),
            self.coming.eq(finish.coming & last),
            self.o_valid.eq(finish.o_valid & last),
            self.o_value.eq(finish.o_value),
            done.eq(finish.done),
        ]
        if s.entry.enters:
            m.d.comb += [getattr(finish, name).eq(getattr(self, name)) for name in OUTSIDE]
            m.d.comb += self.outside_word.eq(finish.outside_word)
        if c.experts:
            m.d.comb += [
                route.start.eq(start),
                route.write.eq(finish.o_fires & of(lambda p: p.routes)),
                route.fired.eq(finish.o_fired),
                route.expert.eq(expert),
                route.read.eq(walk.read),
                route.ends.eq(walk.ends),
                engine.i_tag[1].eq(given),
                finish.i_given.eq(engine.o_tag[1]),
                finish.answers.eq(answers),
                finish.first_answers.eq(expert == 0),
                finish.merges.eq(merges),
            ]
        room: Value = Const(1)
        if c.attention != "none":
            m.submodules.attend = attend = Attend(c)
            m.d.comb += [
                attend.start.eq(start & attends),
                attend.read_word.eq(read.data),
                done.eq(finish.done | attend.done),
                read.en.eq(walk.read | attend.read),
                puts.eq(finish.write | attend.write),
            ]
            with m.If(attends):
                m.d.comb += [
                    read.addr.eq(attend.read_address),
                    write.addr.eq(attend.address),
                    write.data.eq(attend.word),
                ]
        if c.attention_thresholds:
            wiring.connect(m, load.o_attention_threshold, attend.attention_threshold)
            m.d.comb += [attend.origin.eq(origin), self.fault[-1].eq(attend.fault)]
        if c.trace:
            m.submodules.queue = queue = OutputQueue(c.channels_per_beat, TRACED, 1)
            count = Signal(range(max(s.traced, 2)))
            m.d.comb += [
                queue.issued.eq(finish.word_starts),
                queue.arrives.eq(puts),
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
        return m
