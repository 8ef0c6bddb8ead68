import hashlib
import json
import pathlib
import subprocess

import numpy as np
import pytest

from examples.digits import data, evaluate
from examples.digits.quantise import (
    EPSILON,
    Builder,
    exponent,
    folded,
    neuron,
    quantise,
    rounded,
    write,
)
from sim.golden.transformer import network, patches, read

ROOT = pathlib.Path(__file__).parents[2]
RESULTS = json.loads(evaluate.RESULTS.read_text(encoding="utf-8"))
HARDWARE = json.loads(evaluate.HARDWARE.read_text(encoding="utf-8"))
SETS = data.sets()
MODELS = {
    name: model
    for folder in sorted(evaluate.TRAINED.iterdir())
    if (folder / "model.json").exists()
    for name, model in evaluate.variants(folder).items()
}
NEURON = {"tau": 2, "decay_input": True, "reset": "hard", "fire": "ge",
          "fraction_bits": 0, "decay_bits": 1}  # fmt: skip


def digest(array):
    return hashlib.sha256(np.ascontiguousarray(array, np.uint8).tobytes()).hexdigest()


def test_the_data_are_those_of_scikit_learn():
    assert hashlib.sha256(data.FILE.read_bytes()).hexdigest() == (
        "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22"
    )
    images = data.load()
    assert images.pixels.shape == (1797, 8, 8)
    assert (images.pixels.min(), images.pixels.max()) == (0, data.BRIGHTEST)
    # The demo has the first 200 of them, in a file that was written apart.
    rows = np.loadtxt(ROOT / "boards/data/digits.csv", delimiter=",", skiprows=1, dtype=int)
    np.testing.assert_array_equal(images.pixels[:200].reshape(200, 64), rows[:, 1:])
    np.testing.assert_array_equal(images.labels[:200], rows[:, 0])


def test_the_parts_are_disjoint_and_have_every_class_alike():
    parts = data.split()
    assert {name: len(part) for name, part in parts.items()} == data.SIZES
    counts = {bytes(image): 0 for image in data.load().pixels.astype(np.uint8)}
    for part in parts.values():
        for image in part.pixels.astype(np.uint8):
            counts[bytes(image)] += 1
        shares = np.bincount(part.labels, minlength=10) / len(part)
        assert shares.min() > 0.09
        assert shares.max() < 0.11
    assert set(counts.values()) == {1}


def test_the_large_sets_are_the_same_everywhere():
    assert {name: len(images) for name, images in SETS.items()} == RESULTS["of"]
    assert {name: digest(images.pixels)[:16] for name, images in SETS.items()} == {
        "validation": "1d33c8940787c890",
        "validation_large": "f732b6b0df8c5900",
        "test": "a7c0a7695045d923",
        "test_large": "6014adc7d858cc9b",
    }


def test_augmentation_moves_images_by_little():
    images = data.load().pixels[:300]
    moved = data.augment(images, np.random.default_rng(5))
    assert moved.shape == images.shape
    assert (moved.min(), moved.max()) == (0, 16)
    other = data.augment(images, np.random.default_rng(5))
    np.testing.assert_array_equal(moved, other)
    likeness = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(images, moved, strict=True)]
    assert min(likeness) > 0.4
    assert 0.8 < np.mean(likeness) < 0.99


def test_augmentation_without_a_change_is_none(monkeypatch):
    for name in ("SHIFT", "TURN", "NOISE"):
        monkeypatch.setattr(data, name, 0)
    images = data.load().pixels[:20]
    np.testing.assert_array_equal(data.augment(images, np.random.default_rng(1)), images)


