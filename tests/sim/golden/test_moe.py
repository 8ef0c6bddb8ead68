import itertools
import math
import pathlib
import types
from fractions import Fraction

import numpy as np
import pytest

import sim.golden.moe
from sim.golden.moe import greatest, moe

ROUTINGS = ["mask", "topk", "kwta"]


def settings(**others):
    """Return the parameters of the golden model, by default those of the released model."""
    tau = Fraction(others.get("tau", 2))
    halving = tau in (1, 2, Fraction(4, 3))
    p = {
        "routing": "mask", "k": 1, "fill": True, "capacity": 10**6, "overflow": "drop", "tau": tau,
        "threshold": 2, "reset": "hard", "fire": "ge", "fraction_bits": 0 if halving else 6,
        "decay_bits": {1: 0, 2: 1}.get(tau, 2 if halving else 16),
    } | others  # fmt: skip
    return p | {"tau": float(tau)}


def stimulus(rng, timesteps, tokens, channels, experts, rate=0.4, low=-4, high=6, out=False):
    """Draw an input; few different weights, so that many scores are equal."""
    arrays = {
        "tokens": (rng.random((timesteps, tokens, channels)) < rate).astype(np.uint8),
        "weights": rng.integers(low, high, (experts, channels)),
        "bias": rng.integers(-1, 3, experts),
    }
    if out:
        shape = (timesteps, tokens, experts, channels)
        arrays["expert_out"] = (rng.random(shape) < 0.5).astype(np.uint8)
    return arrays


def neuron(currents, p):
    """Return U before the reset and the spikes of one neuron, in exact rationals.

    A decay of a power of a half is not rounded: the integer U is that of the real-valued neuron,
    rounded once, to the side where the comparison stays the same.
    """
    unit = 2 ** p["fraction_bits"]
    factor = Fraction(round((1 - 1 / Fraction(p["tau"])) * 2 ** p["decay_bits"]))
    factor /= 2 ** p["decay_bits"]
    upward = p["fire"] == "gt"
    aside = math.ceil if upward else math.floor
    half = Fraction(1, 2) if upward else Fraction(-1, 2)
    nearest = math.floor if upward else math.ceil
    membrane = Fraction(0)
    charged, spikes = [], []
    for x in currents:
        membrane *= factor
        if factor not in (0, Fraction(1, 2), Fraction(1, 4)):
            membrane = Fraction(nearest(membrane * unit + half), unit)
        membrane += int(x)
        charged.append(aside(membrane * unit))
        fired = membrane > p["threshold"] if upward else membrane >= p["threshold"]
        spikes.append(int(fired))
        if fired:
            membrane -= {"hard": membrane, "soft": p["threshold"], "none": 0}[p["reset"]]
    return charged, spikes


def by_definition(p, arrays):
    """Return the results, in plain loops, exact rationals and stable sorts."""
    tokens, weights, bias = (arrays[name].astype(int) for name in ("tokens", "weights", "bias"))
    timesteps, count, channels = tokens.shape
    experts = len(weights)
    shape = (timesteps, count, experts)

    charged, spikes = np.zeros(shape, int), np.zeros(shape, int)
    for n, e in itertools.product(range(count), range(experts)):
        scores = [
            sum(int(weights[e, d]) for d in range(channels) if tokens[t, n, d]) + int(bias[e])
            for t in range(timesteps)
        ]
        charged[:, n, e], spikes[:, n, e] = neuron(scores, p)

    mask = np.zeros(shape, int)
    dropped = np.zeros((timesteps, experts), int)
    merged = np.zeros(tokens.shape, int)
    for t in range(timesteps):
        taken = [0] * experts
        for n in range(count):
            so_far = np.array([sum(spikes[: t + 1, n, e]) for e in range(experts)])
            if p["routing"] == "mask":
                chosen = [e for e in range(experts) if spikes[t, n, e]]
            elif p["routing"] == "topk":
                chosen = list(np.argsort(-charged[t, n], kind="stable")[: p["k"]])
            else:
                chosen = list(np.argsort(-so_far, kind="stable")[: p["k"]])
                chosen = [e for e in chosen if so_far[e] or p["fill"]]
            for e in chosen:
                if p["overflow"] == "drop" and taken[e] == p["capacity"]:
                    dropped[t, e] += 1
                    continue
                taken[e] += 1
                mask[t, n, e] = 1
                if "expert_out" in arrays:
                    merged[t, n] += arrays["expert_out"][t, n, e]
    results = {"mask": mask, "dropped": dropped}
    return results | {"merged": merged} if "expert_out" in arrays else results


