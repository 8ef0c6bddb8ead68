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

from amaranth import Cat, Module, Signal
from amaranth.hdl import Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from hw.arith import add_modulo, multiply

POLYNOMIALS = {32: (32, 22, 2, 1), 31: (31, 3, 2, 1)}
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


class UniformSource(wiring.Component):
    """A uniform integer below `bound` from a leaping LFSR.

    The LFSR is of Fibonacci form, bit 0 the newest. A draw uses its low `draw_bits` bits, and
    `advance` shifts by as many at once, so successive draws share no bit. It is reset by ``rst``
    alone. Cost: the register, and one XOR of up to four bits per drawn bit (a bound that is not a
    power of two adds a constant multiplication, and a register behind it).

    Parameters
    ----------
    bound : int
        1 or more.
    degree : int
        A key of `POLYNOMIALS`.
    seed : int
        Initial state, 1 to 2^degree - 1.

    Attributes
    ----------
    value : Signal(range(bound)), out
    advance : Signal(), in
        Take the next draw.
    """

    def __init__(self, bound: int, degree: int, seed: int) -> None:
        self._bound = bound
        self._degree = degree
        self._seed = seed
        super().__init__({"value": Out(ceil_log2(bound)), "advance": In(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        bits = draw_bits(self._bound)
        if not bits:
            return m
        state = Signal(self._degree, init=self._seed)
        after = Cat(xor_of(state, sorted(p)) for p in leap(self._degree, bits))
        with m.If(self.advance):
            m.d.sync += state.eq(after)
        if bits == ceil_log2(self._bound):
            m.d.comb += self.value.eq(state[:bits])
        else:
            start = (self._seed % 2**bits * self._bound) >> bits
            scaled = Signal.like(self.value, init=start)
            with m.If(self.advance):
                m.d.sync += scaled.eq(multiply(after[:bits], self._bound) >> bits)
            m.d.comb += self.value.eq(scaled)
        return m
