"""An inference of every preset on its netlist for every family; the benches run on small sizes."""

import numpy as np
import pytest

from boards.catalogue import BOARDS
from boards.results import of
from gen.emit import emit
from gen.vectors import random_stimulus
from hw.tops import TOPS
from sim import arrays
from sim.__main__ import choose
from sim.job import Job
from sim.netlist import FAMILIES, synthesise
from sim.play import play
from sim.runner import Design, build

LONG = 1e9
"""Characters of the netlist times clocks, from which on a build with Verilator is worth it."""


def has_room(family, top, preset):
    """Return whether a board of a family has room for a preset, as far as that was looked at."""
    boards = (b for b in BOARDS.values() if type(b.family).__name__.lower() == family)
    return any(of(board, top, preset).get("fits", True) for board in boards)


CASES = [
    (top, preset, family)
    for top, entry in TOPS.items()
    for preset in entry.config.PRESETS
    for family in FAMILIES
    if has_room(family, top, preset)
]


@pytest.mark.slow
@pytest.mark.icarus
@pytest.mark.parametrize(("top", "preset", "family"), CASES)
def test_a_preset_on_its_netlist(top, preset, family):
    config = choose(top, preset, ())
    emission = emit(top, config)
    design = Design(emission.name, {f"{top}.v": emission.verilog})
    netlist = synthesise(design, family, large_memory=config.large_memory)
    text = netlist.files[f"{top}_{family}.v"]
    if family == "ice40":
        assert ("SB_SPRAM256KA" in text) == config.large_memory
    simulator = "icarus" if config.cycles * len(text) < LONG else "verilator"
    batch = {
        name: array[np.newaxis]
        for name, array in random_stimulus(config, np.random.default_rng(5)).items()
    }
    job = Job(top, config.asdict())
    played = play(build(netlist, simulator), netlist, simulator, job, batch)
    assert played.message == ""
    assert arrays.mismatch(played.golden, played.results) is None
