"""From scores to who gets a token: neurons, the best of them, capacity."""

from amaranth import Cat, Const, Module, Mux, Signal, signed
from amaranth.hdl import Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from hw.arith import popcount
from hw.lif import LifCore, loaded_setting
from hw.moe.config import MoeConfig
from hw.turns import kept_in_turn

AHEAD = 2
"""Clocks by which the states of neurons are read ahead."""


class Route(wiring.Component):
    """Let the neurons of a token's experts charge, `lanes` a clock, and decide on it.

    Parameters
    ----------
    config : MoeConfig

    Attributes
    ----------
    bias : stream, in
    to_done : Signal(), in
    scores : in
        As `hw.moe.scores.Scores` has them.
    opens, begins : Signal(), in
        With `to_done`: the token is of the first time step of an inference; it is the first one
        of its time step.
    decided : Signal(), out
        `Plan.parts` + 3 clocks behind the scores; `chosen` and `got` are for this clock alone.
    chosen, got : Signal(experts), out
        Who should get the token, and who does, as far as the capacity goes.
    fault : Signal(), out
        A broken frame of biases is found.
    """

    def __init__(self, config: MoeConfig) -> None:
        self._config = config
        c = config
        super().__init__(
            {
                "bias": In(c.stream("bias").signature),
                "to_done": In(1),
                "scores": In(data.ArrayLayout(signed(c.score_bits), c.experts)),
                "opens": In(1),
                "begins": In(1),
                "decided": Out(1),
                "chosen": Out(c.experts),
                "got": Out(c.experts),
                "fault": Out(1),
            }
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
            upcoming.eq(Mux(self.to_done & self.begins, 0, Mux(active, place + 1, place))),
        ]
        with m.If(active):
            m.d.sync += [
                part.eq(upcoming_part), place.eq(upcoming),
                more.eq(upcoming_part != plan.parts - 1),
            ]  # fmt: skip
        held = Signal.like(self.scores)
        at_scores, opening, begins = Signal(), Signal(), Signal()
        opens, first = Signal(), Signal()  # of the token that is held
        m.d.sync += at_scores.eq(self.to_done)
        with m.If(self.to_done):
            m.d.sync += [opening.eq(self.opens), begins.eq(self.begins)]
        with m.If(at_scores):
            m.d.sync += [held.eq(self.scores), opens.eq(opening), first.eq(begins)]
        bias, fault = loaded_setting(m, c.stream("bias"), self.bias, 0, upcoming_part, AHEAD)
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
            Cat(held[p * plan.lanes + k] if p * plan.lanes + k < c.experts
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

        came, came_part = _later(m, moves, 1, "came"), _later(m, beat_part, 1, "came_part")
        fired = core.fired
        if c.routing == "mask":
            gathered = Signal(plan.parts * plan.lanes)
            for p in range(plan.parts):
                with m.If(came & (came_part == p)):
                    m.d.sync += gathered.word_select(p, plan.lanes).eq(fired)
            chosen = gathered[: c.experts]
        elif c.routing == "topk":
            chosen = Cat(self._best(m, came, came_part, core.charged))
        else:
            counts = self._counts(m, fired, upcoming, came, _later(m, opens, 2, "came_opens"))
            chosen = Cat(self._best(m, came, came_part, counts))
        last = came & (came_part == plan.parts - 1)
        m.d.sync += self.decided.eq(last)
        m.d.comb += [self.chosen.eq(chosen), self.got.eq(chosen)]
        if c.drops:
            # `first` is of the token that is held, which may be the next one by now.
            full = self._full(m, _later(m, first, 3, "first"), self.chosen)
            m.d.comb += self.got.eq(chosen & ~full)
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

    def _best(self, m: Module, came: Value, part: Value, values: Value) -> list[Value]:
        """Return who is among the k greatest of a token, from the clock behind its last part on.

        Each value is compared with those that came before it: of two, one moves back in rank. Of
        equals that is the later one.
        """
        c, lanes = self._config, self._config.plan.lanes
        ranks = [Signal(range(max(c.experts, 2)), name=f"rank{e}") for e in range(c.experts)]
        stored = [Signal.like(values[0], name=f"value{e}") for e in range(c.experts)]
        parts = -(-c.experts // lanes)
        # Idle lanes of the last part move nobody back.
        live = [
            Const(1) if (parts - 1) * lanes + lane < c.experts else part != parts - 1
            for lane in range(lanes)
        ]
        back: list[list[Value]] = [[] for _ in ranks]
        new: list[list[Value]] = [[] for _ in range(lanes)]
        for lane in range(lanes):
            for e in range((parts - 1) * lanes):
                before = part > e // lanes
                keeps = Signal(name=f"keeps{e}_{lane}")
                m.d.comb += keeps.eq(stored[e] >= values[lane])
                new[lane].append(before & keeps)
                back[e].append(before & ~keeps & live[lane])
            for other in range(lane):
                keeps = Signal(name=f"lane{other}_keeps{lane}")
                m.d.comb += keeps.eq(values[other] >= values[lane])
                new[lane].append(keeps)
                new[other].append(~keeps & live[lane])
        for e in range(c.experts):
            with m.If(came):
                with m.If(part == e // lanes):
                    m.d.sync += [
                        stored[e].eq(values[e % lanes]),
                        ranks[e].eq(popcount(new[e % lanes])),
                    ]
                with m.Elif(part > e // lanes):
                    m.d.sync += ranks[e].eq(ranks[e] + popcount(back[e]))
        best = [rank < c.k for rank in ranks]
        if c.routing == "kwta" and not c.fill:
            best = [one & (value != 0) for one, value in zip(best, stored, strict=True)]
        return best

    def _full(self, m: Module, begins: Value, chosen: Value) -> Value:
        """Count the tokens that experts got in a time step; return whose capacity is used up."""
        c = self._config
        full = Signal(c.experts)
        for e in range(c.experts):
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


def _pick(words: list[Value], index: Value) -> Value:
    """Return one of some words."""
    picked = words[0]
    for i, word in enumerate(words[1:], 1):
        picked = Mux(index == i, word, picked)
    return picked