def agrees(p, arrays, model=moe):
    got, state = model(p, arrays)
    want = by_definition(p, arrays)
    assert state is None
    assert got.keys() == want.keys()
    return all(
        got[name].shape == want[name].shape and (got[name] == want[name]).all() for name in want
    )


def check(p, arrays):
    assert agrees(p, arrays)
    return moe(p, arrays)[0]


SIZES = [(1, 1, 1, 1), (4, 5, 7, 4), (3, 7, 3, 5), (6, 3, 5, 8), (5, 2, 1, 3), (9, 4, 6, 1)]


@pytest.mark.parametrize("tau", [1, 2, Fraction(4, 3), 3, 10])
@pytest.mark.parametrize("fire", ["ge", "gt"])
@pytest.mark.parametrize("reset", ["hard", "soft", "none"])
@pytest.mark.parametrize("routing", ROUTINGS)
def test_definition(routing, reset, fire, tau):
    rng = np.random.default_rng(1)
    for size in SIZES:
        arrays = stimulus(rng, *size, out=True)
        experts = size[3]
        for k, threshold in [(1, 1), (min(2, experts), 3), (experts, 7)]:
            p = settings(routing=routing, reset=reset, fire=fire, tau=tau, k=k, fill=k % 2 == 0,
                         threshold=threshold)  # fmt: skip
            check(p, arrays)


@pytest.mark.parametrize("fill", [True, False])
@pytest.mark.parametrize("routing", ["topk", "kwta"])
def test_every_k(routing, fill):
    rng = np.random.default_rng(2)
    short = 0
    for experts in (1, 2, 3, 7, 8):
        arrays = stimulus(rng, 6, 5, 4, experts)
        for k in range(1, experts + 1):
            p = settings(routing=routing, k=k, fill=fill, threshold=4)
            chosen = check(p, arrays)["mask"].sum(axis=2)
            assert chosen.max() <= k
            short += (chosen < k).sum()
        if routing == "topk" or fill:
            assert (chosen == experts).all()  # k is E here
    assert (short > 0) == (routing == "kwta" and not fill)


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5, 6, 7])
@pytest.mark.parametrize("fill", [True, False])
@pytest.mark.parametrize("routing", ["topk", "kwta"])
def test_nothing_but_ties(routing, k, fill):
    """All scores are equal in every step: the k lowest indices, always the same."""
    tokens = (np.random.default_rng(3).random((8, 6, 5)) < 0.5).astype(np.uint8)
    for weight, bias in [(0, 0), (3, 0), (0, 9), (-2, 1), (1, 1)]:
        arrays = {"tokens": tokens, "weights": np.full((7, 5), weight), "bias": np.full(7, bias)}
        p = settings(routing=routing, k=k, fill=fill)
        mask = check(p, arrays)["mask"]
        if routing == "topk" or fill:
            np.testing.assert_array_equal(mask, np.tile(np.arange(7) < k, (8, 6, 1)))
        assert not mask[:, :, k:].any()


@pytest.mark.parametrize("groups", [[0, 1, 0, 1, 0, 1], [2, 2, 0, 0, 1, 1], [0, 0, 0, 0, 0, 1],
                                    [1, 0, 0, 0, 0, 0], [0, 1, 1, 1, 1, 0], [2, 1, 0, 2, 1, 0]],
                         ids=str)  # fmt: skip
