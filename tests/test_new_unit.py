"""A third unit is one file in hw/, one in sim/golden/ and one line in the registry."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]

UNIT = '''
"""Change of spikes: 1 where a channel differs from the time step before."""

import dataclasses

from amaranth import Module, Mux, Signal
from amaranth.lib import wiring

from hw.config import Array, Config, param
from hw.stream import FaultCounter, FrameGuard, Stream, members


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChangeConfig(Config):
    """Parameters of `Change`."""

    channels: int = param(8, "channels D", low=1, high=64)

    @property
    def streams(self):
        shape = dict(lanes=self.channels, width=1, signed=False, beats=1,
                     elements=self.channels, steps=self.timesteps)
        return (Stream("x", "in", help="spikes", **shape),
                Stream("y", "out", help="changes", **shape))

    @property
    def stimulus(self):
        return {"x": Array(("timesteps", "channels"), 0, 1, "x", "spikes")}

    @property
    def result(self):
        return {"y": Array(("timesteps", "channels"), 0, 1, "y", "changes")}

    latency = 1
    interval = 1

    @property
    def cycles(self):
        return self.timesteps


class Change(wiring.Component):
    """One beat a clock, latency 1."""

    def __init__(self, config):
        self.config = config
        super().__init__(members(config))

    def elaborate(self, platform):
        m = Module()
        m.submodules.guard = guard = FrameGuard(self.config.streams[0])
        m.submodules.faults = faults = FaultCounter(1)
        wiring.connect(m, wiring.flipped(self.x), guard.i)
        before = Signal(self.config.channels)
        now = guard.o.payload.data.as_value()
        m.d.comb += [faults.fault.eq(guard.fault), self.faults.eq(faults.count)]
        m.d.comb += guard.o.ready.eq(~self.y.valid | self.y.ready)
        with m.If(guard.o.ready):
            m.d.sync += self.y.valid.eq(guard.o.valid)
        with m.If(guard.o.ready & guard.o.valid):
            out = self.y.payload.data.as_value()
            m.d.sync += [
                before.eq(now),
                out.eq(now ^ Mux(guard.opening, 0, before)),
                self.y.payload.last.eq(guard.o.payload.last),
                self.y.payload.first.eq(guard.o.payload.first),
            ]
        return m
'''

GOLDEN = '''
"""Golden model of the change of spikes."""

import numpy as np


def change(parameters, arrays, state=None):
    """Return ``y`` [T, D]."""
    x = np.asarray(arrays["x"])
    return {"y": np.diff(x, axis=0, prepend=0) % 2}, None
'''


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Return a copy of the project with the new unit in it."""
    root = tmp_path_factory.mktemp("project")
    for name in ("hw", "gen", "sim"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "hw" / "change.py").write_text(UNIT)
    (root / "sim" / "golden" / "change.py").write_text(GOLDEN)
    registry = root / "hw" / "tops.py"
    text = registry.read_text().replace(
        "from hw.config import Config\n",
        "from hw.change import Change, ChangeConfig\nfrom hw.config import Config\n",
    )
    line = '    "change": Top(ChangeConfig, Change, "change of spikes"),\n}\n'
    registry.write_text(text.removesuffix("}\n") + line)
    return root


def run(tree, *arguments):
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True,
                          check=False)  # fmt: skip


def test_gen_emits_it(tree):
    done = run(tree, "gen", "--top", "change", "--set", "channels=5", "--testbench")
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tree / "build" / "change" / "change.json").read_text())
    assert manifest["parameters"] == {"channels": 5, "timesteps": 4}
    assert "change of spikes" in run(tree, "gen", "--list").stdout


def test_sim_runs_every_bench_on_it(tree):
    done = run(tree, "sim", "--top", "change", "--set", "channels=5", "--json")
    assert done.returncode == 0, done.stdout + done.stderr


def test_sim_runs_the_users_data_through_it(tree):
    x = np.random.default_rng(1).integers(0, 2, (4, 8))
    np.savez(tree / "in.npz", x=x)
    done = run(tree, "sim", "--top", "change", "--stimulus", "in.npz", "--result", "out.npz")
    assert done.returncode == 0, done.stdout + done.stderr
    with np.load(tree / "out.npz") as result:
        np.testing.assert_array_equal(result["y"], np.diff(x, axis=0, prepend=0) % 2)
        assert result["cycles"] == 4
