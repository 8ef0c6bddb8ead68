"""Command: measure cells and clock rates of presets and grid; what is known is not redone."""

import json
import sys

import click
from rich.console import Console
from rich.progress import Progress

from bench.devices import DEVICES
from bench.grid import PRESET_SEEDS, cases
from bench.grid import seeds as seeds_of
from bench.measure import Result, emission, load, measure
from bench.table import clock_text
from gen.errors import Command, UserError
from gen.options import nearest
from hw.tops import TOPS


@click.command(cls=Command, help=__doc__)
@click.option("--list", "list_cases", is_flag=True, help="Print what there is and its results.")
@click.option("--top", "tops", metavar="TOP", multiple=True, help="Only this top; repeatable.")
@click.option(
    "--preset", "presets", metavar="NAME", multiple=True, help="Or point of the grid; likewise."
)
@click.option("--device", "devices", metavar="|".join(DEVICES), multiple=True, help="Likewise.")
@click.option(
    "--seeds",
    type=click.IntRange(min=0),
    help=f"Place with 1..K.  [default: {PRESET_SEEDS}; points of the grid as that says]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the results for programs.")
def main(
    list_cases: bool,
    tops: tuple[str, ...],
    presets: tuple[str, ...],
    devices: tuple[str, ...],
    seeds: int | None,
    as_json: bool,
) -> None:
    """Run the command."""
    choice = select(tops, presets, devices)
    results = []
    if list_cases:
        results = [found for key in choice if (found := load(*key))]
        if not as_json:
            lines = {key: describe(load(*key)) for key in choice}
            click.echo("\n".join(f"{' '.join(key):34} {text}" for key, text in lines.items()))
    else:
        counts = [seeds_of(top, name) if seeds is None else seeds for top, name, _ in choice]
        done = 0
        with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
            task = progress.add_task("", total=sum(counts) + len(counts))
            for key, count in zip(choice, counts, strict=True):
                top, name, device = key
                progress.update(task, description=" ".join(key), completed=done)
                for result in measure(emission(top, name), name, device, range(1, count + 1)):
                    progress.update(task, completed=done + 1 + len(result["seeds"]))
                results.append(result)
                done += 1 + count
                if not as_json:
                    click.echo(f"{' '.join(key):34} {describe(result)}")
    if as_json:
        click.echo(json.dumps(results, indent=2, sort_keys=True))


def select(
    tops: tuple[str, ...], presets: tuple[str, ...], devices: tuple[str, ...]
) -> list[tuple[str, str, str]]:
    """Return (top, preset or point, device) of all that is asked for; nothing named means all.

    Raises
    ------
    UserError
        A name that does not exist, or names of which nothing is measured together.
    """
    known = {
        "--top": (tops, list(TOPS)),
        "--preset": (presets, sorted({p for t, p, _ in cases() if not tops or t in tops})),
        "--device": (devices, list(DEVICES)),
    }
    for option, (names, valid) in known.items():
        for name in names:
            if name not in valid:
                raise UserError(f"{option}: there is no {name!r}; {nearest(name, valid)}")
    choice = [
        (top, preset, device)
        for top, preset, device in cases()
        if (not tops or top in tops)
        and (not presets or preset in presets)
        and (not devices or device in devices)
    ]
    if not choice:
        raise UserError(
            f"--device: {', '.join(presets)} is measured on "
            f"{', '.join(sorted({d for _, p, d in cases() if p in presets}))} alone"
        )
    return choice


def describe(result: Result | None) -> str:
    """Return a result in a line."""
    if result is None:
        return "not measured"
    cells = " ".join(f"{kind}={n}" for kind, n in sorted(result["cells"].items()))
    return f"{cells}  MHz: {clock_text(result)}"


if __name__ == "__main__":
    main(prog_name="python -m bench")