@pytest.mark.parametrize("routing", ["topk", "kwta"])
def test_groups_of_equal_experts(routing, groups):
    """Experts of a group have the same weights, and so the same membrane and count for ever."""
    rng = np.random.default_rng(4)
    own = stimulus(rng, 7, 9, 6, 3)
    arrays = {"tokens": own["tokens"], "weights": own["weights"][groups],
              "bias": own["bias"][groups]}  # fmt: skip
    for k, fill in itertools.product(range(1, 7), (True, False)):
        p = settings(routing=routing, k=k, fill=fill, threshold=3)
        mask = check(p, arrays)["mask"]
        for group in set(groups):
            members = np.flatnonzero(np.array(groups) == group)
            assert (np.diff(mask[:, :, members].astype(int), axis=2) <= 0).all()


def test_equal_counts_of_different_membranes():
    """Neurons that fire in every step, with scores that rise with the index: counts are equal."""
    arrays = {"tokens": np.ones((5, 2, 1), int), "weights": np.array([[4], [5], [6], [7]]),
              "bias": np.zeros(4, int)}  # fmt: skip
    for reset in ("hard", "soft", "none"):
        kwta = check(settings(routing="kwta", k=2, reset=reset), arrays)["mask"]
        np.testing.assert_array_equal(kwta, np.tile([1, 1, 0, 0], (5, 2, 1)))
        topk = check(settings(routing="topk", k=2, reset=reset), arrays)["mask"]
        np.testing.assert_array_equal(topk, np.tile([0, 0, 1, 1], (5, 2, 1)))


def test_the_greatest_membrane_wins_fired_or_not_and_before_its_reset():
    arrays = {"tokens": np.ones((3, 1, 1), int), "weights": np.array([[4], [5], [6]]),
              "bias": np.zeros(3, int)}  # fmt: skip
    p = settings(routing="topk", k=1, threshold=6, reset="hard")
    # U: 4, 6*, 4;  5, 7*, 5;  6*, 6*, 6*  (* fires and is set to 0)
    np.testing.assert_array_equal(check(p, arrays)["mask"][:, 0], np.eye(3)[[2, 1, 2]])
    p = settings(routing="topk", k=1, threshold=100)
    np.testing.assert_array_equal(check(p, arrays)["mask"][:, 0], np.eye(3)[[2, 2, 2]])
    assert not check(settings(routing="mask", threshold=100), arrays)["mask"].any()


def test_membranes_that_differ_by_less_than_their_unit_are_equal():
    """U is the integer that is stored: 1/2 and 0 tie at ``ge``, 1/2 and 1 at ``gt``."""
    tokens = np.array([[[1, 0]], [[0, 1]]])
    arrays = {"tokens": tokens, "weights": np.array([[0, 0], [1, 0]]), "bias": np.zeros(2, int)}
    p = settings(routing="topk", k=1, threshold=9)
    np.testing.assert_array_equal(check(p, arrays)["mask"][:, 0], [[0, 1], [1, 0]])
    p["fraction_bits"] = 1
    np.testing.assert_array_equal(check(p, arrays)["mask"][:, 0], [[0, 1], [0, 1]])
    arrays["weights"] = np.array([[1, 0], [0, 1]])
    p = settings(routing="topk", k=1, threshold=9, fire="gt")
    np.testing.assert_array_equal(check(p, arrays)["mask"][:, 0], [[1, 0], [1, 0]])


