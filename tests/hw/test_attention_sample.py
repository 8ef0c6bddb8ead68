"""The sample encoder in Amaranth's simulator against golden: sizes, heads, sources, inferences."""

import numpy as np
import pytest
from amaranth.sim import Simulator

from hw.attention import AttentionConfig, attention
from sim.golden import attention as golden


def run(config, infs, seed):
    """Return the tokens [inference, T, N, D] that come out of a chain of inferences."""
    dut = attention(config)
    steps, tokens, channels = config.timesteps, config.tokens, config.channels
    total = len(infs) * steps * tokens
    weights = [1 << i for i in range(channels)]
    rng = np.random.default_rng(seed)
    stalls = rng.random((4, 8 * total)) < rng.choice([0.0, 0.3], (4, 1))
    out = []

    def source(port, arrays, stalls):
        async def drive(ctx):
            moment = 0
            for array in arrays:
                for t in range(steps):
                    for n in range(tokens):
                        while stalls[moment % len(stalls)]:
                            moment += 1
                            await ctx.tick()
                        moment += 1
                        word = sum(w for w, bit in zip(weights, array[t, n], strict=True) if bit)
                        ctx.set(port.payload.data.as_value(), word)
                        ctx.set(port.payload.last, n == tokens - 1)
                        ctx.set(port.payload.first, t == n == 0)
                        ctx.set(port.valid, 1)
                        await ctx.tick().until(port.ready)
                        ctx.set(port.valid, 0)

        return drive

    async def sink(ctx):
        o, clock = dut.out, 0
        while len(out) < total:
            ctx.set(o.ready, not stalls[3][clock % len(stalls[3])])
            clock += 1
            assert clock < 100 * total + 1000, "stuck"
            *_, moves, word, last, first = await ctx.tick().sample(
                o.valid & o.ready, o.payload.data.as_value(), o.payload.last, o.payload.first
            )
            if moves:
                place = len(out) % (steps * tokens)
                assert last == (place % tokens == tokens - 1)
                assert first == (place == 0)
                out.append([word >> i & 1 for i in range(channels)])

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    for i, name in enumerate("qkv"):
        arrays = [inf[name] for inf in infs]
        simulator.add_testbench(source(getattr(dut, name), arrays, stalls[i]), background=True)
    simulator.add_testbench(sink)
    simulator.run()
    return np.array(out).reshape(len(infs), steps, tokens, channels)


@pytest.mark.parametrize("settings", [{}, {"causal": True}, {"reseed": True}, {"rng": "sobol"}])
@pytest.mark.parametrize(
    ("tokens", "head_dim", "heads", "timesteps"),
    [(1, 1, 1, 3), (1, 4, 2, 5), (4, 1, 2, 2), (2, 8, 1, 3), (8, 2, 3, 2), (4, 4, 1, 1),
     pytest.param(16, 4, 2, 5, marks=pytest.mark.slow), (8, 16, 1, 2)],
)  # fmt: skip
def test_golden(tokens, head_dim, heads, timesteps, settings):
    config = AttentionConfig(
        encoder="sample", tokens=tokens, head_dim=head_dim, heads=heads, timesteps=timesteps,
        seed=tokens + 77, **settings,
    )  # fmt: skip
    rng = np.random.default_rng(tokens)
    shape = (timesteps, tokens, config.channels)
    infs = [{x: rng.random(shape) < p for x in "qkv"} for p in (0.9, 0.7, 1.0)]
    got = run(config, infs, seed=tokens + head_dim)
    state = None
    for inf, out in zip(infs, got, strict=True):
        want, state = golden.attention(config.asdict(), inf, state)
        np.testing.assert_array_equal(out, want["out"])
