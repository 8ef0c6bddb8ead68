"""How much switches in the netlist of a top: transitions of the outputs of its cells."""

import collections
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from gen.emit import Emission
from gen.errors import CheckFailed
from sim.job import Job
from sim.netlist import synthesise
from sim.play import play
from sim.runner import BuildError, Design, RunError, build

OUTPUTS = {
    "TRELLIS_FF": ("flip-flops", ("Q",)),
    "LUT4": ("LUTs", ("Z",)),
    "CCU2C": ("carry chains", ("S0", "S1", "COUT")),
    "TRELLIS_DPR16X4": ("memories", ("DO",)),
}
"""Cells of the ECP5, what they are called here, and their outputs."""

E_ADD, E_MAC = 0.9, 4.6
"""Energy of an addition and of a multiplication with addition in pJ, 45 nm, 32 bit floating point:
the constants by which Spike-driven Transformer (arXiv 2307.01694) and others estimate."""

Toggles = dict[str, float]
"""Transitions by kind of cell, as `OUTPUTS` names them."""


class ActivityMeter:
    """Count how often the outputs of the cells of a top change.

    The ECP5 netlist, without block RAM, is simulated in Verilator with no delays: each net
    changes once a clock at most, glitches do not show.

    Parameters
    ----------
    emission : Emission

    Raises
    ------
    CheckFailed
        It can't be built.
    """

    def __init__(self, emission: Emission) -> None:
        source = {emission.manifest["files"]["verilog"]: emission.verilog}
        self._design = synthesise(Design(emission.name, source), "ecp5", block_ram=False)
        self._job = Job(emission.manifest["top"], emission.config.asdict())
        try:
            self._built = build(self._design, "verilator", toggles=True)
        except BuildError as refused:
            raise CheckFailed(f"verilator: {refused}") from refused

    def __call__(self, batch: Mapping[str, np.ndarray]) -> Toggles:
        """Return the transitions in an inference: means over all but the first.

        What the first one takes, with reset and the clocks before and after all of them, is not
        counted.

        Parameters
        ----------
        batch : mapping of str to ndarray
            The arrays of ``--stimulus`` with a leading axis of 2 or more inferences.

        Raises
        ------
        CheckFailed
            The simulation failed, or something else came out than golden has.
        """
        whole = self._count(batch)
        first = self._count({name: array[:1] for name, array in batch.items()})
        more = len(next(iter(batch.values()))) - 1
        return {kind: (whole[kind] - first[kind]) / more for kind, _ in OUTPUTS.values()}

    def _count(self, batch: Mapping[str, np.ndarray]) -> Toggles:
        """Return the transitions in a whole simulation."""
        with tempfile.TemporaryDirectory(prefix="spikewright_") as name:
            counts = Path(name, "counts")
            try:
                played = play(self._built, self._design, "verilator", self._job, batch, counts)
            except RunError as failed:
                raise CheckFailed(f"verilator: {failed}") from failed
            if played.message or played.wrong:
                raise CheckFailed(f"the netlist is not golden: {played.message or played.wrong}")
            return read(counts.read_text())


def read(text: str) -> Toggles:
    r"""Return the transitions that a file of Verilator's coverage has.

    A line is ``C '<key>\2<value>\1<key>\2<value>...' <count>``; ``page`` ends in the module,
    with its parameters behind two underscores, and ``o`` is a bit and the way it changes, as in
    ``DO[3]:0->1``.
    """
    counts: Toggles = collections.defaultdict(float)
    for line in text.splitlines()[1:]:
        fields, _, count = line[3:].rpartition("' ")
        values = dict(field.split("\2", 1) for field in fields.split("\1") if field)
        module = values["page"].rpartition("/")[2].partition("__")[0]
        kind, outputs = OUTPUTS.get(module, ("", ()))
        if values["o"].partition(":")[0].partition("[")[0] in outputs:
            counts[kind] += int(count)
    return counts
