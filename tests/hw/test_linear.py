import dataclasses
import itertools
import re

import numpy as np
import pytest
from amaranth.sim import Simulator
from amaranth.utils import bits_for

from gen.emit import yosys
from gen.vectors import words
from hw.config import ConfigError
from hw.linear import Linear, LinearConfig
from hw.linear.engine import Engine
from hw.linear.plan import Plan, sum_range, value_bits
from sim.job import Job
from sim.play import play
from sim.runner import Design, build
from tests.sim.benches import bench, design, emitted, failures


@pytest.mark.parametrize(
    ("settings", "inputs", "outputs", "channels_per_beat", "lanes"),
    [({}, 32, 32, 16, 8), ({"inputs": 64, "outputs": 10}, 64, 10, 16, 5),
     ({"inputs": 7, "outputs": 13}, 7, 13, 7, 1), ({"inputs": 23}, 23, 32, 1, 8),
     ({"lanes": 3}, 32, 33, 16, 3), ({"channels_per_beat": 24}, 48, 32, 24, 8),
     ({"columns": 5}, 35, 32, 5, 8), ({"columns": 5, "inputs": 30}, 30, 32, 15, 8),
     ({"columns": 24, "inputs": 96}, 96, 32, 24, 8)],
)  # fmt: skip
def test_sizes_follow_from_each_other(settings, inputs, outputs, channels_per_beat, lanes):
    c = LinearConfig(**settings)
    assert (c.inputs, c.outputs) == (inputs, outputs)
    assert (c.channels_per_beat, c.lanes) == (channels_per_beat, lanes)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"outputs": 10, "lanes": 4}, "lanes: want a divisor of outputs (10), got 4"),
     ({"inputs": 10, "channels_per_beat": 4},
      "channels_per_beat: want a divisor of inputs (10), got 4"),
     ({"channels_per_beat": 4, "columns": 3},
      "columns: want a divisor of channels_per_beat (4), got 3"),
     ({"inputs": 7, "columns": 2}, "columns: want a divisor of channels_per_beat (7), got 2"),
     ({"mode": "sparse"}, "mode: want dense | events, got 'sparse'"),
     ({"weight_bits": 9}, "weight_bits: want 2..8, got 9")],
)  # fmt: skip
def test_refusals(settings, message):
    with pytest.raises(ConfigError) as error:
        LinearConfig(**settings)
    assert str(error.value) == message


def test_widths_are_as_small_as_sums_allow():
    """Those of the accumulator included, which is halved in front of each plane."""
    for sizes in itertools.product((1, 3, 64, 4096), (1, 2, 5, 8), (2, 4, 8), (2, 16, 24)):
        inputs, planes, weight_bits, bias_bits = sizes
        low, high = sum_range(*sizes)
        top = inputs * (2**planes - 1)
        weight, bias = 2 ** (weight_bits - 1), 2 ** (bias_bits - 1)
        assert (low, high) == (-top * weight - bias, top * (weight - 1) + bias - 1)
        least = max(bits_for(low, True), bits_for(high, True))
        bits = value_bits(*sizes)
        assert bits == least if planes == 1 else bits >= least
        for plane in range(planes):
            reached = -inputs * (2 ** (plane + 1) - 1) * weight - bias >> plane
            assert bits_for(reached, True) <= bits - (planes - 1)


def clocks(config, spikes):
    """Return clocks from the first beat in to the last beat out, event by event.

    Parameters
    ----------
    config : LinearConfig
    spikes : ndarray [tokens of all inferences, inputs]
    """
    p = config.plan
    taken = 0  # the next beat may come in
    released: list[int] = []  # the last slice of each token is asked for
    for n, token in enumerate(spikes):
        some = token.reshape(p.beats, p.beat_slices, p.columns).any(axis=2).sum(axis=1)
        if n >= p.pages:
            taken = max(taken, released[n - p.pages] + 1)
        for slices in some if p.events else [p.beat_slices] * p.beats:
            taken += slices + p.events
        waits = taken + (3 if p.events else 1)
        each = max(some.sum(), 1) if p.events else p.slices
        begins = max(waits, released[-1] + 1 if n else 0)
        released.append(int(begins + p.groups * p.input_bits * each - 1))
    return released[-1] + p.pipe_clocks


