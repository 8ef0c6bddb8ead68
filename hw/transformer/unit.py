"""A whole spiking transformer: one engine for all layers, blocks and time steps."""

from collections.abc import Callable

from amaranth import Array, Cat, Const, Module, Mux, Signal
from amaranth.hdl import Value
from amaranth.lib import memory, wiring

from hw.attributes import NO_COLLISION
from hw.linear.engine import Engine
from hw.queue import OutputQueue
from hw.stream import FaultCounter, FrameGuard, members
from hw.transformer.attend import Attend
from hw.transformer.config import TransformerConfig
from hw.transformer.finish import Finish
from hw.transformer.load import Load
from hw.transformer.readout import Readout
from hw.transformer.route import Route
from hw.transformer.schedule import Pass
from hw.transformer.walk import Walk

TRACED = 12
"""Words of spikes that may be on their way to the trace."""


class Transformer(wiring.Component):
    """Classify images: patches in; logits, the class, and if asked for every spike out.

    The network is the Spike-driven Transformer's with membrane shortcuts (arXiv 2307.01694, fig. 2
    and eq. 5-12): an embedding with a position bias, L blocks of attention and MLP, whose sums are
    added to a residual in front of the neurons, and a head, whose sums are added up over tokens and
    time steps. The attention of a block is `hw.sdsa.Sdsa`, one of `hw.attention`, or none. In place
    of the MLP there may be experts, as in SEMM (NeurIPS 2024): a router's neurons say which of them
    are given a token, and the sum of their answers, each neurons' spikes, goes into the residual.

    One engine for all layers, blocks, tokens and time steps::

        patches -> image -+                    weights, biases
                          +-> Walk -> Engine -----------------> Finish -> residual, spikes
                 spikes --+   (hw.linear)                        |        (LifCore)
                   |  ^                                          +-> Readout -> logits, answer
                   +--+-- Attend: hw.sdsa or hw.attention

    A *pass* is a layer: all tokens, each with all its time steps, go through one matrix. Passes
    follow from the configuration (`Schedule`), one after another::

        embed (once a bit of the pixels)
        L times:  q, k, v, attend, project, expand, contract
        head

    Clocks of an image: its beats; ``T N G max(slices, lanes, 5)`` for each pass, where a token has
    ``slices = inputs / columns`` and there are ``G = outputs / lanes`` groups; 2 a class; and some
    tens a pass to fill and drain the pipeline (`Schedule` has them all, exactly). A pass through
    the attention unit takes the words of a beat and 2 clocks for each beat, and the unit's own.

    Memories: weights and biases of all layers; the residual, ``T N C`` words; the spikes of one
    layer in and of one out, or of q, k and v; one token's membranes.

    Why so. Layers go over all time steps before the next layer, and a token over all time steps
    before the next token. With time outside, each layer has to keep its membranes: 172 kbit for
    two blocks of 64 channels where one token's take 2.4. What that costs is spikes and residuals of
    all time steps, 4 times as many here, but spikes are bits. Sums leave the engine `lanes` at a
    time and every `inputs` clocks, so shift, residual and neuron are there once, not once a lane:
    with eight lanes of each the default takes 3.2 k LUT4-equivalents on ECP5 in place of 1.9 k, and
    is no faster. Pixels come bit by bit as passes of their own, which are added up in the residual:
    an engine that takes them apart itself has a multiplexer in front of each accumulator (8 % of
    the cells). The attention is a whole unit with its guards (a quarter of the cells) and not a
    part of the engine, so every variant and encoder is there as it was proved.

    Parameters
    ----------
    config : TransformerConfig

    Attributes
    ----------
    patches : stream, in
        An image; the next one is taken when the answer has left.
    weights, bias, threshold, shift : stream, in
        Taken between images; no image begins once there are some.
    logits : stream, out
        A class a beat, every other clock.
    answer : stream, out
        One beat, behind the last logit.
    trace : stream, out
        With `trace`: all spikes, word by word as they are stored.
    faults : Signal(8), out
        Broken frames so far, saturating.
    """

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
        start, done = Signal(), Signal()
        block = Signal(range(max(c.blocks, 2)))
        plane = Signal(range(max(c.input_bits, 2)))  # of the inputs of the first layer
        more = Signal()  # planes
        expert = Signal(range(max(c.experts, 2)))
        more_experts = Signal()
        last_block = block == c.blocks - 1
        head = kind == len(s.passes) - 1
        ends_block = kind == len(s.passes) - 2
        merges = of(lambda p: p.merges)
        answers = of(lambda p: p.answers)
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
        m.d.comb += more_experts.eq(answers & (expert != c.experts - 1))
        with m.If(done & more):
            m.d.sync += plane.eq(plane + 1)
        with m.Elif(done & more_experts):
            m.d.sync += [kind.eq(kind - 1), expert.eq(expert + 1)]
        with m.Elif(done & ~head):
            m.d.sync += [plane.eq(0), kind.eq(Mux(ends_block & ~last_block, 1, kind + 1))]
            with m.If(answers):
                m.d.sync += expert.eq(0)
            with m.If(ends_block):
                m.d.sync += block.eq(block + 1)
        with m.If(readout.done):
            m.d.sync += rests.eq(1)

        counters: list[tuple[Signal, Callable[[Pass], int | bool]]] = [
            (engine.base, s.words),
            (engine.bias_base, s.biases),
            (finish.layer, lambda p: p.fires and not p.attends),
            (finish.shifted, lambda p: bool(p.residual)),
        ]
        for port, step in counters:
            place = Signal.like(port, name=f"{port.name}_of_pass")
            m.d.comb += port.eq(place)
            with m.If(guard.done):
                m.d.sync += place.eq(0)
            with m.Elif(done & ~more):
                m.d.sync += place.eq(place + of(step))

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
        puts = Signal()  # a pass puts out a word of spikes
        m.d.comb += [
            image_write.en.eq(comes),
            image_write.addr.eq(guard.beat),
            image_write.data.eq(guard.o.payload.data),
            image_read.en.eq(walk.read),
            image_read.addr.eq(walk.address),
            read.en.eq(walk.read),
            read.addr.eq(walk.address),
            puts.eq(finish.write),
            write.en.eq(puts & of(lambda p: p.stored)),
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
            engine.i_tag[0].eq(walk.repeat),
            engine.i_bits.eq(
                Mux(
                    first,
                    Cat(x.bit_select(plane, 1) for x in pixels),
                    Mux(merges, 0, read.data) if c.experts else read.data,
                )
            ),
            engine.stride.eq(of(s.stride)),
            engine.last_group.eq(of(lambda p: max(s.groups(p) - 1, 0))),
            engine.mute.eq((plane != 0) | merges),
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
        if c.experts:
            m.submodules.route = route = Route(c)
            m.d.comb += [
                route.start.eq(start),
                route.write.eq(finish.o_fires & of(lambda p: p.routes)),
                route.fired.eq(finish.o_fired),
                route.expert.eq(expert),
                route.read.eq(walk.read),
                route.ends.eq(walk.ends),
                engine.i_tag[1].eq(route.given | ~of(lambda p: p.expert)),
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

        m.submodules.fault_counter = faults = FaultCounter(5)
        m.d.comb += [
            faults.fault.eq(Cat(guard.fault, load.fault, finish.fault)),
            self.faults.eq(faults.count),
        ]
        return m
