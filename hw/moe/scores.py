"""Scores of a token: its spikes times the weights of each expert, by tables of partial sums."""

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.hdl import Value
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hw.arith import add_tree, pipelined_tree
from hw.attributes import BLOCK, NO_COLLISION
from hw.moe.config import MoeConfig
from hw.stream import FrameGuard
from hw.turns import read_ahead


class Scores(wiring.Component):
    """Add up the weights of the channels that spike, for all experts, a beat a clock.

    The `shared` channels of a table address the sum of those of their weights that are asked for,
    which was worked out when weights were loaded (distributed arithmetic): 16 entries in block RAM
    take the place of three adders for each expert. What is left is a tree over the tables and an
    accumulator. Adding masked weights instead, two of them in each cell of a carry chain, takes
    about 350 LUT4-equivalents an expert for 32 channels of 8 bits; this takes about 110.

    A table is loaded in the order of Gray's code, in which neighbours differ by one weight: one
    adder. All experts' sums stand in one word, and loading shifts the word by one expert, so that
    no multiplexer picks a place in it. Reading back sends one spike at a time down the same way.

    Parameters
    ----------
    config : MoeConfig

    Attributes
    ----------
    weights : stream, in
        A new frame shifts out the old one; it takes ``2^shared + 2`` clocks a beat.
    loaded : Signal(), out
        The last beat of a whole frame of weights moves.
    stored : stream, out
    reads : Signal(), in
        With `readback`: the weights, which are read back then.
    busy : Signal(), out
        Weights are loaded or read back: no beat may come.
    valid, data, group, last : in
        A beat of a token, which one of the token it is, and whether it is the last one.
    scores : out
    to_done : Signal(), out
        `scores` will be those of a whole token in the next clock.
    fault : Signal(), out
        A broken frame of weights is found.
    """

    def __init__(self, config: MoeConfig) -> None:
        self._config = config
        c = config
        stored = {"stored": Out(c.stream("stored", c.own).signature), "reads": In(1)}
        super().__init__(
            {
                "weights": In(c.stream("weights", c.own).signature),
                "busy": Out(1),
                "valid": In(1),
                "data": In(c.channels_per_beat),
                "group": In(range(max(c.groups, 2))),
                "last": In(1),
                "scores": Out(data.ArrayLayout(signed(c.score_bits), c.own)),
                "to_done": Out(1),
                "fault": Out(1),
                "loaded": Out(1),
            }
            | (stored if c.readback else {})
        )

    def elaborate(self, platform: object) -> Module:
        c, plan = self._config, self._config.plan
        m = Module()
        group_bits = ceil_log2(c.groups)
        # What is read while nothing comes in: an entry of every table, or of one of them.
        entry, probes = Signal(c.shared), Signal(plan.tables)
        place = Signal(group_bits)
        asks = Signal()
        shape = data.ArrayLayout(signed(c.entry_bits), c.own)
        reads, writes = [], []
        for i in range(plan.tables):
            m.submodules[f"table{i}"] = table = memory.Memory(
                shape=shape,
                depth=2**c.shared << group_bits,
                init=[],
                attrs=NO_COLLISION | (BLOCK if group_bits else {}),
            )
            write, read = table.write_port(), table.read_port()
            spikes = self.data.word_select(i, c.shared)
            low = Mux(self.busy, Mux(probes[i], entry, 0), spikes)
            m.d.comb += read.addr.eq(Cat(low, Mux(self.busy, place, self.group)[:group_bits]))
            reads.append(read.data)
            writes.append(write)

        entries = [Signal(shape, name=f"entry{i}", reset_less=True) for i in range(plan.tables)]
        m.d.sync += [register.eq(word) for register, word in zip(entries, reads, strict=True)]
        self._load(m, entry, probes, place, asks, entries, writes)
        partial = [
            read_ahead(m, word, f"partial{i}", plan.read_clocks - 1)
            for i, word in enumerate(entries)
        ]
        marks = Cat(self.valid | asks, (self.group == 0) | asks, self.valid & self.last)
        for clock in range(plan.score_clocks - 1):
            later = Signal(3, name=f"marks{clock}")
            m.d.sync += later.eq(marks)
            marks = later
        valid, first, done = marks
        m.d.comb += self.to_done.eq(done)
        for e in range(c.own):
            sum_ = pipelined_tree(m, [word[e] for word in partial], add_tree, f"sum{e}")
            total = self.scores[e]
            with m.If(valid):
                m.d.sync += total.eq(Mux(first, 0, total) + sum_)
        return m

    def _load(
        self, m: Module, entry: Signal, probes: Signal, place: Signal, asks: Signal,
        reads: list[Value], writes: list[memory.WritePort],
    ) -> None:  # fmt: skip
        """Write the entries of a table for each beat of weights; read back behind a frame."""
        c, plan = self._config, self._config.plan
        m.submodules.guard = guard = FrameGuard(c.stream("weights", c.own))
        wiring.connect(m, wiring.flipped(self.weights), guard.i)
        weights = guard.o.payload.data
        at_work = Signal()
        number = Signal(c.shared)  # of the entry at hand, in the order of Gray's code
        code, next_code = Signal(c.shared), Signal(c.shared)
        total = Signal(signed(c.entry_bits))  # of the entry at hand
        ends = Signal()
        table, group = Signal(range(max(plan.tables, 2))), Signal(range(max(c.groups, 2)))
        last_table, last_group = table == plan.tables - 1, group == c.groups - 1
        moves_on = Signal()
        m.d.comb += [
            code.eq(number ^ (number >> 1)),
            next_code.eq((number + 1) ^ ((number + 1)[: c.shared] >> 1)),
            ends.eq(at_work & number.all()),
            # Whatever breaks the frame is let go at once.
            guard.o.ready.eq(ends | ~guard.o.valid),
            self.fault.eq(guard.fault),
            self.loaded.eq(guard.done),
            self.busy.eq(at_work),
            entry.eq(code),
            probes.eq(~0),
            place.eq(group),
            moves_on.eq(ends),
        ]
        changed = code ^ next_code
        weight = Cat(Cat(w[b] & x for w, x in zip(weights, changed, strict=True)).any()
                     for b in range(c.weight_bits)).as_signed()  # fmt: skip
        adds = (changed & next_code).any()
        back = Signal()  # weights are read back
        m.d.sync += at_work.eq(guard.o.valid & ~ends & ~back)
        with m.If(at_work):
            m.d.sync += [
                number.eq(number + 1),
                total.eq(Mux(adds, total + weight, total - weight)),
            ]
        with m.Else():
            m.d.sync += [number.eq(0), total.eq(0)]
        with m.If(moves_on):
            m.d.sync += table.eq(Mux(last_table, 0, table + 1))
            with m.If(last_table):
                m.d.sync += group.eq(Mux(last_group, 0, group + 1))
        with m.If(guard.broken):
            m.d.sync += [table.eq(0), group.eq(0)]

        # Two clocks later, with what was read.
        writing, into, at, value = (
            Signal(), Signal.like(table), Signal(len(writes[0].addr)), Signal.like(total)
        )  # fmt: skip
        word = Cat(at_work, table, total, code, group[: len(place)])
        for clock in range(2):
            later = Signal.like(word, name=f"to_write{clock}")
            m.d.sync += later.eq(word)
            word = later
        m.d.comb += Cat(writing, into, value, at).eq(word)
        for i, (read, write) in enumerate(zip(reads, writes, strict=True)):
            m.d.comb += [
                write.addr.eq(at),
                write.data.eq(Cat(read.as_value()[c.entry_bits :], value)),
                write.en.eq(writing & (into == i)),
            ]
        if c.readback:
            self._read_back(m, back, table, group, entry, probes, asks, moves_on)

    def _read_back(
        self, m: Module, back: Signal, table: Signal, group: Signal,
        entry: Signal, probes: Signal, asks: Signal, moves_on: Signal,
    ) -> None:  # fmt: skip
        """Ask for one channel after another behind a whole frame, and put out what comes."""
        c, plan = self._config, self._config.plan
        waits = Signal()
        channel = Signal(c.shared, init=1)
        comes = Signal(plan.score_clocks)
        last = (table == plan.tables - 1) & (group == c.groups - 1) & channel[-1]
        o = self.stored
        taken = o.valid & o.ready
        m.d.comb += asks.eq(back & ~waits)
        m.d.sync += [
            back.eq(Mux(back, ~(taken & last), self.reads)),
            waits.eq(back & ~taken),
            comes.eq(Cat(asks, comes)),
            o.valid.eq(comes[-1] | (o.valid & ~o.ready)),
        ]
        m.d.comb += [
            o.payload.last.eq(last),
            o.payload.first.eq((table == 0) & (group == 0) & channel[0]),
        ]
        for e in range(c.own):
            m.d.comb += o.payload.data[e].eq(self.scores[e])
        with m.If(back):
            m.d.comb += [
                self.busy.eq(1),
                entry.eq(channel),
                probes.eq(1 << table),
                moves_on.eq(taken & channel[-1]),
            ]
        with m.If(taken):
            m.d.sync += channel.eq(channel.rotate_left(1))