SIZES = [
    pytest.param(
        "tokens=5 inputs=24 outputs=12 lanes=4 channels_per_beat=8", marks=pytest.mark.slow
    ),
    pytest.param("tokens=3 inputs=64 outputs=8 lanes=8", marks=pytest.mark.slow),
    "tokens=7 inputs=12 outputs=2 lanes=2 channels_per_beat=4 columns=2",
    "tokens=4 inputs=10 outputs=6 lanes=2 input_bits=3",
]


@pytest.mark.icarus
@pytest.mark.parametrize("mode", ["dense", "events"])
@pytest.mark.parametrize("sizes", SIZES)
def test_clocks_of_given_spikes(sizes, mode):
    """Exactly, for every share of spikes; those of one value reach the bound, none is above."""
    emission = emitted("linear", f"{sizes} mode={mode} timesteps=2")
    c = emission.config
    tested = design(emission)
    built = build(tested, "icarus")
    rng = np.random.default_rng(7)
    settings = {n: rng.integers(a.low, a.high, [2, *(getattr(c, axis) for axis in a.shape)])[:1]
                for n, a in c.stimulus.items() if n != "spikes"}  # fmt: skip
    seen = []
    for rate in (0, 0.02, 0.1, 0.3, 1):
        some = rng.random((3, c.timesteps, c.tokens, c.inputs)) < rate
        spikes = some * (2**c.input_bits - 1)
        batch = {"spikes": spikes, **{n: a.repeat(3, axis=0) for n, a in settings.items()}}
        job = Job("linear", c.asdict())
        played = play(built, tested, "icarus", job, batch)
        assert (played.wrong, played.message) == (0, "")
        assert played.clocks == clocks(c, spikes.reshape(-1, c.inputs))
        seen.append(played.clocks)
    most = c.cycles + 2 * c.timesteps * c.interval
    assert seen[-1] == most
    assert seen == sorted(seen)
    assert (len(set(seen)) > 3) == (mode == "events")


def test_zeros_take_no_clocks():
    """A tenth of spikes in a tenth of the clocks, but for what a beat takes to come in."""
    c = LinearConfig.preset("digits")
    token = np.zeros((c.tokens * c.timesteps, c.inputs), int)
    token[:, ::10] = 1
    full = clocks(c, np.ones_like(token))
    assert full == c.cycles
    assert clocks(c, token) < full * 7 / 64 + 20


@pytest.mark.parametrize("mode", ["dense", "events"])
@pytest.mark.parametrize(
    "settings", [{}, pytest.param({"columns": 4}, marks=pytest.mark.slow), {"input_bits": 5}]
)
def test_no_multiplier(settings, mode, tmp_path):
    text = " ".join(f"{name}={value}" for name, value in settings.items())
    emission = emitted("linear", f"inputs=32 outputs=16 mode={mode} {text}")
    (tmp_path / "linear.v").write_text(emission.verilog)
    yosys("read_verilog linear.v; proc; select -assert-none t:$mul t:$macc; "
          "design -reset; read_verilog linear.v; synth_ecp5 -top linear; "
          "select -assert-none t:MULT18X18D; select -assert-min 2 t:DP16KD",
          cwd=tmp_path)  # fmt: skip


def test_masks_take_no_luts(tmp_path):
    """They are the resets of flip-flops: of 64 bits of weights none has a LUT in front of it."""
    emission = emitted("linear", "inputs=32 outputs=32 lanes=8")
    (tmp_path / "linear.v").write_text(emission.verilog)
    yosys("read_verilog linear.v; synth_ecp5 -top linear; "
          "select -assert-count 64 w:*.weight?_0 %ci:+TRELLIS_FF[Q] t:TRELLIS_FF %i; "
          "select -assert-none w:*.weight?_0 %ci2:+TRELLIS_FF[Q,DI]:+LUT4[Z] t:LUT4 %i",
          cwd=tmp_path)  # fmt: skip


