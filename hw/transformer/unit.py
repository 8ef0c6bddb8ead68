"""A whole spiking transformer: one engine for all layers, blocks and time steps."""

from amaranth import Cat, Module, Signal
from amaranth.lib import memory, wiring

from hw.attributes import NO_COLLISION
from hw.stream import FaultCounter, FrameGuard, members
from hw.transformer.config import TransformerConfig
from hw.transformer.core import Core
from hw.transformer.readout import Readout


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
                  (with experts route, expand and contract E times, merge)
        head

    All but the image and the readout is `Core`, which `hw.encoder.Encoder` puts other ends to.

    Clocks of an image: its beats; ``T N G max(slices, lanes, 5)`` for each pass, where a token has
    ``slices = inputs / columns`` and there are ``G = outputs / lanes`` groups; 2 a class; and some
    tens a pass to fill and drain the pipeline (`Schedule` has them all, exactly). A pass through
    the attention unit takes the words of a beat and 2 clocks for each beat, and the unit's own.

    Memories: weights and biases of all layers; the residual, ``T N C`` words; the spikes of one
    layer in and of one out, or of q, k and v; one token's membranes. With experts who gets each
    token, and the number of answers to it.

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
    weights, bias, threshold, shift, attention_threshold : stream, in
        Those that the configuration has. Taken between images; no image begins once there are some.
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
        m.submodules.core = core = Core(c)
        m.submodules.readout = readout = Readout(c)
        wiring.connect(m, wiring.flipped(self.patches), guard.i)
        for name in (*c.settings, *(["trace"] if c.trace else [])):
            wiring.connect(m, wiring.flipped(getattr(self, name)), getattr(core, name))
        for name in ("logits", "answer"):
            wiring.connect(m, wiring.flipped(getattr(self, name)), getattr(readout, name))

        rests = Signal(init=1)
        comes = guard.o.valid & guard.o.ready
        m.d.comb += [
            guard.o.ready.eq(rests & ~core.closed),
            core.rests.eq(rests & (guard.beat == 0)),
            core.moves.eq(comes),
            core.start.eq(guard.done),
        ]
        with m.If(guard.done):
            m.d.sync += rests.eq(0)
        with m.If(readout.done):
            m.d.sync += rests.eq(1)

        m.submodules.image = image = memory.Memory(
            shape=c.channels_per_beat * c.input_bits, depth=s.image_beats, init=[],
            attrs=NO_COLLISION,
        )  # fmt: skip
        # It is written between inferences.
        write, read = image.write_port(), image.read_port()
        pixels = [read.data.word_select(i, c.input_bits) for i in range(c.channels_per_beat)]
        m.d.comb += [
            write.en.eq(comes),
            write.addr.eq(guard.beat),
            write.data.eq(guard.o.payload.data),
            read.en.eq(core.image_read),
            read.addr.eq(core.image_address),
            core.image_bits.eq(Cat(x.bit_select(core.plane, 1) for x in pixels)),
            readout.start.eq(core.starts),
            readout.coming.eq(core.coming),
            readout.valid.eq(core.o_valid),
            readout.value.eq(core.o_value),
            readout.go.eq(core.done),
        ]

        m.submodules.fault_counter = faults = FaultCounter(1 + len(c.settings))
        m.d.comb += [
            faults.fault.eq(Cat(guard.fault, core.fault)),
            self.faults.eq(faults.count),
        ]
        return m
