from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from gen.__main__ import main
from gen.models import rounding, state_dict
from gen.models.rounding import fold
from sim.golden.transformer import network, read
from tests.gen.models import reference, states

HEADS, TOKENS, STEPS = 4, 6, 5
SIZES = ("--heads", str(HEADS), "--tokens", str(TOKENS), "--timesteps", str(STEPS))


def golden(tokens):
    """Run the model that was written on integers [T, B, N, I]."""
    model, arrays = read_model()
    return model, network(model, {**arrays, "tokens": tokens})[0]


def read_model():
    return read(Path("out"))


def compare(seen, result, b):
    """Compare every spike of a sample; return how many there are and how many are 1."""
    count = ones = 0
    for name, spikes in seen.items():
        np.testing.assert_array_equal(result[name][:, b], spikes, err_msg=name)
        count, ones = count + spikes.size, ones + spikes.sum()
    return count, ones


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("hidden", [16, 32])
def test_spike_driven_transformer_spikes_as_the_released_code(call, seed, hidden):
    rng = np.random.default_rng(seed)
    state = states.sdt(rng, hidden=hidden, inputs=3)
    done = call(state, *SIZES, "--input-range", "0:4", "--input-step", "1/4")
    assert done.exit_code == 0, done.output
    tokens = rng.integers(0, 17, (STEPS, 3, TOKENS, 3))
    model, result = golden(tokens)
    ones = []
    for b in range(3):
        seen, logits = reference.sdt(state, tokens[:, b] / 4, HEADS)
        count, one = compare(seen, result, b)
        ones.append(one / count)
        scale = 2.0 ** model["layers"][-2]["exponent"] * STEPS
        np.testing.assert_array_equal(result["logits"][b] / scale, logits)
    assert 0.05 < np.mean(ones) < 0.9


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_spikformer_spikes_as_the_released_code(call, seed, kind):
    rng = np.random.default_rng(seed)
    state = states.spikformer(rng, inputs=3, kind=kind)
    done = call(state, *SIZES, "--input-range", "0:4", "--input-step", "0.25", "--family",
                "spikformer")  # fmt: skip
    assert done.exit_code == 0, done.output
    tokens = rng.integers(0, 17, (STEPS, 3, TOKENS, 3))
    model, result = golden(tokens)
    for b in range(3):
        seen, logits = reference.spikformer(state, tokens[:, b] / 4, HEADS, kind=kind)
        compare(seen, result, b)
        scale = 2.0 ** model["layers"][-2]["exponent"] * STEPS * TOKENS
        np.testing.assert_array_equal(result["logits"][b] / scale, logits)


@pytest.mark.parametrize("seed", range(3))
def test_the_attention_layer_of_spikingjelly_alone(call, seed):
    rng = np.random.default_rng(seed)
    state = states.attention_layer(rng)
    assert call(state, *SIZES).exit_code == 0
    tokens = rng.integers(0, 2, (STEPS, 3, TOKENS, 16))
    _, result = golden(tokens)
    for b in range(3):
        spikes = reference.attention_layer(state, tokens[:, b].astype(float), HEADS)
        np.testing.assert_array_equal(result["proj_lif"][:, b], spikes)
        assert spikes.any()


def test_without_the_stem_the_residual_is_the_input(call):
    rng = np.random.default_rng(1)
    state = states.sdt(rng, inputs=3)
    done = call(state, *SIZES, "--skip", "patch_embed", "--input-range=-3:5")
    assert done.exit_code == 0, done.output
    model, arrays = read_model()
    e = model["input"]["exponent"]
    assert (model["input"]["low"], model["input"]["high"]) == (-3 * 2**e, 5 * 2**e)
    sums = [layer for layer in model["layers"] if layer["kind"] == "add"]
    assert {layer["exponent"] for layer in sums} == {e}
    tokens = rng.integers(-3 * 16, 5 * 16, (STEPS, 1, TOKENS, 16)) / 16
    result, _ = network(model, {**arrays, "tokens": (tokens * 2**e).astype(int)})
    del state["patch_embed.proj_conv.weight"]
    compare(reference.sdt(state, tokens[:, 0], HEADS)[0], result, 0)


