import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from boards.catalogue import BOARDS
from boards.classify import classify, images_of
from boards.host import Board
from boards.virtual import VirtualBoard
from gen.emit import emit
from gen.errors import UserError
from gen.network import model_of, top_of
from sim.golden.transformer import network, transformer

RNG = np.random.default_rng(5)
NEURON = {"kind": "lif", "tau": 2, "decay_input": True, "reset": "hard", "fire": "ge",
          "fraction_bits": 0, "decay_bits": 1, "channels": 4}  # fmt: skip


def tiny(folder: Path) -> Path:
    """Write a network of one block for images of 4 x 4, with weights at random."""
    layers, arrays = [], {}

    def linear(name, source, inputs, outputs, shift=0):
        layers.append({"name": name, "kind": "linear", "input": source, "inputs": inputs,
                       "outputs": outputs, "weight_bits": 8, "bias_bits": 16, "shift": shift,
                       "exponent": 0, "low": -5000, "high": 5000})  # fmt: skip
        arrays[f"{name}.weights"] = RNG.integers(-128, 128, (outputs, inputs))
        arrays[f"{name}.bias"] = RNG.integers(-100, 100, outputs)

    def lif(name, source):
        layers.append({"name": name, "input": source, "threshold": 90, **NEURON})

    def add(name, *inputs):
        layers.append({"name": name, "kind": "add", "inputs": list(inputs), "exponent": 0,
                       "low": -9000, "high": 9000})  # fmt: skip

    linear("embed", "input", 4, 4)
    lif("s", "embed")
    for name in "qkv":
        linear(name, "s", 4, 4)
        lif(f"{name}s", name)
    layers.append({**NEURON, "name": "a", "kind": "sdsa", "q": "qs", "k": "ks", "v": "vs",
                   "heads": 2, "variant": 1, "masked": "q", "threshold": 1})  # fmt: skip
    linear("out", "a", 4, 4, shift=1)
    add("r", "embed", "out")
    lif("rs", "r")
    linear("first", "rs", 4, 8)
    lif("h", "first")
    linear("second", "h", 8, 4)
    add("r2", "r", "second")
    lif("r2s", "r2")
    linear("head", "r2s", 4, 3)
    layers.append({"name": "logits", "kind": "readout", "input": "head"})
    model = {"format": "spikewright transformer", "schema": 1, "name": "tiny", "timesteps": 2,
             "tokens": 4, "channels": 4, "heads": 2, "head_dim": 2, "classes": 3, "layers": layers,
             "input": {"image": [4, 4], "patch": [2, 2], "low": 0, "high": 3}}  # fmt: skip
    (folder / "model.json").write_text(json.dumps(model))
    np.savez(folder / "model.npz", **arrays)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def images():
    return RNG.integers(0, 4, (5, 4, 4))


def board_of(config, top="transformer"):
    """Return what looks like a board, and runs golden."""

    def run(**batch):
        own = [{n: x[b] for n, x in batch.items()} for b in range(len(batch["patches"]))]
        results = [transformer(config.asdict(), one)[0] for one in own]
        names = ("logits", "answer", "spikes")[: 2 + config.trace]
        return {n: np.array([one[n] for one in results]) for n in names}

    return SimpleNamespace(top=top, config=config, run=run)


def test_classes_are_those_of_the_integer_network(folder, images):
    model, arrays = model_of(folder)
    config, _ = top_of(model, arrays, threshold_bits=9, lanes=2)
    want, _ = network(model, {**arrays, "image": images})
    answers = want["logits"].argmax(axis=1)
    labels = answers.copy()
    labels[0] += 1
    found = classify(board_of(config), model, arrays, images, labels)
    assert np.array_equal(found.logits, want["logits"])
    assert np.array_equal(found.answers, answers)
    assert found.right == 4
    assert classify(board_of(config), model, arrays, images).right is None


