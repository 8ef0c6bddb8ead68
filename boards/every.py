"""``python -m boards.every``: a bitstream of every top for every board, and which presets fit.

What is built follows from its content: a second run finds everything there. Figures are stored in
``boards/results``.
"""

from collections.abc import Iterator
from pathlib import Path

import click
from rich.console import Console

from boards.build import build
from boards.catalogue import BOARDS, Board
from boards.results import note
from boards.selftest import self_testing
from boards.sheet import PIPE_WIDTH, save
from gen.emit import emit
from gen.errors import CheckFailed, Command, UserError
from hw.tops import TOPS

SEEDS = (1, 2, 3)


def pairs(boards: tuple[str, ...], tops: tuple[str, ...]) -> Iterator[tuple[Board, str, str]]:
    """Yield board, top and the preset that is built: tops that run alone."""
    for top, entry in TOPS.items():
        if tops and top not in tops:
            continue
        for board in BOARDS.values():
            preset = board.presets.get(top, "default")
            if not entry.config.preset(preset).asks and (not boards or board.name in boards):
                yield board, top, preset


def one(board: Board, top: str, preset: str, console: Console) -> str:
    """Build and store one; return what became of it."""
    emission = emit(top, TOPS[top].config.preset(preset))
    folder = Path(f"build/boards/{board.name}_{top}")
    try:
        done = build(board, emission, self_testing(emission), folder, SEEDS, console=console)
    except CheckFailed:
        raise
    except UserError as refused:
        note(board, top, preset, {"fits": False, "reason": refused.message})
        return refused.message
    save(done)
    keys = ("resources", "clock", "path", "serial", "timing", "inputs", "sha256")
    note(board, top, preset, {"fits": True, **{k: done.facts[k] for k in keys}})
    return f"{done.wanted:g} MHz, {', '.join(f'{n:,} {k}' for k, n in done.used.items() if n)}"


@click.command(cls=Command)
@click.option("--board", "boards", metavar="BOARD", multiple=True, help="Of this board alone.")
@click.option("--top", "tops", metavar="TOP", multiple=True, help="Of this top alone.")
def main(boards: tuple[str, ...], tops: tuple[str, ...]) -> None:
    """Build every top for every board, with the preset that the board has for it."""
    console = Console(width=None if Console().is_terminal else PIPE_WIDTH, highlight=False)
    failed = []
    for board, top, preset in pairs(boards, tops):
        try:
            said = one(board, top, preset, console)
        except CheckFailed as wrong:
            failed.append(said := wrong.message)
        console.print(f"{board.name}, {top} {preset}: {said}", soft_wrap=True)
    if failed:
        raise CheckFailed(f"{len(failed)} bitstreams failed; the first: {failed[0]}")


if __name__ == "__main__":
    main(prog_name="python -m boards.every")
