"""``python -m bench.growth``: how cells and clocks of sdsa go with N and with D, as a figure.

Draws ``docs/sdsa_growth.svg`` from the stored data alone; same data, same bytes.
"""

import click
import matplotlib
import numpy as np
from matplotlib.axes import Axes

from bench.grid import GRID
from bench.measure import Result, load
from bench.pareto import svg
from bench.table import ROOT
from gen.emit import write
from gen.errors import CheckFailed, Command
from gen.report import ACCENT, INK, SECOND, STYLE, panels

FIGURE = ROOT / "docs" / "sdsa_growth.svg"

SIZE = {"tokens": 64, "channels": 512}
"""One of them is changed, the other kept."""


@click.command(cls=Command, help=__doc__)
def main() -> None:
    """Run the command."""
    results = [found for name in ("cifar", *GRID["sdsa"]) if (found := load("sdsa", name, "ecp5"))]
    if not series(results, "tokens"):
        raise CheckFailed("there is nothing to draw: run `make bench`")
    write({FIGURE.name: draw(results)}, FIGURE.parent)


def series(results: list[Result], changed: str) -> list[Result]:
    """Return the results of the plain form in which only `changed` differs from `SIZE`."""
    found = []
    for result in results:
        parameters = result["parameters"]
        same = all(parameters[name] == size for name, size in SIZE.items() if name != changed)
        plain = parameters["variant"] == 1 and parameters["threshold"] == 1
        extras = parameters["count_sops"] or parameters["buffer_q"] or parameters["pool"]
        if same and plain and not extras:
            found.append(result)
    return sorted(found, key=lambda result: result["parameters"][changed])


def draw(results: list[Result]) -> str:
    """Return the figure as SVG."""
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": FIGURE.name}):
        canvas, axes = panels(11, 3.6, 1, 4)
        for i, (changed, letter) in enumerate((("tokens", "N"), ("channels", "D"))):
            shown = series(results, changed)
            x = [result["parameters"][changed] for result in shown]
            cells = [result["cells"]["lut4_equivalents"] for result in shown]
            clocks = [result["timing"]["cycles"] for result in shown]
            other = ", ".join(
                f"{'N' if name == 'tokens' else 'D'} = {size}"
                for name, size in SIZE.items()
                if name != changed
            )
            line(axes[2 * i], x, cells, letter, ACCENT)
            axes[2 * i].set(xlabel=letter, ylabel="LUT4-equivalents")
            axes[2 * i].set_title(f"cells, {other}", loc="left")
            line(axes[2 * i + 1], x, clocks, letter, SECOND)
            axes[2 * i + 1].set(xlabel=letter, ylabel="clocks of an inference, T = 4")
            axes[2 * i + 1].set_title(f"clocks, {other}", loc="left")
        return svg(canvas)


def line(axes: Axes, x: list[int], y: list[int], letter: str, color: str) -> None:
    """Draw measured places and the straight line through them, least squares."""
    slope, start = np.polyfit(x, y, 1)
    ends = np.array([0, max(x)])
    axes.plot(ends, start + slope * ends, color=color, linewidth=0.8)
    axes.plot(x, y, "o", color=color, markersize=5)
    axes.set_xlim(left=0)
    axes.set_ylim(0, 1.15 * max(y))
    axes.annotate(
        f"{start:.0f} + {abs(slope):.2f} {letter}", (0.03, 0.97), xycoords="axes fraction",
        ha="left", va="top", fontsize=8, color=INK,
    )  # fmt: skip


if __name__ == "__main__":
    main(prog_name="python -m bench.growth")