def test_a_shift_of_a_pixel_and_a_quarter_turn_are_exact():
    image = np.zeros((1, 8, 8), np.int64)
    image[0, 2, 3] = 16
    one = 1 << data.FRACTION
    rows, columns = (np.broadcast_to(np.arange(8) * one, (1, 8, 8)) for _ in range(2))
    moved = data._interpolated(image, rows.swapaxes(1, 2) + one, columns + one // 2)
    assert moved[0, 1, 3] == moved[0, 1, 2] == 8
    assert moved.sum() == 16


def test_patches_are_read_row_by_row_in_training_and_in_golden():
    image = np.arange(64).reshape(1, 8, 8)
    tokens = data.patches(image)
    np.testing.assert_array_equal(tokens[0, 0], [0, 1, 8, 9])
    np.testing.assert_array_equal(tokens[0, 5], [18, 19, 26, 27])
    parameters = {"input": {"patch": [2, 2]}}
    np.testing.assert_array_equal(patches(parameters, image), tokens)


def test_normalisation_goes_into_weights_and_bias():
    state = {
        "p.linear.weight": np.array([[1.0, -2.0], [0.5, 0.0]]),
        "p.bn.weight": np.array([3.0, 1.0]),
        "p.bn.bias": np.array([0.5, -1.0]),
        "p.bn.running_mean": np.array([2.0, 0.25]),
        "p.bn.running_var": np.array([9.0, 0.25]) - EPSILON,
    }
    weights, bias = folded(state, "p")
    np.testing.assert_allclose(weights, [[1, -2], [1, 0]])
    np.testing.assert_allclose(bias, [0.5 - 2, -1 - 0.5])


@pytest.mark.parametrize("bits", range(4, 9))
def test_the_scale_is_the_greatest_that_fits(bits):
    high = 2 ** (bits - 1) - 1
    for largest in (0.01, 0.37, 1.0, -1.0, 1.9999, 100.0):
        weights = np.array([[largest, 0.1 * largest]])
        e = exponent(weights, bits)
        assert -high - 1 <= rounded(weights, e).min() <= rounded(weights, e).max() <= high
        finer = rounded(weights, e + 1)
        assert finer.max() > high or finer.min() < -high


def test_thresholds_are_on_the_scale_of_the_current():
    assert neuron(0)["threshold"] == 2  # U = 2 h against v_threshold 1
    assert neuron(7)["threshold"] == 256
    assert neuron(0, 0.5)["threshold"] == 1  # the OR of SDSA-1
    assert neuron(0, 0.5, 0.125)["threshold"] == 8  # SDSA-3


def test_bounds_of_a_linear_layer_are_reached():
    rng = np.random.default_rng(3)
    weights, bias = rng.normal(size=(5, 6)), rng.normal(size=(4, 5))
    b = Builder({}, 8, exponent(weights, 8) + 2)
    layer = b.linear("a", "input", weights, bias, (0, 16), residual=True)
    whole, offset = b.arrays["a.weights"].astype(int), b.arrays["a.bias"]
    inputs = np.array(np.meshgrid(*[[0, 16]] * 6)).reshape(6, -1).T
    out = ((inputs @ whole.T)[:, None] + offset) << 2
    assert (out.min(), out.max()) == (layer["low"], layer["high"])
    assert layer["shift"] == 2
    step = 4 / 2.0 ** layer["exponent"]
    assert np.abs(whole * step - weights).max() <= step / 2


def drawn(channels=8, inputs=4):
    """Return a network of one block without attention, its weights at random."""
    rng = np.random.default_rng(1)
    state = {"position": np.zeros((4, channels)), "head.weight": rng.normal(size=(10, channels)),
             "head.bias": np.zeros(10)}  # fmt: skip
    for name, i, o in (("embed", inputs, channels), ("blocks.0.mlp.first", channels, 16),
                       ("blocks.0.mlp.second", 16, channels)):  # fmt: skip
        state |= {f"{name}.linear.weight": rng.normal(size=(o, i)), f"{name}.bn.weight": np.ones(o),
                  f"{name}.bn.bias": np.zeros(o), f"{name}.bn.running_mean": np.zeros(o),
                  f"{name}.bn.running_var": np.ones(o)}  # fmt: skip
    sizes = {"timesteps": 2, "tokens": 4, "channels": channels, "heads": 2, "blocks": 1,
             "hidden": 16, "experts": 0}  # fmt: skip
    return state, {"model": "none", "sizes": sizes}


@pytest.mark.parametrize("most", [0, 1, 2])
def test_no_sum_is_shifted_by_more_than_is_asked_for(most):
    free, _ = quantise(*drawn())
    held, _ = quantise(*drawn(), most_shift=most)
    shifts = [[x["shift"] for x in model["layers"] if x["kind"] == "linear"]
              for model in (free, held)]  # fmt: skip
    assert max(shifts[0]) > max(shifts[1]) == most
    coarser = free["layers"][0]["exponent"] - held["layers"][0]["exponent"]
    assert coarser == max(shifts[0]) - most


def model_of(layers, tokens=3, steps=5):
    return {
        "timesteps": steps,
        "tokens": tokens,
        "input": {"image": [1, tokens], "patch": [1, 1]},
        "layers": layers,
    }


def spikes_of(currents, threshold):
    """Return the spikes of a neuron, its membranes in exact halves."""
    membrane, out = 0, []
    for x in currents:
        membrane = (membrane + x) / 2
        out.append(int(2 * membrane >= threshold))
        membrane = 0 if out[-1] else membrane
    return out


def test_linear_adds_its_bias_at_every_step_and_shifts():
    layers = [
        {"name": "a", "kind": "linear", "input": "input", "shift": 2},
        {"name": "s", "kind": "lif", "input": "a", "threshold": 40, **NEURON},
        {"name": "b", "kind": "add", "inputs": ["a", "a"]},
        {"name": "y", "kind": "readout", "input": "b"},
    ]
    arrays = {
        "a.weights": np.array([[2], [-3]], np.int8),
        "a.bias": np.array([[1, 5], [0, 0], [-1, 7]]),
        "image": np.array([[[1, 4, 2]], [[3, 0, 5]]]),
    }
    result, state = network(model_of(layers), arrays)
    pixel = arrays["image"].reshape(2, 3, 1)
    expected = 4 * (pixel * [2, -3] + arrays["a.bias"])
    assert state == {}
    for t in range(5):
        np.testing.assert_array_equal(result["a"][t], expected)
    np.testing.assert_array_equal(result["y"], 2 * 5 * expected.sum(axis=1))
    for place in np.ndindex(2, 3, 2):
        own = [int(expected[place])] * 5
        assert list(result["s"][(slice(None), *place)]) == spikes_of(own, 40)


def test_an_expert_rests_where_it_gets_no_token():
    """A token's neurons go through the steps in which it is given, and through no others."""
    rng = np.random.default_rng(4)
    steps, batch, tokens, inputs, experts, channels = 8, 3, 4, 5, 2, 6
    first, second = ([{"name": f"{e}.f", "kind": "linear", "input": "input", "shift": 0},
                      {"name": f"{e}.s", "kind": "lif", "input": f"{e}.f", "threshold": 12,
                       "channels": channels, **NEURON}] for e in range(experts))  # fmt: skip
    layers = [
        {"name": "i", "kind": "linear", "input": "input", "shift": 0},
        {"name": "x", "kind": "lif", "input": "i", "threshold": 9, **NEURON},
        {"name": "m", "kind": "moe", "input": "x", "routing": "mask", "overflow": "drop",
         "capacity": tokens, "threshold": 7, "shift": 1, "experts": [first, second], **NEURON},
    ]  # fmt: skip
    arrays = {
        "i.weights": rng.integers(-2, 6, (inputs, 1)),
        "i.bias": rng.integers(-2, 5, (tokens, inputs)),
        "m.weights": rng.integers(-3, 6, (experts, inputs)),
        "m.bias": rng.integers(0, 3, experts),
        "image": rng.integers(0, 5, (batch, 1, tokens)),
    }
    for e in range(experts):
        arrays[f"{e}.f.weights"] = rng.integers(-4, 9, (channels, inputs))
        arrays[f"{e}.f.bias"] = rng.integers(-2, 6, channels)
    result, _ = network(model_of(layers, tokens, steps), arrays)
    x = result["x"]
    given = 0
    for b, n in np.ndindex(batch, tokens):
        expected = np.zeros((steps, channels), int)
        for e in range(experts):
            scores = x[:, b, n] @ arrays["m.weights"][e] + arrays["m.bias"][e]
            gets = np.flatnonzero(spikes_of(scores.tolist(), 7))
            given += len(gets)
            current = x[gets, b, n] @ arrays[f"{e}.f.weights"].T + arrays[f"{e}.f.bias"]
            for d in range(channels):
                expected[gets, d] += np.array(spikes_of(current[:, d].tolist(), 12), int)
        np.testing.assert_array_equal(result["m"][:, b, n], 2 * expected)
    assert 0.2 < given / (batch * tokens * experts * steps) < 0.8


@pytest.mark.parametrize("name", MODELS)
def test_images_one_by_one_are_images_at_once(name):
    model, arrays = MODELS[name]
    pixels = SETS["validation"].pixels[:5]
    together, last = network(model, {**arrays, "image": pixels})
    state = None
    for i in range(5):
        alone, state = network(model, {**arrays, "image": pixels[i : i + 1]}, state)
        np.testing.assert_array_equal(alone["logits"][0], together["logits"][i])
    assert state == last


@pytest.mark.parametrize("name", MODELS)
def test_layers_stay_in_the_bounds_that_they_state(name):
    model, arrays = MODELS[name]
    result, _ = network(model, {**arrays, "image": SETS["validation"].pixels[:40]})
    bounded = [layer for layer in model["layers"] if "low" in layer]
    assert len(bounded) > 5
    for layer in bounded:
        values = result[layer["name"]]
        assert layer["low"] <= values.min() <= values.max() <= layer["high"]


@pytest.mark.parametrize("name", MODELS)
def test_committed_models_are_as_good_as_recorded(name):
    model, arrays = MODELS[name]
    recorded = RESULTS["models"][name]
    assert evaluate.correct(model, arrays, SETS["test"]) == recorded["integer"]["test"]
    file = evaluate.TRAINED / name.split("_")[0] / "model.npz"
    assert hashlib.sha256(file.read_bytes()).hexdigest() == recorded["sha256"]


@pytest.mark.slow
def test_all_results_are_those_of_the_committed_models():
    for folder in evaluate.TRAINED.iterdir():
        for name, own in evaluate.evaluate(folder, SETS).items():
            assert own == RESULTS["models"][name]


def test_sdsa_is_as_good_in_integers():
    own, of = RESULTS["models"], RESULTS["of"]
    sdsa = own["sdsa1"]
    assert sdsa["timesteps"] == 4
    assert sdsa["weight_bits"] == 8
    assert sdsa["integer"]["test"] >= 0.95 * of["test"]
    apart = sdsa["integer"]["test_large"] - sdsa["float"]["test_large"]
    assert abs(apart) <= 0.005 * of["test_large"]


def test_picking_is_as_good_as_counting():
    own, of = RESULTS["models"], RESULTS["of"]
    sample, count = (own[f"ssa_{encoder}"]["integer"]["test_large"] for encoder in
                     ("sample", "count"))  # fmt: skip
    low, high = evaluate.wilson(count, of["test_large"])
    assert count - sample <= (high - low) / 2 * of["test_large"]


def test_the_table_is_that_of_the_results():
    page = evaluate.README.read_text(encoding="utf-8")
    assert page == evaluate.filled(page, evaluate.table(RESULTS, HARDWARE))


def test_wilson_is_that_of_the_textbook():
    low, high = evaluate.wilson(81, 263)
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
    assert evaluate.wilson(0, 10)[0] == 0


def test_a_model_is_read_as_it_is_written_and_the_same_bytes(tmp_path):
    model, arrays = MODELS["sdsa1"]
    write(tmp_path, model, arrays)
    for file in ("model.json", "model.npz"):
        committed = (evaluate.TRAINED / "sdsa1" / file).read_bytes()
        assert (tmp_path / file).read_bytes() == committed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m, a: m.update(schema=2), "want format 'spikewright transformer' with schema 1"),
        (lambda m, a: a.pop("head.bias"), r"want head.bias of shape \(16, 10\), got none"),
        (lambda m, a: a.update({"head.weights": np.zeros((9, 64))}), "want head.weights of shape"),
        (lambda m, a: m["layers"][0].update(weight_bits=4), "want embed.weights of 4 bits, got "),
    ],
)
def test_a_model_that_is_not_one_is_refused(tmp_path, change, message):
    model, arrays = read(evaluate.TRAINED / "sdsa1")
    change(model, arrays)
    write(tmp_path, model, arrays)
    with pytest.raises(ValueError, match=message):
        read(tmp_path)


@pytest.mark.oracle
@pytest.mark.parametrize("kind", ["none", "sdsa1", "sdsa3", "ssa", "moe"])
def test_a_network_whose_numbers_are_integers_spikes_as_in_pytorch(kind, tmp_path):
    """Where nothing is rounded, the integer model and the float network are the same function."""
    command = [ROOT / ".venv-oracles/bin/python", "-m", "tests.examples.exact_network",
               kind, tmp_path]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    with np.load(tmp_path / "exact.npz") as file:
        saved = dict(file)
    state = {name[6:]: array for name, array in saved.items() if name.startswith("state.")}
    record = json.loads(str(saved["record"]))
    model, arrays = quantise(state, record)
    result, _ = network(model, {**arrays, "image": saved["images"]})
    scale = 2.0 ** model["layers"][-2]["exponent"] * model["timesteps"] * model["tokens"]
    np.testing.assert_array_equal(result["logits"] / scale, saved["logits"])
