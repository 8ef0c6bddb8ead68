"""``python -m bench.decay``: how often inexact time constants fire differently from real numbers.

Writes the table of ``docs/lif.md`` between its markers.
"""

import itertools
from pathlib import Path

import click
import numpy as np

from bench.table import replace
from gen.emit import write
from gen.errors import Command
from hw.lif import LifConfig
from sim.golden import golden

PAGE = Path(__file__).parent.parent / "docs" / "lif.md"

SEED, STEPS, NEURONS = 1, 32, 4096
CURRENTS = {"-8..24": (-8, 24), "-128..127": (-128, 127)}
V_THRESHOLDS = (1, 16)
SETTINGS = [(4.0, 2), (8.0, 3), (3.0, 16), (10.0, 16), (20.0, 16), (10.0, 10), (10.0, 8)]
FRACTION_BITS = (0, 2, 4, 6, 8)


def real_spikes(current: np.ndarray, config: LifConfig) -> np.ndarray:
    """Return the spikes of the neuron in float64, the recurrence of SpikingJelly's `LIFNode`."""
    v_threshold = config.threshold / config.tau
    h = np.zeros(current.shape[1])
    out = []
    for x in current:
        h = h + (x - h) / config.tau
        fired = h >= v_threshold
        h = np.where(fired, 0 if config.reset == "hard" else h - v_threshold, h)
        out.append(fired)
    return np.array(out)


def differing(tau: float, decay_bits: int, fraction_bits: int, reset: str) -> float:
    """Return the share of neuron-steps whose spike differs, in percent."""
    rng = np.random.default_rng(SEED)
    shares = []
    for (low, high), v_threshold in itertools.product(CURRENTS.values(), V_THRESHOLDS):
        config = LifConfig(
            tau=tau, decay_bits=decay_bits, fraction_bits=fraction_bits, reset=reset,
            threshold=round(tau * v_threshold),
        )  # fmt: skip
        current = rng.integers(low, high, (STEPS, NEURONS), endpoint=True)
        ours, _ = golden("lif")(config.asdict(), {"current": current}, None)
        shares.append((ours["spikes"] != real_spikes(current, config)).mean())
    return 100 * float(np.mean(shares))


def table() -> str:
    """Return the table and its caption."""
    head = ["tau", "`decay_bits`", "reset", *(f"F = {bits}" for bits in FRACTION_BITS)]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for (tau, decay_bits), reset in itertools.product(SETTINGS, ("hard", "soft")):
        rates = [f"{differing(tau, decay_bits, f, reset):.4f}" for f in FRACTION_BITS]
        lines.append(f"| {tau:g} | {decay_bits} | {reset} | {' | '.join(rates)} |")
    count = STEPS * NEURONS * len(CURRENTS) * len(V_THRESHOLDS)
    lines.append("")
    lines.append(
        f"Percent of neuron-steps whose spike differs from float64, F = `fraction_bits`, `ge`, "
        f"decay_input; {count} neuron-steps an entry: T = {STEPS}, currents uniform in "
        f"{' and '.join(CURRENTS)}, v_threshold {' and '.join(map(str, V_THRESHOLDS))}; "
        f"numpy {np.__version__}, seed {SEED}."
    )
    return "\n".join(lines) + "\n"


@click.command(cls=Command, help=__doc__)
def main() -> None:
    """Run the command."""
    write({PAGE.name: replace(PAGE.read_text(), table())}, PAGE.parent)


if __name__ == "__main__":
    main(prog_name="python -m bench.decay")
