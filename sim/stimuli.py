"""Random stimuli of many kinds; `gen.vectors.random_stimulus` is the plain one."""

from collections.abc import Container

import numpy as np

from hw.config import Array, Config

STYLES = ("uniform", "scaled", "sparse", "dense", "extreme", "zero", "low", "high")
"""Full range; every magnitude alike; nearly all at rest; nearly all at the top; the ends of the
range; one value."""


def draw(
    config: Config, streams: Container[str], style: str, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Return one inference of the arrays that `streams` carry."""
    return {
        name: _fill(array, tuple(getattr(config, axis) for axis in array.shape), style, rng)
        for name, array in config.stimulus.items()
        if array.stream in streams
    }


def _fill(array: Array, size: tuple[int, ...], style: str, rng: np.random.Generator) -> np.ndarray:
    low, high = array.low, array.high
    rest = min(max(0, low), high)
    uniform = rng.integers(low, high, size=size, endpoint=True)
    match style:
        case "uniform":
            return uniform
        case "scaled":
            shift = rng.integers(int(max(-low, high)).bit_length(), size=size)
            return np.clip(np.sign(uniform) * (abs(uniform) >> shift), low, high)
        case "sparse":
            return np.where(rng.random(size) < 0.05, uniform, rest)
        case "dense":
            return np.where(rng.random(size) < 0.05, uniform, high)
        case "extreme":
            return rng.choice([low, high], size)
        case "zero" | "low" | "high":
            return np.full(size, {"zero": rest, "low": low, "high": high}[style])
    raise ValueError(style)
