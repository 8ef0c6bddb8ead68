"""A report as one HTML file: figures, diagrams and tables, nothing loaded from anywhere.

Same data, same bytes: the figures carry no dates, and their identifiers follow from their names.
"""

import dataclasses
import functools
import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec

import matplotlib
import numpy as np
from matplotlib import patheffects as effects
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import Rectangle
from matplotlib.path import Path as Outline

from gen.render import render

P = ParamSpec("P")

INK, MUTED, RULE = "#1f2430", "#687082", "#d9dde5"
ACCENT, SECOND = "#2b5fd9", "#d9622b"

KINDS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
"""Colours of what differs in kind, told apart by colour-blind people as well (Okabe and Ito)."""

HEAT = LinearSegmentedColormap.from_list("heat", ["#f6f8fc", "#a9c1f5", "#2b5fd9", "#101f4d"])
DIFFERENCE = LinearSegmentedColormap.from_list("difference", [SECOND, "#f8f8f8", ACCENT])
PAPER = LinearSegmentedColormap.from_list("paper", ["#ffffff", INK])

STYLE: dict[Any, Any] = {
    "font.size": 9,
    "font.family": "DejaVu Sans",  # it comes with matplotlib: the same on any machine
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.titlesize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.frameon": False,
    "svg.fonttype": "path",
}


@dataclasses.dataclass(frozen=True)
class Card:
    """A figure that is read at a glance: its name, its value, and a note on it."""

    label: str
    value: str
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Figure:
    """A picture: SVG, what it says, and its widest in pixels."""

    svg: str
    caption: str
    width: int = 1000


