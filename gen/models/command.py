"""Command: turn a trained spiking transformer into a configuration and integer weights.

MODEL is a state_dict (.npz, .safetensors, .pt) with the names of Spike-driven Transformer,
Spikformer or SpikingJelly, or a graph of NIR (.nir, .h5). See docs/import.md.
"""

import dataclasses
import json
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import click

from gen.emit import write
from gen.errors import CheckFailed, Command, UserError
from gen.models import calibrate as calibration
from gen.models.graph import Foreign, Network
from gen.models.integers import (
    APPROXIMATE,
    CURRENT_BITS,
    UNSUPPORTED,
    Given,
    Integers,
    Quantiser,
    Row,
    rows_of,
    worst,
)
from gen.models.nir_graph import LIBRARIES
from gen.models.nir_graph import network_of as nir_network
from gen.models.read import read
from gen.models.rounding import BITS, files
from gen.models.state_dict import FAMILIES, Options
from gen.models.state_dict import network_of as state_network
from gen.models.table import as_data, show

SHOWN = 3
"""Layers in an error."""


def number_range(_: click.Context, __: click.Parameter, text: str | None) -> Any:
    """Read ``LOW:HIGH``."""
    if text is None:
        return None
    try:
        low, high = (float(Fraction(part)) for part in text.split(":"))
    except (ValueError, ZeroDivisionError) as wrong:
        raise UserError(f"--input-range: want LOW:HIGH, got {text!r}") from wrong
    if not low < high:
        raise UserError(f"--input-range: want LOW below HIGH, got {text!r}")
    return low, high


def fraction(_: click.Context, parameter: click.Parameter, text: str | None) -> Fraction | None:
    """Read a number above 0, ``1/255`` as well."""
    if text is None:
        return None
    try:
        value = Fraction(text)
    except (ValueError, ZeroDivisionError) as wrong:
        raise UserError(f"{parameter.opts[0]}: want a number, got {text!r}") from wrong
    if value <= 0:
        raise UserError(f"{parameter.opts[0]}: want a number above 0, got {text!r}")
    return value


