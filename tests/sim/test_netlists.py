"""An inference of every preset on its netlist for every family; the benches run on small sizes."""

import numpy as np
import pytest

from gen.emit import emit
from gen.vectors import random_stimulus
from hw.tops import TOPS
from sim import arrays
from sim.__main__ import choose
from sim.job import Job
from sim.netlist import FAMILIES, synthesise
from sim.play import play
from sim.runner import Design, build

PRESETS = [(top, preset) for top, entry in TOPS.items() for preset in entry.config.PRESETS]

LONG = 20_000
"""Clocks from which on a build with Verilator, minutes, is worth it."""


@pytest.mark.slow
@pytest.mark.icarus
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("top", "preset"), PRESETS)
def test_a_preset_on_its_netlist(top, preset, family):
    config = choose(top, preset, ())
    emission = emit(top, config)
    design = Design(emission.name, {f"{top}.v": emission.verilog})
    netlist = synthesise(design, family, large_memory=config.large_memory)
    if family == "ice40":
        assert ("SB_SPRAM256KA" in netlist.files[f"{top}_ice40.v"]) == config.large_memory
    simulator = "icarus" if config.cycles < LONG else "verilator"
    batch = {
        name: array[np.newaxis]
        for name, array in random_stimulus(config, np.random.default_rng(5)).items()
    }
    job = Job(top, config.asdict())
    played = play(build(netlist, simulator), netlist, simulator, job, batch)
    assert played.message == ""
    assert arrays.mismatch(played.golden, played.results) is None
