"""The sample encoder: an output bit is what one randomly picked place says."""

import functools
import operator
from collections.abc import Iterable, Sequence

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.hdl import Value, ValueLike
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hw.attention.config import AttentionConfig
from hw.attention.draws import Source, sources
from hw.attention.plan import RAM_WORDS, SamplePlan
from hw.bernoulli import parity, xor_of
from hw.delay import delayed
from hw.queue import OutputQueue
from hw.stream import FaultCounter, FrameGuard, Stream, members
from hw.turns import following

READ_CLOCKS = 3
"""Clocks from the issue of a token to the read of Q and K: tables, draw, address."""


class _Input(wiring.Component):
    """Take the tokens of one input, gather them into words, and keep account of time steps.

    A word is written `delay` clocks after its last token came. That suits a pipeline that reads a
    token `delay` + 1 clocks after it is issued: a time step that is `waiting` is written by then,
    and where a slot is freed with the first token of its last word, the next time step's first
    word is written behind the last read.

    Parameters
    ----------
    config : AttentionConfig
    stream : Stream
    delay : int
        2 or more.

    Attributes
    ----------
    i : stream, in
    fault : Signal(), out
        A broken frame is found.
    waiting, first, void : Signal(), out
        Whether a time step waits to be taken, and its marks; `hw.buffer.TokenBuffer` has the same.
    opens, goes_on : Signal(), out
        One that is not void waits: the first of an inference, or another one.
    take : Signal(), in
        The waiting time step is taken.
    page : Signal(), out
        The slot of the time step that was taken last.
    free : Signal(), in
        The first token of the last word of the oldest time step is issued, or it is dropped.
    word, address, write : out
        The write port of the memories: tokens, the first one lowest; a bit of `write` for each
        slot and each `RAM_WORDS` words of it.
    """

    def __init__(self, config: AttentionConfig, stream: Stream, delay: int) -> None:
        self._config = config
        self._plan = plan = SamplePlan(config)
        self._stream = stream
        self._delay = delay
        super().__init__(
            {
                "i": In(stream.signature),
                "fault": Out(1),
                "waiting": Out(1),
                "first": Out(1),
                "void": Out(1),
                "opens": Out(1),
                "goes_on": Out(1),
                "take": In(1),
                "page": Out(range(plan.buffered)),
                "free": In(1),
                "word": Out(data.ArrayLayout(config.channels, plan.word)),
                "address": Out(ceil_log2(min(plan.words, RAM_WORDS))),
                "write": Out(plan.buffered * plan.segments),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        slots = self._plan.buffered
        m.submodules.guard = guard = FrameGuard(self._stream, joined=True)
        wiring.connect(m, wiring.flipped(self.i), guard.i)
        commit, freed = Signal(), Signal()  # known late in a clock, so they count in the next one
        used = Signal(range(slots + 1))  # slots that are full or being read
        into, out_of = Signal(range(slots)), Signal(range(slots))

        m.d.sync += commit.eq(guard.done | guard.void)
        m.d.comb += [
            self.fault.eq(guard.fault),
            guard.o.ready.eq(used + commit != slots),
        ]
        m.d.sync += [freed.eq(self.free), used.eq(used + commit - freed)]
        with m.If(commit):
            m.d.sync += into.eq(following(into, slots))
        with m.If(self.take):
            m.d.sync += [self.page.eq(out_of), out_of.eq(following(out_of, slots))]
        self._queue(m, guard, commit)
        self._gather(m, guard, into)
        return m

    def _queue(self, m: Module, guard: FrameGuard, commit: Signal) -> None:
        """Keep the marks of the time steps that are whole and not yet taken, oldest first."""
        mark = Signal(2)
        m.d.sync += mark.eq(Cat(guard.opening, guard.void))
        marks = [Signal(2, name=f"mark{i}") for i in range(self._plan.buffered)]
        waits = Signal(len(marks))  # from the bottom up
        left = Mux(self.take, waits >> 1, waits)
        m.d.sync += waits.eq(Mux(commit, Cat(1, left), left))
        m.d.comb += [
            self.waiting.eq(waits[0]),
            Cat(self.first, self.void).eq(marks[0]),
            self.opens.eq(self.waiting & ~self.void & self.first),
            self.goes_on.eq(self.waiting & ~self.void & ~self.first),
        ]
        for i, here in enumerate(marks):
            above = marks[i + 1] if i + 1 < len(marks) else mark
            comes = Mux(self.take, waits[i + 1] if i + 1 < len(marks) else 0, waits[i])
            with m.If(~comes):
                m.d.sync += here.eq(mark)
            with m.Elif(self.take):
                m.d.sync += here.eq(above)

    def _gather(self, m: Module, guard: FrameGuard, into: Signal) -> None:
        """Write words of tokens, `delay` clocks behind the guard.

        What is on its way in a reset is written all the same, before anything that comes later.
        """
        c, plan = self._config, self._plan
        token = delayed(m, guard.o.payload.data.as_value(), self._delay, "token")
        moves = delayed(m, guard.o.valid & guard.o.ready, self._delay - 1, "moves")
        beat = delayed(m, guard.beat[: ceil_log2(c.tokens)], 1, "beat")
        at = delayed(m, Cat(beat, into), self._delay - 2, "at")
        lane, word = at[: ceil_log2(plan.word)], at[ceil_log2(plan.word) :]
        bank = word[len(self.address) :]
        moved = Signal()
        m.d.sync += [moved.eq(moves), self.address.eq(word[: len(self.address)])]
        for i, write in enumerate(self.write):
            m.d.sync += write.eq(moves & (lane == plan.word - 1) & (bank == i))
        gathered = Signal(c.channels * (plan.word - 1), reset_less=True)
        m.d.comb += self.word.as_value().eq(Cat(gathered, token))
        with m.If(moved):
            m.d.sync += gathered.eq(Cat(gathered, token)[c.channels :])


class _Banks(wiring.Component):
    """One bit of each channel, each of a token of its own: the token at hand XOR a constant.

    Channel c has its own one-bit memory, written in token order; channels whose constants agree in
    the bits that address a word share one. There is no multiplexer behind the memories: a word
    goes to registers that are cleared unless the bit is the one that is wanted, and an OR joins
    them. Which of them are cleared is the same for all channels, since the bits of a word that
    meet one clear signal are those whose index is that signal's XOR the channel's constant.

    Latency: ``2 + gather_clocks``, from `at` to `parts`: the read's address, the cleared
    registers, and a register behind every four-input OR.

    Parameters
    ----------
    config : AttentionConfig
    constants : sequence of int
        Of each channel, below `tokens`.

    Attributes
    ----------
    word, address, write : in
        As `_Input` has them, `word` with as many channels as there are constants.
    at : Signal(), in
        The token at hand, and above its bits the slot.
    parts : out
        Two vectors or one; the OR of them is a bit of each channel.
    """

    def __init__(self, config: AttentionConfig, constants: Sequence[int]) -> None:
        self._config = config
        self._plan = plan = SamplePlan(config)
        self._constants = constants
        c = config
        super().__init__(
            {
                "word": In(data.ArrayLayout(len(constants), plan.word)),
                "address": In(ceil_log2(min(plan.words, RAM_WORDS))),
                "write": In(plan.buffered * plan.segments),
                "at": In(ceil_log2(c.tokens) + ceil_log2(plan.buffered)),
                "parts": Out(data.ArrayLayout(len(constants), 2)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        plan = self._plan
        m = Module()
        lanes, lane_bits, rows = range(plan.word), ceil_log2(plan.word), len(self.address)
        lane, row, bank = (
            self.at[:lane_bits],
            self.at[lane_bits : lane_bits + rows],
            self.at[lane_bits + rows :],
        )
        true, false = Signal(rows, reset_less=True), Signal(rows, reset_less=True)
        m.d.sync += [true.eq(row), false.eq(~row)]

        # Bits by (bank, lane) of the memories: those are the channel's own, moved by its constant.
        bits: dict[tuple[int, int], list[Value]] = {
            (b, i): [Const(0)] * len(self._constants) for b in range(len(self.write)) for i in lanes
        }
        groups: dict[int, list[int]] = {}
        for channel, constant in enumerate(self._constants):
            groups.setdefault(constant >> lane_bits & 2**rows - 1, []).append(channel)
        for group, channels in groups.items():
            address = Cat(false[i] if group >> i & 1 else true[i] for i in range(rows))
            for b in range(len(self.write)):
                # In this order the four bits of a memory's cell meet the same clear signal.
                order = [(i, channel) for i in lanes for channel in channels]
                word = Cat(
                    self.word[i ^ self._constants[channel] % plan.word][channel]
                    for i, channel in order
                )
                read = self._memory(m, f"bank{b}_{group}", b, word, address)
                for (i, channel), bit in zip(order, read, strict=True):
                    moved = self._constants[channel] >> lane_bits + rows
                    bits[b ^ moved, i][channel] = bit

        level = []
        for (b, i), found in bits.items():
            clear = Signal(name=f"clear{b}_{i}", reset_less=True)
            kept = Signal(len(self._constants), name=f"kept{b}_{i}", reset_less=True)
            m.d.sync += clear.eq((bank != b) | (lane != i))
            with m.If(clear):
                m.d.sync += kept.eq(0)
            with m.Else():
                m.d.sync += kept.eq(Cat(found))
            level.append(kept)
        for stage in range(plan.gather_clocks):
            joined = []
            for i in range(0, len(level), 4):
                both = Signal.like(level[0], name=f"joined{stage}_{i // 4}", reset_less=True)
                m.d.sync += both.eq(any_of(level[i : i + 4]))
                joined.append(both)
            level = joined
        m.d.comb += [self.parts[i].eq(part) for i, part in enumerate(level)]
        return m

    def _memory(self, m: Module, name: str, bank: int, word: Value, address: Value) -> Value:
        """Return what stands at `address` of one memory, in the same clock."""
        if not len(address):
            single = Signal(len(word), name=name, reset_less=True)
            with m.If(self.write[bank]):
                m.d.sync += single.eq(word)
            return single
        m.submodules[name] = store = memory.Memory(
            shape=len(word), depth=2 ** len(address), init=[]
        )
        write, read = store.write_port(), store.read_port(domain="comb")
        m.d.comb += [
            write.addr.eq(self.address),
            write.data.eq(word),
            write.en.eq(self.write[bank]),
            read.addr.eq(address),
        ]
        return read.data


class SampleAttention(wiring.Component):
    """Stochastic spiking attention with the sample encoder: picked places in place of counts.

    For each head and time step, with a draw (r, j), r below dK and j below N:

        c = pick[r ^ a[n] ^ h[d]]
        m = j ^ b[n] ^ L(h[d])
        A[n, d] = Q[n, c] AND K[m, c] AND V[m, d]            and m <= n if causal

    with permutations pick and h of the channels, tables a and b of the tokens, and a map L from
    channels to tokens that is linear over XOR (`AttentionConfig.places` and `spread`). (c, m) is
    uniform for each (n, d), so A has exactly the distribution of eq. 5 and 6 in Stochastic Spiking
    Attention (arXiv 2402.09109): the mean of bits is the chance that a bit picked at random is 1.
    N and dK are powers of two.

    Nothing is transposed, since all indices are linear in the draw. With ``z = r ^ a[n]`` and
    ``x = j ^ b[n]``, channel c of K serves the output with ``h[d] = z ^ pick^-1[c]``, so it is
    read at token ``x ^ L(z) ^ L(pick^-1[c])``; channel d of V at ``x ^ L(h[d])``. Each is a word
    that all channels share XOR a constant. What is left is to bring the bits ``U[i] = Q[n, c] AND
    K[m, c]``, ``c = pick[i]``, to ``A[n, d] = U[z ^ h[d]] AND V[m, d]``: a butterfly of log2(dK)
    exchanges.

    The pipeline runs on without an enable; a token is issued only when the queue in front of the
    output has room for its whole word::

        q -> _Input -> _Banks(n) ------------+
        k -> _Input -> _Banks(x ^ L(z)) -----+-> AND -> butterfly(z) -+
        v -> _Input (delayed) -> _Banks(x) ---------------------------+-> AND -> queue -> out

    Multiplexers are the clear of flip-flops and a four-input OR: a LUT joins four bits, where one
    with a select would join two. Whole top at N = dK = 64, T = 10, in LUT4-equivalents of an ECP5
    (Yosys 0.70): 2886, of which 1604 are 401 RAMs of 16 x 4 bits (128 an input, two slots) and 384
    are the ORs behind them. With multiplexers of LUTs behind the memories it took 3650, and 3838
    with the one between the slots in front of that between a word's tokens; with a butterfly of
    one bit of z a stage 3025, and three stages more.

    Latency (first beat in to first beat out): ``N + 8 + gather_clocks + butterfly_clocks`` clocks,
    N + 12 at N = dK = 64. Throughput: a time step every N clocks, a token a clock on every port.

    Parameters
    ----------
    config : AttentionConfig

    Attributes
    ----------
    q, k, v : stream, in
    out : stream, out
    faults : Signal(8), out
        Broken frames so far on all inputs, saturating. A fault voids the inference on all three.
    """

    def __init__(self, config: AttentionConfig) -> None:
        self.config = config
        self.plan = SamplePlan(config)
        super().__init__(members(config))

    def elaborate(self, platform: object) -> Module:
        c, plan = self.config, self.plan
        m = Module()
        # V is read where the butterfly ends, K and Q in front of it.
        late = READ_CLOCKS + plan.butterfly_clocks
        inputs: dict[str, _Input] = {}
        m.submodules.fault_counter = faults = FaultCounter(3)
        for i, (name, delay) in enumerate((("q", READ_CLOCKS), ("k", READ_CLOCKS), ("v", late))):
            inputs[name] = m.submodules[name] = _Input(c, c.streams[i], delay - 1)
            wiring.connect(m, wiring.flipped(getattr(self, name)), inputs[name].i)
            m.d.comb += faults.fault[i].eq(inputs[name].fault)
        m.d.comb += self.faults.eq(faults.count)

        room = Signal()
        token, moves, ends, opening = self._control(m, inputs, room)
        m.submodules.score_source, m.submodules.output_source = draws = sources(c)
        for source in draws:
            m.d.comb += [
                source.restart.eq(delayed(m, opening, 1, "restart")),
                source.advance.eq(delayed(m, ends, 1, "advance", reset_less=False)),
            ]
        m.submodules.q_banks = banks = _Banks(c, [0] * c.channels)
        self._write(m, inputs["q"], banks, slice(0, c.channels))
        m.d.comb += banks.at.eq(delayed(m, Cat(token, inputs["q"].page), READ_CLOCKS - 1, "q_at"))
        outputs = []
        for head in range(c.heads):
            channels = slice(head * c.head_dim, (head + 1) * c.head_dim)
            queries = [part[channels] for part in banks.parts]
            outputs.append(self._head(m, head, token, inputs, queries, draws))

        clocks = late + 1 + plan.gather_clocks
        out = self.out.payload
        m.submodules.queue = queue = OutputQueue(c.channels + 2, RAM_WORDS, plan.word)
        marks = delayed(m, Cat(ends, opening & (token == 0)), clocks, "marks")
        m.d.comb += [
            queue.issued.eq(moves),
            room.eq(queue.room),
            queue.word.eq(Cat(*outputs, marks)),
            queue.arrives.eq(delayed(m, moves, clocks, "valid", reset_less=False)),
            self.out.valid.eq(queue.valid),
            Cat(out.data.as_value(), out.last, out.first).eq(queue.data),
            queue.ready.eq(self.out.ready),
        ]
        return m

    def _write(self, m: Module, buffer: _Input, banks: _Banks, channels: slice) -> None:
        """Connect the write port of `banks` to `channels` of an input."""
        m.d.comb += [banks.address.eq(buffer.address), banks.write.eq(buffer.write)]
        for i in range(self.plan.word):
            m.d.comb += banks.word[i].eq(buffer.word[i][channels])

    def _control(
        self, m: Module, inputs: dict[str, _Input], room: Signal
    ) -> tuple[Signal, Signal, Signal, Signal]:
        """Join the three inputs and issue tokens.

        Return the token, whether it is issued, whether it is the time step's last one and issued,
        and whether the time step opens an inference.
        """
        c, plan = self.config, self.plan
        q, k, v = inputs.values()
        active = Signal()  # a time step is being read
        opening = Signal()
        token = Signal(ceil_log2(c.tokens))
        coming = Signal.like(token, init=1 % c.tokens)  # the token after it
        last = Signal(init=c.tokens == 1)  # it is the last one
        moves, ends, free, start = Signal(), Signal(), Signal(), Signal()
        begins = token[: ceil_log2(plan.word)] == 0
        opens = q.opens & k.opens & v.opens
        goes_on = q.goes_on & k.goes_on & v.goes_on
        m.d.comb += [
            moves.eq(active & (room | ~begins)),
            ends.eq(active & last & (room if plan.word == 1 else 1)),
            free.eq(moves & (token == c.tokens - plan.word)),
            start.eq((opens | goes_on) & (~active | ends)),
        ]
        m.d.sync += active.eq(start | (active & ~ends))
        with m.If(start):
            m.d.sync += opening.eq(opens)
        if c.tokens > 1:
            with m.If(moves):
                m.d.sync += [
                    token.eq(coming),
                    coming.eq(coming + 1),
                    last.eq(coming == c.tokens - 1),
                ]

        # A time step that lacks its fellows is dropped; so is one that is void on any input. It
        # takes a clock to say so, in which it stays where it is and so can't be taken.
        drops = Signal(3)
        firsts = Cat(q.first, k.first, v.first)
        together = q.waiting & k.waiting & v.waiting
        voided = q.void | k.void | v.void
        with m.If(together & ~active & ~drops.any()):
            with m.If(firsts.any() & ~firsts.all()):
                m.d.sync += drops.eq(~firsts)
            with m.Else():
                m.d.sync += drops.eq(voided.replicate(3))
        with m.Else():
            m.d.sync += drops.eq(0)
        for drop, buffer in zip(drops, inputs.values(), strict=True):
            m.d.comb += [buffer.take.eq(start | drop), buffer.free.eq(free | drop)]
        return token, moves, ends, opening

    def _table(
        self, m: Module, name: str, table: Sequence[int], bound: int, token: Signal
    ) -> Signal:
        """Return the entry of a token, a clock later.

        No memory: Yosys would move the read in front of the register of its address.
        """
        level: list[ValueLike] = list(table)
        for bit in token:
            level = [Mux(bit, b, a) for a, b in zip(level[::2], level[1::2], strict=True)]
        entry = Signal(ceil_log2(bound), name=name, reset_less=True)
        m.d.sync += entry.eq(level[0])
        return entry

    def _head(
        self, m: Module, head: int, token: Signal, inputs: dict[str, _Input],
        queries: Sequence[Value], draws: tuple[Source, Source],
    ) -> Value:  # fmt: skip
        """Return the output bits of a head."""
        c, plan = self.config, self.plan
        a, b, pick, h = c.places(head)
        cuts = c.spread(head)
        spread = [sum(parity(place, cut) << i for i, cut in enumerate(cuts)) for place in h]
        z = Signal(ceil_log2(c.head_dim), name=f"z{head}", reset_less=True)
        x = Signal(ceil_log2(c.tokens), name=f"x{head}", reset_less=True)
        m.d.sync += [
            z.eq(draws[0].value ^ self._table(m, f"a{head}", a, c.head_dim, token)),
            x.eq(draws[1].value ^ self._table(m, f"b{head}", b, c.tokens, token)),
        ]
        channels = slice(head * c.head_dim, (head + 1) * c.head_dim)

        keyed = [0] * c.head_dim
        for place, channel in enumerate(pick):
            keyed[channel] = sum(parity(place, cut) << i for i, cut in enumerate(cuts))
        banks = {}
        crossed = x ^ Cat(xor_of(z, cut) for cut in cuts)
        for name, constants, at, delay in (
            ("k", keyed, crossed, 0),
            ("v", spread, x, plan.butterfly_clocks),
        ):
            m.submodules[f"{name}_banks{head}"] = banks[name] = _Banks(c, constants)
            self._write(m, inputs[name], banks[name], channels)
            page = delayed(m, inputs[name].page, READ_CLOCKS - 1 + delay, f"{name}_page{head}")
            at = delayed(m, at[: len(x)], delay, f"{name}_at{head}")
            m.d.comb += banks[name].at.eq(Cat(at, page))

        overlap = any_of(queries) & any_of(list(banks["k"].parts))
        scores = self._butterfly(m, head, Cat(overlap[channel] for channel in pick), z)
        value = any_of(list(banks["v"].parts)) & Cat(scores[place] for place in h)
        if c.causal:
            value = value & self._not_after(m, head, x, token, spread)
        return value

    def _butterfly(self, m: Module, head: int, bits: Value, z: Signal) -> Value:
        """Return `bits` with bit i at place ``i ^ z``, where z is ``2 + gather_clocks`` old.

        Each stage exchanges by two bits of z: four copies of its bits, of which all but one are
        cleared, and an OR of four bits.
        """
        gather = self.plan.gather_clocks
        for stage in range(self.plan.butterfly_clocks):
            by = delayed(m, z[2 * stage : 2 * stage + 2], 1 + gather + stage, f"z{head}_{stage}")
            copies = []
            for i in range(2 ** len(by)):
                clear = Signal(name=f"clear{head}_{stage}_{i}", reset_less=True)
                copy = Signal(len(bits), name=f"copy{head}_{stage}_{i}", reset_less=True)
                m.d.sync += clear.eq(by != i)
                with m.If(clear):
                    m.d.sync += copy.eq(0)
                with m.Else():
                    m.d.sync += copy.eq(bits)
                copies.append(Cat(copy[place ^ i << 2 * stage] for place in range(len(bits))))
            bits = any_of(copies)
        return bits

    def _not_after(
        self, m: Module, head: int, x: Signal, token: Signal, constants: Sequence[int]
    ) -> Value:
        """Return for each constant whether the key at ``x ^ constant`` is not after the query."""
        plan = self.plan
        clocks = plan.gather_clocks + plan.butterfly_clocks
        x = delayed(m, x, clocks, f"causal_x{head}")
        token = delayed(m, token, clocks + 2, f"causal_token{head}")
        low = ceil_log2(plan.word)
        above: dict[tuple[str, int], Signal] = {}

        def compared(name: str, constant: int, relation: Value) -> Signal:
            if (name, constant) not in above:
                result = Signal(name=f"{name}{head}_{constant}", reset_less=True)
                m.d.sync += result.eq(relation)
                above[name, constant] = result
            return above[name, constant]

        bits = []
        for constant in constants:
            word, lane = constant >> low, constant % plan.word
            before = compared("before", word, (x[low:] ^ word) < token[low:])
            same = compared("same", word, (x[low:] ^ word) == token[low:])
            lane_ok = compared("lane", lane, (x[:low] ^ lane) <= token[:low])
            bits.append(before | same & lane_ok)
        return delayed(m, Cat(bits), 1, f"not_after{head}")


def any_of(terms: Iterable[Value]) -> Value:
    """Return the OR of vectors."""
    return functools.reduce(operator.or_, terms)
