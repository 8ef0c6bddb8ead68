"""Many inferences through a design at the simulator's own speed.

The bench in SystemVerilog (`gen.testbench`) stands around the design, holds every beat that comes
out against golden, and stalls all ports at random for half of the time. No Python runs meanwhile,
which is some hundred times faster than a cocotb bench.
"""

import concurrent.futures
import dataclasses
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from gen.emit import Emission, write
from gen.errors import CheckFailed
from gen.testbench import bench_files, record
from gen.vectors import unpack
from sim.arrays import shape
from sim.golden import golden
from sim.runner import Design, environment, require, runtime

Arrays = dict[str, np.ndarray]

OPTIONS = (
    "--binary", "--timing", "-Wno-fatal", "-Wno-lint", "-O3",
    # As in cocotb benches: what has no initial value gets a random one.
    "--x-assign", "unique", "--x-initial", "unique",
    "-CFLAGS", "-std=c++20 -O1",
)  # fmt: skip
"""Of Verilator."""


@dataclasses.dataclass(frozen=True)
class Replayed:
    """What a design computed; every beat of it was golden's.

    Attributes
    ----------
    results : list of dict
        The arrays of each inference, as they came out.
    clocks : int
        Of all of it: settings, inferences and stalls.
    """

    results: list[Arrays]
    clocks: int


def replay(
    emission: Emission,
    inferences: Sequence[Arrays],
    length: int,
    through: Callable[[Design], Design] = lambda design: design,
) -> Replayed:
    """Send inferences through a top in Verilator.

    Parameters
    ----------
    emission : Emission
    inferences : sequence of dict
        The arrays of ``--stimulus``; settings are those of the first.
    length : int
        Inferences of one simulation, which begins with a reset.
    through : callable
        What makes of the emitted design that which is simulated, such as its netlist.

    Raises
    ------
    CheckFailed
        A beat is not golden's, or Verilator refuses the design.
    UserError
        Verilator is not installed.
    """
    require("verilator")
    model = golden(emission.top)
    source = emission.manifest["files"]["verilog"]
    design = through(Design(emission.name, {source: emission.verilog}))
    bench = f"{emission.name}_tb"
    with (
        tempfile.TemporaryDirectory(prefix="spikewright_") as name,
        concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool,
    ):
        folder = Path(name)
        built: dict[str, Path] = {}
        runs = []
        for begin in range(0, len(inferences), length):
            files = bench_files(emission, model, given=inferences[begin : begin + length])
            text = files.pop(f"{bench}.sv")
            if text not in built:  # the last one may be shorter
                built[text] = _build(design, bench, text, folder / f"built{begin}")
            place = folder / f"run{begin}"
            place.mkdir()
            write(files, place)
            runs.append(pool.submit(_run, built[text], place, emission))
        done = [run.result() for run in runs]
    results = [arrays for some, _ in done for arrays in some]
    return Replayed(results, sum(clocks for _, clocks in done))


def _build(design: Design, bench: str, text: str, folder: Path) -> Path:
    """Return the program of a bench around a design."""
    folder.mkdir()
    sources = [name for name in design.files if not name.endswith(".vh")]
    write({**design.files, f"{bench}.sv": text}, folder)
    command = ["verilator", *OPTIONS, "-I.", "--top-module", bench, *sources, f"{bench}.sv"]
    with environment("verilator"), runtime(folder / "obj_dir", *OPTIONS):
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if "rror" in line] or ["no message"]
        raise CheckFailed(f"Verilator refuses {design.name}: {said[0]}")
    return folder / "obj_dir" / f"V{bench}"


def _run(program: Path, folder: Path, emission: Emission) -> tuple[list[Arrays], int]:
    """Run a bench on the vectors in a folder; return the arrays of each inference, and clocks."""
    done = subprocess.run(
        [program, "+record"], cwd=folder, capture_output=True, text=True, check=False
    )
    passed = re.match(r"PASS: .*: (\d+) inferences, (\d+) clocks", done.stdout)
    if done.returncode or not passed:
        said = [line for line in done.stdout.splitlines() if line.startswith("FAIL")]
        raise CheckFailed((said or [f"the simulation ended with {done.returncode}"])[0])
    count, config = int(passed[1]), emission.config
    streams = {s.name: s for s in config.streams}
    came = {}
    for name, array in config.result.items():
        text = (folder / record(emission.name, array.stream)).read_text()
        values = unpack(streams[array.stream], [int(word, 16) for word in text.split()])
        dtype = np.uint8 if (array.low, array.high) == (0, 1) else np.int64
        came[name] = values.astype(dtype).reshape(count, *shape(config, array))
    results = [{name: values[b] for name, values in came.items()} for b in range(count)]
    return results, int(passed[2])