@dataclasses.dataclass(frozen=True)
class Table:
    """A table; numbers are aligned to the right."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""


@dataclasses.dataclass(frozen=True)
class Bar:
    """A line of a bar chart: how much of the whole it takes (0 to 1), and the value in words."""

    label: str
    share: float
    value: str


@dataclasses.dataclass(frozen=True)
class Bars:
    """Horizontal bars, each on a scale of its own."""

    bars: Sequence[Bar]
    caption: str = ""


@dataclasses.dataclass(frozen=True)
class Section:
    """A heading, a paragraph, and what is shown under it."""

    title: str
    text: str
    items: Sequence[Figure | Table | Bars]


@dataclasses.dataclass(frozen=True)
class Report:
    """All that a report says.

    Attributes
    ----------
    title, lead : str
        The name, and one sentence on what this is.
    passed : bool
        Whether every check held.
    checks : sequence of (str, bool)
        What was checked, and whether it held.
    cards : sequence of Card
    sections : sequence of Section
    """

    title: str
    lead: str
    passed: bool
    checks: Sequence[tuple[str, bool]]
    cards: Sequence[Card]
    sections: Sequence[Section]


def html(report: Report) -> str:
    """Return the report as one HTML file."""
    return render("report.html.j2", report=report, kind=lambda item: type(item).__name__)


@dataclasses.dataclass(frozen=True)
class Block:
    """A box of a diagram.

    Attributes
    ----------
    title : str
    lines : sequence of str
        Small print.
    hardware : bool
        It is in the emitted Verilog, and drawn so.
    """

    title: str
    lines: Sequence[str] = ()
    hardware: bool = False


LETTER, LINE = 6.4, 17
"""Width of a letter and height of a line of small print, in pixels."""


def diagram(columns: Sequence[Sequence[Block]], links: Sequence[Sequence[str]]) -> str:
    """Return a block diagram that is read from left to right, as SVG.

    Parameters
    ----------
    columns : sequence of sequence of Block
        Blocks in columns.
    links : sequence of sequence of str
        The labels of the arrows from each column to the next one: one for each block of the
        longer of both. Columns of one length are joined block by block, others all to all.
    """
    heights = [[26.0 + LINE * len(block.lines) for block in column] for column in columns]
    gap = 16
    tall = max(sum(h) + gap * (len(h) - 1) for h in heights)
    boxes, arrows = [], []
    x = 1.0
    places: list[list[tuple[float, float]]] = []
    for i, (column, high) in enumerate(zip(columns, heights, strict=True)):
        wide = 26 + max(
            max(len(b.title) * 8.2, *(len(line) * LETTER for line in b.lines), 20) for b in column
        )
        y = 1 + (tall - sum(high) - gap * (len(high) - 1)) / 2
        centres: list[tuple[float, float]] = []
        for block, h in zip(column, high, strict=True):
            boxes.append({"x": x, "y": y, "width": wide, "height": h, "block": block})
            centres.append((y + h / 2, h))
            y += h + gap
        places.append(centres)
        x += wide
        if i < len(links):
            reach = 34 + max(len(label) for label in links[i]) * LETTER
            arrows.append((i, x, reach))
            x += reach
    lines = []
    for i, start, reach in arrows:
        here, there = places[i], places[i + 1]
        count = max(len(here), len(there))
        for j, label in enumerate(links[i]):
            spread = [_along(side, j, count) for side in (here, there)]
            lines.append(
                {"x1": start, "x2": start + reach, "y1": spread[0], "y2": spread[1], "label": label}
            )
    return render(
        "report_diagram.svg.j2", boxes=boxes, arrows=lines, width=x + 1, height=tall + 2, line=LINE
    )


def _along(blocks: list[tuple[float, float]], index: int, count: int) -> float:
    """Return the height at which arrow `index` of `count` meets a column of blocks."""
    if len(blocks) == count:
        return blocks[index][0]
    centre, height = blocks[0]
    return centre + height * 0.7 * ((index + 0.5) / count - 0.5)


def unit_diagram(manifest: Mapping[str, object]) -> str:
    """Return the diagram of a top between its streams, from its manifest."""
    streams = manifest["streams"]
    assert isinstance(streams, list)
    ends = {way: [s for s in streams if s["direction"] == way] for way in ("in", "out")}

    def frames(way: str) -> list[Block]:
        return [Block(s["name"], [f"{s['beats']} beats × {s['steps']} steps"]) for s in ends[way]]

    timing = manifest["timing"]
    assert isinstance(timing, dict)
    unit = Block(
        str(manifest["name"]),
        [
            f"latency {timing['latency']} clocks",
            f"interval {timing['interval']} clocks",
            f"inference {timing['cycles']} clocks",
        ],
        hardware=True,
    )
    return diagram(
        [frames("in"), [unit], frames("out")],
        [[f"{s['lanes']} × {s['width']} bit" for s in ends[way]] for way in ("in", "out")],
    )


def svg_of(canvas: Canvas, name: str) -> str:
    """Return a figure as SVG to stand inside HTML; `name` tells its identifiers from others'."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        canvas.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    # Identifiers are one space for the whole page.
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    # Colour bars of one scale are images of one identifier, to which nothing refers.
    text = re.sub(r'(<image [^>]*?) id="[^"]*"', r"\1", text)
    return re.sub(r' width="[\d.]+pt" height="[\d.]+pt"| version="1.1"', "", text).strip()


def styled(draw: Callable[P, str]) -> Callable[P, str]:
    """Let a function draw in the style of this report, whatever the user's settings are."""

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> str:
        with matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)

    return drawn


def panels(width: float, height: float, rows: int, columns: int, **ratios: Any) -> tuple[
    Canvas, list[Axes]
]:  # fmt: skip
    """Return a figure in inches and its axes, row by row."""
    canvas = Canvas(figsize=(width, height), layout="constrained")
    grid = canvas.subplots(rows, columns, squeeze=False, **ratios)
    return canvas, list(grid.ravel())


@styled
def image_figure(image: np.ndarray, patch: int, name: str) -> str:
    """Return a picture in shades of grey, with its patches and their numbers."""
    canvas, (axes,) = panels(2.6, 2.6, 1, 1)
    size = len(image)
    axes.pcolormesh(image[::-1], cmap=PAPER, edgecolors="#ffffff20", linewidth=0.2)
    for edge in range(0, size + 1, patch):
        axes.axhline(edge, color=ACCENT, linewidth=0.8)
        axes.axvline(edge, color=ACCENT, linewidth=0.8)
    across = size // patch
    for n in range(across * across):
        row, column = divmod(n, across)
        axes.text(
            column * patch + 0.12, size - row * patch - 0.12, str(n),
            color=ACCENT, fontsize=7, va="top", ha="left",
            path_effects=[effects.withStroke(linewidth=2, foreground="#ffffff")],
        )  # fmt: skip
    axes.set_aspect("equal")
    axes.set_axis_off()
    return svg_of(canvas, name)


