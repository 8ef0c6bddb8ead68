"""What has been looked at since the sources or the tools were changed.

What a bitstream follows from takes a second to find out, and there are hundreds of cases.
"""

import json
from pathlib import Path

from boards.build import digest, load
from boards.catalogue import Board
from boards.results import BUILT, Result, folder_of, note, of
from gen.emit import write
from hw.tops import TOPS

ROOT = Path(__file__).parents[1]


def sources() -> str:
    """Return the digest of all that may be of influence: sources and the list of the tools."""
    files = [f for part in ("hw", "gen", "boards") for f in (ROOT / part).rglob("*.py")]
    files += [ROOT / "boards" / "pads.v", ROOT / "requirements.lock"]
    return digest("".join(digest(file.read_bytes()) for file in sorted(files)))


def _mark(result: Result) -> str:
    return digest(json.dumps(result, sort_keys=True))


class Looked:
    """Results that hold, kept in a file beside the bitstreams."""

    def __init__(self) -> None:
        self._file = BUILT / "every.json"
        self._sources = sources()
        try:
            stored = json.loads(self._file.read_text())
        except (OSError, ValueError):
            stored = {}
        same = stored.get("sources") == self._sources
        self._marks: dict[str, str] = stored["marks"] if same else {}

    def result(self, board: Board, top: str, preset: str) -> Result:
        """Return what is stored of a preset if nothing was changed, nor its bitstream."""
        result = of(board, top, preset)
        if not result or self._marks.get(f"{board.name} {top} {preset}") != _mark(result):
            return {}
        if "sha256" in result:
            there = load(folder_of(board, top, TOPS[top].config.preset(preset)))
            if not there or there.facts["sha256"] != result["sha256"]:
                return {}
        return result

    def note(self, board: Board, top: str, preset: str, result: Result) -> None:
        """Store what became of a preset."""
        if of(board, top, preset) != result:
            note(board, top, preset, result)
        self._marks[f"{board.name} {top} {preset}"] = _mark(result)
        stored = {"sources": self._sources, "marks": self._marks}
        write({self._file.name: json.dumps(stored, indent=1) + "\n"}, self._file.parent)
