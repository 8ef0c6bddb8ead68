import concurrent.futures
import dataclasses
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console

from boards import demo, driven, routed, wired
from boards.build import Bitstream
from boards.pins import power_on_clocks
from boards.selftest import deadline
from boards.simulate import Verdict
from boards.stage import Steps, clocks_of
from gen.options import resolve
from sim.golden.transformer import transformer
from sim.play import Played
from sim.reference import Reference

ROOT = Path(__file__).parents[2]
SILENT = Console(quiet=True)


def golden_played(emission, batch):
    reference = Reference(emission.top, emission.config)
    count = len(next(iter(batch.values())))
    some = [reference.run({n: a[i] for n, a in batch.items()}) for i in range(count)]
    results = {name: np.stack([r[name] for r in some]) for name in some[0]}
    return Played(results, results, clocks_of(emission, count), "")


class Meter:
    """Count spikes in place of transitions."""

    def __init__(self, emission):
        pass

    def __call__(self, batch):
        return {"flip-flops": 100.0 + sum(array.sum() for array in batch.values()), "LUTs": 0.0}


def placed(emission, vectors, folder):
    used = {"logic cells": (1900, 5280), "block RAMs": (20, 30), "DSPs": (0, 8)}
    facts = {
        "resources": {name: {"used": u, "available": n} for name, (u, n) in used.items()},
        "clock": {"mhz": 12.0, "reached_mhz": 27.5, "seed": 1},
    }
    return Bitstream(folder / "it.bin", folder / "it.json", folder / "placed.json", facts)


def verdict(bitstream, emission):
    spoilt = "spoilt" in str(bitstream.path)
    return Verdict(not spoilt, spoilt, power_on_clocks(12) + deadline(emission.config))


class There:
    """A board behind a port, of which nothing is simulated."""

    def __init__(self, board, emission):
        self.port = board.name

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


class Golden(There):
    """A host's board that answers as golden does."""

    def __init__(self, board, port, top, preset, settings):
        self.top, self.baud = top, 3_000_000
        self.config = resolve(top, preset, [f"{n}={str(v).lower()}" for n, v in settings.items()])
        self.report = SimpleNamespace(beats_in=40_000, beats_out=4_000)

    def run(self, **batch):
        own = [{n: x[b] for n, x in batch.items()} for b in range(len(batch["patches"]))]
        results = [transformer(self.config.asdict(), one)[0] for one in own]
        return {n: np.array([one[n] for one in results]) for n in results[0]}


class Threads(concurrent.futures.ThreadPoolExecutor):
    """Threads see what a test has put in the place of a function; processes do not."""

    def __init__(self, workers, mp_context):
        super().__init__(workers)


def assert_self_contained(page):
    """Nothing is loaded, and no identifier comes twice."""
    loads = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"')\s>]+)""", page)
    assert loads
    assert all(target.startswith(("#", "data:")) for target in loads), set(loads)
    assert "@import" not in page
    assert "<script" not in page
    identifiers = re.findall(r'\sid="([^"]+)"', page)
    assert len(identifiers) == len(set(identifiers))
    assert {target[1:] for target in loads if target.startswith("#")} <= set(identifiers)


@pytest.fixture
def quick(monkeypatch):
    """Let everything that takes long say what it should, but for the Verilog."""
    for name, few in (("DIGITS", 2), ("REPEATS", 16), ("MAP_REPEATS", 16)):
        monkeypatch.setattr(demo, name, few)
    monkeypatch.setattr(demo, "through", golden_played)
    monkeypatch.setattr(driven, "through", golden_played)
    monkeypatch.setattr(routed, "through", golden_played)
    monkeypatch.setattr(driven, "ActivityMeter", Meter)
    monkeypatch.setattr(demo, "place", placed)
    monkeypatch.setattr(demo.concurrent.futures, "ProcessPoolExecutor", Threads)
    monkeypatch.setattr(demo, "simulate", verdict)
    monkeypatch.setattr(wired, "VirtualBoard", There)
    monkeypatch.setattr(wired, "Board", Golden)


def demonstrate(folder):
    result = CliRunner().invoke(demo.main, ["--out", str(folder)])
    return result.exit_code, result.output, (folder / "report.html").read_bytes()


def test_same_bytes_each_time_nothing_loaded_and_exit_0(quick, tmp_path):
    code, output, page = demonstrate(tmp_path / "a")
    assert code == 0
    assert output.rstrip().endswith("report.html")
    assert "all checks passed" in page.decode()
    assert "not yet been run on a board" in page.decode()
    assert demonstrate(tmp_path / "b")[2] == page
    assert_self_contained(page.decode())


def test_a_spike_that_a_board_sends_wrong_is_seen(quick, monkeypatch):
    said = []
    wired.send(Steps(SILENT), lambda what, held: said.append((what, held)))
    assert [held for _, held in said] == [True, True]
    right = Golden.run

    def run(self, **batch):
        results = right(self, **batch)
        results["spikes"][3, -1] ^= 1
        return results

    monkeypatch.setattr(Golden, "run", run)
    wired.send(Steps(SILENT), lambda what, held: said.append((what, held)))
    assert said[2] == (said[0][0].replace(" 0 differ", " 1 differ"), False)
    assert said[3] == said[1]


def test_a_mean_finds_its_expectation_and_a_bias():
    rng = np.random.default_rng(1)
    chance = rng.random((4, 6, 5))
    drawn = rng.random((2000, 4, 6, 5)) < chance
    mean = demo.Mean.of(drawn, chance)
    assert mean.worst < 4
    assert 0.8 < mean.rms / mean.rms_expected < 1.2
    assert demo.Mean.of(drawn, chance * 0.9).worst > demo.WORST
    never = np.zeros_like(chance)
    assert demo.Mean.of(drawn, never).worst == float("inf")
    assert demo.Mean.of(np.zeros_like(drawn), never).worst == 0


def test_checks_that_fail_are_named_and_exit_1_with_the_report(quick, monkeypatch, tmp_path):
    """A verdict that is late, and one that is wrong."""
    right = demo.simulate

    def wrong(bitstream, emission):
        said = right(bitstream, emission)
        return dataclasses.replace(said, passed=True, failed=False, clocks=1 + said.clocks)

    monkeypatch.setattr(demo, "simulate", wrong)
    code, output, page = demonstrate(tmp_path)
    assert code == 1
    assert "FAILED the board's green LED" in output
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
