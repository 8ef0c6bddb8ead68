"""Evaluate the integer models, and write the table: ``python -m examples.digits.evaluate``.

Reads the folders of ``trained/``, runs their integer models on all sets, writes ``results.json``
and the table in the README, beside what `examples.digits.hardware` found. Needs nothing but numpy.
"""

import argparse
import hashlib
import json
import math
import platform
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from examples.digits import data
from examples.digits.quantise import BITS, load, quantise
from sim.golden.transformer import State, network, read, weighted

HERE = Path(__file__).parent
TRAINED = HERE / "trained"
RESULTS = HERE / "results.json"
HARDWARE = HERE / "hardware.json"
README = HERE / "README.md"

CHUNK = 32  # images at a time: their currents fit a cache
NARROWED = "sdsa1"
"""The model that is evaluated with fewer bits of weight as well."""
NORMAL = 1.959964
"""Point of the normal distribution for an interval of 95 %."""

TITLES = {
    "ann": "ANN: softmax, ReLU",
    "none": "no attention",
    "sdsa1": "SDSA-1",
    "sdsa3": "SDSA-3",
    "ssa_count": "SSA, `encoder=count`",
    "ssa_sample": "SSA, `encoder=sample`",
    "moe": "SDSA-1 and experts",
    "tiny": "SDSA-1, one block, the iCEBreaker's",
}


def classes(
    model: Mapping[str, Any], arrays: Mapping[str, np.ndarray], pixels: np.ndarray
) -> np.ndarray:
    """Return what an integer model takes images [B, 8, 8] for, one after another, [B]."""
    state: State | None = None
    out = []
    for begin in range(0, len(pixels), CHUNK):
        given = {**arrays, "image": pixels[begin : begin + CHUNK]}
        result, state = network(model, given, state)
        out.append(result[model["layers"][-1]["name"]].argmax(axis=1))
    return np.concatenate(out)


def correct(model: Mapping[str, Any], arrays: Mapping[str, np.ndarray], own: data.Images) -> int:
    """Return how many images an integer model gets right."""
    return int((classes(model, arrays, own.pixels) == own.labels).sum())


def variants(folder: Path) -> dict[str, tuple[dict[str, Any], dict[str, np.ndarray]]]:
    """Return the integer models of a folder by name: of stochastic attention with each encoder."""
    model, arrays = read(folder)
    if not any(layer["kind"] == "attention" for layer in model["layers"]):
        return {folder.name: (model, arrays)}
    out = {}
    for encoder in ("count", "sample"):
        layers = [
            layer | {"encoder": encoder} if layer["kind"] == "attention" else layer
            for layer in model["layers"]
        ]
        out[f"{folder.name}_{encoder}"] = (model | {"layers": layers}, arrays)
    return out


def wilson(right: int, of: int) -> tuple[float, float]:
    """Return the 95 % interval of a proportion (Wilson, JASA 22, 1927)."""
    share, z2 = right / of, NORMAL**2 / of
    middle = (share + z2 / 2) / (1 + z2)
    half = NORMAL * math.sqrt(share * (1 - share) / of + z2 / (4 * of)) / (1 + z2)
    return middle - half, middle + half


def evaluate(folder: Path, sets: Mapping[str, data.Images]) -> dict[str, dict[str, Any]]:
    """Return the results of a folder by the name of the model, those of its training with them."""
    record = json.loads((folder / "float.json").read_text(encoding="utf-8"))
    trained = {name: record[name] for name in ("parameters", "epochs", "seed", "versions")}
    real = {"timesteps": record["timesteps"], "float": record["correct"]}
    if not (folder / "model.json").exists():
        return {folder.name: trained | real}
    digest = hashlib.sha256((folder / "model.npz").read_bytes()).hexdigest()
    return {
        name: trained | real | {
            "integer": {part: correct(model, arrays, own) for part, own in sets.items()},
            "weight_bits": max(layer["weight_bits"] for layer in weighted(model["layers"])),
            "sha256": digest,
        }
        for name, (model, arrays) in variants(folder).items()
    }  # fmt: skip


def narrower(sets: Mapping[str, data.Images]) -> dict[str, dict[str, int]] | None:
    """Return what `NARROWED` gets right by bits of weight; None if it was not trained here."""
    folder = TRAINED / NARROWED
    if not (folder / "float.npz").exists():
        return None
    trained = load(folder)
    return {
        str(bits): {
            part: correct(*quantise(*trained, bits), sets[part]) for part in ("test", "test_large")
        }
        for bits in BITS
    }


def percent(right: int, of: int) -> str:
    """Return an accuracy in percent with its interval."""
    low, high = wilson(right, of)
    return f"{100 * right / of:.2f} ({100 * low:.1f}–{100 * high:.1f})"