@click.command(
    cls=Command, name="import", help=__doc__, short_help="A trained network to integers."
)
@click.argument("path", metavar="MODEL", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Folder [default: build/NAME].")
@click.option(
    "--bits",
    type=click.IntRange(BITS[0], BITS[-1]),
    default=8,
    show_default=True,
    help="Bits of a weight.",
)
@click.option(
    "--residual-bits",
    type=click.IntRange(8, CURRENT_BITS),
    default=CURRENT_BITS,
    show_default=True,
    help="The most that a residual may have.",
)
@click.option(
    "--calibrate",
    "data",
    metavar="FILE.npz",
    type=click.Path(path_type=Path),
    help="Choose scales by `image` or `tokens`, and show what each layer loses.",
)
@click.option("--allow-approximate", is_flag=True, help="Write what is not faithful as well.")
@click.option(
    "--skip",
    "skip",
    metavar="NAME",
    multiple=True,
    help="Drop a layer; what comes out of it is the input then.",
)
@click.option(
    "--input-range", metavar="LOW:HIGH", callback=number_range, help="Real values of the input."
)
@click.option(
    "--input-step",
    metavar="STEP",
    callback=fraction,
    help="Real value of one integer step of the input, as 1/255.",
)
@click.option("--family", type=click.Choice(FAMILIES), help="Whose names they are.")
@click.option("--timesteps", type=click.IntRange(1, 1024), help="[default: 4]")
@click.option("--tokens", type=click.IntRange(1, 1024), help="[default: 64]")
@click.option("--heads", type=click.IntRange(1, 4096), help="[default: 8]")
@click.option("--tau", type=click.FloatRange(1, 1024), help="Of all neurons [default: 2].")
@click.option("--v-threshold", type=click.FloatRange(0, min_open=True), help="[default: 1]")
@click.option(
    "--attention-threshold",
    type=click.FloatRange(0, min_open=True),
    help="Of the neurons of attention [default: 0.5].",
)
@click.option(
    "--reset",
    type=click.Choice(("hard", "soft", "soft-delayed", "none")),
    help="Of all neurons [default: hard].",
)
@click.option(
    "--fire", type=click.Choice(("ge", "gt")), help="At >= or > [default: ge; gt of a NIR graph]."
)
@click.option(
    "--decay-input/--no-decay-input",
    default=None,
    help="Whether tau divides the input as well [default: it does].",
)
@click.option(
    "--pooling",
    metavar="0000",
    help="Which stages of the stem end with a max pool [default: the released ones].",
)
@click.option(
    "--dt",
    type=click.FloatRange(0, min_open=True),
    help="Time step of a NIR graph, in units of its tau.",
)
@click.option("--library", type=click.Choice(tuple(LIBRARIES)), help="What wrote a NIR graph.")
@click.option("--json", "as_json", is_flag=True, help="Print the table for programs.")
def main(
    path: Path,
    out: Path | None,
    bits: int,
    residual_bits: int,
    data: Path | None,
    allow_approximate: bool,
    skip: tuple[str, ...],
    input_range: tuple[float, float] | None,
    input_step: Fraction | None,
    as_json: bool,
    **settings: Any,
) -> None:
    """Run the command."""
    pooling = settings["pooling"]
    if pooling is not None and not re.fullmatch("[01]{4}", pooling):
        raise UserError(f"--pooling: want four of 0 and 1, got {pooling!r}")
    options = Options(skip=skip, **settings)
    trained = read(path)
    front = state_network if isinstance(trained, dict) else nir_network
    samples = calibration.read(data) if data else None
    if samples is not None and options.tokens is None and isinstance(trained, dict):
        options = dataclasses.replace(options, tokens=samples.tokens)
    network, given = front(trained, options)
    if any(isinstance(layer, Foreign) for layer in network.layers):
        _show(rows_of(network), network, None, as_json)
        raise _refusal(rows_of(network), allow_approximate)
    given = _given(network, given, input_range, input_step, samples)
    quantiser = Quantiser(network, given, bits, residual_bits)
    losses = None
    if samples is None:
        integers = quantiser.integers()
    else:
        quantiser, integers = calibration.scaled(network, quantiser, samples)
        if worst(integers.rows) != UNSUPPORTED:
            losses = calibration.losses(quantiser.network, integers, samples)
    network.notes += integers.notes
    _show(integers.rows, network, losses, as_json)
    word = worst(integers.rows)
    if word == UNSUPPORTED or (word == APPROXIMATE and not allow_approximate):
        raise _refusal(integers.rows, allow_approximate)
    paths = write(files(integers.model, integers.arrays), out or Path("build") / network.name)
    if not as_json:
        click.echo("\n".join(str(one) for one in paths))


def _given(
    network: Network,
    given: Given | None,
    span: tuple[float, float] | None,
    step: Fraction | None,
    samples: calibration.Samples | None,
) -> Given:
    """Return the input: what an option says, else what the network does, else what the data do."""
    currents = given is None and _is_residual(network)
    if samples is not None and span is None and (given is None or samples.real):
        known = given
        span = samples.span(step or (None if currents else Fraction(1)))
        if known is not None:
            span = min(span[0], known.low), max(span[1], known.high)
    if span is None:
        if given is None:
            raise UserError("--input-range: missing: nothing says what values go in "
                            "(or --calibrate)")  # fmt: skip
        return given if step is None else dataclasses.replace(given, step=step)
    if step is None and not currents:
        step = Fraction(1)
    return Given(*span, step)


def _is_residual(network: Network) -> bool:
    return any(len(user.inputs) > 1 for user in network.users("input"))


def _refusal(rows: list[Row], allowed: bool) -> CheckFailed:
    bad = [row for row in rows if row.verdict.word == UNSUPPORTED]
    word = UNSUPPORTED
    if not bad:
        bad, word = [row for row in rows if row.verdict.word == APPROXIMATE], APPROXIMATE
    names = ", ".join(row.name for row in bad[:SHOWN])
    names += f" and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
    count = f"{len(bad)} layer{'s are' if len(bad) > 1 else ' is'} {word}: {names}"
    reason = bad[0].verdict.reasons[0]
    hint = "" if word == UNSUPPORTED or allowed else "; --allow-approximate writes it all the same"
    return CheckFailed(f"{count}: {reason}{hint}")


def _show(rows: list[Row], network: Network, losses: dict[str, str] | None, as_json: bool) -> None:
    if as_json:
        result = {"layers": as_data(rows), "assumed": network.assumed, "notes": network.notes}
        if losses is not None:
            result["losses"] = losses
        click.echo(json.dumps(result, indent=2))
    else:
        show(rows, network.assumed, network.notes, losses)


__all__ = ["Integers", "main"]
