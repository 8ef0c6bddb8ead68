"""``python -m boards.every``: a bitstream of every top for every board, and which presets fit.

What is built follows from its content: a second run finds everything there. Figures are stored in
``boards/results``.
"""

from collections.abc import Iterator

import click
from rich.console import Console

from boards.build import NoBitstream, TooLarge, build, inputs
from boards.catalogue import BOARDS, Board
from boards.looked import Looked
from boards.results import Result, folder_of, of
from boards.room import emission, lacking
from boards.sheet import PIPE_WIDTH, save
from boards.shell import behind_link
from gen.errors import CheckFailed, Command, UserError
from gen.options import nearest
from hw.tops import TOPS

SEEDS = (1, 2, 3)

Case = tuple[Board, str, str]
"""A board, a top and a preset."""


def cases(boards: tuple[str, ...], tops: tuple[str, ...]) -> Iterator[Case]:
    """Yield every case of these boards and tops, or of all."""
    for option, given, there in (("--board", boards, BOARDS), ("--top", tops, TOPS)):
        for name in given:
            if name not in there:
                raise UserError(f"{option}: there is no {name!r}; {nearest(name, there)}")
    for top, entry in TOPS.items():
        for preset in entry.config.PRESETS:
            for board in BOARDS.values():
                if (not boards or board.name in boards) and (not tops or top in tops):
                    yield board, top, preset


def is_built(case: Case) -> bool:
    """Return whether this is the preset that the board has for the top."""
    board, top, preset = case
    return preset == board.presets.get(top, "default")


def make(case: Case, console: Console) -> Result:
    """Build a case, unless it is known that there is none; return what became of it."""
    board, top, preset = case
    unit = emission(top, TOPS[top].config.preset(preset))
    design = behind_link(unit)
    given = inputs(board, unit, design, SEEDS)
    before = of(board, top, preset)
    if before.get("inputs") == given and not before["fits"]:
        return before
    try:
        folder = folder_of(board, top, unit.config)
        done = build(board, unit, design, folder, SEEDS, console=console)
    except TooLarge as refused:
        return {"fits": False, "reason": refused.reason, "inputs": given}
    except NoBitstream as none:
        return {"fits": False, "reason": none.message, "inputs": given}
    save(done)
    keys = ("resources", "clock", "path", "serial", "timing", "inputs", "sha256")
    return {"fits": True, **{k: done.facts[k] for k in keys}}


def measure(case: Case) -> Result:
    """Return by its size whether a case fits."""
    board, top, preset = case
    unit = emission(top, TOPS[top].config.preset(preset))
    given = inputs(board, unit, behind_link(unit), ())
    before = of(board, top, preset)
    if before.get("inputs") == given:
        return before
    over = lacking(board, top, unit.config)
    return {"fits": not over, "reason": ", ".join(over), "inputs": given}


def said(result: Result) -> str:
    """Return what became of a case, in words."""
    if not result["fits"]:
        return f"no: {result['reason']}"
    if "clock" not in result:
        return "fits"
    used = ", ".join(f"{n['used']:,} {k}" for k, n in result["resources"].items() if n["used"])
    return f"{result['clock']['mhz']:g} MHz, {used}"


@click.command(cls=Command)
@click.option("--board", "boards", metavar="BOARD", multiple=True, help="Of this board alone.")
@click.option("--top", "tops", metavar="TOP", multiple=True, help="Of this top alone.")
def main(boards: tuple[str, ...], tops: tuple[str, ...]) -> None:
    """Build every top for every board, with the preset that the board has for it.

    Of the other presets it is noted whether they fit, by their size after packing.
    """
    console = Console(width=None if Console().is_terminal else PIPE_WIDTH, highlight=False)
    failed = []
    looked = Looked()
    for case in sorted(cases(boards, tops), key=lambda case: not is_built(case)):
        board, top, preset = case
        result = looked.result(*case)
        try:
            if not result:
                result = make(case, console) if is_built(case) else measure(case)
                looked.note(*case, result)
            words = said(result)
        except CheckFailed as wrong:
            failed.append(words := wrong.message)
        console.print(f"{board.name}, {top} {preset}: {words}", soft_wrap=True)
    if failed:
        raise CheckFailed(f"{len(failed)} failed; the first: {failed[0]}")


if __name__ == "__main__":
    main(prog_name="python -m boards.every")
