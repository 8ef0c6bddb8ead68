"""Arrays as the beats that go over a stream, and back."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from hw.config import Config
from hw.stream import Stream

Arrays = dict[str, np.ndarray]

Word = tuple[int, int, int]
"""``tdata``, ``tlast`` and ``tuser`` of a beat."""


def pack(stream: Stream, array: np.ndarray) -> list[int]:
    """Return ``tdata`` of every beat of one inference.

    Parameters
    ----------
    stream : Stream
    array : ndarray, any shape of ``stream.steps * stream.elements`` values
        Integers or bools, time steps first.

    Returns
    -------
    list of int
        ``stream.steps * stream.beats`` words: element 0 lowest, two's complement, what has no
        element 0.
    """
    values = np.zeros((stream.steps, stream.beats * stream.lanes), np.int64)
    values[:, : stream.elements] = np.reshape(array, (stream.steps, stream.elements))
    lanes = values.reshape(-1, stream.lanes, 1)
    bits = ((lanes >> np.arange(stream.width)) & 1).astype(np.uint8)
    words = np.packbits(bits.reshape(len(lanes), -1), axis=1, bitorder="little")
    return [int.from_bytes(word.tobytes(), "little") for word in words]


def unpack(stream: Stream, words: Sequence[int]) -> np.ndarray:
    """Return the elements in ``tdata`` of whole time steps; the inverse of `pack`.

    Parameters
    ----------
    stream : Stream
    words : sequence of int
        A multiple of ``stream.beats``.

    Returns
    -------
    ndarray [time steps, ``stream.elements``] of int64
    """
    size = stream.tdata_width // 8
    raw = np.frombuffer(b"".join(word.to_bytes(size, "little") for word in words), np.uint8)
    bits = np.unpackbits(raw.reshape(len(words), size), axis=1, bitorder="little")
    bits = bits[:, : stream.lanes * stream.width].reshape(len(words), stream.lanes, stream.width)
    weights = np.left_shift(np.int64(1), np.arange(stream.width, dtype=np.int64))
    if stream.signed:
        weights[-1] = -weights[-1]
    values = bits.astype(np.int64) @ weights
    return values.reshape(-1, stream.beats * stream.lanes)[:, : stream.elements]


def marks(stream: Stream) -> list[tuple[int, int]]:
    """Return (``tlast``, ``tuser``) of every beat of one inference."""
    total = stream.steps * stream.beats
    return [(int((i + 1) % stream.beats == 0), int(i == 0)) for i in range(total)]


def words(stream: Stream, array: np.ndarray, steps: int | None = None) -> list[Word]:
    """Return the beats of one inference of `stream`, or of its first time steps."""
    if steps is not None:
        stream = dataclasses.replace(stream, steps=steps)
    return [
        (data, last, first)
        for data, (last, first) in zip(pack(stream, array), marks(stream), strict=True)
    ]


def random_stimulus(config: Config, rng: np.random.Generator) -> Arrays:
    """Return one inference of every stimulus array, over the array's whole range.

    Every magnitude is as likely as the next: a number from the range is shifted right by a random
    number of bits. Evenly drawn 16-bit thresholds would be out of reach of 8-bit currents, and
    two numbers would hardly ever be equal.
    """
    arrays = {}
    for name, array in config.stimulus.items():
        shape = tuple(getattr(config, axis) for axis in array.shape)
        values = rng.integers(array.low, array.high, size=shape, endpoint=True)
        bits = max(array.high, -array.low).bit_length()
        values >>= rng.integers(0, max(bits, 1), size=shape)  # of a range 0..0 there is no bit
        arrays[name] = np.maximum(values, array.low)
    return arrays
