"""A buffer for the tokens of whole time steps, read several tokens at a time and repeatedly."""

import dataclasses
from collections.abc import Mapping

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.hdl import Value
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hw.attributes import BLOCK, NO_COLLISION
from hw.queue import Marks
from hw.stream import FrameGuard, Stream
from hw.turns import following, read_ahead


@dataclasses.dataclass(frozen=True, kw_only=True)
class BufferShape:
    """What a `StepBuffer` is like.

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
    """

    stream: Stream
    tokens: int
    columns: int
    begins_at: int
    used_at: int
    interval: int

    @property
    def registered(self) -> bool:
        """Whether clock rate comes before cells: there is a register behind the guard too."""
        return True

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
        """Clocks from the release of a time step to where another may be written over it."""
        return self.used_at

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenShape(BufferShape):
    """What a `TokenBuffer` is like.

    Attributes
    ----------
    read_clocks : int
        Clocks from `read` to `group`: one, and as many as there are registers behind the memory.
        The first of them can be the memory's own; one more may be beside what uses the group.
    """

    read_clocks: int

    @property
    def registered(self) -> bool:
        return self.read_clocks > 1

    @property
    def lag(self) -> int:
        return self.used_at - self.read_clocks


class StepBuffer(wiring.Component):
    """Hold time steps of one stream, of which the oldest one is used.

    Tokens are written as they come, a beat a clock. A time step counts as *waiting* once its last
    token has come, until it is taken; from then until its release it can be used. A broken frame
    that leaves nothing of its inference takes a slot too, marked `void`, so that several buffers
    side by side keep step with each other.

    Parameters
    ----------
    shape : BufferShape
    ports : mapping
        Further members.

    Attributes
    ----------
    i : stream, in
    fault : Signal(), out
        A broken frame is found.
    waiting, first, void : Signal(), out
        Whether a time step waits to be taken, and its marks.
    settled : Signal(), out
        The oldest time step is where it is used: it may be taken without being used.
    take : Signal(), in
        The waiting time step is taken.
    drop : Signal(), in
        So it is, but it is not used at all.
    release : Signal(), in
        With the last use of the time step that was taken.
    group : out
        `columns` tokens; token 0 lowest.
    """

    def __init__(self, shape: BufferShape, ports: Mapping[str, wiring.Member]) -> None:
        self.shape = shape
        beat = shape.stream.lanes * shape.stream.width
        self._word = data.ArrayLayout(beat, shape.group_beats)
        token = beat // shape.tokens
        super().__init__(
            {
                "i": In(shape.stream.signature),
                "fault": Out(1),
                "waiting": Out(1),
                "first": Out(1),
                "void": Out(1),
                "settled": Out(1),
                "take": In(1),
                "drop": In(1),
                "release": In(1),
                "group": Out(data.ArrayLayout(token, shape.tokens * shape.group_beats)),
                **ports,
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.guard = guard = FrameGuard(self.shape.stream, joined=True)
        wiring.connect(m, wiring.flipped(self.i), guard.i)
        m.d.comb += self.fault.eq(guard.fault)

        used = Signal(range(self.shape.slots + 1))  # slots that are full
        commit = Signal()
        released = history(m, self.release | self.drop, self.shape.lag, "released")
        after = (used + commit - released[self.shape.early])[: len(used)]
        free = Signal(init=1)  # in front of all that the guard does
        m.d.comb += [commit.eq(guard.done | guard.void), guard.o.ready.eq(free)]
        m.d.sync += [used.eq(after), free.eq(after != self.shape.slots)]

        beat = Beat(
            write=guard.o.valid & guard.o.ready,
            data=guard.o.payload.data.as_value(),
            index=guard.beat,
            commit=commit,
            broken=guard.broken,
            opening=guard.opening,
            void=guard.void,
        )
        # The register is between the last token and its first use, not between that and its mark.
        m.submodules.marks = marks = Marks(2, self.shape.slots)
        m.d.comb += [
            marks.write.eq(beat.commit),
            marks.word.eq(Cat(beat.opening, beat.void)),
            marks.pop.eq(self.take | self.drop),
            Cat(self.first, self.void).eq(marks.oldest),
        ]
        if self.shape.registered:
            beat = beat.registered(m)
        m.d.comb += self.waiting.eq(marks.waiting & self._store(m, beat, released))
        return m

    def _store(self, m: Module, beat: "Beat", released: list[Value]) -> Value:
        """Store beats; return whether the next time step may be taken."""
        raise NotImplementedError


class TokenBuffer(StepBuffer):
    """Hold time steps of one stream; read groups of `columns` tokens from the oldest.

    They lie in memory: `slots` pages of `groups` words.

    Parameters
    ----------
    shape : TokenShape

    Attributes
    ----------
    read : Signal(), in
        Fetch group `address` of the oldest time step; it is in `group` `read_clocks` clocks later,
        until the next one.
    """

    shape: TokenShape

    def __init__(self, shape: TokenShape) -> None:
        super().__init__(shape, {"read": In(1), "address": In(range(max(shape.groups, 2)))})

    def _store(self, m: Module, beat: "Beat", released: list[Value]) -> Value:
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

        m.d.comb += [
            read.addr.eq(Cat(self.address[:bits], out_of)),
            read.en.eq(self.read),
            self.settled.eq(~Cat(released[1:]).any()),
        ]
        m.d.comb += self.group.as_value().eq(
            read_ahead(m, read.data.as_value(), "group", self.shape.read_clocks)
        )
        with m.If(beat.commit):
            m.d.sync += into.eq(following(into, pages))
        with m.If(released[-1]):
            m.d.sync += out_of.eq(following(out_of, pages))

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
        return Const(1)


@dataclasses.dataclass
class Beat:
    """What the guard says of a clock."""

    write: Value  # a beat of a frame that is whole so far
    data: Value
    index: Value  # of the beat in its time step
    commit: Value  # a time step is whole, or an inference void
    broken: Value  # beats of a time step are dropped
    opening: Value
    void: Value

    def registered(self, m: Module) -> "Beat":
        """Return the same a clock later."""
        later = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            of_data = field.name == "data"
            later[field.name] = Signal.like(value, name=f"beat_{field.name}", reset_less=of_data)
            m.d.sync += later[field.name].eq(value)
        return Beat(**later)


def history(m: Module, value: Value, clocks: int, name: str) -> list[Value]:
    """Return `value` now and so many clocks ago, each."""
    values = [value]
    for i in range(clocks):
        later = Signal(name=f"{name}{i}")
        m.d.sync += later.eq(values[-1])
        values.append(later)
    return values