def test_spikes_of_every_layer_come_with_a_trace(folder, images):
    model, arrays = model_of(folder)
    config, _ = top_of(model, arrays, trace=True)
    want, _ = network(model, {**arrays, "image": images})
    found = classify(board_of(config), model, arrays, images).spikes
    names = ("s", "qs", "ks", "vs", "a", "rs", "h", "r2s")
    assert [*found] == ["embed", *(f"blocks.0.{x}" for x in
                        ("q", "k", "v", "attend", "project", "expand", "contract"))]  # fmt: skip
    for came, name in zip(found.values(), names, strict=True):
        assert np.array_equal(came, want[name].swapaxes(0, 1))
    silent = config.replace(trace=False)
    assert classify(board_of(silent), model, arrays, images).spikes == {}


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"blocks": 2}, "blocks: the model takes 1, got 2"),
     ({"threshold_bits": 3}, "threshold_bits: the model takes at least 7, got 3"),
     ({"attention": "none"}, "attention: the model takes sdsa, got none")],
)  # fmt: skip
def test_a_board_of_other_sizes_is_refused(folder, images, settings, message):
    model, arrays = model_of(folder)
    config, _ = top_of(model, arrays)
    with pytest.raises(UserError) as error:
        classify(board_of(config.replace(**settings)), model, arrays, images)
    assert error.value.message == message
    with pytest.raises(UserError, match="want transformer on the board, got lif"):
        classify(board_of(config, "lif"), model, arrays, images)


@pytest.mark.parametrize(
    ("found", "message"),
    [({"image": np.zeros((1, 4, 4), int)}, "images: missing in {}; want images [B, 4, 4]"),
     ({"images": np.zeros((4, 4), int)},
      "images: want integers of shape [B, 4, 4], got int64 of shape [4, 4]"),
     ({"images": np.zeros((1, 4, 4))},
      "images: want integers of shape [B, 4, 4], got float64 of shape [1, 4, 4]"),
     ({"images": np.full((1, 4, 4), 4)}, "images: want values in 0..3, got 4..4"),
     ({"images": np.zeros((0, 4, 4), int)}, "images: want values in 0..3, got none"),
     ({"images": np.zeros((2, 4, 4), int), "labels": np.zeros(3, int)},
      "labels: want integers of shape [2], got int64 of shape [3]"),
     ({"images": np.zeros((2, 4, 4), int), "labels": np.array(["0", "1"])},
      "labels: want integers of shape [2], got <U1 of shape [2]")],
)  # fmt: skip
def test_bad_images(folder, tmp_path, found, message):
    path = tmp_path / "images.npz"
    np.savez(path, **found)
    with pytest.raises(UserError) as error:
        images_of(path, model_of(folder)[0])
    assert error.value.message == message.format(path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((), "want either --stimulus or --classify"),
     (("--stimulus", "a", "--classify", "b"), "want either --stimulus or --classify"),
     (("--classify", "b"), "--classify and --model go together"),
     (("--stimulus", "b", "--model", "c"), "--classify and --model go together")],
)  # fmt: skip
def test_options_that_do_not_go_together(arguments, message):
    done = subprocess.run(
        [sys.executable, "-m", "boards.host", "--port", "nowhere", *arguments],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"error: {message}\n")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["icebreaker", "ulx3s_25f", "tangnano9k"])
def test_images_over_the_serial_port_of_a_virtual_board(folder, images, tmp_path, name):
    model, arrays = model_of(folder)
    config, _ = top_of(model, arrays)
    want, _ = network(model, {**arrays, "image": images})
    np.savez(tmp_path / "in.npz", images=images, labels=want["logits"].argmax(axis=1))
    with VirtualBoard(BOARDS[name], emit("transformer", config)) as there:
        settings = config.asdict()
        with Board(name, there.port, "transformer", "default", settings, check=True) as board:
            found = classify(board, model, arrays, images)
            assert np.array_equal(found.logits, want["logits"])
        done = subprocess.run(
            [sys.executable, "-m", "boards.host", "--port", there.port, "--board", name,
             "--check", "--classify", tmp_path / "in.npz", "--model", folder,
             "--result", tmp_path / "o.npz"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "5 of 5 as labelled" in done.stdout
    with np.load(tmp_path / "o.npz") as file:
        assert np.array_equal(file["logits"], want["logits"])
