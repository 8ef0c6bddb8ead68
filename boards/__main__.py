"""``python -m boards``: a bitstream of a top for a board."""

import contextlib
import json
import signal
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from boards.build import TooLarge, build
from boards.catalogue import BOARDS, UNTRIED, Board
from boards.loader import load_onto
from boards.results import Result, folder_of, known
from boards.room import what_would_fit
from boards.sheet import PIPE_WIDTH, save, show
from boards.shell import behind_link
from boards.virtual import VirtualBoard
from gen.emit import Emission, emit
from gen.errors import Command, UserError
from gen.network import model_of, top_of
from gen.options import config_class, nearest, parsed, resolve, top_options
from hw.config import Config
from hw.transformer import TransformerConfig


def list_boards(boards: Iterable[Board], as_json: bool) -> None:
    """Print boards: what they have, and what of the presets is known to fit."""
    facts: list[dict[str, Any]] = [
        {
            "board": board.name,
            "title": board.title,
            "device": board.device,
            "resources": {board.family.names[k]: n for k, n in board.resources.items()},
            "clock_mhz": board.mhz,
            "serial": board.serial,
            "programmed": board.programmed,
            "presets": {
                top: {preset: brief(result) for preset, result in presets.items()}
                for top, presets in known(board).items()
            },
            "state": UNTRIED,
        }
        for board in boards
    ]
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    table = Table("board", "device, clock, serial port", "presets that fit", "state", box=None)
    for board in facts:
        table.add_row(
            f"{board['board']}\n[dim]{board['title']}[/dim]",
            f"{board['device']}, {board['clock_mhz']:g} MHz\n[dim]"
            + ", ".join(f"{n:,} {name}" for name, n in board["resources"].items())
            + f"\nserial port: {board['serial']}"
            + f"\nprogrammed {board['programmed']}[/dim]",
            "\n".join(in_words(top, presets) for top, presets in board["presets"].items()),
            board["state"],
        )
        table.add_section()
    Console(width=None if Console().is_terminal else 2 * PIPE_WIDTH, highlight=False).print(table)


def brief(result: Result) -> dict[str, Any]:
    """Return what a list says of a preset: whether it fits, its clock if it was built, or why."""
    if not result["fits"]:
        return {"fits": False, "reason": result["reason"]}
    return {"fits": True} | ({"mhz": result["clock"]["mhz"]} if "clock" in result else {})


def in_words(top: str, presets: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the presets of a top: those that were built first, those that do not fit last."""
    ranked = sorted(presets.items(), key=lambda item: (not item[1]["fits"], "mhz" not in item[1]))
    there = [
        f"{name} ({facts['mhz']:g} MHz)" if "mhz" in facts else name
        for name, facts in ranked
        if facts["fits"]
    ]
    wanting = [f"{name} ({facts['reason']})" for name, facts in ranked if not facts["fits"]]
    lacks = f"[dim]not {', '.join(wanting)}[/dim]" if wanting else ""
    return f"{top}: " + "; ".join(filter(None, (", ".join(there), lacks)))


def chosen(board: Board, top: str | None, preset: str | None, settings: tuple[str, ...]) -> Config:
    """Return the configuration that is asked for; the board names the preset if nobody does."""
    config_class(top)
    assert top is not None
    return resolve(top, preset or board.presets.get(top), settings)


def of_model(
    folder: Path, top: str | None, preset: str | None, settings: tuple[str, ...]
) -> TransformerConfig:
    """Return the configuration that computes a trained network."""
    if preset or top not in (None, "transformer"):
        got = f"--preset {preset}" if preset else f"--top {top}"
        raise UserError(
            f"--model says which transformer it is: want no --top or --preset, got {got}"
        )
    config, _ = top_of(*model_of(folder), **parsed("transformer", settings))
    return config


def simulate(board: Board, emission: Emission) -> None:
    """Be a board behind a pseudo-terminal, whose path is printed, until somebody interrupts."""
    # Shells have what runs in the background ignore the first one.
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, signal.default_int_handler)
    with VirtualBoard(board, emission) as there, contextlib.suppress(KeyboardInterrupt):
        print(there.port, flush=True)
        signal.pause()


@click.command(cls=Command)
@click.option("--list", "listing", is_flag=True, help="List the boards, or --board alone.")
@click.option("--board", metavar="BOARD", help="What to build for; see --list.")
@top_options
@click.option("--model", metavar="DIR", help="A trained network, in place of --top and --preset.")
@click.option(
    "--seeds",
    type=click.IntRange(1, 100),
    default=3,
    show_default=True,
    help="Placements; the fastest is taken.",
)
@click.option(
    "--virtual",
    is_flag=True,
    help="Simulate the board instead; print its serial port and stay.",
)
@click.option("--program", is_flag=True, help="Load the bitstream onto the board.")
@click.option("--cable", metavar="NAME", help="The programmer, if the board has none.")
@click.option("--out", metavar="DIR", help="Folder of all files.  [default: one in build/boards]")
@click.option("--json", "as_json", is_flag=True, help="Print the result for programs.")
def main(
    listing: bool, board: str | None, top: str | None, preset: str | None,
    settings: tuple[str, ...], model: str | None, seeds: int, virtual: bool, program: bool,
    cable: str | None, out: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Build a bitstream of a top behind the host link, which `python -m boards.host` talks to.

    Without --preset the one is taken that the board has for the top. With --model it is the top
    that computes a trained network, whose weights the host loads. With --virtual nothing is built:
    the whole top of the board, pins and all, is simulated behind a serial port.
    """
    if board is not None and board not in BOARDS:
        raise UserError(f"--board: there is no {board!r}; {nearest(board, BOARDS)}")
    if cable and not program:
        raise UserError("--cable: want --program with it")
    if listing and (top or preset or settings or model):
        raise UserError("--list: want it alone or with --board: it lists all tops")
    if listing:
        list_boards([BOARDS[board]] if board else BOARDS.values(), as_json)
        return
    if board is None:
        raise UserError(f"--board is missing: want one of {', '.join(BOARDS)}")
    target = BOARDS[board]
    network = of_model(Path(model), top, preset, settings) if model else None
    config = network or chosen(target, top, preset, settings)
    top = "transformer" if network else str(top)
    if virtual and (program or out or as_json):
        raise UserError("--virtual builds nothing: --program, --out and --json are of a bitstream")
    if virtual:
        simulate(target, emit(top, config))
        return
    folder = Path(out) if out else folder_of(target, top, config)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"can't write {folder}: it is no folder")
    emission = emit(top, config)
    console = Console(stderr=True)
    try:
        bitstream = build(
            target, emission, behind_link(emission), folder, range(1, seeds + 1), console=console
        )
    except TooLarge as refused:
        if network is None:
            raise
        hint = what_would_fit(target, network, console)
        raise UserError(f"{refused.message}; {hint}") from None
    page = save(bitstream)
    if as_json:
        paths = {"bitstream": str(bitstream.path), "report": str(page)}
        print(json.dumps({**bitstream.facts, **paths}, indent=2, sort_keys=True))
    else:
        show(bitstream)
    if program:
        load_onto(target, bitstream.path, cable)


if __name__ == "__main__":
    main(prog_name="python -m boards")
