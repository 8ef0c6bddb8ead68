"""nextpnr and the tools around it: how they are run, and what they say of a design."""

import itertools
import os
import re
import resource
import signal as signals
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gen.errors import CheckFailed, UserError

__all__ = ["NoPlace", "clock", "nextpnr", "signal", "tool", "utilisation"]

OFF_CHIP = {"SB_IO", "TRELLIS_IO", "IOB"}
"""Resources that the shell and not the unit decides over."""


class NoPlace(Exception):
    """The design can't be placed or routed; the message is nextpnr's."""


class Endless(Exception):
    """A tool has used up the time that it was given."""


def tool(
    name: str, *options: str, cwd: Path, limit_s: int | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program of the environment in the folder `cwd`.

    Raises
    ------
    UserError
        The program is not beside the running Python.
    Endless
        It took more than `limit_s` seconds of a processor: how busy the machine is does not matter.
    """
    program = Path(sys.executable).parent / name
    if not program.exists():
        raise UserError(f"{name}: want it beside {sys.executable}; `make env` installs it")
    with subprocess.Popen(
        [program, *options],
        cwd=cwd,
        # With mounts of the user's the folder itself might be out of sight.
        env={k: v for k, v in os.environ.items() if k != "YOWASP_MOUNT"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        if limit_s is not None:
            resource.prlimit(process.pid, resource.RLIMIT_CPU, (limit_s, limit_s + 10))
        printed, errors = process.communicate()
    if process.returncode == -signals.SIGXCPU:
        raise Endless(name)
    return subprocess.CompletedProcess([name, *options], process.returncode, printed, errors)


def nextpnr(
    program: str, *options: str, cwd: Path, limit_s: int | None = None, log: str = "nextpnr.log"
) -> str:
    """Run nextpnr in the folder `cwd` and return its log.

    Raises
    ------
    NoPlace
        The device is too small or too full, or no route is found within the limit.
    CheckFailed
        It failed otherwise.
    UserError
        The program is not beside the running Python.
    """
    asked = ("--timing-allow-fail", "-q", "-l", log, *options)
    try:
        done = tool(program, *asked, cwd=cwd, limit_s=limit_s)
    except Endless as wrong:
        raise NoPlace(f"not routed within {limit_s} s") from wrong
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
        message = errors[0].removeprefix("ERROR: ") if errors else f"exit {done.returncode}"
        if re.search(r"\b(place|placement|BELs|expand region|route)\b", message):
            raise NoPlace(message)
        raise CheckFailed(f"{program}: {message}")
    return (cwd / log).read_text()


def utilisation(log: str) -> dict[str, dict[str, int]]:
    """Return what a log of nextpnr says of each resource: how many are used and available."""
    return {
        name: {"used": int(used), "available": int(available)}
        for name, used, available in re.findall(r"^Info: \t *(\w+): +(\d+)/ *(\d+) ", log, re.M)
        if int(used) and name not in OFF_CHIP
    }


def clock(report: Mapping[str, Any], unit: str) -> dict[str, Any]:
    """Return the clock rate in nextpnr's report, and its longest path.

    Parameters
    ----------
    report : mapping
        What nextpnr writes with ``--report``, of a design with one clock.
    unit : str
        The instance whose name is left out of the signals'.

    Returns
    -------
    dict
        `mhz`; `path`, the signals that the cells on the way are called after (the instances of
        those without a name), from the register or memory where it begins to the one where it
        ends; `port`, the port of that one; `levels`, the cells between; `logic_ns` and
        `routing_ns`.
    """
    (rate,) = report["fmax"].values()
    (path,) = (
        p["path"]
        for p in report["critical_paths"]
        if p["from"] == p["to"] and p["from"].startswith("posedge")
    )
    routing = sum(hop["delay"] for hop in path if hop["type"] == "routing")
    # A cell that nextpnr added has no signal's name.
    signals = filter(None, (place(hop["to"]["cell"], unit) for hop in path))
    return {
        "mhz": round(rate["achieved"], 2),
        "path": [name for name, _ in itertools.groupby(signals)],
        "port": path[-1]["to"]["port"],
        "levels": sum(hop["type"] == "logic" for hop in path),
        "logic_ns": round(sum(hop["delay"] for hop in path) - routing, 2),
        "routing_ns": round(routing, 2),
    }


# Yosys calls a cell after the nearest signal that has a name: `count_TRELLIS_FF_Q_1`,
# `total_LUT4_Z_A_LUT4_Z`, and the cells of a memory `memory.0.27`, `memory.0.27_DO_1_LUT4_Z`.
CELL = re.compile(r"(_(LUT[1-4]|CCU2C|TRELLIS|DP16KD|MULT18X18D|SB|DFF[A-Z]*|ALU|MUX2)_|\.\d|\$).*")


def signal(name: str, unit: str = "") -> str:
    """Return the signal that a cell or net is called after."""
    return CELL.sub("", name.removeprefix(f"{unit}."))


# In the emitted Verilog `_100_` is a net that the design has no name for; of a cell that is called
# after nothing at all `signal` leaves its instance and a dot.
NAMELESS = re.compile(r"(^|\.)(_\d+_)?$")


def place(name: str, unit: str) -> str:
    """Return the signal that a cell is called after, or the instance that it is in."""
    return NAMELESS.sub("", signal(name, unit))
