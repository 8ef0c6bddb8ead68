"""How much room a design takes, and where one would fit that is too large for a board."""

import functools
from collections.abc import Iterator

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from boards.build import size
from boards.catalogue import BOARDS, Board
from boards.shell import behind_link
from gen.emit import Emission, emit
from hw.config import Config, divisors
from hw.transformer import TransformerConfig


@functools.cache
def emission(top: str, config: Config) -> Emission:
    """Return a configuration's files."""
    return emit(top, config)


def command(board: Board, config: Config) -> str:
    """Return how a configuration is synthesised for a board."""
    return board.family.synthesis(board.pins(), config.large_memory)


@functools.cache
def _packed(synthesis: str, top: str, config: Config) -> dict[str, int]:
    """Return the size of a configuration, which all boards of one synthesis share."""
    unit = emission(top, config)
    board = next(b for b in BOARDS.values() if command(b, config) == synthesis)
    return size(board, unit, behind_link(unit))


def lacking(board: Board, top: str, config: Config) -> list[str]:
    """Return what a board has too little of for a configuration, in words; nothing is placed."""
    return board.over(_packed(command(board, config), top, config))


def _narrower(config: TransformerConfig) -> Iterator[TransformerConfig]:
    """Yield a network with fewer outputs at a time, which computes the same in more clocks."""
    for lanes in reversed(divisors(config.lanes)[:-1]):
        yield config.replace(lanes=lanes)


def what_would_fit(board: Board, config: TransformerConfig, console: Console) -> str:
    """Return in words how a network that is too large for a board would fit.

    Nothing of the model is changed: either it has fewer outputs at a time, or it goes onto another
    board.

    Parameters
    ----------
    board : Board
    config : TransformerConfig
    console : Console
        Where progress is shown, on a terminal as it goes: every size is of a synthesis of its own.
    """
    if not console.is_terminal:
        console.print("Looking for what would fit: a synthesis for each size and family, minutes")
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None)
        for other in _narrower(config):
            progress.update(task, description=f"{board.name} with lanes={other.lanes}")
            if not lacking(board, "transformer", other):
                return f"with --set lanes={other.lanes} it would"
        roomier = []
        for name in BOARDS:
            progress.update(task, description=name)
            if name != board.name and not lacking(BOARDS[name], "transformer", config):
                roomier.append(name)
    if roomier:
        return f"it would fit {', '.join(roomier)}"
    return "it fits no board that there is: train one with fewer channels, hidden or blocks"
