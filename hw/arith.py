"""Integer arithmetic whose widths are never left to chance."""

from collections.abc import Sequence

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.hdl import Value, ValueLike
from amaranth.utils import ceil_log2

POPCOUNT_CHUNK = 16
"""Bits that are counted before the register in the middle of a `pipelined_popcount`."""


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


def popcount(bits: Sequence[Value]) -> Value:
    """Return the number of ones among `bits`, ceil(log2(n + 1)) bits wide.

    A balanced tree of adders. At 64 bits with the AND in front, Yosys 0.70 maps it to 162 LUT4
    (iCE40) or 164 LUT4-equivalents (ECP5); a carry-save tree of full adders took 175 and 167,
    tables of three bits in front of the adders 165 and 168.
    """
    return add_tree(bits)[: len(bits).bit_length()]


def pipelined_popcount(m: Module, bits: Sequence[Value], enable: ValueLike, name: str) -> Signal:
    """Return the number of ones among `bits`, two clocks of `enable` later.

    The first register holds the counts of chunks of `POPCOUNT_CHUNK` bits, the second their sum.
    """
    chunks = []
    for i in range(0, len(bits), POPCOUNT_CHUNK):
        part = popcount(bits[i : i + POPCOUNT_CHUNK])
        chunk = Signal(len(part), name=f"{name}_chunk{i // POPCOUNT_CHUNK}")
        chunks.append(chunk)
        with m.If(enable):
            m.d.sync += chunk.eq(part)
    count = Signal(len(bits).bit_length(), name=f"{name}_count")
    with m.If(enable):
        m.d.sync += count.eq(add_tree(chunks))
    return count


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
