"""Command: write the table of the README from the measured results, or check that it is theirs."""

import itertools
import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from bench.devices import DEVICES
from bench.measure import (
    RESULTS,
    Result,
    blank,
    cases,
    differences,
    emission,
    load,
    result_path,
)
from gen.emit import write
from gen.errors import CheckFailed, Command, UserError
from hw.config import Config
from hw.tops import TOPS

README = Path(__file__).parent.parent / "README.md"

BEGIN, END = "<!-- table:begin -->", "<!-- table:end -->"

Results = Mapping[tuple[str, str, str], Result]
"""By top, preset and device."""

HEADER = (
    "top",
    "preset",
    "ports",
    "clocks per inference",
    "per time step",
    "UP5K: LUT4 / LC / FF / BRAM",
    "MHz",
    "ECP5: LUT4-eq / FF / BRAM / DSP",
    "MHz",
    "time per inference",
)


@click.command(cls=Command, help=__doc__)
@click.option("--check", is_flag=True, help="Write nothing; fail if README or data are stale.")
@click.option("--json", "as_json", is_flag=True, help="Print the result for programs.")
def main(check: bool, as_json: bool) -> None:
    """Run the command."""
    before = read(README)
    after = replace(before, render(collect()))
    if check:
        problems = readme_problems(before, after) + stale()
        if problems:
            raise CheckFailed("; ".join(problems))
    elif after != before:
        write({README.name: after}, README.parent)
    if as_json:
        click.echo(json.dumps({"readme": README.name, "changed": after != before}))


def read(path: Path) -> str:
    """Return the text of the README, or raise `UserError`."""
    try:
        return path.read_text()
    except OSError as wrong:
        raise UserError(f"can't read {path.name}: {wrong.strerror}") from wrong


def collect() -> Results:
    """Return the results of all presets, or raise `CheckFailed` for the first that is missing."""
    results = {}
    for top, preset in cases():
        for device in DEVICES:
            found = load(top, preset, device)
            if found is None:
                raise CheckFailed(f"{top} {preset} is not measured on {device}: run `make bench`")
            results[top, preset, device] = found
    return results


def stale() -> list[str]:
    """Return what is wrong with the stored results: not of today's hardware, tools or presets."""
    known = {
        result_path(top, preset, device): blank(unit, preset, device)
        for top, preset in cases()
        for unit in [emission(top, preset)]
        for device in DEVICES
    }
    problems = []
    for path in sorted(RESULTS.glob("*.json")):
        if path not in known:
            problems.append(f"{path.name}: there is no such preset")
        elif changed := differences(json.loads(path.read_text()), known[path]):
            problems.append(f"{path.name}: {', '.join(changed)} changed since it was measured")
    return problems


def readme_problems(before: str, after: str) -> list[str]:
    """Return the first line in which the README is not what the data say."""
    lines = itertools.zip_longest(before.splitlines(), after.splitlines(), fillvalue="nothing")
    return [f"README.md says {a!r} where the data say {b!r}" for a, b in lines if a != b][:1]


def replace(text: str, table: str) -> str:
    """Return `text` with `table` between the markers.

    Raises
    ------
    UserError
        The markers are not there once each, in this order.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end) or BEGIN in rest or END in after:
        raise UserError(f"README.md: want {BEGIN} and {END}, once each and in this order")
    return f"{before}{BEGIN}\n{table}{END}{after}"


def render(results: Results) -> str:
    """Return the table and its caption in Markdown."""
    rows = [HEADER, tuple("---" for _ in HEADER)]
    for top, preset in dict.fromkeys((top, preset) for top, preset, _ in results):
        rows.append(row(top, preset, *(results[top, preset, device] for device in DEVICES)))
    lines = [f"| {' | '.join(cells)} |" for cells in rows]
    return "\n".join([*lines, "", caption(list(results.values())), ""])


def row(top: str, preset: str, up5k: Result, ecp5: Result) -> tuple[str, ...]:
    """Return the cells of a preset's row."""
    config = TOPS[top].config.preset(preset)
    small, large = up5k["cells"], ecp5["cells"]
    cells = up5k["packed"]["ICESTORM_LC"]["used"]
    clocks = rates(ecp5)
    micros = f"{config.cycles / statistics.median(clocks):.3g} µs" if clocks else "–"
    return (
        f"`{top}`",
        f"`{preset}`",
        ports(config),
        str(config.cycles),
        str(config.interval),
        f"{small['lut4']} / {cells} / {small['ff']} / {small['bram']}",
        clock_text(up5k),
        f"{large['lut4_equivalents']} / {large['ff']} / {large['bram']} / {large['dsp']}",
        clock_text(ecp5),
        micros,
    )


def ports(config: Config) -> str:
    """Return the streams of a top with the elements of a beat, or elements x bits."""
    sides = []
    for direction in ("in", "out"):
        streams = [s for s in config.streams if s.direction == direction]
        shapes: dict[str, list[str]] = {}
        for s in streams:
            size = str(s.lanes) if s.width == 1 else f"{s.lanes}×{s.width}"
            shapes.setdefault(size, []).append(s.name)
        sides.append("; ".join(f"{', '.join(names)} {size}" for size, names in shapes.items()))
    return " → ".join(sides)


def rates(result: Result) -> list[float]:
    """Return the clock rates of the seeds that were placed, in MHz."""
    return [seed["mhz"] for seed in result["seeds"].values() if "mhz" in seed]


def clock_text(result: Result) -> str:
    """Return least, median and greatest clock rate, or why there is none."""
    if not result["fits"]:
        over = [
            f"{part['used']} {name} of {part['available']}"
            for name, part in sorted(result["packed"].items())
            if part["used"] > part["available"]
        ]
        return f"does not fit: {', '.join(over)}"
    found = rates(result)
    if not found:
        return "no placement found"
    text = f"{min(found):.1f} / {statistics.median(found):.1f} / {max(found):.1f}"
    count = len(result["seeds"])
    return text if len(found) == count else f"{text} ({len(found)} of {count} seeds placed)"


def caption(results: list[Result]) -> str:
    """Return what the figures are and how they were made, for all results alike.

    Raises
    ------
    CheckFailed
        The results were not made alike.
    """
    seeds = same("seeds", [sorted(map(int, r["seeds"])) for r in results if r["fits"]])
    parts = []
    for device, target in DEVICES.items():
        own = [r for r in results if r["device"] == device]
        facts: dict[str, Any] = {
            key: same(key, [r[key] for r in own])
            for key in ("part", "synthesis", "nextpnr", "tools")
        }
        tools = ", ".join(f"{name} {version}" for name, version in sorted(facts["tools"].items()))
        parts.append(
            f"{facts['part']}: `{facts['synthesis']}`, `{target.nextpnr} {facts['nextpnr']}` "
            f"({tools})."
        )
    return " ".join(
        [
            "Cells are those of the whole emitted top with its AXI4-Stream ports; LC: logic cells "
            "after packing; LUT4-eq = LUT4 + 2 CCU2C + 4 DPR16X4.",
            "MHz: least, median and greatest after place and route with the seeds "
            f"{', '.join(map(str, seeds))}, ports behind registers.",
            "Time per inference: at the median clock rate on the ECP5, no stalls.",
            *parts,
        ]
    )


def same(what: str, values: list[Any]) -> Any:
    """Return the one value that all have, or raise `CheckFailed`."""
    if any(value != values[0] for value in values):
        raise CheckFailed(f"the results are not all of the same {what}: run `make bench`")
    return values[0]


if __name__ == "__main__":
    main(prog_name="python -m bench.table")
