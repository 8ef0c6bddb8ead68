"""What the outputs of attention are as random variables: exact moments, and checks with a verdict.

A time step of attention with fixed q, k, v depends on one pair of draws (r, j) alone, and there are
only dK * N pairs. So the mean of every output bit, its error, and the error of every sum of output
bits are finite sums over those pairs: they are enumerated here and not sampled. What is sampled,
the sequence of the draws, is held against exact or Chernoff bounds with a stated chance of a
false alarm.

All bits are golden's: `sim.golden.attention` provides the draws, the skews and the places.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np

from sim.golden import attention as golden

ENCODERS = ("count", "sample")
SOURCES = ("lfsr", "sobol")

SHARINGS = ("skewed", "tokens", "channels", "unskewed")
"""How one draw serves all positions of a stage: the hardware's way, and three that fail.

``skewed`` moves it for the token and for the channel (or key), ``tokens`` for the token alone,
``channels`` for the channel (or key) alone, ``unskewed`` not at all. The reference of them all is
`independent`, where every position has a random number of its own.
"""

FALSE_ALARM = 1e-6
"""Chance that one check fails on a perfect source, over all that it looks at."""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a check found.

    Attributes
    ----------
    name : str
    value, limit : float
        It passes iff ``value <= limit``.
    where : str
        The place of the worst value.
    """

    name: str
    value: float
    limit: float
    where: str = ""

    @property
    def passed(self) -> bool:
        """Whether the check passed; NaN does not."""
        return bool(self.value <= self.limit)

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        place = f" at {self.where}" if self.where else ""
        return f"{self.name}: {self.value:.4g}{place}, limit {self.limit:.4g}"


# Inputs


