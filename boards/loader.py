"""Put a bitstream on a board: openFPGALoader."""

from pathlib import Path

from boards.catalogue import Board
from boards.nextpnr import tool
from gen.errors import CheckFailed

PROGRAM = "openfpgaloader-cli"

LIBRARIES = "libftdi1-2 and libusb-1.0-0 (Debian's names)"


def load_onto(board: Board, bitstream: Path, cable: str | None = None) -> None:
    """Load a bitstream into the device of a board that is attached to this machine.

    Parameters
    ----------
    board : Board
    bitstream : Path
    cable : str, optional
        The programmer, as openFPGALoader calls it, of a board that has none of its own.

    Raises
    ------
    UserError
        openFPGALoader is not beside the running Python.
    CheckFailed
        A library of the system is missing, no board answers, or it can't be loaded.
    """
    done = tool(
        PROGRAM,
        *board.loader,
        *(("-c", cable) if cable else ()),
        bitstream.name,
        cwd=bitstream.parent,
    )
    if not done.returncode:
        return
    said = f"{done.stdout}\n{done.stderr}"
    lines = [line.strip() for line in said.splitlines() if line.strip()] or ["no output"]
    if "shared librar" in said:
        raise CheckFailed(f"openFPGALoader does not start: install {LIBRARIES}: {lines[-1]}")
    silent = "not found" in said.lower()
    what = f"no {board.title} answers" if silent else f"{board.title} is not loaded"
    raise CheckFailed(f"{what}: openFPGALoader says: {lines[-1]}")
