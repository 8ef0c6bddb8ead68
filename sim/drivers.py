"""The ends of the streams: what feeds a top and what takes its results, with stalls."""

import logging
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from cocotbext.axi import AxiStreamBus, AxiStreamFrame, AxiStreamSink, AxiStreamSource

from gen.vectors import Word

LONGEST_BURST = 32
"""Clocks of the longest stall; random ones are hardly ever as long."""

Pattern = Callable[[int, int, int], Iterator[bool]]
"""From (seed, index of the port, number of ports) to whether the port pauses, clock by clock."""


def _random(share: float) -> Pattern:
    def pauses(seed: int, index: int, ports: int) -> Iterator[bool]:
        rng = random.Random(seed * ports + index)
        while True:
            yield rng.random() < share

    return pauses


def _bursts(seed: int, index: int, ports: int) -> Iterator[bool]:
    """Pause and go on for long times."""
    rng = random.Random(seed * ports + index)
    pause = False
    while True:
        for _ in range(rng.randint(1, LONGEST_BURST)):
            yield pause
        pause = not pause


def _starved(seed: int, index: int, ports: int) -> Iterator[bool]:
    """Pause one port for a long time, then another."""
    rng = random.Random(seed)  # the same on every port, so that they take turns
    victim = 0
    while True:
        victim = (victim + rng.randrange(1, ports)) % ports
        for _ in range(rng.randint(1, LONGEST_BURST)):
            yield victim == index


PATTERNS: dict[str, Pattern] = {
    "light": _random(0.2),
    "heavy": _random(0.8),
    "bursts": _bursts,
    "starved": _starved,
}
"""Stalls of all ports; "none" has no generator."""


class _End:
    """An end of a stream whose `tdata` is one number a beat."""

    def __init__(self, dut: Any, prefix: str, kind: type) -> None:
        # It logs every frame.
        logging.getLogger(f"cocotb.{dut._name}").setLevel(logging.WARNING)
        self._axi = kind(AxiStreamBus.from_prefix(dut, prefix), dut.clk, byte_lanes=1)

    def stall(self, pauses: Iterator[bool] | None) -> None:
        """Pause as `pauses` says; None is never."""
        self._axi.set_pause_generator(pauses)
        self._axi.pause = False

    def hold(self) -> None:
        """Pause until the next `stall`."""
        self._axi.set_pause_generator(None)
        self._axi.pause = True

    def reset(self, active: bool) -> None:
        """Stop and forget everything, or begin again."""
        self._axi.assert_reset(active)
        self._axi.clear()


class Source(_End):
    """Feed an input."""

    def __init__(self, dut: Any, prefix: str) -> None:
        self._words: list[Word] = []
        super().__init__(dut, prefix, AxiStreamSource)

    def send(self, words: Sequence[Word]) -> None:
        """Queue beats; those after the last ``tlast`` go once a later one has it."""
        for word in words:
            self._words.append(word)
            if word[1]:
                data, _, first = zip(*self._words, strict=True)
                self._axi.send_nowait(AxiStreamFrame(list(data), tuser=list(first)))
                self._words = []

    def reset(self, active: bool) -> None:
        """Stop and forget everything, or begin again."""
        super().reset(active)
        self._words = []


class Sink(_End):
    """Take an output."""

    def __init__(self, dut: Any, prefix: str) -> None:
        super().__init__(dut, prefix, AxiStreamSink)

    def take(self) -> list[Word]:
        """Return the beats of all frames that ended."""
        words: list[Word] = []
        while not self._axi.empty():
            frame = self._axi.recv_nowait(compact=False)
            ends = [0] * (len(frame.tdata) - 1) + [1]
            words += zip(frame.tdata, ends, frame.tuser, strict=True)
        return words
