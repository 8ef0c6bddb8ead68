import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from gen.emit import write
from sim.__main__ import main
from sim.golden import golden
from tests.sim.benches import ALL_SIMULATORS, emitted

LIF = "neurons=10 lanes=4"
SMALL = ["--top", "lif", "--set", "neurons=10", "--set", "lanes=4", "--simulator", "icarus"]
RNG = np.random.default_rng(1)
CURRENT = RNG.integers(-128, 128, (3, 4, 10))


def sim(*arguments, exit_code=0):
    done = CliRunner().invoke(main, [str(a) for a in arguments])
    assert done.exit_code == exit_code, done.output
    return done


def error(*arguments, exit_code=2):
    """Run the command, which must fail with one line; return it."""
    done = sim(*arguments, exit_code=exit_code)
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ")
    return done.stderr


@pytest.fixture
def stimulus(tmp_path):
    np.savez(tmp_path / "in.npz", current=CURRENT)
    return tmp_path / "in.npz"


@pytest.fixture
def written(tmp_path):
    """A file of gen's, which has no trace of the membrane."""
    write(emitted("lif", LIF).files, tmp_path)
    return tmp_path / "lif.v"


@pytest.mark.icarus
def test_bench():
    done = sim(*SMALL, "--seed", 3)
    assert done.stderr == ""
    assert done.stdout == ("lif: icarus, seed 3: 16 tests passed, 0 failed, 11 do not apply\n")
    facts = json.loads(sim(*SMALL, "--format", "sv", "--json").stdout)
    assert facts["passed"] == 16
    assert facts["parameters"]["trace"] is True
    assert {test["status"] for test in facts["tests"]} == {"passed", "skipped"}
    assert sim(*SMALL, "--set", "trace=false", "--json").stdout.count('"trace": false') == 1


@pytest.mark.icarus
@pytest.mark.parametrize("family", ["ice40", "ecp5", "gowin"])
def test_netlist_says_what_it_lacks(family, stimulus):
    done = sim(*SMALL, "--netlist", family, "--stimulus", stimulus)
    assert ("without multipliers" in done.stdout) == (family != "ice40")
    assert "3 inferences as golden has them" in done.stdout


@pytest.mark.parametrize("simulator", ALL_SIMULATORS)
def test_stimulus_and_result(simulator, stimulus, tmp_path):
    result = tmp_path / "deep" / "out.npz"
    done = sim(*SMALL[:-1], simulator, "--stimulus", stimulus, "--result", result, "--json")
    facts = json.loads(done.stdout)
    assert (facts["inferences"], facts["cycles"]) == (3, 36)
    with np.load(result) as found:
        assert sorted(found) == ["cycles", "membrane", "spikes"]
        assert found["cycles"] == 36
        for b, current in enumerate(CURRENT):
            want, _ = golden("lif")(facts["parameters"], {"current": current})
            np.testing.assert_array_equal(found["spikes"][b], want["spikes"])
            np.testing.assert_array_equal(found["membrane"][b], want["membrane"])


@pytest.mark.icarus
def test_random_state_runs_on_over_a_batch(tmp_path):
    arrays = {name: RNG.integers(0, 2, (3, 2, 4, 4), dtype=np.uint8) for name in "qkv"}
    np.savez(tmp_path / "in.npz", **{name: array.astype(bool) for name, array in arrays.items()})
    done = sim(
        "--top", "attention", "--set", "tokens=4", "--set", "head_dim=4", "--set", "timesteps=2",
        "--simulator", "icarus", "--json",
        "--stimulus", tmp_path / "in.npz", "--result", tmp_path / "out.npz",
    )  # fmt: skip
    parameters = json.loads(done.stdout)["parameters"]
    state = None
    with np.load(tmp_path / "out.npz") as found:
        for b in range(3):
            inference = {name: array[b] for name, array in arrays.items()}
            want, state = golden("attention")(parameters, inference, state)
            np.testing.assert_array_equal(found["out"][b], want["out"])


