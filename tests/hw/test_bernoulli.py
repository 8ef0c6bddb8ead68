import itertools

import pytest
from amaranth import Module, Signal
from amaranth.sim import Simulator

from hw.bernoulli import (
    POLYNOMIALS,
    SCALED_BITS,
    SobolSource,
    UniformSource,
    draw_bits,
    leap,
    permutation,
    splitmix64,
)
from sim.golden import attention as golden


def multiply_mod(a, b, degree):
    """Return a * b in GF(2)[x] modulo the polynomial of an LFSR."""
    polynomial = 1 | sum(1 << e for e in POLYNOMIALS[degree])
    product = 0
    for i in range(degree):
        if b >> i & 1:
            product ^= a << i
    for i in range(2 * degree, degree - 1, -1):
        if product >> i & 1:
            product ^= polynomial << (i - degree)
    return product


def power_of_x(exponent, degree):
    result, square = 1, 2
    while exponent:
        if exponent & 1:
            result = multiply_mod(result, square, degree)
        square = multiply_mod(square, square, degree)
        exponent >>= 1
    return result


@pytest.mark.parametrize(("degree", "primes"), [(31, [2**31 - 1]), (32, [3, 5, 17, 257, 65537])])
def test_polynomials_are_primitive(degree, primes):
    order = 2**degree - 1
    assert power_of_x(order, degree) == 1
    for prime in primes:
        assert order % prime == 0
        # Of prime order nothing but 1 itself could have a smaller one.
        assert power_of_x(order // prime, degree) != 1


@pytest.mark.parametrize("degree", POLYNOMIALS)
@pytest.mark.parametrize("steps", [1, 4, 20, 40])
def test_leap_equals_single_shifts(degree, steps):
    state = 0x2C0FFEE1
    expected = state
    for _ in range(steps):
        feedback = 0
        for e in POLYNOMIALS[degree]:
            feedback ^= expected >> (e - 1) & 1
        expected = (expected << 1 | feedback) & (2**degree - 1)
    got = 0
    for i, places in enumerate(leap(degree, steps)):
        got |= (sum(state >> p & 1 for p in places) & 1) << i
    assert got == expected


def test_splitmix64_gives_the_published_sequence():
    # First outputs for the seed 1234567, from the reference implementation by S. Vigna.
    state, outputs = 1234567, []
    for _ in range(3):
        outputs.append(splitmix64(state))
        state += 0x9E3779B97F4A7C15
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@pytest.mark.parametrize(("size", "length"), [(1, 3), (5, 5), (16, 16), (16, 40), (64, 20)])
def test_permutations_repeat_no_number_within_one(size, length):
    table = permutation(7, size, length)
    assert len(table) == length
    for start in range(0, length, size):
        part = table[start : start + size]
        assert len(set(part)) == len(part)
        assert set(part) <= set(range(size))
    assert size < 5 or table != permutation(8, size, length)


def test_permutations_are_uniform():
    counts = dict.fromkeys(itertools.permutations(range(4)), 0)
    draws = 4800
    for seed in range(draws):
        counts[tuple(permutation(splitmix64(seed), 4, 4))] += 1
    expected = draws / 24
    chi_squared = sum((n - expected) ** 2 / expected for n in counts.values())
    assert chi_squared < 49.7  # 23 degrees of freedom, 1 in 1000


@pytest.mark.parametrize("bound", [2, 3, 16, 100, 196, 256])
def test_draws_are_uniform_fresh_and_held(bound):
    source = UniformSource(bound, 32, 12345)
    values = []

    async def bench(ctx):
        for i in range(4000):
            values.append(ctx.get(source.value))
            if i % 50 == 0:  # without `advance` nothing moves
                await ctx.tick()
                assert ctx.get(source.value) == values[-1]
            ctx.set(source.advance, 1)
            await ctx.tick()
            ctx.set(source.advance, 0)

    simulator = Simulator(source)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert set(values) <= set(range(bound))
    expected = len(values) / bound
    chi_squared = sum((values.count(v) - expected) ** 2 / expected for v in range(bound))
    freedom = bound - 1
    assert chi_squared < freedom + 4 * (2 * freedom) ** 0.5 + 8
    # Successive draws share no bit, so pairs are uniform as well.
    pairs = [(a * bound + b) * 16 // bound**2 for a, b in itertools.pairwise(values)]
    weights = [0.0] * 16
    for cell in range(bound**2):
        weights[cell * 16 // bound**2] += len(pairs) / bound**2
    chi_squared = sum((pairs.count(i) - w) ** 2 / w for i, w in enumerate(weights) if w)
    assert chi_squared < 44


def test_draw_bits():
    assert [draw_bits(b) for b in (1, 2, 64, 256, 3, 196)] == [0, 1, 6, 8, SCALED_BITS, SCALED_BITS]


def drawn(source, moments):
    """Return the value in each clock of ``(restart, advance)``."""
    values = []

    async def bench(ctx):
        for restart, advance in moments:
            ctx.set(source.restart, restart)
            ctx.set(source.advance, advance)
            values.append(ctx.get(source.value))
            await ctx.tick()

    m = Module()
    m.submodules += source
    m.d.sync += Signal().eq(1)  # the source of a single number has no clock
    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return values


def inferences(lengths):
    """Return the moments, and the time step of each, of inferences of so many time steps."""
    moments, expected = [], []
    for length in lengths:
        for t in range(length):
            waits = (t + length) % 3
            moments += [(t == 0, 0)] * waits + [(t == 0, 1)]
            expected += [t] * (waits + 1)
    return moments, expected


LENGTHS = [5, 1, 5, 2, 4]


@pytest.mark.parametrize("bound", [1, 2, 16, 3, 100, 256])
def test_restart_begins_with_the_draw_of_the_seed(bound):
    moments, expected = inferences(LENGTHS)
    values = drawn(UniformSource(bound, 31, 0x2C0FFEE1, restarts=True), moments)
    register, numbers = 0x2C0FFEE1, []
    for _ in range(5):
        number, register = golden.draw(register, 31, bound)
        numbers.append(number)
    assert values == [numbers[t] for t in expected]


def test_without_restarts_the_draws_run_on():
    moments, _ = inferences(LENGTHS)
    runs_on = drawn(UniformSource(16, 32, 77), moments)
    assert runs_on == drawn(UniformSource(16, 32, 77), [(0, advance) for _, advance in moments])


@pytest.mark.parametrize("bound", [1, 2, 64, 3, 196, 256])
@pytest.mark.parametrize("dimension", [0, 1])
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 16, 33])
def test_sobol_is_goldens(steps, dimension, bound):
    lengths = [min(steps, length) for length in (steps, 1, steps, 2, steps)]
    moments, expected = inferences(lengths)
    values = drawn(SobolSource(bound, dimension, steps), moments)
    assert values == [golden.sobol(t, dimension, bound) for t in expected]


@pytest.mark.parametrize("dimension", [0, 1])
def test_sobol_fills_every_cell_once(dimension):
    values = drawn(SobolSource(64, dimension, 64), [(t == 0, 1) for t in range(64)])
    assert sorted(values) == list(range(64))
