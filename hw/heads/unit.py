"""Dynamic head pruning: count, rank, gate."""

from amaranth import Module, Mux, Signal
from amaranth.lib import wiring

from hw.heads.config import HeadsConfig
from hw.heads.gate import Gate
from hw.heads.rank import Rank
from hw.heads.scores import Scores
from hw.stream import FaultCounter, FrameGuard, members


class Heads(wiring.Component):
    """Choose the heads of an inference by their spikes of Q, and let only those through.

    Dynamic head pruning (D^3): the score of a head is the number of ones of its Q over all time
    steps, tokens and channels; the `keep` heads of the greatest scores stay, of equal ones the
    lower. In front of `attention` or `sdsa`, with ports like their ``q``: the output of a head
    whose Q is 0 is 0 there, and the others know nothing of it.

    Source: Spiking Transformer Hardware Accelerators in 3D Integration (arXiv 2411.07397,
    2412.05540).

    The pipeline::

        q -+-> Scores, those of a beat -> Rank, in H / C * (H + C) clocks -> kept -> (kept)
           |                                                                  |
           +-> Gate: beats wait in block RAM ---------------------------------+-> out

    A beat a clock for ever on both ports: while an inference is ranked and goes out, the next comes
    in. Only the scores of the next inference have to wait for that, and they come with its last
    token: if at all, that token waits, for `HeadsConfig.pause` clocks. There are as many
    comparators C as it takes that it does not, which can be had from an inference of
    ``2 * heads + groups + count_clocks + 3`` beats on.

    Latency, to `kept`: ``T * beats + count_clocks + 3 + H / C * (H + C)``, one clock more to `out`.
    Interval: `beats` of a time step, and the pause between inferences.

    Cells. Counting is what there is to do: rows of full adders in carry chains (`pipelined_counts`)
    take 126 LUT4-equivalents a head of 64 bits with its sum, a tree of adders 154. Ranking has the
    time of the next inference, so a single comparator looks at one pair of heads a clock: 60 to 149
    LUT4-equivalents for 8 heads of one or all in a beat. Bits of all scores at once from the top,
    keeping who has a one while they are not too many, take about 20 clocks and 185 to 194, for
    every score must turn by bits. What holds Q is a ring and not two pages: about half the block
    RAM. A head that goes is cleared by the reset of its output registers instead of 512 ANDs.

    Parameters
    ----------
    config : HeadsConfig

    Attributes
    ----------
    q : stream, in
    out : stream, out
        With `gate`: `q` with 0 in the heads that do not stay.
    kept : stream, out
        Which heads stay: one beat an inference, which must be taken for the next one to leave.
    faults : Signal(8), out
        Broken frames so far, saturating. A void inference leaves no trace: nothing comes of it.
    """

    def __init__(self, config: HeadsConfig) -> None:
        self.config = config
        super().__init__(members(config))

    def elaborate(self, platform: object) -> Module:
        c = self.config
        m = Module()
        m.submodules.guard = guard = FrameGuard(c.stream("q"), lockstep=True)
        m.submodules.scores = scores = Scores(c)
        m.submodules.rank = rank = Rank(c)
        m.submodules.fault_counter = faults = FaultCounter(1)
        wiring.connect(m, wiring.flipped(self.q), guard.i)
        m.d.comb += [faults.fault.eq(guard.fault), self.faults.eq(faults.count)]

        moves, final, busy, room, ready, taken = (
            Signal(name=x) for x in ("moves", "final", "busy", "room", "ready", "taken")
        )
        word = guard.o.payload.data.as_value()
        kept = self.kept
        m.d.comb += [
            moves.eq(guard.o.valid & guard.o.ready),
            final.eq(guard.in_final & (guard.beat >= c.beats - c.groups)),
            guard.o.ready.eq(room & ~(busy & final)),
            taken.eq(rank.decided & ready & (~kept.valid | kept.ready)),
        ]
        m.d.sync += busy.eq(guard.whole | (busy & ~taken))

        begins, ends = self._parts(m, moves, guard.broken)
        m.d.comb += [
            scores.bits.eq(word),
            scores.moves.eq(moves),
            scores.fresh.eq(guard.opening & (guard.beat < c.groups)),
            scores.final.eq(final),
            scores.begins.eq(begins),
            scores.ends.eq(ends),
            scores.whole.eq(guard.whole),
            rank.come.eq(scores.come),
            rank.done.eq(scores.done),
            rank.scores.eq(scores.scores),
            rank.taken.eq(taken),
            kept.payload.first.eq(1),
            kept.payload.last.eq(1),
        ]
        m.d.sync += kept.valid.eq(taken | (kept.valid & ~kept.ready))
        with m.If(taken):
            m.d.sync += kept.payload.data.as_value().eq(rank.kept)
        if not c.gate:
            m.d.comb += [room.eq(1), ready.eq(1)]
            return m

        m.submodules.gate = gate = Gate(c)
        wiring.connect(m, gate.out, wiring.flipped(self.out))
        m.d.comb += [
            gate.offer.eq(self.q.valid),
            gate.write.eq(moves),
            gate.word.eq(word),
            gate.commit.eq(guard.whole),
            gate.undo.eq(guard.broken),
            gate.begin.eq(taken),
            gate.kept.eq(rank.kept),
            room.eq(gate.room),
            ready.eq(gate.ready),
        ]
        return m

    def _parts(self, m: Module, moves: Signal, broken: Signal) -> tuple[Signal, Signal]:
        """Return whether a beat is the first and the last one of its heads in a token."""
        part = Signal(range(self.config.parts))
        begins = Signal()
        ends = Signal()
        m.d.comb += [begins.eq(part == 0), ends.eq(part == self.config.parts - 1)]
        with m.If(moves):
            m.d.sync += part.eq(Mux(ends, 0, part + 1))
        with m.If(broken):
            m.d.sync += part.eq(0)
        return begins, ends
