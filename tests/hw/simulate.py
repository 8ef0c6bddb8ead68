"""Small combinational and clocked circuits in Amaranth's own simulator."""

from amaranth import Module, Signal
from amaranth.sim import Simulator


def evaluate(build, inputs, cases):
    """Return the outputs of ``build(m, *signals)`` for each case of input values."""
    m = Module()
    signals = [Signal(shape, name=name) for name, shape in inputs.items()]
    value = build(m, *signals)
    out = Signal(value.shape())
    m.d.comb += out.eq(value)
    results = []

    async def bench(ctx):
        for case in cases:
            for signal, number in zip(signals, case, strict=True):
                ctx.set(signal, number)
            results.append(ctx.get(out))

    simulator = Simulator(m)
    simulator.add_testbench(bench)
    simulator.run()
    return results
