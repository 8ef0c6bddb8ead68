"""The tile: tokens in, tokens to experts, answers in any order, merged tokens out."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import wiring

from hw.moe.config import MoeConfig
from hw.moe.expert import ExpertPort
from hw.moe.merge import Merge
from hw.moe.route import Route
from hw.moe.scores import Scores
from hw.queue import Marks, PacketQueue
from hw.stream import FaultCounter, FrameGuard, members


class Moe(wiring.Component):
    """Route the tokens of a time step to experts, and merge what they answer.

    The pipeline::

        tokens -+-> Scores -> Route (neurons, the best, capacity) -> decision -+-> Merge -> merged
                |                                                |             |     ^
                +-> beats wait for it -> (n, t), copied to those who got it ---+     |
                                                   |                                 |
                                            ExpertPort -> expert e -> answer e ------+

    A token is accepted while fewer than `window` are on their way, and every queue behind has room
    for all of these. So nobody waits for an expert before the window is full, nothing is lost, and
    there is no deadlock: what an accepted token needs is there when it comes, each expert's queue
    drains as fast as the expert takes its tokens, and an answer can always come in. If each expert
    takes and answers what it is offered, the oldest token is merged at last, then the next.

    For a token every ``groups`` clocks for ever, an expert may take as long as
    ``window * groups`` less what the tile takes itself (`Plan.answer_clocks`).

    Sources: SEMM (NeurIPS 2024) for `routing=mask`; Spiking Transformer Hardware Accelerators in 3D
    Integration (arXiv 2411.07397, 2412.05540) for `topk` and `kwta`.

    Parameters
    ----------
    config : MoeConfig

    Attributes
    ----------
    tokens : stream, in
    weights, bias : stream, in
    answer0, answer1, ... : stream, in
        What an expert answers, with the tag of the token.
    expert0, expert1, ... : stream, out
        The tokens that an expert gets; `last` is that of a token, `first` that of the first token
        that it gets of an inference, the tag the index and above it the time step.
    merged : stream, out
    stored : stream, out
        With `readback`: the weights, behind each load.
    mask, dropped : stream, out
        With `trace`.
    faults : Signal(8), out
        Broken frames, and answers that were not due, so far; saturating.
    """

    def __init__(self, config: MoeConfig) -> None:
        self.config = config
        super().__init__(members(config))

    def elaborate(self, platform: object) -> Module:
        c, plan = self.config, self.config.plan
        m = Module()
        m.submodules.guard = guard = FrameGuard(c.stream("tokens"))
        m.submodules.scores = scores = Scores(c)
        m.submodules.route = route = Route(c)
        m.submodules.merge = merge = Merge(c)
        wiring.connect(m, wiring.flipped(self.tokens), guard.i)
        wiring.connect(m, wiring.flipped(self.weights), scores.weights)
        wiring.connect(m, wiring.flipped(self.bias), route.bias)
        wiring.connect(m, merge.merged, wiring.flipped(self.merged))
        if c.readback:
            wiring.connect(m, scores.stored, wiring.flipped(self.stored))
        if c.trace:
            wiring.connect(m, merge.mask, wiring.flipped(self.mask))
            wiring.connect(m, merge.dropped, wiring.flipped(self.dropped))

        # In.
        group = Signal(range(max(c.groups, 2)))
        begins = Signal(init=1)  # the first token of a time step
        at_last = group == c.groups - 1
        moves = guard.o.valid & guard.o.ready
        comes = moves & at_last
        beat = guard.o.payload
        on_way = Signal(range(plan.held + 1))
        room = Signal(init=1)
        m.d.comb += guard.o.ready.eq(room & ~scores.busy)
        m.d.sync += [on_way.eq(on_way + comes - merge.leaves), room.eq(on_way < c.window)]
        with m.If(guard.broken):
            m.d.sync += [group.eq(0), begins.eq(1)]
        with m.Elif(moves):
            m.d.sync += group.eq(Mux(at_last, 0, group + 1))
            with m.If(at_last):
                m.d.sync += begins.eq(beat.last)
        m.d.comb += [
            scores.valid.eq(moves),
            scores.data.eq(beat.data.as_value()),
            scores.group.eq(group),
            scores.last.eq(at_last),
        ]

        m.submodules.waiting = waiting = PacketQueue(
            c.channels_per_beat, c.groups, -(-plan.queued // c.groups) + 1
        )
        m.d.comb += [
            waiting.offer.eq(moves),
            waiting.write.eq(moves),
            waiting.word.eq(beat.data.as_value()),
            waiting.commit.eq(comes),
            waiting.undo.eq(guard.broken),
        ]

        # What is known of a token goes with its scores and its decision.
        first = Signal()  # the token at hand is the first one of an inference
        with m.If(moves & (group == 0)):
            m.d.sync += first.eq(beat.first)
        marks = Cat(guard.opening, begins, beat.first if c.groups == 1 else first, beat.last)
        for clock in range(plan.decision_clocks):
            if clock == plan.score_clocks - 1:
                m.d.comb += [route.opens.eq(marks[0]), route.begins.eq(marks[1])]
            later = Signal.like(marks, name=f"marks{clock}")
            m.d.sync += later.eq(marks)
            marks = later
        is_first, is_last = marks[2], marks[3]
        m.d.comb += [
            route.to_done.eq(scores.to_done),
            route.scores.eq(scores.scores),
            merge.write.eq(route.decided),
            merge.chosen.eq(route.chosen),
            merge.got.eq(route.got),
            merge.first.eq(is_first),
            merge.last.eq(is_last),
        ]
        found = [guard.fault, scores.fault, *route.fault]
        found += self._dispatch(m, waiting, route, merge, is_first, is_last)
        m.submodules.fault_counter = faults = FaultCounter(len(found))
        m.d.comb += [faults.fault.eq(Cat(found)), self.faults.eq(faults.count)]
        return m

    def _dispatch(
        self, m: Module, waiting: PacketQueue, route: Route, merge: Merge, first: Signal,
        last: Signal,
    ) -> list[Signal]:  # fmt: skip
        """Copy each token to those who got it; return what experts do wrong."""
        c, plan = self.config, self.config.plan
        m.submodules.decisions = decisions = Marks(c.experts + 2, plan.DECISIONS)
        m.d.comb += [
            decisions.write.eq(route.decided),
            decisions.word.eq(Cat(route.got, first, last)),
        ]
        got, is_first, is_last = Signal(c.experts), Signal(), Signal()
        group = Signal(range(max(c.groups, 2)))
        at_last = group == c.groups - 1
        goes = decisions.waiting & waiting.valid
        token, step = Signal(c.token_bits), Signal(c.tag_bits - c.token_bits)
        after = Signal()  # the token is behind the first one of its time step
        number, step_number = Signal.like(token), Signal.like(step)
        m.d.comb += [
            Cat(got, is_first, is_last).eq(decisions.oldest),
            waiting.ready.eq(decisions.waiting),
            decisions.pop.eq(goes & at_last),
            number.eq(Mux(after & ~is_first, token, 0)),
            step_number.eq(Mux(is_first, 0, step)),
        ]
        with m.If(goes):
            m.d.sync += group.eq(Mux(at_last, 0, group + 1))
        with m.If(goes & at_last):
            m.d.sync += [
                token.eq(number + 1), after.eq(~is_last), step.eq(step_number + is_last),
            ]  # fmt: skip
        faults = []
        for e in range(c.experts):
            m.submodules[f"port{e}"] = port = ExpertPort(c)
            wiring.connect(m, port.expert, wiring.flipped(getattr(self, f"expert{e}")))
            wiring.connect(m, wiring.flipped(getattr(self, f"answer{e}")), port.answer)
            fresh = Signal(init=1, name=f"fresh{e}")  # it got no token of the inference yet
            opens = fresh | is_first
            with m.If(goes & at_last):
                m.d.sync += fresh.eq(opens & ~got[e])
            m.d.comb += [
                port.write.eq(goes & got[e]),
                port.data.eq(waiting.data),
                port.tag.eq(Cat(number, step_number)),
                port.first.eq(opens & (group == 0)),
                port.last.eq(at_last),
                merge.valid[e].eq(port.valid),
                merge.data[e].eq(port.merged),
                port.ready.eq(merge.ready[e]),
            ]
            faults.append(port.fault)
        return faults
