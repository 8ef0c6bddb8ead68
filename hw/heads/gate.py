"""Q waits until it is known which heads stay, and leaves without the others."""

from amaranth import Module, Mux, Signal
from amaranth.hdl import Value
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from hw.attributes import BLOCK, NO_COLLISION
from hw.heads.config import HeadsConfig


class Gate(wiring.Component):
    """Keep whole inferences in block RAM; put each out with its heads, once they are known.

    A ring of `HeadsConfig.places` beats, not two pages: what goes out makes room for what comes in.

    A head that goes is 0 because the reset of its output registers says so, which costs no LUTs.

    Parameters
    ----------
    config : HeadsConfig

    Attributes
    ----------
    offer : Signal(), in
        There is a beat, whether it is written or not: that is known late.
    write : Signal(), in
        It is written.
    word : Signal(), in
    commit : Signal(), in
        With the last beat of an inference.
    undo : Signal(), in
        What was written of an inference is forgotten; not with `write`.
    room : Signal(), out
        A beat may be written.
    ready : Signal(), out
        The inference before is through, or is in this clock.
    begin : Signal(), in
        The next one begins, only if `ready`.
    kept : Signal(heads), in
        With `begin`: its heads that stay.
    out : stream, out
    """

    def __init__(self, config: HeadsConfig) -> None:
        self._config = config
        flags = {"offer": In(1), "write": In(1), "commit": In(1), "undo": In(1), "begin": In(1)}
        super().__init__(
            flags
            | {
                "word": In(config.stream("q").lanes),
                "kept": In(config.heads),
                "room": Out(1),
                "ready": Out(1),
                "out": Out(config.stream("out").signature),
            }
        )

    def elaborate(self, platform: object) -> Module:
        c = self._config
        m = Module()
        # Where the next beat is written: never at one that is still to be read, since a place is
        # always free.
        into = Signal(range(c.places))
        start = Signal.like(into)  # of the inference that comes in
        out_of = Signal.like(into)  # where the next one is read
        behind = Signal.like(into, init=c.places - 1)  # and where the last one was
        fetch, fetched, active, moves = (
            Signal(name=x) for x in ("fetch", "fetched", "active", "moves")
        )

        def after(place: Value) -> Value:
            if c.places & (c.places - 1):
                return Mux(place == c.places - 1, 0, place + 1)
            return (place + 1)[: len(place)]

        m.d.comb += [
            self.room.eq(into != behind),
            moves.eq(fetched & active & (self.out.ready | ~self.out.valid)),
            fetch.eq((out_of != start) & (~fetched | moves)),
        ]
        with m.If(self.write):
            m.d.sync += into.eq(after(into))
        with m.If(self.undo):
            m.d.sync += into.eq(start)
        with m.If(self.commit):
            m.d.sync += start.eq(after(into))
        with m.If(fetch):
            m.d.sync += [out_of.eq(after(out_of)), behind.eq(out_of)]
        m.d.sync += [
            fetched.eq(fetch | (fetched & ~moves)),
            active.eq(self.begin | (active & ~self.ready)),
            self.out.valid.eq(moves | (self.out.valid & ~self.out.ready)),
        ]
        ends = self._mark(m, moves)
        m.d.comb += self.ready.eq(~active | ends)
        self._mask(m, moves, self._store(m, into, out_of, fetch))
        return m

    def _store(self, m: Module, into: Signal, out_of: Signal, fetch: Signal) -> Value:
        """Return the beat that was fetched last.

        The greatest power of two has a memory of its own: else a synthesis tool would stack small
        blocks and pick one of many words.
        """
        c = self._config
        bits = c.places.bit_length() - 1
        words: list[Value] = []
        for high, depth in enumerate((1 << bits, c.places - (1 << bits))):
            if not depth:
                continue
            m.submodules[f"memory{high}"] = store = memory.Memory(
                shape=len(self.word), depth=depth, init=[], attrs=NO_COLLISION | BLOCK
            )
            write, read = store.write_port(), store.read_port()
            m.d.comb += [
                write.addr.eq(into),
                write.data.eq(self.word),
                write.en.eq(self.offer & (into[bits:] == high)),
                read.addr.eq(out_of),
                read.en.eq(fetch),
            ]
            words.append(read.data)
        if len(words) == 1:
            return words[0]
        second = Signal()
        with m.If(fetch):
            m.d.sync += second.eq(out_of[bits])
        return Mux(second, words[1], words[0])

    def _mark(self, m: Module, moves: Signal) -> Value:
        """Count beats and time steps; return whether the last one of an inference moves."""
        c = self._config
        beat = Signal(range(c.beats))
        step = Signal(range(c.timesteps))
        at_last, in_final = beat == c.beats - 1, step == c.timesteps - 1
        first = Signal()
        with m.If(moves):
            m.d.sync += [
                beat.eq(Mux(at_last, 0, beat + 1)),
                self.out.payload.last.eq(at_last),
                self.out.payload.first.eq(first),
                first.eq(0),
            ]
            with m.If(at_last):
                m.d.sync += step.eq(Mux(in_final, 0, step + 1))
        with m.If(self.begin):
            m.d.sync += first.eq(1)
        return moves & at_last & in_final

    def _mask(self, m: Module, moves: Signal, word: Value) -> None:
        """Take a beat to the output."""
        c = self._config
        mask = Signal(c.heads, reset_less=True)  # the heads of this beat are the lowest
        turns = moves
        if c.parts > 1:
            part = Signal(range(c.parts))
            at_last = part == c.parts - 1
            with m.If(moves):
                m.d.sync += part.eq(Mux(at_last, 0, part + 1))
            turns = moves & at_last
        if c.shares > 1:
            with m.If(turns):
                m.d.sync += mask.eq(mask.rotate_right(c.lanes))
        with m.If(self.begin):
            m.d.sync += mask.eq(self.kept)
        size = c.channels_per_beat // c.lanes
        shape = data.ArrayLayout(data.ArrayLayout(size, c.lanes), c.tokens_per_beat)
        beat = data.View(shape, word)
        # Without a reset of its own: a flip-flop has but one.
        held = Signal(shape, reset_less=True)
        with m.If(moves):
            for came, token in zip(held, beat, strict=True):
                for lane in range(c.lanes):
                    m.d.sync += came[lane].eq(Mux(mask[lane], token[lane], 0))
        m.d.comb += self.out.payload.data.as_value().eq(held.as_value())
