"""The score of each head: its spikes of Q in an inference."""

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.hdl import Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.arith import pipelined_counts
from hw.heads.config import HeadsConfig


class Scores(wiring.Component):
    """Count the spikes of heads, those of a beat in every clock.

    `HeadsConfig.lanes` heads are counted at once. Where those of a beat are not all, the sums of
    the others wait in a ring of registers that turns with the beats. Whatever is in it is ignored
    in the first token of an inference, so a void one leaves no trace.

    Parameters
    ----------
    config : HeadsConfig

    Attributes
    ----------
    bits : Signal(), in
        A beat.
    moves : Signal(), in
        It is one.
    fresh, final : Signal(), in
        It is of the first or last token of an inference (or `tokens_per_beat` of them).
    begins, ends : Signal(), in
        It is the first or last one of its heads in a token.
    whole : Signal(), in
        It is the last one of an inference.
    come, done : Signal(), out
        With the last token, `HeadsConfig.count_clocks` + 1 behind `ends` and `whole`.
    scores : out
        Of the heads that come.
    """

    def __init__(self, config: HeadsConfig) -> None:
        self._config = config
        inputs = ("moves", "fresh", "final", "begins", "ends", "whole")
        super().__init__(
            dict.fromkeys(inputs, In(1))
            | {
                "bits": In(config.stream("q").lanes),
                "come": Out(1),
                "done": Out(1),
                "scores": Out(data.ArrayLayout(config.score_bits, config.lanes)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        c = self._config
        m = Module()
        size = c.bits // c.tokens_per_beat
        heads = [
            [
                self.bits[token * c.channels_per_beat + lane * size + i]
                for token in range(c.tokens_per_beat)
                for i in range(size)
            ]
            for lane in range(c.lanes)
        ]
        zeros = [Const(0, c.count_bits)] * c.count_clocks
        ones = pipelined_counts(m, heads, [zeros] * c.lanes, "ones")
        flags: Value = Cat(
            self.moves, self.moves & self.ends, self.fresh, self.begins,
            self.moves & self.ends & self.final, self.whole,
        )  # fmt: skip
        for clock in range(c.count_clocks):
            later = Signal(6, name=f"flags{clock}")
            m.d.sync += later.eq(flags)
            flags = later
        moves, turns, fresh, begins, comes, whole = flags

        shape = self.scores.shape()
        ring = [Signal(shape, name=f"sums{share}", reset_less=True) for share in range(c.shares)]
        total = Signal(shape)
        partial = Signal(shape, reset_less=True)
        for lane in range(c.lanes):
            before = Mux(fresh, 0, ring[0][lane])
            if c.parts > 1:
                before = Mux(begins, before, partial[lane])
            m.d.comb += total[lane].eq(before + ones[lane])
        with m.If(moves):
            m.d.sync += partial.eq(total)
        with m.If(turns):
            m.d.sync += [a.eq(b) for a, b in zip(ring, [*ring[1:], total], strict=True)]
        m.d.sync += [self.come.eq(comes), self.done.eq(whole)]
        m.d.comb += self.scores.eq(ring[-1])
        return m
