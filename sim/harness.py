"""A top under test: its clock and reset, the ends of its streams, and its golden model."""

import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles

from gen.errands import errands
from gen.vectors import Word, words
from hw.stream import FAULT_BITS, Stream
from sim.drivers import LONGEST_BURST, PATTERNS, Sink, Source
from sim.experts import Experts
from sim.job import Job
from sim.protocol import Monitor
from sim.reference import Arrays, Reference
from sim.stimuli import draw

REST = 16
"""Clocks that all ends together may take from one beat to the next one when nobody stalls."""


class Bench:
    """A top with everything that is needed to test it, just powered up.

    `send` queues an inference and notes what must come out; `finish` waits until all is quiet and
    compares.

    Parameters
    ----------
    dut : cocotb handle
    job : Job
    name : str
        Of the test; its random numbers follow from it and the job's seed.

    Attributes
    ----------
    config : Config
    inputs, outputs : list of Stream
        The main inputs, and all outputs.
    settings : list of Stream
        Auxiliary inputs: they are loaded while the top is at rest.
    monitor : Monitor
    rng : numpy Generator
    """

    def __init__(self, dut: Any, job: Job, name: str) -> None:
        self.config = job.config
        self.rng = np.random.default_rng([job.seed, zlib.crc32(name.encode())])
        streams = self.config.streams
        inputs = [s for s in streams if s.direction == "in"]
        self.inputs = [s for s in inputs if not s.auxiliary]
        self.settings = [s for s in inputs if s.auxiliary and not s.peer]
        self.outputs = [s for s in streams if s.direction == "out" and not s.peer]
        self.reference = Reference(job.top, self.config)
        # It comes first, to say what is wrong before a driver trips over it.
        self.monitor = Monitor(dut, self.config)
        cocotb.start_soon(self.monitor.run())
        self._dut = dut
        prefix = {name: port.prefix for name, port in self.monitor.ports.items()}
        self._sources = {s.name: Source(dut, prefix[s.name]) for s in self.inputs + self.settings}
        self._sinks = {s.name: Sink(dut, prefix[s.name]) for s in self.outputs}
        self._echoes = {name: Sink(dut, prefix[name]) for name in self.config.echoes}
        self.experts = None
        if self.config.asks:
            self.experts = Experts(dut, self.config, self.rng, prefix)
        self._loaded: dict[str, np.ndarray] = {}
        self._faults = 0
        self._stalls = False
        self.forget()
        dut.rst.value = 0
        Clock(dut.clk, 10, unit="ns").start(start_high=False)

    @property
    def _ends(self) -> list[Source | Sink]:
        """All that is connected to a port."""
        peers = self.experts.ends if self.experts else {}
        own = (self._sources, self._sinks, self._echoes, peers)
        return [end for ends in own for end in ends.values()]

    @property
    def _patience(self) -> int:
        """Clocks without a beat after which none comes."""
        # An expert takes up to a burst, and so do the ports on both its sides.
        bursts = 8 if self.experts else 4 if self._stalls else 0
        c = self.config
        # With a trace there is a beat long before the last one.
        own = max(2 * (c.latency + c.interval), c.cycles if c.by_inference else 0)
        return REST + bursts * LONGEST_BURST + own

    @classmethod
    async def after_reset(cls, dut: Any, job: Job, name: str) -> Self:
        """Return a bench after a reset, with random settings if the top has any."""
        bench = cls(dut, job, name)
        await bench.reset()
        if bench.settings:
            await bench.load(bench.draw_settings())
        return bench

    async def tick(self, clocks: int = 1) -> None:
        """Wait."""
        await ClockCycles(self._dut.clk, clocks)

    async def reset(self) -> None:
        """Reset the top while its sources go on, then forget all that was on its way."""
        self._dut.rst.value = 1
        await self.tick(3)
        self.stall("none")
        ends = self._ends
        for end in ends:
            end.reset(True)
        await self.tick(2)
        self._dut.rst.value = 0
        for end in ends:
            end.reset(False)
        self.forget()
        self.reference.reset()
        self._faults = 0

    def stall(self, pattern: str) -> None:
        """Let all ports stall from now on."""
        seed = int(self.rng.integers(2**32))
        ends = self._ends
        self._stalls = pattern != "none"
        if self.experts:
            self.experts.slowest = LONGEST_BURST if self._stalls else 0
        for index, end in enumerate(ends):
            end.stall(PATTERNS[pattern](seed, index, len(ends)) if self._stalls else None)

    def hold(self, streams: Iterable[Stream]) -> None:
        """Stop ports until the next `stall`."""
        every = self._sources | self._sinks
        for stream in streams:
            every[stream.name].hold()

    def draw(self, style: str | None = None) -> dict[str, np.ndarray]:
        """Return one random inference.

        Parameters
        ----------
        style : str, optional
            One of ``sim.stimuli.STYLES``; the full range or all magnitudes alike if left out.
        """
        style = style or str(self.rng.choice(["uniform", "scaled"]))
        arrays = draw(self.config, {s.name for s in self.inputs}, style, self.rng)
        if self.experts:
            arrays["expert_out"] = self.experts.answers(arrays["tokens"])
        return arrays

    def draw_settings(self, style: str = "scaled") -> dict[str, np.ndarray]:
        """Return random settings."""
        return draw(self.config, {s.name for s in self.settings}, style, self.rng)

    def words(self, arrays: Arrays) -> dict[str, list[Word]]:
        """Return the beats of `arrays` by stream."""
        streams = {s.name: s for s in self.config.streams}
        stimulus = self.config.stimulus
        return {
            stimulus[name].stream: words(streams[stimulus[name].stream], array)
            for name, array in arrays.items()
            if stimulus[name].stream in streams
        }

    def queue(self, beats: Mapping[str, Sequence[Word]]) -> None:
        """Let sources send beats."""
        for name, some in beats.items():
            self._sources[name].send(some)
        main = self.inputs[0]
        self._steps += -(-len(beats.get(main.name, ())) // main.beats)

    def expect(self, arrays: Arrays, steps: int | None = None) -> None:
        """Note what must come out of an inference, or of its first time steps."""
        result = self.give({**arrays, **self._loaded}, steps)
        for s in self.outputs:
            (name,) = (n for n, array in self.config.result.items() if array.stream == s.name)
            self._expected[s.name] += words(s, result[name], steps)

    def give(self, arrays: Arrays, steps: int | None = None) -> Arrays:
        """Return golden's results of an inference; experts know what they get and answer."""
        result = self.reference.run(arrays, steps)
        if self.experts:
            self.experts.expect(errands(self.config, arrays, result["mask"]))
        return result

    def expect_faults(self, count: int) -> None:
        """Note that `count` more broken frames must be counted."""
        self._faults = min(self._faults + count, 2**FAULT_BITS - 1)

    def send(self, arrays: Arrays) -> None:
        """Queue an inference and note what must come out of it."""
        self.queue(self.words(arrays))
        self.expect(arrays)

    async def load(self, arrays: Arrays) -> None:
        """Load settings, and see that they are repeated right; the top must be at rest."""
        self.queue(self.words(arrays))
        self._loaded |= arrays
        await self.quiet()
        for name, (of, axes) in self.config.echoes.items():
            (stream,) = (s for s in self.config.streams if s.name == name)
            if of in arrays:
                want = words(stream, np.transpose(arrays[of], axes))
                got = self._echoes[name].take()
                compare(stream, want, got[-len(want) :])

    async def quiet(self) -> None:
        """Wait until no beat has moved for a time in which one would have."""
        start = self.monitor.clock
        while True:
            idle = self.monitor.clock - max(self.monitor.moved, start)
            if idle >= self._patience:
                return
            await self.tick(self._patience - idle)
            for s in self.outputs:
                got, most = len(self.monitor.ports[s.name].beats), self._steps * s.beats
                assert got <= most, f"{s.name}: {got} beats came for {most} at most"

    def check(self, *, whole: bool = True) -> None:
        """Compare all that came with what was expected; both are forgotten.

        Parameters
        ----------
        whole : bool
            No time step may be cut short. Where an inference is broken a top that passes beats on
            as they come leaves one that is; those are left out of the comparison.
        """
        for s in self.outputs:
            got = self.monitor.ports[s.name].words
            taken = self._sinks[s.name].take()
            assert taken == got, f"{s.name}: {len(got) - len(taken)} beats are left over"
            compare(s, self._expected[s.name], got if whole else without_cut_steps(got))
        if self.experts:
            self.experts.check(extras=not whole)
            self.expect_faults(self.experts.faults)
            self.experts.faults = 0
        faults = int(self._dut.faults.value)
        assert faults == self._faults, f"faults: want {self._faults}, got {faults}"
        self.forget()

    def forget(self) -> None:
        """Forget what came and what was expected to."""
        self.monitor.forget()
        if self.experts:
            self.experts.forget()
        self._expected: dict[str, list[Word]] = {s.name: [] for s in self.outputs}
        self._steps = 0  # that were queued

    async def finish(self, *, whole: bool = True) -> None:
        """Wait until all is quiet, then `check`."""
        await self.quiet()
        self.check(whole=whole)


def without_cut_steps(beats: Sequence[Word]) -> list[Word]:
    """Return beats without the time steps that an early ``tuser`` cut short."""
    kept: list[Word] = []
    step: list[Word] = []
    for word in beats:
        _, last, first = word
        step = [word] if first else [*step, word]
        if last:
            kept += step
            step = []
    return kept


def compare(stream: Stream, want: Sequence[Word], got: Sequence[Word]) -> None:
    """Raise an `AssertionError` that names the first difference."""
    for i, (expected, came) in enumerate(zip(want, got, strict=False)):
        if expected == came:
            continue
        place = f"{stream.name}: time step {i // stream.beats}, beat {i % stream.beats}"
        for k, name in enumerate(("tdata", "tlast", "tuser")):
            if expected[k] != came[k]:
                raise AssertionError(f"{place}: {name}: want {expected[k]:#x}, got {came[k]:#x}")
    assert len(got) == len(want), f"{stream.name}: want {len(want)} beats, got {len(got)}"