@dataclasses.dataclass(frozen=True)
class Case:
    """One time step's q, k, v, each [N, D] of 0/1, and its heads."""

    name: str
    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    heads: int = 1

    @property
    def tokens(self) -> int:
        """Tokens N."""
        return len(self.q)

    @property
    def size(self) -> int:
        """Channels dK of a head."""
        return self.q.shape[1] // self.heads

    @property
    def bounds(self) -> tuple[int, int]:
        """Bounds of the draw of the scores, and of that of the outputs."""
        return self.size, self.tokens

    def of_head(self, head: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return q, k, v of a head, [N, dK] of int64."""
        own = slice(head * self.size, (head + 1) * self.size)
        q, k, v = (x[:, own].astype(np.int64) for x in (self.q, self.k, self.v))
        return q, k, v


def random_case(
    tokens: int, size: int, density: float | Sequence[float], seed: int, heads: int = 1
) -> Case:
    """Return q, k, v of independent bits; one density, or one each."""
    rng = np.random.default_rng(seed)
    each = [density] * 3 if isinstance(density, float) else list(density)
    q, k, v = ((rng.random((tokens, size * heads)) < p).astype(np.uint8) for p in each)
    label = "/".join(f"{p:g}" for p in dict.fromkeys(each))
    return Case(f"random {label}", q, k, v, heads)


def structured_cases(tokens: int, size: int, seed: int = 1) -> list[Case]:
    """Return the inputs in which shared draws have failed before, or could.

    Identity, block-diagonal (four blocks), one-hot columns and rows, equal rows and columns,
    silent tokens, all ones, all zeros; where a part is random its density is 1/2.
    """
    rng = np.random.default_rng(seed)
    n, d = np.arange(tokens)[:, None], np.arange(size)[None, :]
    ones = np.ones((tokens, size), np.uint8)

    def bits(*shape: int) -> np.ndarray:
        return (rng.random(shape) < 0.5).astype(np.uint8)

    eye = (n % size == d % tokens).astype(np.uint8)
    blocks = (n * 4 // tokens == d * 4 // size).astype(np.uint8)
    column = (d == size // 3) * ones
    row = (n == tokens // 3) * ones
    rows = [np.repeat(bits(1, size), tokens, axis=0) for _ in range(3)]
    columns = [np.repeat(bits(tokens, 1), size, axis=1) for _ in range(3)]
    half = (n < tokens // 2) * ones
    some = [bits(tokens, size) for _ in "qkv"]
    return [
        Case("all zeros", ones * 0, ones * 0, ones * 0),
        Case("all ones", ones, ones, ones),
        Case("identity", eye, eye, eye),
        Case("identity q and k, ones v", eye, eye, ones),
        Case("block-diagonal", blocks, blocks, blocks),
        Case("random in blocks", some[0] * blocks, some[1] * blocks, some[2] * blocks),
        Case("one-hot column", column, column, ones),
        Case("one-hot column of q", column, ones, ones),
        Case("one-hot column, random v", column, some[1], some[2]),
        Case("one-hot row of k and v", ones, row, row),
        Case("one-hot row, random", some[0], row * some[1], row),
        Case("one-hot row of v", some[0], some[1], row),
        Case("one-hot channel of v", some[0], some[1], column),
        Case("equal rows", rows[0], rows[1], rows[2]),
        Case("equal rows of q", rows[0], some[1], some[2]),
        Case("equal rows of k and v", some[0], rows[1], rows[2]),
        Case("equal columns", columns[0], columns[1], columns[2]),
        Case("equal columns of v", some[0], some[1], columns[2]),
        Case("half of the tokens silent", some[0] * half, some[1] * half, some[2] * half),
        Case("half of the queries, ones", half, ones, half),
    ]


# Moments


def scores(case: Case) -> np.ndarray:
    """Return the chance of every score bit, [H, N, N]."""
    heads = [case.of_head(h) for h in range(case.heads)]
    return np.array([q @ k.T for q, k, _ in heads]) / case.size


def expectation(case: Case) -> np.ndarray:
    """Return (Q K^T) V / (dK N) of every head, [N, D]: the chance of every output bit."""
    chance = scores(case)
    values = [case.of_head(h)[2] for h in range(case.heads)]
    return np.concatenate(
        [s @ v / case.tokens for s, v in zip(chance, values, strict=True)], axis=1
    )


def independent_covariance(case: Case) -> np.ndarray:
    """Return the covariance of a token's channels [N, D, D] with a random number per position.

    Tokens and heads are independent. The channels of a token are not quite: they share its score
    bits, which is so in the paper's circuit as well.
    """
    chance, mean = scores(case), expectation(case)
    channels = case.heads * case.size
    out = np.zeros((case.tokens, channels, channels))
    for h in range(case.heads):
        own = slice(h * case.size, (h + 1) * case.size)
        v = case.of_head(h)[2].astype(float)
        spread = chance[h] * (1 - chance[h]) / case.tokens**2
        out[:, own, own] = np.einsum("md,nm,me->nde", v, spread, v, optimize=True)
    every = np.arange(channels)
    out[:, every, every] = mean * (1 - mean)
    return out


def independent(case: Case, steps: int, rng: np.random.Generator) -> np.ndarray:
    """Return output bits [steps, N, D] with a random number of its own for every position."""
    chance = scores(case)
    out = np.empty((steps, case.tokens, case.heads * case.size), bool)
    for h in range(case.heads):
        own = slice(h * case.size, (h + 1) * case.size)
        v = case.of_head(h)[2].astype(np.float32)
        drawn = (rng.random((steps, case.tokens, case.tokens)) < chance[h]).astype(np.float32)
        out[:, :, own] = rng.random((steps, case.tokens, case.size)) * case.tokens < drawn @ v
    return out


def outputs(case: Case, encoder: str, seed: int, sharing: str = "skewed") -> np.ndarray:
    """Return the output bits of every pair of draws, [dK, N, N, D] by (r, j, token, channel)."""
    one = {"count": _counted, "sample": _sampled}[encoder]
    return np.concatenate([one(case, h, seed, sharing) for h in range(case.heads)], axis=3)


def _blind(skews: np.ndarray, sharing: str) -> np.ndarray:
    """Return skews [rows, columns] of which `sharing` leaves some out."""
    return {
        "skewed": skews,
        "tokens": np.broadcast_to(skews[:, :1], skews.shape),
        "channels": np.broadcast_to(skews[:1], skews.shape),
        "unskewed": np.zeros_like(skews),
    }[sharing]


def _counted(case: Case, head: int, seed: int, sharing: str) -> np.ndarray:
    q, k, v = case.of_head(head)
    first, second = (
        _blind(s, sharing) for s in golden.count_skews(seed, head, case.tokens, case.size)
    )
    drawn = [golden.moved(r, first, case.size) < q @ k.T for r in range(case.size)]
    counts = np.array([(s.astype(np.float32) @ v.astype(np.float32)) for s in drawn])
    moved = np.array([golden.moved(j, second, case.tokens) for j in range(case.tokens)])
    return moved.astype(np.int16)[None] < counts.astype(np.int16)[:, None]


def _sampled(case: Case, head: int, seed: int, sharing: str) -> np.ndarray:
    q, k, v = case.of_head(head)
    channel, token, pick = golden.sampled_places(seed, head, case.tokens, case.size)
    channel, token = _blind(channel, sharing), _blind(token, sharing)
    n, d = np.arange(case.tokens)[:, None], np.arange(case.size)[None, :]
    # What (n, d) takes of q and k with r and j, and of v with j.
    c = pick[np.arange(case.size)[:, None, None] ^ channel]
    m = np.arange(case.tokens)[:, None, None] ^ token
    both = q[n, c].astype(bool)[:, None] & v[m, d].astype(bool)[None]
    return both & k.astype(bool)[m[None], c[:, None]]


METRICS = ("bit", "gaussian", "uniform", "sparse", "tokens", "pooled")
"""Errors of: an output bit; a projection over a token's channels with weights of three laws;
the mean over tokens of a channel; that mean, projected with uniform weights."""

PROJECTIONS = 64


def weights(law: str, channels: int, count: int = PROJECTIONS, seed: int = 1) -> np.ndarray:
    """Return an ensemble of projections, [count, channels].

    Parameters
    ----------
    law : {"gaussian", "uniform", "sparse"}
        Standard normal; uniform in 0..1, whose mean is not zero and which therefore sees what the
        channels have in common; -1, 0, 1, of which an eighth (at least one) is not zero.
    channels, count, seed : int
    """
    rng = np.random.default_rng([seed, channels])
    if law == "gaussian":
        return rng.standard_normal((count, channels))
    if law == "uniform":
        return rng.random((count, channels))
    chosen = rng.random((count, channels)).argsort(axis=1) < max(channels // 8, 1)
    return chosen * rng.choice([-1.0, 1.0], (count, channels))


@dataclasses.dataclass(frozen=True)
class Moments:
    """Second moments of the errors of one time step.

    Attributes
    ----------
    channels : ndarray [D, D]
        Covariance of the channels of a token, averaged over tokens.
    pooled : ndarray [D, D]
        Covariance of the means over tokens.
    """

    channels: np.ndarray
    pooled: np.ndarray

    def squares(self, metric: str, count: int = PROJECTIONS) -> np.ndarray:
        """Return the mean square errors that `metric` averages: one a channel or projection."""
        if metric == "bit":
            return np.diagonal(self.channels).copy()
        if metric == "tokens":
            return np.diagonal(self.pooled).copy()
        law, matrix = ("uniform", self.pooled) if metric == "pooled" else (metric, self.channels)
        w = weights(law, len(matrix), count)
        return np.einsum("od,od->o", w @ matrix, w)

    def rms(self, metric: str) -> float:
        """Return the root mean square error of a time step."""
        return math.sqrt(max(self.squares(metric).mean(), 0.0))


def shared_moments(bits: np.ndarray, mean: np.ndarray) -> Moments:
    """Return the moments of output bits [..., N, D], each equally likely, about their mean."""
    tokens, channels = mean.shape
    errors = bits.reshape(-1, tokens, channels) - mean.astype(np.float32)
    flat = errors.reshape(-1, channels)
    pooled = errors.mean(1, dtype=np.float64)
    return Moments((flat.T @ flat).astype(float) / len(flat), pooled.T @ pooled / len(pooled))


def independent_moments(case: Case) -> Moments:
    """Return the moments with a random number of its own for every position."""
    covariance = independent_covariance(case)
    return Moments(covariance.mean(0), covariance.sum(0) / case.tokens**2)


def squares(errors: np.ndarray, metric: str) -> np.ndarray:
    """Return the mean square error, as `metric` has it, of each of errors [..., N, D]."""
    if metric == "bit":
        return (errors**2).mean((-2, -1))
    if metric == "tokens":
        return (errors.mean(-2) ** 2).mean(-1)
    law, summed = ("uniform", errors.mean(-2)) if metric == "pooled" else (metric, errors)
    projected = summed @ weights(law, errors.shape[-1]).T.astype(errors.dtype)
    return (projected**2).mean(tuple(range(errors.ndim - 2, projected.ndim)))


# Draws


@functools.lru_cache(maxsize=32)
def draw_pairs(
    rng: str, seed: int, bounds: tuple[int, int], steps: int, encoder: str = "count"
) -> np.ndarray:
    """Return golden's draws (r, j) after reset, [steps, 2]."""
    pairs = np.empty((steps, 2), np.int64)
    parameters = {"encoder": encoder, "rng": rng, "seed": seed, "reseed": False}
    if rng == "sobol":
        pairs[:] = golden.draws(parameters, bounds, steps, None)[0]
    else:
        _, start = golden.draws(parameters, bounds, 0, None)
        for stage, (degree, bound) in enumerate(zip((32, 31), bounds, strict=True)):
            pairs[:, stage] = register_draws(start[stage], degree, bound, steps)
    pairs.setflags(write=False)
    return pairs


def register_draws(start: int, degree: int, bound: int, steps: int) -> np.ndarray:
    """Return what `golden.draw` draws in so many steps from a register, much faster.

    A step of the register is linear over GF(2): as many states as there are so far are made at
    once, by the map that is applied to all of them, and the map is squared.
    """
    images = np.array([golden.draw(1 << i, degree, bound)[1] for i in range(degree)], np.int64)

    def apply(states: np.ndarray) -> np.ndarray:
        out = np.zeros_like(states)
        for i, image in enumerate(images):
            out ^= (states >> i & 1) * image
        return out

    states = np.array([start], np.int64)
    while len(states) < steps:
        states = np.concatenate([states, apply(states)])
        images = apply(images)
    exact = golden.is_power_of_two(bound)
    bits = bound.bit_length() - 1 if exact else golden.SCALED_BITS
    numbers = states[:steps] % (1 << bits)
    return numbers if exact else numbers * bound >> bits


def exponents(degree: int) -> tuple[int, ...]:
    """Return the exponents of golden's polynomial of a degree, without the constant."""
    return tuple(tap + 1 for tap in golden.TAPS[degree])


def register_forms(polynomial: Sequence[int], length: int) -> list[int]:
    """Return the bits that an LFSR shifts through as sums (masks) of those it starts with."""
    degree = max(polynomial)
    forms = [1 << i for i in range(degree)]
    for i in range(degree, length):
        forms.append(functools.reduce(lambda x, e: x ^ forms[i - e], polynomial, 0))
    return forms


def rank(forms: Sequence[int]) -> int:
    """Return the rank of linear forms over GF(2)."""
    basis: list[int] = []
    for form in forms:
        for row in basis:
            form = min(form, form ^ row)
        if form:
            basis.append(form)
    return len(basis)


# Checks


def normal_limit(looks: int) -> float:
    """Return what the largest of so many |z| exceeds with a chance of at most `FALSE_ALARM`."""
    return -NormalDist().inv_cdf(FALSE_ALARM / (2 * looks))


def chi_square_z(value: np.ndarray | float, freedom: int) -> np.ndarray:
    """Return chi-square values as standard normals (Wilson and Hilferty, PNAS 17, 1931)."""
    scale = 2 / (9 * freedom)
    return (np.cbrt(np.asarray(value) / freedom) - (1 - scale)) / math.sqrt(scale)


def histogram(pairs: np.ndarray, bounds: tuple[int, int]) -> np.ndarray:
    """Return how often each pair was drawn, as `bounds` has them."""
    return np.bincount(pairs[:, 0] * bounds[1] + pairs[:, 1], minlength=bounds[0] * bounds[1])


def check_fired(fired: np.ndarray, steps: int, chance: np.ndarray) -> Verdict:
    """Check how often every output bit fired, [N, D], against its chance.

    Chernoff: after T steps, P(f fired or more) <= exp(-T KL(f / T || p)), whatever p; so with B
    bits, T KL exceeds ln(2 B / `FALSE_ALARM`) anywhere with a chance of at most `FALSE_ALARM`, by
    Bonferroni however the bits depend on one another. Bits of chance 0 or 1 have to be certain.
    """
    rate = fired / steps
    with np.errstate(divide="ignore", invalid="ignore"):
        up = np.where(rate > 0, rate * np.log(rate / chance), 0.0)
        down = np.where(rate < 1, (1 - rate) * np.log((1 - rate) / (1 - chance)), 0.0)
    surprise = steps * (up + down)
    n, d = np.unravel_index(surprise.argmax(), surprise.shape)
    return Verdict(
        "mean of an output bit",
        float(surprise[n, d]),
        math.log(2 * rate.size / FALSE_ALARM),
        f"({n}, {d}): {rate[n, d]:.5f} for {chance[n, d]:.5f}",
    )


def check_means(case: Case, bits: np.ndarray, pairs: np.ndarray) -> Verdict:
    """Check the mean of every output bit over a run of draws; `bits` are those of `outputs`."""
    fired = histogram(pairs, case.bounds) @ bits.reshape(math.prod(case.bounds), -1).astype(float)
    chance = expectation(case)
    return check_fired(fired.reshape(chance.shape), len(pairs), chance)


def check_exact_means(case: Case, bits: np.ndarray, pairs: np.ndarray) -> Verdict:
    """Check that the mean of every output bit over `pairs` is exact: integers, no tolerance."""
    fired = histogram(pairs, case.bounds) @ bits.reshape(math.prod(case.bounds), -1).astype(int)
    heads = [case.of_head(h) for h in range(case.heads)]
    product = np.concatenate([q @ k.T @ v for q, k, v in heads], axis=1)
    off = np.abs(fired.reshape(product.shape) * math.prod(case.bounds) - len(pairs) * product)
    n, d = np.unravel_index(off.argmax(), off.shape)
    return Verdict("exact mean of an output bit", float(off.max()), 0.0, f"({n}, {d})")


def check_pairs(pairs: np.ndarray, bounds: tuple[int, int]) -> Verdict:
    """Check that (r, j) is uniform over all dK * N pairs: chi-square, too even fails as well."""
    seen = histogram(pairs, bounds)
    even = len(pairs) / seen.size
    z = abs(float(chi_square_z(((seen - even) ** 2 / even).sum(), seen.size - 1)))
    return Verdict("draws of both stages together", z, normal_limit(1), f"pair {seen.argmax()}")


def check_steps(pairs: np.ndarray, bounds: tuple[int, int], lags: int = 16) -> Verdict:
    """Check that draws of different time steps are independent: chi-square of each two of them."""
    names = "rj"
    worst = Verdict("draws of two time steps", 0.0, normal_limit(4 * lags))
    for lag in range(1, lags + 1):
        for first, second in ((0, 0), (0, 1), (1, 0), (1, 1)):
            both = np.stack([pairs[:-lag, first], pairs[lag:, second]], axis=1)
            z = check_pairs(both, (bounds[first], bounds[second])).value
            if not z <= worst.value:
                where = f"{names[first]} and {names[second]} {lag} later"
                worst = dataclasses.replace(worst, value=z, where=where)
    return worst


def check_register(polynomial: Sequence[int], width: int, lags: int = 256) -> Verdict:
    """Check that draws of `width` bits of one LFSR are pairwise independent, exactly.

    The draws at t and t + lag are independent over the register's period (but for the zero state)
    iff their bits are linearly independent in the bits of the register; no sampling.
    """
    forms = register_forms(polynomial, width * (lags + 1))
    common = {
        lag: shared
        for lag in range(1, lags + 1)
        if (shared := 2 * width - rank(forms[:width] + forms[lag * width : (lag + 1) * width]))
    }
    where = "; ".join(f"{bits} at lag {lag}" for lag, bits in common.items())
    return Verdict(
        f"bits common to two draws of {width}", max(common.values(), default=0), 0, where
    )


def check_autocorrelation(
    case: Case, bits: np.ndarray, pairs: np.ndarray, lags: int = 16
) -> Verdict:
    """Check that errors of different time steps are uncorrelated.

    Looked at are every output bit that fires often enough for the normal law (in 2 to 98 % of the
    time steps), every channel's mean over tokens, and random projections of all bits.
    """
    chance = expectation(case)
    errors = bits.reshape(math.prod(case.bounds), *chance.shape) - chance.astype(np.float32)
    flat = errors.reshape(len(errors), -1)
    often = (chance.ravel() > 0.02) & (chance.ravel() < 0.98)
    drawn = np.random.default_rng(1).standard_normal((flat.shape[1], PROJECTIONS))
    series = np.concatenate(
        [flat[:, often], errors.mean(1), flat @ drawn.astype(np.float32)], axis=1
    )
    spread = series.std(0)
    series = (series[:, spread > 1e-6] / spread[spread > 1e-6]).astype(np.float32)
    run = series[pairs[:, 0] * case.tokens + pairs[:, 1]]
    worst = Verdict("autocorrelation of errors", 0.0, normal_limit(lags * run.shape[1]))
    for lag in range(1, lags + 1):
        z = np.abs(np.einsum("tk,tk->k", run[lag:], run[:-lag])) / math.sqrt(len(run) - lag)
        if not z.max() <= worst.value:
            worst = dataclasses.replace(worst, value=float(z.max()), where=f"lag {lag}")
    return worst


def check_scores(case: Case, encoder: str, seed: int, pairs: np.ndarray) -> Verdict:
    """Check that no score bit says anything about the draw of the outputs: chi-square of each.

    With the sample encoder, a score bit is that of the channel which output (n, 0) picks.
    """
    found = []
    for head in range(case.heads):
        q, k, _ = case.of_head(head)
        r = np.arange(case.size)[:, None, None]
        if encoder == "count":
            skews, _ = golden.count_skews(seed, head, case.tokens, case.size)
            found.append(golden.moved(r, skews, case.size) < q @ k.T)
        else:
            channel, _, pick = golden.sampled_places(seed, head, case.tokens, case.size)
            c = pick[r[:, :, 0] ^ channel[:, 0]]
            both = q[np.arange(case.tokens), c][:, :, None] & k.T[c]
            found.append(both.astype(bool))
    bits = np.concatenate([x.reshape(case.size, -1) for x in found], axis=1).astype(float)
    seen = histogram(pairs, case.bounds).reshape(case.bounds).astype(float)
    fired = seen.T @ bits  # [j, score bit]
    drawn = seen.sum(0)[:, None]
    rate = fired.sum(0) / len(pairs)
    moving = (rate > 0) & (rate < 1)
    if not moving.any():
        return Verdict("score bits and output draws", 0.0, normal_limit(1))
    fired, rate = fired[:, moving], rate[moving]
    value = ((fired - drawn * rate) ** 2 / (np.maximum(drawn, 1e-9) * rate * (1 - rate))).sum(0)
    z = chi_square_z(value, case.tokens - 1)
    return Verdict("score bits and output draws", float(z.max()), normal_limit(len(z)))


BOUND = 1.1
"""Largest error allowed, in units of that of independent sampling."""


def check_error(shared: Moments, reference: Moments, metric: str) -> Verdict:
    """Check an error of shared draws against that of independent sampling; both are exact."""
    free = reference.rms(metric)
    ratio = shared.rms(metric) / free if free else float(shared.rms(metric) > 0)
    return Verdict(f"error of {metric}", ratio, BOUND)


def projection_ratios(
    moments: Moments, reference: Moments, law: str, count: int = 1000
) -> np.ndarray:
    """Return the error of each of many projections, in units of the reference's."""
    exact = reference.squares(law, count)
    return np.sqrt(moments.squares(law, count)[exact > 0] / exact[exact > 0])


def check_projections(
    shared: Moments, reference: Moments, estimated: Moments, law: str, count: int = 1000
) -> Verdict:
    """Check the worst percent of many projections against the same of independent sampling.

    Each projection's error is divided by the exact one of independent sampling. Over finitely many
    draws some projection is always worse than the average: `estimated` are the moments of as many
    independent draws, and what they give is the reference.
    """
    ours, theirs = (
        float(np.quantile(projection_ratios(m, reference, law, count), 0.99))
        for m in (shared, estimated)
    )
    return Verdict(f"worst percent of {law} projections", ours, BOUND * max(theirs, 1.0))


# Inputs built against the constants


def against(encoder: str, metric: str, tokens: int, size: int, seed: int) -> Case:
    """Return an input whose bits fire together, made from the constants of a seed.

    Parameters
    ----------
    encoder : {"count", "sample"}
    metric : {"tokens", "uniform"}
        All tokens of a channel fire with the same draws, or all channels of a token.
    tokens, size, seed : int

    Notes
    -----
    Count: exactly half of the values of a channel are 1, so that an output bit is the top bit of
    the moved draw; all tokens (channels) where the top bit of the skew is 1 are silenced.
    Sample: the bits of Q (of V) stand where the picks of a fixed half of all draws go.
    """
    ones = np.ones((tokens, size), np.uint8)
    q, k, v = ones.copy(), ones.copy(), ones.copy()
    if encoder == "count":
        _, skews = golden.count_skews(seed, 0, tokens, size)
        v[tokens // 2 :] = 0
        if metric == "tokens":
            q[(skews[:, 0] ^ skews[0, 0]) * 2 >= tokens] = 0
        else:
            v[:, (skews[0] ^ skews[0, 0]) * 2 >= tokens] = 0
    else:
        channel, token, pick = golden.sampled_places(seed, 0, tokens, size)
        if metric == "tokens":
            for n in range(tokens):
                q[n, pick[np.arange(size // 2, size) ^ channel[n, 0]]] = 0
        else:
            for d in range(size):
                v[np.arange(tokens // 2, tokens) ^ token[0, d], d] = 0
    return Case(f"against {metric}", q, k, v)


def natural_case(tokens: int, size: int, rng: np.random.Generator) -> Case:
    """Return an input of a random structure that knows nothing of the constants.

    Each of q, k, v is a random matrix, equal rows, equal columns, or an outer AND of a pattern of
    tokens and one of channels; a pattern is a prefix, a period, a run, or random.
    """

    def pattern(length: int) -> np.ndarray:
        at = np.arange(length)
        period = 1 << rng.integers(1, max(length.bit_length() - 1, 2))
        start = rng.integers(length)
        choices = [
            at >= 0,
            at < rng.integers(1, length + 1),
            at % period == rng.integers(period),
            at % period < period // 2,
            (at - start) % length < rng.integers(1, length + 1),
            rng.random(length) < rng.random(),
        ]
        return choices[rng.integers(len(choices))]

    def matrix() -> np.ndarray:
        kind = rng.integers(3)
        mask = pattern(tokens)[:, None] & pattern(size)[None, :]
        noise = rng.random((tokens, size)) < rng.choice([0.25, 0.5, 0.9])
        return (mask if kind == 0 else noise & mask if kind == 1 else noise).astype(np.uint8)

    return Case("natural", matrix(), matrix(), matrix())


def climbed(
    start: Case, ratio: Callable[[Case], float], flips: int, rng: np.random.Generator
) -> tuple[Case, float]:
    """Return the case after flipping single bits while the ratio rises, and its ratio."""
    best, value = start, ratio(start)
    for _ in range(flips):
        q, k, v = best.q.copy(), best.k.copy(), best.v.copy()
        chosen = (q, k, v)[rng.integers(3)]
        row, column = (int(rng.integers(length)) for length in chosen.shape)
        chosen[row, column] ^= 1
        tried = Case("climbed", q, k, v, start.heads)
        if (found := ratio(tried)) >= value:
            best, value = tried, found
    return best, value
