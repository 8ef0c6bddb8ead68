import dataclasses

import numpy as np
import pytest

from gen.emit import emit
from gen.errors import CheckFailed
from gen.options import resolve
from gen.vectors import random_stimulus
from sim import runner
from sim.golden import golden
from sim.replay import replay
from sim.runner import Design
from tests.sim.benches import design, emitted

SETTINGS = ["neurons=6", "lanes=2", "timesteps=3", "threshold_load=neuron"]

QUIET = 256
"""Clocks in which the bench waits at the end for what is too much."""


@pytest.fixture(scope="module")
def emission():
    return emit("lif", resolve("lif", None, SETTINGS), name="cells")


@pytest.fixture(scope="module")
def inferences(emission):
    """Return seven inferences of one kind of neurons."""
    rng = np.random.default_rng(1)
    drawn = [random_stimulus(emission.config, rng) for _ in range(7)]
    return [arrays | {"threshold": drawn[0]["threshold"]} for arrays in drawn]


@pytest.mark.slow
def test_results_are_those_of_golden_from_a_reset_every_few_inferences(emission, inferences):
    came = replay(emission, inferences, 3)
    want, state = [], None
    for b, arrays in enumerate(inferences):
        result, state = golden("lif")(emission.config.asdict(), arrays, state if b % 3 else None)
        want.append(result["spikes"])
    assert np.array_equal([result["spikes"] for result in came.results], want)
    assert any(spikes.any() for spikes in want)
    # Ports that stall for half of the time take less than four times as long.
    busy = came.clocks - 3 * QUIET
    assert 7 * emission.config.cycles < busy < 4 * 7 * emission.config.cycles


def test_a_design_that_computes_something_else_fails(emission, inferences):
    def through(design):
        (name,) = design.files
        text = design.files[name]
        assert text.count(" >= ") == emission.config.lanes
        return dataclasses.replace(design, files={name: text.replace(" >= ", " > ")})

    # Membranes that are the threshold itself.
    equal = {"threshold": np.full(6, 2), "current": np.full((3, 6), 2)}
    with pytest.raises(CheckFailed, match=r"^FAIL: spikes: beat 0: want tdata"):
        replay(emission, [equal], 1, through)


def test_what_verilator_refuses_is_told(emission, inferences):
    with pytest.raises(CheckFailed, match=r"^Verilator refuses cells: %Error"):
        replay(emission, inferences, 7, lambda design: Design(design.name, {"cells.v": "modul"}))


def test_nothing_of_a_design_is_kept_for_another(tmp_path, monkeypatch):
    """cocotb's main has the size of the design in it: a larger one would overrun it."""
    monkeypatch.setattr(runner, "FOLDER", tmp_path)
    runner.build(design(emitted("lif", "neurons=1 timesteps=1")), "verilator")
    (kept,) = tmp_path.glob("runtime-*")
    names = {file.name for file in kept.iterdir()}
    assert "verilated.o" in names
    assert "verilator.o" not in names
