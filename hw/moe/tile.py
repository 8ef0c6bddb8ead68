"""A tile: tokens in, tokens to experts, answers in any order, merged tokens out."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.moe.config import MoeConfig
from hw.moe.expert import ExpertPort
from hw.moe.merge import Merge
from hw.moe.route import TOKEN_MARKS, Route
from hw.moe.scores import Scores
from hw.queue import Marks, PacketQueue


class Tile(wiring.Component):
    """Route tokens to experts, and merge what they answer with what other tiles have merged.

    The pipeline::

        tokens -+-> Scores -> Route (neurons, the best, capacity) -> decision -+-> Merge -> merged
                |                    |    ^                        |           |   ^  ^
                |              to_next    from_last                |    partial    |
                +-> beats wait for it -> (n, t), copied to those who got it -------+  |
                                                   |                                  |
                                            ExpertPort -> expert e -> answer e -------+

    Parameters
    ----------
    config : MoeConfig
        Of the whole router.
    number : int
        Of the tile, from 0.

    Attributes
    ----------
    tokens : stream, in
        Whole frames; those who share them take a beat together.
    opening, broken : Signal(), in
        The beat is of the first time step of an inference; the frame at hand is broken.
    weights, bias, answer0, ... : stream, in
        Those of its own experts.
    expert0, ..., merged, stored, mask, dropped : stream, out
        Those of its own experts; `merged` with what is in `partial`.
    partial : stream, in
        Behind the first tile: the sums of those before it.
    to_next, from_last : stream, out, in
        With `topk` and `kwta`: what experts are compared by, as `hw.moe.link.Link` has it.
    loaded : Signal(), out
    reads : Signal(), in
        With `readback`: all weights are loaded, and are put out.
    weights_fault, bias_fault : Signal(), out
        A broken frame is found.
    wrong : Signal(own experts), out
        An expert answers what it was not asked.
    """

    def __init__(self, config: MoeConfig, number: int) -> None:
        self._config = c = config
        self._number = number
        flow = {"in": In, "out": Out}
        link = {"to_next": Out(c.link_signature), "from_last": In(c.link_signature)}
        super().__init__(
            {s.name: flow[s.direction](s.signature) for s in c.tile_streams}
            | {
                "opening": In(1),
                "broken": In(1),
                "loaded": Out(1),
                "weights_fault": Out(1),
                "bias_fault": Out(1),
                "wrong": Out(c.own),
            }
            | ({"partial": In(c.stream("merged").signature)} if number else {})
            | (link if c.meets else {})
            | ({"reads": In(1)} if c.readback else {})
        )

    def elaborate(self, platform: object) -> Module:
        c, plan = self._config, self._config.plan
        m = Module()
        m.submodules.scores = scores = Scores(c)
        m.submodules.route = route = Route(c, self._number)
        m.submodules.merge = merge = Merge(c, adds=self._number > 0)
        wiring.connect(m, wiring.flipped(self.weights), scores.weights)
        wiring.connect(m, wiring.flipped(self.bias), route.bias)
        wiring.connect(m, merge.merged, wiring.flipped(self.merged))
        m.d.comb += [
            self.loaded.eq(scores.loaded),
            self.weights_fault.eq(scores.fault),
            self.bias_fault.eq(route.fault),
        ]
        if self._number:
            wiring.connect(m, wiring.flipped(self.partial), merge.partial)
        if c.meets:
            wiring.connect(m, route.to_next, wiring.flipped(self.to_next))
            wiring.connect(m, wiring.flipped(self.from_last), route.from_last)
        if c.readback:
            wiring.connect(m, scores.stored, wiring.flipped(self.stored))
            m.d.comb += scores.reads.eq(self.reads)
        if c.trace:
            wiring.connect(m, merge.mask, wiring.flipped(self.mask))
            wiring.connect(m, merge.dropped, wiring.flipped(self.dropped))

        # In.
        group = Signal(range(max(c.groups, 2)))
        begins = Signal(init=1)  # the first token of a time step
        at_last = group == c.groups - 1
        moves = self.tokens.valid & self.tokens.ready
        comes = moves & at_last
        beat = self.tokens.payload
        on_way = Signal(range(plan.held + 1))
        room = Signal(init=1)
        came, left = Signal(), Signal()
        m.d.comb += self.tokens.ready.eq(room & ~scores.busy)
        m.d.sync += [came.eq(comes), left.eq(merge.leaves), room.eq(on_way < c.window)]
        with m.If(came != left):
            m.d.sync += on_way.eq(on_way + Mux(came, 1, -1))
        with m.If(self.broken):
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

        m.submodules.waiting = waiting = PacketQueue(c.channels_per_beat, c.groups, plan.waiting)
        m.d.comb += [
            waiting.offer.eq(moves),
            waiting.write.eq(moves),
            waiting.word.eq(beat.data.as_value()),
            waiting.commit.eq(comes),
            waiting.undo.eq(self.broken),
        ]

        # What is known of a token goes with its scores and its decision.
        first = Signal()  # the token at hand is the first one of an inference
        with m.If(moves & (group == 0)):
            m.d.sync += first.eq(beat.first)
        marks = Signal(TOKEN_MARKS)
        m.d.comb += [
            marks.begins.eq(begins),
            marks.first.eq(beat.first if c.groups == 1 else first),
            marks.last.eq(beat.last),
        ]
        known = Cat(self.opening, marks)
        for clock in range(plan.score_clocks - 1):
            later = Signal.like(known, name=f"known{clock}")
            m.d.sync += later.eq(known)
            known = later
        m.d.comb += [
            route.to_done.eq(scores.to_done),
            route.scores.eq(scores.scores),
            Cat(route.opens, route.marks).eq(known),
            merge.write.eq(route.decided),
            merge.chosen.eq(route.chosen),
            merge.got.eq(route.got),
            merge.first.eq(route.mark.first),
            merge.last.eq(route.mark.last),
        ]
        self._dispatch(m, waiting, route, merge)
        return m

    def _dispatch(self, m: Module, waiting: PacketQueue, route: Route, merge: Merge) -> None:
        """Copy each token to those who got it."""
        c, plan = self._config, self._config.plan
        m.submodules.decisions = decisions = Marks(c.own + 2, plan.DECISIONS)
        m.d.comb += [
            decisions.write.eq(route.decided),
            decisions.word.eq(Cat(route.got, route.mark.first, route.mark.last)),
        ]
        got, is_first, is_last = Signal(c.own), Signal(), Signal()
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
        for e in range(c.own):
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
                self.wrong[e].eq(port.fault),
            ]
