"""The port to an expert: what it is given, and whether it answers that."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.moe.config import MoeConfig
from hw.queue import PacketQueue


class ExpertPort(wiring.Component):
    """Keep an expert's tokens until it takes them, and its answers until they are merged.

    There is room in all queues for as many tokens as may be on their way (`Plan.held`), so nothing
    that goes on here ever makes anybody else wait. An expert answers in the order in which it was
    given tokens. An answer with another tag than is due, or with none due, is dropped and counted;
    so is one of a wrong length, and the right one may still follow.

    Parameters
    ----------
    config : MoeConfig

    Attributes
    ----------
    write : Signal(), in
        A beat of a token for this expert.
    data, tag, last, first : in
        It; `first` is the mark of the first one of an inference.
    expert : stream, out
    answer : stream, in
    valid, merged, ready : out, out, in
        Beats of the answers, in order.
    fault : Signal(), out
        An answer is dropped.
    """

    def __init__(self, config: MoeConfig) -> None:
        self._config = config
        super().__init__(
            {
                "write": In(1),
                "data": In(config.channels_per_beat),
                "tag": In(config.tag_bits),
                "last": In(1),
                "first": In(1),
                "expert": Out(config.stream("expert0").signature),
                "answer": In(config.stream("answer0").signature),
                "valid": Out(1),
                "merged": Out(config.channels_per_beat),
                "ready": In(1),
                "fault": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        c, plan = self._config, self._config.plan
        m = Module()
        word = Cat(self.data, self.last, self.first, self.tag)
        m.submodules.tokens = tokens = PacketQueue(len(word), 1, plan.held * c.groups)
        m.submodules.due = due = PacketQueue(
            c.tag_bits, 1, plan.held, paced=c.groups > 1, near=True
        )
        m.submodules.answers = answers = PacketQueue(c.channels_per_beat, c.groups, plan.held + 1)
        m.d.comb += [
            tokens.offer.eq(self.write), tokens.write.eq(self.write),
            tokens.commit.eq(self.write), tokens.word.eq(word),
        ]  # fmt: skip

        # Out.
        o = self.expert
        starts = Signal(init=1)  # the beat on `o` is the first one of a token
        sent = o.valid & o.ready
        goes = Signal()  # it may go, as far as the capacity is concerned
        m.d.comb += [
            o.valid.eq(tokens.valid & goes),
            tokens.ready.eq(o.ready & goes),
            Cat(o.payload.data.as_value(), o.payload.last, o.payload.first).eq(tokens.data),
            due.offer.eq(sent & starts),
            due.write.eq(sent & starts),
            due.commit.eq(sent & starts),
        ]
        if c.tag_bits:
            m.d.comb += [o.payload.tag.eq(tokens.data[-c.tag_bits :]), due.word.eq(o.payload.tag)]
        with m.If(sent):
            m.d.sync += starts.eq(o.payload.last)
        if c.waits:
            given = Signal(range(c.capacity + 1))
            m.d.comb += goes.eq(~starts | (given != c.capacity))
            m.d.sync += given.eq(given + due.write - due.ready)
        else:
            m.d.comb += goes.eq(1)

        # In.
        i = self.answer
        at_start, drops = Signal(init=1), Signal()
        beat = Signal(range(max(c.groups, 2)))
        last = beat == c.groups - 1
        right = Signal()  # what begins is due
        takes, whole, wrong = Signal(), Signal(), Signal()
        m.d.comb += [
            right.eq(due.valid & (due.data == (i.payload.tag if c.tag_bits else 0))),
            # Known once the tag that is due is there, or that there is none.
            i.ready.eq(~at_start | due.valid | ~due.some),
            takes.eq(i.valid & i.ready & Mux(at_start, right, ~drops)),
            whole.eq(takes & last & i.payload.last),
            wrong.eq(takes & (last != i.payload.last)),
            answers.offer.eq(i.valid),
            answers.write.eq(takes & ~wrong),
            answers.commit.eq(whole),
            answers.undo.eq(wrong),
            answers.word.eq(i.payload.data.as_value()),
            due.ready.eq(whole),
            self.fault.eq(wrong | (i.valid & i.ready & at_start & ~right)),
            self.valid.eq(answers.valid),
            self.merged.eq(answers.data),
            answers.ready.eq(self.ready),
        ]
        with m.If(i.valid & i.ready):
            m.d.sync += [at_start.eq(i.payload.last), drops.eq(~takes | wrong)]
            m.d.sync += beat.eq(Mux(whole | wrong | ~takes, 0, beat + 1))
        return m
