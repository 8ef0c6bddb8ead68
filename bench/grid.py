"""What is measured: the presets of every top, and named points of a grid beside them."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from bench.devices import DEVICES, NO_OTHERS
from hw.config import Config
from hw.tops import TOPS

PRESET_SEEDS = 5
"""Seeds that a preset is placed with."""


@dataclasses.dataclass(frozen=True)
class Point:
    """A configuration that is measured and is no preset.

    Attributes
    ----------
    why : str
        What the point is there to show.
    settings : mapping
        The parameters that are not the defaults.
    devices : tuple of str
        Keys of `DEVICES`.
    seeds : int
        Seeds that it is placed with.
    options : mapping of str to str, optional
        Those of nextpnr that are not the device's, as in `Device`.
    """

    why: str
    settings: Mapping[str, Any]
    devices: tuple[str, ...] = ("ecp5",)
    seeds: int = 1
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)


# Where HeAP places 28 k cells, router1 rips up two of five wires and does not come to an end. The
# electrostatic placer leaves a quarter less wire, and a router that negotiates takes minutes. What
# it sends on detours it takes back only if it may rip up what comes too late for a rate.
def dense(mhz: int) -> dict[str, str]:
    """Return options for what fills a third of a device with adders, and a rate to strive for."""
    return {"placer": "static", "router": "router2", "tmg-ripup": "", "freq": str(mhz)}


NEGOTIATED = {"router": "router2"}
"""Options for what router1 does not come to an end with."""


def attention(
    why: str,
    tokens: int,
    head_dim: int,
    seeds: int = 1,
    options: Mapping[str, str] = NO_OTHERS,
    **settings: Any,
) -> Point:
    """Return a point of attention with one head and ten time steps, as the paper's block."""
    settings = {"timesteps": 10, "tokens": tokens, "head_dim": head_dim, **settings}
    return Point(why, settings, seeds=seeds, options=options)


def sdsa(
    why: str,
    tokens: int,
    channels: int,
    options: Mapping[str, str] = NO_OTHERS,
    **settings: Any,
) -> Point:
    """Return a point of SDSA with four time steps, as the CIFAR model."""
    settings = {"timesteps": 4, "tokens": tokens, "channels": channels, **settings}
    return Point(why, settings, options=options)


# N = dK = 64 at one column and with the sample encoder are presets. What takes longest to place
# stands last.
GRID: dict[str, dict[str, Point]] = {
    "attention": {
        "n16_columns1": attention("a column at a time", 16, 16, columns=1),
        "n16_columns4": attention("a quarter of the keys at a time", 16, 16, columns=4),
        "n16_columns16": attention("a token a clock, small", 16, 16, columns=16),
        "n16_rows4": attention("four rows of four columns in its place", 16, 16, rows=4,
                               columns=4),
        "n16_sample": attention("what the sample encoder is worth when small", 16, 16,
                                encoder="sample"),
        "n64_columns4": attention("the most without the longer popcount", 64, 64, columns=4),
        "n64_columns16": attention("a step between", 64, 64, columns=16),
        "n64_sobol": attention("counting without shift registers", 64, 64, columns=16,
                               rng="sobol"),
        "n64_sample_sobol": attention("sampling without shift registers", 64, 64,
                                      encoder="sample", rng="sobol"),
        "n128_columns16": attention("how counting grows with N", 128, 64, columns=16),
        "n128_sample": attention("how sampling grows with N", 128, 64, encoder="sample"),
        "n196_columns14": attention("ImageNet's tokens, not a power of two", 196, 64, columns=14),
        "n64_columns32": attention("half a token a clock by counting: 10 us", 64, 64, seeds=5,
                                   columns=32),
        "n64_columns64": attention("a token a clock by counting", 64, 64, options=dense(130),
                                   columns=64),
        "n64_beat2": attention("two tokens a clock: the paper's latency", 64, 64, seeds=5,
                               options=dense(122), columns=64, tokens_per_beat=2),
    },
    "sdsa": {
        "cifar_sops": dataclasses.replace(
            sdsa("what the count of operations costs", 64, 512, heads=8, count_sops=True), seeds=5
        ),
        "cifar_buffer_q": dataclasses.replace(
            sdsa("what block RAM for Q costs", 64, 512, heads=8, buffer_q=True), seeds=5
        ),
        **{f"n{n}_d512": sdsa("how it goes with N", n, 512) for n in (16, 32, 128, 256)},
        **{f"n64_d{d}": sdsa("how it goes with D", 64, d) for d in (64, 128, 256, 384)},
        "counted": sdsa("neurons in place of the OR", 64, 512, threshold=4),
        "product_columns1": sdsa("K^T V a column at a time", 64, 64, variant=3, columns=1),
        "product_columns8": sdsa("K^T V by eight columns", 64, 64, options=NEGOTIATED,
                                 variant=3, columns=8),
        "product_loaded": sdsa("thresholds of channels", 64, 64, variant=4, columns=1,
                               threshold_bits=8),
        "product_n64_d32": sdsa("K^T V at a token a clock", 64, 32, options=NEGOTIATED,
                                variant=3, head_dim=32, columns=32),
    },
}  # fmt: skip


def presets() -> Iterator[tuple[str, str]]:
    """Yield (top, preset) of all presets."""
    for top, entry in TOPS.items():
        for preset in entry.config.PRESETS:
            yield top, preset


def points() -> Iterator[tuple[str, str, str]]:
    """Yield (top, point, device) of the grid."""
    for top, named in GRID.items():
        for name, point in named.items():
            for device in point.devices:
                yield top, name, device


def cases() -> Iterator[tuple[str, str, str]]:
    """Yield (top, preset or point, device) of all that is measured."""
    for top, preset in presets():
        for device in DEVICES:
            yield top, preset, device
    yield from points()


def configuration(top: str, name: str) -> Config:
    """Return the configuration of a preset or point."""
    config = TOPS[top].config
    point = GRID.get(top, {}).get(name)
    return config(**point.settings) if point else config.preset(name)


def own_options(top: str, name: str) -> Mapping[str, str]:
    """Return the options of nextpnr for a preset or point that are not the device's."""
    point = GRID.get(top, {}).get(name)
    return point.options if point else NO_OTHERS


def seeds(top: str, name: str) -> int:
    """Return how many seeds a preset or point is placed with."""
    point = GRID.get(top, {}).get(name)
    return point.seeds if point else PRESET_SEEDS
