"""The slices of a token, one after another: all of them, or those in which there is anything."""

from amaranth import Array, Cat, Module, Mux, Signal
from amaranth.hdl import Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hw.linear.plan import Plan


def _slices(beat: Value, plan: Plan) -> list[Value]:
    return [beat.word_select(i, plan.slice_bits) for i in range(plan.beat_slices)]


class Scan(wiring.Component):
    """Cut beats into slices of `columns` inputs, and leave empty ones out with `events`.

    With `events` a beat takes a clock to come in and one for each slice that is not empty: the
    lowest set bit of x is ``x & ~(x - 1)``, and what is left behind it ``x & (x - 1)``, so the only
    loop is a carry chain. Whether anything is left is asked a clock later, which is the clock to
    come in. (Without that clock the answer would hang behind the chain, and whoever computes has
    several groups of outputs to go through for each slice anyway.) Else a beat takes a clock for
    each slice.

    Parameters
    ----------
    plan : Plan

    Attributes
    ----------
    valid, bits, ready : in, in, out
        A beat.
    final : Signal(), in
        With `valid`: it is the last one of its token.
    word : Signal(word_bits), in
        With that beat: what is known of the token.
    drop : Signal(), in
        Forget the beats of the token at hand; only while `ready`, and no beat moves.
    taken : Signal(), out
        The last beat of a token moves.
    write : Signal(), out
        There is a slice.
    index, slice : out
        Which one of its token, and what is in it.
    commit : Signal(), out
        The token is whole: with its last slice, or behind it with `events`.
    commit_word : Signal(word_bits), out
    room : Signal(), in
        Beats may come.
    abort : Signal(), out
        What was put out of a token is forgotten, but what is committed in this clock.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = p = plan
        super().__init__(
            {
                "valid": In(1),
                "bits": In(p.channels * p.input_bits),
                "ready": Out(1),
                "final": In(1),
                "word": In(p.word_bits),
                "drop": In(1),
                "taken": Out(1),
                "write": Out(1),
                "index": Out(p.index_bits),
                "slice": Out(p.slice_bits),
                "commit": Out(1),
                "commit_word": Out(p.word_bits),
                "abort": Out(1),
                "room": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        moves = Signal()
        final = Signal()
        beat = Signal.like(self.bits)
        m.d.comb += [moves.eq(self.valid & self.ready), self.taken.eq(moves & self.final)]
        word = Signal.like(self.word)
        with m.If(moves):
            m.d.sync += [beat.eq(self.bits), word.eq(self.word)]
        if self._plan.events:
            self._some(m, moves, final, beat, word)
        else:
            self._all(m, moves, final, beat)
            m.d.comb += self.commit_word.eq(word)
        return m

    def _all(self, m: Module, moves: Signal, final: Signal, beat: Signal) -> None:
        p = self._plan
        busy = Signal()
        place = Signal(range(max(p.beat_slices, 2)))
        ends = Signal()
        m.d.comb += [
            ends.eq(place == p.beat_slices - 1),
            self.ready.eq(self.room & (~busy | ends)),
            self.write.eq(busy),
            # (`word_select` would multiply to find out where it is.)
            self.slice.eq(Array(_slices(beat, p))[place]),
            self.commit.eq(busy & ends & final),
            self.abort.eq(self.drop),
        ]
        m.d.sync += busy.eq(moves | (busy & ~ends))
        with m.If(busy):
            m.d.sync += place.eq(Mux(ends, 0, place + 1))
        with m.If(moves):
            m.d.sync += final.eq(self.final)

    def _some(self, m: Module, moves: Signal, final: Signal, beat: Signal, word: Signal) -> None:
        p = self._plan
        some = Cat(part.any() for part in _slices(self.bits, p))
        left = Signal(p.beat_slices)  # slices that are still to go
        rest = Signal.like(left)
        empty = Signal()
        m.d.comb += [
            empty.eq(~left.any()),
            rest.eq(left & (left - 1)),
            self.ready.eq(self.room & empty),
        ]
        m.d.sync += left.eq(Mux(moves, some, rest))
        with m.If(empty):
            m.d.sync += final.eq(moves & self.final)

        # A clock later, which slice it is; and two clocks later, its number.
        lowest = Signal.like(left)
        number = Signal.like(self.index)  # of the first slice of the beat
        word_then = Signal.like(word)
        found, ended, dropped = (Signal(name=x) for x in ("found", "ended", "dropped"))
        m.d.sync += [
            lowest.eq(left & ~rest),
            found.eq(~empty),
            ended.eq(empty & final),
            dropped.eq(self.drop),
            word_then.eq(word),
            self.commit_word.eq(word_then),
        ]
        self._count_beats(m, moves, number)
        place = Cat(
            Cat(lowest[i] for i in range(p.beat_slices) if i >> bit & 1).any()
            for bit in range(ceil_log2(p.beat_slices))
        )  # fmt: skip
        index: Value = Cat(place, number[len(place) :]) if p.even else number + place
        m.d.sync += [
            self.index.eq(index),
            self.write.eq(found),
            self.commit.eq(ended),
            self.abort.eq(dropped),
        ]
        if p.stores_slices:
            parts = [Mux(lowest[i], part, 0) for i, part in enumerate(_slices(beat, p))]
            m.d.sync += self.slice.eq(
                Cat(Cat(part[b] for part in parts).any() for b in range(p.slice_bits))
            )

    def _count_beats(self, m: Module, moves: Signal, number: Signal) -> None:
        """Keep the number of the first slice of the beat at hand."""
        fresh = Signal(init=1)  # the next beat is the first one of its token
        with m.If(moves):
            m.d.sync += [
                number.eq(Mux(fresh, 0, number + self._plan.beat_slices)),
                fresh.eq(self.final),
            ]
        with m.If(self.drop):
            m.d.sync += fresh.eq(1)
