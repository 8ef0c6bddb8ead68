"""Golden model of stochastic spiking attention, every random bit included."""

from collections.abc import Mapping
from typing import Any

import numpy as np

MASK = (1 << 64) - 1
SCALED_BITS = 20
TAPS = {32: (31, 25, 19, 10), 31: (30, 20, 16, 12)}  # bits whose XOR is shifted in

Draws = list[tuple[int, int]]


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


def table(seed: int, head: int, axis: int, bound: int, length: int) -> np.ndarray:
    """Return the table of constants of one axis of a head.

    A table that is shorter than its bound has its top bits spread as evenly as can be.
    """
    key = mix((seed + 2**32 * (4 * head + axis)) & MASK)
    if length < bound and is_power_of_two(bound) and is_power_of_two(length):
        step = bound // length
        return shuffled(key, length, length) * step + shuffled(mix(key), step, length)
    return shuffled(key, bound, length)


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


def sobol(index: int, dimension: int, bound: int) -> int:
    """Return a number below `bound` from point `index` of Sobol's sequence.

    Dimension 0 is van der Corput's sequence, dimension 1 has Pascal's triangle modulo 2 as its
    generator matrix (Sobol, USSR Comp. Math. 7, 1967). No Gray code: point i is of index i.
    """
    value = 0
    for place in range(SCALED_BITS):
        for i in range(place, index.bit_length()):
            # C(i, place) is odd iff place is contained in i (Lucas).
            take = i == place if dimension == 0 else i & place == place
            if take:
                value ^= (index >> i & 1) << (SCALED_BITS - 1 - place)
    return value * bound >> SCALED_BITS


def moved(number: int | np.ndarray, skews: np.ndarray, bound: int) -> np.ndarray:
    """Return `number` moved by each of `skews` (any shape), a bijection of 0..bound-1."""
    return number ^ skews if is_power_of_two(bound) else (number + skews) % bound


def combined(rows: np.ndarray, columns: np.ndarray, bound: int) -> np.ndarray:
    """Return the skew of each pair of a row and a column."""
    pairs = rows[:, None], columns[None, :]
    return pairs[0] ^ pairs[1] if is_power_of_two(bound) else (pairs[0] + pairs[1]) % bound


def token_order(seed: int, tokens: int) -> np.ndarray:
    """Return the token that the sample encoder takes Sobol's second dimension for.

    The first 2^k points are a subspace, which XOR maps to few cosets of it: many outputs would pick
    the same places. After a permutation they don't.
    """
    return shuffled(mix((seed + 2**41) & MASK), tokens, tokens)


def draws(
    parameters: Mapping[str, Any], bounds: tuple[int, int], steps: int, state: Any
) -> tuple[Draws, Any]:
    """Return the draws of both stages for so many time steps, and the state behind them.

    Parameters
    ----------
    parameters : mapping
        ``encoder, rng, seed, reseed``.
    bounds : (int, int)
        Of the draw of the scores, and of that of the outputs.
    steps : int
    state : (int, int) or None
        The registers of both stages; None after reset.
    """
    seed = parameters["seed"]
    if parameters["rng"] == "sobol":
        sample = parameters["encoder"] == "sample"
        order = token_order(seed, bounds[1]) if sample else np.arange(bounds[1])
        points = [(sobol(t, 0, bounds[0]), sobol(t, 1, bounds[1])) for t in range(steps)]
        return [(r, int(order[j])) for r, j in points], None
    if state is None or parameters["reseed"]:
        state = mix(seed + 2**40) % (2**32 - 1) + 1, mix(seed) % (2**31 - 1) + 1
    first, second = state
    out = []
    for _ in range(steps):
        r1, first = draw(first, 32, bounds[0])
        r2, second = draw(second, 31, bounds[1])
        out.append((r1, r2))
    return out, (first, second)


