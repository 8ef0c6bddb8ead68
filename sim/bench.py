"""The test bench of every top, in cocotb: what it does follows from the configuration alone.

Each test powers on from where the last one left the top, resets it, and ends with nothing left
over and with the right count of broken frames. All random numbers follow from the job's seed.
"""

import itertools
from typing import Any

import cocotb
import numpy as np

from sim.drivers import PATTERNS
from sim.experts import EXPERT_CLOCKS
from sim.faults import breakers
from sim.harness import Bench
from sim.job import Job
from sim.stimuli import STYLES

JOB = Job.load()
CONFIG = JOB.config
INPUTS = [s for s in CONFIG.streams if s.direction == "in" and not s.auxiliary]
SETTINGS = [s for s in CONFIG.streams if s.direction == "in" and s.auxiliary and not s.peer]
NAMES = {s.name for s in INPUTS}
LOADED = {s.name for s in SETTINGS}

CLOCKS = 2000
"""A test takes about so many clocks without stalls, where an inference is not longer."""


def times(most: int) -> int:
    """Return how many inferences a test can afford: `most`, or fewer if they are long."""
    return max(2, min(most, CLOCKS // (CONFIG.timesteps * CONFIG.interval)))


@cocotb.test()
async def power_up(dut: Any) -> None:
    """Work without any reset, with the settings that it was built with."""
    bench = Bench(dut, JOB, "power_up")
    needed = {n for n, a in CONFIG.stimulus.items() if a.stream in LOADED and not a.optional}
    if needed:
        await bench.load({n: a for n, a in bench.draw_settings().items() if n in needed})
    for _ in range(2):
        bench.send(bench.draw())
    await bench.finish()


@cocotb.test()
@cocotb.parametrize(pattern=["none", *PATTERNS])
async def golden_under_stalls(dut: Any, pattern: str) -> None:
    """Put out what golden does, whatever port stalls when."""
    bench = await Bench.after_reset(dut, JOB, f"golden_under_stalls {pattern}")
    bench.stall(pattern)
    for _ in range(times(16)):
        bench.send(bench.draw())
    await bench.finish()


@cocotb.test()
async def extremes(dut: Any) -> None:
    """Take sparse and dense inferences and those at the ends of the range, back to back.

    Neighbours differ as much as they can, so state that is carried over shows.
    """
    bench = await Bench.after_reset(dut, JOB, "extremes")
    for styles in itertools.islice(itertools.permutations(STYLES, 2), times(42)):
        for style in styles:
            bench.send(bench.draw(style))
    await bench.finish()


@cocotb.test()
async def timing(dut: Any) -> None:
    """Have exactly the latency, interval and cycles of the configuration."""
    bench = await Bench.after_reset(dut, JOB, "timing")
    steady = CONFIG.steady
    if steady:
        settings = bench.draw_settings()
        await bench.load({n: np.full_like(settings[n], value) for n, value in steady.items()})
        bench.forget()

    def slowest() -> dict[str, np.ndarray]:
        arrays = bench.draw()
        return arrays | {n: np.full_like(arrays[n], value) for n, value in CONFIG.busiest.items()}

    bench.send(slowest())
    await bench.quiet()
    ports = bench.monitor.ports
    begin = min(ports[s.name].beats[0].clock for s in bench.inputs)
    active = [s for s in CONFIG.streams if s.direction == "out" and ports[s.name].beats]
    latency = min(ports[s.name].beats[0].clock for s in active) - begin
    cycles = max(ports[s.name].beats[-1].clock for s in bench.outputs) - begin
    if bench.experts and bench.experts.asked:
        cycles -= EXPERT_CLOCKS
    bench.check()
    assert latency == CONFIG.latency, f"latency: want {CONFIG.latency} clocks, got {latency}"
    if not CONFIG.waits:
        assert cycles == CONFIG.cycles, f"cycles: want {CONFIG.cycles} clocks, got {cycles}"
    if CONFIG.asks:
        await bench.load(bench.draw_settings())
        bench.forget()

    # The steady state is reached once all buffers are full: the second half is sure to be in it.
    for _ in range(max(4 if CONFIG.by_inference else 2, -(-16 // CONFIG.timesteps))):
        bench.send(slowest())
    await bench.quiet()
    if CONFIG.waits:
        bench.check()
        return
    for s in bench.outputs:
        ends = [beat.clock for beat in ports[s.name].beats if beat.word[1]]
        gaps = {b - a for a, b in itertools.pairwise(ends[len(ends) // 2 :])}
        between = CONFIG.period - (s.steps - 1) * CONFIG.interval  # one inference and the next
        want = {between, CONFIG.interval} if s.steps > 1 else {between}
        assert gaps == want, f"{s.name}: interval: want {sorted(want)} clocks, got {sorted(gaps)}"
    for s in (*bench.inputs, *bench.outputs):  # a port that has no clock to spare never waits
        if s.steps * s.beats == CONFIG.period:
            clocks = [beat.clock for beat in ports[s.name].beats]
            gaps = {b - a for a, b in itertools.pairwise(clocks[len(clocks) // 2 :])}
            assert gaps == {1}, f"{s.name}: want a beat a clock, got gaps of {sorted(gaps)} clocks"
    bench.check()


@cocotb.test(skip=not CONFIG.busiest)
async def bounds(dut: Any) -> None:
    """Take at most as long as the configuration says, whatever is sent."""
    bench = await Bench.after_reset(dut, JOB, "bounds")
    ports = bench.monitor.ports
    for style in STYLES:
        bench.send(bench.draw(style))
        await bench.quiet()
        begin = min(ports[s.name].beats[0].clock for s in bench.inputs)
        for want, edge, which in (("latency", 0, min), ("cycles", -1, max)):
            took = which(ports[s.name].beats[edge].clock for s in bench.outputs) - begin
            most = getattr(CONFIG, want)
            assert took <= most, f"{want} of {style}: want at most {most} clocks, got {took}"
        bench.check()


@cocotb.test()
async def valid_does_not_wait(dut: Any) -> None:
    """Present the first beat of every output while it is not ready.

    Where whole inferences are kept, stalls are too short to fill all there is room for; this does.
    """
    bench = await Bench.after_reset(dut, JOB, "valid_does_not_wait")
    for s in bench.outputs:
        bench.hold([s])
        for _ in range(4 if CONFIG.by_inference else 1):
            bench.send(bench.draw())
        await bench.quiet()
        port = bench.monitor.ports[s.name]
        assert port.offered, f"{port.prefix}: tvalid waits for tready"
        assert not port.beats, f"{port.prefix}: beats move while tready is 0"
        bench.stall("none")
        await bench.finish()


@cocotb.test(skip=len(INPUTS) < 2)
async def runs_ahead(dut: Any) -> None:
    """Take as many beats of each input alone as the manifest says."""
    bench = await Bench.after_reset(dut, JOB, "runs_ahead")
    for s in bench.inputs:
        bench.hold(other for other in bench.inputs if other is not s)
        for _ in range(s.ahead // (s.beats * s.steps) + 1):
            bench.send(bench.draw())
        await bench.quiet()
        taken = len(bench.monitor.ports[s.name].beats)
        assert taken == s.ahead, f"{s.name}: ahead: want {s.ahead} beats, got {taken}"
        bench.stall("none")
        await bench.finish()


@cocotb.test(skip=len(INPUTS) < 2 or any(s.ahead < s.beats for s in INPUTS))
async def whole_steps_in_any_order(dut: Any) -> None:
    """Take a whole time step of one stream before the next one's, in any order."""
    bench = await Bench.after_reset(dut, JOB, "whole_steps_in_any_order")
    for order in itertools.islice(itertools.permutations(bench.inputs), 6):
        arrays = bench.draw()
        bench.expect(arrays)
        words = bench.words(arrays)
        for step in range(CONFIG.timesteps):
            for s in order:
                bench.queue({s.name: words[s.name][step * s.beats : (step + 1) * s.beats]})
                port = bench.monitor.ports[s.name]
                waited = 0
                while len(port.beats) < (step + 1) * s.beats:
                    await bench.tick()
                    waited += 1
                    assert waited < s.beats + 2 * CONFIG.interval + CONFIG.latency, (
                        f"{s.name} is stuck with {[o.name for o in order]} sent in this order"
                    )
        await bench.finish()


async def break_one(bench: Bench, chances: dict[str, float], kind: str | None = None) -> None:
    """Send an inference that is broken on some inputs, by `kind` or at random, and a good one."""
    joined = len(bench.inputs) > 1
    arrays = bench.draw()
    beats = bench.words(arrays)
    steps = CONFIG.timesteps
    costs_next = False
    for s in bench.inputs:
        if bench.rng.random() >= chances[s.name]:
            continue
        kinds = breakers(s)
        chosen = kind or str(bench.rng.choice(sorted(kinds)))
        broken = kinds[chosen](s, list(beats[s.name]), bench.rng)
        bench.expect_faults(1 if joined else broken.faults)
        beats[s.name] = broken.words
        steps = min(steps, broken.steps)
        costs_next |= broken.costs_next
    bench.queue(beats)
    if steps == CONFIG.timesteps:
        bench.expect(arrays)
    elif steps and not CONFIG.by_inference:
        bench.expect(arrays, steps)
    if costs_next:
        bench.queue(bench.words(bench.draw()))
    bench.send(bench.draw())


@cocotb.test()
async def framing_faults(dut: Any) -> None:
    """Count each kind of broken frame on each input, and void its inference only."""
    bench = await Bench.after_reset(dut, JOB, "framing_faults")
    for s in bench.inputs:
        for kind in breakers(s):
            for _ in range(times(6) // 2):
                await break_one(bench, {other.name: other is s for other in bench.inputs}, kind)
                try:
                    await bench.finish(whole=False)
                except AssertionError as wrong:
                    raise AssertionError(f"{kind} on {s.name}: {wrong}") from wrong


@cocotb.test()
@cocotb.parametrize(pattern=["none", *PATTERNS])
async def framing_faults_under_stalls(dut: Any, pattern: str) -> None:
    """Take up again behind broken frames, on several inputs at once too."""
    bench = await Bench.after_reset(dut, JOB, f"framing_faults_under_stalls {pattern}")
    bench.stall(pattern)
    for _ in range(times(12)):
        await break_one(bench, dict.fromkeys(NAMES, 0.6))
    await bench.finish(whole=False)


@cocotb.test(skip=not SETTINGS)
async def settings(dut: Any) -> None:
    """Keep settings from one inference to the next and over a reset, and load them again."""
    bench = await Bench.after_reset(dut, JOB, "settings")
    for pattern in PATTERNS:
        bench.stall(pattern)
        for _ in range(2):
            bench.send(bench.draw())
        await bench.finish()
        await bench.reset()
        bench.send(bench.draw())
        await bench.finish()
        bench.stall(pattern)
        await bench.load(bench.draw_settings())


@cocotb.test(skip=not SETTINGS)
async def settings_of_one_value(dut: Any) -> None:
    """Work with settings that are all alike: where elements compete, they tie."""
    bench = await Bench.after_reset(dut, JOB, "settings_of_one_value")
    for style in ("zero", "low", "high"):
        await bench.load(bench.draw_settings(style))
        for _ in range(2):
            bench.send(bench.draw())
        await bench.finish()


@cocotb.test(skip=not SETTINGS)
async def framing_faults_of_settings(dut: Any) -> None:
    """Count broken settings and take whole ones after them."""
    bench = await Bench.after_reset(dut, JOB, "framing_faults_of_settings")
    for s in bench.settings:
        for break_frame in breakers(s).values():
            beats = bench.words(bench.draw_settings())
            broken = break_frame(s, beats[s.name], bench.rng)
            bench.queue({s.name: broken.words})
            bench.expect_faults(broken.faults)
            await bench.load(bench.draw_settings())
            bench.send(bench.draw())
            await bench.finish()


@cocotb.test(skip=not CONFIG.asks)
@cocotb.parametrize(pattern=["none", *PATTERNS])
async def wrong_answers(dut: Any, pattern: str) -> None:
    """Drop and count answers of a wrong length or to another token, and go on."""
    bench = await Bench.after_reset(dut, JOB, f"wrong_answers {pattern}")
    assert bench.experts
    bench.experts.mischief = 0.4
    bench.stall(pattern)
    for _ in range(times(16)):
        bench.send(bench.draw())
    await bench.finish()


@cocotb.test()
async def reset_anywhere(dut: Any) -> None:
    """Be as after power-up after a reset in the middle of anything."""
    bench = await Bench.after_reset(dut, JOB, "reset_anywhere")
    patterns = itertools.cycle(["none", *PATTERNS])
    for _, pattern in zip(range(10), patterns, strict=False):
        bench.stall(pattern)
        for _ in range(2):
            await break_one(bench, dict.fromkeys(NAMES, 0.3))
        await bench.tick(int(bench.rng.integers(1, CONFIG.latency + 2 * CONFIG.interval + 8)))
        await bench.reset()
        bench.send(bench.draw())
        await bench.finish()