def test_the_count_is_of_this_inference_up_to_this_step():
    """Expert 1 fires from the start, expert 0 from step 3 on: never more often, level never."""
    tokens = np.zeros((6, 1, 2), int)
    tokens[:, 0, 0] = 1
    tokens[3:, 0, 1] = 1
    arrays = {"tokens": tokens, "weights": np.array([[0, 9], [9, -9]]), "bias": np.zeros(2, int)}
    p = settings(routing="kwta", k=1, tau=1)
    # counts: 0 0 0 1 2 3 against 1 2 3 3 3 3
    np.testing.assert_array_equal(check(p, arrays)["mask"][:, 0, 0], [0, 0, 0, 0, 0, 1])
    for steps in range(7):
        cut = arrays | {"tokens": tokens[:steps]}
        np.testing.assert_array_equal(moe(p, cut)[0]["mask"], moe(p, arrays)[0]["mask"][:steps])


def test_an_expert_that_has_not_fired_is_only_chosen_to_fill():
    arrays = {"tokens": np.ones((2, 3, 1), int), "weights": np.array([[0], [0], [1], [0]]),
              "bias": np.zeros(4, int)}  # fmt: skip
    p = settings(routing="kwta", k=3, threshold=1, fill=True)
    np.testing.assert_array_equal(check(p, arrays)["mask"][0, 0], [1, 1, 1, 0])
    p["fill"] = False
    np.testing.assert_array_equal(check(p, arrays)["mask"][0, 0], [0, 0, 1, 0])
    p["threshold"] = 100
    assert not check(p, arrays)["mask"].any()
    # The other routings have no use for it.
    for routing in ("mask", "topk"):
        masks = [check(settings(routing=routing, fill=f), arrays)["mask"] for f in (True, False)]
        np.testing.assert_array_equal(*masks)


