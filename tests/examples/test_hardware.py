import json

import numpy as np
import pytest

from bench import energy
from examples.digits import data, evaluate, hardware
from sim.golden.transformer import network

HARDWARE = json.loads(evaluate.HARDWARE.read_text(encoding="utf-8"))
RESULTS = json.loads(evaluate.RESULTS.read_text(encoding="utf-8"))
TEST = data.sets()["test"]
MODELS = {
    name: found
    for folder in sorted(evaluate.TRAINED.iterdir())
    if (folder / "model.json").exists()
    for name, found in evaluate.variants(folder).items()
}


def some(count):
    return data.Images(TEST.pixels[:count], TEST.labels[:count])


@pytest.mark.parametrize("name", ["none", "sdsa1", "sdsa3", "ssa_count"])
def test_synaptic_operations_are_those_of_the_account(name):
    model, arrays = MODELS[name]
    images = some(2)
    counts, _ = energy.count(model, arrays, images.pixels)
    values, _ = network(model, {**arrays, "image": images.pixels})
    found = [
        hardware.synaptic_operations(
            model,
            {x["name"]: values[x["name"]][:, b].astype(np.uint8)
             for x in model["layers"] if x["kind"] in hardware.BITS},
        )
        for b in range(2)
    ]  # fmt: skip
    assert all(found[0].values())
    for layer in found[0]:
        own = energy.sum_of({layer: counts[layer]}, energy.SYNAPTIC)
        assert own == found[0][layer] + found[1][layer]
    missing = {x["name"] for x in model["layers"] if x["kind"] in ("linear", "sdsa")} - {*found[0]}
    assert missing == {"embed"}


@pytest.mark.parametrize(("name", "form"), [(n, f) for n, own in HARDWARE.items() for f in own])
def test_what_came_out_is_what_golden_has(name, form):
    """The hardware's figures are of the committed weights, and golden's on the same images."""
    found = HARDWARE[name][form]
    own = RESULTS["models"][name]
    assert found["sha256"] == own["sha256"]
    assert found["parameters"]["trace"]
    model, arrays = MODELS[name]
    if found["images"] == len(TEST):
        assert found["right"] == own["integer"]["test"]
    else:
        assert found["right"] == evaluate.correct(model, arrays, some(found["images"]))
    if found["images"] == HARDWARE[name]["rtl"]["images"]:
        assert found["spikes"] == HARDWARE[name]["rtl"]["spikes"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "family"), [("none", None), ("ssa_sample", None), ("none", "ice40")]
)
def test_images_go_through_the_hardware(name, family):
    model, arrays = MODELS[name]
    images = some(2)
    found = hardware.run(
        model, arrays, images, family, lanes=hardware.BOARD_LANES if family else hardware.LANES
    )
    assert found["right"] == evaluate.correct(model, arrays, images)
    values, _ = network(model, {**arrays, "image": images.pixels})
    assert found["spikes"] == {
        x["name"]: int(values[x["name"]].sum())
        for x in model["layers"]
        if x["kind"] in hardware.BITS
    }
    assert found["clocks"] > 2 * found["clocks_of_an_image"]
