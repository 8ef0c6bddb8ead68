"""What a bitstream takes and does, as a table on a terminal and as a page."""

import json
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch
from rich.console import Console
from rich.table import Table

from boards.build import Bitstream
from boards.nextpnr import signal
from boards.pins import DESIGN
from gen import report
from gen.emit import write

PIPE_WIDTH = 120
"""Columns where the output is not a terminal."""

BEL = re.compile(r"X(\d+)/?Y(\d+)/")

TILE = 8
"""Cells of a tile that holds much."""

PARTS = 5
"""Parts of a design that have a colour of their own in the floorplan; the others share one."""

Facts = Mapping[str, Any]


def rows(facts: Facts) -> list[tuple[str, str]]:
    """Return what is worth knowing of a bitstream, in words."""
    clock, timing, path = facts["clock"], facts["timing"], facts["path"]
    serial = facts["serial"]
    # Clocks that depend on the spikes are those of the busiest input.
    bound, least = ("at most ", "at least ") if timing["at_most"] else ("", "")
    ranks = [f"{clock[name]:g}" for name in ("min", "median", "max")]
    return [
        *(
            (name, f"{part['used']:,} of {part['available']:,}")
            for name, part in facts["resources"].items()
        ),
        ("clock", f"{clock['mhz']:g} MHz, {clock['source']}"),
        (
            "reached",
            f"{' / '.join(ranks)} MHz: min / median / max of {len(clock['seeds'])} seeds",
        ),
        ("serial port", f"{serial['baud']:,} baud, {serial['bridge']}"),
        ("latency", f"{timing['latency_clocks']:,} clocks, {timing['latency_us']:g} µs"),
        (
            "inference",
            f"{bound}{timing['inference_clocks']:,} clocks, {timing['inference_us']:g} µs",
        ),
        (
            "throughput",
            f"{least}{timing['inferences_per_second']:,} inferences a second, one every "
            f"{timing['period_clocks']:,} clocks",
        ),
        (
            "critical path",
            f"{' → '.join(path['path'])} ({path['levels']} cells; {path['logic_ns']:g} ns in them, "
            f"{path['routing_ns']:g} ns between)",
        ),
    ]


def show(bitstream: Bitstream) -> None:
    """Print the table."""
    facts = bitstream.facts
    terminal = Console().is_terminal
    table = Table(box=None, show_header=False)
    for name, value in rows(facts):
        table.add_row(f"[dim]{name}[/dim]", value)
    console = Console(width=None if terminal else PIPE_WIDTH, highlight=False)
    console.print(f"{facts['board']} ({facts['device']}): {facts['top']}")
    console.print(table)
    console.print(f"{bitstream.path}: {facts['state']}", soft_wrap=True)


def save(bitstream: Bitstream) -> Path:
    """Write the page beside the bitstream and return where it is."""
    page = report.html(describe(bitstream))
    (path,) = write({"report.html": page}, bitstream.path.parent)
    return path


def describe(bitstream: Bitstream) -> report.Report:
    """Return the page of a bitstream."""
    facts = bitstream.facts
    clock, timing = facts["clock"], facts["timing"]
    kept = clock["reached_mhz"] >= clock["mhz"]
    return report.Report(
        title=f"{facts['top']} on {facts['board']}",
        lead=f"Cells, clock rate and floorplan of the bitstream for {facts['device']}: "
        f"{facts['state']}.",
        passed=kept,
        checks=[(f"{clock['reached_mhz']:g} MHz reached, {clock['mhz']:g} MHz asked", kept)],
        cards=[
            report.Card("Clock", f"{clock['mhz']:g} MHz", clock["source"]),
            report.Card("One inference", f"{timing['inference_us']:g} µs",
                        f"{timing['inference_clocks']:,} clocks{' at most' * timing['at_most']}"),
            report.Card("Throughput", f"{timing['inferences_per_second']:,} / s",
                        "inferences, one behind the other, without the serial port"),
        ],
        sections=[
            report.Section(
                "What it takes", "Cells after packing, of what the device has.",
                [
                    report.Bars(
                        [
                            report.Bar(name, part["used"] / part["available"],
                                       f"{part['used']:,} of {part['available']:,}")
                            for name, part in facts["resources"].items()
                        ]
                    )
                ],
            ),
            report.Section(
                "Where it lies", "Every cell of the placed design, by the part it belongs to.",
                [report.Figure(floorplan(bitstream), "", 700)],
            ),
            report.Section(
                "All figures", "", [report.Table(["what", "value"], [list(r) for r in rows(facts)])]
            ),
        ],
    )  # fmt: skip


def places(bitstream: Bitstream) -> dict[str, list[tuple[int, int]]]:
    """Return where the cells of a design lie, by the part that they belong to.

    A part is what the names of its cells begin with; beyond the largest few they are one.
    """
    modules = json.loads(bitstream.placed.read_text())["modules"]
    parts: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for module in modules.values():
        for name, cell in module["cells"].items():
            if found := BEL.match(cell["attributes"].get("NEXTPNR_BEL", "")):
                owner = signal(name, DESIGN).rsplit(".", 1)
                part = owner[0] if len(owner) > 1 else DESIGN
                parts[part].append((int(found[1]), int(found[2])))
    ranked = sorted(parts, key=lambda part: (-len(parts[part]), part))
    shown = {part: parts[part] for part in ranked[:PARTS]}
    if others := [place for part in ranked[PARTS:] for place in parts[part]]:
        shown["others"] = others
    return shown


@report.styled
def floorplan(bitstream: Bitstream) -> str:
    """Draw the tiles: each in the colour of the part with most cells there, and the more of it."""
    found = places(bitstream)
    everywhere = [place for part in found.values() for place in part]
    columns, rows = (1 + max(place[axis] for place in everywhere) for axis in (0, 1))
    counts = np.zeros((len(found), rows, columns))
    for cells, part in zip(counts, found.values(), strict=True):
        np.add.at(cells, tuple(np.array(part).T[::-1]), 1)
    colours = np.array([to_rgb(colour) for colour in report.KINDS[: len(found)]])
    total = counts.sum(axis=0)
    opacity = np.where(total, 0.25 + 0.75 * np.minimum(total / TILE, 1), 0)
    image = np.dstack([colours[counts.argmax(axis=0)], opacity])
    canvas, (axes,) = report.panels(7, 6, 1, 1)
    axes.imshow(image, origin="lower", interpolation="nearest")
    axes.set_xlabel("column")
    axes.set_ylabel("row")
    handles = [Patch(color=c, label=name) for c, name in zip(colours, found, strict=True)]
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=8)
    return report.svg_of(canvas, "floorplan")