@pytest.mark.icarus
def test_settings_change_within_a_batch(tmp_path):
    arrays = {"current": CURRENT, "threshold": RNG.integers(1, 100, (3, 10)), "bias": [0, 0, -5]}
    np.savez(tmp_path / "in.npz", **arrays)
    loads = ["--set", "threshold_load=neuron", "--set", "bias_load=shared"]
    done = sim(*SMALL, *loads, "--stimulus", tmp_path / "in.npz")
    assert "3 inferences as golden has them, 36 cycles" in done.stdout
    np.savez(tmp_path / "in.npz", current=CURRENT[0])
    sim(*SMALL, *loads, "--stimulus", tmp_path / "in.npz")


@pytest.mark.icarus
def test_file_as_it_stands(written, stimulus, tmp_path):
    result = tmp_path / "out.npz"
    arguments = ["--verilog", written, "--simulator", "icarus", "--stimulus", stimulus]
    sim(*arguments)
    sim(*arguments, "--top", "lif", "--set", "lanes=4")

    # A gate changed by hand: the manifest beside it still says what it should be.
    text = written.read_text()
    old = re.search(r"assign fired\[1\] = .*;", text)[0]
    written.write_text(text.replace(old, "assign fired[1] = 1'h0;"))
    line = error(*arguments, "--result", result, exit_code=1)
    place = np.argwhere(golden_spikes()[:, :, [1, 5, 9]])[0]
    b, t, n = place[0], place[1], [1, 5, 9][place[2]]
    assert line == (
        f"error: spikes[{t}, {n}] of inference {b}: expected 1, got 0; "
        f"{result} holds what came out\n"
    )
    with np.load(result) as found:
        assert not found["spikes"][:, :, 1].any()
        assert found["spikes"][:, :, 0].any()
    assert "tests failed; the first is" in error(*arguments[:-2], exit_code=1)


def golden_spikes():
    parameters = emitted("lif", LIF).config.asdict()
    return np.array([golden("lif")(parameters, {"current": c})[0]["spikes"] for c in CURRENT])


@pytest.mark.icarus
def test_file_without_manifest(written, stimulus):
    written.with_suffix(".json").unlink()
    arguments = ["--verilog", written, "--simulator", "icarus", "--stimulus", stimulus]
    assert "there is no manifest" in error(*arguments)
    done = sim(*arguments, "--top", "lif", "--set", "neurons=10", "--set", "lanes=4")
    assert "no manifest" in done.stdout
    line = error(*arguments, "--top", "lif", "--set", "neurons=10", exit_code=1)
    assert "s_axis_tdata has 32 bits, want 80" in line


@pytest.mark.icarus
def test_file_that_no_simulator_takes(written, stimulus):
    written.write_text(written.read_text().replace("assign fired[0] = ", "assign fired[0] + "))
    arguments = ["--verilog", written, "--simulator", "icarus"]
    assert "lif.v" in error(*arguments)
    assert "lif.v" in error(*arguments, "--netlist", "ice40")


@pytest.mark.icarus
def test_result_that_stops_half_way(written, stimulus, tmp_path):
    text = written.read_text()
    written.write_text(
        text.replace("assign m_axis_tvalid = ", "assign m_axis_tvalid = ~faults_13[0] & ", 1)
        .replace(".faults(faults)", ".faults()")
        .replace("assign faults_13 = faults", "assign faults_13 = s_axis_tdata")
    )
    result = tmp_path / "out.npz"
    line = error(
        "--verilog", written, "--simulator", "icarus", "--stimulus", stimulus, "--result", result,
        exit_code=1,
    )  # fmt: skip
    assert "time steps came out, expected 12" in line
    assert not result.exists()


WRONG_STIMULI = {
    "shape": ({"current": CURRENT[:, :, :9]}, "current: want shape [4, 10] (timesteps, neurons)"),
    "axes": ({"current": CURRENT[0, 0]}, "current: want shape"),
    "type": ({"current": CURRENT * 1.0}, "current: want integers or bools, got float64"),
    "objects": ({"current": np.array([None])}, "current: can't be read"),
    "range": ({"current": CURRENT + 1000}, "current: want values in -128..127"),
    "huge": ({"current": np.full((4, 10), 2**64 - 1, np.uint64)}, "got 18446744073709551615"),
    "empty": ({"current": CURRENT[:0]}, "current: want a batch of at least 1"),
    "missing": ({}, "current: missing"),
    "unknown": ({"current": CURRENT, "currents": CURRENT}, "currents: not an array"),
}


