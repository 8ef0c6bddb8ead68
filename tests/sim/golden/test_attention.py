import numpy as np
import pytest

from hw.attention import AttentionConfig
from sim.golden.attention import SCALED_BITS, attention, combined, draw, moved, shuffled

SIZES = [(1, 1), (2, 3), (4, 4), (5, 8), (8, 5), (7, 3), (16, 16), (13, 11)]


def expectation(q, k, v, heads, causal):
    """Return E[A] of SSA: (Q K^T) V / (dK N) per head."""
    size = q.shape[-1] // heads
    out = []
    for h in range(heads):
        own = slice(h * size, (h + 1) * size)
        scores = q[..., own].astype(float) @ np.swapaxes(k[..., own], -1, -2)
        if causal:
            scores = np.tril(scores)
        out.append(scores @ v[..., own] / (size * q.shape[-2]))
    return np.concatenate(out, axis=-1)


def weights(bound):
    """Return the probability of each draw, over all values of the source."""
    if bound & (bound - 1) == 0:
        return np.full(bound, 1 / bound)
    numbers = np.arange(2**SCALED_BITS) * bound >> SCALED_BITS
    return np.bincount(numbers, minlength=bound) / 2**SCALED_BITS


@pytest.mark.parametrize(("tokens", "size"), SIZES)
@pytest.mark.parametrize("causal", [False, True])
def test_bias_of_every_output_bit_over_all_draws(tokens, size, causal):
    """Exact: every pair of draws is weighed with its probability; nothing is sampled."""
    rng = np.random.default_rng(tokens * 100 + size)
    q, k, v = (rng.random((tokens, size)) < p for p in (0.6, 0.7, 0.5))
    q, k, v = (x.astype(int) for x in (q, k, v))
    first = combined(shuffled(11, size, tokens), shuffled(12, size, tokens), size)
    second = combined(shuffled(13, tokens, tokens), shuffled(14, tokens, size), tokens)
    mean = np.zeros((tokens, size))
    for r1, p1 in enumerate(weights(size)):
        scores = moved(r1, first, size) < q @ k.T
        if causal:
            scores = np.tril(scores)
        counts = scores @ v
        for r2, p2 in enumerate(weights(tokens)):
            mean += p1 * p2 * (moved(r2, second, tokens) < counts)
    bias = np.abs(mean - expectation(q, k, v, 1, causal)).max()
    power_of_two = tokens & (tokens - 1) == 0 and size & (size - 1) == 0
    assert bias <= (1e-12 if power_of_two else 2.0**-16)


@pytest.mark.parametrize(("tokens", "size", "heads"), [(8, 8, 2), (5, 3, 1), (16, 4, 4)])
def test_means_of_a_long_run(tokens, size, heads):
    config = AttentionConfig(tokens=tokens, head_dim=size, heads=heads, timesteps=20000)
    rng = np.random.default_rng(5)
    one = [(rng.random((tokens, size * heads)) < 0.6).astype(np.uint8) for _ in "qkv"]
    arrays = {n: np.broadcast_to(x, (20000, *x.shape)) for n, x in zip("qkv", one, strict=True)}
    result, _ = attention(config.asdict(), arrays)
    expected = expectation(*one, heads, False)
    error = np.sqrt(expected * (1 - expected) / 20000)
    z = np.abs(result["out"].mean(0) - expected) / np.maximum(error, 1e-9)
    assert z[expected > 0].max() < 4.5
    assert not result["out"][:, expected == 0].any()


def test_one_source_for_both_stages_would_be_noticed():
    """The known trap: one number for both stages biases the mean."""
    rng = np.random.default_rng(6)
    q, k, v = ((rng.random((8, 8)) < 0.4).astype(int) for _ in "qkv")
    mean = np.zeros((8, 8))
    for r in range(8):
        mean += (r < (r < q @ k.T).astype(int) @ v) / 8
    assert np.abs(mean - expectation(q, k, v, 1, False)).max() > 0.02


@pytest.mark.parametrize("heads", [1, 3])
def test_heads_are_independent_and_do_not_share_skews(heads):
    config = AttentionConfig(tokens=8, head_dim=8, heads=heads)
    rows, columns = config.skews("score")
    for h in range(heads):
        assert sorted(rows[h]) == sorted(columns[h]) == list(range(8))
    flat = [tuple(t) for t in (*rows, *columns, *config.skews("output")[0])]
    assert len(set(flat)) == len(flat)


def test_all_ones_and_all_zeros_are_certain():
    config = AttentionConfig(tokens=5, head_dim=3, timesteps=40)
    ones, zeros = np.ones((40, 5, 3), int), np.zeros((40, 5, 3), int)
    full, _ = attention(config.asdict(), {"q": ones, "k": ones, "v": ones})
    assert full["out"].all()
    for name in "qkv":
        arrays = {n: zeros if n == name else ones for n in "qkv"}
        assert not attention(config.asdict(), arrays)[0]["out"].any()


def test_state_runs_on_over_inferences():
    config = AttentionConfig(tokens=8, head_dim=8, timesteps=6)
    rng = np.random.default_rng(7)
    arrays = {n: rng.integers(0, 2, (6, 8, 8)) for n in "qkv"}
    whole, end = attention(config.asdict(), arrays)
    head, state = attention(config.asdict(), {n: x[:2] for n, x in arrays.items()})
    tail, state = attention(config.asdict(), {n: x[2:] for n, x in arrays.items()}, state)
    assert state == end
    np.testing.assert_array_equal(np.concatenate([head["out"], tail["out"]]), whole["out"])
    again, _ = attention(config.asdict(), arrays, end)
    assert (again["out"] != whole["out"]).any()


def test_a_draw_leaves_no_bit_for_the_next_one():
    number, register = draw(0x12345678, 32, 256)
    assert number == 0x78
    assert register >> 8 == 0x345678


def test_a_time_step_does_not_depend_on_the_one_before():
    config = AttentionConfig(tokens=8, head_dim=8, timesteps=5000)
    rng = np.random.default_rng(8)
    one = [(rng.random((8, 8)) < 0.7).astype(np.uint8) for _ in "qkv"]
    arrays = {n: np.broadcast_to(x, (5000, *x.shape)) for n, x in zip("qkv", one, strict=True)}
    out = attention(config.asdict(), arrays)[0]["out"].reshape(5000, -1).astype(float)
    out = out[:, out.std(0) > 0]
    out = (out - out.mean(0)) / out.std(0)
    for lag in (1, 2, 3, 7):
        correlation = (out[lag:] * out[:-lag]).mean(0)
        assert np.abs(correlation).max() * np.sqrt(5000) < 4.8
