import itertools
import math
import pathlib
import types
from fractions import Fraction

import numpy as np
import pytest

import sim.golden.heads
from sim.golden.attention import attention
from sim.golden.heads import heads
from sim.golden.sdsa import sdsa


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
    result, state = heads({"heads": count, "keep": keep, "gate": True}, {"q": q})
    assert state is None
    kept = by_definition(count, keep, q)
    np.testing.assert_array_equal(result["kept"], kept)
    out = q.reshape(*q.shape[:2], count, -1) * kept[:, np.newaxis]
    np.testing.assert_array_equal(result["out"], out.reshape(q.shape))
    (alone,) = heads({"heads": count, "keep": keep, "gate": False}, {"q": q})[0].values()
    np.testing.assert_array_equal(alone, kept)
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


def test_all_scores_of_three_heads_and_few_spikes():
    """Every order of scores, and every tie."""
    for scores in itertools.product(range(4), repeat=3):
        q = np.zeros((1, 1, 9), np.uint8)
        for head, score in enumerate(scores):
            q[0, 0, 3 * head : 3 * head + score] = 1
        for keep in (1, 2, 3):
            check(3, keep, q)


def operands(rng, *shape, rates=(0.3, 0.6, 0.6)):
    """Return q, k and v; the heads of q differ in how much they spike."""
    tilt = np.linspace(0.4, 1.6, shape[-1])
    return {
        name: (rng.random(shape) < rate * (tilt if name == "q" else 1)).astype(np.uint8)
        for name, rate in zip("qkv", rates, strict=True)
    }


def pruned(count, keep, arrays):
    """Return the operands with the gated q, and the channels that stay."""
    result = heads({"heads": count, "keep": keep, "gate": True}, arrays)[0]
    return {**arrays, "q": result["out"]}, result["kept"].repeat(arrays["q"].shape[2] // count)


@pytest.mark.parametrize("variant", [1, 2, 3, 4])
@pytest.mark.parametrize("fire", ["ge", "gt"])
@pytest.mark.parametrize("reset", ["hard", "soft", "none"])
def test_sdsa_of_pruned_queries_is_that_of_the_heads_that_stay(variant, fire, reset):
    """Whichever operand is masked: what is summed or masked by a Q of 0 never fires."""
    rng = np.random.default_rng(variant)
    arrays = operands(rng, 4, 6, 16)
    if variant == 4:
        arrays["threshold"] = rng.integers(1, 9, 16)
    masked = {1: "qkv", 2: "qv"}.get(variant, "q")
    for operand, tau, threshold, pool in itertools.product(masked, (2, 3), (1, 3), (False, True)):
        p = {"variant": variant, "masked": operand, "heads": 4, "tau": tau, "decay_input": True,
             "threshold": threshold, "reset": reset, "fire": fire, "pool": pool, "width": 3,
             "fraction_bits": 6, "decay_bits": 16}  # fmt: skip
        if pool and (variant == 2 or operand != "q"):
            continue
        for keep in (1, 2, 4):
            gated, stays = pruned(4, keep, arrays)
            out, full = sdsa(p, gated)[0]["out"], sdsa(p, arrays)[0]["out"]
            np.testing.assert_array_equal(out, full * stays)
            assert full.any()


@pytest.mark.parametrize("encoder", ["count", "sample"])
@pytest.mark.parametrize("rng", ["lfsr", "sobol"])
@pytest.mark.parametrize("causal", [False, True])
def test_attention_of_pruned_queries_is_that_of_the_heads_that_stay(encoder, rng, causal):
    """Random numbers do not depend on the data, so the other heads draw what they drew."""
    p = {"encoder": encoder, "rng": rng, "heads": 4, "causal": causal, "seed": 1, "reseed": False}
    arrays = operands(np.random.default_rng(2), 8, 8, 16, rates=(0.5, 0.8, 0.8))
    for keep in (1, 3):
        gated, stays = pruned(4, keep, arrays)
        (out, state), (full, other) = attention(p, gated), attention(p, arrays)
        np.testing.assert_array_equal(out["out"], full["out"] * stays)
        assert state == other
        assert full["out"].any()


MUTANTS = {
    "those of a time step": ("sum(axis=(0, 1), ", "sum(axis=1, "),
    "eight bits": ("dtype=np.int64", "dtype=np.uint8"),
    "the others are cleared": ("q * kept", "q * (1 - kept)"),
    "heads are interleaved": (
        'reshape(parameters["heads"], -1)', 'reshape(-1, parameters["heads"]).T'
    ),
    "channels are masked in turn": (
        "kept.repeat(by_head.shape[1])", "np.tile(kept, by_head.shape[1])"
    ),
    "one more": ('parameters["keep"]', 'parameters["keep"] + 1'),
}  # fmt: skip


@pytest.mark.parametrize(("old", "new"), MUTANTS.values(), ids=MUTANTS)
def test_a_mutant_is_caught(old, new, monkeypatch):
    source = pathlib.Path(sim.golden.heads.__file__).read_text(encoding="utf-8")
    assert source.count(old) == 1
    mutant = types.ModuleType("mutant")
    exec(source.replace(old, new), vars(mutant))
    monkeypatch.setitem(globals(), "heads", mutant.heads)
    rates = np.repeat([0.8, 0.6, 0.65, 0.75], 3)
    q = np.random.default_rng(3).random((3, 130, 12)) < rates
    with pytest.raises((AssertionError, ValueError)):
        check(4, 2, q.astype(np.uint8))
