"""The demo's last step: the digits through a whole board, over its simulated serial port."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from boards.catalogue import BOARDS
from boards.host import Board
from boards.stage import Checks, Steps
from boards.virtual import VirtualBoard
from gen import report
from gen.emit import Emission

BOARD = "icebreaker"


@dataclasses.dataclass(frozen=True)
class Wired:
    """What the report shows.

    Attributes
    ----------
    inferences, beats_in, beats_out : int
    baud : int
        Bits a second.
    """

    inferences: int
    beats_in: int
    beats_out: int
    baud: int


def send(
    emission: Emission, batch: Mapping[str, np.ndarray], want: np.ndarray, steps: Steps,
    check: Checks,
) -> Wired:  # fmt: skip
    """Send spikes through a board from reset on; `want` is what came out of the unit alone.

    Raises
    ------
    CheckFailed
        The board does not answer.
    """
    config, top = emission.config, emission.top
    with (
        steps(f"{BOARD}: {len(want)} digits over its serial port, simulated from pin to pin"),
        VirtualBoard(BOARDS[BOARD], emission) as there,
        Board(BOARD, there.port, top, "default", config.asdict()) as board,
    ):
        came = board.run(**batch)["out"]
        done = board.report
        wired = Wired(done.inferences, done.beats_in, done.beats_out, board.baud)
    wrong = int(np.count_nonzero(came != want))
    check(f"{BOARD}, over its serial port: {came.size:,} outputs, {wrong} differ from golden",
          wrong == 0)  # fmt: skip
    return wired


def section(wired: Wired, emission: Emission) -> report.Section:
    """Return the section of the report."""
    return report.Section(
        "Over the serial port",
        f"The same Verilog behind the host link, on the pins of {BOARDS[BOARD].title}: the whole "
        "top of the board, its pads and its reset too, simulated behind a pseudo-terminal. The "
        "program that talks to a board (`python -m boards.host`) sent the spikes to it and took "
        "the answers.",
        [
            report.Figure(
                report.diagram(
                    [
                        [report.Block("boards.host", ["packets, CRC-32"])],
                        [report.Block("UART", [f"{wired.baud:,} baud"], hardware=True)],
                        [report.Block("link", ["sent again if lost"], hardware=True)],
                        [report.Block(emission.name, ["the emitted Verilog"], hardware=True)],
                    ],
                    [["rx, tx"], ["bytes"], ["beats"]],
                ),
                f"{wired.inferences} inferences: {wired.beats_in:,} beats there, "
                f"{wired.beats_out:,} back.",
                860,
            )
        ],
    )
