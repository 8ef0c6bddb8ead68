"""Who is among the heads of the greatest scores."""

from amaranth import Array, Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.heads.config import HeadsConfig
from hw.turns import following


class Rank(wiring.Component):
    """Compare each head with every other, one after another, and count by how many it is beaten.

    A head's key is its score and below it the complement of its place, so no two are equal and of
    equal scores the lower head wins. All keys come past again and again, one a clock; a comparator
    takes the one that is its turn and counts the greater ones among those that follow.

    Takes ``heads / comparators * (heads + comparators)`` clocks, in which the next inference comes
    in.

    Parameters
    ----------
    config : HeadsConfig

    Attributes
    ----------
    come, done, scores : in
        As `hw.heads.scores.Scores` has them. Not between `done` and `taken`.
    decided : Signal(), out
        It is known who stays, until it is taken.
    kept : Signal(heads), out
        Who does.
    taken : Signal(), in
    """

    def __init__(self, config: HeadsConfig) -> None:
        self._config = config
        super().__init__(
            {
                "come": In(1),
                "done": In(1),
                "scores": In(data.ArrayLayout(config.score_bits, config.lanes)),
                "decided": Out(1),
                "kept": Out(config.heads),
                "taken": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        c = self._config
        m = Module()
        running, compares, ends = (Signal(name=x) for x in ("running", "compares", "ends"))
        m.d.sync += [
            running.eq((running | self.done) & ~ends),
            compares.eq(running & ~ends),
        ]
        key = self._keys(m, running)

        # Where the comparators are: the first one takes a key, ..., and the last one is through.
        at = Signal(c.heads + c.comparators, init=1)
        m.d.sync += at.eq(Mux(compares, at.rotate_left(1), 1))
        stays = []
        for i in range(c.comparators):
            own = Signal.like(key, name=f"own{i}")
            beaten = Signal(range(max(c.heads, 2)), name=f"beaten{i}", reset_less=True)
            with m.If(at[i]):
                m.d.sync += [own.eq(key), beaten.eq(0)]
            with m.Else():
                m.d.sync += beaten.eq(beaten + (key > own))
            stays.append(at[c.heads + i] & (beaten < c.keep))

        # A one goes ahead of the results: when it is through they are all there.
        results = Signal(1 + c.heads, init=1 << c.heads)
        comes = at[c.heads :].any()
        m.d.comb += [ends.eq(comes & results[1]), self.decided.eq(results[0])]
        with m.If(comes):
            m.d.sync += results.eq(Cat(results[1:], Cat(stays).any()))
        with m.If(self.taken):
            m.d.sync += results.eq(results.init)
        for head in range(c.heads):
            share, lane = divmod(head, c.lanes)
            m.d.comb += self.kept[head].eq(results[1 + lane * c.shares + share])
        return m

    def _keys(self, m: Module, running: Signal) -> Signal:
        """Return one key after another: those of lane 0, share by share, then of lane 1."""
        c = self._config
        rings = [
            [
                Signal(c.score_bits, name=f"score{lane}_{share}", reset_less=True)
                for share in range(c.shares)
            ]
            for lane in range(c.lanes)
        ]
        share, lane = (
            Signal(range(n), name=x) for x, n in (("share", c.shares), ("lane", c.lanes))
        )
        with m.If(self.come | running):
            for ring, score in zip(rings, self.scores, strict=True):
                last = Mux(self.come, score, ring[0])
                m.d.sync += [a.eq(b) for a, b in zip(ring, [*ring[1:], last], strict=True)]
        with m.If(running):
            m.d.sync += share.eq(following(share, c.shares))
            with m.If(share == c.shares - 1):
                m.d.sync += lane.eq(following(lane, c.lanes))
        with m.Else():
            m.d.sync += [share.eq(0), lane.eq(0)]
        key = Signal(len(share) + len(lane) + c.score_bits, reset_less=True)
        m.d.sync += key.eq(Cat(~Cat(lane, share), Array(ring[0] for ring in rings)[lane]))
        return key
