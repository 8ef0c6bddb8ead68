"""The count encoder with a group of keys kept, and all queries passing by."""

from collections.abc import Mapping

from amaranth import Cat, Const, Module, Signal
from amaranth.hdl import Value
from amaranth.lib import data, memory
from amaranth.utils import ceil_log2

from hw.arith import pipelined_counts
from hw.attention.config import AttentionConfig
from hw.attention.count import CountAttention, Stage
from hw.attention.draws import Source
from hw.attention.plan import COUNT_READ_CLOCKS, READ_CLOCKS, HeldPlan
from hw.attention.starts import Starts
from hw.attributes import BLOCK, NO_COLLISION
from hw.blocks import BlockBuffer
from hw.buffer import StepBuffer, TokenBuffer
from hw.delay import delayed


class HeldAttention(CountAttention):
    """The count encoder in passes: `columns` keys and values are kept while all queries pass.

    A beat of queries a clock. Keys and values are in registers beside the adders that use them, and
    Q and the scores go from hop to hop, 8 keys or channels a clock, as in a systolic array: no
    wire goes far, and none to many places. What is read in a clock is one beat of Q.

    With several groups of keys there are as many passes, Q is read again in each, and output counts
    wait in block RAM for the next one (``ceil_log2(tokens) + 1`` bits each). They join where a
    count begins; there the random number is 0 in later passes, and in the first one what was read
    is, so the OR of both is taken into the first adder.

    Keeping K and V in block RAM, and reading `columns` of each in a clock, was built first: 32
    columns at N = dK = 64 are 130 block RAMs, whose 4096 bits a clock come from all over the
    device: it did not route in 12 minutes, and with 16 columns reached 118 MHz.

    Parameters
    ----------
    config : AttentionConfig
    """

    plan: HeldPlan

    def __init__(self, config: AttentionConfig) -> None:
        super().__init__(config, HeldPlan(config))

    def _buffers(self) -> dict[str, StepBuffer]:
        plan = self.plan
        self._keys, self._values = (BlockBuffer(plan.blocks(name)) for name in "kv")
        return {"q": TokenBuffer(plan.queries()), "k": self._keys, "v": self._values}

    def _place(
        self, m: Module, go: Signal, inner: Signal, outer: Signal, inner_end: Signal,
        outer_last: Signal,
    ) -> dict[str, Value]:  # fmt: skip
        return {
            "valid": Const(1), "fold": inner, "group": outer,
            "first": outer == 0, "last": outer_last,
        }  # fmt: skip

    def _feed(
        self, m: Module, stages: list[Stage], buffers: Mapping[str, StepBuffer], turns: Value
    ) -> None:
        q = buffers["q"]
        reads = stages[self.plan.key_stage - READ_CLOCKS]
        at_first = Signal(init=1)  # queries of a pass
        with m.If(stages[0].valid):
            m.d.sync += at_first.eq(turns)
        m.d.comb += [
            q.read.eq(reads.valid),
            q.address.eq(reads.fold),
            *(blocks.begin.eq(stages[0].valid & at_first) for blocks in (self._keys, self._values)),
        ]

    @property
    def _live(self) -> list[int]:
        """The places of a group that are not idle in all groups."""
        groups = range(self.config.groups)
        return [
            place
            for place in range(self._keys.shape.places)
            if any(self._token(group, place) is not None for group in groups)
        ]

    def _token(self, group: int, place: int) -> int | None:
        """Return the token at a place of a group; None if it is idle."""
        token = self._keys.shape.token(group, place)
        return token if 0 <= token < self.config.tokens else None

    def _scores(
        self, m: Module, stages: list[Stage], buffers: Mapping[str, StepBuffer], source: Source
    ) -> list[list[list[Value]]]:
        c, plan = self.config, self.plan
        shape = self._keys.shape
        late = plan.start_stage - plan.key_stage
        live = self._live
        draws = self._draws(m, stages, plan.start_stage - 1, "score", source, c.head_dim)
        _, skews = c.skews("score")
        scores: list[list[list[Value]]] = [
            [[Const(0)] * shape.places for _ in range(c.heads)] for _ in range(c.rows)
        ]
        queries: list[Value] = [buffers["q"].group[row] for row in range(c.rows)]
        for hop, part in enumerate(shape.hops):
            if hop:
                queries = [delayed(m, q, 1, f"q_r{r}_hop{hop}") for r, q in enumerate(queries)]
                draws = _on(m, draws, f"score_draw_hop{hop}")
            tokens = {place: [self._token(g, place) for g in range(c.groups)] for place in part}
            places = [place for place in part if place in live]
            counted = plan.key_stage + plan.score_clocks + hop
            rest = plan.value_stage - counted
            for row in range(c.rows):
                before = stages[counted - 1]
                allowed = [self._allowed(m, before, row, i, tokens[i]) for i in places]
                for head in range(c.heads):
                    name = f"score_r{row}_h{head}_hop{hop}"
                    own = slice(head * c.head_dim, (head + 1) * c.head_dim)
                    starts = Starts(
                        m, draws[row][head], c.head_dim, plan.score_clocks - late, f"{name}_start",
                        turn=stages[plan.start_stage - 1 + hop].group,
                    )  # fmt: skip
                    moves = [[skews[head][token or 0] for token in tokens[i]] for i in places]
                    counts = pipelined_counts(
                        m,
                        [list(queries[row][own] & self._keys.group[i][own]) for i in places],
                        [starts.skewed(x, f"k{i}") for i, x in zip(places, moves, strict=True)],
                        f"{name}_k",
                        late=late,
                        per_clock=plan.layers,
                        longest=plan.longest,
                    )
                    for place, count, seen in zip(places, counts, allowed, strict=True):
                        fires = count[-1] & seen
                        scores[row][head][place] = delayed(m, fires, rest, f"{name}_bit{place}")
        return scores

    def _allowed(
        self, m: Module, at: Stage, row: int, place: int, tokens: list[int | None]
    ) -> Value:
        """Return whether a score counts, a clock later: there is a key, and it may be seen."""
        c = self.config
        if not c.causal and None not in tokens:
            return Const(1)
        allowed = Signal(name=f"allowed_r{row}_k{place}", reset_less=True)
        query = at.fold * c.rows + row
        seen = [
            (at.group == group) & (token <= query if c.causal else 1)
            for group, token in enumerate(tokens)
            if token is not None
        ]
        m.d.sync += allowed.eq(Cat(seen).any())
        return allowed

    def _outputs(
        self, m: Module, stages: list[Stage], v: StepBuffer, source: Source,
        scores: list[list[list[Value]]],
    ) -> list[list[Value]]:  # fmt: skip
        c, plan = self.config, self.plan
        draws = self._draws(m, stages, plan.value_stage - 1, "output", source, c.tokens)
        _, skews = c.skews("output")
        hops, live = self._values.shape.hops, self._live
        outputs: list[list[Value]] = [[] for _ in range(c.rows)]
        seen = [[Cat(bits) for bits in by_head] for by_head in scores]
        for hop, part in enumerate(hops):
            if hop:
                seen = _on(m, seen, f"scores_hop{hop}")
                draws = _on(m, draws, f"output_draw_hop{hop}")
            at = plan.value_stage + hop
            store = _Counts(c, len(part), f"hop{hop}")
            if c.groups > 1:
                store.read(m, stages[at - COUNT_READ_CLOCKS], stages[at - 1], plan.output_clocks)
            for row in range(c.rows):
                name = f"output_r{row}_hop{hop}"
                starts = [
                    Starts(
                        m, draw, c.tokens, plan.output_clocks, f"{name}_start_h{head}",
                        gate=stages[at - 1].first if c.groups > 1 else None,
                    )
                    for head, draw in enumerate(draws[row])
                ]  # fmt: skip
                hits, begin = [], []
                for place, d in enumerate(part):
                    head, channel = divmod(d, c.head_dim)
                    hits.append([seen[row][head][i] & v.group[i][d] for i in live])
                    start = starts[head].skewed((skews[head][channel],), f"d{d}")
                    begin.append(store.joined(start, row, place))
                counts = pipelined_counts(
                    m, hits, begin, f"{name}_d", per_clock=plan.layers, longest=plan.longest
                )
                for place, count in enumerate(counts):
                    fires = store.fires(count, row, place, plan.output_clocks)
                    outputs[row].append(
                        delayed(m, fires, len(hops) - 1 - hop, f"{name}_bit{place}")
                    )
            if c.groups > 1:
                store.write(m, stages[at + plan.output_clocks + 1])
        return outputs


