"""Random sources and the constants that let one draw serve many positions.

A Bernoulli encoder fires iff ``r < count`` with a uniform integer r below a bound I. One draw a
time step serves every position of a stage through a *skew*, a fixed constant per position: r XOR c
where I is a power of two and (r + c) mod I elsewhere. Either is a bijection on 0..I-1, so every
position has exactly the distribution of r, and no two positions of a row see the same number.
The constants are pseudo-random permutations, since affine ones fail on structured inputs; why
skews are needed at all: Stochastic Spiking Attention (arXiv 2402.09109) compares all positions
with one number, which leaves every mean right and the error of any sum over positions wrong.
"""

from collections.abc import Sequence

from amaranth import Cat, Module, Mux, Signal
from amaranth.hdl import Value
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hw.arith import add_modulo, multiply

POLYNOMIALS = {32: (32, 26, 20, 11), 31: (31, 21, 17, 13)}
"""Degree of an LFSR to the exponents of its primitive polynomial (without the constant 1)."""

SCALED_BITS = 20
"""Bits of a draw that is scaled to a bound that is not a power of two; bias below 2^-20."""

_MASK = 2**64 - 1


def splitmix64(state: int) -> int:
    """Return the output of SplitMix64 for `state` (Steele, Lea, Flood, OOPSLA 2014)."""
    z = (state + 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


def permutation(seed: int, size: int, length: int) -> list[int]:
    """Return `length` constants below `size`: pseudo-random permutations, one after another.

    Fisher-Yates: the i-th exchange of a permutation, i from size - 1 down to 1, is with place
    ``splitmix64(seed * 2**20 + k) mod (i + 1)`` for a counter k that runs on from 0.
    """
    out: list[int] = []
    k = 0
    while len(out) < length:
        places = list(range(size))
        for i in range(size - 1, 0, -1):
            j = splitmix64(((seed << 20) + k) & _MASK) % (i + 1)
            places[i], places[j] = places[j], places[i]
            k += 1
        out += places
    return out[:length]


def skew(value: Value, constant: Value | int, bound: int) -> Value:
    """Return `value` moved by `constant`, a bijection on 0..bound-1 (both below the bound)."""
    if bound & (bound - 1):
        return add_modulo(value, constant, bound)
    return (value ^ constant)[: ceil_log2(bound)]


def draw_bits(bound: int) -> int:
    """Return how many fresh bits a draw below `bound` takes from the source."""
    return SCALED_BITS if bound & (bound - 1) else ceil_log2(bound)


def leap(degree: int, steps: int) -> list[frozenset[int]]:
    """Return, for each bit of an LFSR, the bits whose XOR it is `steps` shifts later."""
    state = [frozenset({i}) for i in range(degree)]
    for _ in range(steps):
        feedback: frozenset[int] = frozenset()
        for exponent in POLYNOMIALS[degree]:
            feedback ^= state[exponent - 1]
        state = [feedback, *state[:-1]]
    return state


def xor_of(state: Value, places: Sequence[int]) -> Value:
    """Return the XOR of the bits of `state` at `places`."""
    return Cat(state[i] for i in places).xor()


def parity(number: int, places: Sequence[int]) -> int:
    """Return the XOR of the bits of `number` at `places`."""
    return sum(number >> i for i in places) & 1


class UniformSource(wiring.Component):
    """A uniform integer below `bound` from a leaping LFSR.

    The LFSR is of Fibonacci form, bit 0 the newest. A draw uses its low `draw_bits` bits, and
    `advance` shifts by as many at once, so successive draws share no bit. Cost: the register, and
    one XOR of up to four bits per drawn bit (a bound that is not a power of two adds a constant
    multiplication, and a register behind it).

    Parameters
    ----------
    bound : int
        1 or more.
    degree : int
        A key of `POLYNOMIALS`.
    seed : int
        Initial state, 1 to 2^degree - 1.
    restarts : bool
        Build what `restart` needs; without it ``rst`` alone goes back to the seed.

    Attributes
    ----------
    value : Signal(range(bound)), out
    restart : Signal(), in
        Be at the seed's draw: `value` is that, and `advance` goes to the one after it.
    advance : Signal(), in
        Take the next draw.
    """

    def __init__(self, bound: int, degree: int, seed: int, *, restarts: bool = False) -> None:
        self._bound = bound
        self._degree = degree
        self._seed = seed
        self._restarts = restarts
        super().__init__({"value": Out(ceil_log2(bound)), "restart": In(1), "advance": In(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        bits = draw_bits(self._bound)
        if not bits:
            return m
        places = [sorted(p) for p in leap(self._degree, bits)]
        state = Signal(self._degree, init=self._seed)
        after = Cat(xor_of(state, p) for p in places)
        again = sum(parity(self._seed, p) << i for i, p in enumerate(places))

        def restarted(start: int, value: Value) -> Value:
            return Mux(self.restart, start, value) if self._restarts else value

        with m.If(self.advance):
            m.d.sync += state.eq(restarted(again, after))
        if bits == ceil_log2(self._bound):
            m.d.comb += self.value.eq(restarted(self._seed % 2**bits, state[:bits]))
        else:
            start, second = (s % 2**bits * self._bound >> bits for s in (self._seed, again))
            scaled = Signal.like(self.value, init=start)
            with m.If(self.advance):
                m.d.sync += scaled.eq(
                    restarted(second, multiply(after[:bits], self._bound) >> bits)
                )
            m.d.comb += self.value.eq(restarted(start, scaled))
        return m


class SobolSource(wiring.Component):
    """An integer below `bound` from one dimension of Sobol's sequence, from its start on.

    Point t has as bit p below the binary point the XOR of the bits i >= p of t where the generator
    matrix is 1: i = p in dimension 0 (van der Corput's sequence), C(i, p) odd in dimension 1
    (Pascal's triangle). Source: Sobol, USSR Comp. Math. 7, 1967; points in the order of their
    index, not of its Gray code. There is no randomness: errors of a mean over t fall faster than
    those of random draws.

    The point after the next is made while the next one is scaled, so that neither is on the path
    of the other; a bound that is a power of two takes no scaling, just the top bits.

    Parameters
    ----------
    bound : int
        1 or more.
    dimension : {0, 1}
    steps : int
        Points of the sequence; no more than these may be used before the next `restart`.
    order : sequence of int, optional
        The integer that each one is exchanged for; `bound` is a power of two then.

    Attributes
    ----------
    value : Signal(range(bound)), out
    restart : Signal(), in
        Be at point 0.
    advance : Signal(), in
        Go to the next point.
    """

    def __init__(
        self, bound: int, dimension: int, steps: int, order: Sequence[int] | None = None
    ) -> None:
        self._bound = bound
        self._dimension = dimension
        self._steps = steps
        self._order = order
        super().__init__({"value": Out(ceil_log2(bound)), "restart": In(1), "advance": In(1)})

    def _places(self, bits: int, count: int) -> list[list[int]]:
        """Return, for each bit of a point, the last one first, the bits of t whose XOR it is."""

        def odd(i: int, place: int) -> bool:  # Lucas: C(i, p) is odd iff p is contained in i
            return i == place if self._dimension == 0 else i & place == place

        return [[i for i in range(p, count) if odd(i, p)] for p in reversed(range(bits))]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        bits, count = draw_bits(self._bound), ceil_log2(self._steps)
        order = self._order or range(self._bound)
        m.d.comb += self.value.eq(order[0])
        if not bits or not count:  # there is but the first point
            return m
        places = self._places(bits, count)
        second = 2 % 2**count  # with two steps that point is not used
        first_point, second_point = (
            sum(parity(t, p) << i for i, p in enumerate(places)) for t in (1, second)
        )
        index = Signal(count, init=second)  # of the point after the next
        point = Signal(bits, init=first_point)  # the next one
        value = Signal.like(self.value)
        exchanged: Value = multiply(point, self._bound) >> bits
        if self._order:
            m.submodules.order = rom = memory.Memory(
                shape=ceil_log2(self._bound), depth=self._bound, init=order
            )
            read = rom.read_port(domain="comb")
            m.d.comb += read.addr.eq(point)
            exchanged = read.data
        with m.If(self.advance):
            m.d.sync += [
                index.eq(Mux(self.restart, 3, index + 1)),
                point.eq(Mux(self.restart, second_point, Cat(xor_of(index, p) for p in places))),
                value.eq(Mux(self.restart, order[first_point * self._bound >> bits], exchanged)),
            ]
        with m.If(~self.restart):
            m.d.comb += self.value.eq(value)
        return m
