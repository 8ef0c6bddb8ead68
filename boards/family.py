"""What an FPGA family's open tools have in common."""

import abc
import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from boards.nextpnr import tool
from gen.errors import CheckFailed


@dataclasses.dataclass(frozen=True)
class Pll:
    """Settings of a PLL, as the family's own calculator has them.

    Attributes
    ----------
    mhz : float
        Rate at the output.
    verilog : str
        Module ``pll``: ``clock_in``, ``clock_out``, ``locked``.
    """

    mhz: float
    verilog: str


@dataclasses.dataclass(frozen=True)
class Family(abc.ABC):
    """How a design around pins becomes a bitstream; a subclass for each set of tools.

    Attributes
    ----------
    nextpnr : str
        The program that places and routes, and its package.
    packers : tuple of str
        Packages of the other tools that decide over a bitstream, beside Yosys.
    names : dict of str to str
        What nextpnr's resources are called.
    suffix : str
        Of a bitstream.
    limit_s : int
        Seconds after which a placement is given up.
    routers : tuple of tuple of str
        nextpnr's options of the router, and of another one for what it does not end.
    """

    nextpnr: ClassVar[str]
    packers: ClassVar[tuple[str, ...]] = ()
    names: ClassVar[dict[str, str]]
    suffix: ClassVar[str]
    limit_s: ClassVar[int] = 1800
    routers: ClassVar[tuple[tuple[str, ...], ...]] = ((),)

    @abc.abstractmethod
    def synthesis(self, platform: Any, large_memory: bool = False) -> str:
        """Return the command of Yosys, which makes use of a device's large RAM if asked to."""

    @abc.abstractmethod
    def placement(self, platform: Any) -> tuple[str, ...]:
        """Return nextpnr's options: the device, ``design.json``, the constraints."""

    @abc.abstractmethod
    def constraints(self, plan: Mapping[str, Any]) -> dict[str, str]:
        """Return the files of pins that `placement` names, from those of an Amaranth plan."""

    @abc.abstractmethod
    def pack(self, platform: Any, seed: int, target: str, folder: Path) -> None:
        """Make the bitstream `target` of what was placed with `seed`."""

    def after_synthesis(self, netlist: Path) -> None:  # noqa: B027
        """Improve the netlist in a file."""

    def pll_has_pin(self, platform: Any) -> bool:
        """Return whether the board's clock comes in at a PLL's own pin, and is read by it alone."""
        return False

    def routed(self, seed: int) -> tuple[str, ...]:
        """Return nextpnr's options for what `pack` reads."""
        return ("--write", f"placed_{seed}.json")

    @abc.abstractmethod
    def calculate(self, platform: Any, source: float, target: float, folder: Path) -> Pll | None:
        """Return the settings of a PLL nearest to a rate in MHz, or None where there are none."""

    def pll(self, platform: Any, source: float, limit: float, folder: Path) -> Pll | None:
        """Return the settings of a PLL for the highest rate that does not exceed a limit.

        The calculators give the rate nearest to what is asked. Where that is too much, what is
        asked goes down by twice the excess each time: the first rate that is not too much is the
        highest such one, as what is asked then lies within its neighbours.

        Parameters
        ----------
        platform : Platform
        source, limit : float
            Rates in MHz.
        folder : Path
            For the calculator's files.
        """
        found = self.calculate(platform, source, limit, folder)
        step = 0.0
        while found and found.mhz > limit:
            step = 2 * step or found.mhz - limit
            if step > limit:
                return None
            found = self.calculate(platform, source, found.mhz - step * 1.001, folder)
        return found


def called(name: str, *options: str, folder: Path) -> str:
    """Run a tool that has to succeed; return what it prints.

    Raises
    ------
    CheckFailed
        It failed.
    """
    done = tool(name, *options, cwd=folder)
    said = f"{done.stderr}\n{done.stdout}".strip()
    if done.returncode:
        lines = said.splitlines() or ["no output"]
        raise CheckFailed(f"{name}: {lines[-1]}")
    return said


def calculated(
    name: str, *options: str, folder: Path, rate: str = r"Achieved output frequency: +([\d.]+)"
) -> Pll | None:
    """Return what a calculator of PLL settings writes into ``pll.v``, or None if it refuses."""
    file = folder / "pll.v"
    file.unlink(missing_ok=True)
    done = tool(name, *options, "-f", file.name, cwd=folder)
    if done.returncode or not file.exists():
        return None
    verilog = file.read_text()
    found = re.search(rate, verilog)
    return Pll(float(found[1]), verilog) if found else None
