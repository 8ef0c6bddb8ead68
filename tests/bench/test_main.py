import json

import pytest
from click.testing import CliRunner

from bench import __main__ as command
from bench import measure as bench
from bench import table
from bench.grid import PRESET_SEEDS, cases
from hw.tops import TOPS


@pytest.fixture(autouse=True)
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "RESULTS", tmp_path / "results")


def invoke(*arguments):
    return CliRunner().invoke(command.main, arguments)


def test_everything_is_measured_unless_something_is_named():
    assert command.select((), (), ()) == list(cases())
    assert command.select(("lif",), ("default",), ("ecp5",)) == [("lif", "default", "ecp5")]
    tops = {top for top, _, _ in command.select((), ("icebreaker",), ())}
    assert tops == {t for t in TOPS if "icebreaker" in TOPS[t].config.PRESETS}


@pytest.mark.parametrize(
    ("option", "name", "nearest"),
    [("--top", "lift", "lif"), ("--preset", "defult", "default"), ("--device", "ecp", "ecp5")],
)
def test_an_unknown_name_is_told_with_the_nearest(option, name, nearest):
    done = invoke(option, name)
    assert done.exit_code == 2
    assert f"{option}: there is no '{name}'; nearest is {nearest}" in done.output


def test_a_preset_of_another_top_is_unknown():
    assert invoke("--top", "lif", "--preset", "digits").exit_code == 2


def test_a_point_is_chosen_like_a_preset_on_its_devices_alone():
    assert command.select((), ("n64_columns4",), ()) == [("attention", "n64_columns4", "ecp5")]
    done = invoke("--preset", "n64_columns4", "--device", "up5k")
    assert done.exit_code == 2
    assert "n64_columns4 is measured on ecp5 alone" in done.output


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [("default", (), PRESET_SEEDS), ("n64_columns4", (), 1), ("n64_columns4", ("--seeds", "3"), 3)],
)
def test_presets_have_more_seeds_than_points(monkeypatch, name, options, count):
    placed = []
    monkeypatch.setattr(command, "emission", lambda *_: None)
    monkeypatch.setattr(
        command, "measure", lambda unit, name, device, seeds: placed.extend(seeds) or iter([])
    )
    monkeypatch.setattr(command, "describe", lambda _: "")
    invoke("--top", "attention", "--preset", name, "--device", "ecp5", *options)
    assert placed == list(range(1, count + 1))


def test_list_measures_nothing():
    done = invoke("--list", "--top", "lif", "--device", "up5k")
    assert done.exit_code == 0
    assert done.output.count("not measured") == len(TOPS["lif"].config.PRESETS)


def test_json_is_the_results(monkeypatch):
    result = {"top": "lif", "seeds": {}}
    monkeypatch.setattr(command, "emission", lambda *_: None)
    monkeypatch.setattr(command, "measure", lambda *_: iter([result]))
    done = invoke("--top", "lif", "--preset", "default", "--device", "up5k", "--json")
    assert json.loads(done.output) == [result]


@pytest.fixture
def readme(tmp_path, monkeypatch):
    path = tmp_path / "README.md"
    path.write_text("<!-- table:begin -->\n<!-- table:end -->\n")
    monkeypatch.setattr(table, "README", path)
    monkeypatch.setattr(table, "pages", lambda: {path: {"table": "the table\n"}})
    monkeypatch.setattr(table, "stale", list)
    return path


def test_table_writes_the_readme_and_check_does_not(readme):
    before = readme.read_text()
    failed = CliRunner().invoke(table.main, ["--check"])
    assert failed.exit_code == 1
    assert "the table" in failed.output
    assert readme.read_text() == before
    done = CliRunner().invoke(table.main, ["--json"])
    assert json.loads(done.output) == {"changed": ["README.md"]}
    assert readme.read_text() == "<!-- table:begin -->\nthe table\n<!-- table:end -->\n"
    assert CliRunner().invoke(table.main, ["--check"]).exit_code == 0


def test_check_names_stale_data(readme, monkeypatch):
    CliRunner().invoke(table.main)
    monkeypatch.setattr(table, "stale", lambda: ["lif-default-up5k.json: tools changed"])
    failed = CliRunner().invoke(table.main, ["--check"])
    assert failed.exit_code == 1
    assert "tools changed" in failed.output


def test_a_missing_measurement_fails():
    done = CliRunner().invoke(table.main)
    assert done.exit_code == 1
    assert "is not measured on up5k: run `make bench`" in done.output
