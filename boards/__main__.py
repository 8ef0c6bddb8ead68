"""``python -m boards``: a bitstream that tests a top on a board."""

import json
from pathlib import Path

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from boards import icebreaker
from boards.selftest import Vectors
from gen.emit import emit
from gen.errors import Command, UserError
from gen.options import nearest, resolve, top_options
from gen.vectors import random_stimulus

BOARDS = {"icebreaker": icebreaker}

UNTRIED = "builds, simulated; not yet run on a board"


def list_boards() -> None:
    """Print the boards."""
    table = Table("board", "device", *icebreaker.NAMES.values(), "state", box=None)
    for name, board in BOARDS.items():
        has = [str(board.DEVICE[k]) for k in board.NAMES]
        table.add_row(name, board.Platform.device, *has, UNTRIED)
    Console(width=None if Console().is_terminal else 120).print(table)


@click.command(cls=Command)
@click.option("--list", "listing", is_flag=True, help="List the boards.")
@click.option("--board", metavar="BOARD", help="What to build for; see --list.")
@top_options
@click.option("--seed", default=1, show_default=True, help="Of place and route.")
@click.option("--out", metavar="DIR", help="Folder of all files.  [default: build/boards/...]")
@click.option("--json", "as_json", is_flag=True, help="Print the result for programs.")
def main(
    listing: bool, board: str | None, top: str | None, preset: str | None,
    settings: tuple[str, ...], seed: int, out: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Build a bitstream that feeds a top from ROM and shows pass or fail on two LEDs.

    The stimulus is random, from a fixed seed, and the checksum that the outputs are held against
    is golden's. Without --preset the one that is called like the board is taken, if there is one.
    """
    if listing:
        list_boards()
        return
    if board is None:
        raise UserError(f"--board is missing: want one of {', '.join(BOARDS)}")
    if board not in BOARDS:
        raise UserError(f"--board: there is no {board!r}; {nearest(board, BOARDS)}")
    config = resolve(top, preset, settings)
    if preset is None and board in config.PRESETS:
        config = resolve(top, board, settings)
    assert top is not None
    if config.asks:
        raise UserError(f"--top: want a top that runs alone; {top} needs experts, which it asks")
    emission = emit(top, config)
    vectors = Vectors.of(emission, random_stimulus(config, np.random.default_rng(1)))
    folder = Path(out or f"build/boards/{board}_{top}")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"can't write {folder}: it is no folder")
    bitstream = BOARDS[board].build(emission, vectors, folder, seed)
    figures = bitstream.summary()
    if as_json:
        print(json.dumps({"bitstream": str(bitstream.path), **figures}, indent=2, sort_keys=True))
        return
    used = ", ".join(f"{n} of {figures['device'][k]} {k}" for k, n in figures["used"].items())
    print(f"{bitstream.path}: {used}; {bitstream.clock:g} MHz, the board's is {bitstream.wanted:g}")
    print(f"{board}: {UNTRIED}")


if __name__ == "__main__":
    main(prog_name="python -m boards")