def count_skews(seed: int, head: int, tokens: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the skews of a head's scores [N, N] and outputs [N, dK] with the count encoder."""
    return (
        combined(table(seed, head, 0, size, tokens), table(seed, head, 1, size, tokens), size),
        combined(table(seed, head, 2, tokens, tokens), table(seed, head, 3, tokens, size), tokens),
    )


def spread(places: np.ndarray, seed: int, head: int, tokens: int, size: int) -> np.ndarray:
    """Return channels' places below dK as tokens: cut, or with parities of the place on top."""
    out = places % min(tokens, size)
    key = mix((seed + 2**32 * (4 * head + 3) + 2**31) & MASK)
    for bit in range(size.bit_length(), tokens.bit_length()):
        mask = mix((key + bit) & MASK) % (size - 1) + 1 if size > 1 else 0
        parity = np.array([(int(p) & mask).bit_count() & 1 for p in places.flat])
        out = out | parity.reshape(places.shape) << (bit - 1)
    return out


def sampled_places(
    seed: int, head: int, tokens: int, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what the sample encoder moves its draws (r, j) by, and what it picks with r.

    Output (n, d) is taken from channel ``pick[r ^ channel[n, d]]`` and token ``j ^ token[n, d]``.

    Returns
    -------
    channel : array [N, dK]
    token : array [N, dK]
    pick : array [dK]
    """
    places = table(seed, head, 3, size, size)
    channel = table(seed, head, 0, size, tokens)[:, None] ^ places[None, :]
    token = (
        table(seed, head, 2, tokens, tokens)[:, None]
        ^ spread(places, seed, head, tokens, size)[None, :]
    )
    return channel, token, table(seed, head, 1, size, size)


def attention(
    parameters: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    state: tuple[int, int] | None = None,
) -> tuple[dict[str, np.ndarray], tuple[int, int] | None]:
    """Run one inference of attention.

    Parameters
    ----------
    parameters : mapping
        ``encoder, rng, heads, causal, seed, reseed``.
    arrays : mapping
        ``q``, ``k``, ``v`` [T, N, D] 0/1.
    state : (int, int), optional
        The registers of the score and of the output source; those after reset if left out.

    Returns
    -------
    result : dict
        ``out`` [T, N, D] 0/1.
    state : (int, int) or None
        The registers after T draws each; None where nothing runs on.

    Notes
    -----
    Stochastic Spiking Attention (arXiv 2402.09109), eq. 5 and 6. The sample encoder draws the same
    Bernoulli bits by picking one place in place of counting: with (m, c) picked uniformly,
    ``A[n, d] = Q[n, c] AND K[m, c] AND V[m, d]``.
    """
    q, k, v = (np.asarray(arrays[name], dtype=np.int64) for name in "qkv")
    heads, seed = parameters["heads"], parameters["seed"]
    steps, tokens, channels = q.shape
    size = channels // heads
    numbers, state = draws(parameters, (size, tokens), steps, state)
    out = np.zeros((steps, tokens, channels), np.uint8)
    for h in range(heads):
        own = slice(h * size, (h + 1) * size)
        one = {"count": counted, "sample": sampled}[parameters["encoder"]]
        out[:, :, own] = one(
            q[:, :, own], k[:, :, own], v[:, :, own], numbers, seed, h, parameters["causal"]
        )
    return {"out": out}, state


def counted(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, numbers: Draws, seed: int, head: int, causal: bool
) -> np.ndarray:
    """Return the outputs [T, N, dK] of a head with the count encoder."""
    _, tokens, size = q.shape
    score_skews, output_skews = count_skews(seed, head, tokens, size)
    out = np.zeros(q.shape, np.uint8)
    for t, (r1, r2) in enumerate(numbers):
        scores = moved(r1, score_skews, size) < q[t] @ k[t].T
        if causal:
            scores = np.tril(scores)
        out[t] = moved(r2, output_skews, tokens) < scores @ v[t]
    return out


def sampled(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, numbers: Draws, seed: int, head: int, causal: bool
) -> np.ndarray:
    """Return the outputs [T, N, dK] of a head with the sample encoder."""
    _, tokens, size = q.shape
    channel, token, pick = sampled_places(seed, head, tokens, size)
    n, d = np.arange(tokens)[:, None], np.arange(size)[None, :]
    out = np.zeros(q.shape, np.uint8)
    for t, (r, j) in enumerate(numbers):
        c, m = pick[r ^ channel], j ^ token
        out[t] = q[t][n, c] & k[t][m, c] & v[t][m, d]
        if causal:
            out[t] &= m <= n
    return out
