"""The table of all boards and tops in docs/boards.md, from the figures in ``boards/results``."""

from boards.catalogue import BOARDS, Board
from boards.results import of
from hw.tops import TOPS

NONE = "not built"


def render() -> str:
    """Return the table."""
    lines = [
        " | ".join(("board", *(f"`{top}`" for top in TOPS))),
        " | ".join(["---"] * (1 + len(TOPS))),
        *(
            " | ".join((board.title, *(cell(board, top) for top in TOPS)))
            for board in BOARDS.values()
        ),
    ]
    return "\n".join([*(f"| {line} |" for line in lines), "", CAPTION])


def cell(board: Board, top: str) -> str:
    """Return preset and clock of a bitstream, or why there is none."""
    preset = board.presets[top]
    result = of(board, top, preset)
    if not result:
        return NONE
    if not result["fits"]:
        return f"`{preset}`: {result['reason']}"
    if "clock" not in result:  # it has room, and was only looked at
        return NONE
    clock = result["clock"]
    return (
        f"`{preset}` {clock['mhz']:.1f} "
        f"({clock['min']:.1f} / {clock['median']:.1f} / {clock['max']:.1f})"
    )


CAPTION = (
    "MHz of the bitstream's clock, and least, median and greatest of what the placement seeds "
    "1, 2 and 3 reached. Where there is none: what the device has too little of, or what "
    "place and route said."
)