def simulated(found: Mapping[str, Any], form: str, of: int) -> str:
    """Return an accuracy that `examples.digits.hardware` found; of how many images, if not of all.

    Parameters
    ----------
    found : mapping
        By form: ``rtl``, or the family of a netlist.
    form : str
    of : int
        Originals there are.
    """
    if form not in found:
        return "–"
    right, images = found[form]["right"], found[form]["images"]
    return percent(right, of) if images == of else f"{right} of the first {images}"


def netlists(found: Mapping[str, Any], of: int) -> str:
    """Return the same of all netlists."""
    forms = [form for form in found if form != "rtl"]
    return "; ".join(f"{form}: {simulated(found, form, of)}" for form in forms) or "–"


def table(results: Mapping[str, Any], hardware: Mapping[str, Any]) -> str:
    """Return the results as a table.

    Parameters
    ----------
    results, hardware : mapping
        What ``results.json`` and ``hardware.json`` say.
    """
    of = results["of"]
    rows = [
        ["model", "T", "epochs", "weights and biases", "originals: float", "integer", "RTL",
         "netlist", "large set: float", "integer", "integer less float"],
        ["---"] * 11,
    ]  # fmt: skip
    for name, own in results["models"].items():
        row = [TITLES[name], str(own["timesteps"]), str(own["epochs"]), f"{own['parameters']:,}"]
        for part in ("test", "test_large"):
            for form in ("float", "integer"):
                row.append(percent(own[form][part], of[part]) if form in own else "–")
            if part == "test":
                found = hardware.get(name, {})
                row += [simulated(found, "rtl", of[part]), netlists(found, of[part])]
        if "integer" in own and "float" in own:
            more = own["integer"]["test_large"] - own["float"]["test_large"]
            row.append(f"{100 * more / of['test_large']:+.2f}")
        else:
            row.append("–")
        rows.append(row)
    narrow = [
        ["bits of weight, SDSA-1", "originals", "large set"],
        ["---"] * 3,
        *(
            [bits, *(percent(own[part], of[part]) for part in ("test", "test_large"))]
            for bits, own in results["narrower"].items()
        ),
    ]
    note = (
        f"Percent right, with the 95 % interval of Wilson. Originals: {of['test']} images; large "
        f"set: {of['test_large']:,} augmentations of them. Integer: weights of 8 bits. RTL and "
        "netlist: the same numbers, every logit and spike held against golden; where a netlist has "
        "seen fewer images it says how many. "
        + ", ".join(f"{tool} {number}" for tool, number in results["versions"].items())
        + "."
    )
    return "\n\n".join(
        ["\n".join("| " + " | ".join(row) + " |" for row in part) for part in (rows, narrow)]
        + [note]
    )


def filled(page: str, text: str) -> str:
    """Return a page with what is between its marks replaced."""
    begin, end = "<!-- table:begin -->", "<!-- table:end -->"
    head, rest = page.split(begin)
    return f"{head}{begin}\n{text}\n{end}{rest.split(end)[1]}"


def main() -> int:
    """Evaluate, and write or check."""
    parser = argparse.ArgumentParser(description="Evaluate the integer models.")
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    parser.add_argument("--model", action="append", help="a folder of trained/; the others stay")
    args = parser.parse_args()
    folders = sorted(folder.name for folder in TRAINED.iterdir())
    if unknown := set(args.model or ()) - set(folders):
        parser.error(f"--model: want one of {', '.join(folders)}, got {min(unknown)}")
    recorded = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    sets = data.sets()
    models: dict[str, Any] = {}
    for name in args.model or folders:
        models |= evaluate(TRAINED / name, sets)
    if args.check:
        different = [n for n, own in models.items() if own != recorded["models"].get(n)]
        for name in different:
            print(f"{name}: other results than in {RESULTS.name}", file=sys.stderr)
        return 1 if different else 0
    models = recorded.get("models", {}) | models
    results: dict[str, Any] = {
        "versions": {"python": platform.python_version(), "numpy": version("numpy")},
        "seeds": {
            "split": data.SPLIT_SEED,
            **{f"{name}_large": seed for name, (seed, _) in data.LARGE.items()},
        },
        "of": {name: len(images) for name, images in sets.items()},
        "models": {name: models[name] for name in TITLES if name in models},
        "narrower": recorded.get("narrower", {}),
    }
    if NARROWED in (args.model or folders):
        results["narrower"] = narrower(sets) or results["narrower"]
    RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    hardware = json.loads(HARDWARE.read_text(encoding="utf-8"))
    page = README.read_text(encoding="utf-8")
    README.write_text(filled(page, table(results, hardware)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
