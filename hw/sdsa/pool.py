"""The 3 x 3 max pool of keys and values over the grid of tokens."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.hdl import Value
from amaranth.lib import memory, wiring
from amaranth.utils import ceil_log2

from hw.attributes import NO_COLLISION
from hw.lockstep import Lockstep, count_places, lockstep_members
from hw.sdsa.config import SdsaConfig


class PooledLockstep(wiring.Component):
    """Join keys and values as `Lockstep` does, and pool both over the grid of tokens.

    The maximum of bits is an OR: of three tokens of a row, then of three rows, made as tokens come
    in. The first keeps two words for each group of channels, the second two for each group and
    column. What comes out lags by a row and a token, so a time step takes so many tokens more, in
    which none comes in.

    Parameters
    ----------
    config : SdsaConfig

    Attributes
    ----------
    k, v, hold, room, fault, ... :
        Those of `hw.lockstep.Lockstep`, of the pooled beats.
    """

    def __init__(self, config: SdsaConfig) -> None:
        self._config = config
        streams = [config.stream(name) for name in config.summed]
        super().__init__(lockstep_members(streams, config.groups, config.plan.parts))

    def elaborate(self, platform: object) -> Module:
        c, plan = self._config, self._config.plan
        m = Module()
        streams = [c.stream(name) for name in c.summed]
        m.submodules.joined = joined = Lockstep(streams, c.tokens, c.groups)
        for name in c.summed:
            wiring.connect(m, wiring.flipped(getattr(self, name)), getattr(joined, name))

        # What is worked on.
        full, fills = Signal(), Signal()
        free, ends = Signal(init=1), Signal(init=plan.parts == 1)
        at_last_part = count_places(m, self, c.tokens, c.groups, plan.parts)
        will_end = ~self.hold & at_last_part
        stays = Signal()  # there will be a beat
        m.d.comb += [
            self.works.eq(full & free),
            self.wide_works.eq(self.works),
            self.beat.eq(full & ends),
            self.done.eq(self.beat & self.last_token & self.last_word),
            stays.eq(fills | (full & ~self.beat)),
        ]
        m.d.sync += [free.eq(~self.hold), ends.eq(will_end), full.eq(stays)]
        with m.If(joined.works):
            m.d.sync += self.opening.eq(joined.opening)

        # What is pooled: tokens as they come, then zeros.
        flushes, may = Signal(), Signal(init=1)
        goes = Signal()
        will_flush, last = Signal(), Signal()
        m.d.comb += [
            goes.eq((flushes & may) | joined.works),
            will_flush.eq(Mux(flushes, ~(goes & last), joined.done)),
            joined.hold.eq(~(will_end | ~stays) | will_flush),
            joined.room.eq(self.room & ~flushes & ~full),
            self.fault.eq(joined.fault),
            self.void.eq(joined.void),
            self.restarts.eq(joined.restarts),
        ]
        m.d.sync += [flushes.eq(will_flush), may.eq(will_end | ~stays)]

        came = Cat(getattr(joined, f"{name}_data").as_value() for name in c.summed)
        pooled = self._pool(m, Mux(flushes, 0, came), goes, fills, last)
        held = Signal.like(pooled, reset_less=True)
        with m.If(fills):
            m.d.sync += held.eq(pooled)
        for i, name in enumerate(c.summed):
            m.d.comb += (
                getattr(self, f"{name}_data")
                .as_value()
                .eq(held.word_select(i, c.channels_per_beat))
            )
        return m

    def _pool(self, m: Module, token: Value, goes: Signal, fills: Signal, last: Signal) -> Signal:
        """Return the pooled beat that comes of a beat that `goes`, if it `fills` anything."""
        c = self._config
        height = c.tokens // c.width
        group, next_group = Signal(ceil_log2(c.groups)), Signal(ceil_log2(c.groups))
        column, next_column = Signal(ceil_log2(c.width)), Signal(ceil_log2(c.width))
        row = Signal(range(height + 1))
        begun = Signal()  # `row` and `column` are those of the token before
        last_group, last_column = group == c.groups - 1, column == c.width - 1
        moves = goes & last_group
        m.d.comb += [
            next_group.eq(Mux(goes, Mux(last_group, 0, group + 1), group)),
            next_column.eq(Mux(moves & begun, Mux(last_column, 0, column + 1), column)),
            last.eq(last_group & last_column & (row == height)),
            fills.eq(goes & begun & (row != 0)),
        ]
        m.d.sync += [group.eq(next_group), column.eq(next_column)]
        with m.If(moves):
            m.d.sync += begun.eq(~last)
            with m.If(begun & last_column):
                m.d.sync += row.eq(Mux(last, 0, row + 1))
        with m.If(self.restarts):
            m.d.sync += [group.eq(0), column.eq(0), row.eq(0), begun.eq(0)]

        # Of a row: the token before with those on its left, and it alone.
        size = len(token)
        left, before = Signal(size), Signal(size)
        beside = Mux(begun & last_column, 0, token)
        row_or = Signal(size)
        m.d.comb += [
            row_or.eq(left | beside),
            Cat(left, before).eq(
                _kept(
                    m, "row", Cat(token | Mux(last_column | ~begun, 0, before), token),
                    c.groups, group, next_group, goes,
                )
            ),
        ]  # fmt: skip
        above, far_above = Signal(size), Signal(size)
        at, upcoming = Cat(group, column), Cat(next_group, next_column)
        m.d.comb += Cat(above, far_above).eq(
            _kept(m, "rows", Cat(row_or, above), c.width << len(group), at, upcoming, goes & begun)
        )
        pooled = Signal(size)
        m.d.comb += pooled.eq(row_or | above | Mux(row == 1, 0, far_above))
        return pooled


def _kept(
    m: Module, name: str, after: Value, places: int, at: Value, upcoming: Value, moves: Value
) -> Value:
    """Return the word of a place, which becomes `after` when it `moves`."""
    if places == 1:
        word = Signal(len(after), name=name, reset_less=True)
        with m.If(moves):
            m.d.sync += word.eq(after)
        return word
    m.submodules[name] = store = memory.Memory(
        shape=len(after), depth=places, init=[], attrs=NO_COLLISION
    )
    write, read = store.write_port(), store.read_port()
    m.d.comb += [
        write.addr.eq(at),
        write.data.eq(after),
        write.en.eq(moves),
        read.addr.eq(upcoming),
    ]
    return read.data