@styled
def raster_figure(spikes: Mapping[str, np.ndarray], name: str) -> str:
    """Return spikes as they go over the streams: a column a token, a row a channel.

    Parameters
    ----------
    spikes : mapping of str to ndarray [T, N, D]
    name : str
    """
    canvas, every = panels(10.5, 1.25 * len(spikes) + 0.3, len(spikes), 1, sharex=True)
    for axes, (label, array) in zip(every, spikes.items(), strict=True):
        steps, tokens, channels = array.shape
        beat, channel = np.nonzero(array.reshape(steps * tokens, channels))
        corners = np.array([[0.06, 0.08], [0.94, 0.08], [0.94, 0.92], [0.06, 0.92], [0.06, 0.08]])
        points = np.stack([beat, channel], axis=1)[:, None] + corners
        codes = np.tile([Outline.MOVETO, *[Outline.LINETO] * 3, Outline.CLOSEPOLY], len(beat))
        color = SECOND if label == "out" else ACCENT
        if len(beat):
            outline = Outline(points.reshape(-1, 2), codes)
            axes.add_collection(PathCollection([outline], facecolors=color, linewidths=0))
        for edge in range(0, steps + 1):
            axes.axvline(edge * tokens, color=RULE, linewidth=0.8, zorder=0)
        axes.set(xlim=(0, steps * tokens), ylim=(0, channels), yticks=[0, channels])
        axes.spines[["left", "bottom"]].set_visible(False)
        axes.tick_params(length=0)
        axes.set_ylabel("channel")
        axes.set_title(f"{label}   firing rate {array.mean():.3f}", loc="left")
        axes.set_xticks(
            [(t + 0.5) * tokens for t in range(steps)], [f"t={t}" for t in range(steps)]
        )
    return svg_of(canvas, name)


