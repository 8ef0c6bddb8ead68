import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from examples.digits import data
from gen import network
from gen.errors import UserError
from hw.transformer import TransformerConfig
from sim.golden.transformer import network as golden
from sim.golden.transformer import patches, read, spiking, transformer
from sim.job import Job
from sim.play import play
from sim.runner import Design, build

TRAINED = Path(__file__).parents[2] / "examples" / "digits" / "trained"


def top_of(name, **settings):
    """Return a trained network, the configuration that computes it, and its settings."""
    model, arrays = read(TRAINED / name)
    return model, arrays, *network.top_of(model, arrays, **settings)


@pytest.mark.parametrize("settings", [{}, {"lanes": 4, "channels_per_beat": 16, "columns": 2}])
@pytest.mark.parametrize("name", ["sdsa1", "sdsa3", "none", "ssa", "moe"])
def test_the_top_is_the_integer_network(name, settings):
    """Logits and answers of digits, and the spikes of every layer."""
    model, arrays, config, own = top_of(name, **settings)
    images = data.split()["test"].pixels[:4]
    want, _ = golden(model, {**arrays, "image": images})
    tokens = network.patches(config, patches(model, images))
    state = None
    for b, image in enumerate(tokens):
        got, state = transformer(config.asdict(), {**own, "patches": image}, state)
        assert np.array_equal(got["logits"], want["logits"][b])
        spikes = [want[layer["name"]][:, b] for layer in spiking(model["layers"])]
        came = network.spikes_of(config, got["spikes"])
        # Routers' spikes are no layer of their own in the model; their experts' tell of them.
        routers = [came.pop(f"blocks.{i}.route") for i in range(2) if name == "moe"]
        assert all(0 < x[..., :4].mean() < 1 and not x[..., 4:].any() for x in routers)
        assert list(came)[1:3] == [
            "blocks.0.expand" if name == "none" else "blocks.0.q",
            "blocks.0.contract" if name == "none" else "blocks.0.k",
        ]
        for ours, theirs in zip(came.values(), spikes, strict=True):
            assert np.array_equal(ours, theirs)


def with_thresholds(model, rng=None):
    """Return a network of SDSA-3 with a threshold for each channel: its own, or others."""
    layers = [
        x | {"variant": 4, "threshold": (
            [x["threshold"]] * model["channels"] if rng is None
            else rng.integers(1, 30, model["channels"]).tolist()
        )} if x["kind"] == "sdsa" else x
        for x in model["layers"]
    ]  # fmt: skip
    return model | {"layers": layers}


def test_thresholds_of_channels_are_those_of_their_blocks():
    """Where all are alike it is the network that they were trained in, and elsewhere another."""
    model, arrays = read(TRAINED / "sdsa3")
    images = data.split()["test"].pixels[:4]
    want, _ = golden(model, {**arrays, "image": images})
    alike, _ = golden(with_thresholds(model), {**arrays, "image": images})
    assert all(np.array_equal(alike[name], values) for name, values in want.items())
    own = with_thresholds(model, np.random.default_rng(1))
    want, _ = golden(own, {**arrays, "image": images})
    assert not np.array_equal(want["logits"], alike["logits"])
    config, settings = network.top_of(own, arrays)
    lists = [x["threshold"] for x in own["layers"] if x["kind"] == "sdsa"]
    assert config.attention_threshold == max(map(max, lists)) == 29
    assert settings["attention_threshold"].tolist() == lists[0] + lists[1]
    tokens = network.patches(config, patches(own, images))
    for b, image in enumerate(tokens):
        got, _ = transformer(config.asdict(), {**settings, "patches": image})
        assert np.array_equal(got["logits"], want["logits"][b])


def test_there_may_be_more_bits_for_thresholds_of_channels():
    model, arrays = read(TRAINED / "sdsa3")
    own = with_thresholds(model, np.random.default_rng(1))
    config, _ = network.top_of(own, arrays, attention_threshold=255)
    assert config.stimulus["attention_threshold"].high == 255
    with pytest.raises(UserError, match="attention_threshold: the model takes at least 29, got 28"):
        network.top_of(own, arrays, attention_threshold=28)


