import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from gen.models import rounding
from gen.models.form import SCHEMA_FILE, check
from gen.models.state_dict import POOLING
from sim.golden import transformer as golden
from tests.gen.models import states

ROOT = Path(__file__).parents[3]
SCHEMA = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
ARGS = ("--heads", "4", "--tokens", "6")


def test_the_format_is_the_one_that_golden_reads():
    assert (rounding.FORMAT, rounding.SCHEMA) == (golden.FORMAT, golden.SCHEMA)
    assert SCHEMA["properties"]["format"]["const"] == golden.FORMAT
    assert SCHEMA["properties"]["schema"]["const"] == golden.SCHEMA
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("file", sorted(ROOT.glob("examples/*/trained/*/model.json")), ids=str)
def test_committed_models_are_of_the_schema(file):
    jsonschema.validate(json.loads(file.read_text(encoding="utf-8")), SCHEMA)


def without(*path):
    def change(model):
        *inner, last = path
        for key in inner:
            model = model[key]
        del model[last]

    return change


def with_(value, *path):
    def change(model):
        *inner, last = path
        for key in inner:
            model = model[key]
        model[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [(without("layers"), "model.json: 'layers' is a required property"),
     (without("timesteps"), "model.json: 'timesteps' is a required property"),
     (with_(3, "stranger"), "model.json: Additional properties are not allowed ('stranger' was "
      "unexpected)"),
     (without("layers", 3, "kind"), "model.json['layers'][3]: 'kind' is a required property"),
     (with_("conv", "layers", 3, "kind"),
      "model.json['layers'][3]['kind']: no kind of layer 'conv'"),
     (without("layers", 12, "experts"), "model.json['layers'][12]: 'experts' is a required "
      "property"),
     (with_("x", "layers", 1, "threshold"),
      "model.json['layers'][1]['threshold']: 'x' is not of type 'integer'"),
     (with_(0, "layers", 12, "experts", 1, 3, "threshold"),
      "model.json['layers'][12]['experts'][1][3]['threshold']: 0 is less than the minimum of 1")],
)  # fmt: skip
def test_what_is_no_model_is_told(change, message):
    check(trained("moe"))
    assert told(trained("moe"), change) == message


def trained(name):
    file = ROOT / f"examples/digits/trained/{name}/model.json"
    return json.loads(file.read_text(encoding="utf-8"))


def told(model, change):
    change(model)
    with pytest.raises(ValueError) as error:  # noqa: PT011
        check(model)
    return str(error.value)


@pytest.mark.parametrize(
    ("variant", "threshold", "message"),
    [(4, 8, ": 8 is not of type 'array'"), (3, [8], ": [8] is not of type 'integer'"),
     (4, [8, 0], "[1]: 0 is less than the minimum of 1")],
)  # fmt: skip
def test_thresholds_of_channels_are_those_of_sdsa_4(variant, threshold, message):
    model = trained("sdsa3")
    (at, *_) = (i for i, layer in enumerate(model["layers"]) if layer["kind"] == "sdsa")
    layer = model["layers"][at]
    layer |= {"variant": 4, "threshold": [8] * 64}
    check(model)
    change = with_(threshold, "layers", at, "threshold")
    layer["variant"] = variant
    assert told(model, change) == f"model.json['layers'][{at}]['threshold']{message}"


def test_sdsa_2_takes_no_keys():
    model = trained("sdsa1")
    (at, *_) = (i for i, layer in enumerate(model["layers"]) if layer["kind"] == "sdsa")
    del model["layers"][at]["k"]
    model["layers"][at]["variant"] = 2
    check(model)
    change = with_(1, "layers", at, "variant")
    assert told(model, change) == f"model.json['layers'][{at}]: 'k' is a required property"


@pytest.mark.parametrize("make", [states.sdt, states.spikformer])
def test_imported_models_are_of_the_schema_and_the_same_bytes(call, make):
    own = states.ordinary(make(np.random.default_rng(0), inputs=3), np.random.default_rng(1))
    texts = []
    for _ in range(2):
        assert call(own, *ARGS, "--input-range", "0:1", "--input-step", "1/255").exit_code == 0
        texts.append((Path("out/model.json").read_bytes(), Path("out/model.npz").read_bytes()))
    assert texts[0] == texts[1]
    jsonschema.validate(json.loads(texts[0][0]), SCHEMA)


@pytest.mark.parametrize("bits", range(4, 9))
def test_results_stay_in_the_bounds_that_are_stated(call, bits):
    rng = np.random.default_rng(bits)
    own = states.ordinary(states.sdt(rng, inputs=3), rng)
    done = call(own, *ARGS, "--bits", str(bits), "--input-range", "0:4", "--input-step", "1/4")
    assert done.exit_code == 0, done.output
    model, arrays = golden.read(Path("out"))
    tokens = rng.integers(0, 17, (4, 20, 6, 3))
    result, _ = golden.network(model, {**arrays, "tokens": tokens})
    bounded = [layer for layer in model["layers"] if "low" in layer]
    assert len(bounded) > 15
    for layer in bounded:
        values = result[layer["name"]]
        assert layer["low"] <= values.min() <= values.max() <= layer["high"]
    assert {layer["weight_bits"] for layer in model["layers"] if layer["kind"] == "linear"} == {
        bits
    }


