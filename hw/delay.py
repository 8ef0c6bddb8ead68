"""Values of some clocks ago."""

from amaranth import Module, Signal
from amaranth.hdl import Value, ValueLike


def delayed(
    m: Module, value: ValueLike, clocks: int, name: str, *, reset_less: bool = True
) -> Value:
    """Return `value` so many clocks later, 0 at first; only if asked to a reset clears it."""
    value = Value.cast(value)
    for i in range(clocks):
        later = Signal(len(value), name=f"{name}_{i + 1}", reset_less=reset_less)
        m.d.sync += later.eq(value)
        value = later
    return value
