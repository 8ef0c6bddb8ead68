"""A buffer for the tokens of whole time steps, which hands them on in blocks that stay."""

import dataclasses

from amaranth import Cat, Module, Mux, Signal
from amaranth.hdl import Value
from amaranth.lib import data, memory
from amaranth.lib.wiring import In
from amaranth.utils import ceil_log2

from hw.attributes import BLOCK, NO_COLLISION
from hw.buffer import Beat, BufferShape, StepBuffer, history
from hw.delay import delayed
from hw.turns import following

READ_CLOCKS = 3
"""Clocks from the read of a beat to where it is in the next block: the memory, its register, it."""


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
        # The last beat is read before the last one of `beats` uses of the last block.
        return max(self.used_at - READ_CLOCKS - self.stream.beats + 1, 0)

    @property
    def shift(self) -> int:
        """Places that the last block of a time step does not use: its tokens come above them."""
        return (
            self.places - (self.stream.beats - (self.groups - 1) * self.group_beats) * self.tokens
        )

    @property
    def soonest(self) -> int:
        """Least `used_at` with which the first block of a time step is there when it is used.

        Its last beat is read two clocks behind the guard. It is used two clocks behind
        `READ_CLOCKS` at the earliest, having moved from the next block to the one that is used.
        """
        return READ_CLOCKS + 2 - self.begins_at

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

    A block is in registers, so all tokens of it are there at once, for as long as it takes. Behind
    it comes in the next one: a shift register, in which tokens come at the highest place. Beats
    come there from memory, as soon as they are in it, though their time step may still break; then
    it begins anew. What goes far goes in hops: hop h is written, moved and used h clocks behind
    hop 0, and all wires are from neighbour to neighbour.

    Tried, with 32 columns at N = dK = 64: a chain of three blocks in registers instead of the
    memory (29.3 k flip-flops in all, now 20.9 k), and no next block but memory of which a word is a
    hop of a block (16.7 k; but those wires start at the few places where block RAM is, and all
    wires together were 1.5 times as long as with the chain).

    Parameters
    ----------
    shape : BlockShape

    Attributes
    ----------
    begin : Signal(), in
        With the first use of a block, `used_at` clocks ahead of hop 0: the next one becomes the one
        that is used. That is `beats` clocks later again at the earliest.
    """

    shape: BlockShape

    def __init__(self, shape: BlockShape) -> None:
        super().__init__(shape, {"begin": In(1)})

    def _store(self, m: Module, beat: Beat, released: list[Value]) -> Value:
        turn = history(m, self.begin, self.shape.used_at - READ_CLOCKS, "turn")[-1]
        reads, address, late = self._read(m, beat, turn)
        token = self._memory(m, beat, address)
        self._blocks(m, token, history(m, reads, 2, "read")[-1], history(m, turn, 2, "turned")[-1])
        m.d.comb += self.settled.eq(1)
        return self.void | ~late

    def _read(self, m: Module, beat: Beat, turn: Value) -> tuple[Value, Value, Value]:
        """Return (whether a beat is read, its address, whether a block comes late).

        The next block begins with a turn, or in place of one that broke or was dropped. Only behind
        one that was dropped can a time step have to wait for its block.
        """
        shape = self.shape
        beats = shape.stream.beats
        at, page = Signal(range(beats)), Signal(range(shape.slots))
        ahead = Signal(range(shape.slots + 1))  # whole ones of which something is to be read
        full = Signal()  # all of the next block is read
        late = Signal()
        whole, last, reads = Signal(), Signal(), Signal()
        m.d.comb += [
            whole.eq(ahead != 0),
            last.eq(at == beats - 1),
            # Of the time step that comes in, what is in front of the next beat is in memory.
            reads.eq((turn | ~full) & (whole | (at != beat.index))),
        ]
        place = Signal(range(shape.group_beats)) if shape.groups > 1 else at  # in its block
        ends = last | (place == shape.group_beats - 1)
        untouched = full & (at == 0)  # nothing is read of the time step behind the next block
        skips = self.drop & ~untouched
        breaks = beat.broken & ~whole
        m.d.sync += ahead.eq(ahead + beat.commit - ((reads & last) | skips))
        with m.If(self.drop | breaks):
            m.d.sync += [at.eq(0), full.eq(untouched & ~turn & ~self.drop)]
        with m.Else():
            m.d.sync += full.eq((reads & ends) | (full & ~turn))
            with m.If(reads):
                m.d.sync += at.eq(Mux(last, 0, at + 1))
        if shape.groups > 1:
            with m.If(self.drop | breaks | (reads & ends)):
                m.d.sync += place.eq(0)
            with m.Elif(reads):
                m.d.sync += place.eq(place + 1)
        with m.If((reads & last) | skips):
            m.d.sync += page.eq(following(page, shape.slots))
        m.d.sync += late.eq(self.drop | (late & ~full))
        return reads, Cat(at, page), late

    def _memory(self, m: Module, beat: Beat, address: Value) -> Value:
        """Store beats; return one two clocks behind its address."""
        shape = self.shape
        bits = ceil_log2(shape.stream.beats)
        m.submodules.memory = store = memory.Memory(
            shape=len(beat.data),
            depth=shape.slots << bits,
            init=[],
            attrs=NO_COLLISION | BLOCK,
        )
        write, read = store.write_port(), store.read_port()
        page = Signal(range(shape.slots))
        with m.If(beat.commit):
            m.d.sync += page.eq(following(page, shape.slots))
        m.d.comb += [
            write.addr.eq(Cat(beat.index[:bits], page)),
            write.data.eq(beat.data),
            write.en.eq(beat.write),
            read.addr.eq(address),
        ]
        return delayed(m, read.data, 1, "fetched")

    def _blocks(self, m: Module, token: Value, write: Value, moves: Value) -> None:
        """Shift tokens into the next block, and move that to where it is used."""
        shape = self.shape
        previous = token  # lowest token first
        for number, part in enumerate(shape.hops):
            name = f"hop{number}"
            if number:
                write = delayed(m, write, 1, f"{name}_write")
                moves = delayed(m, moves, 1, f"{name}_moves")
            if shape.by_channel:
                if number:
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
            comes = Signal(word, name=f"{name}_comes", reset_less=True)
            stays = Signal(word, name=f"{name}_stays", reset_less=True)
            coming = comes.as_value()
            with m.If(moves):
                m.d.sync += stays.eq(comes)
            with m.If(write):
                m.d.sync += coming.eq(Cat(coming, bits)[len(bits) :])
            previous = delayed(m, coming[: len(bits)], 1, f"{name}_on")
            for index in range(word.length):
                if shape.by_channel:
                    m.d.comb += self.group[index][part.start : part.stop].eq(stays[index])
                else:
                    m.d.comb += self.group[part.start + index].eq(stays[index])
