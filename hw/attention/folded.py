"""The count encoder with some queries kept, and all keys read for them."""

from collections.abc import Mapping

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.hdl import Value
from amaranth.lib import data

from hw.arith import add_rows, add_with_carry, pipelined_counts, popcount
from hw.attention.config import AttentionConfig
from hw.attention.count import CountAttention, Stage
from hw.attention.draws import Source
from hw.attention.plan import FoldedPlan
from hw.attention.starts import Starts, constants
from hw.buffer import StepBuffer, TokenBuffer
from hw.queue import OutputQueue


class FoldedAttention(CountAttention):
    """The count encoder in folds: `rows` queries are kept while all keys and values are read.

    In a clock `columns` of each are read from memory; output counts are accumulated beside the
    adders. The form for few columns.

    The other form that was weighed holds a row of scores, reads V by column and counts it with a
    second tree: at one row and column and N = dK = 64 about 450 logic cells behind the score
    against 600 here, but it needs V and its output transposed (85 cells a row, or 4096 flip-flops
    unfolded) and a second tree of N bits a row.

    Parameters
    ----------
    config : AttentionConfig
    """

    plan: FoldedPlan

    def __init__(self, config: AttentionConfig) -> None:
        super().__init__(config, FoldedPlan(config))

    def _buffers(self) -> dict[str, TokenBuffer]:
        return {name: TokenBuffer(self.plan.buffer(name)) for name in "qkv"}

    def _place(
        self, m: Module, go: Signal, inner: Signal, outer: Signal, inner_end: Signal,
        outer_last: Signal,
    ) -> dict[str, Value]:  # fmt: skip
        groups = self.config.groups
        last = Signal(init=groups == 1)
        with m.If(go):
            m.d.sync += last.eq(Mux(inner_end, groups == 1, inner == groups - 2))
        return {
            "valid": inner < groups, "fold": outer, "group": inner,
            "first": inner == 0, "last": last,
        }  # fmt: skip

    def _feed(
        self, m: Module, stages: list[Stage], buffers: Mapping[str, StepBuffer], turns: Value
    ) -> None:
        for name, buffer in buffers.items():
            at = self.plan.value_stage if name == "v" else self.plan.key_stage
            reads = stages[at - self.plan.read_clocks]
            m.d.comb += [
                buffer.read.eq(reads.valid & (reads.first if name == "q" else 1)),
                buffer.address.eq(reads.fold if name == "q" else reads.group),
            ]

    def _scores(
        self, m: Module, stages: list[Stage], buffers: Mapping[str, StepBuffer], source: Source
    ) -> list[list[list[Value]]]:
        c, plan = self.config, self.plan
        q, k = buffers["q"].group, buffers["k"].group
        draws = self._draws(m, stages, plan.start_stage - 1, "score", source, c.head_dim)
        _, skews = c.skews("score")
        by_column = constants(
            m, "score_columns", skews, c.columns, stages[plan.start_stage - 2].group, c.head_dim
        )
        idle_from = c.tokens - (c.groups - 1) * c.columns
        at = stages[plan.value_stage]
        scores: list[list[list[Value]]] = []
        for row in range(c.rows):
            scores.append([])
            for head in range(c.heads):
                channels = slice(head * c.head_dim, (head + 1) * c.head_dim)
                starts = Starts(
                    m, draws[row][head], c.head_dim, plan.value_stage - plan.start_stage,
                    f"score_start_r{row}_h{head}",
                )  # fmt: skip
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
                        fires = fires & ~at.last
                    if c.causal:
                        key, query = at.group * c.columns + column, at.fold * c.rows + row
                        fires = fires & (key <= query)
                    bits.append(fires)
                scores[row].append(bits)
        return scores

    def _outputs(
        self, m: Module, stages: list[Stage], v: StepBuffer, source: Source,
        scores: list[list[list[Value]]],
    ) -> list[list[Value]]:  # fmt: skip
        c, plan = self.config, self.plan
        draws = self._draws(m, stages, plan.value_stage - 1, "output", source, c.tokens)
        _, skews = c.skews("output")
        # Later groups of a fold add to a count that has begun.
        begins = stages[plan.value_stage - 1].first
        outputs: list[list[Value]] = []
        for row in range(c.rows):
            outputs.append([])
            for head in range(c.heads):
                starts = Starts(
                    m, draws[row][head], c.tokens, max(plan.output_clocks, 1),
                    f"output_start_r{row}_h{head}", gate=begins,
                )  # fmt: skip
                name = f"output_r{row}_h{head}_d"
                channels = range(head * c.head_dim, (head + 1) * c.head_dim)
                hits = [
                    [s & v.group[column][d] for column, s in enumerate(scores[row][head])]
                    for d in channels
                ]
                begin = [starts.skewed((x,), f"d{d}") for d, x in enumerate(skews[head])]
                if plan.output_clocks:
                    counts = pipelined_counts(m, hits, begin, name, per_clock=plan.layers)
                    outputs[row] += self._sum_up(m, stages[plan.output_stage], counts, name)
                else:
                    first = [start[0] for start in begin]
                    outputs[row] += self._accumulate(
                        m, stages[plan.output_stage], hits, first, name
                    )
        return outputs

    def _sum_up(self, m: Module, at: Stage, counts: list[Signal], name: str) -> list[Value]:
        """Return whether the counts of a fold, one of each group, come to N or more together."""
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
        with m.If(at.valid & at.last):  # by the reset of its flip-flops
            m.d.sync += [*(sum_.eq(0) for sum_ in sums), over.eq(0)]
        return list(fires)

    def _accumulate(
        self, m: Module, at: Stage, hits: list[list[Value]], starts: list[Value], name: str
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
            with m.If(at.valid & at.last):
                m.d.sync += sum_.eq(0)
            fires.append(total[-1])
        return fires

    def _leave(self, m: Module, queue: OutputQueue, word: data.View) -> None:
        """Hand out the rows of a fold, a beat of them a clock."""
        c = self.config
        beats = -(-min(c.rows, c.tokens) // c.tokens_per_beat)
        if beats == 1:
            super()._leave(m, queue, word)
            return
        last_rows = c.tokens - (c.folds - 1) * c.rows
        last_beats = -(-last_rows // c.tokens_per_beat)
        beat = c.tokens_per_beat * c.channels
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
