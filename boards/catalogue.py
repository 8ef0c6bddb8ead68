"""The boards.

Pins come from amaranth-boards. Where a serial port stands here with pins of our own, the table says
whose document they are from.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from amaranth.build import Attrs
from amaranth_boards.colorlight_5a75b_r7_0 import Colorlight_5A75B_R70Platform
from amaranth_boards.ecpix5 import ECPIX585Platform
from amaranth_boards.ice40_hx8k_b_evn import ICE40HX8KBEVNPlatform
from amaranth_boards.icebreaker import ICEBreakerPlatform
from amaranth_boards.orangecrab_r0_2 import OrangeCrabR0_2_25FPlatform
from amaranth_boards.resources import UARTResource
from amaranth_boards.tang_mega_138k_pro_dock import TangMega138kProDockPlatform
from amaranth_boards.tang_nano_9k import TangNano9kPlatform
from amaranth_boards.tang_primer_20k import TangPrimer20kDockPlatform
from amaranth_boards.ulx3s import ULX3S_25F_Platform, ULX3S_85F_Platform

from boards.ecp5 import ECP5
from boards.family import Family
from boards.gowin import Gowin
from boards.ice40 import ICE40

__all__ = ["BOARDS", "Board"]

UNTRIED = "builds; not yet run on a board"

BAUDS = (3_000_000, 2_000_000, 1_500_000, 1_000_000, 921_600, 500_000, 460_800, 230_400, 115_200)
"""Rates that the bridges have in common, up to the highest of each."""

WORST_BAUD = 0.015
"""How far a baud rate may be off: a receiver has lost a frame of ten bits at 5 %."""

SHORTEST_BIT = 4
"""Clocks of a bit, at least: what a receiver needs to find its middle."""

SMALL = dict.fromkeys(
    ("attention", "encoder", "heads", "lif", "linear", "moe", "sdsa", "transformer"), "icebreaker"
)
MEDIUM = {
    "attention": "sample", "encoder": "default", "heads": "cifar", "lif": "snntorch",
    "linear": "digits", "moe": "default", "sdsa": "cifar", "transformer": "digits",
}  # fmt: skip
LARGE = {
    "attention": "sample", "encoder": "experts", "heads": "cifar", "lif": "cifar",
    "linear": "digits", "moe": "semm", "sdsa": "product", "transformer": "digits",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Board:
    """A board, and how a bitstream for it is made.

    Attributes
    ----------
    name, title : str
        As the command and as people call it.
    family : Family
    platform : type
        Of Amaranth: device, clock, pins.
    resources : mapping of str to int
        What the device has, by nextpnr's names.
    lamps : tuple
        Resource, number and, of a lamp of several colours, the part; what comes first is
        what matters most.
    bridge : str
        What is at the other end of the serial port.
    baud : int
        The highest rate it does.
    loader : tuple of str
        Options of openFPGALoader.
    presets : mapping of str to str
        By top, what is built if no preset is named.
    uart : tuple
        Resource and number of the serial port.
    adapter : str
        Pins for an adapter of 3.3 V, where the board has no bridge of its own.
    programmed : str
        How a bitstream gets onto it.
    extras : tuple
        Resources beyond the platform's.
    """

    name: str
    title: str
    family: Family
    platform: type[Any]
    resources: Mapping[str, int]
    lamps: tuple[tuple[Any, ...], ...]
    bridge: str
    baud: int
    loader: tuple[str, ...]
    presets: Mapping[str, str]
    uart: tuple[str, int] = ("uart", 0)
    adapter: str = ""
    programmed: str = "over its own USB port"
    extras: tuple[Any, ...] = ()

    def pins(self) -> Any:
        """Return a new platform that looks for no tools: the family's flow runs them."""
        bare = type(
            self.platform.__name__,
            (self.platform,),
            {
                "required_tools": [],
                "command_templates": [],
                # Amaranth's pattern of Gowin's part numbers ends before the GW5A series.
                "parse_part": lambda _: None,
            },
        )
        platform = bare()
        platform.add_resources(self.extras)
        return platform

    @property
    def mhz(self) -> float:
        """Rate of the board's clock."""
        return float(self.pins().default_clk_frequency / 1e6)

    @property
    def device(self) -> str:
        """Device, package and speed grade."""
        p = self.platform
        if isinstance(self.family, Gowin):
            return str(p.part)
        if isinstance(self.family, ICE40):
            return f"{p.device}-{p.package}"
        return f"{p.device}-{p.speed} {p.package}"

    @property
    def serial(self) -> str:
        """The serial port, in words."""
        rate = f"{self.baud / 1e6:g} Mbaud"
        if self.adapter:
            return f"none: 3.3 V adapter at {self.adapter}, {rate}"
        return f"{self.bridge}, {rate}"

    def divisor(self, mhz: float) -> tuple[int, int]:
        """Return the highest baud rate that is near enough at a clock rate, and its divisor."""
        for baud in BAUDS:
            clocks = max(round(mhz * 1e6 / baud), SHORTEST_BIT)
            if baud <= self.baud and abs(mhz * 1e6 / (clocks * baud) - 1) <= WORST_BAUD:
                return baud, clocks
        raise ValueError(f"no baud rate at {mhz} MHz")

    def over(self, used: Mapping[str, int]) -> list[str]:
        """Return what the device has too little of, in words."""
        names = self.family.names
        return [
            f"{names.get(k, k)} {used[k]} of {n}"
            for k, n in self.resources.items()
            if used.get(k, 0) > n
        ]


