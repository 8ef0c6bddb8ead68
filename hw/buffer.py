"""A buffer for the tokens of whole time steps, read several tokens at a time and repeatedly."""

import dataclasses

from amaranth import Cat, Module, Mux, Signal
from amaranth.hdl import Value
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hw.attributes import BLOCK, NO_COLLISION
from hw.queue import Marks
from hw.stream import FrameGuard, Stream
from hw.turns import read_ahead


@dataclasses.dataclass(frozen=True, kw_only=True)
class BufferShape:
    """What a `TokenBuffer` is like.

    Attributes
    ----------
    stream : Stream
        The stream of tokens.
    tokens : int
        Tokens of a beat; in the last beat some may be idle.
    columns : int
        Tokens of one group: a multiple of `tokens`, or all of the time step.
    begins_at : int
        Clocks from where a time step waits to where it is taken at the earliest.
    used_at : int
        Clocks from the release of a time step to the last use of its last group.
    interval : int
        Clocks from one time step to the next; there are as many `slots` as it takes to keep it.
    read_clocks : int
        Clocks from `read` to `group`: one, and as many as there are registers behind the memory.
        The first of them can be the memory's own; one more may be beside what uses the group.
    """

    stream: Stream
    tokens: int
    columns: int
    begins_at: int
    used_at: int
    interval: int
    read_clocks: int

    @property
    def registered(self) -> bool:
        """Whether clock rate comes before cells: there is a register behind the guard too."""
        return self.read_clocks > 1

    @property
    def group_beats(self) -> int:
        """Beats of a group."""
        return -(-self.columns // self.tokens)

    @property
    def groups(self) -> int:
        """Groups of a time step."""
        return -(-self.stream.beats // self.group_beats)

    @property
    def lag(self) -> int:
        """Clocks from the release of a time step to where another may be written over it.

        Registers are read where they are, a memory `read_clocks` before.
        """
        return self.used_at if self.groups == 1 else self.used_at - self.read_clocks

    @property
    def early(self) -> int:
        """Clocks from the release of a time step to where its slot counts as free.

        The first beat of another one comes a clock later at the earliest, and takes one more
        through the register.
        """
        return max(self.lag - 1 - self.registered, 0)

    @property
    def slots(self) -> int:
        """Time steps that are held: each from its last beat until its slot counts as free."""
        held = self.begins_at + self.interval + self.stream.beats + self.early
        return max(-(-held // self.interval), 2)


class TokenBuffer(wiring.Component):
    """Hold time steps of one stream; read groups of `columns` tokens from the oldest.

    Tokens are written as they come, a beat a clock. A time step counts as *waiting* once its last
    token can be read, until it is taken; from then until its release it can be read. A broken
    frame that leaves nothing of its inference takes a slot too, marked `void`, so that several
    buffers side by side keep step with each other.

    With more than one group the tokens lie in memory (`slots` pages of `groups` words); with one
    group they move through a chain of registers, a stage a slot, since all of them are read at
    once.

    Parameters
    ----------
    shape : BufferShape

    Attributes
    ----------
    i : stream, in
    fault : Signal(), out
        A broken frame is found.
    waiting, first, void : Signal(), out
        Whether a time step waits to be taken, and its marks.
    settled : Signal(), out
        The oldest time step is where it is read from: it may be taken without being read.
    take : Signal(), in
        The waiting time step is taken.
    release : Signal(), in
        With the last `read` of the time step that was taken, or `take` if it is not read at all.
    read : Signal(), in
        Fetch group `address` of the oldest time step.
    group : out
        `columns` tokens, `read_clocks` clocks after `read`; token 0 lowest; held until the next.
    """

    def __init__(self, shape: BufferShape) -> None:
        self.shape = shape
        beat = shape.stream.lanes * shape.stream.width
        self._word = data.ArrayLayout(beat, shape.group_beats)
        super().__init__(
            {
                "i": In(shape.stream.signature),
                "fault": Out(1),
                "waiting": Out(1),
                "first": Out(1),
                "void": Out(1),
                "settled": Out(1),
                "take": In(1),
                "release": In(1),
                "read": In(1),
                "address": In(range(max(shape.groups, 2))),
                "group": Out(
                    data.ArrayLayout(beat // shape.tokens, shape.tokens * shape.group_beats)
                ),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.guard = guard = FrameGuard(self.shape.stream, joined=True)
        wiring.connect(m, wiring.flipped(self.i), guard.i)
        m.d.comb += self.fault.eq(guard.fault)

        released = [self.release]  # so many clocks ago
        for i in range(self.shape.lag):
            later = Signal(name=f"released{i}")
            m.d.sync += later.eq(released[-1])
            released.append(later)

        used = Signal(range(self.shape.slots + 1))  # slots that are full
        commit = Signal()
        m.d.comb += [
            commit.eq(guard.done | guard.void),
            guard.o.ready.eq(used != self.shape.slots),
        ]
        m.d.sync += used.eq(used + commit - released[self.shape.early])

        beat = _Beat(
            write=guard.o.valid & guard.o.ready,
            data=guard.o.payload.data.as_value(),
            index=guard.beat,
            commit=commit,
            broken=guard.broken,
            opening=guard.opening,
            void=guard.void,
        )
        # The register is between the last token and its first read, not between that and its mark.
        self._marks(m, beat)
        if self.shape.registered:
            beat = beat.registered(m)
        if self.shape.groups > 1:
            self._memory(m, beat, released)
        else:
            self._chain(m, beat, released)
        return m

    def _marks(self, m: Module, beat: "_Beat") -> None:
        """Keep the marks of the time steps that are whole and not yet taken, oldest first."""
        m.submodules.marks = marks = Marks(2, self.shape.slots)
        m.d.comb += [
            marks.write.eq(beat.commit),
            marks.word.eq(Cat(beat.opening, beat.void)),
            marks.pop.eq(self.take),
            self.waiting.eq(marks.waiting),
            Cat(self.first, self.void).eq(marks.oldest),
        ]

    def _memory(self, m: Module, beat: "_Beat", released: list[Signal]) -> None:
        bits = ceil_log2(self.shape.groups)
        # A page beyond those that are held lets the port write whatever is there into the place of
        # the next beat: no gate on each of its enables. And one while a slot is free too `early`.
        spare = 1 + (self.shape.lag > self.shape.early) if self.shape.registered else 0
        pages = self.shape.slots + spare
        m.submodules.memory = store = memory.Memory(
            shape=self._word,
            depth=(pages - 1) * 2**bits + self.shape.groups,
            init=[],
            attrs=NO_COLLISION | (BLOCK if self.shape.registered else {}),
        )
        write, read = store.write_port(granularity=1), store.read_port()
        into, out_of = Signal(range(pages)), Signal(range(pages))

        def turn(page: Signal) -> Value:
            return Mux(page == pages - 1, 0, page + 1)

        m.d.comb += [
            read.addr.eq(Cat(self.address[:bits], out_of)),
            read.en.eq(self.read),
            self.settled.eq(~Cat(released[1:]).any()),
        ]
        m.d.comb += self.group.as_value().eq(
            read_ahead(m, read.data.as_value(), "group", self.shape.read_clocks)
        )
        with m.If(beat.commit):
            m.d.sync += into.eq(turn(into))
        with m.If(released[-1]):
            m.d.sync += out_of.eq(turn(out_of))

        # Beat b of a time step goes to group b / beats of a group, lane b mod those.
        lane = Signal(self.shape.group_beats, init=1)
        with m.If(beat.write):
            m.d.sync += lane.eq(lane.rotate_left(1))
        with m.If(beat.commit | beat.broken):
            m.d.sync += lane.eq(1)
        if self.shape.group_beats & (self.shape.group_beats - 1):
            group = Signal(range(self.shape.groups))
            with m.If(beat.write & lane[-1]):
                m.d.sync += group.eq(group + 1)
            with m.If(beat.commit | beat.broken):
                m.d.sync += group.eq(0)
        else:
            group = beat.index >> ceil_log2(self.shape.group_beats)
        m.d.comb += [
            write.addr.eq(Cat(group[:bits], into)),
            write.en.eq(lane if spare else Mux(beat.write, lane, 0)),
        ]
        for word in write.data:
            m.d.comb += word.eq(beat.data)

    def _chain(self, m: Module, beat: "_Beat", released: list[Signal]) -> None:
        stages = [Signal(self._word, name=f"stage{i}") for i in range(self.shape.slots)]
        full = Signal(self.shape.slots)
        moves = Signal(self.shape.slots)  # the content of the stage leaves
        for i in range(self.shape.slots - 1):
            m.d.comb += moves[i].eq(full[i] & (~full[i + 1] | moves[i + 1]))
            with m.If(moves[i]):
                m.d.sync += stages[i + 1].eq(stages[i])
        m.d.comb += [
            moves[-1].eq(released[-1]),
            self.group.as_value().eq(stages[-1]),
            self.settled.eq(full[-1] & ~Cat(released[1:]).any()),
        ]
        arrives = [beat.commit, *moves[:-1]]
        m.d.sync += full.eq(Cat((f & ~g) | a for f, g, a in zip(full, moves, arrives, strict=True)))
        with m.If(beat.write):
            word = stages[0].as_value()
            m.d.sync += word.eq(Cat(word, beat.data)[len(beat.data) :])


@dataclasses.dataclass
class _Beat:
    """What the guard says of a clock."""

    write: Value  # a beat of a frame that is whole so far
    data: Value
    index: Value  # of the beat in its time step
    commit: Value  # a time step is whole, or an inference void
    broken: Value  # beats of a time step are dropped
    opening: Value
    void: Value

    def registered(self, m: Module) -> "_Beat":
        """Return the same a clock later."""
        later = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            later[field.name] = Signal.like(value, name=f"beat_{field.name}")
            m.d.sync += later[field.name].eq(value)
        return _Beat(**later)
