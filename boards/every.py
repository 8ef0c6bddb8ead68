"""``python -m boards.every``: a bitstream of every top for every board, and which presets fit.

What is built follows from its content: a second run finds everything there. Figures are stored in
``boards/results``.
"""

import functools
from collections.abc import Iterator

import click
from rich.console import Console

from boards.build import build, inputs, size
from boards.catalogue import BOARDS, Board
from boards.results import folder_of, known, note
from boards.sheet import PIPE_WIDTH, save
from boards.shell import behind_link
from gen.emit import Emission, emit
from gen.errors import CheckFailed, Command, UserError
from hw.tops import TOPS

SEEDS = (1, 2, 3)

Case = tuple[Board, str, str]
"""A board, a top and a preset."""


def cases(boards: tuple[str, ...], tops: tuple[str, ...]) -> Iterator[Case]:
    """Yield every case of these boards and tops, or of all."""
    for top, entry in TOPS.items():
        for preset in entry.config.PRESETS:
            for board in BOARDS.values():
                if (not boards or board.name in boards) and (not tops or top in tops):
                    yield board, top, preset


def is_built(case: Case) -> bool:
    """Return whether this is the preset that the board has for the top."""
    board, top, preset = case
    return preset == board.presets.get(top, "default")


@functools.cache
def emission(top: str, preset: str) -> Emission:
    """Return a preset's files."""
    return emit(top, TOPS[top].config.preset(preset))


def make(case: Case, console: Console) -> str:
    """Build and note a case; return what became of it."""
    board, top, preset = case
    unit = emission(top, preset)
    try:
        done = build(board, unit, behind_link(unit), folder_of(board, top), SEEDS, console=console)
    except CheckFailed:
        raise
    except UserError as refused:
        note(board, top, preset, {"fits": False, "reason": refused.message})
        return refused.message
    save(done)
    keys = ("resources", "clock", "path", "serial", "timing", "inputs", "sha256")
    note(board, top, preset, {"fits": True, **{k: done.facts[k] for k in keys}})
    return f"{done.wanted:g} MHz, {', '.join(f'{n:,} {k}' for k, n in done.used.items() if n)}"


def command(board: Board, unit: Emission) -> str:
    """Return how a unit is synthesised for a board."""
    return board.family.synthesis(board.pins(), unit.config.large_memory)


@functools.cache
def packed(synthesis: str, top: str, preset: str) -> dict[str, int]:
    """Return the size of a preset, which all boards of one synthesis share."""
    unit = emission(top, preset)
    board = next(b for b in BOARDS.values() if command(b, unit) == synthesis)
    return size(board, unit, behind_link(unit))


def measure(case: Case) -> str:
    """Note by its size whether a case fits; return that."""
    board, top, preset = case
    unit = emission(top, preset)
    given = inputs(board, unit, behind_link(unit), ())
    result = known(board).get(top, {}).get(preset, {})
    if result.get("inputs") != given:
        over = board.over(packed(command(board, unit), top, preset))
        result = {"fits": not over, "reason": ", ".join(over), "inputs": given}
        note(board, top, preset, result)
    return "fits" if result["fits"] else f"does not fit: it needs {result['reason']}"


@click.command(cls=Command)
@click.option("--board", "boards", metavar="BOARD", multiple=True, help="Of this board alone.")
@click.option("--top", "tops", metavar="TOP", multiple=True, help="Of this top alone.")
def main(boards: tuple[str, ...], tops: tuple[str, ...]) -> None:
    """Build every top for every board, with the preset that the board has for it.

    Of the other presets it is noted whether they fit, by their size after packing.
    """
    console = Console(width=None if Console().is_terminal else PIPE_WIDTH, highlight=False)
    failed = []
    found = sorted(cases(boards, tops), key=lambda case: not is_built(case))
    for case in found:
        board, top, preset = case
        try:
            said = make(case, console) if is_built(case) else measure(case)
        except CheckFailed as wrong:
            failed.append(said := wrong.message)
        console.print(f"{board.name}, {top} {preset}: {said}", soft_wrap=True)
    if failed:
        raise CheckFailed(f"{len(failed)} failed; the first: {failed[0]}")


if __name__ == "__main__":
    main(prog_name="python -m boards.every")
