"""The count encoder: a bit is drawn by comparing a count with a random number."""

import dataclasses
from collections.abc import Mapping

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.hdl import Value
from amaranth.lib import data, wiring
from amaranth.utils import ceil_log2

from hw.attention.config import AttentionConfig
from hw.attention.draws import Source, sources
from hw.attention.plan import CountPlan
from hw.attention.starts import constants
from hw.bernoulli import skew
from hw.buffer import StepBuffer
from hw.queue import OutputQueue
from hw.stream import FaultCounter, members


@dataclasses.dataclass
class Stage:
    """What the control says of one clock of one stage of the pipeline.

    Attributes
    ----------
    valid : Signal
        A group of keys meets queries at this stage.
    fold, group : Signal
        Which queries, and which keys.
    opening : Signal
        Of the first time step of an inference.
    first, last : Signal
        The first and the last group that these queries meet.
    step_end : Signal
        The last clock of a time step, with or without a group.
    """

    valid: Signal
    fold: Signal
    group: Signal
    opening: Signal
    first: Signal
    last: Signal
    step_end: Signal


class CountAttention(wiring.Component):
    """Stochastic spiking attention with the count encoder, one draw a stage and time step.

    For each head and time step, with Q, K, V in {0, 1} (N x dK):

        S[n, m] = 1 iff r1 skewed by (n, m) < popcount(Q[n] AND K[m])      r1 below dK
        A[n, d] = 1 iff r2 skewed by (n, d) < popcount(S[n] AND V[:, d])   r2 below N

    ``E[A] = (Q K^T) V / (dK N)``. Source: Stochastic Spiking Attention (arXiv 2402.09109), eq. 5
    and 6, Algorithm 1; what replaces its N x N counters and one random number for all is below.

    The pipeline, `rows` queries and `columns` keys and values a clock::

        q -> buffer -> Q[n] --+
        k -> buffer -> K[m] --+-> AND, count from -r1 -> S[n, m] --+
                                                                   +-> AND, count from -r2
        v -> buffer -> V[m] ---------------------------------------+        |
                                                             out <- OutputQueue

    A score bit is used in the clock in which it is made, against the whole row V[m]: neither
    scores nor V nor the outputs are ever transposed or stored. A count starts from the complement
    of its random number, so that its top bit is the comparison: there is no comparator. Cells grow
    with rows x columns (`pipelined_counts` of dK bits) and rows x D (that of `columns` bits).

    This is what both forms have in common. `hw.attention.held` keeps a group of keys and lets all
    queries pass; `hw.attention.folded` keeps some queries and reads all groups of keys.

    Nothing in the pipeline waits: what leaves is only begun with room for it in the queue at the
    end, so no clock enable runs from the output back through all of it. Registers cost no LUTs, so
    there is one wherever a path would be long.

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

    def __init__(self, config: AttentionConfig, plan: CountPlan) -> None:
        self.config = config
        self.plan = plan
        super().__init__(members(config))

    def _buffers(self) -> Mapping[str, StepBuffer]:
        """Return the buffers of q, k and v."""
        raise NotImplementedError

    def elaborate(self, platform: object) -> Module:
        c = self.config
        m = Module()
        buffers = self._buffers()
        m.submodules.fault_counter = faults = FaultCounter(3)
        for i, (name, buffer) in enumerate(buffers.items()):
            m.submodules[name] = buffer
            wiring.connect(m, wiring.flipped(getattr(self, name)), buffer.i)
            m.d.comb += faults.fault[i].eq(buffer.fault)
        m.d.comb += self.faults.eq(faults.count)

        room = Signal()
        stages = self._control(m, room, buffers)
        score_source, output_source = sources(c)
        scores = self._scores(m, stages, buffers, score_source)
        outputs = self._outputs(m, stages, buffers["v"], output_source, scores)
        self._collect(m, room, stages, outputs)
        return m

    def _control(self, m: Module, room: Signal, buffers: Mapping[str, StepBuffer]) -> list[Stage]:
        """Join the three inputs, count through a time step, and pass the counts along."""
        plan = self.plan
        q, k, v = buffers.values()
        inner = Signal(range(max(plan.inner, 2)))
        outer = Signal(range(max(plan.outer, 2)))
        together = Signal()  # a time step waits on all inputs
        agree = Signal()  # all of them of the same inference
        voided = Signal()
        ready = Signal()
        active = Signal()  # in the middle of a time step
        opening = Signal()  # which is the first one of an inference
        go = Signal()
        idle = Signal()
        begins = Signal()
        # Where the counts are, known a clock before: much hangs on it.
        inner_end = Signal(init=plan.inner == 1)
        outer_last = Signal(init=plan.outer == 1)
        step_end = inner_end & outer_last
        fields = self._place(m, go, inner, outer, inner_end, outer_last)
        m.d.comb += [
            together.eq(q.waiting & k.waiting & v.waiting),
            agree.eq((q.first == k.first) & (k.first == v.first)),
            voided.eq(q.void | k.void | v.void),
            # A time step begins with clock 0.
            begins.eq(ready & ~active & (room if plan.issues_first else 1)),
            go.eq(begins | (active & (room | ~fields["last"]))),
        ]
        if plan.begins_at:
            m.d.sync += ready.eq(together & agree & ~voided & ~begins)
        else:
            m.d.comb += ready.eq(together & agree & ~voided)
        with m.If(go):
            m.d.sync += [
                active.eq(~step_end),
                inner.eq(Mux(inner_end, 0, inner + 1)),
                inner_end.eq(Mux(inner_end, plan.inner == 1, inner == plan.inner - 2)),
            ]
            with m.If(inner_end):
                m.d.sync += [
                    outer.eq(Mux(outer_last, 0, outer + 1)),
                    outer_last.eq(Mux(outer_last, plan.outer == 1, outer == plan.outer - 2)),
                ]
        with m.If(begins):
            m.d.sync += opening.eq(q.first)

        values = {
            **fields,
            "valid": go & fields["valid"],
            "opening": Mux(active, opening, q.first),
            "step_end": go & step_end,
        }
        stages = []
        for i in range(plan.last_stage + 1):
            signals = {
                name: Signal.like(Value.cast(value), name=f"{name}_{i}")
                for name, value in values.items()
            }
            domain = m.d.sync if i else m.d.comb
            domain += [signals[name].eq(value) for name, value in values.items()]
            values = dict(signals)
            stages.append(Stage(**signals))

        # A time step that lacks its fellows is dropped; so is one that is void on any input. It
        # takes two clocks to say so, in which it stays where it is and can't be begun.
        settled = q.settled & k.settled & v.settled
        busy = Cat(s.valid | s.step_end for s in stages[1:]).any()
        m.d.sync += idle.eq(settled & ~active & ~busy & ~go)
        dropped = Cat(buffer.drop for buffer in buffers.values())
        drops = [Mux(agree, voided, ~buffer.first) for buffer in buffers.values()]
        drop = Signal.like(dropped)
        with m.If(together & idle & ~drop.any()):
            m.d.sync += drop.eq(Cat(drops))
        with m.Else():
            m.d.sync += drop.eq(0)
        m.d.comb += dropped.eq(drop)
        for buffer in buffers.values():
            m.d.comb += [
                buffer.take.eq(begins),
                buffer.release.eq(stages[0].step_end),
            ]
        self._feed(m, stages, buffers, go & inner_end)
        return stages

    def _place(
        self, m: Module, go: Signal, inner: Signal, outer: Signal, inner_end: Signal,
        outer_last: Signal,
    ) -> dict[str, Value]:  # fmt: skip
        """Return `valid`, `fold`, `group`, `first` and `last` of `Stage` from the counts."""
        raise NotImplementedError

    def _feed(
        self, m: Module, stages: list[Stage], buffers: Mapping[str, StepBuffer], turns: Value
    ) -> None:
        """Have the buffers show what each stage needs; `turns` where the inner count ends."""
        raise NotImplementedError

    def _draws(
        self, m: Module, stages: list[Stage], at: int, name: str, source: Source, bound: int
    ) -> list[list[Value]]:
        """Return the draws [row][head], each skewed by its row, valid at stage `at`."""
        c = self.config
        m.submodules[f"{name}_source"] = source
        m.d.comb += [
            source.restart.eq(stages[at - 1].opening),
            source.advance.eq(stages[at - 1].step_end),
        ]
        skews, _ = c.skews(name)
        rows = constants(m, f"{name}_rows", skews, c.rows, stages[at - 2].fold, bound)
        draws: list[list[Value]] = []
        for row, by_head in enumerate(rows):
            draws.append([])
            for head, constant in enumerate(by_head):
                draw = Signal(ceil_log2(bound), name=f"{name}_draw_r{row}_h{head}")
                m.d.sync += draw.eq(skew(source.value, constant, bound))
                draws[row].append(draw)
        return draws

    def _scores(
        self, m: Module, stages: list[Stage], buffers: Mapping[str, StepBuffer], source: Source
    ) -> list[list[list[Value]]]:
        """Return the score bits [row][head][column], valid at stage `value_stage`."""
        raise NotImplementedError

    def _outputs(
        self, m: Module, stages: list[Stage], v: StepBuffer, source: Source,
        scores: list[list[list[Value]]],
    ) -> list[list[Value]]:  # fmt: skip
        """Return the output bits [row][channel], valid at stage `output_stage`."""
        raise NotImplementedError

    def _collect(
        self, m: Module, room: Signal, stages: list[Stage], outputs: list[list[Value]]
    ) -> None:
        """Queue the rows of a fold and hand them out, a beat a clock; keep account of the room."""
        c, plan = self.config, self.plan
        at = stages[plan.output_stage]
        last_rows = c.tokens - (c.folds - 1) * c.rows
        in_last = at.fold == c.folds - 1
        word = data.StructLayout(
            {"rows": data.ArrayLayout(c.channels, c.rows), "last": 1, "first": 1}
        )
        m.submodules.queue = queue = OutputQueue(
            word.size, plan.queue_depth, 1, block=plan.block_queue
        )
        into, out_of = Signal(word), Signal(word)
        for row, bits in enumerate(outputs):
            idle = in_last if row >= last_rows else Const(0)
            m.d.comb += into.rows[row].eq(Mux(idle, 0, Cat(bits)))
        m.d.comb += [
            into.last.eq(in_last),
            into.first.eq(at.opening & (at.fold == 0)),
            queue.word.eq(into),
            queue.arrives.eq(at.valid & at.last),
            out_of.eq(queue.data),
            queue.issued.eq(stages[0].valid & stages[0].last),
            room.eq(queue.room),
        ]
        self._leave(m, queue, out_of)

    def _leave(self, m: Module, queue: OutputQueue, word: data.View) -> None:
        """Hand out what is queued."""
        m.d.comb += [
            self.out.valid.eq(queue.valid),
            self.out.payload.data.eq(word.rows),
            self.out.payload.last.eq(word.last),
            self.out.payload.first.eq(word.first),
            queue.ready.eq(self.out.ready),
        ]
