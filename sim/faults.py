"""Broken frames of every kind, and what a top makes of them (the rules of ``hw/stream.py``)."""

import dataclasses
from collections.abc import Callable

import numpy as np

from gen.vectors import Word
from hw.stream import Stream


@dataclasses.dataclass(frozen=True)
class Broken:
    """The beats of a broken inference.

    Attributes
    ----------
    words : list of Word
    steps : int
        Time steps that are whole before the fault.
    faults : int
        What a stream counts that stands alone. Where streams are joined a stray mark is found to
        be one, and all kinds count 1.
    costs_next : bool
        The inference behind it is lost as well.
    """

    words: list[Word]
    steps: int
    faults: int = 1
    costs_next: bool = False


def _early_last(stream: Stream, words: list[Word], rng: np.random.Generator) -> Broken:
    """Mark a beat inside a time step as its last."""
    step, beat = int(rng.integers(stream.steps)), int(rng.integers(stream.beats - 1))
    data, _, first = words[step * stream.beats + beat]
    words[step * stream.beats + beat] = data, 1, first
    return Broken(words, step)


def _missing_last(stream: Stream, words: list[Word], rng: np.random.Generator) -> Broken:
    """Do not mark the last beat of a time step."""
    step = int(rng.integers(stream.steps))
    end = (step + 1) * stream.beats - 1
    words[end] = words[end][0], 0, words[end][2]
    return Broken(words, step)


def _missing_first(stream: Stream, words: list[Word], rng: np.random.Generator) -> Broken:
    """Do not mark the beginning of the inference."""
    return Broken([(*words[0][:2], 0), *words[1:]], 0)


def _stray_first(stream: Stream, words: list[Word], rng: np.random.Generator) -> Broken:
    """Mark a beat inside a time step as the first of an inference.

    It is believed, so what is left of the time step breaks that inference as well. Where streams
    are in lockstep, beats of the others' next inference have moved with it by then.
    """
    step, beat = int(rng.integers(stream.steps)), int(rng.integers(1, stream.beats))
    i = step * stream.beats + beat
    words[i] = *words[i][:2], 1
    costs_next = stream.lockstep and beat < stream.beats - 1
    return Broken(words, step, faults=2, costs_next=costs_next)


def _cut_short(stream: Stream, words: list[Word], rng: np.random.Generator) -> Broken:
    """End the inference too early: the next one's first beat comes unexpected."""
    left = int(rng.integers(1, len(words)))
    return Broken(words[:left], left // stream.beats)


def _lost_beats(stream: Stream, words: list[Word], rng: np.random.Generator) -> Broken:
    """Lose some beats of one time step, but not the first one of the inference.

    Without it what is left is an inference with a missing first beat only if it is long enough.
    """
    step = int(rng.integers(stream.steps))
    begin = int(rng.integers(step == 0, stream.beats))
    end = int(rng.integers(begin + 1, stream.beats + (begin > 0)))
    del words[step * stream.beats + begin : step * stream.beats + end]
    return Broken(words, step)


def _extra_beat(stream: Stream, words: list[Word], rng: np.random.Generator) -> Broken:
    """Repeat a beat inside a time step."""
    step, beat = int(rng.integers(stream.steps)), int(rng.integers(stream.beats - 1))
    i = step * stream.beats + beat
    words.insert(i + 1, (*words[i][:2], 0))
    return Broken(words, step)


_ANY = {"missing tlast": _missing_last, "missing tuser": _missing_first}
_MANY = {"cut short": _cut_short}
_BEATS = {
    "early tlast": _early_last,
    "stray tuser": _stray_first,
    "lost beats": _lost_beats,
    "extra beat": _extra_beat,
}

Breaker = Callable[[Stream, list[Word], np.random.Generator], Broken]


def breakers(stream: Stream) -> dict[str, Breaker]:
    """Return the kinds of faults that a stream can have."""
    found: dict[str, Breaker] = dict(_ANY)
    if stream.beats * stream.steps > 1:
        found |= _MANY
    if stream.beats > 1:
        found |= _BEATS
    return found
