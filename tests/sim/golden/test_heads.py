import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

from sim.golden.heads import heads


def by_definition(count, keep, q):
    """Return the heads that stay, in plain loops."""
    head_dim = q.shape[2] // count
    spikes = [0] * count
    for t, n, d in np.ndindex(q.shape):
        spikes[d // head_dim] += int(q[t, n, d])
    kept = np.zeros(count, int)
    kept[np.argsort(-np.array(spikes), kind="stable")[:keep]] = 1
    return kept


def check(count, keep, q):
    result, state = heads({"heads": count, "keep": keep}, {"q": q})
    assert state is None
    np.testing.assert_array_equal(result["kept"], by_definition(count, keep, q))
    return result["kept"]


@pytest.mark.parametrize("count", [1, 2, 3, 8])
@pytest.mark.parametrize("head_dim", [1, 5])
def test_definition(count, head_dim):
    rng = np.random.default_rng(count)
    for timesteps, tokens, rate in itertools.product((1, 4), (1, 7), (0.05, 0.5, 1)):
        q = (rng.random((timesteps, tokens, count * head_dim)) < rate).astype(np.uint8)
        for keep in range(1, count + 1):
            assert check(count, keep, q).sum() == keep


@pytest.mark.parametrize("value", [0, 1])
@pytest.mark.parametrize("share", [Fraction(1, 10), Fraction(1, 2), Fraction(7, 10), 1])
def test_ties_go_to_the_lowest_index(value, share):
    keep = math.ceil(share * 6)
    np.testing.assert_array_equal(check(6, keep, np.full((3, 4, 12), value)), np.arange(6) < keep)


def test_equal_counts_in_other_places():
    """Two spikes a head, over time steps, tokens or channels; three in head 3."""
    q = np.zeros((2, 2, 8), bool)
    q[0, :, 0] = q[:, 1, 2] = q[1, 1, 4:6] = q[1, :, 6] = q[0, 0, 7] = 1
    for keep, kept in [(1, [0, 0, 0, 1]), (2, [1, 0, 0, 1]), (3, [1, 1, 0, 1])]:
        np.testing.assert_array_equal(check(4, keep, q), kept)


def test_more_spikes_than_eight_bits_hold():
    q = np.zeros((4, 100, 4), np.uint8)
    q[:, :, 2:] = 1  # 800, which is 32 in eight bits
    q[0, :50, 0] = 1
    np.testing.assert_array_equal(check(2, 1, q), [0, 1])
