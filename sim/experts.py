"""The experts around a router tile under test: they take what they are given, and answer."""

import collections
import random
from collections.abc import Mapping, Sequence
from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import ClockCycles

from gen.errands import ANSWER, EXPERT, Errand, errands, frame
from gen.vectors import Word, pack
from sim.drivers import Sink, Source

Token = list[Word]

EXPERT_CLOCKS = 2
"""Clocks from the last beat of a token to the first one of its answer, beyond the next clock."""


def wrong_tag(answer: list[Word], tag: int) -> list[Word]:
    """Return an answer to another token."""
    return frame([word for word, _, _ in answer], tag ^ 1)


def too_short(answer: list[Word], tag: int) -> list[Word]:
    """Return an answer that lacks a beat."""
    return frame([word for word, _, _ in answer[1:]], tag)


def too_long(answer: list[Word], tag: int) -> list[Word]:
    """Return an answer with a beat too many."""
    return frame([word for word, _, _ in (*answer, answer[-1])], tag)


class Experts:
    """All experts of a tile; each answers in order, after a while.

    Tokens of void inferences come as well, and may be like those of whole ones. So an answer
    follows from the token alone, its tag included.

    Parameters
    ----------
    dut : cocotb handle
    config : Config
    rng : numpy Generator
        Of the times that they take.
    prefixes : mapping of str to str
        Of the ports, by stream.

    Attributes
    ----------
    ends : dict of str to Sink or Source
        By stream.
    slowest : int
        Clocks that an answer may take.
    mischief : float
        Chance of a wrong answer before a right one.
    faults : int
        Wrong answers so far.
    asked : bool
        Whether anybody was given a token.
    """

    def __init__(
        self, dut: Any, config: Any, rng: np.random.Generator, prefixes: Mapping[str, str]
    ) -> None:
        self._clk = dut.clk
        self._rng = rng
        self._beats = next(s.beats for s in config.streams if s.name.startswith(EXPERT))
        count = sum(s.name.startswith(EXPERT) for s in config.streams)
        self._sinks = [Sink(dut, prefixes[f"{EXPERT}{e}"]) for e in range(count)]
        self._sources = [Source(dut, prefixes[f"{ANSWER}{e}"]) for e in range(count)]
        self.ends: dict[str, Sink | Source] = {
            **{f"{EXPERT}{e}": sink for e, sink in enumerate(self._sinks)},
            **{f"{ANSWER}{e}": source for e, source in enumerate(self._sources)},
        }
        self.slowest = 0
        self.mischief = 0.0
        self.faults = 0
        self._tag = max(s.tag for s in config.streams)
        self._config = config
        self._salt = int(rng.integers(2**32))
        self.forget()
        cocotb.start_soon(self._run())

    def forget(self) -> None:
        """Expect nothing more."""
        count = len(self._sinks)
        self._due: list[list[Token]] = [[] for _ in range(count)]
        self._came: list[list[Token]] = [[] for _ in range(count)]
        self._told: list[collections.deque[Errand]] = [collections.deque() for _ in range(count)]
        self._later: list[collections.deque[tuple[int, list[Word]]]] = [
            collections.deque() for _ in range(count)
        ]
        self.asked = False

    def answers(self, tokens: np.ndarray) -> np.ndarray:
        """Return what all experts answer to the tokens [T, N, D] of an inference, [T, N, E, D]."""
        steps, count, channels = tokens.shape
        every = np.ones((steps, count, len(self._sinks)), np.uint8)
        asked = errands(self._config, {"tokens": tokens}, every)
        said = [[self._bits(e, one.token) for one in own] for e, own in enumerate(asked)]
        return np.moveaxis(np.reshape(said, (-1, steps, count, channels)), 0, 2)

    def _bits(self, e: int, token: Token) -> np.ndarray:
        """Return an answer: random bits, or all of them alike."""
        words = [word for word, _, _ in token]
        chance = random.Random(f"{self._salt} {e} {token[0][2] >> 1} {words}")
        rate = chance.choice((0.0, 0.5, 0.5, 1.0))
        channels = self._config.channels
        return np.array([chance.random() < rate for _ in range(channels)], np.uint8)

    def expect(self, given: Sequence[Sequence[Errand]]) -> None:
        """Note what must come, and what a user has for an answer."""
        for due, told, more in zip(self._due, self._told, given, strict=True):
            due.extend(one.token for one in more)
            told.extend(more)

    def check(self, *, extras: bool) -> None:
        """Raise an `AssertionError` if anything is missing or, without `extras`, too much."""
        for e, (due, came) in enumerate(zip(self._due, self._came, strict=True)):
            rest = iter(came)
            for i, want in enumerate(due):
                got = next((one for one in rest if one == want or not extras), None)
                assert got == want, f"{EXPERT}{e}: token {i}: want {want}, got {got}"
            assert extras or not list(rest), f"{EXPERT}{e}: got more than {len(due)} tokens"

    async def _run(self) -> None:
        clock = 0
        while True:
            await ClockCycles(self._clk, 1)
            clock += 1
            for e, sink in enumerate(self._sinks):
                beats = sink.take()
                for i in range(0, len(beats), self._beats):
                    answer = self._take(e, beats[i : i + self._beats])
                    self._later[e].append(
                        (clock + int(self._rng.integers(self.slowest + 1)), answer)
                    )
                while self._later[e] and self._later[e][0][0] <= clock:
                    self._answer(e, self._later[e].popleft()[1])

    def _answer(self, e: int, answer: list[Word]) -> None:
        """Send an answer, maybe behind wrong ones."""
        while self._rng.random() < self.mischief:
            tag = answer[0][2] >> 1
            kinds = [wrong_tag] if self._tag else []
            kinds += [too_long, *([too_short] if len(answer) > 1 else [])]
            self._sources[e].send(kinds[self._rng.integers(len(kinds))](answer, tag))
            self.faults += 1
        self._sources[e].send(answer)

    def _take(self, e: int, token: Token) -> list[Word]:
        """Return the answer to a token."""
        self.asked = True
        self._came[e].append(token)
        if self._told[e] and self._told[e][0].token == token:
            return self._told[e].popleft().answer
        stream = self._config.stream(f"{ANSWER}{e}")
        return frame(pack(stream, self._bits(e, token)), token[0][2] >> 1)
