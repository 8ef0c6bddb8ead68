"""From scores to who gets a token: neurons, the best of them, capacity."""

from amaranth import Cat, Const, Module, Mux, Signal, signed
from amaranth.hdl import Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from hw.arith import popcount
from hw.lif import LifCore, loaded_setting
from hw.moe.config import MoeConfig
from hw.moe.link import Link
from hw.turns import kept_in_turn

TOKEN_MARKS = data.StructLayout({"begins": 1, "first": 1, "last": 1})
"""What is known of a token: it begins a time step; it is the first one of an inference; it is the
last one of a time step."""

AHEAD = 2
"""Clocks by which the states of neurons are read ahead."""


class Route(wiring.Component):
    """Let the neurons of a token's experts charge, `lanes` a clock, and decide on it.

    Parameters
    ----------
    config : MoeConfig
    number : int
        Of the tile, from 0.

    Attributes
    ----------
    bias : stream, in
    to_done : Signal(), in
    scores : in
        As `hw.moe.scores.Scores` has them.
    opens : Signal(), in
    marks : TOKEN_MARKS, in
        With `to_done`: the token is of the first time step of an inference; and what else is known
        of it.
    to_next, from_last : stream, out, in
        Where tiles meet: the link to the next one, and that from the one before.
    decided : Signal(), out
        `Plan.decision_clocks` behind the last beat of the token at the soonest; what follows is for
        this clock alone.
    mark : TOKEN_MARKS, out
    chosen, got : Signal(experts), out
        Who should get the token, and who does, as far as the capacity goes.
    fault : Signal(), out
        A broken frame of biases is found.
    """

    def __init__(self, config: MoeConfig, number: int) -> None:
        self._config = config
        self._number = number
        c = config
        link = {"to_next": Out(c.link_signature), "from_last": In(c.link_signature)}
        super().__init__(
            {
                "bias": In(c.stream("bias", c.own).signature),
                "to_done": In(1),
                "scores": In(data.ArrayLayout(signed(c.score_bits), c.own)),
                "opens": In(1),
                "marks": In(TOKEN_MARKS),
                "decided": Out(1),
                "mark": Out(TOKEN_MARKS),
                "chosen": Out(c.own),
                "got": Out(c.own),
                "fault": Out(1),
            }
            | (link if c.meets else {})
        )

    def elaborate(self, platform: object) -> Module:
        c, plan = self._config, self._config.plan
        neuron = c.neurons
        m = Module()
        m.submodules.core = core = LifCore(neuron, AHEAD, charged=c.routing == "topk", late=True)

        # The neurons of a token come one after another, those of the next one behind them.
        part = Signal(range(max(plan.parts, 2)))
        place = Signal(range(max(neuron.beats, 2)))
        more = Signal()  # parts of the token are still to come
        active = self.to_done | more
        upcoming, upcoming_part = Signal.like(place), Signal.like(part)
        m.d.comb += [
            upcoming_part.eq(Mux(self.to_done, 0, part + 1)),
            upcoming.eq(Mux(self.to_done & self.marks.begins, 0, Mux(active, place + 1, place))),
        ]
        with m.If(active):
            m.d.sync += [
                part.eq(upcoming_part), place.eq(upcoming),
                more.eq(upcoming_part != plan.parts - 1),
            ]  # fmt: skip
        held = Signal.like(self.scores)
        at_scores, opening, marks = Signal(), Signal(), Signal(TOKEN_MARKS)
        opens, held_marks = Signal(), Signal(TOKEN_MARKS)  # of the token that is held
        m.d.sync += at_scores.eq(self.to_done)
        with m.If(self.to_done):
            m.d.sync += [opening.eq(self.opens), marks.eq(self.marks)]
        with m.If(at_scores):
            m.d.sync += [held.eq(self.scores), opens.eq(opening), held_marks.eq(marks)]
        bias, fault = loaded_setting(m, c.stream("bias", c.own), self.bias, 0, upcoming_part, AHEAD)
        m.d.comb += self.fault.eq(fault)
        picked = _later(m, upcoming_part, AHEAD, "picked")
        upcoming = _later(m, upcoming, 1, "upcoming")
        moves = _later(m, active, AHEAD + 1, "moves")
        beat = _later(m, upcoming, AHEAD, "beat")
        beat_part = _later(m, picked, 1, "beat_part")
        m.d.comb += [
            core.moves.eq(moves),
            core.opening.eq(_later(m, opens, 1, "opens")),
            core.beat.eq(beat),
            core.upcoming.eq(upcoming),
        ]
        currents = Signal.like(core.current)
        parts = [
            Cat(held[p * plan.lanes + k] if p * plan.lanes + k < c.own
                else Const(0, signed(c.score_bits)) for k in range(plan.lanes))
            for p in range(plan.parts)
        ]  # fmt: skip
        scores = Signal(data.ArrayLayout(signed(c.score_bits), plan.lanes))
        m.d.comb += scores.as_value().eq(_pick(parts, picked))
        m.d.sync += [
            current.eq(score + own)
            for current, score, own in zip(currents, scores, bias, strict=True)
        ]
        m.d.comb += core.current.eq(currents)

        came, slot = _later(m, moves, 1, "came"), _later(m, beat_part, 1, "came_part")
        came_marks = _later(m, held_marks.as_value(), 2, "came_marks")
        fired = core.fired
        values = None  # that experts are compared by
        if c.routing == "topk":
            values = core.charged
        elif c.routing == "kwta":
            values = self._counts(m, fired, upcoming, came, _later(m, opens, 2, "came_opens"))
        if c.meets:
            m.submodules.link = link = Link(c, len(came_marks))
            wiring.connect(m, link.to_next, wiring.flipped(self.to_next))
            wiring.connect(m, wiring.flipped(self.from_last), link.from_last)
            m.d.comb += [
                link.write.eq(came), link.values.eq(values), link.marks.eq(came_marks),
            ]  # fmt: skip
            came, slot, values, came_marks = link.came, link.slot, link.value, link.mark
        if values is None:
            gathered = Signal(plan.parts * plan.lanes)
            for p in range(plan.parts):
                with m.If(came & (slot == p)):
                    m.d.sync += gathered.word_select(p, plan.lanes).eq(fired)
            chosen = gathered[: c.own]
        else:
            chosen = Cat(self._best(m, came, slot, values))
        m.d.sync += [
            self.decided.eq(came & (slot == plan.slots - 1)),
            self.mark.as_value().eq(came_marks),
        ]
        m.d.comb += [self.chosen.eq(chosen), self.got.eq(chosen)]
        if c.drops:
            m.d.comb += self.got.eq(chosen & ~self._full(m, self.mark.begins, self.chosen))
        return m

    def _counts(self, m: Module, fired: Value, upcoming: Value, came: Value, opens: Value) -> Value:
        """Return the spikes so far of the neurons that came, this one included."""
        c, plan = self._config, self._config.plan
        shape = data.ArrayLayout(bits_for(c.timesteps), plan.lanes)
        read, place = _later(m, upcoming, 1, "count_read"), _later(m, upcoming, 3, "count_place")
        before, after = kept_in_turn(m, "counts", shape, c.neurons.beats, came, place, read, AHEAD)
        for lane in range(plan.lanes):
            m.d.comb += after[lane].eq(Mux(opens, 0, before[lane]) + fired[lane])
        return after

    def _best(self, m: Module, came: Value, slot: Value, values: Value) -> list[Value]:
        """Return who is among the k greatest of a token, from the clock behind its last slot on.

        Each value is compared with those that came before it: of two, one moves back in rank. Of
        equals that is the later one. The values of other tiles only move back a tile's own.
        """
        c, plan, lanes = self._config, self._config.plan, self._config.plan.lanes
        ranks = [Signal(range(max(c.experts, 2)), name=f"rank{e}") for e in range(c.own)]
        stored = [Signal.like(values[0], name=f"value{e}") for e in range(c.own)]
        # Idle lanes of the last part move nobody back.
        live = [
            Const(1) if (plan.parts - 1) * lanes + lane < c.own else slot != plan.parts - 1
            for lane in range(lanes)
        ]
        # Of equals in other tiles, those with lower numbers come first.
        lower = Signal()
        m.d.comb += lower.eq((slot >= plan.parts) & (slot < (self._number + 1) * plan.parts))
        back: list[list[Value]] = [[] for _ in ranks]
        new: list[list[Value]] = [[] for _ in range(lanes)]
        for lane in range(lanes):
            for e in range(c.own if c.meets else (plan.parts - 1) * lanes):
                before = slot > e // lanes
                keeps = Signal(name=f"keeps{e}_{lane}")
                m.d.comb += keeps.eq(
                    _with_bit(stored[e], Const(0)) >= _with_bit(values[lane], lower)
                    if c.meets
                    else stored[e] >= values[lane]
                )
                new[lane].append(before & keeps)
                back[e].append(before & ~keeps & live[lane])
            for other in range(lane):
                keeps = Signal(name=f"lane{other}_keeps{lane}")
                m.d.comb += keeps.eq(values[other] >= values[lane])
                new[lane].append(keeps)
                new[other].append(~keeps & live[lane])
        for e in range(c.own):
            with m.If(came):
                with m.If(slot == e // lanes):
                    m.d.sync += [
                        stored[e].eq(values[e % lanes]),
                        ranks[e].eq(popcount(new[e % lanes])),
                    ]
                with m.Elif(slot > e // lanes):
                    m.d.sync += ranks[e].eq(ranks[e] + popcount(back[e]))
        best = [rank < c.k for rank in ranks]
        if c.routing == "kwta" and not c.fill:
            best = [one & (value != 0) for one, value in zip(best, stored, strict=True)]
        return best

    def _full(self, m: Module, begins: Value, chosen: Value) -> Value:
        """Count the tokens that experts got in a time step; return whose capacity is used up."""
        c = self._config
        full = Signal(c.own)
        for e in range(c.own):
            count = Signal(range(c.capacity + 1), name=f"count{e}")
            before = Mux(begins, 0, count)
            m.d.comb += full[e].eq(before == c.capacity)
            with m.If(self.decided):
                m.d.sync += count.eq(before + (chosen[e] & ~full[e]))
        return full


def _later(m: Module, value: Value, clocks: int, name: str) -> Value:
    """Return a value some clocks later."""
    for clock in range(clocks):
        register = Signal.like(value, name=f"{name}{clock}")
        m.d.sync += register.eq(value)
        value = register
    return value


def _with_bit(value: Value, bit: Value) -> Value:
    """Return a value with one more bit below."""
    return Cat(bit, value).as_signed() if value.shape().signed else Cat(bit, value)


def _pick(words: list[Value], index: Value) -> Value:
    """Return one of some words."""
    picked = words[0]
    for i, word in enumerate(words[1:], 1):
        picked = Mux(index == i, word, picked)
    return picked
