"""Stochastic spiking attention: scores and outputs drawn bit by bit."""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any, ClassVar

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.hdl import Value
from amaranth.lib import data, memory, wiring
from amaranth.utils import ceil_log2

from hw.arith import add_with_carry, pipelined_popcount, popcount
from hw.bernoulli import UniformSource, permutation, skew, splitmix64
from hw.buffer import TokenBuffer
from hw.config import Array, Config, ConfigError, param
from hw.stream import FaultCounter, Stream, members

SCORE_CLOCKS = 4
"""Clocks from the read of Q and K to the score bit: read, two of popcount, comparison."""

SMALL_COLUMNS = 4
"""Up to this many columns the output count is one clock; above, the popcount takes two more."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionConfig(Config):
    """Parameters of `Attention`.

    A time step is ``folds = ceil(tokens / rows)`` folds of ``groups = ceil(tokens / columns)``
    clocks each, or of `rows` clocks where that is more, since rows leave one a clock.
    """

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {},
        "icebreaker": {"tokens": 16, "heads": 1, "head_dim": 16, "columns": 2, "timesteps": 16},
        "paper": {"tokens": 64, "heads": 1, "head_dim": 64, "columns": 16, "timesteps": 10},
        "paper_small": {"tokens": 64, "heads": 1, "head_dim": 64, "columns": 1, "timesteps": 10},
    }

    tokens: int = param(16, "tokens N", low=1, high=256)
    heads: int = param(1, "heads H", low=1, high=64)
    head_dim: int = param(16, "channels dK of one head", low=1, high=256)
    rows: int = param(1, "output rows (queries) in parallel", low=1, high=256)
    columns: int = param(
        None, "keys, and values, in parallel", low=1, high=256, derived="min(tokens, 16)"
    )
    causal: bool = param(False, "a token attends only to itself and those before it")
    seed: int = param(1, "seed of both random sources and of the skews", low=1, high=2**32 - 1)

    def resolve(self) -> None:
        self.derive(columns=min(self.tokens, 16))
        for name in ("rows", "columns"):
            if getattr(self, name) > self.tokens:
                raise ConfigError(
                    f"{name}: want at most tokens ({self.tokens}), got {getattr(self, name)}"
                )

    @property
    def channels(self) -> int:
        """Channels D of a token, all heads."""
        return self.heads * self.head_dim

    @property
    def folds(self) -> int:
        """Passes over K and V in a time step."""
        return -(-self.tokens // self.rows)

    @property
    def groups(self) -> int:
        """Groups of `columns` tokens in a time step."""
        return -(-self.tokens // self.columns)

    @property
    def fold_clocks(self) -> int:
        """Clocks of a fold."""
        return max(self.groups, self.rows)

    @property
    def output_clocks(self) -> int:
        """Clocks from the score bit to the output register."""
        return 1 if self.columns <= SMALL_COLUMNS else 3

    @property
    def value_slots(self) -> int:
        """Time steps of V that are buffered: its reads trail those of K by the score's clocks.

        More than a stage a clock would reach the end of the chain too late.
        """
        return min(2 - (-SCORE_CLOCKS // self.tokens), SCORE_CLOCKS + 1)

    @property
    def score_seed(self) -> int:
        """Initial state of the 32-bit register of the scores."""
        return self.seed

    @property
    def output_seed(self) -> int:
        """Initial state of the 31-bit register of the outputs."""
        return splitmix64(self.seed) % (2**31 - 1) + 1

    def skews(self, stage: str) -> tuple[list[list[int]], list[list[int]]]:
        """Return the skews of a stage per head: of its rows, and of its columns.

        Score (n, m) of head h is skewed by ``rows[h][n]`` and ``columns[h][m]``, output (n, d) by
        ``rows[h][n]`` and ``columns[h][d]``.
        """
        bound, width, k = {
            "score": (self.head_dim, self.tokens, 0),
            "output": (self.tokens, self.head_dim, 2),
        }[stage]
        tables = []
        for axis, length in ((k, self.tokens), (k + 1, width)):
            tables.append(
                [
                    permutation(splitmix64(self.seed + 2**32 * (4 * h + axis)), bound, length)
                    for h in range(self.heads)
                ]
            )
        return tables[0], tables[1]

    @property
    def streams(self) -> tuple[Stream, ...]:
        shape: dict[str, Any] = {
            "lanes": self.channels,
            "width": 1,
            "signed": False,
            "beats": self.tokens,
            "elements": self.tokens * self.channels,
            "steps": self.timesteps,
        }
        kv = "a token a beat, head 0 lowest"
        return (
            Stream("q", "in", help=f"queries, {kv}", ahead=2 * self.tokens, **shape),
            Stream("k", "in", help=f"keys, {kv}", ahead=2 * self.tokens, **shape),
            Stream("v", "in", help=f"values, {kv}", ahead=self.value_slots * self.tokens, **shape),
            Stream("out", "out", help=f"outputs, {kv}", **shape),
        )

    @property
    def stimulus(self) -> dict[str, Array]:
        shape = ("timesteps", "tokens", "channels")
        names = {"q": "queries", "k": "keys", "v": "values"}
        return {name: Array(shape, 0, 1, name, help) for name, help in names.items()}

    @property
    def result(self) -> dict[str, Array]:
        return {"out": Array(("timesteps", "tokens", "channels"), 0, 1, "out", "output spikes")}

    @property
    def latency(self) -> int:
        return self.tokens + self.groups - 1 + SCORE_CLOCKS + self.output_clocks

    @property
    def interval(self) -> int:
        return self.folds * self.fold_clocks

    @property
    def cycles(self) -> int:
        last_rows = self.tokens - (self.folds - 1) * self.rows
        before = self.timesteps * self.interval - self.fold_clocks
        return self.latency + before + last_rows - 1

    @property
    def notes(self) -> dict[str, Any]:
        return {
            "score_seed": self.score_seed,
            "output_seed": self.output_seed,
            "random sources": "advance once per time step that is whole on q, k and v; reset by "
            "rst alone",
            "bias": "0"
            if not (self.tokens & (self.tokens - 1) or self.head_dim & (self.head_dim - 1))
            else "below 2^-19 per output bit",
        }


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


class Attention(wiring.Component):
    """Stochastic spiking attention with the count encoder, one draw a stage and time step.

    For each head and time step, with Q, K, V in {0, 1} (N x dK):

        S[n, m] = 1 iff r1 skewed by (n, m) < popcount(Q[n] AND K[m])      r1 below dK
        A[n, d] = 1 iff r2 skewed by (n, d) < popcount(S[n] AND V[:, d])   r2 below N

    ``E[A] = (Q K^T) V / (dK N)``. Source: Stochastic Spiking Attention (arXiv 2402.09109), eq. 5
    and 6, Algorithm 1; what replaces its N x N counters and one random number for all is below.

    The pipeline, `rows` queries and `columns` keys and values a clock::

        q -> TokenBuffer -> Q[n] --+
        k -> TokenBuffer -> K[m] --+-> AND, popcount -> r1 < count -> S[n, m] --+
                                                                               +-> AND, add -> out
        v -> TokenBuffer -> V[m] ----------------------------------------------+

    A score bit is used in the clock in which it is made, against the whole row V[m]: neither
    scores nor V nor the outputs are ever transposed or stored. The accumulator of output (n, d)
    starts from the complement of its random number, so that its top bit is the comparison: there
    is no comparator, and at one column no multiplexer either, since it is cleared by the reset of
    its flip-flops. Cells grow with rows x columns (popcounts of dK bits) and rows x D (counters).

    The other form that was weighed holds a row of scores, reads V by column and counts it with a
    second popcount tree: at one row and column and N = dK = 64 about 450 logic cells behind the
    score against 600 here, but it needs V and its output transposed (85 cells a row, or 4096
    flip-flops unfolded) and a second popcount tree of N bits a row; with several columns the
    counters here shrink to the same tree (`columns` = N has no counter left).

    Latency (first beat in to first beat out): ``N + ceil(N/columns) + 4`` clocks, 2 more above
    `SMALL_COLUMNS` columns. Interval: `AttentionConfig.interval` clocks a time step, which is N
    (every port moves a beat every clock) at ``columns = N``, or ``rows = N``. Each input is
    buffered for two time steps (V: `AttentionConfig.value_slots`), so a source may send whole
    time steps of one stream before those of another.

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
        super().__init__(members(config))

    def elaborate(self, platform: object) -> Module:
        c = self.config
        m = Module()
        buffers = {}
        m.submodules.fault_counter = faults = FaultCounter(3)
        for i, (name, columns, slots) in enumerate(
            (("q", c.rows, 2), ("k", c.columns, 2), ("v", c.columns, c.value_slots))
        ):
            buffer = TokenBuffer(c.streams[i], columns, slots)
            buffers[name] = m.submodules[name] = buffer
            wiring.connect(m, wiring.flipped(getattr(self, name)), buffer.i)
            m.d.comb += faults.fault[i].eq(buffers[name].fault)
        m.d.comb += self.faults.eq(faults.count)

        enable = Signal()
        stages = self._control(m, enable, buffers)
        scores = self._scores(m, enable, stages, buffers)
        sums = self._outputs(m, enable, stages, buffers["v"], scores)
        self._collect(m, enable, stages[-1], sums)
        return m

    def _control(self, m: Module, enable: Signal, buffers: dict[str, TokenBuffer]) -> list[_Stage]:
        """Join the three inputs, count through folds and groups, and pass the counts along."""
        c = self.config
        q, k, v = buffers.values()
        fold = Signal(range(max(c.folds, 2)))
        clock = Signal(range(max(c.fold_clocks, 2)))
        ready = Signal()  # a time step waits on all inputs, all of the same inference
        together = Signal()
        agree = Signal()
        voided = Signal()
        busy = Signal()
        settled = Signal()
        m.d.comb += [
            together.eq(q.waiting & k.waiting & v.waiting),
            agree.eq((q.first == k.first) & (k.first == v.first)),
            voided.eq(q.void | k.void | v.void),
            ready.eq(together & agree & ~voided),
        ]
        fold_end = clock == c.fold_clocks - 1
        step_end = fold_end & (fold == c.folds - 1)
        with m.If(enable & ready):
            m.d.sync += clock.eq(Mux(fold_end, 0, clock + 1))
            with m.If(fold_end):
                m.d.sync += fold.eq(Mux(fold == c.folds - 1, 0, fold + 1))

        group_ok = clock < c.groups
        values = {
            "valid": ready & group_ok,
            "fold": fold,
            "group": clock,
            "opening": q.first,
            "fold_first": clock == 0,
            "fold_last": clock == c.groups - 1,
            "step_end": ready & step_end,
        }
        stages = []
        for i in range(SCORE_CLOCKS + c.output_clocks):
            signals = {
                name: Signal.like(Value.cast(value), name=f"{name}_{i}")
                for name, value in values.items()
            }
            if i == 0:
                m.d.comb += [signals[name].eq(value) for name, value in values.items()]
            else:
                with m.If(enable):
                    m.d.sync += [signals[name].eq(value) for name, value in values.items()]
            values = dict(signals)
            stages.append(_Stage(**signals))

        # A time step that lacks its fellows is dropped; so is one that is void on any input.
        m.d.comb += [
            busy.eq(Cat(s.valid | s.step_end for s in stages[1:]).any()),
            settled.eq(q.settled & k.settled & v.settled),
        ]
        reads = stages[SCORE_CLOCKS - 1]
        for buffer in (q, k, v):
            drop = Signal(name=f"drop_{'qkv'[(q, k, v).index(buffer)]}")
            m.d.comb += [
                drop.eq(together & settled & ~busy & Mux(agree, voided, ~buffer.first)),
                buffer.enable.eq(enable),
                buffer.take.eq((stages[0].step_end & enable) | drop),
            ]
            if buffer is v:
                m.d.comb += [
                    buffer.read.eq(reads.valid),
                    buffer.address.eq(reads.group),
                    buffer.free.eq(reads.step_end | drop),
                ]
            else:
                m.d.comb += buffer.free.eq(stages[0].step_end | drop)
        m.d.comb += [
            k.read.eq(stages[0].valid),
            k.address.eq(clock),
            q.read.eq(stages[0].valid & stages[0].fold_first),
            q.address.eq(fold),
        ]
        return stages

    def _constants(
        self, m: Module, enable: Signal, name: str, tables: list[list[int]], lanes: int,
        address: Value, bound: int,
    ) -> list[list[Value]]:  # fmt: skip
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
        m.d.comb += [port.addr.eq(address), port.en.eq(enable)]
        return [[port.data[lane][h] for h in heads] for lane in range(lanes)]

    def _scores(
        self, m: Module, enable: Signal, stages: list[_Stage], buffers: dict[str, TokenBuffer]
    ) -> list[list[list[Signal]]]:
        """Return the score bits [row][head][column], valid with ``stages[SCORE_CLOCKS]``."""
        c = self.config
        q, k = buffers["q"].group, buffers["k"].group
        m.submodules.score_source = source = UniformSource(c.head_dim, 32, c.score_seed)
        # The skews are read a clock behind Q and K, the draw is moved while the popcount runs.
        m.d.comb += source.advance.eq(stages[2].step_end & enable)
        row_skews, column_skews = c.skews("score")
        by_row = self._constants(
            m, enable, "score_rows", row_skews, c.rows, stages[1].fold, c.head_dim
        )
        by_column = self._constants(
            m, enable, "score_columns", column_skews, c.columns, stages[1].group, c.head_dim
        )
        at = stages[SCORE_CLOCKS - 1]
        idle_from = c.tokens - (c.groups - 1) * c.columns
        scores: list[list[list[Signal]]] = []
        for row in range(c.rows):
            scores.append([])
            for head in range(c.heads):
                channels = slice(head * c.head_dim, (head + 1) * c.head_dim)
                draw = skew(source.value, by_row[row][head], c.head_dim)
                bits = []
                for column in range(c.columns):
                    name = f"score_r{row}_h{head}_c{column}"
                    overlap = q[row][channels] & k[column][channels]
                    count = pipelined_popcount(m, list(overlap), enable, name)
                    moved = Signal(ceil_log2(c.head_dim), name=f"{name}_draw")
                    with m.If(enable):
                        m.d.sync += moved.eq(skew(draw, by_column[column][head], c.head_dim))
                    score = Signal(name=name)
                    fires = moved < count
                    if column >= idle_from:
                        fires = fires & ~at.fold_last
                    if c.causal:
                        fires = fires & self._not_after(at, row, column)
                    with m.If(enable):
                        m.d.sync += score.eq(fires)
                    bits.append(score)
                scores[row].append(bits)
        return scores

    def _not_after(self, at: _Stage, row: int, column: int) -> Value:
        """Return whether the key of `column` is not after the query of `row`."""
        c = self.config
        return at.group * c.columns + column <= at.fold * c.rows + row

    def _outputs(
        self, m: Module, enable: Signal, stages: list[_Stage], v: TokenBuffer,
        scores: list[list[list[Signal]]],
    ) -> list[list[Value]]:  # fmt: skip
        """Return the output bits [row][channel], valid with the last stage's `fold_last`."""
        c = self.config
        bits = ceil_log2(c.tokens)
        adds = len(stages) - 1  # the stage at which counts are added up
        m.submodules.output_source = source = UniformSource(c.tokens, 31, c.output_seed)
        m.d.comb += source.advance.eq(stages[adds - 1].step_end & enable)
        row_skews, column_skews = c.skews("output")
        by_row = self._constants(
            m, enable, "output_rows", row_skews, c.rows, stages[adds - 2].fold, c.tokens
        )
        outputs: list[list[Value]] = []
        for row in range(c.rows):
            outputs.append([])
            for head in range(c.heads):
                draw = Signal(bits, name=f"output_draw_r{row}_h{head}")
                with m.If(enable):
                    m.d.sync += draw.eq(skew(source.value, by_row[row][head], c.tokens))
                for d in range(c.head_dim):
                    channel = head * c.head_dim + d
                    name = f"output_r{row}_d{channel}"
                    hits = [
                        s & v.group[column][channel] for column, s in enumerate(scores[row][head])
                    ]
                    start = ~skew(draw, column_skews[head][d], c.tokens)
                    if adds == SCORE_CLOCKS:
                        added = popcount(hits)
                    else:
                        added = pipelined_popcount(m, hits, enable, name)
                    total = Signal(bits + 1, name=f"{name}_total")
                    if c.groups == 1:
                        m.d.comb += total.eq(start[:bits] + added)
                    else:
                        self._accumulate(m, enable, stages[adds], start[:bits], added, total, name)
                    outputs[row].append(total[bits])
        return outputs

    def _accumulate(
        self, m: Module, enable: Signal, at: _Stage, start: Value, added: Value, total: Signal,
        name: str,
    ) -> None:  # fmt: skip
        """Let `total` be `start` plus all that was added since the first group of the fold."""
        sum_ = Signal(len(total), name=f"{name}_sum")
        begin = Mux(at.fold_first, start, 0)
        if len(added) == 1:
            m.d.comb += total.eq(add_with_carry(sum_, begin, added))
        else:  # the sum is 0 where the start joins: above what is added it can be an operand
            low = len(added)
            joined = Cat((sum_ | begin)[:low], sum_[low:])
            m.d.comb += total.eq(joined + Cat(added, begin[low:]))
        with m.If(enable & at.valid):
            m.d.sync += sum_.eq(total)
        with m.If(enable & at.valid & at.fold_last):  # by the reset of its flip-flops
            m.d.sync += sum_.eq(0)

    def _collect(self, m: Module, enable: Signal, at: _Stage, outputs: list[list[Value]]) -> None:
        """Hold the rows of a fold and hand them out, a token a clock."""
        c = self.config
        held = [Signal(c.channels, name=f"held{i}") for i in range(c.rows)]
        count = Signal(range(c.rows + 1))
        last_fold = Signal()
        fresh = Signal()  # the token at hand opens an inference
        arrives, leaves = Signal(), Signal()
        m.d.comb += [
            arrives.eq(at.valid & at.fold_last),
            leaves.eq(self.out.valid & self.out.ready),
            self.out.valid.eq(count != 0),
            self.out.payload.data.eq(held[0]),
            self.out.payload.first.eq(fresh),
            self.out.payload.last.eq(last_fold & (count == 1)),
            enable.eq(~arrives | (count == leaves)),
        ]
        last_rows = c.tokens - (c.folds - 1) * c.rows
        with m.If(arrives & enable):
            in_last = at.fold == c.folds - 1
            m.d.sync += [
                *(h.eq(Cat(bits)) for h, bits in zip(held, outputs, strict=True)),
                count.eq(Mux(in_last, last_rows, c.rows)),
                last_fold.eq(in_last),
                fresh.eq(at.opening & (at.fold == 0)),
            ]
        with m.Elif(leaves):
            m.d.sync += [
                *(a.eq(b) for a, b in itertools.pairwise(held)),
                count.eq(count - 1),
                fresh.eq(0),
            ]
