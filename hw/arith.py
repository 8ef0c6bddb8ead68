"""Integer arithmetic whose widths are never left to chance."""

from collections.abc import Callable, Sequence

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.hdl import Value, ValueLike
from amaranth.utils import ceil_log2

LAYERS_PER_CLOCK = 2
"""Carry chains in a row between the registers of a `pipelined_counts`."""

CHAIN = 32
"""Most bits of one carry chain of a `pipelined_counts`."""

Segment = tuple[int, int]
"""Lowest weight (as a power of two) and length of a row of full adders."""


def add_tree(terms: Sequence[Value]) -> Value:
    """Return the sum of `terms` as a balanced tree of adders.

    The result of n terms of w bits has w + ceil(log2 n) bits. (Python's `sum` makes a chain that
    grows by a bit a term.)
    """
    level = list(terms)
    if not level:
        return Const(0, 1)
    while len(level) > 1:
        pairs = zip(level[::2], level[1::2], strict=False)
        odd = level[-1:] if len(level) % 2 else []
        level = [a + b for a, b in pairs] + odd
    return level[0]


def tree_clocks(count: int) -> int:
    """Return the clocks of a `pipelined_tree` of `count` terms."""
    return max(-(-ceil_log2(count) // LAYERS_PER_CLOCK), 1)


def pipelined_tree(
    m: Module, terms: Sequence[Value], combine: Callable[[Sequence[Value]], Value], name: str
) -> Value:
    """Return some terms combined, a few at a time; `tree_clocks` later."""
    level = list(terms)
    taken = 2**LAYERS_PER_CLOCK
    for clock in range(tree_clocks(len(terms))):
        parts = [combine(level[i : i + taken]) for i in range(0, len(level), taken)]
        level = [Signal(part.shape(), name=f"{name}_{clock}_{i}") for i, part in enumerate(parts)]
        m.d.sync += [register.eq(part) for register, part in zip(level, parts, strict=True)]
    return level[0]


def popcount(bits: Sequence[Value]) -> Value:
    """Return the number of ones among `bits`, ceil(log2(n + 1)) bits wide."""
    return add_tree(bits)[: len(bits).bit_length()]


def count_layers(
    count: int, width: int, late: int = 0, per_clock: int = LAYERS_PER_CLOCK
) -> list[list[Segment]]:
    """Plan the layers of `pipelined_counts` of `count` bits and a start of `width` bits.

    A segment of length L takes three bits of its lowest weight and two of each of the next L - 1,
    and leaves one of each and a carry. It is put as low as possible, and in layer i it is at most i
    long: the longer, the fewer chain bits (L + 1) a full adder costs, but a long one in front
    takes bits away that would fill others. (No other choice of greatest lengths is cheaper, for
    16, 32 and 64 bits.) What remains, at most two bits of a weight, is one last row.
    """
    heights = [count, *[0] * width]
    layers: list[list[Segment]] = []
    while True:
        if len(layers) == late * per_clock:
            heights = [*(height + 1 for height in heights[:width]), heights[width]]
        if len(layers) >= late * per_clock and max(heights[:width], default=0) <= 2:
            pairs = [weight for weight in range(width) if heights[weight] == 2]
            return [*layers, [(pairs[0], width - pairs[0])]] if pairs else layers
        segments = []
        after = [0] * (width + 1)
        for weight in range(width):
            while heights[weight] >= 3:
                heights[weight] -= 3
                length = 1
                while (
                    length <= len(layers)
                    and weight + length < width
                    and heights[weight + length] >= 2
                ):
                    heights[weight + length] -= 2
                    length += 1
                for place in range(length + 1):
                    after[weight + place] += 1
                segments.append((weight, length))
        layers.append(segments)
        heights = [a + b for a, b in zip(heights, after, strict=True)]


def count_clocks(count: int, width: int, late: int = 0, per_clock: int = LAYERS_PER_CLOCK) -> int:
    """Return the clocks of `pipelined_counts` of `count` bits and a start of `width` bits."""
    return max(-(-len(count_layers(count, width, late, per_clock)) // per_clock), late + 1)


def pipelined_counts(
    m: Module,
    groups: Sequence[Sequence[Value]],
    starts: Sequence[Sequence[Value]],
    name: str,
    late: int = 0,
    per_clock: int = LAYERS_PER_CLOCK,
    longest: int = CHAIN,
) -> list[Signal]:
    """Return, for each of some equally large groups of bits, its start plus the number of ones.

    `count_clocks` clocks later; a reset does not clear them. With the complement of r as its start
    the top bit of a count is ``r < count``: the comparison costs no more than the further bits to
    count.

    A compressor tree of full adders that lie in carry chains. The adder chain of an FPGA is a full
    adder a cell where else two LUTs make one, but counting has few places for long chains. Here
    one chain holds many short rows of full adders, of one count or of several: between two rows a
    place with both operands the same hands the carry of the lower row out and a carry into the
    upper one, so a row of length L takes L + 1 places. 64 bits and a comparison take 101 places.
    The AND of two bits in front of a place costs a LUT4 on iCE40, and on ECP5 nothing once it is
    absorbed into the chain's cell. ``python -m bench.counting`` measures this against a balanced
    tree of adders with a comparator; the figures stand in ``docs/attention.md``.

    Parameters
    ----------
    groups : sequence of sequences of Value
        At most ``2 ** width`` bits each.
    starts : sequence of sequences of Value
        For each group its start, `width` bits, in each of the clocks from the clock `late` on.
    name : str
        Prefix of the signals.
    late : int
        Clocks that the starts come behind the bits.
    per_clock : int
        Layers of full adders between registers.
    longest : int
        Places of the longest carry chain.

    Returns
    -------
    list of Signal(width + 1)
    """
    layers = count_layers(len(groups[0]), len(starts[0][0]), late, per_clock)
    counts = [
        _Count(bits, start, late, f"{name}{index}")
        for index, (bits, start) in enumerate(zip(groups, starts, strict=True))
    ]
    clocks = count_clocks(len(groups[0]), len(starts[0][0]), late, per_clock)
    for clock in range(clocks):
        for count in counts if clock else ():
            count.register(m, clock)
        for number in range(clock * per_clock, (clock + 1) * per_clock):
            rows = [
                (count, weight, count.row(weight, length, clock))
                for count in counts
                for weight, length in (layers[number] if number < len(layers) else ())
            ]
            sums = add_rows(m, [row for _, _, row in rows], f"{name}_layer{number}", longest)
            for (count, weight, _), sum_ in zip(rows, sums, strict=True):
                count.put(weight, sum_)
    return [count.total(m, clocks - 1) for count in counts]


class _Count:
    """The bits of one of the `pipelined_counts`, by weight; those of `start` are taken last."""

    def __init__(self, bits: Sequence[Value], start: Sequence[Value], late: int, name: str) -> None:
        self._width = len(start[0])
        self._columns: list[list[Value]] = [list(bits), *([] for _ in range(self._width))]
        self._start = start
        self._unused = set(range(self._width))
        self._late = late
        self._name = name

    def _take(self, weight: int, clock: int) -> Value:
        if self._columns[weight]:
            return self._columns[weight].pop(0)
        if weight in self._unused and clock >= self._late:
            self._unused.remove(weight)
            return self._start[clock - self._late][weight]
        return Const(0, 1)

    def row(self, weight: int, length: int, clock: int) -> list[list[Value]]:
        """Return the operands of full adders, three at the lowest place and two at the others."""
        return [
            [self._take(weight + place, clock) for _ in range(2 if place else 3)]
            for place in range(length)
        ]

    def put(self, weight: int, sum_: Value) -> None:
        """Take the sum of a row that began at `weight`."""
        for place, bit in enumerate(sum_):
            self._columns[weight + place].append(bit)

    def register(self, m: Module, clock: int) -> None:
        """Put registers behind all bits."""
        name = f"{self._name}_clock{clock}"
        # A reset of so many would be a net that goes everywhere.
        size = sum(len(column) for column in self._columns)
        bits = Signal(size, name=name, reset_less=True)
        m.d.sync += bits.eq(Cat(*self._columns))
        rest = iter(bits)
        self._columns = [[next(rest) for _ in column] for column in self._columns]

    def total(self, m: Module, clock: int) -> Signal:
        """Return what it came to, a clock later."""
        total = Signal(self._width + 1, name=self._name, reset_less=True)
        low = [self._take(weight, clock) for weight in range(self._width)]
        # At most one bit of the top weight is 1, since all in all is below twice that weight.
        m.d.sync += total.eq(Cat(*low, Cat(self._columns[-1]).any()))
        return total


def add_rows(
    m: Module, rows: Sequence[list[list[Value]]], name: str, longest: int = CHAIN
) -> list[Value]:
    """Return the sum of each row, with its carry on top, from few long adders.

    A row is a list of places, lowest first: three bits to add in the first one and two in others.
    """
    zero = Const(0, 1)
    sums: list[Value] = []
    left = list(rows)
    while left:
        a: list[Value] = []
        b: list[Value] = []
        ends = []
        while left and (not a or len(a) + len(left[0]) + 2 <= longest):
            (x, y, carry), *others = left.pop(0)
            a += [carry, x, *(bits[0] for bits in others)]
            b += [carry, y, *(bits[1] for bits in others)]
            ends.append(len(a))
        chain = Signal(len(a) + 1, name=f"{name}_chain{len(sums)}")
        m.d.comb += chain.eq(Cat(*a, zero) + Cat(*b, zero))
        begin = 1
        for end in ends:
            sums.append(chain[begin : end + 1])
            begin = end + 1
    return sums


def multiply(value: Value, constant: int) -> Value:
    """Return ``value * constant`` for a constant >= 0 by shifts and adds, without a DSP block.

    The constant is recoded to canonical signed digits, so at most half of its bits cost an adder.
    """
    plus: list[Value] = []
    minus: list[Value] = []
    shift = 0
    while constant:
        if constant & 1:
            digit = 2 - (constant & 3)
            (plus if digit > 0 else minus).append(value << shift if shift else value)
            constant -= digit
        constant >>= 1
        shift += 1
    total = add_tree(plus) if plus else Const(0, 1)
    return total - add_tree(minus) if minus else total


def add_modulo(a: Value, b: ValueLike, modulus: int) -> Value:
    """Return ``(a + b) mod modulus`` for a and b below the modulus."""
    total = a + b
    return Mux(total >= modulus, total - modulus, total)[: ceil_log2(modulus)]


def add_with_carry(a: Value, b: Value, carry: Value) -> Value:
    """Return ``a + b + carry`` from one carry chain."""

    def extend(term: Value) -> Value:
        chain = Cat(carry, term)
        return chain.as_signed() if term.shape().signed else chain

    return (extend(a) + extend(b)) >> 1
