import re

import numpy as np
import pytest
from amaranth.sim import Simulator

from gen.emit import emit
from gen.vectors import random_stimulus
from hw.config import ConfigError
from hw.encoder import Encoder, EncoderConfig
from hw.transformer import TransformerConfig
from hw.transformer.block import SETTINGS
from sim.golden.encoder import encoder
from sim.golden.transformer import transformer
from sim.job import Job
from sim.play import play
from sim.runner import Design, build
from tests.sim.benches import ALL_SIMULATORS

#: Little of everything.
SMALL = {"tokens": 3, "channels": 4, "timesteps": 2, "lanes": 2, "trace": True}


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"blocks": 2}, "unexpected keyword argument 'blocks'"),
     ({"channels": 32, "lanes": 5}, "lanes: want a divisor of channels and hidden (32), got 5"),
     ({"experts": 65}, "experts: want 0..64, got 65")],
)  # fmt: skip
def test_refusals(settings, message):
    with pytest.raises((ConfigError, TypeError), match=re.escape(message)):
        EncoderConfig(**settings)


@pytest.mark.parametrize(
    "settings", [{}, {"attention": "none"}, {"variant": 2}, {"variant": 4}, {"experts": 3}]
)
def test_a_block_is_that_of_a_network(settings):
    """The same settings, and the residual that the embedding makes: the same spikes."""
    sizes = {"tokens": 2, "channels": 4, "channels_per_beat": 2, "timesteps": 3, **settings}
    whole = TransformerConfig(**sizes, input_bits=1, features=2, classes=4, trace=True)
    block = EncoderConfig(**sizes, trace=True)
    assert block.layers == whole.layers - 1  # those behind the block
    assert block.weight_count == whole.weight_count - 2 * 4 - 4 * 4
    assert block.bias_count == whole.bias_count - 2 * 4 - 4
    arrays = random_stimulus(whole, np.random.default_rng(2))
    weights = arrays["weights"][:8].reshape(2, 4).T  # a group of all outputs, input by input
    bias = arrays["bias"][:8].reshape(2, 4)
    residual = (arrays["patches"] @ weights.T + bias) << arrays["shift"][0]
    inner = {
        "current": np.broadcast_to(residual, (3, 2, 4)), "threshold": arrays["threshold"][:-1],
        "weights": arrays["weights"][8:-16], "bias": arrays["bias"][8:-4],
        "shift": arrays["shift"][1:],
        **{n: x for n, x in arrays.items() if n == "attention_threshold"},
    }  # fmt: skip
    want = transformer(whole.asdict(), arrays)[0]["spikes"]
    got = encoder(block.asdict(), inner)[0]["spikes"]
    assert got.any()
    assert np.array_equal(got, want[: got.size])


def test_what_is_not_taken_stays():
    """While an inference's last number waits, the next one does not write over it."""
    sizes = {"tokens": 1, "channels": 1, "hidden": 1, "timesteps": 1, "attention": "none"}
    config = EncoderConfig(**sizes)
    arrays = random_stimulus(config, np.random.default_rng(3))
    residuals = np.array([5, -9, 77])
    want = [
        int(encoder(config.asdict(), arrays | {"current": r.reshape(1, 1, 1)})[0]["out"].item())
        for r in residuals
    ]
    dut = Encoder(config)
    got = []

    async def put(ctx, stream, values):
        for i, value in enumerate(values):
            ctx.set(stream.payload.data[0], int(value))
            ctx.set(stream.payload.first, int(i == 0))
            ctx.set(stream.payload.last, int(i == len(values) - 1))
            ctx.set(stream.valid, 1)
            await ctx.tick().until(stream.ready)
        ctx.set(stream.valid, 0)

    async def send(ctx):
        for name in SETTINGS:
            await put(ctx, getattr(dut, name), arrays[name].ravel())
        for residual in residuals:
            await put(ctx, dut.current, [residual])

    async def take(ctx):
        for _ in residuals:
            await ctx.tick().until(dut.out.valid)
            seen = {ctx.get(dut.out.payload.data[0])}
            for _ in range(2 * config.cycles):
                await ctx.tick()
                assert ctx.get(dut.out.valid)
                seen.add(ctx.get(dut.out.payload.data[0]))
            got.append(seen)
            ctx.set(dut.out.ready, 1)
            await ctx.tick()
            ctx.set(dut.out.ready, 0)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(send)
    simulator.add_testbench(take)
    simulator.run()
    assert got == [{value} for value in want]


@pytest.mark.slow
@pytest.mark.parametrize("simulator", ALL_SIMULATORS)
@pytest.mark.parametrize(
    "settings",
    [{}, {"experts": 3}, {"attention": "none", "mode": "events"}, {"variant": 3, "experts": 1},
     {"attention": "ssa", "tokens": 4, "reset": "soft"}, {"variant": 4, "mode": "events"}],
)  # fmt: skip
def test_inferences_in_a_row(settings, simulator):
    """Residuals and all spikes, and the clocks."""
    config = EncoderConfig(**SMALL | settings)
    rng = np.random.default_rng(1)
    several = [random_stimulus(config, rng) for _ in range(3)]
    batch = {n: np.stack([x] * 3) for n, x in several[0].items()}
    batch["current"] = np.stack([x["current"] for x in several])
    emission = emit("encoder", config)
    simulated = Design(emission.name, {f"{emission.name}.v": emission.verilog})
    job = Job("encoder", config.asdict())
    result = play(build(simulated, simulator), simulated, simulator, job, batch)
    assert not result.message
    assert result.wrong == 0
    assert result.golden["spikes"].any()
    if config.mode == "dense":
        assert result.clocks == 3 * config.cycles + 2  # a clock in front of each that follows
    else:
        assert result.clocks <= 3 * config.cycles + 2
