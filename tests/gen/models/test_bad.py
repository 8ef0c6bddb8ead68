"""What can't be imported: one clear line each, and nothing written."""

import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from tests.gen.models import states

ARGS = ("--heads", "4", "--tokens", "6", "--input-range", "0:4")


def state(**settings):
    return states.sdt(np.random.default_rng(0), inputs=3, depth=1, **settings)


def changed(name, change):
    own = state()
    own[name] = change(own[name].copy())
    return own


def test_missing_and_unknown_names(refused):
    own = state()
    del own["block.0.attn.q_bn.running_mean"]
    own["block.0.attn.extra"] = np.ones(3)
    line = refused(own, *ARGS)
    assert "missing: block.0.attn.q_bn.running_mean" in line
    assert "unknown: block.0.attn.extra" in line
    many = {name: array for name, array in state().items() if ".mlp." not in name}
    assert "and 6 more" in refused(many, *ARGS)
    assert "no spiking transformer that is known" in refused({"a.weight": np.ones((2, 2))})


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("block.0.attn.k_conv.weight", lambda x: x[:, :8], ["want shape [16, 16]", "[16, 8]"]),
        ("block.0.attn.k_conv.weight", lambda x: x[0, 0, 0], ["want a matrix"]),
        ("block.0.attn.k_bn.bias", lambda x: x[:3], ["want shape [16]", "[3]"]),
        ("block.0.mlp.fc2_conv.weight", lambda x: x[:, :9], ["want shape [16, 32]", "[16, 9]"]),
        ("head.weight", lambda x: x[:, :7], ["want shape [5, 16]", "[5, 7]"]),
        ("head.weight", lambda x: x * np.nan, ["head.weight", "80 of 80", "NaN"]),
        ("head.bias", lambda x: x + np.inf, ["head.bias", "infinite"]),
        ("block.0.attn.k_bn.running_var", lambda x: -x, ["a variance of -"]),
        ("block.0.attn.k_conv.weight", lambda x: 0 * x, ["block.0.attn.k", "weights are zero"]),
        ("block.0.mlp.fc2_conv.weight", lambda x: x * 1e-9, ["mlp.fc2", "become zero"]),
        ("block.0.attn.q_bn.bias", lambda x: x - 100, ["block.0.attn.q_lif", "no input makes"]),
        ("head.bias", lambda x: x + 1e9, ["head", "biases of"]),
    ],
)  # fmt: skip
def test_numbers_that_are_wrong(refused, name, change, words):
    line = refused(changed(name, change), *ARGS)
    assert all(word in line for word in words), line


def test_a_threshold_that_nothing_reaches(refused):
    line = refused(state(), *ARGS, "--v-threshold", "64")
    assert "patch_embed" not in line
    assert "no input makes it fire" in line


def test_attention_whose_threshold_is_over_all_sums(refused):
    own = states.spikformer(np.random.default_rng(0), inputs=3, depth=1)
    line = refused(own, *ARGS, "--attention-threshold", "4")
    assert "block.0.attn.sdsa: no input makes it fire: a current reaches 24" in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--heads", "3"), ["--heads", "16 channels", "3"]),
        (("--skip", "rpe"), ["--skip", "rpe", "patch_embed, head"]),
        (("--skip", "patch_embed", "--heads", "4"), ["--input-range: missing"]),
        (("--heads", "4", "--input-range", "4"), ["LOW:HIGH"]),
        (("--heads", "4", "--input-range", "4:1"), ["LOW below HIGH"]),
        (("--heads", "4", "--input-range", "0:1", "--input-step", "0"), ["above 0"]),
        (("--heads", "4", "--input-range", "0:1", "--input-step", "9"), ["is nothing in steps"]),
        (("--heads", "4", "--input-range", "0:1", "--pooling", "12"), ["--pooling"]),
        (("--bits", "9"), ["--bits", "4<=x<=8"]),
        (("--family", "v9"), ["--family", "v9"]),
    ],
)  # fmt: skip
def test_options_that_are_wrong(refused, arguments, words):
    line = refused(state(), *arguments)
    assert all(word in line for word in words), line


