import itertools
from fractions import Fraction

import numpy as np
import pytest

from hw.sdsa import SdsaConfig
from sim.golden.lif import lif
from sim.golden.sdsa import sdsa


def stimulus(config, rng, rate):
    shape = (config.timesteps, config.tokens, config.channels)
    return {name: (rng.random(shape) < rate).astype(int) for name in config.stimulus}


def by_definition(config, arrays):
    """Return the outputs and operations, bit by bit, in exact rationals."""
    scale = 1 / Fraction(config.tau) if config.decay_input else 1
    v_threshold = config.threshold * scale
    decay = 1 - 1 / Fraction(config.tau)
    membrane = [Fraction(0)] * config.channels
    out = np.zeros((config.timesteps, config.tokens, config.channels), int)
    sops = []
    for t in range(config.timesteps):
        sops.append(0)
        for d in range(config.channels):
            total = sum(
                all(arrays[name][t, n, d] for name in config.summed) for n in range(config.tokens)
            )
            sops[-1] += total
            h = decay * membrane[d] + scale * total
            fired = h >= v_threshold if config.fire == "ge" else h > v_threshold
            resets = {"hard": Fraction(0), "soft": h - v_threshold, "none": h}
            membrane[d] = resets[config.reset] if fired else h
            if fired:
                out[t, :, d] = arrays[config.masked][t, :, d]
    return out, sops


@pytest.mark.parametrize(("variant", "masked"), [(1, "q"), (1, "k"), (1, "v"), (2, "v"), (2, "q")])
@pytest.mark.parametrize("fire", ["ge", "gt"])
@pytest.mark.parametrize("reset", ["hard", "soft", "none"])
def test_definition(variant, masked, fire, reset):
    rng = np.random.default_rng(variant)
    for threshold, rate in itertools.product((1, 2, 5), (0.05, 0.4, 0.9)):
        config = SdsaConfig(
            variant=variant, masked=masked, tokens=5, channels=4, timesteps=9,
            threshold=threshold, fire=fire, reset=reset,
        )  # fmt: skip
        arrays = stimulus(config, rng, rate)
        result, _ = sdsa(config.asdict(), arrays)
        out, sops = by_definition(config, arrays)
        np.testing.assert_array_equal(result["out"], out)
        np.testing.assert_array_equal(result["sops"], sops)


@pytest.mark.parametrize("tau", [1.0, 2.0, 3.0, 10.0])
def test_the_short_cut_is_the_or_over_tokens(tau):
    rng = np.random.default_rng(3)
    config = SdsaConfig(tokens=6, channels=16, timesteps=40, tau=tau)
    assert config.exact_or
    for rate in (0.02, 0.3, 0.9):
        arrays = stimulus(config, rng, rate)
        result, _ = sdsa(config.asdict(), arrays)
        mask = (arrays["k"] & arrays["v"]).any(axis=1, keepdims=True)
        np.testing.assert_array_equal(result["out"], arrays["q"] & mask)


@pytest.mark.parametrize("other", [{"reset": "soft"}, {"reset": "none"}, {"threshold": 2},
                                   {"fire": "gt"}])  # fmt: skip
def test_elsewhere_the_or_is_wrong(other):
    config = SdsaConfig(tokens=6, channels=16, timesteps=40, **other)
    assert not config.exact_or
    arrays = stimulus(config, np.random.default_rng(4), 0.3)
    result, _ = sdsa(config.asdict(), arrays)
    mask = (arrays["k"] & arrays["v"]).any(axis=1, keepdims=True)
    assert (result["out"] != (arrays["q"] & mask)).any()


def settings(variant, arrays, **others):
    """Return the parameters of the golden model, by default those of the released models."""
    tau = others.get("tau", 2)
    exact = tau in (1, 2)
    return {
        "variant": variant, "masked": {1: "q", 2: "v"}.get(variant), "heads": 1, "tau": float(tau),
        "threshold": 1 if variant < 3 else 8, "reset": "hard", "fire": "ge",
        # U has denominators of 3^5 at most over the 6 steps of tau 3: these bits see them all.
        "fraction_bits": 0 if exact else 12, "decay_bits": tau - 1 if exact else 24,
        "pool": False, "width": arrays["q"].shape[1],
    } | others  # fmt: skip


