"""Words that come round in a known order."""

from typing import Any

from amaranth import Module, Mux, Signal
from amaranth.hdl import Value
from amaranth.lib import memory

from hw.attributes import NO_COLLISION

RAM_PLACES = 16
"""From this many places on words lie in memory.

An iCE40UP5K has 176 logic cells a block RAM of 16 bits a word: a word that is deeper than 11 places
saves more cells than its share of the device; distributed RAM (ECP5) is 16 deep.
"""


def following(count: Value, bound: int) -> Value:
    """Return what comes behind a count that goes round below a bound."""
    return Mux(count == bound - 1, 0, count + 1)


def kept_in_turn(
    m: Module, name: str, shape: Any, places: int, moves: Value, place: Value, upcoming: Value,
    ahead: int, *, late: bool = False,
) -> tuple[Any, Any]:  # fmt: skip
    """Return (the word at hand, what it becomes when it moves).

    In memory, or in a shift register that turns by one word a move, which needs no multiplexers;
    where words are ignored the first time round, its alignment does not matter.

    Parameters
    ----------
    m : Module
    name : str
    shape : ShapeCastable
    places : int
    moves : Signal()
    place, upcoming : Signal(range(places))
        The one at hand, and the one that will be, in so many clocks as `ahead` says.
    ahead : int
        1, or 2: with a register behind the memory.
    late : bool
        What a word becomes is told in the clock behind its move, and stays until the next move.
    """
    after = Signal(shape)
    if places < RAM_PLACES:
        ring = [Signal(shape, name=f"{name}{i}") for i in range(places - late)]
        with m.If(moves):
            m.d.sync += [a.eq(b) for a, b in zip(ring, [*ring, after][1:], strict=True)]
        return [*ring, after][0], after
    m.submodules[name] = store = memory.Memory(
        shape=shape, depth=places, init=[], attrs=NO_COLLISION
    )
    write, read = store.write_port(), store.read_port()
    if late:
        moved, moved_place = Signal(name=f"{name}_moved"), Signal.like(place, name=f"{name}_place")
        m.d.sync += [moved.eq(moves), moved_place.eq(place)]
        # And a register in front of the memory.
        m.d.sync += [write.addr.eq(moved_place), write.data.eq(after), write.en.eq(moved)]
    else:
        m.d.comb += [write.addr.eq(place), write.data.eq(after), write.en.eq(moves)]
    m.d.comb += read.addr.eq(upcoming)
    return read_ahead(m, read.data, f"{name}_read", ahead), after


def read_ahead(m: Module, word: Any, name: str, ahead: int) -> Any:
    """Return what a memory reads, `ahead` clocks after its address."""
    for _ in range(ahead - 1):
        register = Signal.like(word, name=name, reset_less=True)
        m.d.sync += register.eq(word)
        word = register
    return word
