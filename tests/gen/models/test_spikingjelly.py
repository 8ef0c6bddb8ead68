"""The integer model of what SpikingJelly runs live, where nothing is rounded."""

import subprocess
from pathlib import Path

import numpy as np
import pytest

from sim.golden.transformer import network, read

ROOT = Path(__file__).parents[3]
PYTHON = ROOT / ".venv-oracles/bin/python"
ARGS = ("--heads", "4", "--tokens", "9", "--timesteps", "5")


def run(*arguments, status=0):
    done = subprocess.run([PYTHON, *arguments], capture_output=True, text=True, check=False,
                          cwd=ROOT)  # fmt: skip
    assert done.returncode == status, done.stdout + done.stderr
    return done


def recorded(kind, folder):
    run("-m", "tests.gen.models.spikingjelly_network", kind, folder)
    with np.load(folder / "run.npz") as file:
        return file["tokens"], file["out"]


def result_of(tokens):
    model, arrays = read(Path("out"))
    scale = 2.0 ** model["input"]["exponent"]
    whole = np.rint(tokens * scale).astype(int)
    return model, network(model, {**arrays, "tokens": whole})[0]


@pytest.mark.oracle
def test_spiking_self_attention(call, tmp_path):
    tokens, out = recorded("attention", tmp_path)
    done = call("model.npz", *ARGS)
    assert done.exit_code == 0, done.output
    _, result = result_of(tokens)
    np.testing.assert_array_equal(result["proj_lif"], out.swapaxes(2, 3))
    assert 0.02 < out.mean() < 0.98


@pytest.mark.oracle
def test_spike_driven_self_attention(call, tmp_path):
    tokens, out = recorded("sdsa", tmp_path)
    done = call("model.npz", *ARGS, "--input-range=-1:3")
    assert done.exit_code == 0, done.output
    model, result = result_of(tokens)
    want = out.reshape(*out.shape[:3], -1).swapaxes(2, 3)
    np.testing.assert_array_equal(result["residual"] / 2.0 ** model["input"]["exponent"], want)


@pytest.mark.oracle
def test_the_blocks_of_spikformer(call, tmp_path):
    tokens, out = recorded("spikformer", tmp_path)
    with np.load("model.npz") as file:
        state = dict(file) | {"patch_embed.stages.0.conv_bn.block.0.weight": np.ones((2, 3, 3, 3))}
    done = call(state, *ARGS, "--skip", "patch_embed")
    assert done.exit_code == 0, done.output
    model, result = result_of(tokens)
    scale = 2.0 ** model["layers"][-2]["exponent"] * 5 * 9
    np.testing.assert_allclose(result["logits"] / scale, out, rtol=1e-12, atol=1e-12)


@pytest.mark.oracle
def test_a_checkpoint_of_pytorch_is_read(tmp_path):
    """The reader itself, where PyTorch is; the rest of gen is not installed there."""
    recorded("attention", tmp_path)
    code = """
import sys, types
sys.path.insert(0, ".")
errors = types.ModuleType("gen.errors")
errors.UserError = type("UserError", (Exception,), {})
sys.modules["gen.errors"] = errors
from pathlib import Path
import numpy as np
from gen.models.read import read
got = read(Path(sys.argv[1]) / "model.pt")
want = np.load(Path(sys.argv[1]) / "model.npz")
assert set(got) == set(want.files)
assert all((got[name] == want[name]).all() for name in got)
(Path(sys.argv[1]) / "bad.pt").write_bytes(b"nothing")
try:
    read(Path(sys.argv[1]) / "bad.pt")
except errors.UserError as refused:
    print("refused", refused)
"""
    assert "refused" in run("-c", code, tmp_path).stdout
