import json
import os
import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from gen.__main__ import main
from hw.tops import TOPS


@pytest.fixture
def call(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(main, arguments, prog_name="python -m gen")


def test_list(call):
    done = call("--list")
    assert done.exit_code == 0
    assert [line.split()[0] for line in done.stdout.splitlines()] == list(TOPS)
    assert json.loads(call("--list", "--json").stdout) == {k: t.help for k, t in TOPS.items()}


def test_default_folder_and_files(call):
    done = call("--top", "lif", "--set", "neurons=2")
    assert done.exit_code == 0
    names = ["lif.v", "lif.json", "lif_instance.v", "lif.vlt"]
    assert done.stdout.split() == [f"build/lif/{name}" for name in names]
    assert done.stderr == ""
    assert sorted(os.listdir("build/lif")) == sorted(names)


def test_name_folder_format_and_json(call):
    done = call("--top", "lif", "--set", "neurons=2", "--name", "n2", "--out", "here", "--format",
                "sv", "--json")  # fmt: skip
    result = json.loads(done.stdout)
    assert "here/n2.sv" in result["files"]
    assert result["manifest"] == json.loads(Path("here/n2.json").read_text())


def test_testbench_files(call):
    call("--top", "lif", "--set", "neurons=2", "--testbench", "--out", ".")
    assert {"lif_tb.sv", "lif_tb_current.hex", "lif_tb_spikes.hex"} < set(os.listdir())


@pytest.mark.parametrize("top", TOPS)
def test_help_parameters(call, top):
    text = call("--top", top, "--help-parameters").stdout
    facts = json.loads(call("--top", top, "--help-parameters", "--json").stdout)
    fields = TOPS[top].config.parameters()
    assert [p["name"] for p in facts["parameters"]] == [f.name for f in fields]
    for field in fields:
        row = [field.name, field.type.__name__]
        assert [line.split()[:2] for line in text.splitlines()].count(row) == 1
    for name, preset in TOPS[top].config.PRESETS.items():
        assert facts["presets"][name] == dict(preset)
        assert name in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["--top is missing", "lif"]),
        (["--top", "lift"], ["lift", "lif"]),
        (["--top", "lif", "--preset", "cifra"], ["cifra", "cifar"]),
        (["--top", "lif", "--set", "nuerons=3"], ["nuerons", "neurons"]),
        (["--top", "lif", "--set", "heads=3"], ["heads", "attention"]),
        (["--top", "lif", "--set", "neurons=0"], ["neurons", "1..4194304", "0"]),
        (["--top", "lif", "--set", "neurons"], ["name=value", "neurons"]),
        (["--top", "lif", "--name", "a-b"], ["--name", "a-b"]),
        (["--top", "lif", "--name", "wire"], ["--name", "wire", "keyword"]),
        (["--top", "lif", "--format", "vhdl"], ["--format", "vhdl", "sv"]),
        (["--top", "lif", "--out", "file/folder"], ["can't write", "file"]),
        (["--top", "lif", "--out", "file"], ["can't write", "file"]),
        (["--tops", "lif"], ["--tops", "--top"]),
        (["--help-parameters"], ["--top is missing"]),
        (["lif"], ["lif"]),
    ],
)
def test_wrong_requests(call, arguments, words):
    Path("file").write_text("")
    done = call(*arguments)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    for word in words:
        assert word in done.stderr
    assert os.listdir() == ["file"]


def test_same_bytes_anywhere(generate, tmp_path):
    """Over folders and hash seeds, and outside /tmp as inside."""
    arguments = ["--top", "attention", "--set", "tokens=3", "--testbench", "--out", "out"]
    texts = []
    with tempfile.TemporaryDirectory(dir=Path.home()) as elsewhere:
        for folder, seed in ((tmp_path, 1), (tmp_path / "deep" / "er", 2), (Path(elsewhere), 3)):
            folder.mkdir(parents=True, exist_ok=True)
            for form in ("v", "sv"):
                done = generate(*arguments, "--format", form, cwd=folder, seed=seed)
                assert (done.returncode, done.stderr) == (0, "")
            texts.append({p.name: p.read_bytes() for p in (folder / "out").iterdir()})
    assert texts[0] == texts[1] == texts[2]
    assert {"attention.v", "attention.sv", "attention.json"} < set(texts[0])