def spikes(shape, rate, rng, names="qkv"):
    return {name: (rng.random(shape) < rate).astype(np.uint8) for name in names}


def fires(sums, threshold, p):
    """Return when the real-valued neuron fires on a sequence of sums, in exact rationals."""
    tau, v = Fraction(p["tau"]), Fraction(0)
    v_threshold = threshold / tau
    fired = []
    for x in sums:
        h = v + (x - v) / tau
        fired.append(h >= v_threshold if p["fire"] == "ge" else h > v_threshold)
        v = {"hard": Fraction(0), "soft": h - v_threshold, "none": h}[p["reset"]]
        if not fired[-1]:
            v = h
    return fired


def pooled(bits, width):
    """Return whether any of the nine tokens around each token has a spike."""
    timesteps, tokens, channels = bits.shape
    out = np.zeros_like(bits)
    for t, n, d in np.ndindex(timesteps, tokens, channels):
        row, column = divmod(n, width)
        for r, c in itertools.product(range(row - 1, row + 2), range(column - 1, column + 2)):
            if 0 <= c < width and 0 <= r < tokens // width:
                out[t, n, d] |= bits[t, r * width + c, d]
    return out


def bit_by_bit(p, arrays):
    """Return the outputs and operations, in plain loops and exact rationals."""
    q, k, v = (arrays.get(name) for name in "qkv")
    if p["pool"]:
        k, v = pooled(k, p["width"]), pooled(v, p["width"])
    timesteps, tokens, channels = q.shape
    head_dim = channels // p["heads"]
    sums = np.zeros(q.shape, int)
    sops = np.zeros(timesteps, int)
    for t, n, d in np.ndindex(q.shape):
        first = d - d % head_dim
        head = range(first, first + head_dim)
        if p["variant"] == 1:
            sums[t, n, d] = sum(k[t, m, d] and v[t, m, d] for m in range(tokens))
            sops[t] += k[t, n, d] and v[t, n, d]
        elif p["variant"] == 2:
            sums[t, n, d] = sum(int(bit) for bit in q[t, :, d])
            sops[t] += q[t, n, d]
        else:
            for m, c in itertools.product(range(tokens), head):
                sums[t, n, d] += q[t, n, c] and k[t, m, c] and v[t, m, d]
            sops[t] += sum(k[t, n, c] and v[t, n, d] for c in head)  # what M[c, d] goes up by
            sops[t] += sum(int(q[t, n, c]) for c in head)  # the M[c, d] that are added up
    out = np.zeros(q.shape, int)
    for n, d in np.ndindex(tokens, channels):
        threshold = int(arrays["threshold"][d]) if "threshold" in arrays else p["threshold"]
        out[:, n, d] = fires((int(x) for x in sums[:, n, d]), threshold, p)
    masked = {1: q, 2: v}.get(p["variant"], 1)
    return out & masked, sops


def check_bit_by_bit(p, arrays):
    result, _ = sdsa(p, arrays)
    out, sops = bit_by_bit(p, arrays)
    np.testing.assert_array_equal(result["out"], out)
    np.testing.assert_array_equal(result["sops"], sops)
    return out


@pytest.mark.parametrize("tau", [1, 2, 3])
@pytest.mark.parametrize("fire", ["ge", "gt"])
@pytest.mark.parametrize("reset", ["hard", "soft", "none"])
@pytest.mark.parametrize("variant", [3, 4])
def test_product_by_definition(variant, reset, fire, tau):
    rng = np.random.default_rng(variant)
    rates = set()
    for tokens, head_dim, heads in [(1, 1, 1), (5, 4, 1), (4, 3, 2), (3, 1, 5), (5, 2, 3)]:
        for rate, threshold in [(0.3, 1), (0.7, 2), (0.9, 9)]:
            arrays = spikes((6, tokens, heads * head_dim), rate, rng)
            if variant == 4:
                arrays["threshold"] = rng.integers(1, 12, heads * head_dim)
            p = settings(variant, arrays, heads=heads, tau=tau, threshold=threshold,
                         reset=reset, fire=fire)  # fmt: skip
            rates.add(check_bit_by_bit(p, arrays).mean())
    assert min(rates) < 0.1
    assert max(rates) > 0.4


