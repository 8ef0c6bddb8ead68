"""Command: run the test bench of a top, or data of one's own, on its Verilog."""

import contextlib
import dataclasses
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from gen.emit import FORMS, emit
from gen.errors import CheckFailed, Command, UserError
from gen.options import config_class, resolve, top_options
from hw.config import Config, ConfigError
from hw.tops import TOPS
from sim import arrays
from sim.job import Job
from sim.netlist import FAMILIES, synthesise
from sim.play import play
from sim.runner import (
    BENCH,
    SIMULATORS,
    BuildError,
    Design,
    RunError,
    build,
    require,
    run,
)

PATH = click.Path(path_type=Path)

MODULE = re.compile(r"^\s*module\s+(\w+)", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is tested.

    Attributes
    ----------
    top : str
    config : Config
    design : Design
    file : Path, optional
        Where it was read from; None where it was emitted now.
    remarks : tuple of str
        What the user should know of it.
    """

    top: str
    config: Config
    design: Design
    file: Path | None = None
    remarks: tuple[str, ...] = ()


@click.command(cls=Command, help=__doc__)
@top_options
@click.option(
    "--simulator",
    type=click.Choice(SIMULATORS),
    default=SIMULATORS[0],
    show_default=True,
    help="What simulates.",
)
@click.option(
    "--format", "form", type=click.Choice(FORMS), help="Form of the Verilog.  [default: v]"
)
@click.option("--verilog", type=PATH, help="A file that was emitted before, as it stands now.")
@click.option("--netlist", type=click.Choice(list(FAMILIES)), help="Simulate the netlist.")
@click.option("--stimulus", type=PATH, help="Data of your own (.npz) in place of the test bench.")
@click.option("--result", type=PATH, help="Where the results of --stimulus go (.npz).")
@click.option(
    "--seed",
    type=click.IntRange(0, 2**31 - 1),
    default=1,
    show_default=True,
    help="Of the bench's random stimuli and stalls.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result for programs.")
def main(
    top: str | None,
    preset: str | None,
    settings: tuple[str, ...],
    simulator: str,
    form: str | None,
    verilog: Path | None,
    netlist: str | None,
    stimulus: Path | None,
    result: Path | None,
    seed: int,
    as_json: bool,
) -> None:
    """Run the command."""
    if result and not stimulus:
        raise UserError("--result: want --stimulus with it")
    if result:
        arrays.check_target(result)
    require(simulator)
    if verilog:
        if form:
            raise UserError("--format: the suffix of --verilog says it")
        subject = read(verilog, top, preset, settings)
        config = subject.config
    else:
        config = choose(top, preset, settings)
    data = arrays.load(stimulus, config) if stimulus else None

    console = Console(stderr=True)
    if not verilog:
        assert top is not None, "choose has refused it"
        with console.status(f"Emitting {top}"):
            emission = emit(top, config, form=form or FORMS[0])
        files = {emission.manifest["files"]["verilog"]: emission.verilog}
        subject = Subject(top, config, Design(emission.name, files))
    facts: dict[str, Any] = {
        "top": subject.top,
        "parameters": config.asdict(),
        "file": str(subject.file) if subject.file else None,
        "simulator": simulator,
        "netlist": netlist,
        "seed": seed,
    }
    if netlist:
        with console.status(f"Synthesising for {netlist}"):
            subject = synthesised(subject, netlist)
    facts["remarks"] = list(subject.remarks)
    job = Job(subject.top, config.asdict(), seed)
    with console.status(f"Building and running with {simulator}"):
        if data:
            answer = own(subject, simulator, job, *data, result)
        else:
            answer = test(subject, simulator, job)
    report(facts | answer, as_json)


def choose(top: str | None, preset: str | None, settings: tuple[str, ...]) -> Config:
    """Return the configuration with all there is to see, where the user did not say otherwise."""
    cls = config_class(top)
    chosen = {setting.partition("=")[0].strip() for setting in settings}
    chosen |= set(cls.PRESETS.get(preset or "default", ()))
    more = [
        f"{name}={str(value).lower()}"
        for name, value in cls.SIM_SETTINGS.items()
        if name not in chosen
    ]
    return resolve(top, preset, [*settings, *more])


def read(path: Path, top: str | None, preset: str | None, settings: tuple[str, ...]) -> Subject:
    """Return a top from a file, with the parameters of the manifest beside it or of the options."""
    if path.suffix[1:] not in FORMS:
        raise UserError(f"--verilog: want a file .v or .sv, got {path}")
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as wrong:
        reason = wrong.strerror if isinstance(wrong, OSError) else "not a text"
        raise UserError(f"--verilog: can't read {path}: {reason}") from wrong
    names = MODULE.findall(text)
    if not names:
        raise UserError(f"--verilog: there is no module in {path}")
    # Every other module of a file begins with the name of the top.
    name = min(names, key=len)
    manifest = path.with_suffix(".json")
    remarks: tuple[str, ...] = ()
    if manifest.exists():
        top, config = described(manifest, top, preset, settings)
    elif top is None:
        raise UserError(
            f"--verilog: there is no manifest {manifest}: say with --top, --preset and --set what "
            f"{path.name} is"
        )
    else:
        config = resolve(top, preset, settings)
        remarks = (f"no manifest {manifest}: parameters are those of the options",)
    return Subject(top, config, Design(name, {path.name: text}), path, remarks)


def described(
    path: Path, top: str | None, preset: str | None, settings: tuple[str, ...]
) -> tuple[str, Config]:
    """Return the top and the configuration in a manifest, which the options must not contradict."""
    try:
        manifest = json.loads(path.read_text())
        found, parameters = manifest["top"], manifest["parameters"]
        cls = TOPS[found].config
        config = cls(**parameters)
    except OSError as wrong:
        raise UserError(f"can't read {path}: {wrong.strerror}") from wrong
    except (ValueError, KeyError, TypeError) as wrong:
        reason = str(wrong) if isinstance(wrong, ConfigError) else "not a manifest of a top"
        raise UserError(f"{path}: {reason}") from wrong
    if top not in (None, found):
        raise UserError(f"--top: {path} is of {found}, got {top}")
    if preset or settings:
        asked = resolve(found, preset, settings)
        names = {setting.partition("=")[0].strip() for setting in settings}
        names |= set(cls.PRESETS[preset or "default"])
        for name in sorted(names):
            if getattr(asked, name) != getattr(config, name):
                raise UserError(
                    f"{name}: {path} says {getattr(config, name)!r}, "
                    f"the options say {getattr(asked, name)!r}"
                )
    return found, config


def synthesised(subject: Subject, family: str) -> Subject:
    """Return the netlist of `subject`."""
    try:
        design = synthesise(subject.design, family, large_memory=subject.config.large_memory)
    except CheckFailed as refused:
        if subject.file:
            raise UserError(f"{subject.file}: {refused.message}") from refused
        raise
    remark = FAMILIES[family].remark
    remarks = (*subject.remarks, f"{family} netlist {remark}") if remark else subject.remarks
    return dataclasses.replace(subject, design=design, remarks=remarks)


@contextlib.contextmanager
def refusals(subject: Subject, simulator: str) -> Iterator[None]:
    """Tell what the simulator refuses, or that it ended early."""
    try:
        yield
    except BuildError as refused:
        message = f"{simulator}: {refused}"
        if subject.file:
            raise UserError(message) from refused
        raise CheckFailed(message) from refused
    except RunError as failed:
        raise CheckFailed(f"{simulator}: {failed}") from failed


def test(subject: Subject, simulator: str, job: Job) -> dict[str, Any]:
    """Run the test bench."""
    with refusals(subject, simulator):
        outcomes = run(build(subject.design, simulator), subject.design, simulator, job, BENCH)
    count = {
        status: sum(outcome.status == status for outcome in outcomes)
        for status in ("passed", "failed", "skipped")
    }
    return {**count, "tests": [dataclasses.asdict(outcome) for outcome in outcomes]}


def own(
    subject: Subject,
    simulator: str,
    job: Job,
    batch: arrays.Arrays,
    batched: bool,
    result: Path | None,
) -> dict[str, Any]:
    """Send the user's data through the top; compare and store what comes out."""
    with refusals(subject, simulator):
        played = play(build(subject.design, simulator), subject.design, simulator, job, batch)
    wrong = arrays.mismatch(played.golden, played.results) or played.message
    if result:
        kept = played.results
        if not batched:
            kept = {name: values[0] for name, values in kept.items()}
        arrays.save(result, kept | {"cycles": np.array(played.clocks)})
    if wrong:
        raise CheckFailed(wrong + (f"; {result} holds what came out" if result else ""))
    return {
        "inferences": len(next(iter(batch.values()))),
        "cycles": played.clocks,
        "result": str(result) if result else None,
    }


def report(facts: Mapping[str, Any], as_json: bool) -> None:
    """Print what was found; raise a `CheckFailed` if a test failed."""
    if as_json:
        click.echo(json.dumps(facts, indent=2))
    else:
        print_report(facts)
    failed = [test for test in facts.get("tests", ()) if test["status"] == "failed"]
    if failed:
        total = facts["passed"] + facts["failed"]
        raise CheckFailed(
            f"{len(failed)} of {total} tests failed; the first is {failed[0]['name']}: "
            f"{failed[0]['message']}"
        )


def print_report(facts: Mapping[str, Any]) -> None:
    """Print a summary, and on a terminal a table of the tests."""
    for remark in facts["remarks"]:
        click.echo(remark)
    what = f"{facts['file'] or facts['top']}: {facts['simulator']}"
    if facts["netlist"]:
        what += f", {facts['netlist']} netlist"
    if "tests" not in facts:
        kept = f", {facts['result']}" if facts["result"] else ""
        click.echo(
            f"{what}: {facts['inferences']} inferences as golden has them, "
            f"{facts['cycles']} cycles{kept}"
        )
        return
    if sys.stdout.isatty():
        table = Table("test", "result", "seconds", box=None)
        colours = {"passed": "green", "failed": "red", "skipped": "dim"}
        for test in facts["tests"]:
            shown = {"skipped": "does not apply"}.get(test["status"], test["status"])
            table.add_row(
                test["name"], f"[{colours[test['status']]}]{shown}", f"{test['seconds']:.1f}"
            )
        Console(highlight=False).print(table)
    click.echo(
        f"{what}, seed {facts['seed']}: {facts['passed']} tests passed, {facts['failed']} failed, "
        f"{facts['skipped']} do not apply"
    )


if __name__ == "__main__":
    main(prog_name="python -m sim")
