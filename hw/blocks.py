"""A buffer for the tokens of whole time steps, which hands them on in blocks that stay."""

import dataclasses

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.hdl import Value
from amaranth.lib import data
from amaranth.lib.wiring import In

from hw.buffer import Beat, BufferShape, StepBuffer, history
from hw.delay import delayed


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockShape(BufferShape):
    """What a `BlockBuffer` is like.

    Attributes
    ----------
    hop : int
        Places, or channels, of one hop: places are a multiple of `tokens`.
    by_channel : bool
        Whether channels lie on different hops, or places do.
    """

    hop: int
    by_channel: bool

    @property
    def places(self) -> int:
        """Tokens of a block."""
        return self.group_beats * self.tokens

    @property
    def channels(self) -> int:
        """Bits of a token."""
        return self.stream.lanes * self.stream.width // self.tokens

    @property
    def hops(self) -> list[range]:
        """Places, or channels, of each hop: of places the highest ones are on the first hop."""
        if self.by_channel:
            return cut(self.channels, self.hop)
        return [
            range(self.places - part.stop, self.places - part.start)
            for part in cut(self.places, self.hop)
        ]

    @property
    def lag(self) -> int:
        return self.used_at - 1

    @property
    def stages(self) -> int:
        """Blocks that are held."""
        return self.slots * self.groups

    @property
    def shift(self) -> int:
        """Places that the last block of a time step does not use: its tokens come above them."""
        return (
            self.places - (self.stream.beats - (self.groups - 1) * self.group_beats) * self.tokens
        )

    @property
    def settles(self) -> int:
        """Clocks from where a time step may be taken to where its first block can be used.

        The block is at the first stage three clocks behind its last beat, and then goes through the
        others; the mark of the time step is there a clock behind that step's last beat.
        """
        since = self.stream.beats - self.group_beats
        return max(self.stages + 1 - since - self.begins_at, 1)

    def token(self, block: int, place: int) -> int:
        """Return the token at a place of a block; one that the time step has not if it is idle."""
        token = block * self.places + place
        if block < self.groups - 1:
            return token
        return token - self.shift if place >= self.shift else -1


def cut(length: int, part: int) -> list[range]:
    """Return 0..length in parts."""
    return [range(low, min(low + part, length)) for low in range(0, length, part)]


class BlockBuffer(StepBuffer):
    """Hold time steps of one stream; have a block of `columns` tokens at hand until the next.

    Blocks move through a chain of registers, so all tokens of one are there at once, for as long
    as it takes. The first stage is a shift register: tokens come at the highest place. What goes
    far goes in hops: hop h is written, moved and used h clocks behind hop 0.

    Parameters
    ----------
    shape : BlockShape

    Attributes
    ----------
    advance : Signal(), in
        With the last use of a block, `used_at` clocks ahead: the next one comes.
    """

    shape: BlockShape

    def __init__(self, shape: BlockShape) -> None:
        super().__init__(shape, {"advance": In(1)})

    def _store(self, m: Module, beat: Beat, released: list[Value]) -> Value:
        shape = self.shape
        moves, left = self._walk(m, beat)
        # A clock behind the walk, so that what many registers hang on is a register's output.
        previous: Value = delayed(m, beat.data, 1, "token")  # lowest token first
        token, write, moved = beat.data, beat.write, moves
        for number, part in enumerate(shape.hops):
            name = f"hop{number}"
            write = delayed(m, write, 1, f"{name}_write")
            moved = delayed(m, moved, 1, f"{name}_moves")
            if shape.by_channel:
                token = delayed(m, token, 1, name)
                size = len(token) // shape.tokens
                bits = Cat(token[size * i : size * i + len(part)] for i in range(shape.tokens))
                # What goes on to the next hop is what is left of the tokens.
                token = Cat(
                    token[size * i + len(part) : size * (i + 1)] for i in range(shape.tokens)
                )
                word = data.ArrayLayout(len(part), shape.places)
            else:
                bits = previous
                word = data.ArrayLayout(shape.channels, len(part))
            stages = [
                Signal(word, name=f"{name}_stage{i}", reset_less=True) for i in range(shape.stages)
            ]
            first = stages[0].as_value()
            for i in range(shape.stages - 1):
                with m.If(moved[i]):
                    m.d.sync += stages[i + 1].eq(stages[i])
            with m.If(write):
                m.d.sync += first.eq(Cat(first, bits)[len(bits) :])
            previous = delayed(m, first[: len(bits)], 1, f"{name}_on")
            for index in range(word.length):
                if shape.by_channel:
                    m.d.comb += self.group[index][part.start : part.stop].eq(stages[-1][index])
                else:
                    m.d.comb += self.group[part.start + index].eq(stages[-1][index])
        return left == 0

    def _walk(self, m: Module, beat: Beat) -> tuple[Signal, Signal]:
        """Return (what leaves each stage, blocks that are still to be dropped)."""
        shape = self.shape
        full, moves = Signal(shape.stages), Signal(shape.stages)
        draft = Signal(shape.stages)  # of a time step that is not whole yet
        left = Signal(range(shape.groups + 1))
        whole = beat.commit & ~beat.void
        if shape.groups == 1:
            complete = whole
        else:
            place = Signal(range(shape.group_beats))
            ends = place == shape.group_beats - 1
            complete = beat.write & (ends | beat.commit)
            with m.If(beat.broken):
                m.d.sync += place.eq(0)
            with m.Elif(beat.write):
                m.d.sync += place.eq(Mux(complete, 0, place + 1))
        # One that is dropped goes a block every other clock.
        pops = Signal()
        m.d.sync += pops.eq((left != 0) & full[-1] & ~pops)
        with m.If(self.drop & ~self.void):
            m.d.sync += left.eq(shape.groups)
        with m.Elif(pops):
            m.d.sync += left.eq(left - 1)
        advanced = history(m, self.advance, shape.lag, "advanced")
        m.d.comb += [
            moves[-1].eq(advanced[-1] | pops),
            *(moves[i].eq(full[i] & (~full[i + 1] | moves[i + 1])) for i in range(len(full) - 1)),
            self.settled.eq((self.void | full[-1]) & (left == 0) & ~Cat(advanced[1:]).any()),
        ]
        arrives = Cat(complete, moves[:-1])
        kept = (full & ~moves) | arrives
        if shape.groups == 1:
            m.d.sync += full.eq(kept)
        else:
            drafts = Const(1), *draft
            drafted = Cat(Mux(arrives[i], drafts[i], draft[i]) for i in range(len(full)))
            m.d.sync += [
                full.eq(kept & ~Mux(beat.broken, drafted, 0)),
                draft.eq(Mux(whole, 0, drafted)),
            ]
        return moves, left
