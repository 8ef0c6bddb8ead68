"""``python -m bench.cpu_attention``: how long attention takes in numpy on this machine's CPU.

What is stored is kept while the CPU, the versions and this file are the same.
"""

import hashlib
import platform
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np

from bench.study import load_study, save_study
from gen.errors import Command
from hw.attention import AttentionConfig
from sim.golden.attention import count_skews, draws, moved, sampled_places

STUDY = "cpu_attention"

SEED, STEPS, TOKENS, SIZE = 1, 10, 64, 64
REPEATS, WARM_UP = 1000, 50

Operator = Callable[..., np.ndarray]


def counted(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, numbers: np.ndarray, skews: tuple[np.ndarray, ...]
) -> np.ndarray:
    """Return the output bits of a head with the count encoder, all time steps at once.

    Bits are packed into words of 64, and counted by AND and popcount: half the time of products
    in float32.

    Parameters
    ----------
    q, k, v : array of uint8 [T, N, dK]
    numbers : array of uint16 [T, 2]
        The draws of both stages.
    skews : (array [N, N], array [N, dK]) of uint16
        Those of scores and outputs.
    """
    tokens, size = q.shape[1:]
    r = numbers[:, :, None, None]
    scores = moved(r[:, 0], skews[0], size) < matches(q, k)
    return (moved(r[:, 1], skews[1], tokens) < matches(scores, v.transpose(0, 2, 1))).view(np.uint8)


def matches(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return in how many places rows of bits a [T, I, L] and b [T, J, L] are both 1, [T, I, J]."""
    first, *rest = (
        np.bitwise_count(x[:, :, None] & y[:, None, :])
        for x, y in zip(words(a), words(b), strict=True)
    )
    total = first.astype(np.uint16) if rest else first
    for count in rest:
        total += count
    return total


def words(bits: np.ndarray) -> np.ndarray:
    """Return bits [T, I, L] as words of 64 along L, [words, T, I]."""
    octets = np.packbits(bits, axis=-1)
    short = -octets.shape[-1] % 8
    if short:
        octets = np.pad(octets, ((0, 0), (0, 0), (0, short)))
    return octets.view(np.uint64).transpose(2, 0, 1)


def sampled(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, numbers: np.ndarray, places: tuple[np.ndarray, ...]
) -> np.ndarray:
    """Return the output bits of a head with the sample encoder.

    A time step after another: its arrays stay in the cache, in half the time of all at once.

    Parameters
    ----------
    q, k, v : array of uint8 [T, N, dK]
    numbers : array of intp [T, 2]
        The draws.
    places : (array [N, dK], array [N, dK], array [dK]) of intp
        What the draws are moved by, and what is picked.
    """
    channel, token, pick = places
    _, tokens, size = q.shape
    n, d = np.ogrid[:tokens, :size]
    out = np.empty_like(q)
    for t, (r, j) in enumerate(numbers):
        c, m = pick.take(r ^ channel), j ^ token
        at = n * size + c, m * size + c, m * size + d
        # "clip" is the mode that tests no bounds first.
        a, b, e = (x[t].take(i, mode="clip") for x, i in zip((q, k, v), at, strict=True))
        out[t] = a & b & e
    return out


OPERATORS: dict[str, tuple[Operator, Callable[..., tuple[np.ndarray, ...]], type]] = {
    "count": (counted, count_skews, np.uint16),
    "sample": (sampled, sampled_places, np.intp),
}
"""By encoder: the operator of a head, what makes its constants, and the type of these."""


def problem(encoder: str, batch: int = 1, **sizes: Any) -> tuple[Any, ...]:
    """Return the arguments of an encoder's operator for random bits: q, k, v, draws, constants.

    The inferences of a batch follow one another along the axis of time, as on the hardware.
    """
    default = {"timesteps": STEPS, "tokens": TOKENS, "head_dim": SIZE, "seed": SEED}
    config = AttentionConfig(encoder=encoder, **{**default, **sizes})
    tokens, size, steps = config.tokens, config.head_dim, batch * config.timesteps
    bits = np.random.default_rng(SEED).integers(0, 2, (3, steps, tokens, size), dtype=np.uint8)
    numbers, _ = draws(config.asdict(), (size, tokens), steps, None)
    _, constants, number = OPERATORS[encoder]
    moves: tuple[np.ndarray, ...] = tuple(
        array.astype(number) for array in constants(config.seed, 0, tokens, size)
    )
    return *bits, np.array(numbers, number), moves


def median_us(encoder: str, repeats: int = REPEATS) -> float:
    """Return the median time of one inference in microseconds."""
    operator, *_ = OPERATORS[encoder]
    arguments = problem(encoder)
    times = []
    for _ in range(WARM_UP + repeats):
        begin = time.perf_counter()
        operator(*arguments)
        times.append(time.perf_counter() - begin)
    return round(statistics.median(times[WARM_UP:]) * 1e6, 1)


def machine() -> dict[str, str]:
    """Return what the times depend on: CPU, versions, and the text of this file."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    names = re.findall(r"^model name\s*: (.+)$", text, re.MULTILINE)
    return {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "numpy": np.__version__,
        "python": platform.python_version(),
        "source_sha256": hashlib.sha256(Path(__file__).read_bytes()).hexdigest(),
    }


@click.command(cls=Command, help=__doc__)
def main() -> None:
    """Run the command."""
    known = machine()
    stored = load_study(STUDY)
    if stored is None or any(stored.get(key) != value for key, value in known.items()):
        stored = {
            **known,
            "timesteps": STEPS,
            "tokens": TOKENS,
            "head_dim": SIZE,
            "repeats": REPEATS,
            "median_us": {encoder: median_us(encoder) for encoder in OPERATORS},
        }
        save_study(STUDY, stored)
    times = ", ".join(f"{encoder} {us} us" for encoder, us in stored["median_us"].items())
    click.echo(f"{stored['cpu']}, numpy {stored['numpy']}: {times} an inference")


if __name__ == "__main__":
    main(prog_name="python -m bench.cpu_attention")
