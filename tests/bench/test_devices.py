import dataclasses
import json
import re
import stat
import sys

import pytest

from bench.devices import DEVICES, breakdown, run_nextpnr
from boards.nextpnr import NoPlace, clock, place, signal, utilisation
from gen.errors import CheckFailed, UserError

LOG = """\
Info:      226 LCs used as LUT4 and DFF

Info: Device utilisation:
Info: \t         ICESTORM_LC:    7238/   5280   137%
Info: \t        ICESTORM_RAM:     132/     30   440%
Info: \t               SB_IO:     282/     39   723%
Info: \t        ICESTORM_PLL:       0/      1     0%
"""


def hop(kind, delay, to, port="I0"):
    return {"type": kind, "delay": delay, "to": {"cell": to, "port": port}}


COUNT, OTHER, STEP = (
    "dut.unit.q.count_SB_DFFSR_Q_1_DFFLC",
    "dut.unit.k._32__SB_LUT4_I3_LC",
    "dut.unit.step_SB_DFFE_Q_E_SB_LUT4_O_LC",
)

REPORT = {
    "fmax": {"clk$SB_IO_IN_$glb_clk": {"achieved": 41.84100341796875, "constraint": 12}},
    "critical_paths": [
        {"from": "<async>", "to": "posedge clk$SB_IO_IN_$glb_clk", "path": []},
        {
            "from": "posedge clk$SB_IO_IN_$glb_clk",
            "to": "posedge clk$SB_IO_IN_$glb_clk",
            "path": [
                hop("clk-to-q", 1.25, COUNT),
                hop("routing", 3.0, OTHER),
                hop("logic", 1.0, OTHER),
                hop("routing", 1.5, "$nextpnr_ICESTORM_LC_3"),
                hop("routing", 1.0, STEP),
                hop("logic", 1.0, STEP),
                hop("routing", 0.5, STEP),
                hop("setup", 0.1, "dut.unit.step_SB_DFFE_Q_D_SB_LUT4_O_LC", port="CEN"),
            ],
        },
    ],
}


def test_utilisation_leaves_out_pins_and_what_is_not_used():
    assert utilisation(LOG) == {
        "ICESTORM_LC": {"used": 7238, "available": 5280},
        "ICESTORM_RAM": {"used": 132, "available": 30},
    }


def test_clock_tells_the_longest_path_in_signals_of_the_design():
    assert clock(REPORT, "dut") == {
        "mhz": 41.84,
        "path": ["unit.q.count", "unit.k", "unit.step"],
        "port": "CEN",
        "levels": 2,
        "logic_ns": 3.35,
        "routing_ns": 6.0,
    }


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("dut.unit.output_r0_d3_sum_TRELLIS_FF_Q_1", "unit.output_r0_d3_sum"),
        ("dut.unit.sum0_SB_DFFESR_Q_D_SB_LUT4_O_I3_SB_CARRY_CO", "unit.sum0"),
        ("dut.unit.k.memory.0.27_RAM", "unit.k.memory"),
        ("dut.unit.k.memory.0.27_DO_1_LUT4_Z", "unit.k.memory"),
        ("dut.unit.state.0.8$DPRAM_COMB1", "unit.state"),
        ("s_axis_q_tdata_SB_DFF_Q_3", "s_axis_q_tdata"),
    ],
)
def test_signal_of_a_cell(name, want):
    assert signal(name, "dut") == want


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("dut.unit.k.count_TRELLIS_FF_Q_1", "unit.k.count"),
        ("dut.unit.k._32_", "unit.k"),
        ("dut.unit.k._32__LUT4_Z_1", "unit.k"),
        ("dut.unit.k.$abc$32$lut", "unit.k"),
        ("dut.unit.k.a_3_", "unit.k.a_3_"),
        ("dut._7_", ""),
    ],
)
def test_what_is_on_a_path_has_a_name_of_the_design(name, want):
    assert place(name, "dut") == want


def test_cells_of_ecp5_in_equivalents():
    types = {"LUT4": 10, "CCU2C": 3, "TRELLIS_DPR16X4": 2, "TRELLIS_FF": 7, "DP16KD": 1}
    cells = DEVICES["ecp5"].cells(types)
    assert cells["lut4_equivalents"] == 10 + 2 * 3 + 4 * 2
    assert (cells["ff"], cells["bram"], cells["dsp"]) == (7, 1, 0)


def test_cells_of_ice40_count_every_kind_of_flip_flop():
    types = {"SB_LUT4": 4, "SB_CARRY": 2, "SB_DFF": 1, "SB_DFFESR": 5, "SB_RAM40_4K": 3}
    assert DEVICES["up5k"].cells(types) == {"lut4": 4, "carry": 2, "ff": 6, "bram": 3, "dsp": 0}


def test_breakdown_takes_lanes_together_and_adds_up():
    cells = {
        "unit.sum0_TRELLIS_FF_Q": "TRELLIS_FF",
        "unit.sum1_TRELLIS_FF_Q": "TRELLIS_FF",
        "unit.sum1_TRELLIS_FF_Q_DI_LUT4_Z": "LUT4",
        "unit.state.0.3": "TRELLIS_DPR16X4",
        "unit": "$scopeinfo",
    }
    module = {"cells": {name: {"type": kind} for name, kind in cells.items()}}
    assert breakdown(module, DEVICES["ecp5"]) == {
        "unit.sum#": {"ff": 2, "lut4": 1, "lut4_equivalents": 1},
        "unit.state": {"dpr16x4": 1, "lut4_equivalents": 4},
    }


@pytest.fixture
def nextpnr(tmp_path, monkeypatch):
    """Return a function that puts a nextpnr beside Python which does this, then fails."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))

    def fails(message, does=":"):
        tool = tmp_path / DEVICES["up5k"].nextpnr
        tool.write_text(f"#!/bin/sh\n{does}\necho {json.dumps(message)} >&2\nexit 125\n")
        tool.chmod(tool.stat().st_mode | stat.S_IEXEC)

    return fails


@pytest.mark.parametrize(
    "reason",
    [
        "Unable to place cell 'x', no BELs remaining to implement cell type 'ICESTORM_RAM'",
        "Failed to expand region (0, 0) |_> (25, 31) of 6000 ICESTORM_LCs",
        "Unable to find legal placement for all cells, design is probably at utilisation limit.",
    ],
)
def test_a_full_device_is_a_result(nextpnr, tmp_path, reason):
    nextpnr(f"ERROR: {reason}")
    with pytest.raises(NoPlace, match="^" + re.escape(reason) + "$"):
        run_nextpnr(DEVICES["up5k"], cwd=tmp_path)


def test_any_other_failure_is_an_error(nextpnr, tmp_path):
    nextpnr("ERROR: Failed to open JSON file 'x.json'.")
    with pytest.raises(CheckFailed, match="Failed to open JSON"):
        run_nextpnr(DEVICES["up5k"], cwd=tmp_path)


def test_a_missing_tool_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(UserError, match="make env"):
        run_nextpnr(DEVICES["ecp5"], cwd=tmp_path)


def test_a_route_that_takes_too_much_of_a_processor_is_given_up(nextpnr, tmp_path):
    impatient = dataclasses.replace(DEVICES["up5k"], limit_s=1)
    nextpnr("", "while :; do :; done")
    with pytest.raises(NoPlace, match=r"^not routed within 1 s$"):
        run_nextpnr(impatient, cwd=tmp_path)
    nextpnr("ERROR: it has waited", "sleep 1.5")
    with pytest.raises(CheckFailed, match="it has waited"):
        run_nextpnr(impatient, cwd=tmp_path)