def test_a_residual_that_leaves_its_bits(refused, call):
    args = ("--heads", "4", "--skip", "patch_embed", "--input-range=-2999:2999",
            "--input-step", "1/16", "--tokens", "6")  # fmt: skip
    assert "--residual-bits" in refused(state(), *args, "--residual-bits", "16")
    done = call(state(), *args)
    assert done.exit_code == 0, done.output
    args = ("--heads", "4", "--input-range", "0:4", "--residual-bits")
    note = "note: block.0.mlp.residual: its residual is"
    assert note not in call(state(), *args, "16").stdout
    assert f"{note} 4 times" in call(state(), *args, "10").stdout


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.npz", None, ["there is no such file"]),
        ("model.onnx", b"x", ["want a file that ends in"]),
        ("model.npz", b"nothing", ["no NumPy archive"]),
        ("model.npz", b"PK\x03\x04", ["no NumPy archive"]),
        ("model.safetensors", b"nothing", ["no file of safetensors"]),
        ("model.h5", b"nothing", ["no graph of NIR"]),
    ],
)
def test_files_that_are_no_model(refused, tmp_path, name, content, words):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    line = refused(name)
    assert all(word in line for word in words), line


def test_a_single_array_and_one_of_words_are_no_model(refused):
    np.save("one.npy", np.ones(3))
    Path("one.npy").rename("one.npz")
    assert "no NumPy archive" in refused("one.npz")
    assert "is not of numbers" in refused({"a": np.array(["x"])})
    np.savez("none.npz")
    assert "there are no arrays" in refused("none.npz")


def test_pytorch_files_without_pytorch(refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    Path("model.pt").write_bytes(b"x")
    line = refused("model.pt")
    assert "PyTorch" in line
    assert ".safetensors or .npz" in line


def test_safetensors_and_parallel_names_are_read(call):
    own = {f"module.{name}": np.asarray(x, np.float32) for name, x in state().items()}
    safetensors.numpy.save_file(own, "model.safetensors")
    done = call("model.safetensors", *ARGS)
    assert done.exit_code == 0, done.output


def test_repconv_is_refused_with_its_reason(rows):
    own = {f"block3.0.attn.{part}_conv.0.body.0.weight": np.ones((2, 2)) for part in "qkv"}
    status, said, _ = rows(own)
    assert status == 1
    assert list(said) == [f"block3.0.attn.{part}_conv" for part in "kqv"]
    assert {row["verdict"] for row in said.values()} == {"unsupported"}
    assert "pads with what normalisation makes of 0" in said["block3.0.attn.q_conv"]["reasons"][0]


def stem(side):
    rng, own = np.random.default_rng(0), state()
    for number, (outputs, inputs) in enumerate([(2, 3), (4, 2), (8, 4), (16, 8)]):
        name, bn = (f"patch_embed.proj_{part}{number or ''}" for part in ("conv", "bn"))
        states.conv(own, name, rng, outputs, inputs, (side, side), False)
        states.bn(own, bn, rng, outputs)
    states.conv(own, "patch_embed.rpe_conv", rng, 16, 16, (side, side), False)
    states.bn(own, "patch_embed.rpe_bn", rng, 16)
    return own


def test_stems_with_convolutions_and_pools_are_said_to_be_unsupported(rows):
    own = stem(3)
    status, said, _ = rows(own, *ARGS, "--allow-approximate")
    assert status == 1
    bad = [name for name, row in said.items() if row["verdict"] == "unsupported"]
    assert len(bad) == 9
    assert all(name.startswith("patch_embed.") for name in bad)
    assert all("--skip patch_embed" in said[name]["reasons"][0] for name in bad)
    assert rows(own, *ARGS, "--skip", "patch_embed")[0] == 0


def test_a_stem_of_matrices_without_pools_is_imported(rows):
    assert rows(stem(1), *ARGS, "--pooling", "0000")[0] == 0
    assert rows(stem(1), *ARGS)[0] == 1


@pytest.mark.parametrize("span", ["0:16", "-1:1"])
def test_matrices_take_eight_bits_without_a_sign(rows, span):
    status, said, _ = rows(state(), *ARGS[:-2], f"--input-range={span}", "--input-step", "1/16",
                           "--allow-approximate")  # fmt: skip
    assert status == 1
    bad = [name for name, row in said.items() if row["verdict"] == "unsupported"]
    assert bad == ["patch_embed.proj"]
