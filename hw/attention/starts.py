"""Where the count encoder's counts start: at a random number, moved by constants."""

from collections.abc import Sequence

from amaranth import Array, Cat, Const, Module, Mux, Signal
from amaranth.hdl import Value
from amaranth.lib import data, memory
from amaranth.utils import ceil_log2

from hw.bernoulli import skew


def constants(
    m: Module, name: str, tables: list[list[int]], lanes: int, address: Value, bound: int
) -> list[list[Value]]:
    """Return [lane][head] of ``tables[head][lanes * address + lane]``, a clock later."""
    bits = ceil_log2(bound)
    depth = -(-len(tables[0]) // lanes)

    def entry(head: int, position: int) -> int:
        return tables[head][position] if position < len(tables[head]) else 0

    heads = range(len(tables))
    if depth == 1 or not bits:
        return [[Const(entry(h, lane), bits) for h in heads] for lane in range(lanes)]
    shape = data.ArrayLayout(data.ArrayLayout(bits, len(tables)), lanes)
    words = [
        [[entry(h, lanes * a + lane) for h in heads] for lane in range(lanes)] for a in range(depth)
    ]
    m.submodules[name] = rom = memory.Memory(shape=shape, depth=depth, init=words)
    port = rom.read_port()
    m.d.comb += port.addr.eq(address)
    return [[port.data[lane][h] for h in heads] for lane in range(lanes)]


class Starts:
    """Where counts start: at the complement of a draw, skewed by a constant, in several clocks.

    Parameters
    ----------
    draw : Value
        Valid a clock before the first of the `clocks`.
    bound : int
        It is below this.
    turn : Value, optional
        With the draw: which of several constants counts.
    gate : Value, optional
        With the draw; where it is 0 a start is 0.
    """

    def __init__(
        self, m: Module, draw: Value, bound: int, clocks: int, name: str,
        *, turn: Value | None = None, gate: Value | None = None,
    ) -> None:  # fmt: skip
        self._m = m
        self._draw = draw
        self._bound = bound
        self._clocks = clocks
        self._name = name
        self._turn = Const(0, 1) if turn is None else turn
        self._gate = gate
        self._moved: dict[tuple[int, tuple[int, ...]], list[Value]] = {}

    def skewed(self, constant: Value | Sequence[int], name: str) -> list[Value]:
        """Return the complement of the draw moved by a constant, in each clock.

        That is a value, with the draw; or one integer for each turn. Where the bound is a power of
        two these cost nothing where they are the same in all turns, since they only pick one of
        both polarities of a bit.
        """
        if isinstance(constant, Value):
            start = ~skew(self._draw, constant, self._bound)
            return self._delayed(start, len(self._draw), f"{self._name}_{name}")
        if not self._bound & (self._bound - 1):
            places = range(len(self._draw))
            bits = [self._bit(i, tuple(c >> i & 1 for c in constant)) for i in places]
            return [Cat(bit[clock] for bit in bits) for clock in range(self._clocks)]
        every = Array(Const(c, len(self._draw)) for c in constant)
        return self.skewed(Value.cast(every[self._turn]), name)

    def _bit(self, place: int, moves: tuple[int, ...]) -> list[Value]:
        """Return the complement of a bit, XOR a constant for each turn."""
        if len(set(moves)) == 1:
            moves = moves[:1]
        if (place, moves) not in self._moved:
            pattern = sum(bit << turn for turn, bit in enumerate(moves))
            move = Const(pattern, len(moves)).bit_select(self._turn, 1) if moves[1:] else moves[0]
            name = f"{self._name}_bit{place}_{pattern:0{len(moves)}b}"
            self._moved[place, moves] = self._delayed(~self._draw[place] ^ move, 1, name)
        return self._moved[place, moves]

    def _delayed(self, value: Value, width: int, name: str) -> list[Value]:
        value = value if self._gate is None else Mux(self._gate, value, 0)
        out: list[Value] = []
        for clock in range(self._clocks):
            register = Signal(width, name=f"{name}_{clock}", reset_less=True)
            self._m.d.sync += register.eq(out[-1] if out else value)
            out.append(register)
        return out