ECP5_25 = {"TRELLIS_COMB": 24288, "TRELLIS_FF": 24288, "DP16KD": 56, "MULT18X18D": 28}
ECP5_85 = {"TRELLIS_COMB": 83640, "TRELLIS_FF": 83640, "DP16KD": 208, "MULT18X18D": 156}
GW1N_9 = {
    "LUT4": 8640, "ALU": 6480, "DFF": 6480, "RAM16SDP4": 270, "BSRAM": 26, "MULT18X18": 20,
}  # fmt: skip
GW2A_18 = {
    "LUT4": 20736, "ALU": 15552, "DFF": 15552, "RAM16SDP4": 648, "BSRAM": 46, "MULT18X18": 48,
}  # fmt: skip
GW5AST_138 = {
    "LUT4": 138240, "ALU": 103680, "DFF": 138240, "RAM16SDP4": 17280, "BSRAM": 340,
    "MULT12X12": 596,
}  # fmt: skip

ULX3S_LAMPS = (("led", 0), ("led", 1), ("led", 2), ("led", 3))

ALL = (
    Board(
        name="icebreaker",
        title="iCEBreaker",
        family=ICE40(),
        platform=ICEBreakerPlatform,
        resources={"ICESTORM_LC": 5280, "ICESTORM_RAM": 30, "ICESTORM_SPRAM": 4, "ICESTORM_DSP": 8},
        lamps=(("led_g", 0), ("led_r", 0)),
        bridge="FT2232H",
        baud=3_000_000,
        loader=("-b", "ice40_generic"),
        presets=SMALL,
    ),
    Board(
        name="hx8k",
        title="iCE40-HX8K breakout",
        family=ICE40(),
        platform=ICE40HX8KBEVNPlatform,
        resources={"ICESTORM_LC": 7680, "ICESTORM_RAM": 32},
        lamps=(("led", 0), ("led", 1), ("led", 2), ("led", 3)),
        bridge="FT2232H",
        baud=3_000_000,
        loader=("-b", "ice40_generic"),
        presets={**SMALL, "lif": "cifar"},
    ),
    Board(
        name="ulx3s_25f",
        title="ULX3S 25F",
        family=ECP5(),
        platform=ULX3S_25F_Platform,
        resources=ECP5_25,
        lamps=ULX3S_LAMPS,
        bridge="FT231X",
        baud=3_000_000,
        loader=("-b", "ulx3s"),
        presets=MEDIUM,
    ),
    Board(
        name="ulx3s_85f",
        title="ULX3S 85F",
        family=ECP5(),
        platform=ULX3S_85F_Platform,
        resources=ECP5_85,
        lamps=ULX3S_LAMPS,
        bridge="FT231X",
        baud=3_000_000,
        loader=("-b", "ulx3s"),
        presets=LARGE,
    ),
    Board(
        name="orangecrab",
        title="OrangeCrab r0.2 25F",
        family=ECP5(),
        platform=OrangeCrabR0_2_25FPlatform,
        resources=ECP5_25,
        lamps=(("rgb_led", 0, "g"), ("rgb_led", 0, "r"), ("rgb_led", 0, "b")),
        bridge="adapter",
        baud=3_000_000,
        loader=("-b", "orangeCrab"),
        presets=MEDIUM,
        # A Feather's header has its serial port at 0 (RX) and 1 (TX); the pins are those of
        # amaranth-boards's connector.
        uart=("adapter", 0),
        adapter="0 (RX), 1 (TX)",
        extras=(
            UARTResource(
                "adapter", 0, rx="0", tx="1", conn=("io", 0), attrs=Attrs(IO_TYPE="LVCMOS33")
            ),
        ),
    ),
    Board(
        name="ecpix5",
        title="ECPIX-5 85F",
        family=ECP5(),
        platform=ECPIX585Platform,
        resources=ECP5_85,
        lamps=(("rgb_led", 0, "g"), ("rgb_led", 1, "r"), ("rgb_led", 2, "b")),
        bridge="FT2232H",
        baud=3_000_000,
        loader=("-b", "ecpix5"),
        presets=LARGE,
    ),
    Board(
        name="colorlight",
        title="Colorlight 5A-75B r7.0",
        family=ECP5(),
        platform=Colorlight_5A75B_R70Platform,
        resources=ECP5_25,
        lamps=(("led", 0),),  # at the pin of TX: a lamp only where there is no serial port
        bridge="adapter",
        baud=3_000_000,
        loader=("-b", "colorlight"),
        presets=MEDIUM,
        adapter="J19 KEY+ (RX), DATA_LED- (TX)",
        programmed="over a JTAG adapter: --program --cable NAME",
    ),
    Board(
        name="tangnano9k",
        title="Tang Nano 9K",
        family=Gowin("GW1N-9C", "gw1n"),
        platform=TangNano9kPlatform,
        resources=GW1N_9,
        lamps=(("led", 0), ("led", 1), ("led", 2), ("led", 3)),
        bridge="BL702",
        baud=2_000_000,
        loader=("-b", "tangnano9k"),
        presets={**SMALL, "attention": "paper_small", "transformer": "default"},
    ),
    Board(
        name="tangprimer20k",
        title="Tang Primer 20K, Dock",
        family=Gowin("GW2A-18C", "gw2a"),
        platform=TangPrimer20kDockPlatform,
        resources=GW2A_18,
        # Lamps 0 and 1 are at the pins DONE and READY.
        lamps=(("led", 2), ("led", 3), ("led", 4), ("led", 5)),
        bridge="BL616",
        baud=2_000_000,
        loader=("-b", "tangprimer20k"),
        presets=MEDIUM | {"transformer": "primer"},
    ),
    Board(
        name="tangmega138k",
        title="Tang Mega 138K Pro",
        family=Gowin("GW5AST-138C", "gw5a", has_pll=False, as_gpio=("--cpu_as_gpio",)),
        platform=TangMega138kProDockPlatform,
        resources=GW5AST_138,
        lamps=(("led", 0), ("led", 1), ("led", 2), ("led", 3)),
        bridge="BL616",
        baud=2_000_000,
        loader=("-b", "tangmega138k"),
        presets=LARGE,
    ),
)

BOARDS = {board.name: board for board in ALL}
