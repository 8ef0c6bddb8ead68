import itertools

import numpy as np
import pytest

from hw.lif import LifConfig
from sim.golden.lif import lif

CASES = list(
    itertools.product((1.0, 2.0, 3.0, 4.0, 10.0), ("ge", "gt"), ("hard", "soft", "none"), (0, 1))
)


def worst_inputs(config, rng):
    """Return currents that drive the membrane to its ends: extremes, held and alternating."""
    top = 2 ** (config.current_bits - 1)
    lines = [
        np.full((200, 4), top - 1),
        np.full((200, 4), -top),
        rng.choice([-top, top - 1], (200, 16)),
        np.repeat(rng.choice([-top, top - 1], (20, 8)), 10, axis=0),
        rng.integers(-top, top, (200, 16)),
        rng.integers(-3, 6, (200, 16)),
    ]
    return np.concatenate(lines, axis=1)


@pytest.mark.parametrize(("tau", "fire", "reset", "delay"), CASES)
def test_membrane_stays_within_its_proven_bounds(tau, fire, reset, delay):
    rng = np.random.default_rng(1)
    for threshold in (1, 50, 400):
        c = LifConfig(
            tau=tau, fire=fire, reset=reset, reset_delay=bool(delay), threshold=threshold, bias=7
        )
        current = worst_inputs(c, rng)
        result, _ = lif(c.asdict(), {"current": current})
        low, high = c.membrane_range
        assert low <= result["membrane"].min()
        assert result["membrane"].max() <= high
        assert -(2 ** (c.membrane_bits - 1)) <= low
        assert high < 2 ** (c.membrane_bits - 1)


def test_bounds_are_tight_where_nothing_resets():
    c = LifConfig(reset="none")
    ends = [np.full((64, 1), value) for value in (-128, 127)]
    low, high = (lif(c.asdict(), {"current": x})[0]["membrane"] for x in ends)
    assert (low.min(), high.max()) == c.membrane_range


def test_bounds_hold_for_loaded_thresholds_and_biases():
    rng = np.random.default_rng(2)
    for reset, delay in itertools.product(("hard", "soft", "none"), (False, True)):
        c = LifConfig(
            reset=reset, reset_delay=delay, threshold_load="neuron", threshold_bits=6,
            bias_load="neuron", bias_bits=5,
        )  # fmt: skip
        current = worst_inputs(c, rng)
        n = current.shape[1]
        arrays = {
            "current": current,
            "threshold": rng.choice([1, 63, 17], n),
            "bias": rng.choice([-16, 15], n),
        }
        result, _ = lif(c.asdict(), arrays)
        low, high = c.membrane_range
        assert low <= result["membrane"].min()
        assert result["membrane"].max() <= high


@pytest.mark.parametrize("tau", [2.0, 4.0, 8.0, 3.0, 10.0])
def test_decay_factor(tau):
    b, s = LifConfig(tau=tau).decay_factor
    assert abs(b / 2**s - (1 - 1 / tau)) <= 2**-17
    assert tau in (3, 10) or b / 2**s == 1 - 1 / tau


def test_default_threshold_is_a_v_threshold_of_one():
    assert LifConfig().threshold == 2
    assert LifConfig(decay_input=False).threshold == 1
    assert LifConfig(tau=8.0).threshold == 8
    assert LifConfig(tau=8.0).notes["v_threshold"] == 1