@pytest.mark.icarus
@pytest.mark.parametrize("wrong", WRONG_STIMULI)
def test_wrong_stimulus(wrong, tmp_path):
    arrays, message = WRONG_STIMULI[wrong]
    np.savez(tmp_path / "in.npz", **arrays)
    result = tmp_path / "out.npz"
    line = error(*SMALL, "--stimulus", tmp_path / "in.npz", "--result", result)
    assert message in line
    assert not result.exists()


@pytest.mark.icarus
def test_batches_of_different_lengths(tmp_path):
    arrays = {name: np.zeros((b, 4, 16, 16), int) for name, b in (("q", 2), ("k", 2), ("v", 3))}
    np.savez(tmp_path / "in.npz", **arrays)
    arguments = ["--top", "attention", "--simulator", "icarus", "--stimulus", tmp_path / "in.npz"]
    assert "v: want a batch of 2 as q has, got a batch of 3" in error(*arguments)
    np.savez(tmp_path / "in.npz", **(arrays | {"v": arrays["v"][0]}))
    assert "v: want a batch of 2 as q has, got no batch axis" in error(*arguments)


@pytest.mark.icarus
def test_wrong_requests(tmp_path, stimulus, written):
    (tmp_path / "text.npz").write_text("no arrays")
    np.save(tmp_path / "single.npy", CURRENT)
    (tmp_path / "cut.npz").write_bytes(stimulus.read_bytes()[:100])
    for path, message in [
        ("nowhere.npz", "No such file"),
        (".", "Is a directory"),
        ("text.npz", "not an .npz file"),
        ("cut.npz", "not an .npz file"),
        ("single.npy", "single array"),
    ]:
        line = error(*SMALL, "--stimulus", tmp_path / path)
        assert message in line
        assert str(tmp_path / path) in line
    taken = tmp_path / "taken"
    taken.write_text("")
    line = error(*SMALL, "--stimulus", stimulus, "--result", taken / "out.npz")
    assert "can't write" in line
    assert "want --stimulus" in error(*SMALL, "--result", tmp_path / "out.npz")
    assert "nearest is lif" in error("--top", "lfi")
    assert "--top is missing" in error()
    assert "nearest is neurons" in error("--top", "lif", "--set", "neuron=3")
    assert "modelsim" in error("--top", "lif", "--simulator", "modelsim")
    assert "suffix" in error("--verilog", written, "--format", "sv")
    assert "No such file" in error("--verilog", tmp_path / "nowhere.v")
    assert "want a file .v or .sv" in error("--verilog", stimulus)
    assert "is of lif, got attention" in error("--verilog", written, "--top", "attention")
    assert "lanes: " in error("--verilog", written, "--set", "lanes=2")
    written.with_suffix(".json").write_text("{}")
    assert "not a manifest" in error("--verilog", written)
    written.write_text("")
    assert "no module" in error("--verilog", written)


def test_missing_simulator(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert "apt-get install iverilog" in error("--top", "lif", "--simulator", "icarus")
    assert "Verilator needs g++, make, perl" in error("--top", "lif")


@pytest.mark.icarus
def test_parallel_runs_in_another_folder(tmp_path, stimulus):
    command = [sys.executable, "-m", "sim", *SMALL, "--stimulus", stimulus]
    root = str(Path(__file__).parents[2])
    runs = [
        subprocess.Popen(
            command,
            cwd=tmp_path,
            env={"PYTHONPATH": root, "PATH": os.environ["PATH"], "HOME": str(Path.home())},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(2)
    ]
    for process in runs:
        output, _ = process.communicate()
        assert process.returncode == 0, output
        assert output == "lif: icarus: 3 inferences as golden has them, 36 cycles\n"
    (kept,) = (tmp_path / "build" / "sim").iterdir()  # the build, and no run
    assert kept.name.startswith("lif-icarus-")
