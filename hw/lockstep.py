"""Streams whose beats move together."""

import dataclasses
from collections.abc import Sequence

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hw.stream import FrameGuard, Stream


class Lockstep(wiring.Component):
    """Join streams beat by beat, behind a register of each.

    A beat is a group of a token's channels, tokens ascending, groups ascending within a token. The
    attributes without a direction are of the beat that moves on all streams at once.

    Nothing is buffered, so nothing that was taken can be given back:

    * an inference that is broken on one stream is taken from the others and thrown away, while the
      first one waits for them in front of its next inference;
    * a stray `first` is believed until a `last` shows that it was one. By then beats of the others'
      next inference were taken with it: it costs that inference as well.

    Latency 1 clock. No path leads from one stream to another's `ready`.

    Parameters
    ----------
    streams : sequence of Stream
        One or more, of the same beats and steps.
    tokens, groups : int
        Beats of a time step are their product.
    parts : int
        Clocks that are worked on a beat; it moves in the last one.

    Attributes
    ----------
    <name> : stream, in
        One for each stream.
    hold : Signal(), in
        In the next clock no beat may be worked on: there is no room for what comes of it.
    room : Signal(), in
        There is, for a void inference.
    works, wide_works : Signal(), out
        A part of a beat is worked on. The second one is for the enables of registers as wide as the
        data: it comes from flip-flops of its own, since the way to so many takes long.
    <name>_data : out
        Its channels.
    part : Signal(range(parts)), out
    word, next_word : Signal(range(groups * 2**ceil_log2(parts))), out
        Group and part of the beat that is worked on now, or next; of what may be worked on in the
        next clock. The part lies in the low bits.
    first_word, last_word : Signal(), out
        It is the first or last one of a token.
    first_token, last_token : Signal(), out
        It is of the first or last token of a time step.
    to_last : Signal(), out
        In the next clock it will be one of the last token.
    beat : Signal(), out
        A beat moves.
    done : Signal(), out
        The last part of a time step is worked on.
    opening : Signal(), out
        It is of the first time step of an inference.
    void : Signal(), out
        There is no beat, but an inference of which no time step was whole.
    restarts : Signal(), out
        What has moved of a time step is void, if anything has.
    fault : Signal(len(streams)), out
        Broken frames are found.
    """

    def __init__(self, streams: Sequence[Stream], tokens: int, groups: int, parts: int = 1) -> None:
        self._streams = streams
        self._tokens = tokens
        self._groups = groups
        self._parts = parts
        super().__init__(lockstep_members(streams, groups, parts))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        at_last_part = count_places(m, self, self._tokens, self._groups, self._parts)
        items = [self._item(m, s, i) for i, s in enumerate(self._streams)]
        started = Signal()  # beats of an inference moved
        apart = Cat(item.discard for item in items).any()
        # The second of each pair is for the wide registers.
        free, blocked = Signal(init=1), Signal()
        ends, waits = Signal(init=self._parts == 1), Signal(init=self._parts > 1)  # the last part
        # A stream with a fault has no beat, so none moves while they are dealt with.
        deals = Cat(item.stuck for item in items).any() & ~apart & self.room
        blocks = deals | apart | self.hold
        stays = blocks | ~at_last_part
        m.d.sync += [free.eq(~blocks), blocked.eq(blocks), ends.eq(~stays), waits.eq(stays)]
        failed = Cat(item.stuck & item.failed for item in items)
        dissolved = Cat(item.stuck & ~item.failed for item in items)
        lost = started & dissolved.any() if len(items) > 1 else Const(0)  # beats of the others
        m.d.comb += [
            self.works.eq(Cat(item.beat for item in items).all() & free),
            self.wide_works.eq(~Cat(*(item.empty for item in items), blocked).any()),
            self.beat.eq(Cat(item.beat for item in items).all() & ends),
            self.done.eq(self.beat & self.last_token & self.last_word),
            self.opening.eq(items[0].opening),
            self.void.eq(deals & (Cat(item.stuck & item.void for item in items).any() | lost)),
        ]
        for i, item in enumerate(items):
            others = Cat(other.beat for other in items if other is not item).all()
            absent = Cat(other.empty for other in items if other is not item).any()
            m.d.comb += [
                item.ready.eq(~item.stuck & (~item.beat | (others & ends))),
                item.takes.eq(item.empty | ~(absent | waits)),
                item.behind.eq(deals & (failed.any() | lost) & ~failed[i]),
            ]
            with m.If(deals):
                m.d.sync += item.stuck.eq(0)
        with m.If(self.beat):
            m.d.sync += started.eq(~items[0].whole)
        with m.If(deals):
            m.d.sync += started.eq(0)
        m.d.comb += self.restarts.eq(deals)
        return m

    def _item(self, m: Module, stream: Stream, index: int) -> "_Item":
        """Return what a stream has: a beat, or a fault."""
        guard = m.submodules[f"{stream.name}_guard"] = FrameGuard(
            stream, joined=True, lockstep=True
        )
        wiring.connect(m, wiring.flipped(getattr(self, stream.name)), guard.i)
        item = _Item(
            *(
                Signal(name=f"{stream.name}_{f.name}", init=f.name == "empty")
                for f in dataclasses.fields(_Item)
            )
        )
        word = getattr(self, f"{stream.name}_data").as_value()
        throws = Signal(name=f"{stream.name}_throws")
        m.d.comb += [
            guard.o.ready.eq(item.ready),
            self.fault[index].eq(guard.fault),
            throws.eq(item.discard | (item.behind & ~(item.beat & item.whole))),
        ]
        m.d.sync += item.discard.eq(throws & ~guard.whole & ~guard.failed)
        comes = item.ready & guard.o.valid & ~throws
        with m.If(item.ready | item.behind):
            m.d.sync += [item.beat.eq(comes), item.empty.eq(~comes)]
        with m.If(item.ready):
            m.d.sync += [
                item.stuck.eq((guard.failed | guard.dissolved) & ~throws),
                item.opening.eq(guard.opening), item.whole.eq(guard.whole),
                item.failed.eq(guard.failed), item.void.eq(guard.void),
            ]  # fmt: skip
        with m.If(item.takes):
            m.d.sync += word.eq(guard.o.payload.data)
        return item