@pytest.mark.slow
def test_the_top_is_right_as_often_as_the_integer_network():
    """For every held-out digit."""
    model, arrays, config, own = top_of("sdsa1")
    images = data.split()["test"].pixels
    want, _ = golden(model, {**arrays, "image": images})
    tokens = network.patches(config, patches(model, images))
    got = [transformer(config.asdict(), {**own, "patches": x})[0]["logits"] for x in tokens]
    assert np.array_equal(got, want["logits"])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "lanes"), [("sdsa1", 64), ("ssa", 64), ("moe", 32)])
def test_digits_through_the_rtl(name, lanes):
    _, _, config, own = top_of(name, lanes=lanes, trace=True)
    model, _ = read(TRAINED / name)
    images = data.split()["test"].pixels[:2]
    batch = {n: np.stack([x] * 2) for n, x in own.items()}
    batch["patches"] = network.patches(config, patches(model, images))
    emission = network.emit("transformer", config)
    design = Design(emission.name, {f"{emission.name}.v": emission.verilog})
    job = Job("transformer", config.asdict())
    result = play(build(design, "verilator"), design, "verilator", job, batch)
    assert not result.message
    assert result.wrong == 0
    assert result.clocks == config.cycles + config.schedule.interval


@pytest.mark.parametrize(
    ("name", "preset"), [("sdsa1", "digits"), ("sdsa1", "primer"), ("tiny", "icebreaker")]
)
def test_presets_take_models_of_digits(name, preset):
    """One bitstream for all that differ in their numbers alone."""
    _, _, config, _ = top_of(name, **TransformerConfig.PRESETS[preset])
    assert config == TransformerConfig.preset(preset)


def change(name, **entries):
    """Return a function that changes a layer of a model."""

    def changed(model):
        layers = [x | entries if x["name"] == name else x for x in model["layers"]]
        return model | {"layers": layers}

    return changed


@pytest.mark.parametrize(
    ("changed", "message"),
    [(change("blocks.0.attention.q", shift=1),
      "blocks.0.attention.q: transformer shifts what goes into the residual alone, got a shift "
      "of 1"),
     (change("blocks.0.attention.q_spikes", reset_delay=True),
      "blocks.0.attention.q_spikes: transformer has no delayed reset"),
     (change("blocks.1.mlp.spikes", tau=4),
      "blocks.1.mlp.spikes: transformer wants one tau in all layers, got 4 beside 2"),
     (change("blocks.0.attention.k", input="embed"),
      "blocks.0.attention.k: transformer wants blocks.0.attention_spikes as its input, got embed"),
     (change("blocks.1.attention.bits", variant=2),
      "blocks.1.attention.bits: transformer wants one variant in all layers, got 2 beside 1"),
     (lambda m: m | {"layers": m["layers"][:-1]},
      "the model: transformer wants a layer of kind readout at its end"),
     (lambda m: m | {"input": m["input"] | {"low": -1}},
      "input: transformer wants numbers from 0 on, got -1")],
)  # fmt: skip
def test_refusals(changed, message):
    model, arrays = read(TRAINED / "sdsa1")
    with pytest.raises(UserError) as error:
        network.top_of(changed(model), arrays)
    assert error.value.message == message


@pytest.mark.parametrize(
    ("changed", "message"),
    [(change("blocks.0.mlp", routing="topk", k=2),
      "blocks.0.mlp: transformer wants mask as its routing, got topk"),
     (change("blocks.0.mlp", capacity=15),
      "blocks.0.mlp: transformer gives an expert all tokens that choose it, got a capacity of 15"),
     (change("blocks.1.mlp", fire="gt"),
      "blocks.1.mlp: transformer wants one fire in all layers, got gt beside ge"),
     (change("blocks.1.mlp", experts=[]),
      "the model: transformer wants as many experts in all blocks, got 0 and 4"),
     (change("blocks.1.mlp", experts=[[{"name": "e", "kind": "lif", "input": "input"}]]),
      "e: transformer wants a layer of kind linear, got lif")],
)  # fmt: skip
def test_refusals_of_experts(changed, message):
    model, arrays = read(TRAINED / "moe")
    with pytest.raises(UserError) as error:
        network.top_of(changed(model), arrays)
    assert error.value.message == message


