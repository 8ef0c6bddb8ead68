import random

import pytest
from amaranth import Module, Signal, signed, unsigned
from amaranth.sim import Simulator

from hw.arith import (
    add_modulo,
    add_tree,
    add_with_carry,
    multiply,
    pipelined_popcount,
    popcount,
)
from tests.hw.simulate import evaluate


@pytest.mark.parametrize("bits", [1, 2, 3, 5, 8, 17, 64, 255, 256])
def test_popcount_counts_and_holds_the_full_count(bits):
    rng = random.Random(bits)
    words = [0, 2**bits - 1, *(rng.getrandbits(bits) for _ in range(30))]
    got = evaluate(lambda _, x: popcount(list(x)), {"x": bits}, [(w,) for w in words])
    assert got == [w.bit_count() for w in words]


@pytest.mark.parametrize("bits", [1, 16, 17, 100])
def test_pipelined_popcount_takes_two_enabled_clocks(bits):
    m = Module()
    word, enable = Signal(bits), Signal()
    count = pipelined_popcount(m, list(word), enable, "x")

    async def bench(ctx):
        ctx.set(word, 2**bits - 1)
        ctx.set(enable, 1)
        await ctx.tick()
        assert ctx.get(count) == 0
        ctx.set(word, 0)
        ctx.set(enable, 0)
        await ctx.tick().repeat(3)
        assert ctx.get(count) == 0
        ctx.set(enable, 1)
        await ctx.tick()
        assert ctx.get(count) == bits
        await ctx.tick()
        assert ctx.get(count) == 0

    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


def test_add_tree_of_signed_bytes_is_narrow_and_right():
    terms = [Signal(signed(8), name=f"t{i}") for i in range(64)]
    assert len(add_tree(terms)) == 14
    assert len(add_tree([])) == 1
    shapes = {f"t{i}": signed(8) for i in range(5)}
    cases = [(-128,) * 5, (127,) * 5, (1, -2, 3, -4, 5)]
    assert evaluate(lambda _, *t: add_tree(t), shapes, cases) == [-640, 635, 3]


@pytest.mark.parametrize("constant", [0, 1, 2, 3, 7, 29, 255, 57672, 65535])
def test_multiply(constant):
    cases = [(-256,), (-1,), (0,), (1,), (255,), (77,)]
    got = evaluate(lambda _, x: multiply(x, constant), {"x": signed(9)}, cases)
    assert got == [x * constant for (x,) in cases]


@pytest.mark.parametrize("modulus", [3, 5, 6, 7, 196])
def test_add_modulo(modulus):
    cases = [(a, b) for a in range(modulus) for b in range(0, modulus, max(1, modulus // 7))]
    shapes = {"a": range(modulus), "b": range(modulus)}
    got = evaluate(lambda _, a, b: add_modulo(a, b, modulus), shapes, cases)
    assert got == [(a + b) % modulus for a, b in cases]


@pytest.mark.parametrize("shape", [signed(4), unsigned(4)])
def test_add_with_carry(shape):
    values = range(-8, 8) if shape.signed else range(16)
    cases = [(a, b, c) for a in values for b in values for c in (0, 1)]
    got = evaluate(
        lambda _, a, b, c: add_with_carry(a, b, c), {"a": shape, "b": shape, "c": 1}, cases
    )
    assert got == [a + b + c for a, b, c in cases]
