"""What goes into the engine: the tokens of a layer, time step by time step."""

from amaranth import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.transformer.block import BlockConfig


class Walk(wiring.Component):
    """Read the tokens of a pass, a word a clock if the engine takes it.

    All time steps of a token, then the next token. Words of spikes lie in that order, so one
    counter is all the addresses; those of a token of the image are read again in each time step.

    Parameters
    ----------
    config : BlockConfig

    Attributes
    ----------
    start : Signal(), in
        A pass begins.
    image : Signal(), in
        It takes the image, if there is one, and not spikes.
    source, last_beat : in
        The first word of its spikes; beats of a token, less 1.
    read, address : out
        Of both memories; the word is there a clock later, until the next is read.
    ends : Signal(), out
        With `read`: it is the last word of a token.
    valid, ready, final, restart, repeat : out, in, out, out, out
        That word goes to the engine, which has these.
    """

    def __init__(self, config: BlockConfig) -> None:
        self._config = config
        s = config.schedule
        beats = max(s.beats(p) for p in s.passes)
        words = max(s.spike_words, s.image_beats)
        super().__init__(
            {
                "start": In(1),
                "image": In(1),
                "source": In(range(max(s.spike_words, 2))),
                "last_beat": In(range(max(beats, 2))),
                "read": Out(1),
                "address": Out(range(max(words, 2))),
                "ends": Out(1),
                "valid": Out(1),
                "ready": In(1),
                "final": Out(1),
                "restart": Out(1),
                "repeat": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        c = self._config
        m = Module()
        runs = Signal()
        beat = Signal.like(self.last_beat)
        token = Signal(range(max(c.tokens, 2)))
        step = Signal(range(max(c.timesteps, 2)))
        last_beat, last_step, last_token = Signal(), Signal(), Signal()
        m.d.comb += [
            self.read.eq(runs & (~self.valid | self.ready)),
            last_beat.eq(beat == self.last_beat),
            last_step.eq(last_beat & (step == c.timesteps - 1)),
            last_token.eq(last_step & (token == c.tokens - 1)),
        ]
        m.d.comb += self.ends.eq(last_beat)
        m.d.sync += self.valid.eq(self.read | (self.valid & ~self.ready))
        with m.If(self.read):
            m.d.sync += [
                self.final.eq(last_beat),
                self.restart.eq(~self.image | ((token == 0) & (step == 0))),
                self.repeat.eq(step != 0),
                self.address.eq(self.address + 1),
                beat.eq(Mux(last_beat, 0, beat + 1)),
                runs.eq(~last_token),
            ]
            with m.If(self.image & last_beat & ~last_step):
                m.d.sync += self.address.eq(self.address - (c.schedule.feature_beats - 1))
            with m.If(last_beat):
                m.d.sync += step.eq(Mux(last_step, 0, step + 1))
            with m.If(last_step):
                m.d.sync += token.eq(Mux(last_token, 0, token + 1))
        with m.If(self.start):
            m.d.sync += [self.address.eq(Mux(self.image, 0, self.source)), runs.eq(1)]
        return m
