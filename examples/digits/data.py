"""Images of digits: the split, and augmentations in integers, the same on every machine."""

import dataclasses
import math
from pathlib import Path

import numpy as np

FILE = Path(__file__).parent / "data" / "digits.csv.gz"

SIDE = 8
BRIGHTEST = 16
CLASSES = 10

SPLIT_SEED = 1
SIZES = {"train": 1197, "validation": 240, "test": 360}

LARGE = {"validation": (2, 8), "test": (3, 32)}
"""Seed of a large set, and how many augmentations of each image it holds."""

SHIFT = 8
"""Largest shift along each axis, in sixteenths of a pixel."""
TURN = 10
"""Largest rotation, in degrees."""
NOISE = 1
"""Largest change of a pixel, in grey levels."""

FRACTION = 12  # bits of sines and of positions


@dataclasses.dataclass(frozen=True)
class Images:
    """Images and what they show.

    Attributes
    ----------
    pixels : array [B, 8, 8] of int64
        Grey values 0..16.
    labels : array [B] of int64
        0..9.
    """

    pixels: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


def load() -> Images:
    """Return all 1797 images, in the order of the file."""
    rows = np.loadtxt(FILE, delimiter=",", dtype=np.int64)
    return Images(rows[:, :-1].reshape(-1, SIDE, SIDE), rows[:, -1])


def split() -> dict[str, Images]:
    """Return the parts ``train``, ``validation`` and ``test``: disjoint, drawn by `SPLIT_SEED`.

    Every class is spread over the parts as evenly as their sizes allow.
    """
    images = load()
    order = np.random.default_rng(SPLIT_SEED).permutation(len(images))
    place = np.empty(len(images))  # of an image within its class, 0..1
    for label in range(CLASSES):
        own = order[images.labels[order] == label]
        place[own] = (np.arange(len(own)) + 0.5) / len(own)
    order = np.argsort(place, kind="stable")
    parts, begin = {}, 0
    for name, size in SIZES.items():
        own = np.sort(order[begin : begin + size])
        parts[name] = Images(images.pixels[own], images.labels[own])
        begin += size
    return parts


def augment(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return each image turned, shifted and with noise, drawn independently.

    The rotation is a whole number of degrees, uniform up to `TURN` either way, about the centre;
    the shift uniform up to `SHIFT` sixteenths of a pixel along each axis; between pixels the value
    is interpolated linearly, outside it is 0. Then an integer uniform up to `NOISE` either way is
    added to each pixel, and the sum cut to 0..16.

    Parameters
    ----------
    pixels : array [B, 8, 8] of int
    rng : numpy.random.Generator

    Returns
    -------
    array [B, 8, 8] of int64
    """
    batch = len(pixels)
    one = 1 << FRACTION
    turns = rng.integers(-TURN, TURN + 1, batch)
    shifts = rng.integers(-SHIFT, SHIFT + 1, (batch, 2)) * (one // 16)
    noise = rng.integers(-NOISE, NOISE + 1, pixels.shape)

    degrees = np.arange(-TURN, TURN + 1)
    cosines = np.array([round(math.cos(math.radians(d)) * one) for d in degrees])
    sines = np.array([round(math.sin(math.radians(d)) * one) for d in degrees])
    c, s = (table[turns + TURN][:, None, None] for table in (cosines, sines))
    # Twice the distance from the centre is an integer.
    place = 2 * np.arange(SIDE) - (SIDE - 1)
    y, x = place[None, :, None], place[None, None, :]
    centre = (SIDE - 1) * one // 2
    rows = (c * y - s * x) // 2 + centre + shifts[:, 0, None, None]
    columns = (s * y + c * x) // 2 + centre + shifts[:, 1, None, None]
    moved = _interpolated(np.asarray(pixels, np.int64), rows, columns)
    return np.clip(moved + noise, 0, BRIGHTEST)


def _interpolated(pixels: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    one = 1 << FRACTION
    margin = 4  # further out than any place that is asked for
    padded = np.pad(pixels, ((0, 0), (margin, margin), (margin, margin)))
    image = np.arange(len(pixels))[:, None, None]
    row, column = rows // one + margin, columns // one + margin
    down, right = rows % one, columns % one
    total = np.zeros_like(pixels)
    for i, height in ((0, one - down), (1, down)):
        for j, width in ((0, one - right), (1, right)):
            total += padded[image, row + i, column + j] * height * width
    return (total + one * one // 2) // (one * one)


def sets() -> dict[str, Images]:
    """Return what networks are judged by: ``validation`` and ``test``, and a large set of each.

    ``validation_large`` and ``test_large`` hold augmentations of each image, and not the image
    itself. All choices are made by those of validation.
    """
    parts = split()
    out = {}
    for name, (seed, copies) in LARGE.items():
        own = parts[name]
        out[name] = own
        pixels = augment(np.repeat(own.pixels, copies, axis=0), np.random.default_rng(seed))
        out[f"{name}_large"] = Images(pixels, np.repeat(own.labels, copies))
    return out


def patches(pixels: np.ndarray) -> np.ndarray:
    """Return the 16 patches of 2 x 2 pixels of each image, [B, 16, 4], row by row."""
    half = SIDE // 2
    cut = pixels.reshape(-1, half, 2, half, 2).transpose(0, 1, 3, 2, 4)
    return cut.reshape(-1, half * half, 4)
