"""Golden model of stochastic spiking attention, every random bit included."""

from collections.abc import Mapping
from typing import Any

import numpy as np

MASK = (1 << 64) - 1
SCALED_BITS = 20
TAPS = {32: (31, 21, 1, 0), 31: (30, 2, 1, 0)}  # bits whose XOR is shifted in


def mix(value: int) -> int:
    """Return SplitMix64's output for a state (Steele, Lea, Flood, OOPSLA 2014)."""
    value = (value + 0x9E3779B97F4A7C15) & MASK
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & MASK
    value = (value ^ value >> 27) * 0x94D049BB133111EB & MASK
    return value ^ value >> 31


def shuffled(key: int, bound: int, length: int) -> np.ndarray:
    """Return `length` constants below `bound`: Fisher-Yates permutations, one after another."""
    draws = 0
    table: list[int] = []
    while len(table) < length:
        deck = np.arange(bound)
        for top in range(bound, 1, -1):
            pick = mix((key * 2**20 + draws) & MASK) % top
            deck[[top - 1, pick]] = deck[[pick, top - 1]]
            draws += 1
        table.extend(int(card) for card in deck)
    return np.array(table[:length])


def is_power_of_two(bound: int) -> bool:
    """Return whether `bound` is a power of two."""
    return bound & (bound - 1) == 0


def draw(register: int, degree: int, bound: int) -> tuple[int, int]:
    """Return (a number below `bound`, the register for the next draw)."""
    bits = bound.bit_length() - 1 if is_power_of_two(bound) else SCALED_BITS
    number = register % (1 << bits)
    for _ in range(bits):
        fed = 0
        for tap in TAPS[degree]:
            fed ^= register >> tap & 1
        register = (register << 1 | fed) & ((1 << degree) - 1)
    return (number if is_power_of_two(bound) else number * bound >> bits), register


def moved(number: int, skews: np.ndarray, bound: int) -> np.ndarray:
    """Return `number` moved by each of `skews` (any shape), a bijection of 0..bound-1."""
    return number ^ skews if is_power_of_two(bound) else (number + skews) % bound


def combined(rows: np.ndarray, columns: np.ndarray, bound: int) -> np.ndarray:
    """Return the skew of each pair of a row and a column."""
    pairs = rows[:, None], columns[None, :]
    return pairs[0] ^ pairs[1] if is_power_of_two(bound) else (pairs[0] + pairs[1]) % bound


def attention(
    parameters: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    state: tuple[int, int] | None = None,
) -> tuple[dict[str, np.ndarray], tuple[int, int]]:
    """Run one inference of attention.

    Parameters
    ----------
    parameters : mapping
        ``heads, causal, seed``.
    arrays : mapping
        ``q``, ``k``, ``v`` [T, N, D] 0/1.
    state : (int, int), optional
        The registers of the score and of the output source; those after reset if left out.

    Returns
    -------
    result : dict
        ``out`` [T, N, D] 0/1.
    state : (int, int)
        The registers after T draws each.

    Notes
    -----
    Stochastic Spiking Attention (arXiv 2402.09109), eq. 5 and 6.
    """
    q, k, v = (np.asarray(arrays[name], dtype=np.int64) for name in "qkv")
    heads, seed = parameters["heads"], parameters["seed"]
    steps, tokens, channels = q.shape
    size = channels // heads
    score_register, output_register = state or (seed, mix(seed) % (2**31 - 1) + 1)

    def table(head: int, axis: int, bound: int, length: int) -> np.ndarray:
        return shuffled(mix((seed + 2**32 * (4 * head + axis)) & MASK), bound, length)

    score_skews, output_skews = [], []
    for h in range(heads):
        score_skews.append(combined(table(h, 0, size, tokens), table(h, 1, size, tokens), size))
        output_skews.append(
            combined(table(h, 2, tokens, tokens), table(h, 3, tokens, size), tokens)
        )

    out = np.zeros((steps, tokens, channels), np.uint8)
    for t in range(steps):
        r1, score_register = draw(score_register, 32, size)
        r2, output_register = draw(output_register, 31, tokens)
        for h in range(heads):
            own = slice(h * size, (h + 1) * size)
            scores = moved(r1, score_skews[h], size) < q[t, :, own] @ k[t, :, own].T
            if parameters["causal"]:
                scores = np.tril(scores)
            out[t, :, own] = moved(r2, output_skews[h], tokens) < scores @ v[t, :, own]
    return {"out": out}, (score_register, output_register)
