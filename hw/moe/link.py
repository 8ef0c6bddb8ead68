"""The link between tiles: the values of a token's experts pass round all of them."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.moe.config import MoeConfig
from hw.queue import Marks, PacketQueue
from hw.turns import following


class Link(wiring.Component):
    """Send a tile's values to the next one, and what comes from the one before, in a known order.

    A token has `Plan.slots` words of `lanes` values, a clock each: first the tile's own, then those
    of the tile before it, of the one before that, and so on. What a tile gets it hands on at once,
    but for the last `Plan.parts` words, which have been everywhere; so each link carries every
    value of the other tiles once, in the order of the tokens.

    There is no deadlock, however far tiles are apart. Within a token a tile has sent at most
    `Plan.parts` words more than it has taken, and at its end none, so there are never more than
    ``tiles * parts`` words on the ring, and with room for one more in every inbox they are never
    all full: some tile can send. And whoever finds its inbox empty waits for the one before it,
    which is not held up by a full one, and so on round to one that waits for values of its own.

    Parameters
    ----------
    config : MoeConfig

    Attributes
    ----------
    write, values, marks : in
        The values of a part of a token, and what is known of the token.
    to_next : stream, out
    from_last : stream, in
        The words on the link.
    came : Signal(), out
    slot, value, mark : out
        A word, which one of the token it is, and the marks of the token.
    """

    def __init__(self, config: MoeConfig, marks: int) -> None:
        self._config = config
        values = data.ArrayLayout(config.value_shape, config.plan.lanes)
        super().__init__(
            {
                "write": In(1),
                "values": In(values),
                "marks": In(marks),
                "to_next": Out(config.link_signature),
                "from_last": In(config.link_signature),
                "came": Out(1),
                "slot": Out(range(config.plan.slots)),
                "value": Out(values),
                "mark": Out(marks),
            }
        )

    def elaborate(self, platform: object) -> Module:
        c, plan = self._config, self._config.plan
        m = Module()
        width = len(self.values.as_value())
        word = Cat(self.values, self.marks)
        m.submodules.own = own = PacketQueue(len(word), 1, plan.held * plan.parts)
        m.submodules.inbox = inbox = Marks(width, plan.parts + 1, tells_full=True)
        m.d.comb += [
            own.offer.eq(self.write), own.write.eq(self.write), own.commit.eq(self.write),
            own.word.eq(word),
            inbox.write.eq(self.from_last.valid & self.from_last.ready),
            inbox.word.eq(self.from_last.payload),
            self.from_last.ready.eq(~inbox.full),
        ]  # fmt: skip

        # A token takes as long as one takes to come in, so that nobody behind has to keep up.
        slot = Signal(range(c.groups))
        is_own, is_sent, is_any = (
            slot < n for n in (plan.parts, plan.slots - plan.parts, plan.slots)
        )
        there, goes = Signal(), Signal()
        value = Mux(is_own, own.data[:width], inbox.oldest)
        m.d.comb += [
            there.eq(Mux(is_own, own.valid, inbox.waiting)),
            self.to_next.valid.eq(there & is_sent),
            self.to_next.payload.eq(value),
            goes.eq(~is_any | (there & (~is_sent | self.to_next.ready))),
            own.ready.eq(goes & is_own),
            inbox.pop.eq(goes & is_any & ~is_own),
        ]
        with m.If(goes):
            m.d.sync += slot.eq(following(slot, c.groups))
        m.d.sync += [
            self.came.eq(goes & is_any),
            self.slot.eq(slot),
            self.value.as_value().eq(value),
        ]
        with m.If(goes & is_own):
            m.d.sync += self.mark.eq(own.data[width:])
        return m