def test_calibration_loses_less_and_says_how_much(rows):
    rng = np.random.default_rng(2)
    own = states.ordinary(states.sdt(rng, inputs=3, depth=1), rng)
    for name in [name for name in own if name.endswith("q_conv.weight")]:
        own[name][0, 0] = 9.0  # one that spoils the scale of all others
    np.savez("data.npz", image=rng.integers(0, 17, (20, 6, 3)))
    args = ("--heads", "4", "--bits", "4", "--input-step", "1/4", "--calibrate", "data.npz")
    status, _, said = rows(own, *args)
    assert status == 0
    assert said["losses"]["block.0.attn.q"].startswith("RMS ")
    assert said["losses"]["block.0.attn.q_lif"].endswith("% of spikes")
    assert said["losses"]["logits"].endswith("of answers are the same")
    model, arrays = golden.read(Path("out"))
    assert (model["tokens"], model["input"]["high"]) == (6, 16)
    layer = next(one for one in model["layers"] if one["name"] == "block.0.attn.q")
    assert layer["exponent"] > -1  # at -1 the greatest fits
    assert np.abs(arrays["block.0.attn.q.weights"]).max() == 7


def test_what_is_exact_loses_nothing(rows):
    rng = np.random.default_rng(3)
    np.savez("data.npz", tokens=rng.integers(0, 17, (4, 20, 6, 3)) / 4)
    args = ("--heads", "4", "--input-step", "1/4", "--calibrate", "data.npz")
    status, said, every = rows(states.sdt(rng, inputs=3), *args)
    assert status == 0
    losses = every["losses"]
    assert {row["loss"] for row in said.values() if row["kind"] == "linear"} == {"nothing rounded"}
    assert {text.split(" (")[0] for text in losses.values()} == {
        "RMS 0", "0 % of spikes", "100 % of answers are the same"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"picture": np.ones((1, 6, 3))}, ["`image` or `tokens`", "picture"]),
        ({"image": np.ones((6, 3))}, ["want image [B, N, I]", "[6, 3]"]),
        ({"image": np.full((1, 6, 3), 0.5)}, ["integers in image"]),
        ({"tokens": np.ones((2, 1, 6, 3))}, ["in 4 time steps", "in 2"]),
        ({"tokens": np.ones((1, 6, 4))}, ["[6, 3] (tokens, channels)", "[6, 4]"]),
        ({"tokens": np.full((1, 6, 3), np.inf)}, ["tokens: 18 of 18"]),
    ],
)
def test_data_that_are_none(refused, arrays, words):
    np.savez("data.npz", **arrays)
    own = states.sdt(np.random.default_rng(0), inputs=3, depth=1)
    line = refused(own, *ARGS, "--calibrate", "data.npz")
    assert all(word in line for word in words), line


def test_the_table_says_what_was_assumed(call):
    done = call(states.sdt(np.random.default_rng(0), inputs=3), "--heads", "4", "--input-range",
                "0:4", "--tau", "2")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "assumed: v-threshold 1.0" in done.stdout
    assert "assumed: timesteps 4" in done.stdout
    assert "assumed: tau" not in done.stdout
    assert "assumed: heads" not in done.stdout
    assert "talking_heads" in done.stdout
    (line,) = [line for line in done.stdout.splitlines() if " block.1.attn.q_lif " in line]
    assert line.split()[1:9] == ["lif", "LIF", "tau", "2,", "1", "hard", ">=", "0.5"]
    assert "faithful" in line
    assert set(POOLING) == {"sdt", "spikformer", "spikingjelly"}


def test_membranes_are_as_wide_as_the_hardware_proves(rows):
    own = states.sdt(np.random.default_rng(0), inputs=3, depth=1)
    _, said, _ = rows(own, *ARGS, "--input-range", "0:4")
    model, _ = golden.read(Path("out"))
    layer = next(one for one in model["layers"] if one["name"] == "block.0.attn.q")
    current, membrane = (int(part.split()[0]) for part in
                         said["block.0.attn.q_lif"]["bits"].split(", "))  # fmt: skip
    assert -(2 ** (current - 1)) <= layer["low"] <= layer["high"] < 2 ** (current - 1)
    assert membrane == current + 1  # at tau 2 no sum is over twice the current


def test_trained_time_constants_are_read(rows):
    own = states.sdt(np.random.default_rng(0), inputs=3, depth=1)
    own["block.0.attn.q_lif.w"] = np.array(-np.log(3.0))
    own["block.0.attn.k_lif.w"] = np.array(0.123)
    status, said, _ = rows(own, *ARGS, "--input-range", "0:4")
    assert status == 1
    assert said["block.0.attn.q_lif"]["verdict"] == "faithful"
    assert said["block.0.attn.q_lif"]["neuron"].startswith("LIF tau 4")
    assert said["block.0.attn.k_lif"]["verdict"] == "approximate"
