"""Designs and benches for the tests of sim."""

import re

import pytest

from gen.emit import Emission, emit
from gen.options import resolve
from sim.job import Job
from sim.runner import BENCH, SIMULATORS, Design, Outcome, build, run

ALL_SIMULATORS = [
    pytest.param(name, marks=pytest.mark.icarus if name == "icarus" else ()) for name in SIMULATORS
]


def emitted(
    top: str,
    settings: str = "",
    *,
    preset: str | None = None,
    name: str | None = None,
    form: str = "v",
) -> Emission:
    return emit(top, resolve(top, preset, settings.split()), name=name, form=form)


def design(emission: Emission) -> Design:
    return Design(emission.name, {emission.manifest["files"]["verilog"]: emission.verilog})


def bench(
    emission: Emission, tested: Design, simulator: str, *, seed: int = 1, only: str | None = None
) -> list[Outcome]:
    """Run the bench, or a test of it; the design may be another one than the emission's."""
    job = Job(emission.top, emission.config.asdict(), seed)
    name = only and f"{re.escape(only)}$"
    return run(build(tested, simulator), tested, simulator, job, BENCH, only=name)


def failures(outcomes: list[Outcome]) -> dict[str, str]:
    return {o.name: o.message for o in outcomes if o.status == "failed"}
