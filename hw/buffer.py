"""A buffer for the tokens of whole time steps, read several tokens at a time and repeatedly."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.hdl import Value
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hw.stream import FrameGuard, Stream

NO_COLLISION = {"no_rw_check": 1}
"""Attribute of a memory that is never read and written at one address in one clock.

Without it Yosys builds a bypass of a register and a multiplexer per bit around a block RAM, since
a Verilog memory read in the clock of a write gives the old word.
"""


class TokenBuffer(wiring.Component):
    """Hold up to `slots` time steps of one stream; read groups of `columns` tokens from the oldest.

    Tokens are written as they come, one a clock. A time step counts as *waiting* from the clock
    after its last token until it is taken, and its slot is free again after `free`, which may come
    later. A broken frame that leaves nothing of its inference takes a slot too, marked `void`, so
    that several buffers side by side keep step with each other.

    With more than one group the tokens lie in memory (`slots` pages of `groups` words); with one
    group they move through a chain of registers, a stage a slot, since all of them are read at
    once.

    Parameters
    ----------
    stream : Stream
        The stream of tokens, a token a beat.
    columns : int
        Tokens of one group, 1 to all; in the last group some may be idle.
    slots : int
        2 or more; with s clocks from `take` to `free`, ``2 + ceil(s / tokens)`` leave no gap.

    Attributes
    ----------
    i : stream, in
    fault : Signal(), out
        A broken frame is found.
    waiting, first, void : Signal(), out
        Whether a time step waits to be taken, and its marks.
    settled : Signal(), out
        The oldest time step is where it is read from: it may be freed without being read.
    take : Signal(), in
        The waiting time step is taken.
    enable : Signal(), in
        The clock enable of reading: `address`, `read` and `free` count only with it.
    read : Signal(), in
        Fetch group `address` of the oldest time step.
    group : out
        `columns` tokens, a clock of `enable` after `read`; token 0 lowest; held until the next.
    free : Signal(), in
        With the last `read` of a time step, or later.
    """

    def __init__(self, stream: Stream, columns: int, slots: int) -> None:
        self._stream = stream
        self._columns = columns
        self._slots = slots
        self.groups = -(-stream.beats // columns)
        self._shape = data.ArrayLayout(stream.lanes * stream.width, columns)
        super().__init__(
            {
                "i": In(stream.signature),
                "fault": Out(1),
                "waiting": Out(1),
                "first": Out(1),
                "void": Out(1),
                "settled": Out(1),
                "take": In(1),
                "enable": In(1),
                "read": In(1),
                "address": In(range(max(self.groups, 2))),
                "group": Out(self._shape),
                "free": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.guard = guard = FrameGuard(self._stream, joined=True)
        wiring.connect(m, wiring.flipped(self.i), guard.i)
        m.d.comb += self.fault.eq(guard.fault)
        commit = Signal()
        m.d.comb += commit.eq(guard.done | guard.void)

        # Marks of the time steps that are whole and not yet taken, oldest first.
        marks = [Signal(2, name=f"mark{i}") for i in range(self._slots)]
        count = Signal(range(self._slots + 1))
        left = Signal.like(count)
        m.d.comb += [
            self.waiting.eq(count != 0),
            Cat(self.first, self.void).eq(marks[0]),
            left.eq(count - self.take),
        ]
        m.d.sync += count.eq(left + commit)
        for i, mark in enumerate(marks):
            behind = marks[i + 1] if i + 1 < self._slots else mark
            with m.If(commit & (left == i)):
                m.d.sync += mark.eq(Cat(guard.opening, guard.void))
            with m.Elif(self.take):
                m.d.sync += mark.eq(behind)

        if self.groups > 1:
            self._memory(m, guard, commit)
        else:
            self._chain(m, guard, commit)
        return m

    def _memory(self, m: Module, guard: FrameGuard, commit: Signal) -> None:
        bits = ceil_log2(self.groups)
        m.submodules.memory = store = memory.Memory(
            shape=self._shape,
            depth=(self._slots - 1) * 2**bits + self.groups,
            init=[],
            attrs=NO_COLLISION,
        )
        write, read = store.write_port(granularity=1), store.read_port()
        used = Signal(range(self._slots + 1))  # slots that are full
        into, out_of = Signal(range(self._slots)), Signal(range(self._slots))

        def turn(slot: Signal) -> Value:
            return Mux(slot == self._slots - 1, 0, slot + 1)

        freed = Signal()
        m.d.comb += [
            freed.eq(self.free & self.enable),
            guard.o.ready.eq(used != self._slots),
            read.addr.eq(Cat(self.address[:bits], out_of)),
            read.en.eq(self.read & self.enable),
            self.group.eq(read.data),
            self.settled.eq(used != 0),
        ]
        m.d.sync += used.eq(used + commit - freed)
        with m.If(commit):
            m.d.sync += into.eq(turn(into))
        with m.If(freed):
            m.d.sync += out_of.eq(turn(out_of))

        # Token n goes to group n / columns, lane n mod columns.
        group, lane = guard.beat, Signal(self._columns, init=1)
        if self._columns > 1:
            group = Signal(range(self.groups))
            with m.If(guard.o.valid & guard.o.ready):
                m.d.sync += lane.eq(lane.rotate_left(1))
                with m.If(lane[-1]):
                    m.d.sync += group.eq(group + 1)
            with m.If(commit | guard.broken):
                m.d.sync += [lane.eq(1), group.eq(0)]
        m.d.comb += [
            write.addr.eq(Cat(group[:bits], into)),
            write.en.eq(Mux(guard.o.valid & guard.o.ready, lane, 0)),
        ]
        for word in write.data:
            m.d.comb += word.eq(guard.o.payload.data)

    def _chain(self, m: Module, guard: FrameGuard, commit: Signal) -> None:
        # Data is read from the last stage itself, a clock after `read`: so is `free`.
        freed = Signal()
        with m.If(self.enable):
            m.d.sync += freed.eq(self.free)
        stages = [Signal(self._shape, name=f"stage{i}") for i in range(self._slots)]
        full = Signal(self._slots)
        moves = Signal(self._slots)  # the content of the stage leaves
        for i in range(self._slots - 1):
            m.d.comb += moves[i].eq(full[i] & (~full[i + 1] | moves[i + 1]))
            with m.If(moves[i]):
                m.d.sync += stages[i + 1].eq(stages[i])
        m.d.comb += [
            moves[-1].eq(freed & self.enable),
            guard.o.ready.eq(~full[0] | moves[0]),
            self.group.eq(stages[-1]),
            self.settled.eq(full[-1] & ~freed),
        ]
        arrives = [commit, *moves[:-1]]
        m.d.sync += full.eq(Cat((f & ~g) | a for f, g, a in zip(full, moves, arrives, strict=True)))
        with m.If(guard.o.valid & guard.o.ready):
            word = stages[0].as_value()
            token = guard.o.payload.data.as_value()
            m.d.sync += word.eq(Cat(word, token)[len(token) :])
