"""What was built: figures of every board and top, kept as data."""

import json
from pathlib import Path
from typing import Any

from boards.catalogue import Board
from gen.emit import write
from gen.manifest import digest
from hw.config import Config

BUILT = Path("build/boards")
"""Where bitstreams lie if the user does not say where."""

RESULTS = Path(__file__).parent / "results"

Result = dict[str, Any]
"""What became of a preset: `fits`; `reason` if it does not; figures if it was built."""

Results = dict[str, dict[str, Result]]
"""By top and preset."""


def folder_of(board: Board, top: str, config: Config) -> Path:
    """Return the folder of a bitstream where the user names none: every configuration has its own.

    It is called after board and top if it is the preset that the board has for the top, after
    another preset as well, or else after the parameters' digest.
    """
    presets = [board.presets[top], *config.PRESETS]
    names = (name for name in presets if type(config).preset(name) == config)
    name = next(names, None) or digest(config.asdict())[:8]
    return BUILT / f"{board.name}_{top}{'' if name == board.presets[top] else f'_{name}'}"


def known(board: Board) -> Results:
    """Return what is stored of a board."""
    path = RESULTS / f"{board.name}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def of(board: Board, top: str, preset: str) -> Result:
    """Return what is stored of a preset, empty if nothing is."""
    return known(board).get(top, {}).get(preset, {})


def note(board: Board, top: str, preset: str, result: Result) -> None:
    """Store what became of a preset."""
    results = known(board)
    results.setdefault(top, {})[preset] = result
    write({f"{board.name}.json": json.dumps(results, indent=1, sort_keys=True) + "\n"}, RESULTS)