@pytest.mark.parametrize("variant", [1, 3, 4])
@pytest.mark.parametrize(
    ("rows", "width"), [(1, 1), (1, 2), (2, 1), (1, 5), (5, 1), (2, 2), (3, 4), (4, 3)]
)
def test_pool_by_definition(variant, rows, width):
    rng = np.random.default_rng(rows)
    for rate in (0.05, 0.2):
        arrays = spikes((6, rows * width, 4), rate, rng)
        if variant == 4:
            arrays["threshold"] = np.array([1, 2, 3, 7])
        for reset in ("hard", "soft"):
            p = settings(variant, arrays, heads=2, threshold=3, reset=reset, pool=True, width=width)
            check_bit_by_bit(p, arrays)


@pytest.mark.parametrize("variant", [1, 2])
def test_a_mask_has_no_heads(variant):
    arrays = spikes((6, 5, 6), 0.5, np.random.default_rng(5))
    p = settings(variant, arrays, threshold=3, reset="soft")
    expected = check_bit_by_bit(p, arrays)
    np.testing.assert_array_equal(sdsa(p | {"heads": 3}, arrays)[0]["out"], expected)


def test_the_order_of_the_products_does_not_matter():
    rng = np.random.default_rng(6)
    for tokens, channels in [(1, 9), (7, 7), (30, 5)]:
        arrays = spikes((8, tokens, channels), 0.4, rng)
        p = settings(3, arrays, reset="soft")
        q, k, v = (arrays[name].astype(int) for name in "qkv")
        scores = np.einsum("tnc,tmc->tnm", q, k)
        y = np.einsum("tnm,tmd->tnd", scores, v)
        current = y.reshape(8, tokens * channels)
        fired = lif(p | {"reset_delay": False, "bias": 0}, {"current": current})[0]["spikes"]
        np.testing.assert_array_equal(sdsa(p, arrays)[0]["out"], fired.reshape(y.shape))


@pytest.mark.parametrize("tau", [1, 2, 3])
@pytest.mark.parametrize("fire", ["ge", "gt"])
@pytest.mark.parametrize("reset", ["hard", "soft", "none"])
def test_hard_neurons_need_no_more_than_the_threshold(reset, fire, tau):
    """A product may saturate where it makes the neuron fire by itself, if firing clears it."""
    arrays = spikes((30, 12, 8), 0.4, np.random.default_rng(7))
    p = settings(3, arrays, tau=tau, reset=reset, fire=fire)
    q, k, v = (arrays[name].astype(int) for name in "qkv")
    y = np.einsum("tnc,tmc,tmd->tnd", q, k, v)
    enough = p["threshold"] + (fire == "gt")
    assert (y > enough).mean() > 0.1
    current = np.minimum(y, enough).reshape(30, 96)
    fired = lif(p | {"reset_delay": False, "bias": 0}, {"current": current})[0]["spikes"]
    same = (sdsa(p, arrays)[0]["out"] == fired.reshape(y.shape)).all()
    assert same == (reset == "hard" or tau == 1)  # tau 1 keeps nothing to the next step


def test_a_threshold_of_its_own_for_each_channel():
    arrays = spikes((9, 7, 6), 0.5, np.random.default_rng(8))
    p = settings(3, arrays, heads=2, threshold=4)
    own = np.array([1, 4, 9, 4, 60, 2])
    out = sdsa(p | {"variant": 4}, arrays | {"threshold": own})[0]["out"]
    for d, threshold in enumerate(own):
        alone = sdsa(p | {"threshold": int(threshold)}, arrays)[0]["out"]
        np.testing.assert_array_equal(out[:, :, d], alone[:, :, d])


def test_most_spikes_fit():
    tokens, head_dim = 300, 20
    ones = np.ones((2, tokens, 2 * head_dim), bool)
    arrays = {"q": ones, "k": ones, "v": ones}
    most = tokens * head_dim
    p = settings(3, arrays, heads=2, tau=1)
    assert sdsa(p | {"threshold": most}, arrays)[0]["out"].all()
    result, _ = sdsa(p | {"threshold": most + 1}, arrays)
    assert not result["out"].any()
    np.testing.assert_array_equal(result["sops"], [tokens * 2 * (head_dim**2 + head_dim**2)] * 2)