def _on(m: Module, values: list[list[Value]], name: str) -> list[list[Value]]:
    """Return values [row][head] on the next hop, a clock later."""
    return [
        [delayed(m, value, 1, f"{name}_r{row}_h{head}") for head, value in enumerate(by_head)]
        for row, by_head in enumerate(values)
    ]


class _Counts:
    """The output counts of some channels, which wait for the next group of keys.

    Parameters
    ----------
    config : AttentionConfig
    channels : int
    name : str
    """

    def __init__(self, config: AttentionConfig, channels: int, name: str) -> None:
        self._config = config
        self._name = name
        self._bits = ceil_log2(config.tokens)
        self._word = data.ArrayLayout(data.ArrayLayout(self._bits + 1, channels), config.rows)
        self._after = Signal(self._word, name=f"{name}_counts", reset_less=True)
        self._before: list[data.View] = []
        self._kept: list[Value] = []

    def read(self, m: Module, at: Stage, later: Stage, clocks: int) -> None:
        """Fetch counts at a stage; they are there, 0 in the first pass, a clock behind `later`."""
        m.submodules[f"{self._name}_memory"] = store = memory.Memory(
            shape=self._word, depth=self._config.folds, init=[], attrs=NO_COLLISION | BLOCK
        )
        self._port, port = store.write_port(), store.read_port()
        word = port.data.as_value()
        fetched = Signal(len(word), name=f"{self._name}_fetched", reset_less=True)
        before = Signal(self._word, name=f"{self._name}_before", reset_less=True)
        m.d.comb += port.addr.eq(at.fold)
        m.d.sync += [fetched.eq(word), before.eq(fetched)]
        with m.If(later.first):
            m.d.sync += before.eq(0)
        self._before = [
            data.View(self._word, delayed(m, before.as_value(), i, f"{self._name}_before"))
            for i in range(clocks + 1)
        ]

    def joined(self, starts: list[Value], row: int, place: int) -> list[Value]:
        """Return where a count starts in each clock, with what was counted before."""
        if not self._before:
            return starts
        pairs = zip(starts, self._before, strict=False)
        return [start | before[row][place][: self._bits] for start, before in pairs]

    def fires(self, count: Value, row: int, place: int, clocks: int) -> Value:
        """Return whether a count is above its random number; keep it."""
        if not self._before:
            return count[-1]
        fires = count[-1] | self._before[clocks][row][place][-1]
        self._kept.append(count[:-1])
        self._kept.append(fires)
        return fires

    def write(self, m: Module, at: Stage) -> None:
        """Store what was counted, a clock behind the counts."""
        m.d.sync += self._after.as_value().eq(Cat(self._kept))
        m.d.comb += [
            self._port.addr.eq(at.fold),
            self._port.data.eq(self._after),
            self._port.en.eq(at.valid),
        ]
