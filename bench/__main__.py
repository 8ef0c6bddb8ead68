"""Command: measure cells and clock rates of every top and preset; what is known is not redone."""

import json
import sys

import click
from rich.console import Console
from rich.progress import Progress

from bench.devices import DEVICES
from bench.measure import Result, cases, emission, load, measure
from bench.table import clock_text
from gen.errors import Command, UserError
from gen.options import nearest
from hw.tops import TOPS


@click.command(cls=Command, help=__doc__)
@click.option("--list", "list_cases", is_flag=True, help="Print what there is and its results.")
@click.option("--top", "tops", metavar="TOP", multiple=True, help="Only this top; repeatable.")
@click.option("--preset", "presets", metavar="NAME", multiple=True, help="Likewise.")
@click.option("--device", "devices", metavar="|".join(DEVICES), multiple=True, help="Likewise.")
@click.option(
    "--seeds", default=5, show_default=True, type=click.IntRange(min=0), help="Place with 1..K."
)
@click.option("--json", "as_json", is_flag=True, help="Print the results for programs.")
def main(
    list_cases: bool,
    tops: tuple[str, ...],
    presets: tuple[str, ...],
    devices: tuple[str, ...],
    seeds: int,
    as_json: bool,
) -> None:
    """Run the command."""
    choice = select(tops, presets, devices)
    results = []
    if list_cases:
        results = [found for key in choice if (found := load(*key))]
        if not as_json:
            lines = {key: describe(load(*key)) for key in choice}
            click.echo("\n".join(f"{' '.join(key):30} {text}" for key, text in lines.items()))
    else:
        steps = seeds + 1
        with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
            task = progress.add_task("", total=len(choice) * steps)
            for done, key in enumerate(choice):
                top, preset, device = key
                progress.update(task, description=" ".join(key), completed=done * steps)
                for result in measure(emission(top, preset), preset, device, range(1, seeds + 1)):
                    progress.update(task, completed=done * steps + 1 + len(result["seeds"]))
                results.append(result)
                if not as_json:
                    click.echo(f"{' '.join(key):30} {describe(result)}")
    if as_json:
        click.echo(json.dumps(results, indent=2, sort_keys=True))


def select(
    tops: tuple[str, ...], presets: tuple[str, ...], devices: tuple[str, ...]
) -> list[tuple[str, str, str]]:
    """Return (top, preset, device) of all that is asked for; nothing named means all.

    Raises
    ------
    UserError
        A name that does not exist.
    """
    known = {
        "--top": (tops, list(TOPS)),
        "--preset": (presets, sorted({p for t, p in cases() if not tops or t in tops})),
        "--device": (devices, list(DEVICES)),
    }
    for option, (names, valid) in known.items():
        for name in names:
            if name not in valid:
                raise UserError(f"{option}: there is no {name!r}; {nearest(name, valid)}")
    return [
        (top, preset, device)
        for top, preset in cases()
        for device in DEVICES
        if (not tops or top in tops)
        and (not presets or preset in presets)
        and (not devices or device in devices)
    ]


def describe(result: Result | None) -> str:
    """Return a result in a line."""
    if result is None:
        return "not measured"
    cells = " ".join(f"{kind}={n}" for kind, n in sorted(result["cells"].items()))
    return f"{cells}  MHz: {clock_text(result)}"


if __name__ == "__main__":
    main(prog_name="python -m bench")
