"""Attention in numpy and PyTorch, and its error."""

import json
import os
import pathlib
import subprocess
import sys
import types

import numpy as np
import pytest
from click.testing import CliRunner

from bench import attention_error, cpu_attention, gpu_attention, study
from bench.grid import configuration
from bench.table import attention_results
from hw.attention import AttentionConfig
from sim.golden import golden

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def studies(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "STUDIES", tmp_path)
    return tmp_path


SIZES = [("count", 64, 64), ("count", 5, 12), ("count", 196, 64), ("count", 256, 3),
         ("count", 1, 1), ("count", 16, 256), ("sample", 64, 64), ("sample", 128, 16),
         ("sample", 8, 64), ("sample", 1, 2)]  # fmt: skip


@pytest.mark.parametrize(("encoder", "tokens", "size"), SIZES)
@pytest.mark.parametrize("dense", [False, True])
def test_numpy_draws_the_bits_of_golden(encoder, tokens, size, dense):
    sizes = {"timesteps": 3, "tokens": tokens, "head_dim": size}
    q, k, v, *rest = cpu_attention.problem(encoder, **sizes)
    if dense:  # counts up to the bound itself
        q, k, v = (np.ones_like(array) for array in (q, k, v))
    config = AttentionConfig(encoder=encoder, seed=cpu_attention.SEED, **sizes)
    want, _ = golden("attention")(config.asdict(), {"q": q, "k": k, "v": v}, None)
    operator, *_ = cpu_attention.OPERATORS[encoder]
    got = operator(q, k, v, *rest)
    assert got.dtype == np.uint8
    assert np.array_equal(got, want["out"])


def test_times_of_the_cpu_are_kept_until_something_changes(studies, monkeypatch):
    taken = []
    monkeypatch.setattr(cpu_attention, "median_us", lambda encoder: taken.append(encoder) or 1.0)
    assert CliRunner().invoke(cpu_attention.main).exit_code == 0
    assert taken == ["count", "sample"]
    stored = json.loads((studies / "cpu_attention.json").read_text())
    assert stored["median_us"] == {"count": 1.0, "sample": 1.0}
    assert stored["cpu"]
    CliRunner().invoke(cpu_attention.main)
    assert len(taken) == 2
    monkeypatch.setattr(np, "__version__", "0")
    CliRunner().invoke(cpu_attention.main)
    assert len(taken) == 4


def test_a_time_is_measured(monkeypatch):
    monkeypatch.setattr(cpu_attention, "WARM_UP", 1)
    assert cpu_attention.median_us("sample", repeats=3) > 0


def refused():
    done = CliRunner().invoke(gpu_attention.main)
    assert done.exit_code == 2
    assert done.output.count("\n") == 1
    return done.output


def test_without_pytorch_the_gpu_is_refused(monkeypatch, studies):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert "there is no PyTorch here" in refused()
    assert not list(studies.iterdir())


def test_without_a_gpu_it_is_refused(monkeypatch):
    cuda = types.SimpleNamespace(is_available=lambda: False)
    torch = types.SimpleNamespace(cuda=cuda, __version__="2.0")
    monkeypatch.setitem(sys.modules, "torch", torch)
    assert "there is no GPU here that PyTorch 2.0 can use" in refused()


@pytest.mark.oracle
def test_pytorch_draws_the_bits_of_numpy():
    (packages,) = (ROOT / ".venv-oracles" / "lib").glob("python*/site-packages")
    code = (
        "from bench.gpu_attention import checked\n"
        "for encoder in ('count', 'sample'):\n"
        "    for batch in (1, 3):\n"
        "        checked(encoder, batch, 'cpu')\n"
    )
    subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(packages)}, check=True,
    )  # fmt: skip


def test_the_error_is_that_of_independent_bits():
    # Outputs of fair bits are 1 with chance 1/8: over ten steps sqrt(7/64/10).
    parameters = configuration("attention", "n16_columns4").asdict()
    assert attention_error.rms(parameters, inferences=16) == pytest.approx(0.1046, rel=0.1)
    assert attention_error.rms(parameters | {"rng": "sobol"}, inferences=16) < 0.08


def test_every_variant_that_is_measured_has_an_error():
    keys = [tuple(p[key] for key in attention_error.KEYS) for p in attention_error.variants()]
    assert len(set(keys)) == len(keys)
    for result in attention_results().values():
        assert tuple(result["parameters"][key] for key in attention_error.KEYS) in keys


def test_the_errors_are_written(studies, monkeypatch):
    monkeypatch.setattr(attention_error, "rms", lambda parameters: 0.123456)
    assert CliRunner().invoke(attention_error.main).exit_code == 0
    stored = json.loads((studies / "attention_error.json").read_text())
    assert {entry["rms"] for entry in stored["errors"]} == {0.1235}
    assert stored["seed"] == attention_error.SEED
