"""The iCEBreaker (iCE40 UP5K): a self-testing bitstream by the open tools."""

import dataclasses
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, ClassVar

from amaranth import Module
from amaranth.hdl import Elaboratable
from amaranth.lib import io
from amaranth_boards.icebreaker import ICEBreakerPlatform

from boards.selftest import SelfTest, Vectors
from gen.emit import Emission
from gen.errors import CheckFailed, UserError

POWER_ON_CLOCKS = 180
"""Clocks for which Amaranth holds the reset after power-up: 15 us, until block RAMs can be read."""

DEVICE = {"ICESTORM_LC": 5280, "ICESTORM_RAM": 30, "ICESTORM_DSP": 8}
"""What the device has, by nextpnr's names."""

NAMES = {"ICESTORM_LC": "logic cells", "ICESTORM_RAM": "block RAMs", "ICESTORM_DSP": "DSPs"}


PINS = {"clock": "clk12_0__io", "passed": "led_g_0__io", "failed": "led_r_0__io"}
"""Ports of the synthesised top; an LED is lit by 0."""


class Platform(ICEBreakerPlatform):
    """The board; which tools to take is said to the script that runs them, not looked for."""

    required_tools: ClassVar[list[str]] = []


class Top(Elaboratable):
    """The self test on the board: green LED for pass, red for fail."""

    def __init__(self, test: SelfTest) -> None:
        self._test = test

    def elaborate(self, platform: ICEBreakerPlatform) -> Module:
        m = Module()
        m.submodules.test = self._test
        for name, lit in (("led_g", self._test.passed), ("led_r", self._test.failed)):
            m.submodules[name] = led = io.Buffer("o", platform.request(name, 0, dir="-"))
            m.d.comb += led.o.eq(lit)
        return m


@dataclasses.dataclass(frozen=True)
class Bitstream:
    """A bitstream and what it takes.

    Attributes
    ----------
    path : Path
        The ``.bin`` file.
    netlist : Path
        The synthesised netlist of the whole top, pins included (Yosys JSON).
    used : dict of str to int
        Cells by nextpnr's names.
    clock : float
        Highest clock rate in MHz.
    wanted : float
        Rate of the board's clock in MHz.
    seed : int
        Of placement.
    """

    path: Path
    netlist: Path
    used: dict[str, int]
    clock: float
    wanted: float
    seed: int

    def summary(self) -> dict[str, Any]:
        """Return the figures."""
        return {
            "used": {NAMES[k]: v for k, v in self.used.items()},
            "device": {NAMES[k]: v for k, v in DEVICE.items()},
            "clock_mhz": self.clock,
            "board_clock_mhz": self.wanted,
            "seed": self.seed,
        }


def environment() -> dict[str, str]:
    """Return the settings by which amaranth.build finds the tools beside this Python."""
    folder = Path(sys.executable).parent
    tools = ("yosys", "nextpnr-ice40", "icepack")
    return {t.upper().replace("-", "_"): str(folder / f"yowasp-{t}") for t in tools}


def build(emission: Emission, vectors: Vectors, folder: Path, seed: int = 1) -> Bitstream:
    """Synthesise, place and route the self test of an emitted top.

    Parameters
    ----------
    emission : Emission
        In the form ``v``.
    vectors : Vectors
    folder : Path
        For everything that the tools write.
    seed : int
        Of nextpnr.

    Raises
    ------
    UserError
        It does not fit the device.
    CheckFailed
        A tool failed, or the board's clock is too fast for it.
    """
    name = f"{emission.name}_icebreaker"
    platform = Platform()
    platform.add_file(f"{emission.name}.v", emission.verilog)
    plan = platform.build(
        Top(SelfTest(emission, vectors)),
        name,
        do_build=False,
        nextpnr_opts=f"--seed {seed} --report {name}.report.json",
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        staging = tempfile.TemporaryDirectory(prefix=".build_", dir=folder)
    except OSError as wrong:
        raise UserError(f"can't write {folder}: {wrong.strerror}") from wrong
    with staging as made:
        work = Path(made)
        plan.extract(work)
        log = subprocess.run(
            ["sh", f"{plan.script}.sh"],
            cwd=work,
            env={**os.environ, **environment()},
            capture_output=True,
            text=True,
            check=False,
        ).stderr
        timing = work / f"{name}.tim"
        log += timing.read_text() if timing.exists() else ""
        used = {k: int(n) for k, n in re.findall(r"Info:\s+(ICESTORM_\w+):\s+(\d+)/", log)}
        over = [f"{NAMES[k]} {used[k]} of {n}" for k, n in DEVICE.items() if used.get(k, 0) > n]
        if over:
            raise UserError(f"icebreaker: {emission.top} does not fit: it needs {', '.join(over)}")
        if not (work / f"{name}.bin").exists():
            lines = [line for line in log.splitlines() if line.strip()] or ["no output"]
            errors = [line for line in lines if "ERROR" in line]
            raise CheckFailed(f"icebreaker: no bitstream: {[*errors, lines[-1]][0]}")
        report = json.loads((work / f"{name}.report.json").read_text())
        (clock,) = report["fmax"].values()
        wanted = platform.default_clk_frequency / 1e6
        if clock["achieved"] < wanted:
            raise CheckFailed(
                f"icebreaker: want {wanted:g} MHz, {emission.top} reaches {clock['achieved']:.1f}"
            )
        for file in work.iterdir():
            file.replace(folder / file.name)
    return Bitstream(
        path=folder / f"{name}.bin",
        netlist=folder / f"{name}.json",
        used={k: used.get(k, 0) for k in DEVICE},
        clock=round(clock["achieved"], 2),
        wanted=wanted,
        seed=seed,
    )
