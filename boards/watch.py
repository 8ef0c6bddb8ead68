"""Watch the LEDs of a board's whole top, in cocotb: clock in, verdict out."""

import json
from pathlib import Path
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles

from boards.icebreaker import PINS
from sim.job import Job

JOB = Job.load()

POWER_ON_CLOCKS = 400
"""More than the clocks for which the platform holds its reset after power-up."""


@cocotb.test()
async def watch(dut: Any) -> None:
    """Run until both LEDs have said what they will, and store their states."""
    assert JOB.result
    clock = getattr(dut, PINS["clock"])
    cocotb.start_soon(Clock(clock, 10, unit="ns").start())
    cycles = JOB.config.cycles
    lit: dict[str, int] = {}
    for clocks in range(POWER_ON_CLOCKS + 5 * cycles):
        await ClockCycles(clock, 1)
        for name in ("passed", "failed"):
            if str(getattr(dut, PINS[name]).value) == "0":  # lit
                lit.setdefault(name, clocks)
    Path(JOB.result).write_text(json.dumps(lit))