#: What is changed in the Verilog, and the test that must see it.
MUTANTS = {
    "sums go on from group to group": (
        r"opens_group \? ", "1'h0 ? ", "golden_under_stalls/pattern=none",
    ),
    "every group has the same weights": (
        r"start \+ 4'hc", "start + 4'h0", "golden_under_stalls/pattern=none",
    ),
    "biases of a token in all that follow": (
        r"clock1_valid & clock1_restarts", "1'h0", "extremes",
    ),
    "a token without spikes takes a weight": (
        r"clock1_blank \? 1'h0", "clock1_blank ? 1'h1", "extremes",
    ),
    "a token without spikes is never through": (
        r"assign at_end = .*;", "assign at_end = (k == oldest[3:0]) & ! oldest[4];", "extremes",
    ),
    "room for ever": (r"assign room = .*;", "assign room = 1'h1;", "valid_does_not_wait"),
    "the pipeline does not stop": (
        r"assign moves = \w+ \| o_ready;", "assign moves = 1'h1;",
        "golden_under_stalls/pattern=bursts",
    ),
    "slices of a broken token stay": (r"(\w+) \| abort;", r"\1;", "framing_faults"),
    "empty slices take a clock": (
        r"(assign empty = ).*;", r"\1(! left) & (! found);", "timing",
    ),
}  # fmt: skip

SMALL = (
    "tokens=3 inputs=12 outputs=6 lanes=2 channels_per_beat=4 mode=events bias_per_token=true "
    "timesteps=2"
)


@pytest.mark.icarus
@pytest.mark.parametrize("change", MUTANTS)
def test_broken_hardware_fails(change):
    old, new, test = MUTANTS[change]
    emission = emitted("linear", SMALL)
    text, count = re.subn(old, new, emission.verilog)
    assert count
    broken = Design(emission.name, {f"{emission.name}.v": text})
    assert failures(bench(emission, broken, "icarus", only=test))


@pytest.mark.icarus
def test_the_bench_passes_on_what_is_not_broken():
    emission = emitted("linear", SMALL)
    assert not failures(bench(emission, design(emission), "icarus"))


def test_settings_wait_for_the_inference_at_hand_and_come_before_the_next():
    """Which wait already: each inference has one matrix, and settings do not wait for ever."""
    c = LinearConfig(tokens=2, inputs=4, outputs=2, lanes=1, channels_per_beat=2, timesteps=2)
    rng = np.random.default_rng(8)
    matrices = rng.integers(-128, 128, (5, c.outputs, c.inputs))
    tokens = rng.integers(0, 2, (len(matrices), c.timesteps, c.tokens, c.inputs))
    unit = Linear(c)
    streams = {s.name: s for s in c.streams}
    came = []
    offered = [0]

    async def send(ctx, name, array):
        port = getattr(unit, name)
        for word, last, first in words(streams[name], array):
            ctx.set(port.payload.data.as_value(), word)
            ctx.set(port.payload.last, last)
            ctx.set(port.payload.first, first)
            ctx.set(port.valid, 1)
            while not ctx.get(port.ready):
                await ctx.tick()
            await ctx.tick()
            offered[0] += name == "spikes"
        ctx.set(port.valid, 0)

    async def weights(ctx):
        await send(ctx, "bias", np.zeros(c.outputs, int))
        for n, matrix in enumerate(matrices):
            # Somewhere in the inference before.
            while offered[0] < n * c.timesteps * c.tokens * 2 - 5:
                await ctx.tick()
            await send(ctx, "weights", matrix)

    async def inferences(ctx):
        await ctx.tick().repeat(30)  # until the first matrix is there
        for token in tokens:
            await send(ctx, "spikes", token)

    async def take(ctx):
        ctx.set(unit.out.ready, 1)
        while len(came) < tokens.size // c.inputs * c.outputs:
            if ctx.get(unit.out.valid):
                came.append(ctx.get(unit.out.payload.data[0]))
            await ctx.tick()

    simulator = Simulator(unit)
    simulator.add_clock(1e-6)
    for process in (weights, inferences, take):
        simulator.add_testbench(process)
    simulator.run_until(1e-3)
    want = [spikes @ matrix.T for spikes, matrix in zip(tokens, matrices, strict=True)]
    np.testing.assert_array_equal(came, np.ravel(want))


@dataclasses.dataclass
class Matrix:
    """A matrix in the memory of an engine, and tokens for it."""

    weights: np.ndarray
    bias: np.ndarray
    tokens: np.ndarray
    planes: int
    base: int = 0
    bias_base: int = 0

    def job(self, plan):
        groups = len(self.weights) // plan.lanes
        return {"base": self.base, "stride": self.weights.shape[1] // plan.columns,
                "last_group": groups - 1, "last_plane": self.planes - 1,
                "bias_base": self.bias_base}  # fmt: skip

    def golden(self):
        return self.tokens @ self.weights.T + self.bias


