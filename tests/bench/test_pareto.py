import os
import subprocess
import sys
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from bench import measure, pareto, study
from bench.attention_error import KEYS
from bench.grid import configuration

NAMES = ("paper_small", "n64_columns16", "n16_columns4", "sample", "n64_sobol", "n64_columns64")


def result(name, index):
    config = configuration("attention", name)
    # The last has no clock rate.
    rates = [] if name == NAMES[-1] else [50.0 + seed for seed in range(1 + index % 3)]
    return {
        "top": "attention",
        "preset": name,
        "device": "ecp5",
        "cells": {"lut4_equivalents": 1000 * (index + 1)},
        "seeds": {str(i + 1): {"mhz": rate} for i, rate in enumerate(rates)},
        "parameters": config.asdict(),
        "timing": {"cycles": config.cycles},
    }


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Store results and errors, and return the place of the figure."""
    monkeypatch.setattr(measure, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(study, "STUDIES", tmp_path / "studies")
    monkeypatch.setattr(pareto, "FIGURE", tmp_path / "figure.svg")
    errors = []
    for index, name in enumerate(NAMES):
        found = result(name, index)
        measure.save(found)
        errors.append({key: found["parameters"][key] for key in KEYS} | {"rms": 0.1})
    study.save_study("attention_error", {"timesteps": 10, "errors": errors})
    return tmp_path / "figure.svg"


def test_the_figure_is_the_same_bytes_and_well_formed(data):
    assert CliRunner().invoke(pareto.main).exit_code == 0
    first = data.read_bytes()
    assert ElementTree.fromstring(first).tag.endswith("svg")
    data.unlink()
    assert CliRunner().invoke(pareto.main).exit_code == 0
    assert data.read_bytes() == first


def test_what_is_not_measured_is_named(data):
    done = CliRunner().invoke(pareto.main)
    assert "not measured and not drawn: n16_columns1, " in done.stderr
    assert "n64_sobol" not in done.stderr


def test_without_data_there_is_nothing_to_draw(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "STUDIES", tmp_path)
    done = CliRunner().invoke(pareto.main)
    assert done.exit_code == 1
    assert "run `make bench`" in done.output


def test_labels_say_the_folding():
    assert pareto.label(result("n64_columns16", 0)) == "1 × 16"
    assert pareto.label(result("n64_beat2", 0)) == "2 × 64"
    assert pareto.label(result("sample", 0)) == "sample"


def test_the_front_has_no_place_that_another_beats():
    places = [(3, 1.0), (1, 9.0), (2, 9.5), (2, 4.0), (4, 1.0)]
    assert pareto.front(places) == [(1, 9.0), (2, 4.0), (3, 1.0)]


@pytest.mark.slow
def test_the_stored_figure_is_that_of_the_data_under_any_hash_seed():
    before = pareto.FIGURE.read_bytes()
    subprocess.run(
        [sys.executable, "-m", "bench.pareto"],
        cwd=pareto.ROOT, env={**os.environ, "PYTHONHASHSEED": "7"}, check=True, capture_output=True,
    )  # fmt: skip
    assert pareto.FIGURE.read_bytes() == before
