"""Command: write the Verilog of a top, its manifest, and on request a test bench."""

import json
import sys
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from rich.console import Console
from rich.table import Table

from gen.emit import FORMS, emit, write
from gen.errors import Group, UserError
from gen.models.command import main as import_command
from gen.options import config_class, resolve, top_options
from gen.testbench import bench_files
from hw.config import Config, bounds, kind
from hw.tops import TOPS

PIPE_WIDTH = 160
"""Columns of a table that does not go to a terminal."""


@click.group(cls=Group, invoke_without_command=True, help=__doc__)
@click.option("--list", "list_tops", is_flag=True, help="Print the tops, one line each.")
@top_options
@click.option("--help-parameters", is_flag=True, help="Print the parameters of the top.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder [default: build/TOP].")
@click.option("--name", help="Name of module and files, prefix of submodules [default: TOP].")
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMS),
    default=FORMS[0],
    show_default=True,
    help="Verilog-2005, or SystemVerilog to be read by eye.",
)
@click.option("--testbench", "bench", is_flag=True, help="Add a self-checking SystemVerilog bench.")
@click.option("--json", "as_json", is_flag=True, help="Print the result for programs.")
@click.pass_context
def main(
    ctx: click.Context,
    list_tops: bool,
    top: str | None,
    preset: str | None,
    settings: tuple[str, ...],
    help_parameters: bool,
    out: Path | None,
    name: str | None,
    form: str,
    bench: bool,
    as_json: bool,
) -> None:
    """Run the command."""
    if ctx.invoked_subcommand is not None:
        if any(ctx.get_parameter_source(key) is ParameterSource.COMMANDLINE for key in ctx.params):
            raise UserError(f"{ctx.invoked_subcommand}: its options go behind it")
    elif list_tops:
        helps = {key: entry.help for key, entry in TOPS.items()}
        width = max(map(len, helps))
        lines = [f"{key:{width}}  {text}" for key, text in helps.items()]
        click.echo(json.dumps(helps, indent=2) if as_json else "\n".join(lines))
    elif help_parameters:
        config = config_class(top)
        if as_json:
            click.echo(json.dumps(parameters(config), indent=2))
        else:
            print_parameters(config)
    else:
        write_top(top, resolve(top, preset, settings), out, name, form, bench, as_json)


def write_top(
    top: str | None,
    config: Config,
    out: Path | None,
    name: str | None,
    form: str,
    bench: bool,
    as_json: bool,
) -> None:
    """Emit a top and say what was written."""
    assert top is not None, "resolve has refused it"
    with Console(stderr=True).status(f"Writing {name or top}"):
        emission = emit(top, config, name=name, form=form)
        files = dict(emission.files)
        if bench:
            # Only here does gen need sim, which builds on gen: the expected words of the bench
            # are the golden model's.
            from sim.golden import golden

            files |= bench_files(emission, golden(top))
        paths = write(files, out or Path("build") / top)
    if as_json:
        result = {"files": [str(path) for path in paths], "manifest": emission.manifest}
        click.echo(json.dumps(result, indent=2))
    else:
        click.echo("\n".join(str(path) for path in paths))


def parameters(config: type[Config]) -> dict[str, Any]:
    """Return the parameters and presets of a top as data."""
    return {
        "parameters": [
            {
                "name": field.name,
                "type": kind(field).__name__,
                "range": bounds(field),
                "default": field.default,
                "derived": field.metadata["derived"],
                "meaning": field.metadata["help"],
            }
            for field in config.parameters()
        ],
        "presets": {name: dict(settings) for name, settings in config.PRESETS.items()},
    }


def print_parameters(config: type[Config]) -> None:
    """Print the parameters and presets of a top as tables."""
    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False)
    facts = parameters(config)
    table = Table("parameter", "type", "range", "default", "meaning", box=None)
    for row in facts["parameters"]:
        default = row["derived"] or _shown(row["default"])
        table.add_row(row["name"], row["type"], row["range"], default, row["meaning"])
    console.print(table)
    presets = Table("preset", "sets", box=None)
    for name, settings in facts["presets"].items():
        pairs = (f"{key}={_shown(value)}" for key, value in settings.items())
        presets.add_row(name, " ".join(pairs) or "nothing")
    console.print()
    console.print(presets)


def _shown(value: Any) -> str:
    """Return a value as ``--set`` takes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


main.add_command(import_command)

if __name__ == "__main__":
    main(prog_name="python -m gen")