@styled
def routing_figure(images: np.ndarray, got: np.ndarray, dropped: np.ndarray, name: str) -> str:
    """Return who got which token, where a token is a square patch of an image.

    Parameters
    ----------
    images : ndarray [B, rows, rows]
        In shades of grey, a column of panels each.
    got, dropped : ndarray of bool [B, T, N, E]
        Whether an expert got a token, or did not though it was chosen; a row of panels a time step.
    name : str
    """
    count, steps, tokens, _ = got.shape
    rows = images.shape[1]
    across = math.isqrt(tokens)
    patch = rows / across
    canvas, every = panels(2.6 * count, 2.7 * steps, steps, count)
    for index, axes in enumerate(every):
        t, image = divmod(index, count)
        axes.pcolormesh(images[image], cmap=PAPER, vmax=2 * images.max())
        for n in range(tokens):
            row, column = divmod(n, across)
            axes.add_patch(
                Rectangle((column * patch, row * patch), patch, patch, fill=False,
                          edgecolor=RULE, linewidth=0.8)
            )  # fmt: skip
            those = np.flatnonzero(got[image, t, n] | dropped[image, t, n])
            size = 0.64 * patch  # the image is seen around it
            wide = size / max(len(those), 1)
            for place, e in enumerate(those):
                x, y = (column + 0.18) * patch + place * wide, (row + 0.18) * patch
                color, has = KINDS[e % len(KINDS)], got[image, t, n, e]
                axes.add_patch(
                    Rectangle((x, y), wide, size, facecolor=color if has else "#ffffff",
                              edgecolor="#ffffff" if has else color, linewidth=0.8,
                              hatch=None if has else "////")
                )  # fmt: skip
                axes.text(
                    x + wide / 2, y + size / 2, str(e), ha="center", va="center", fontsize=8,
                    color=INK, path_effects=[effects.withStroke(linewidth=2, foreground="#ffffff")],
                )  # fmt: skip
        axes.set(xlim=(0, rows), ylim=(rows, 0), aspect="equal", xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        if image == 0:
            axes.set_ylabel(f"t={t}")
    return svg_of(canvas, name)


@styled
def maps_figure(
    exact: np.ndarray, measured: np.ndarray, axes_names: tuple[str, str], name: str
) -> str:
    """Return an exact matrix, a measured one and their difference, side by side."""
    canvas, every = panels(10.5, 3.2, 1, 3)
    top = max(exact.max(), measured.max())
    error = measured - exact
    most = max(np.abs(error).max(), 1e-9)
    shown = [
        ("exact expectation", exact, HEAT, 0, top),
        ("from the RTL", measured, HEAT, 0, top),
        ("difference", error, DIFFERENCE, -most, most),
    ]
    for axes, (title, values, colors, low, high) in zip(every, shown, strict=True):
        mesh = axes.pcolormesh(
            values, cmap=colors, vmin=low, vmax=high, edgecolors="#ffffff", linewidth=0.4
        )
        axes.set_title(title)
        axes.set(xlabel=axes_names[1], ylabel=axes_names[0], aspect="equal")
        for set_ticks, length in (
            (axes.set_yticks, values.shape[0]),
            (axes.set_xticks, values.shape[1]),
        ):
            ticks = range(0, length, max(1, length // 8))
            set_ticks([i + 0.5 for i in ticks], [str(i) for i in ticks])
        axes.invert_yaxis()
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        bar = canvas.colorbar(mesh, ax=axes, shrink=0.82, pad=0.03)
        bar.outline.set_visible(False)
        bar.ax.tick_params(length=0)
    return svg_of(canvas, name)


@styled
def agreement_figure(
    exact: np.ndarray, measured: np.ndarray, sigma: np.ndarray, trace: np.ndarray,
    expected: np.ndarray, name: str,
) -> str:  # fmt: skip
    """Return how a mean over samples agrees with its expectation.

    Parameters
    ----------
    exact, measured, sigma : ndarray
        Expectation, mean, and the standard error that the mean must have.
    trace, expected : ndarray [samples]
        RMS error after 1, 2, ... samples, and the one that independent samples would have.
    name : str
    """
    canvas, (scatter, histogram, decay) = panels(10.5, 3.1, 1, 3)
    order = np.argsort(exact.ravel())
    x, y, s = exact.ravel()[order], measured.ravel()[order], sigma.ravel()[order]
    scatter.fill_between(x, x - 2 * s, x + 2 * s, color=RULE, linewidth=0, label="± 2 std. errors")
    scatter.plot(x, x, color=MUTED, linewidth=0.8)
    scatter.plot(x, y, ".", color=ACCENT, markersize=2.6, alpha=0.7, rasterized=False)
    scatter.set(xlabel="exact expectation", ylabel="mean of the RTL's output")
    scatter.set_title("every output, RTL against exact")
    scatter.legend(loc="upper left", fontsize=8)

    use = s > 0
    z = (y[use] - x[use]) / s[use]
    bins = np.linspace(-4, 4, 33)
    histogram.hist(z, bins=list(bins), density=True, color=ACCENT, alpha=0.75)
    histogram.plot(bins, np.exp(-(bins**2) / 2) / np.sqrt(2 * np.pi), color=SECOND, linewidth=1.4,
                   label="standard normal")  # fmt: skip
    histogram.set(xlabel="error in standard errors", yticks=[], xlim=(-4, 4))
    histogram.spines["left"].set_visible(False)
    histogram.set_title(f"spread of the errors: {z.std():.2f}")
    histogram.legend(loc="upper left", fontsize=8)

    samples = np.arange(1, len(trace) + 1)
    decay.loglog(samples, trace, color=ACCENT, linewidth=1.6, label="RTL")
    decay.loglog(samples, expected, color=SECOND, linewidth=1, linestyle="--", label="expected")
    decay.set(xlabel="inferences", ylabel="RMS error")
    decay.set_title("error of the mean falls as 1/√n")
    decay.legend(loc="lower left", fontsize=8)
    return svg_of(canvas, name)