def test_the_command(tmp_path):
    called = CliRunner().invoke(
        network.main, [str(TRAINED / "sdsa1"), "--out", str(tmp_path), "--set", "lanes=16"]
    )
    assert called.exit_code == 0, called.output
    _, _, config, own = top_of("sdsa1", lanes=16)
    assert f"{config.cycles} clocks an image" in called.output
    with np.load(tmp_path / "settings.npz") as file:
        assert {n: x.tolist() for n, x in file.items()} == {n: x.tolist() for n, x in own.items()}
    assert "module transformer(" in (tmp_path / "transformer.v").read_text()


def nan(folder, arrays):
    arrays["head.weights"] = arrays["head.weights"] * np.nan
    np.savez(folder / "model.npz", **arrays)


def shape(folder, arrays):
    np.savez(folder / "model.npz", **arrays | {"blocks.0.mlp.bias": np.zeros(3, int)})


def unknown(folder, arrays):
    np.savez(folder / "model.npz", **arrays | {"head.scale": np.ones(3, int)})


def thresholds(folder, arrays):
    model = json.loads((folder / "model.json").read_text())
    for layer in model["layers"]:
        if layer["kind"] == "sdsa":
            layer |= {"variant": 4, "threshold": [8] * 63}
    (folder / "model.json").write_text(json.dumps(model))


def missing(folder, arrays):
    del arrays["blocks.1.mlp.3.second.bias"]
    np.savez(folder / "model.npz", **arrays)


def cut(folder, arrays):
    whole = (folder / "model.npz").read_bytes()
    (folder / "model.npz").write_bytes(whole[: len(whole) // 2])


def no_json(folder, arrays):
    (folder / "model.json").write_text("{")


def no_experts(folder, arrays):
    text = (folder / "model.json").read_text().replace('"experts"', '"others"')
    (folder / "model.json").write_text(text)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [(nan, "model.npz: want integers in head.weights, got float64"),
     (shape, "model.npz: want blocks.0.mlp.bias of shape (16, 4), got (3,)"),
     (missing, "model.npz: want blocks.1.mlp.3.second.bias of shape (16, 64), got none"),
     (unknown, "model.npz: unknown: head.scale"),
     (thresholds,
      "model.json: want a threshold of shape (64,) in blocks.0.attention.bits, got (63,)"),
     (cut, "File is not a zip file"), (no_json, "Expecting property name"),
     (no_experts, "model.json['layers'][12]: 'experts' is a required property")],
)  # fmt: skip
def test_models_that_are_broken(spoil, message, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(TRAINED / "moe", model)
    spoil(model, read(model)[1])
    called = CliRunner().invoke(network.main, [str(model), "--out", str(tmp_path / "out")])
    assert called.exit_code == 2
    assert called.output.startswith(f"error: can't read {model}: {message}")
    assert called.output.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["nowhere"], "can't read nowhere/model.json: "),
     ([str(TRAINED / "sdsa1"), "--set", "lanes=5"],
      "lanes: want a divisor of channels and hidden (64), got 5"),
     ([str(TRAINED / "sdsa1"), "--set", "lane=4"], "--set lane: transformer has no such")],
)  # fmt: skip
def test_mistakes(arguments, message, tmp_path):
    called = CliRunner().invoke(network.main, [*arguments, "--out", str(tmp_path)])
    assert called.exit_code == 2
    assert called.output.startswith(f"error: {message}")
    assert not list(tmp_path.iterdir())