@dataclasses.dataclass
class _Item:
    """What stands in the register behind a stream's guard."""

    ready: Signal  # takes another one
    beat: Signal  # there is one
    empty: Signal  # there is none: the same, for the wide registers
    takes: Signal  # they may change
    opening: Signal
    whole: Signal  # it is the last one of an inference
    stuck: Signal  # there is a fault instead
    failed: Signal  # an inference was voided; if not, what began with a stray `first` was none
    void: Signal  # no time step of it was whole
    behind: Signal  # the others are through with an inference of which this one has beats
    discard: Signal  # they are thrown away


def lockstep_members(
    streams: Sequence[Stream], groups: int, parts: int
) -> dict[str, wiring.Member]:
    """Return the members of a `Lockstep`."""
    word = range(max(groups << ceil_log2(parts), 2))
    flags = (
        "works", "wide_works", "beat", "first_word", "last_word", "first_token", "last_token",
        "to_last", "done", "opening", "void", "restarts",
    )  # fmt: skip
    return (
        {s.name: In(s.signature) for s in streams}
        | {f"{s.name}_data": Out(data.ArrayLayout(s.element, s.lanes)) for s in streams}
        | dict.fromkeys(flags, Out(1))
        | {
            "hold": In(1),
            "room": In(1),
            "part": Out(range(max(parts, 2))),
            "word": Out(word),
            "next_word": Out(word),
            "fault": Out(len(streams)),
        }
    )


def count_places(
    m: Module, taken: wiring.Component, tokens: int, groups: int, parts: int
) -> Signal:
    """Keep the place of what is worked on next; return if it will be the last part of a beat.

    Parameters
    ----------
    m : Module
    taken : component
        With the attributes of `Lockstep`.
    tokens, groups, parts : int
    """
    single = tokens == 1
    at_last_part = Signal()
    token, group = Signal(ceil_log2(tokens)), Signal(ceil_log2(groups))
    first_token, last_token = Signal(init=1), Signal(init=single)
    last_part = taken.part == parts - 1
    last_group = group == groups - 1
    next_part, next_group = Signal(ceil_log2(parts)), Signal.like(group)
    m.d.comb += [
        taken.first_token.eq(first_token),
        taken.last_token.eq(last_token),
        taken.first_word.eq((taken.part == 0) & (group == 0)),
        taken.last_word.eq(last_part & last_group),
        next_part.eq(Mux(taken.works, Mux(last_part, 0, taken.part + 1), taken.part)),
        next_group.eq(Mux(taken.beat, Mux(last_group, 0, group + 1), group)),
        taken.word.eq(Cat(taken.part[: len(next_part)], group)),
        taken.next_word.eq(Cat(next_part, next_group)),
        taken.to_last.eq(last_token),
        at_last_part.eq(next_part == parts - 1),
    ]
    m.d.sync += [
        taken.part.eq(next_part), group.eq(next_group), last_token.eq(taken.to_last),
    ]  # fmt: skip
    with m.If(taken.beat & last_group):
        m.d.sync += [token.eq(Mux(last_token, 0, token + 1)), first_token.eq(last_token)]
        m.d.comb += taken.to_last.eq(single or token == tokens - 2)
    with m.If(taken.restarts):
        m.d.sync += [group.eq(0), token.eq(0), first_token.eq(1)]
        m.d.comb += taken.to_last.eq(single)
    return at_last_part