@pytest.mark.parametrize("routing", ROUTINGS)
@pytest.mark.parametrize("overflow", ["drop", "stall"])
@pytest.mark.parametrize("tokens", [1, 2, 9])
def test_capacity(routing, overflow, tokens):
    rng = np.random.default_rng(5)
    arrays = stimulus(rng, 5, tokens, 4, 4, rate=0.6, low=-1, out=True)
    free = moe(settings(routing=routing, k=2, threshold=3), arrays)[0]
    chosen = free["mask"]
    busiest = chosen.sum(axis=1).max()
    assert busiest >= (tokens + 1) // 2
    assert not free["dropped"].any()
    for capacity in sorted({1, 2, tokens // 2, tokens - 1, tokens, tokens + 1} - {0}):
        p = settings(routing=routing, k=2, threshold=3, capacity=capacity, overflow=overflow)
        result = check(p, arrays)
        if overflow == "stall" or capacity >= tokens:
            for name in free:
                np.testing.assert_array_equal(result[name], free[name])
            continue
        assert result["mask"].sum(axis=1).max() == min(capacity, busiest)
        assert (result["mask"] <= chosen).all()
        np.testing.assert_array_equal(
            result["mask"].sum(axis=1) + result["dropped"], chosen.sum(axis=1)
        )
        assert result["dropped"].any() == (capacity < busiest)


def test_capacity_is_taken_in_token_order_and_anew_in_each_step():
    arrays = {"tokens": np.ones((2, 4, 1), int), "weights": np.array([[5], [0]]),
              "bias": np.zeros(2, int)}  # fmt: skip
    arrays["tokens"][1, 1] = 0
    result = check(settings(tau=1, capacity=2), arrays)
    np.testing.assert_array_equal(result["mask"][:, :, 0], [[1, 1, 0, 0], [1, 0, 1, 0]])
    np.testing.assert_array_equal(result["dropped"], [[2, 0], [1, 0]])


def test_a_token_that_no_expert_takes_merges_to_nothing():
    arrays = {"tokens": np.ones((1, 2, 3), int), "weights": np.ones((2, 3), int),
              "bias": np.zeros(2, int), "expert_out": np.ones((1, 2, 2, 3), int)}  # fmt: skip
    result = check(settings(capacity=1), arrays)
    np.testing.assert_array_equal(result["merged"], [[[2, 2, 2], [0, 0, 0]]])
    assert "merged" not in moe(settings(), {n: arrays[n] for n in ("tokens", "weights", "bias")})[0]


@pytest.mark.parametrize("routing", ROUTINGS)
@pytest.mark.parametrize("fill", [True, False])
def test_tokens_of_zeros_have_the_bias_alone(routing, fill):
    arrays = {"tokens": np.zeros((7, 3, 5), int), "weights": np.full((4, 5), 99),
              "bias": np.array([0, 1, 2, -1])}  # fmt: skip
    p = settings(routing=routing, k=2, fill=fill, reset="none")
    mask = check(p, arrays)["mask"]
    assert (mask[1:, :, 2] == 1).all()
    assert not mask[:, :, 3].any()
    arrays["bias"] = np.zeros(4, int)
    mask = check(p, arrays)["mask"]
    filled = routing == "topk" or (routing == "kwta" and fill)
    np.testing.assert_array_equal(mask, np.tile([filled, filled, False, False], (7, 3, 1)))


@pytest.mark.parametrize("routing", ROUTINGS)
@pytest.mark.parametrize("tau", [2, 3])
def test_extreme_weights(routing, tau):
    rng = np.random.default_rng(6)
    for low, high in [(-128, 127), (-(2**15), 2**15 - 1), (-(2**23), 2**23 - 1)]:
        arrays = stimulus(rng, 6, 4, 9, 5, rate=0.8)
        arrays["weights"] = rng.choice([low, high], (5, 9)).astype(np.int32)
        arrays["bias"] = np.array([low, high, 0, low, high], np.int32)
        for reset, threshold in itertools.product(("hard", "soft", "none"), (1, high)):
            p = settings(routing=routing, k=2, tau=tau, reset=reset, threshold=threshold)
            check(p, arrays)
    narrow = arrays | {"tokens": np.ones((2, 1, 9), np.uint8), "weights": np.full((5, 9), 127)}
    narrow = {name: array.astype(np.int8) for name, array in narrow.items() if name != "bias"}
    check(settings(routing=routing), narrow | {"bias": np.zeros(5, np.int8)})  # 1143 in 8 bits


def test_parameters_of_another_routing_are_not_asked_for():
    arrays = stimulus(np.random.default_rng(7), 4, 3, 5, 4)
    for routing, needed in (("mask", ()), ("topk", ("k",)), ("kwta", ("k", "fill"))):
        p = settings(routing=routing, k=2, overflow="stall", threshold=3)
        fewer = {n: v for n, v in p.items() if n in needed or n not in ("k", "fill", "capacity")}
        np.testing.assert_array_equal(moe(fewer, arrays)[0]["mask"], moe(p, arrays)[0]["mask"])


def test_the_greatest_of_a_row():
    for row in itertools.product(range(-1, 3), repeat=4):
        for k in range(6):
            marked = np.zeros(4, bool)
            marked[np.argsort(-np.array(row), kind="stable")[:k]] = True
            np.testing.assert_array_equal(greatest(np.array(row), k), marked)


def hunting_ground():
    """Cases in which a wrong model has hardly a place to hide."""
    rng = np.random.default_rng(8)
    for routing, overflow, reset in itertools.product(
        ROUTINGS, ("drop", "stall"), ("hard", "soft", "none")
    ):
        for capacity, fill in ((2, True), (5, False)):
            p = settings(routing=routing, overflow=overflow, reset=reset, capacity=capacity,
                         fill=fill, k=2, threshold=5)  # fmt: skip
            yield p, stimulus(rng, 6, 5, 6, 5, out=True)


MUTANTS = {
    "ties to the highest index": ("index < index[:, np.newaxis]", "index > index[:, np.newaxis]"),
    "ties to all": (" | ((other == own) & (index < index[:, np.newaxis]))", ""),
    "the smallest": ("(other > own)", "(other < own)"),
    "k + 1": ("better.sum(axis=-1) < k", "better.sum(axis=-1) <= k"),
    "k - 1": ("better.sum(axis=-1) < k", "better.sum(axis=-1) + 1 < k"),
    "U after the reset": ('result["charged"]', 'result["membrane"]'),
    "only what fired": (
        'return greatest(result["charged"].reshape(scores.shape), parameters["k"])',
        'return greatest(result["charged"].reshape(scores.shape), parameters["k"]) & (spikes == 1)',
    ),
    "the score instead of U": ('result["charged"].reshape(scores.shape)', "scores"),
    "count without this step": (
        "spikes.cumsum(axis=0, dtype=np.int64)",
        "spikes.cumsum(axis=0, dtype=np.int64) - spikes",
    ),
    "count of the whole inference": (
        "spikes.cumsum(axis=0, dtype=np.int64)",
        "np.broadcast_to(spikes.sum(axis=0, dtype=np.int64), spikes.shape)",
    ),
    "count of this step alone": (
        "spikes.cumsum(axis=0, dtype=np.int64)",
        "spikes.astype(np.int64)",
    ),
    "count over the tokens": ("spikes.cumsum(axis=0", "spikes.cumsum(axis=1"),
    "always fill": ("& (counts > 0)", ""),
    "never fill": ('chosen if parameters["fill"] else chosen', "chosen"),
    "fill without this step": ("& (counts > 0)", "& (counts - spikes > 0)"),
    "capacity less one": ('<= parameters["capacity"]', '< parameters["capacity"]'),
    "capacity and one": ('<= parameters["capacity"]', '<= parameters["capacity"] + 1'),
    "capacity of an inference": ("chosen.cumsum(axis=1)", "chosen.cumsum(axis=0)"),
    "capacity of a token": ("chosen.cumsum(axis=1)", "chosen.cumsum(axis=2)"),
    "the last tokens first": (
        "chosen.cumsum(axis=1)", "chosen[:, ::-1].cumsum(axis=1)[:, ::-1]"
    ),
    "stall drops": ('parameters["overflow"] == "drop"', "True"),
    "drop does not": ('parameters["overflow"] == "drop"', "False"),
    "dropped of a token": ("(chosen & ~mask).sum(axis=1)", "(chosen & ~mask).sum(axis=2)"),
    "dropped is all that chose": ("(chosen & ~mask).sum(axis=1)", "chosen.sum(axis=1)"),
    "merged with what was dropped": ("(mask[..., np.newaxis]", "(chosen[..., np.newaxis]"),
    "merged by OR": ('* arrays["expert_out"]).sum(axis=2)', '* arrays["expert_out"]).max(axis=2)'),
    "no bias": (' + arrays["bias"]', ""),
    "bias in the first step alone": (
        ' + arrays["bias"]', ' + arrays["bias"] * (np.arange(6) == 0)[:, np.newaxis, np.newaxis]'
    ),
    "a state of the expert, not of the token": (
        'scores.reshape(timesteps, tokens * experts)', "scores[:, :1].repeat(tokens, axis=1)"
        ".reshape(timesteps, tokens * experts)"
    ),
    "no state": ('"bias": 0}', '"bias": 0, "tau": 1.0, "decay_bits": 0}'),
    "no reset": ('"bias": 0}', '"bias": 0, "reset": "none"}'),
}  # fmt: skip


@pytest.mark.parametrize(("old", "new"), MUTANTS.values(), ids=MUTANTS)
def test_a_mutant_is_caught(old, new):
    source = pathlib.Path(sim.golden.moe.__file__).read_text(encoding="utf-8")
    assert source.count(old) == 1
    mutant = types.ModuleType("mutant")
    exec(source.replace(old, new), vars(mutant))
    assert not all(agrees(p, arrays, mutant.moe) for p, arrays in hunting_ground())


def test_the_model_itself_is_not_caught():
    assert all(agrees(p, arrays) for p, arrays in hunting_ground())
