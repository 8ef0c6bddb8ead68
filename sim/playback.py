"""The user's own data through a top, in cocotb, with no stalls; what comes out is stored."""

from typing import Any

import cocotb
import numpy as np

from gen.vectors import marks, unpack
from sim.harness import Bench
from sim.job import Job

JOB = Job.load()


@cocotb.test()
async def playback(dut: Any) -> None:
    """Send each inference of the stimulus; store the whole time steps that come out, and clocks.

    Inferences go back to back where their settings are the same; loading settings takes a pause,
    which is not counted.
    """
    assert JOB.stimulus
    assert JOB.result
    bench = Bench(dut, JOB, "playback")
    await bench.reset()
    with np.load(JOB.stimulus) as file:
        batch = dict(file)
    stimulus = bench.config.stimulus
    settings = {s.name for s in bench.settings}
    ports = bench.monitor.ports
    came: dict[str, list[tuple[int, int, int]]] = {s.name: [] for s in bench.outputs}
    loaded: dict[str, np.ndarray] = {}
    clocks = 0

    async def collect() -> None:
        """Wait for all that is on its way and count its clocks."""
        nonlocal clocks
        await bench.quiet()
        edges = [beat.clock for port in ports.values() for beat in port.beats]
        clocks += max(edges, default=0) - min(edges, default=0)
        for name, words in came.items():
            words += ports[name].words
        bench.forget()

    for b in range(len(next(iter(batch.values())))):
        arrays = {name: array[b] for name, array in batch.items()}
        wanted = {name: a for name, a in arrays.items() if stimulus[name].stream in settings}
        if any(name not in loaded or (loaded[name] != a).any() for name, a in wanted.items()):
            await collect()
            await bench.load(wanted)
            bench.forget()
            loaded = wanted
        bench.give(arrays)
        bench.queue(bench.words({n: a for n, a in arrays.items() if n not in wanted}))
    await collect()

    results: dict[str, Any] = {"cycles": np.int64(clocks)}
    for name, array in bench.config.result.items():
        (stream,) = (s for s in bench.outputs if s.name == array.stream)
        words = came[stream.name]
        whole = len(words) // stream.beats * stream.beats
        results[name] = unpack(stream, [data for data, _, _ in words[:whole]])
    np.savez(JOB.result, **results)

    for stream in bench.outputs:
        frame = marks(stream)
        for i, (_, last, first) in enumerate(came[stream.name]):
            want = frame[i % len(frame)]
            assert (last, first) == want, (
                f"{stream.name}: beat {i}: want tlast, tuser {want}, got {(last, first)}"
            )
