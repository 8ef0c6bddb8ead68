import concurrent.futures
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from boards import demo, icebreaker
from boards.simulate import Verdict
from sim.reference import Reference

ROOT = Path(__file__).parents[2]


def golden_played(emission, batch, folder):
    reference = Reference(emission.top, emission.config)
    count = len(next(iter(batch.values())))
    some = [reference.run({n: a[i] for n, a in batch.items()}) for i in range(count)]
    results = {name: np.stack([r[name] for r in some]) for name in some[0]}
    return demo.Played(results, 0, demo.clocks_of(emission, count))


def placed(emission, vectors, folder):
    return icebreaker.Bitstream(
        path=folder / "it.bin",
        netlist=folder / "it.json",
        used={"ICESTORM_LC": 1900, "ICESTORM_RAM": 20, "ICESTORM_DSP": 0},
        clock=27.5,
        wanted=12.0,
        seed=1,
    )


class Threads(concurrent.futures.ThreadPoolExecutor):
    """Threads see what a test has put in the place of a function; processes do not."""

    def __init__(self, workers, mp_context):
        super().__init__(workers)


@pytest.fixture
def quick(monkeypatch):
    """Let everything that takes long say what it should, but for the Verilog."""
    monkeypatch.setattr(demo, "DIGITS", 1)
    monkeypatch.setattr(demo, "play", golden_played)
    monkeypatch.setattr(demo, "place", placed)
    monkeypatch.setattr(demo.concurrent.futures, "ProcessPoolExecutor", Threads)
    monkeypatch.setattr(
        demo,
        "simulate",
        lambda b, _: Verdict("spoilt" not in str(b.path), "spoilt" in str(b.path), 9),
    )


def demonstrate(folder):
    result = CliRunner().invoke(demo.main, ["--out", str(folder)])
    return result.exit_code, result.output, (folder / "report.html").read_bytes()


def test_same_bytes_each_time_and_exit_0(quick, tmp_path):
    code, output, page = demonstrate(tmp_path / "a")
    assert code == 0
    assert output.rstrip().endswith("report.html")
    assert "all checks passed" in page.decode()
    assert "not yet been run on a board" in page.decode()
    assert demonstrate(tmp_path / "b")[2] == page


def test_a_check_that_fails_is_named_and_exits_1_with_the_report(quick, monkeypatch, tmp_path):
    monkeypatch.setattr(demo, "simulate", lambda *_: Verdict(True, False, 9))
    code, output, page = demonstrate(tmp_path)
    assert code == 1
    assert "FAILED with one bit of the checksum wrong" in output
    assert "a check failed" in page.decode()
    assert '<li class="bad">with one bit of the checksum wrong' in page.decode()


@pytest.mark.slow
def test_the_whole_demo(tmp_path):
    command = [sys.executable, "-m", "boards.demo", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "FAILED" not in done.stdout
    assert (tmp_path / "report.html").stat().st_size > 100_000
