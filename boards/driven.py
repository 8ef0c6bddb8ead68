"""The demo's spike-driven attention: the digits' spikes through SDSA-1, and what they cost."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from boards.digits import Front
from boards.stage import Checks, Steps, clocks_of, through
from gen import report
from gen.emit import Emission, emit
from hw.sdsa import SdsaConfig
from sim.activity import E_ADD, ActivityMeter, Toggles

SEED = 1


@dataclasses.dataclass(frozen=True)
class Cost:
    """What an inference costs: means over all but the first.

    Attributes
    ----------
    label : str
        The spikes that it was measured with.
    operations : float
        Synaptic operations, as the RTL counts them.
    toggles : Toggles
    """

    label: str
    operations: float
    toggles: Toggles


@dataclasses.dataclass(frozen=True)
class Driven:
    """All that the report shows.

    Attributes
    ----------
    emission : Emission
    spikes : dict of str to ndarray [T, N, D]
        Of the first digit, through the streams.
    out : ndarray [B, T, N, D]
        What came out for all digits.
    elements : int
        Elements that were compared.
    costs : list of Cost
    """

    emission: Emission
    spikes: dict[str, np.ndarray]
    out: np.ndarray
    elements: int
    costs: list[Cost]


def drive(front: Front, batch: Mapping[str, np.ndarray], steps: Steps, check: Checks) -> Driven:
    """Send the spikes q, k and v [B, T, N, D] of digits through SDSA-1, and measure.

    Raises
    ------
    CheckFailed
    """
    c = front.attention
    config = SdsaConfig(
        timesteps=c.timesteps, tokens=c.tokens, channels=c.channels, count_sops=True
    )
    emission = emit("sdsa", config)
    count = len(batch["q"])
    rng = np.random.default_rng(SEED)
    batches = {
        "none": {name: np.zeros_like(array) for name, array in batch.items()},
        "the digits'": dict(batch),
        "every other bit, random": {
            name: rng.integers(0, 2, array.shape, dtype=np.uint8) for name, array in batch.items()
        },
    }
    with steps(f"sdsa: {count} digits in Verilator"):
        played = {label: through(emission, some) for label, some in batches.items()}
    elements = sum(one.elements for one in played.values())
    wrong = sum(one.wrong for one in played.values())
    check(f"sdsa: {elements:,} outputs and counts, {wrong} differ from golden", wrong == 0)
    clocks, promised = played["the digits'"].clocks, clocks_of(emission, count)
    check(f"sdsa: {clocks:,} clocks for {count} digits, the manifest says {promised:,}",
          clocks == promised)  # fmt: skip
    with steps("sdsa: what switches in its netlist"):
        meter = ActivityMeter(emission)
        costs = [
            Cost(label, float(played[label].results["sops"][1:].sum(axis=1).mean()), meter(some))
            for label, some in batches.items()
        ]
    switched = [sum(cost.toggles.values()) for cost in costs]
    check(f"sdsa: {switched[1]:,.0f} transitions for a digit, {switched[0]:,.0f} of them without "
          f"spikes; {switched[2]:,.0f} at a rate of 0.5",
          switched[0] < switched[1] < switched[2])  # fmt: skip
    spikes = {name: batch[name][0] for name in "qkv"}
    out = played["the digits'"].results["out"]
    return Driven(emission, {**spikes, "out": out[0]}, out, elements, costs)


def section(driven: Driven) -> report.Section:
    """Return the section of the report."""
    kinds = [kind for kind in driven.costs[0].toggles if any(c.toggles[kind] for c in driven.costs)]
    rows = [
        [
            cost.label,
            f"{cost.operations:,.0f}",
            f"{cost.operations * E_ADD / 1000:.3g} nJ",
            *(f"{cost.toggles[kind]:,.0f}" for kind in kinds),
        ]
        for cost in driven.costs
    ]
    c = driven.emission.config
    return report.Section(
        "Spike-driven attention",
        "The same spikes through SDSA-1: a channel of q passes in a time step where k and v have "
        f"spiked in it together, in any token. A time step takes {c.interval} clocks, a token a "
        "clock; there is no multiplier, and nothing is drawn.",
        [
            report.Figure(report.raster_figure(driven.spikes, "driven"), ""),
            report.Table(
                ["spikes", "operations", "energy, estimated", *kinds],
                rows,
                "An inference: synaptic operations as the RTL counts them; energy by the papers' "
                f"constant of {E_ADD} pJ an addition (45 nm, 32 bit floating point), which is not "
                "that of an FPGA; transitions of the outputs of cells in the netlist for the ECP5, "
                "simulated without delays.",
            ),
        ],
    )
