"""Q (K^T V) and the neurons behind it."""

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.hdl import Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for, ceil_log2

from hw.arith import add_tree, pipelined_tree
from hw.lif import LifCore
from hw.queue import OutputQueue
from hw.sdsa.config import SdsaConfig
from hw.sdsa.plan import ProductPlan

_MARKS = data.StructLayout(
    {
        "valid": 1,
        "opening": 1,  # it is of the first time step of an inference
        "begins_step": 1,
        "begins_token": 1,
        "ends_beat": 1,
        "first": 1,
        "last": 1,
    }
)
"""What goes with a word through the pipeline."""


class Products(wiring.Component):
    """Multiply each beat of Q with K^T V, some columns a clock, and let the neurons fire.

    A beat takes as many clocks as it has words of K^T V. Q is binary, so an element of the product
    is a sum of those elements of a column that Q selects. Behind it are as many neurons as columns;
    their state, one for each token and channel, lies in memory.

    Nothing stalls the pipeline: a beat is only begun with room in the queue behind it.

    Parameters
    ----------
    config : SdsaConfig
    layers : int, optional
        As `hw.sdsa.Sdsa` has it.

    Attributes
    ----------
    i : stream, in
        Q.
    group : Signal(range(groups)), in
        Place of the beat in its token.
    next_part : Signal(ceil_log2(parts)), out
        Of the word in the clock that follows.
    word : in
        Columns of K^T V: those of the part at hand.
    threshold : stream, in
        With variant 4.
    origin : in
        With `layers`: the first beat of the thresholds of the layer at hand.
    fault : Signal(), out
        A broken frame of thresholds is found.
    o : stream, out
    """

    def __init__(self, config: SdsaConfig, layers: int | None = None) -> None:
        self._config = config
        self._layers = layers
        plan = config.plan
        assert isinstance(plan, ProductPlan)
        self._plan = plan
        loaded = {}
        if config.variant == 4:
            loaded["threshold"] = In(config.stream("threshold").signature)
            if layers:
                loaded["origin"] = In(config.origins(layers))
        super().__init__(
            {
                "i": In(config.stream("q").signature),
                "group": In(range(max(config.groups, 2))),
                "next_part": Out(ceil_log2(plan.parts)),
                "word": In(plan.word_bits),
                "fault": Out(1),
                "o": Out(config.stream("out").signature),
            }
            | loaded
        )

    def elaborate(self, platform: object) -> Module:
        c, plan = self._config, self._plan
        m = Module()
        m.submodules.queue = queue = OutputQueue(c.channels_per_beat + 2, plan.queue_depth, 1)
        works = Signal()
        part = Signal.like(self.next_part)
        begins, ends = part == 0, part == plan.parts - 1
        m.d.comb += [
            works.eq(self.i.valid & (queue.room | ~begins)),
            self.i.ready.eq(works & ends),
            self.next_part.eq(Mux(works, Mux(ends, 0, part + 1), part)),
            queue.issued.eq(works & begins),
        ]
        m.d.sync += part.eq(self.next_part)

        # Where the word is; an inference may be cut short anywhere.
        now = Signal(_MARKS)
        after_last, was_opening = Signal(), Signal()  # as to the last word
        m.d.comb += [
            now.valid.eq(works),
            now.opening.eq(self.i.payload.first | (was_opening & ~after_last)),
            now.begins_step.eq(begins & (self.i.payload.first | after_last)),
            now.begins_token.eq(begins & (self.group == 0)),
            now.ends_beat.eq(ends),
            now.first.eq(self.i.payload.first),
            now.last.eq(self.i.payload.last),
        ]
        with m.If(works):
            m.d.sync += [
                was_opening.eq(now.opening), after_last.eq(ends & self.i.payload.last),
            ]  # fmt: skip
        marks = [now]
        for clock in range(plan.sum_clocks + 2):
            marks.append(Signal(_MARKS, name=f"marks{clock + 1}"))
            m.d.sync += marks[-1].eq(marks[-2])

        m.submodules.neurons = core = LifCore(
            c.neuron(c.tokens * c.channels, c.columns), ahead=2, sets=self._layers or 1
        )
        m.d.comb += core.current.as_value().eq(Cat(self._sums(m)))
        self._fire(m, core, marks[-4], marks[-2])
        if c.variant == 4:
            wiring.connect(m, wiring.flipped(self.threshold), core.threshold)
            m.d.comb += self.fault.eq(core.fault)

        # The spikes of a beat, the first part's lowest.
        spikes = Signal(c.columns)
        gathered = Signal((plan.parts - 1) * c.columns)
        m.d.sync += spikes.eq(core.fired)
        with m.If(marks[-1].valid):
            m.d.sync += gathered.eq(Cat(gathered, spikes)[c.columns :])
        m.d.comb += [
            queue.arrives.eq(marks[-1].valid & marks[-1].ends_beat),
            queue.word.eq(Cat(gathered, spikes, marks[-1].first, marks[-1].last)),
            self.o.valid.eq(queue.valid),
            Cat(self.o.payload.data, self.o.payload.first, self.o.payload.last).eq(queue.data),
            queue.ready.eq(self.o.ready),
        ]
        return m

    def _sums(self, m: Module) -> list[Value]:
        """Return the masked sums over the columns of a word, behind a register."""
        c = self._config
        word = Signal(data.ArrayLayout(c.sum_bits, self._plan.word_sums), reset_less=True)
        q = Signal(c.channels_per_beat, reset_less=True)
        m.d.sync += [word.as_value().eq(self.word), q.eq(self.i.payload.data.as_value())]
        sums = []
        for i in range(c.columns):
            column = [word[i * c.head_dim + d] for d in range(c.head_dim)]
            head = i * len(q) // (c.columns * c.head_dim)
            mask = q.word_select(head, c.head_dim)
            masked = [
                element & bit.replicate(c.sum_bits)
                for element, bit in zip(column, mask, strict=True)
            ]
            sums.append(self._sum(m, masked, f"column{i}"))
        return sums

    def _sum(self, m: Module, terms: list[Value], name: str) -> Value:
        """Return a sum whose top bit is set if it is that large, or that of a term."""
        c = self._config
        if c.reset != "hard" or c.sum_bits == bits_for(c.tokens):
            total = pipelined_tree(m, terms, add_tree, name)
            over: Value = Const(0, 1)
        else:
            total = pipelined_tree(m, [term[:-1] for term in terms], add_tree, name)
            over = pipelined_tree(
                m, [term[-1] for term in terms], lambda bits: Cat(bits).any(), f"{name}_over"
            )
        low = c.total_bits - 1
        return Cat(total[:low], total[low:].any() | over)

    def _fire(self, m: Module, core: LifCore, before: data.View, at: data.View) -> None:
        """Tell the neurons which of them are at hand, and which are next."""
        beat, setting = Signal.like(core.beat), Signal.like(core.setting)  # that are being read
        origin = self.origin if self._layers else 0
        m.d.comb += [
            core.moves.eq(at.valid),
            core.opening.eq(at.opening),
            core.upcoming.eq(Mux(before.begins_step, 0, beat + 1)),
            core.setting.eq(Mux(before.begins_token, origin, setting + 1)),
        ]
        with m.If(before.valid):
            m.d.sync += [beat.eq(core.upcoming), setting.eq(core.setting)]
        m.d.sync += core.beat.eq(beat)
