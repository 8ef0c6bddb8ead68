import pathlib
import types

import numpy as np
import pytest

import sim.golden.linear
from sim.golden.linear import linear
from sim.golden.transformer import network


def by_definition(spikes, weights, bias):
    """Return the sums, in plain loops over Python's integers."""
    out = np.zeros((*spikes.shape[:2], len(weights)), object)
    for t, n, o in np.ndindex(out.shape):
        out[t, n, o] = int(bias[n, o] if bias.ndim > 1 else bias[o])
        for i in range(spikes.shape[2]):
            out[t, n, o] += int(spikes[t, n, i]) * int(weights[o, i])
    return out


def check(spikes, weights, bias):
    result, state = linear({}, {"spikes": spikes, "weights": weights, "bias": bias})
    assert state is None
    np.testing.assert_array_equal(result["out"], by_definition(spikes, weights, bias))
    return result["out"]


def draw(rng, top, per_token, sizes=(2, 3, 7, 5)):
    timesteps, tokens, inputs, outputs = sizes
    return (
        rng.integers(0, top, (timesteps, tokens, inputs), endpoint=True),
        rng.integers(-128, 127, (outputs, inputs), np.int8, endpoint=True),
        rng.integers(-(2**15), 2**15, (tokens, outputs) if per_token else outputs),
    )


@pytest.mark.parametrize("per_token", [False, True])
@pytest.mark.parametrize("top", [1, 255])
def test_definition(top, per_token):
    rng = np.random.default_rng(top)
    for sizes in ((2, 3, 7, 5), (1, 1, 1, 1), (3, 1, 4, 1), (1, 4, 1, 4)):
        check(*draw(rng, top, per_token, sizes))


def test_the_greatest_sums():
    """Of arrays of few bits, which must not wrap."""
    spikes = np.full((1, 2, 4096), 255, np.uint8)
    weights = np.array([np.full(4096, -128), np.full(4096, 127)], np.int8)
    out = check(spikes, weights, np.array([-(2**23), 2**23 - 1]))
    assert out.min() == -128 * 255 * 4096 - 2**23


@pytest.mark.parametrize("per_token", [False, True])
def test_it_is_the_linear_layer_of_a_transformer(per_token):
    """With a row of pixels as a token."""
    spikes, weights, bias = draw(np.random.default_rng(3), 15, per_token)
    layer = {"name": "w", "kind": "linear", "input": "input", "shift": 0}
    model = {"input": {"patch": (1, 7)}, "timesteps": 2, "layers": [layer]}
    image = spikes[0]
    arrays = {"w.weights": weights, "w.bias": bias, "image": image[np.newaxis]}
    want = network(model, arrays)[0]["w"][:, 0]
    np.testing.assert_array_equal(check(np.stack([image, image]), weights, bias), want)


MUTANTS = {
    "transposed": ('"oi,tni->tno", weights,', '"io,tni->tno", weights.T[:, ::-1],'),
    "in eight bits": ("np.int64", "np.int8"),
    "without the bias": (" + bias}", "}"),
    "the bias in one time step": (
        " + bias}", " + np.concatenate([[bias], 0 * bias[np.newaxis]])[:, np.newaxis]}"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("old", "new"), MUTANTS.values(), ids=MUTANTS)
def test_a_mutant_is_caught(old, new, monkeypatch):
    source = pathlib.Path(sim.golden.linear.__file__).read_text(encoding="utf-8")
    assert source.count(old) == 1
    mutant = types.ModuleType("mutant")
    exec(source.replace(old, new), vars(mutant))
    monkeypatch.setitem(globals(), "linear", mutant.linear)
    with pytest.raises(AssertionError):
        check(*draw(np.random.default_rng(4), 1, per_token=False))