def test_without_the_stem_spikformer_takes_sums_of_two_spikes(call):
    rng = np.random.default_rng(2)
    state = states.spikformer(rng)
    state["patch_embed.proj_conv.weight"] = rng.normal(size=(2, 3, 3, 3))
    done = call(state, *SIZES, "--skip", "patch_embed", "--skip", "head")
    assert done.exit_code == 0, done.output
    model, arrays = read_model()
    assert (model["input"]["low"], model["input"]["high"]) == (0, 2)
    del state["patch_embed.proj_conv.weight"]
    tokens = rng.integers(0, 3, (STEPS, 1, TOKENS, 16))
    result, _ = network(model, {**arrays, "tokens": tokens})
    compare(reference.spikformer(state, tokens[:, 0], HEADS)[0], result, 0)


@pytest.mark.parametrize("mutant", ["mean", "fires"])
def test_the_reference_finds_mutants(call, mutant):
    """Without the mean of normalisation, or firing at >, the same comparison fails."""
    rng = np.random.default_rng(0)
    state = states.sdt(rng, inputs=3)
    assert call(state, *SIZES, "--input-range", "0:4", "--input-step", "1/4").exit_code == 0
    tokens = rng.integers(0, 17, (STEPS, 3, TOKENS, 3))
    _, result = golden(tokens)

    def strict(v_threshold=1.0):
        return reference.LIF(v_threshold, fires=np.greater)

    changed = {"mean": {"mean": False}, "fires": {"lif": strict}}[mutant]
    seen, _ = reference.sdt(state, tokens[:, 0] / 4, HEADS, **changed)
    with pytest.raises(AssertionError):
        compare(seen, result, 0)


def without_mean(matrix, gain, offset, mean, variance, bias=0.0):
    return fold(matrix, gain, offset, 0 * mean, variance, bias)


@pytest.mark.parametrize(
    ("target", "name", "mutant"),
    [
        (state_dict, "fold", without_mean),
        (state_dict, "DEFAULTS", state_dict.DEFAULTS | {"fire": "gt"}),
        (state_dict, "DEFAULTS", state_dict.DEFAULTS | {"reset": "soft"}),
        (state_dict, "DEFAULTS", state_dict.DEFAULTS | {"decay_input": False}),
        (state_dict, "SCALE", 0.25),
        (rounding, "EPSILON", 0.5),
    ],
)
def test_mutants_of_the_importer_are_found(call, monkeypatch, target, name, mutant):
    monkeypatch.setattr(target, name, mutant)
    rng = np.random.default_rng(0)
    state = states.spikformer(rng, inputs=3)
    assert call(state, *SIZES, "--input-range", "0:4", "--input-step", "1/4").exit_code == 0
    tokens = rng.integers(0, 17, (STEPS, 3, TOKENS, 3))
    _, result = golden(tokens)
    with pytest.raises(AssertionError):
        compare(reference.spikformer(state, tokens[:, 0] / 4, HEADS)[0], result, 0)


@pytest.mark.parametrize(
    ("arguments", "reference_lif"),
    [(("--fire", "gt"), {"fires": np.greater}), (("--tau", "4"), {"tau": 4.0})],
)
def test_options_change_every_neuron(call, arguments, reference_lif):
    rng = np.random.default_rng(1)
    state = states.spikformer(rng, inputs=3)
    args = ("--input-range", "0:4", "--input-step", "1/4", *arguments)
    assert call(state, *SIZES, *args).exit_code == 0
    tokens = rng.integers(0, 17, (STEPS, 1, TOKENS, 3))
    _, result = golden(tokens)
    seen, _ = reference.spikformer(
        state, tokens[:, 0] / 4, HEADS, lif=lambda v=1.0: reference.LIF(v, **reference_lif)
    )
    compare(seen, result, 0)


def test_attention_has_no_delayed_reset(rows):
    state = states.sdt(np.random.default_rng(1), inputs=3, depth=1)
    status, said, _ = rows(state, *SIZES, "--input-range", "0:4", "--reset", "soft-delayed",
                           "--allow-approximate")  # fmt: skip
    assert status == 1
    bad = [name for name, row in said.items() if row["verdict"] == "unsupported"]
    assert bad == ["block.0.attn.sdsa"]
    assert said["head_lif"]["reset"] == "soft, delayed"


def test_options_of_the_top_go_with_no_command(call):
    done = CliRunner().invoke(main, ["--top", "lif", "import", "model.npz"])
    assert done.exit_code == 2
    assert done.stderr == "error: import: its options go behind it\n"
