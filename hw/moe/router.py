"""The router: a tile, or several that share the experts."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.hdl import Value
from amaranth.lib import wiring

from hw.moe.config import MoeConfig
from hw.moe.tile import Tile
from hw.queue import Marks
from hw.stream import FaultCounter, FrameGuard, Stream, members

TRACED = 4
"""Clocks by which a tile merges behind the one before it."""


class Moe(wiring.Component):
    """Route the tokens of a time step to experts, and merge what they answer.

    One `Tile` does it all. Several of them have their share of the experts each, and take the same
    tokens at the same time; what experts are compared by passes round a `Link`, and sums from each
    tile to the next::

        tokens -+--------------+--------------+
                |              |              |
         +-> Tile 0 --link-> Tile 1 --link-> Tile 2 --+
         |      |              |              |       |
         |      +---partial----+---partial----+-------|--> merged
         +------------------- link -------------------+

    A token is accepted while fewer than `window` are on their way, and every queue behind has room
    for all of these. So nobody waits for an expert before the window is full, nothing is lost, and
    there is no deadlock: what an accepted token needs is there when it comes, each expert's queue
    drains as fast as the expert takes its tokens, and an answer can always come in. On a link and
    between sums nothing waits for a later token. If each expert takes and answers what it is
    offered, the oldest token is merged at last, then the next.

    For a token every ``groups`` clocks for ever, an expert may take as long as
    ``window * groups`` less what the tiles take themselves (`Plan.answer_clocks`).

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
        c = self.config
        m = Module()
        tiles = [Tile(c, number) for number in range(c.tiles)]
        m.submodules.guard = guard = FrameGuard(c.stream("tokens"))
        wiring.connect(m, wiring.flipped(self.tokens), guard.i)
        all_ready = Cat(tile.tokens.ready for tile in tiles).all()
        m.d.comb += guard.o.ready.eq(all_ready)
        for number, tile in enumerate(tiles):
            m.submodules[f"tile{number}" if c.tiles > 1 else "tile"] = tile
            others = [other.tokens.ready for other in tiles if other is not tile]
            m.d.comb += [
                tile.tokens.valid.eq(guard.o.valid & Cat(*others).all()),
                tile.tokens.payload.eq(guard.o.payload),
                tile.opening.eq(guard.opening),
                tile.broken.eq(guard.broken),
            ]
            for e in range(c.own):
                for kind in ("answer", "expert"):
                    outer = getattr(self, f"{kind}{number * c.own + e}")
                    inner = getattr(tile, f"{kind}{e}")
                    wiring.connect(m, inner, wiring.flipped(outer))
        wiring.connect(m, tiles[-1].merged, wiring.flipped(self.merged))
        found = self._alone(m, tiles[0]) if c.tiles == 1 else self._together(m, tiles)
        wrong = Cat(tile.wrong for tile in tiles)
        m.submodules.fault_counter = faults = FaultCounter(1 + len(found) + len(wrong))
        m.d.comb += [
            faults.fault.eq(Cat(guard.fault, *found, wrong)),
            self.faults.eq(faults.count),
        ]
        return m

    def _alone(self, m: Module, tile: Tile) -> list[Value]:
        """Connect the one tile; return its broken frames."""
        c = self.config
        for name in ("weights", "bias"):
            wiring.connect(m, wiring.flipped(getattr(self, name)), getattr(tile, name))
        if c.readback:
            m.d.comb += tile.reads.eq(tile.loaded)
            wiring.connect(m, tile.stored, wiring.flipped(self.stored))
        if c.trace:
            for name in ("mask", "dropped"):
                wiring.connect(m, getattr(tile, name), wiring.flipped(getattr(self, name)))
        return [tile.weights_fault, tile.bias_fault]

    def _together(self, m: Module, tiles: list[Tile]) -> list[Value]:
        """Connect several tiles; return the broken frames of what they share."""
        c = self.config
        for tile, after in zip(tiles, [*tiles[1:], tiles[0]], strict=True):
            if after is not tiles[0]:
                wiring.connect(m, tile.merged, after.partial)
            if c.meets:
                wiring.connect(m, tile.to_next, after.from_last)
        weights = self._share(m, tiles, c.stream("weights"))
        bias = self._share(m, tiles, c.stream("bias"))
        if c.readback:
            for tile in tiles:
                m.d.comb += tile.reads.eq(weights.done)
            self._join(m, self.stored, [tile.stored for tile in tiles])
        if c.trace:
            # A tile is ahead of the last one by what sums take from one to the next.
            ahead = 2 + -(-TRACED * (c.tiles - 1) // c.groups)
            for name in ("mask", "dropped"):
                queued = []
                for number, tile in enumerate(tiles):
                    inner = getattr(tile, name)
                    queue = Marks(len(inner.payload.as_value()), ahead, tells_full=True)
                    m.submodules[f"{name}_queue{number}"] = queue
                    m.d.comb += [
                        inner.ready.eq(~queue.full),
                        queue.write.eq(inner.valid & ~queue.full),
                        queue.word.eq(inner.payload),
                    ]
                    outer = inner.signature.create(path=(f"{name}_queued{number}",))
                    queued.append(outer)
                    m.d.comb += [
                        outer.valid.eq(queue.waiting),
                        outer.payload.as_value().eq(queue.oldest),
                        queue.pop.eq(outer.valid & outer.ready),
                    ]
                self._join(m, getattr(self, name), queued)
        return [weights.fault, bias.fault]

    def _share(self, m: Module, tiles: list[Tile], stream: Stream) -> FrameGuard:
        """Cut the frames of a setting into those of the tiles; return who guards them."""
        m.submodules[f"{stream.name}_guard"] = guard = FrameGuard(stream)
        wiring.connect(m, wiring.flipped(getattr(self, stream.name)), guard.i)
        beats = stream.beats // len(tiles)
        which, beat = Signal(range(len(tiles))), Signal(range(max(beats, 2)))
        at_last = beat == beats - 1
        with m.If(guard.broken):
            m.d.sync += [which.eq(0), beat.eq(0)]
        with m.Elif(guard.o.valid & guard.o.ready):
            m.d.sync += beat.eq(Mux(at_last, 0, beat + 1))
            with m.If(at_last):
                m.d.sync += which.eq(Mux(which == len(tiles) - 1, 0, which + 1))
        ready = 0
        for number, tile in enumerate(tiles):
            inner = getattr(tile, stream.name)
            m.d.comb += [
                inner.valid.eq(guard.o.valid & (which == number)),
                inner.payload.data.eq(guard.o.payload.data),
                inner.payload.first.eq(beat == 0),
                inner.payload.last.eq(at_last),
            ]
            ready = Mux(which == number, inner.ready, ready)
        m.d.comb += guard.o.ready.eq(ready)
        return guard

    @staticmethod
    def _join(m: Module, outer: wiring.PureInterface, inner: list[wiring.PureInterface]) -> None:
        """Put the elements of tiles side by side."""
        all_valid = Cat(stream.valid for stream in inner).all()
        m.d.comb += [
            outer.valid.eq(all_valid),
            outer.payload.data.as_value().eq(
                Cat(stream.payload.data.as_value() for stream in inner)
            ),
            outer.payload.first.eq(inner[0].payload.first),
            outer.payload.last.eq(inner[0].payload.last),
        ]
        m.d.comb += [stream.ready.eq(all_valid & outer.ready) for stream in inner]