@pytest.mark.parametrize("events", [False, True])
@pytest.mark.parametrize("columns", [1, 2])
def test_an_engine_takes_one_job_after_another(columns, events):
    """Matrices of different sizes, of spikes and of integers, one behind the other in memory."""
    rng = np.random.default_rng(5)
    sizes = [(12, 6, 1, 5, False), (4, 4, 3, 6, True), (8, 2, 1, 4, False), (12, 6, 3, 3, True)]
    matrices = []
    words = biases = 0
    for inputs, outputs, planes, tokens, walks in sizes:
        spikes = rng.integers(0, 2**planes, (tokens, inputs)) * rng.integers(0, 2, (tokens, 1))
        bias = rng.integers(-(2**9), 2**9, (tokens if walks else 1, outputs))
        weights = rng.integers(-128, 128, (outputs, inputs))
        matrices.append(Matrix(weights, bias, spikes, planes, words, biases))
        words += outputs // 2 * inputs // columns
        biases += len(bias) * outputs // 2
    plan = Plan(lanes=2, columns=columns, channels=4, inputs=12, groups=3, input_bits=3,
                weight_bits=8, bias_bits=10, value_bits=value_bits(12, 3, 8, 12), words=words,
                biases=biases, events=events, tag_bits=3,
                least_turns=min(size[1] // 2 * size[2] for size in sizes))  # fmt: skip
    engine = Engine(plan)
    came = []

    async def load(ctx):
        for matrix in matrices:
            outputs, inputs = matrix.weights.shape
            word = matrix.base
            for first, i in itertools.product(range(0, outputs, 2), range(0, inputs, columns)):
                for lane in range(2):
                    some = matrix.weights[first + lane, i : i + columns] & 0xFF
                    ctx.set(engine.weights_data, sum(int(w) << 8 * k for k, w in enumerate(some)))
                    ctx.set(engine.weights_address, word)
                    ctx.set(engine.weights_enable, 1 << lane)
                    await ctx.tick()
                word += 1
            ctx.set(engine.weights_enable, 0)
            for k, pair in enumerate(matrix.bias.reshape(-1, 2)):
                ctx.set(engine.bias_address, matrix.bias_base + k)
                ctx.set(engine.bias_data, [int(b) for b in pair])
                ctx.set(engine.bias_enable, 1)
                await ctx.tick()
            ctx.set(engine.bias_enable, 0)

    async def send(ctx):
        await load(ctx)
        for matrix in matrices:
            while not ctx.get(engine.idle):
                await ctx.tick()
            for name, value in matrix.job(plan).items():
                ctx.set(getattr(engine, name), value)
            for n, token in enumerate(matrix.tokens):
                beats = token.reshape(-1, 4)
                for b, beat in enumerate(beats):
                    ctx.set(engine.i_bits, sum(int(x) << 3 * k for k, x in enumerate(beat)))
                    ctx.set(engine.i_final, b == len(beats) - 1)
                    ctx.set(engine.i_restart, n == 0 or len(matrix.bias) == 1)
                    ctx.set(engine.i_tag, n)
                    ctx.set(engine.i_valid, 1)
                    while not ctx.get(engine.i_ready):
                        await ctx.tick()
                    await ctx.tick()
                ctx.set(engine.i_valid, 0)
        while not ctx.get(engine.idle):
            await ctx.tick()

    async def take(ctx):
        stalls = np.random.default_rng(6)
        while True:
            ctx.set(engine.o_ready, int(stalls.integers(2)))
            if ctx.get(engine.o_valid & engine.o_ready):
                values = [ctx.get(engine.o_values[lane]) for lane in range(2)]
                marks = (engine.o_tag, engine.o_first, engine.o_last)
                came.append((values, *(ctx.get(mark) for mark in marks)))
            await ctx.tick()

    simulator = Simulator(engine)
    simulator.add_clock(1e-6)
    simulator.add_testbench(send)
    simulator.add_testbench(take, background=True)
    simulator.run()
    want = []
    for matrix in matrices:
        for n, values in enumerate(matrix.golden() << plan.input_bits - matrix.planes):
            pairs = values.reshape(-1, 2)
            want += [([int(v) for v in pair], n, int(g == 0), int(g == len(pairs) - 1))
                     for g, pair in enumerate(pairs)]  # fmt: skip
    assert came == want
