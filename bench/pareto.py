"""``python -m bench.pareto``: latency and error of attention against its cells, as a figure.

Draws ``docs/attention_pareto.svg`` from the stored data alone; same data, same bytes.
"""

import io
import statistics
from collections.abc import Iterator, Mapping
from typing import Any

import click
import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from bench.attention_error import KEYS
from bench.attention_error import STUDY as ERROR
from bench.grid import GRID
from bench.measure import Result
from bench.study import load_study
from bench.table import PAPER_US, ROOT, attention_results, micros
from gen.emit import write
from gen.errors import CheckFailed, Command
from gen.report import ACCENT, INK, MUTED, SECOND, STYLE, panels

FIGURE = ROOT / "docs" / "attention_pareto.svg"

COLORS = (SECOND, ACCENT, "#2a8f5b", "#8a4fc4", "#b08900", MUTED)
"""By size; they come round again."""

MARKERS = {"count": "o", "sample": "D"}

Errors = Mapping[tuple[Any, ...], float]
"""RMS errors by the parameters that they depend on."""


@click.command(cls=Command, help=__doc__)
def main() -> None:
    """Run the command."""
    results = attention_results()
    study = load_study(ERROR)
    if not results or study is None:
        raise CheckFailed("there is nothing to draw: run `make bench`")
    write({FIGURE.name: draw(results, study)}, FIGURE.parent)
    missing = [name for name in GRID["attention"] if name not in results]
    if missing:
        click.echo(f"not measured and not drawn: {', '.join(missing)}", err=True)


def draw(results: Mapping[str, Result], study: Mapping[str, Any]) -> str:
    """Return the figure as SVG.

    Parameters
    ----------
    results : mapping
        By preset or point.
    study : mapping
        That of `bench.attention_error`.
    """
    errors = {tuple(entry[key] for key in KEYS): entry["rms"] for entry in study["errors"]}
    sizes = sorted({size(result) for result in results.values()})
    colors = {own: COLORS[i % len(COLORS)] for i, own in enumerate(sizes)}
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": FIGURE.name}):
        canvas, (left, right) = panels(11, 4.8, 1, 2)
        draw_latency(left, results, colors)
        draw_error(right, results, errors, colors)
        left.set_title("time of one inference, T = 10, one head", loc="left")
        right.set_title(f"error of an output bit's rate over T = {study['timesteps']}", loc="left")
        canvas.legend(handles=list(legend(colors)), loc="outside lower center", ncols=8)
        return svg(canvas)


def draw_latency(
    axes: Axes, results: Mapping[str, Result], colors: Mapping[tuple[int, int], str]
) -> None:
    """Draw latency against cells, with the front of each size and the paper's block."""
    axes.set(xscale="log", yscale="log", xlabel="LUT4-equivalents (ECP5)", ylabel="µs")
    placed = {name: result for name, result in results.items() if micros(result)}
    for own, color in colors.items():
        steps = front([(cells(r), latency(r)) for r in placed.values() if size(r) == own])
        x, y = [place[0] for place in steps], [place[1] for place in steps]
        axes.plot(x, y, drawstyle="steps-post", color=color, linewidth=0.8, alpha=0.5)
    for result in placed.values():
        times = micros(result)
        here = latency(result)
        axes.errorbar(
            cells(result), here, yerr=[[here - min(times)], [max(times) - here]],
            color=colors[size(result)], linewidth=1, capsize=2,
        )  # fmt: skip
        mark(axes, result, here, colors)
        annotate(axes, result, here, colors)
    axes.margins(0.1)
    axes.axhline(PAPER_US, color=INK, linewidth=0.8, linestyle="--", zorder=0)
    axes.annotate(
        f"the paper's FPGA block, N = dK = 64: {PAPER_US} µs",
        (0, PAPER_US), xycoords=("axes fraction", "data"), xytext=(3, -3),
        textcoords="offset points", ha="left", va="top", fontsize=7, color=INK,
        path_effects=[withStroke(linewidth=2, foreground="white")],
    )  # fmt: skip
    without = [f"{name} ({cells(results[name])})" for name in sorted({*results} - {*placed})]
    if without:
        axes.text(
            0, 0, f"without a clock rate: {', '.join(without)}", transform=axes.transAxes,
            ha="left", va="bottom", fontsize=7, color=MUTED,
        )  # fmt: skip


def draw_error(
    axes: Axes,
    results: Mapping[str, Result],
    errors: Errors,
    colors: Mapping[tuple[int, int], str],
) -> None:
    """Draw RMS error against cells."""
    axes.set(xscale="log", xlabel="LUT4-equivalents (ECP5)", ylabel="RMS error")
    for result in results.values():
        error = errors.get(tuple(result["parameters"][key] for key in KEYS))
        if error is not None:
            mark(axes, result, error, colors)
    axes.margins(0.1)
    axes.set_ylim(0, 1.2 * axes.dataLim.y1)


def mark(axes: Axes, result: Result, height: float, colors: Mapping[tuple[int, int], str]) -> None:
    """Draw the mark of a result."""
    color = colors[size(result)]
    axes.plot(
        cells(result), height, MARKERS[result["parameters"]["encoder"]], markersize=5, color=color,
        markerfacecolor="white" if result["parameters"]["rng"] == "sobol" else color,
    )  # fmt: skip


def annotate(
    axes: Axes, result: Result, height: float, colors: Mapping[tuple[int, int], str]
) -> None:
    """Write how a result is folded: left of its mark where it samples, below it with sobol."""
    across = -1 if result["parameters"]["encoder"] == "sample" else 1
    up = -1 if result["parameters"]["rng"] == "sobol" else 1
    axes.annotate(
        label(result), (cells(result), height), xytext=(5 * across, 4 * up),
        textcoords="offset points", fontsize=7, color=colors[size(result)],
        ha="right" if across < 0 else "left", va="top" if up < 0 else "bottom",
    )  # fmt: skip


def legend(colors: Mapping[tuple[int, int], str]) -> Iterator[Line2D]:
    """Yield what the legend explains: sizes by color, encoders and sources by mark."""
    for (tokens, head_dim), color in colors.items():
        yield Line2D([], [], color=color, linewidth=3, label=f"N = {tokens}, dK = {head_dim}")
    for encoder, marker in MARKERS.items():
        yield Line2D([], [], color=INK, marker=marker, linestyle="", label=encoder)
    yield Line2D([], [], color=INK, marker="s", linestyle="", label="lfsr")
    yield Line2D([], [], color=INK, marker="s", markerfacecolor="white", linestyle="",
                 label="sobol")  # fmt: skip


def label(result: Result) -> str:
    """Return how a result is folded."""
    parameters = result["parameters"]
    if parameters["encoder"] == "sample":
        return "sample"
    return f"{parameters['rows']} × {parameters['columns']}"


def size(result: Result) -> tuple[int, int]:
    """Return N and dK."""
    return result["parameters"]["tokens"], result["parameters"]["head_dim"]


def cells(result: Result) -> int:
    """Return the LUT4-equivalents."""
    return result["cells"]["lut4_equivalents"]


def latency(result: Result) -> float:
    """Return the time per inference at the median clock rate, in microseconds."""
    return statistics.median(micros(result))


def front(places: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Return the places for which no other has as few cells and as little latency."""
    best: list[tuple[int, float]] = []
    for place in sorted(places):
        if not best or place[1] < best[-1][1]:
            best.append(place)
    return best


def svg(canvas: Canvas) -> str:
    """Return a figure as SVG on white, without a date."""
    buffer = io.StringIO()
    canvas.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"


if __name__ == "__main__":
    main(prog_name="python -m bench.pareto")
