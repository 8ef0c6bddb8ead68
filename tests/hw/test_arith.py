import random
import re

import pytest
from amaranth import Const, Module, Signal, signed, unsigned
from amaranth.back import rtlil
from amaranth.sim import Simulator

from hw.arith import (
    add_modulo,
    add_tree,
    add_with_carry,
    count_clocks,
    count_layers,
    multiply,
    pipelined_counts,
    popcount,
)
from tests.hw.simulate import evaluate


@pytest.mark.parametrize("bits", [1, 2, 3, 5, 8, 17, 64, 255, 256])
def test_popcount_counts_and_holds_the_full_count(bits):
    rng = random.Random(bits)
    words = [0, 2**bits - 1, *(rng.getrandbits(bits) for _ in range(30))]
    got = evaluate(lambda _, x: popcount(list(x)), {"x": bits}, [(w,) for w in words])
    assert got == [w.bit_count() for w in words]


@pytest.mark.parametrize("longest", [16, 32])
def test_carry_chains_are_as_long_as_they_may_be(longest):
    m = Module()
    words = [Signal(64, name=f"word{i}") for i in range(4)]
    starts = [[Const(0, 6)] * count_clocks(64, 6)] * 4
    counts = pipelined_counts(m, [list(word) for word in words], starts, "x", longest=longest)
    text = rtlil.convert(m, ports=[*words, *counts])
    places = [int(width) - 1 for width in re.findall(r"wire width (\d+) \\x_layer\d+_chain", text)]
    assert longest - 8 < max(places) <= longest


@pytest.mark.parametrize("longest", [16, 32])
@pytest.mark.parametrize("late", [0, 1, 2])
@pytest.mark.parametrize(
    ("bits", "width"),
    [(1, 0), (1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (16, 4), (37, 6), (64, 6), (100, 7), (256, 8)],
)
def test_pipelined_counts_come_with_their_starts_after_their_clocks(bits, width, late, longest):
    clocks = count_clocks(bits, width, late)
    assert clocks > late
    rng = random.Random(bits)
    m = Module()
    words = [Signal(bits, name=f"word{i}") for i in range(2)]
    numbers = [Signal(width, name=f"number{i}") for i in range(2)]
    starts = []
    for i, number in enumerate(numbers):
        chain = [number]
        for clock in range(clocks - 1):
            chain.append(Signal(width, name=f"number{i}_{clock}"))
            m.d.sync += chain[-1].eq(chain[-2])
        starts.append(chain[late:])
    counts = pipelined_counts(m, [list(word) for word in words], starts, "x", late, longest=longest)
    full = 2**bits - 1, 2**width - 1
    cases = [[full, (0, 0)], [(0, full[1]), (full[0], 0)], [full, full]]
    for _ in range(20):
        density = rng.random()
        cases.append(
            [
                (sum((rng.random() < density) << i for i in range(bits)), rng.getrandbits(width + 1)
                 % 2**width)
                for _ in range(2)
            ]
        )  # fmt: skip

    async def bench(ctx):
        for clock in range(len(cases) + clocks):
            for i, (word, number) in enumerate(cases[clock] if clock < len(cases) else cases[0]):
                ctx.set(words[i], word)
                ctx.set(numbers[i], number)
            if clock >= clocks:
                want = [word.bit_count() + number for word, number in cases[clock - clocks]]
                assert [ctx.get(count) for count in counts] == want
            await ctx.tick()

    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


def test_counting_64_bits_and_comparing_takes_101_places_of_carry_chains():
    layers = count_layers(64, 6)
    assert sum(length + 1 for segments in layers for _, length in segments) == 101
    assert count_clocks(64, 6) == 3


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
