"""The count encoder: a bit is drawn by comparing a count with a random number."""

import dataclasses

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.hdl import Value
from amaranth.lib import data, memory, wiring
from amaranth.utils import ceil_log2

from hw.arith import add_rows, add_with_carry, pipelined_counts, popcount
from hw.attention.config import AttentionConfig
from hw.attention.draws import Source, sources
from hw.attention.plan import CountPlan
from hw.bernoulli import skew
from hw.buffer import TokenBuffer
from hw.queue import OutputQueue
from hw.stream import FaultCounter, members


@dataclasses.dataclass
class _Stage:
    """What the control says of one clock of one stage of the pipeline."""

    valid: Signal  # a group of keys is at this stage
    fold: Signal
    group: Signal
    opening: Signal  # of the first time step of an inference
    fold_first: Signal  # the first group of a fold
    fold_last: Signal
    step_end: Signal  # the last clock of a time step, with or without a group


class CountAttention(wiring.Component):
    """Stochastic spiking attention with the count encoder, one draw a stage and time step.

    For each head and time step, with Q, K, V in {0, 1} (N x dK):

        S[n, m] = 1 iff r1 skewed by (n, m) < popcount(Q[n] AND K[m])      r1 below dK
        A[n, d] = 1 iff r2 skewed by (n, d) < popcount(S[n] AND V[:, d])   r2 below N

    ``E[A] = (Q K^T) V / (dK N)``. Source: Stochastic Spiking Attention (arXiv 2402.09109), eq. 5
    and 6, Algorithm 1; what replaces its N x N counters and one random number for all is below.

    The pipeline, `rows` queries and `columns` keys and values a clock::

        q -> TokenBuffer -> Q[n] --+
        k -> TokenBuffer -> K[m] --+-> AND, count from -r1 -> S[n, m] --+
                                                                        +-> AND, count from -r2
        v -> TokenBuffer -> V[m] ---------------------------------------+        |
                                                                  out <- OutputQueue

    A score bit is used in the clock in which it is made, against the whole row V[m]: neither
    scores nor V nor the outputs are ever transposed or stored. A count starts from the complement
    of its random number, so that its top bit is the comparison: there is no comparator. Cells grow
    with rows x columns (`pipelined_counts` of dK bits) and rows x D (that of `columns` bits, and an
    accumulator unless `columns` is N).

    The other form that was weighed holds a row of scores, reads V by column and counts it with a
    second tree: at one row and column and N = dK = 64 about 450 logic cells behind the score
    against 600 here, but it needs V and its output transposed (85 cells a row, or 4096 flip-flops
    unfolded) and a second tree of N bits a row; with several columns the counters here shrink to
    the same tree (`columns` = N has no counter left).

    Nothing in the pipeline waits: a fold is only begun with room for it in the queue at the end, so
    no clock enable runs from the output back through all of it. Registers cost no LUTs, so there
    is one wherever a path would be long: with many columns behind the frame guards and
    the memories too.

    Latency and interval: `CountPlan`; a time step is `beats` clocks (every port moves a beat every
    clock) at ``columns = N`` and ``rows = tokens_per_beat``. Each input is buffered for two time
    steps or more (`CountPlan.slots`), so a source may send whole time steps of one stream before
    those of another.

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
        self.plan = CountPlan(config)
        super().__init__(members(config))

    def elaborate(self, platform: object) -> Module:
        c, plan = self.config, self.plan
        m = Module()
        buffers = {}
        m.submodules.fault_counter = faults = FaultCounter(3)
        for i, name in enumerate("qkv"):
            buffers[name] = m.submodules[name] = buffer = TokenBuffer(plan.buffer(name))
            wiring.connect(m, wiring.flipped(getattr(self, name)), buffer.i)
            m.d.comb += faults.fault[i].eq(buffers[name].fault)
        m.d.comb += self.faults.eq(faults.count)

        room = Signal()
        stages = self._control(m, room, buffers)
        score_source, output_source = sources(c)
        scores = self._scores(m, stages, buffers, score_source)
        outputs = self._outputs(m, stages, buffers["v"], output_source, scores)
        self._collect(m, room, stages, outputs)
        return m

    def _control(self, m: Module, room: Signal, buffers: dict[str, TokenBuffer]) -> list[_Stage]:
        """Join the three inputs, count through folds and groups, and pass the counts along."""
        c, plan = self.config, self.plan
        q, k, v = buffers.values()
        fold = Signal(range(max(c.folds, 2)))
        clock = Signal(range(max(c.fold_clocks, 2)))
        together = Signal()  # a time step waits on all inputs
        agree = Signal()  # all of them of the same inference
        voided = Signal()
        ready = Signal()
        active = Signal()  # in the middle of a time step
        opening = Signal()  # which is the first one of an inference
        go = Signal()
        idle = Signal()
        group_ok = clock < c.groups
        # Where the counts are, known a clock before: much hangs on it.
        group_last = Signal(init=c.groups == 1)
        fold_end = Signal(init=c.fold_clocks == 1)
        in_last = Signal(init=c.folds == 1)
        step_end = fold_end & in_last
        begins = Signal()
        m.d.comb += [
            together.eq(q.waiting & k.waiting & v.waiting),
            agree.eq((q.first == k.first) & (k.first == v.first)),
            voided.eq(q.void | k.void | v.void),
            # A time step begins with clock 0.
            begins.eq(ready & ~active & (room if c.groups == 1 else 1)),
            go.eq(begins | (active & (room | ~group_last))),
        ]
        if plan.begins_at:
            m.d.sync += ready.eq(together & agree & ~voided & ~begins)
        else:
            m.d.comb += ready.eq(together & agree & ~voided)
        with m.If(go):
            m.d.sync += [
                active.eq(~step_end),
                clock.eq(Mux(fold_end, 0, clock + 1)),
                group_last.eq(Mux(fold_end, c.groups == 1, clock == c.groups - 2)),
                fold_end.eq(Mux(fold_end, c.fold_clocks == 1, clock == c.fold_clocks - 2)),
            ]
            with m.If(fold_end):
                m.d.sync += [
                    fold.eq(Mux(in_last, 0, fold + 1)),
                    in_last.eq(Mux(in_last, c.folds == 1, fold == c.folds - 2)),
                ]
        with m.If(begins):
            m.d.sync += opening.eq(q.first)

        values = {
            "valid": go & group_ok,
            "fold": fold,
            "group": clock,
            "opening": Mux(active, opening, q.first),
            "fold_first": clock == 0,
            "fold_last": group_last,
            "step_end": go & step_end,
        }
        stages = []
        for i in range(plan.output_stage + 1):
            signals = {
                name: Signal.like(Value.cast(value), name=f"{name}_{i}")
                for name, value in values.items()
            }
            domain = m.d.sync if i else m.d.comb
            domain += [signals[name].eq(value) for name, value in values.items()]
            values = dict(signals)
            stages.append(_Stage(**signals))

        # A time step that lacks its fellows is dropped; so is one that is void on any input.
        settled = q.settled & k.settled & v.settled
        busy = Cat(s.valid | s.step_end for s in stages[1:]).any()
        m.d.comb += idle.eq(settled & ~active & ~busy)
        for name, buffer in buffers.items():
            reads = stages[
                (plan.value_stage if buffer is v else plan.key_stage) - buffer.shape.read_clocks
            ]
            drop = Signal(name=f"drop_{name}")
            m.d.comb += [
                drop.eq(together & idle & Mux(agree, voided, ~buffer.first)),
                buffer.take.eq(begins | drop),
                buffer.release.eq(stages[0].step_end | drop),
                buffer.read.eq(reads.valid & (reads.fold_first if buffer is q else 1)),
                buffer.address.eq(reads.fold if buffer is q else reads.group),
            ]
        return stages

    def _constants(
        self, m: Module, name: str, tables: list[list[int]], lanes: int, address: Value, bound: int
    ) -> list[list[Value]]:
        """Return [lane][head] of ``tables[head][lanes * address + lane]``, a clock later."""
        bits = ceil_log2(bound)
        depth = -(-len(tables[0]) // lanes)

        def entry(head: int, position: int) -> int:
            return tables[head][position] if position < len(tables[head]) else 0

        heads = range(len(tables))
        if depth == 1 or not bits:
            return [[Const(entry(h, lane), bits) for h in heads] for lane in range(lanes)]
        shape = data.ArrayLayout(data.ArrayLayout(bits, len(tables)), lanes)
        words = [
            [[entry(h, lanes * a + lane) for h in heads] for lane in range(lanes)]
            for a in range(depth)
        ]
        m.submodules[name] = rom = memory.Memory(shape=shape, depth=depth, init=words)
        port = rom.read_port()
        m.d.comb += port.addr.eq(address)
        return [[port.data[lane][h] for h in heads] for lane in range(lanes)]

    def _draws(
        self, m: Module, stages: list[_Stage], at: int, name: str, source: Source, bound: int
    ) -> list[list[Signal]]:
        """Return the draws [row][head], each skewed by its row, valid at stage `at`."""
        c = self.config
        m.submodules[f"{name}_source"] = source
        m.d.comb += [
            source.restart.eq(stages[at - 1].opening),
            source.advance.eq(stages[at - 1].step_end),
        ]
        skews, _ = c.skews(name)
        constants = self._constants(m, f"{name}_rows", skews, c.rows, stages[at - 2].fold, bound)
        draws: list[list[Signal]] = []
        for row, by_head in enumerate(constants):
            draws.append([])
            for head, constant in enumerate(by_head):
                draw = Signal(ceil_log2(bound), name=f"{name}_draw_r{row}_h{head}")
                m.d.sync += draw.eq(skew(source.value, constant, bound))
                draws[row].append(draw)
        return draws

    def _scores(
        self, m: Module, stages: list[_Stage], buffers: dict[str, TokenBuffer], source: Source
    ) -> list[list[list[Value]]]:
        """Return the score bits [row][head][column], valid at stage `value_stage`."""
        c, plan = self.config, self.plan
        q, k = buffers["q"].group, buffers["k"].group
        draws = self._draws(m, stages, plan.start_stage - 1, "score", source, c.head_dim)
        _, skews = c.skews("score")
        by_column = self._constants(
            m, "score_columns", skews, c.columns, stages[plan.start_stage - 2].group, c.head_dim
        )
        idle_from = c.tokens - (c.groups - 1) * c.columns
        at = stages[plan.value_stage]
        scores: list[list[list[Value]]] = []
        for row in range(c.rows):
            scores.append([])
            for head in range(c.heads):
                channels = slice(head * c.head_dim, (head + 1) * c.head_dim)
                starts = _Starts(
                    m,
                    draws[row][head],
                    c.head_dim,
                    plan.value_stage - plan.start_stage,
                    f"score_start_r{row}_h{head}",
                )
                counts = pipelined_counts(
                    m,
                    [list(q[row][channels] & k[column][channels]) for column in range(c.columns)],
                    [starts.skewed(by_column[x][head], f"c{x}") for x in range(c.columns)],
                    f"score_r{row}_h{head}_c",
                    late=plan.start_stage - plan.key_stage,
                    per_clock=plan.layers,
                )
                bits = []
                for column, count in enumerate(counts):
                    fires: Value = count[-1]
                    if column >= idle_from:
                        fires = fires & ~at.fold_last
                    if c.causal:
                        key, query = at.group * c.columns + column, at.fold * c.rows + row
                        fires = fires & (key <= query)
                    bits.append(fires)
                scores[row].append(bits)
        return scores

    def _outputs(
        self, m: Module, stages: list[_Stage], v: TokenBuffer, source: Source,
        scores: list[list[list[Value]]],
    ) -> list[list[Value]]:  # fmt: skip
        """Return the output bits [row][channel], valid with `fold_last` of the last stage."""
        c, plan = self.config, self.plan
        draws = self._draws(m, stages, plan.value_stage - 1, "output", source, c.tokens)
        _, skews = c.skews("output")
        # Later groups of a fold add to a count that has begun.
        begins = stages[plan.value_stage - 1].fold_first if c.groups > 1 else Const(1)
        outputs: list[list[Value]] = []
        for row in range(c.rows):
            outputs.append([])
            for head in range(c.heads):
                starts = _Starts(
                    m, draws[row][head], c.tokens, max(plan.output_clocks, 1),
                    f"output_start_r{row}_h{head}", begins,
                )  # fmt: skip
                name = f"output_r{row}_h{head}_d"
                bits = ceil_log2(c.tokens)
                channels = range(head * c.head_dim, (head + 1) * c.head_dim)
                hits = [
                    [s & v.group[column][d] for column, s in enumerate(scores[row][head])]
                    for d in channels
                ]
                begin = [starts.skewed(Const(x, bits), f"d{d}") for d, x in enumerate(skews[head])]
                if plan.output_clocks:
                    counts = pipelined_counts(m, hits, begin, name, per_clock=plan.layers)
                    outputs[row] += self._sum_up(m, stages[-1], counts, name)
                else:
                    first = [start[0] for start in begin]
                    outputs[row] += self._accumulate(m, stages[-1], hits, first, name)
        return outputs

    def _sum_up(self, m: Module, at: _Stage, counts: list[Signal], name: str) -> list[Value]:
        """Return whether the counts of a fold, one of each group, come to N or more together."""
        if self.config.groups == 1:
            return [count[-1] for count in counts]
        sums = [Signal(len(count) - 1, name=f"{name}{d}_sum") for d, count in enumerate(counts)]
        over = Signal(len(counts), name=f"{name}_over")  # it did so in an earlier group
        zero = Const(0, 1)
        rows = [
            [[*places[0], zero], *(list(pair) for pair in places[1:])]
            for sum_, count in zip(sums, counts, strict=True)
            for places in [list(zip(sum_, count[:-1], strict=True))]
        ]
        totals = add_rows(m, rows, f"{name}_sums")
        fires = Signal.like(over, name=f"{name}_fires")
        m.d.comb += fires.eq(
            over | Cat(total[-1] for total in totals) | Cat(count[-1] for count in counts)
        )
        with m.If(at.valid):
            m.d.sync += [sum_.eq(total[:-1]) for sum_, total in zip(sums, totals, strict=True)]
            m.d.sync += over.eq(fires)
        with m.If(at.valid & at.fold_last):  # by the reset of its flip-flops
            m.d.sync += [*(sum_.eq(0) for sum_ in sums), over.eq(0)]
        return list(fires)

    def _accumulate(
        self, m: Module, at: _Stage, hits: list[list[Value]], starts: list[Value], name: str
    ) -> list[Value]:
        """Return the same of starts and hits, in one clock; starts are 0 but at the first group."""
        fires: list[Value] = []
        for d, (some, start) in enumerate(zip(hits, starts, strict=True)):
            added = popcount(some)
            total = Signal(len(start) + 1, name=f"{name}{d}_total")
            sum_ = Signal.like(total, name=f"{name}{d}_sum")
            if len(added) == 1:
                m.d.comb += total.eq(add_with_carry(sum_, start, added))
            else:  # the sum is 0 where the start joins: above what is added it can be an operand
                low = len(added)
                joined = Cat((sum_ | start)[:low], sum_[low:])
                m.d.comb += total.eq(joined + Cat(added, start[low:]))
            with m.If(at.valid):
                m.d.sync += sum_.eq(total)
            with m.If(at.valid & at.fold_last):
                m.d.sync += sum_.eq(0)
            fires.append(total[-1])
        return fires

    def _collect(
        self, m: Module, room: Signal, stages: list[_Stage], outputs: list[list[Value]]
    ) -> None:
        """Queue the rows of a fold and hand them out, a beat a clock; keep account of the room."""
        c, plan = self.config, self.plan
        at = stages[-1]
        last_rows = c.tokens - (c.folds - 1) * c.rows
        in_last = at.fold == c.folds - 1
        word = data.StructLayout(
            {"rows": data.ArrayLayout(c.channels, c.rows), "last": 1, "first": 1}
        )
        m.submodules.queue = queue = OutputQueue(word.size, plan.queue_depth, 1)
        into, out_of = Signal(word), Signal(word)
        for row, bits in enumerate(outputs):
            idle = in_last if row >= last_rows else Const(0)
            m.d.comb += into.rows[row].eq(Mux(idle, 0, Cat(bits)))
        m.d.comb += [
            into.last.eq(in_last),
            into.first.eq(at.opening & (at.fold == 0)),
            queue.word.eq(into),
            queue.arrives.eq(at.valid & at.fold_last),
            out_of.eq(queue.data),
            queue.issued.eq(stages[0].valid & stages[0].fold_last),
            room.eq(queue.room),
        ]
        beats = c.rows // c.tokens_per_beat if c.rows < c.tokens else c.beats
        if beats == 1:
            m.d.comb += [
                self.out.valid.eq(queue.valid),
                self.out.payload.data.eq(out_of.rows),
                self.out.payload.last.eq(out_of.last),
                self.out.payload.first.eq(out_of.first),
                queue.ready.eq(self.out.ready),
            ]
        else:
            self._serialise(m, queue, out_of, beats, -(-last_rows // c.tokens_per_beat))

    def _serialise(
        self, m: Module, queue: OutputQueue, word: data.View,
        beats: int, last_beats: int,
    ) -> None:  # fmt: skip
        """Hand out the rows of a fold, a beat of them a clock."""
        beat = self.config.tokens_per_beat * self.config.channels
        held = Signal(beats * beat)
        left = Signal(range(beats + 1))
        fresh, last = Signal(), Signal()
        leaves = self.out.valid & self.out.ready
        m.d.comb += [
            self.out.valid.eq(left != 0),
            self.out.payload.data.eq(held[:beat]),
            self.out.payload.first.eq(fresh),
            self.out.payload.last.eq(last & (left == 1)),
            queue.ready.eq((left == 0) | ((left == 1) & self.out.ready)),
        ]
        with m.If(queue.ready):
            m.d.sync += [
                held.eq(word.rows.as_value()),
                left.eq(Mux(queue.valid, Mux(word.last, last_beats, beats), 0)),
                fresh.eq(word.first),
                last.eq(word.last),
            ]
        with m.Elif(leaves):
            m.d.sync += [held.eq(held >> beat), left.eq(left - 1), fresh.eq(0)]


class _Starts:
    """Where counts start: at the complement of a draw, skewed by a constant, in several clocks.

    Parameters
    ----------
    draw : Signal
        Valid a clock before the first of the `clocks`.
    bound : int
        It is below this.
    gate : Value
        With the draw; where it is 0 a start is 0.
    """

    def __init__(
        self, m: Module, draw: Signal, bound: int, clocks: int, name: str, gate: Value | None = None
    ) -> None:
        self._m = m
        self._draw = draw
        self._bound = bound
        self._clocks = clocks
        self._name = name
        self._gate = Const(1) if gate is None else gate
        # Both polarities, since a constant to XOR with only picks one of them for each bit.
        self._either = [
            self._delayed(Mux(self._gate, value, 0)[: len(draw)], f"{name}_{word}")
            for word, value in (("complement", ~draw), ("draw", draw))
        ]

    def skewed(self, constant: Value, name: str) -> list[Value]:
        """Return the complement of the draw moved by `constant`, in each clock."""
        if isinstance(constant, Const) and not self._bound & (self._bound - 1):
            picked = [constant.value >> i & 1 for i in range(len(self._draw))]
            return [
                Cat(self._either[one][clock][i] for i, one in enumerate(picked))
                for clock in range(self._clocks)
            ]
        start = ~skew(self._draw, constant, self._bound)
        return self._delayed(Mux(self._gate, start, 0)[: len(self._draw)], f"{self._name}_{name}")

    def _delayed(self, value: Value, name: str) -> list[Value]:
        out: list[Value] = []
        for clock in range(self._clocks):
            register = Signal.like(value, name=f"{name}_{clock}")
            self._m.d.sync += register.eq(out[-1] if out else value)
            out.append(register)
        return out
