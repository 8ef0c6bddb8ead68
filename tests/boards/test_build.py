"""A small bitstream for every family, what is refused, and what is found there again."""

import dataclasses
import json
import re
import stat
import sys

import pytest
from click.testing import CliRunner

from boards import build as building
from boards import every, looked, results
from boards.__main__ import main
from boards.build import NoBitstream, TooLarge, build, digest, load, size
from boards.catalogue import BOARDS
from boards.family import Pll
from boards.loader import PROGRAM, load_onto
from boards.nextpnr import NoPlace
from boards.sheet import places, save
from boards.shell import behind_link
from gen.emit import emit
from gen.errors import CheckFailed, UserError
from hw.lif import LifConfig
from hw.tops import TOPS


@pytest.fixture(scope="module")
def emission():
    return emit("lif", LifConfig(neurons=5, lanes=2, timesteps=3))


def make(name, emission, folder, seeds=(1,), **options):
    return build(BOARDS[name], emission, behind_link(emission), folder, seeds, **options)


DIVISORS = {}
"""What the designs of `made` were asked for, by board."""


@pytest.fixture(scope="module", params=["icebreaker", "ulx3s_25f", "tangnano9k"])
def made(request, emission, tmp_path_factory):
    """A bitstream of each family."""
    asked = DIVISORS[request.param] = []
    testing = behind_link(emission)

    def design(divisor):
        asked.append(divisor)
        return testing(divisor)

    folder = tmp_path_factory.mktemp(request.param)
    return build(BOARDS[request.param], emission, design, folder, (1,))


def test_the_report_is_of_the_clock_that_the_pll_is_set_to(made):
    clock = made.facts["clock"]
    assert clock["source"].startswith("PLL from")
    # nextpnr counts in whole picoseconds.
    assert clock["mhz"] <= clock["constraint_mhz"] * 1.0001 <= clock["mhz"] * 1.002
    assert clock["mhz"] <= clock["reached_mhz"]
    log = (made.path.parent / f"place_{made.seed}.log").read_text()
    (asked,) = set(re.findall(r"Max frequency for clock .*\(\w+ at ([\d.]+) MHz\)", log))
    assert float(asked) == pytest.approx(clock["mhz"], rel=0.001)


def test_the_report_says_what_is_used_and_how_long_it_takes(made, emission):
    board = BOARDS[made.facts["board"]]
    assert made.device == {board.family.names[k]: n for k, n in board.resources.items()}
    assert 500 < max(made.used.values()) < 1500
    timing, mhz = made.facts["timing"], made.facts["clock"]["mhz"]
    assert timing["inference_clocks"] == emission.config.cycles
    assert timing["inference_us"] == pytest.approx(emission.config.cycles / mhz, abs=1e-4)
    path = made.facts["path"]["path"]
    assert path
    assert all(re.fullmatch(r"[\w.]+", name) for name in path)
    assert not any(re.search(r"LUT|DFF|TRELLIS|SB_", name) for name in path)


def test_the_divisor_is_that_of_the_clock(made):
    board, serial = BOARDS[made.facts["board"]], made.facts["serial"]
    assert (serial["baud"], serial["divisor"]) == board.divisor(made.wanted)
    assert DIVISORS[board.name][-1] == serial["divisor"]
    assert serial["baud"] * serial["divisor"] / 1e6 == pytest.approx(made.wanted, rel=0.015)


def test_what_is_there_is_not_made_again_unless_it_was_changed(made, emission, monkeypatch):
    name, folder = made.facts["board"], made.path.parent

    class Made(Exception):
        pass

    def run(*_):
        raise Made

    monkeypatch.setattr(building._Work, "run", run)
    assert make(name, emission, folder).facts == made.facts
    for other in (
        {"seeds": (2,)},
        {"pll": False},
    ):
        with pytest.raises(Made):
            make(name, emission, folder, **other)
    other = emit("lif", LifConfig(neurons=5, lanes=2, timesteps=4))
    with pytest.raises(Made):
        make(name, other, folder)
    facts = made.path.parent / building.FACTS
    without = {key: value for key, value in made.facts.items() if key != "inputs"}
    for file, damaged in (
        (made.path, made.path.read_bytes()[:-1] + b"?"),
        (made.placed, None),
        (facts, b"[]"),
        (facts, json.dumps(without).encode()),
    ):
        content = file.read_bytes()
        file.unlink()
        if damaged is not None:
            file.write_bytes(damaged)
        assert load(folder) is None
        with pytest.raises(Made):
            make(name, emission, folder)
        file.write_bytes(content)


@pytest.mark.parametrize("made", ["icebreaker"], indirect=True)
def test_clocks_are_those_that_the_configuration_has_now(made, emission):
    facts = made.path.parent / building.FACTS
    text = facts.read_text()
    facts.write_text(json.dumps({**made.facts, "timing": {"latency_clocks": 1}}))
    assert make("icebreaker", emission, made.path.parent).facts == made.facts
    assert facts.read_text() == text


def test_throughput_is_that_of_whole_inferences():
    """One that takes in its inputs in a hurry is busy with them for long."""
    config = TOPS["encoder"].config.preset("icebreaker")
    timing = building.clocks(config, 32.25)
    assert timing["period_clocks"] == 272_985  # of two inferences in the simulated netlist
    assert timing["inferences_per_second"] == 118
    assert not timing["at_most"]
    assert building.clocks(config.replace(mode="events"), 32.25)["at_most"]


def test_an_interrupted_build_leaves_nothing(emission, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(building._Work, "run", stop)
    with pytest.raises(KeyboardInterrupt):
        make("icebreaker", emission, tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_same_input_same_bytes(made, emission, tmp_path):
    again = make(made.facts["board"], emission, tmp_path / "elsewhere")
    assert again.path.read_bytes() == made.path.read_bytes()
    assert again.facts == made.facts


def test_a_page_with_a_floorplan_that_loads_nothing(made):
    page = save(made).read_text()
    assert f"lif on {made.facts['board']}" in page
    loads = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"')\s>]+)""", page)
    assert all(target.startswith(("#", "data:")) for target in loads)
    cells = sum(len(found) for found in places(made).values())
    assert cells > 200


def test_too_big_is_refused_before_anything_is_placed(emission, tmp_path, monkeypatch):
    monkeypatch.setattr(building._Work, "place", lambda *_: pytest.fail("placed"))
    tiny = dataclasses.replace(
        BOARDS["icebreaker"], resources={"ICESTORM_LC": 128, "ICESTORM_RAM": 30}
    )
    with pytest.raises(TooLarge) as refused:
        build(tiny, emission, behind_link(emission), tmp_path / "new", (1,))
    assert refused.value.exit_code == 2
    assert re.fullmatch(
        r"icebreaker: lif does not fit: it needs logic cells \d+ of 128", refused.value.message
    )
    assert list(tmp_path.iterdir()) == []


def test_sizes_without_placement(emission):
    used = size(BOARDS["hx8k"], emission, behind_link(emission))
    assert 1000 < used["ICESTORM_LC"] < 1500


def resources_in(bitstream):
    """Return what nextpnr says that a device has."""
    log = (bitstream.path.parent / "pack.log").read_text()
    return dict(re.findall(r"^Info: \t *(\w+): +\d+/ *(\d+) ", log, re.M))


def test_what_the_devices_have_is_what_nextpnr_says(made):
    said = resources_in(made)
    board = BOARDS[made.facts["board"]]
    assert {k: int(said[k]) for k in board.resources} == board.resources


@pytest.fixture
def scripted(emission, monkeypatch):
    """Return a build whose placements reach the rates that are given, one list a trial."""

    def run(name, trials, own=None, seeds=(1, 2), **options):
        board = BOARDS[name]
        work = building._Work(board, emission, behind_link(emission), options.get("pll", True))
        rates = iter(trials)
        monkeypatch.setattr(work, "synthesise", lambda *_: None)
        monkeypatch.setattr(work, "check_size", lambda _: {})

        def facts(mhz):
            path = {"path": ["a"], "port": "D", "levels": 1, "logic_ns": 1.0, "routing_ns": 1.0}
            if mhz is None:
                return {"error": "no route"}
            return {"mhz": mhz, "constraint": 1.0, **path}

        first = own if isinstance(own, dict) else dict.fromkeys(seeds, own)
        monkeypatch.setattr(work, "place", lambda seed, *_: facts(first[seed]))
        monkeypatch.setattr(
            work, "place_all",
            lambda seeds, mhz, folder: dict(zip(seeds, map(facts, next(rates)), strict=True)),
        )  # fmt: skip
        family = type(board.family)
        if family.__name__ != "Gowin":
            monkeypatch.setattr(family, "pll", lambda s, p, source, limit, f: Pll(limit, ""))
        monkeypatch.setattr(family, "pack", lambda s, p, seed, target, f: (f / target).touch())
        return lambda folder: work.run(folder, seeds, lambda _: None)

    return run


def test_the_fastest_seed_is_taken(scripted, tmp_path):
    clock = scripted("icebreaker", [[39.0, 41.5, 38.0]], own=40, seeds=(1, 2, 3))(tmp_path)["clock"]
    assert (clock["mhz"], clock["seed"], clock["reached_mhz"]) == (38.0, 2, 41.5)
    assert (clock["min"], clock["median"], clock["max"]) == (38.0, 39.0, 41.5)


def test_the_rate_is_lowered_until_a_seed_keeps_to_it(scripted, tmp_path):
    clock = scripted("icebreaker", [[35.0, None], [33.0, 34.0]], own=40)(tmp_path)["clock"]
    assert (clock["mhz"], clock["seed"]) == (33.25, 2)
    clock = scripted("icebreaker", [[35.0, None]], own=36)(tmp_path)["clock"]
    assert clock["seeds"] == {"1": 35.0, "2": "no route"}


def test_a_rate_that_none_keeps_to_is_told(scripted, tmp_path):
    falling = [[40 * 0.9**k] * 2 for k in range(1, 9)]
    with pytest.raises(NoBitstream, match=r"icebreaker: no seed of \[1, 2\] keeps to"):
        scripted("icebreaker", falling, own=40)(tmp_path)


def test_a_first_seed_without_a_route_is_passed_over(scripted, tmp_path):
    clock = scripted("icebreaker", [[38.0, 39.0]], own={1: None, 2: 40})(tmp_path)["clock"]
    assert (clock["mhz"], clock["seed"]) == (38.0, 2)


def test_what_can_not_be_routed_is_told(scripted, tmp_path):
    with pytest.raises(NoBitstream, match="lif is not placed and routed: no route"):
        scripted("icebreaker", [[None, None]], own=40)(tmp_path)


def test_a_board_without_a_pll_runs_at_its_own_clock_or_not_at_all(scripted, tmp_path):
    clock = scripted("tangmega138k", [[90.0, 80.0]], own=100)(tmp_path)["clock"]
    assert (clock["mhz"], clock["source"]) == (50, "the board's")
    with pytest.raises(NoBitstream, match=r"want 50 MHz, the board's clock.*lif reaches 51\.0"):
        scripted("tangmega138k", [[90.0, 80.0]], own=51)(tmp_path)


def test_a_full_device_is_a_message(emission, tmp_path, monkeypatch):
    work = building._Work(BOARDS["icebreaker"], emission, behind_link(emission), True)

    def full(*_, **__):
        raise NoPlace("no BELs remaining")

    monkeypatch.setattr(building, "nextpnr", full)
    assert work.place(1, 12.0, tmp_path) == {"error": "no BELs remaining"}


def test_what_one_router_does_not_end_the_next_one_does(emission, tmp_path, monkeypatch):
    asked = []

    def routed(*options, **__):
        asked.append(options[options.index("--router") + 1] if "--router" in options else "")
        if asked[-1] != "router2":
            raise NoPlace("not routed within 300 s")
        (tmp_path / "report_1.json").write_text('{"fmax": {"clk": {"constraint": 12.0}}}')

    monkeypatch.setattr(building, "nextpnr", routed)
    monkeypatch.setattr(building, "clock", lambda *_: {"mhz": 30.0})
    for name, error in (("icebreaker", None), ("ulx3s_25f", "not routed within 300 s")):
        asked.clear()
        work = building._Work(BOARDS[name], emission, behind_link(emission), True)
        placed = work.place(1, 12.0, tmp_path)
        assert asked == (["", "router2"] if error is None else ["router1"])
        assert placed.get("error") == error
        assert placed.get("mhz") == (30.0 if error is None else None)


def test_a_folder_that_can_not_be_written(emission, tmp_path):
    place = tmp_path / "file"
    place.write_text("mine")
    with pytest.raises(UserError, match="can't write"):
        make("icebreaker", emission, place / "deeper")
    assert place.read_text() == "mine"


@pytest.fixture
def loader(tmp_path, monkeypatch):
    """Return a function that puts an openFPGALoader beside Python which says and does this."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))

    def says(message, status):
        program = tmp_path / PROGRAM
        program.write_text(f'#!/bin/sh\necho "$@" >asked\necho {message!r} >&2\nexit {status}\n')
        program.chmod(program.stat().st_mode | stat.S_IEXEC)

    return says


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("unable to open ftdi device: -3 (device not found)",
         "no ULX3S 85F answers: openFPGALoader says: unable to open ftdi device: -3 (device not "
         "found)"),
        ("x: error while loading shared libraries: libftdi1.so.2: cannot open",
         "openFPGALoader does not start: install libftdi1-2 and libusb-1.0-0 (Debian's names): x: "
         "error while loading shared libraries: libftdi1.so.2: cannot open"),
        ("wrong IDCODE", "ULX3S 85F is not loaded: openFPGALoader says: wrong IDCODE"),
    ],
)  # fmt: skip
def test_no_board_is_a_clear_word_and_exit_1(loader, message, said, tmp_path):
    loader(message, 1)
    with pytest.raises(CheckFailed) as failed:
        load_onto(BOARDS["ulx3s_85f"], tmp_path / "x.bit")
    assert (failed.value.message, failed.value.exit_code) == (said, 1)


def test_a_board_that_answers_gets_the_bitstream(loader, tmp_path):
    loader("done", 0)
    load_onto(BOARDS["tangnano9k"], tmp_path / "x.fs")
    assert (tmp_path / "asked").read_text().strip() == "-b tangnano9k x.fs"
    load_onto(BOARDS["colorlight"], tmp_path / "x.bit", "dirtyJtag")
    assert (tmp_path / "asked").read_text().strip() == "-b colorlight -c dirtyJtag x.bit"


def test_no_loader_beside_python(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(UserError, match="openfpgaloader-cli: want it beside"):
        load_onto(BOARDS["tangnano9k"], tmp_path / "x.fs")


def test_without_a_board_the_bitstream_is_made_and_the_command_fails(made, monkeypatch):
    monkeypatch.setattr("boards.__main__.build", lambda *_, **__: made)

    def silent(board, path, cable):
        raise CheckFailed(f"no {board.title} answers")

    monkeypatch.setattr("boards.__main__.load_onto", silent)
    done = CliRunner().invoke(main, ["--board", "ulx3s_25f", "--top", "lif", "--program"])
    assert done.exit_code == 1
    assert "no ULX3S 25F answers" in done.output
    assert "not yet run on a board" in done.output


def test_every_configuration_has_a_folder_of_its_own():
    board, config = BOARDS["hx8k"], TOPS["lif"].config
    names = [
        results.folder_of(board, "lif", one).name
        for one in (
            config.preset("cifar"),  # the board's
            config.preset("default"),
            config.preset("default", neurons=64),  # as it is
            config.preset("default", neurons=63),
            config.preset("default", neurons=62),
        )
    ]
    assert names[:3] == ["hx8k_lif", "hx8k_lif_default", "hx8k_lif_default"]
    assert all(re.fullmatch(r"hx8k_lif_[0-9a-f]{8}", name) for name in names[3:])
    assert len(set(names)) == 4


def test_every_board_and_every_top_is_built():
    found = [(case[0].name, case[1]) for case in every.cases((), ()) if every.is_built(case)]
    assert sorted(found) == sorted((b, t) for b in BOARDS for t in TOPS)
    presets = sum(len(TOPS[top].config.PRESETS) for top in TOPS)
    assert len(list(every.cases((), ()))) == presets * len(BOARDS)
    assert {t for _, t, _ in every.cases(("hx8k",), ("lif",))} == {"lif"}
    for wrong, nearest in ((("--board", "hx8"), "hx8k"), (("--top", "liff"), "lif")):
        done = CliRunner().invoke(every.main, wrong)
        assert done.exit_code == 2
        assert done.output.endswith(f"nearest is {nearest}\n")


@pytest.fixture
def noted(emission, made, monkeypatch, tmp_path):
    """Return a function that runs the command for all of a board's `lif`, quickly."""
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(looked, "BUILT", tmp_path / "built")
    monkeypatch.setattr(looked, "folder_of", lambda *_: made.path.parent)
    monkeypatch.setattr(looked, "sources", lambda: "as they are")
    monkeypatch.setattr(every, "emission", lambda *_: emission)
    monkeypatch.setattr(every, "inputs", lambda *_: {"as": "ever"})
    monkeypatch.setattr(every, "lacking", lambda *_: ["logic cells 7681 of 7680"])

    def run(outcome=made):
        def quick(*_, **__):
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        monkeypatch.setattr(every, "build", quick)
        done = CliRunner().invoke(every.main, ["--board", "hx8k", "--top", "lif"])
        assert done.exception is None or isinstance(done.exception, SystemExit)
        return done.exit_code, done.output

    return run


def stored(tmp_path, preset):
    return json.loads((tmp_path / "results" / "hx8k.json").read_text())["lif"][preset]


@pytest.mark.parametrize("made", ["icebreaker"], indirect=True)
def test_what_was_built_is_noted_and_what_does_not_fit_too(noted, tmp_path, made):
    code, output = noted()
    assert code == 0
    assert f"hx8k, lif cifar: {made.wanted:g} MHz, " in output
    assert "hx8k, lif default: no: logic cells 7681 of 7680\n" in output
    assert stored(tmp_path, "cifar")["sha256"] == made.facts["sha256"]
    default = stored(tmp_path, "default")
    assert (default["fits"], default["reason"]) == (False, "logic cells 7681 of 7680")


@pytest.mark.parametrize("made", ["icebreaker"], indirect=True)
def test_a_second_run_looks_at_nothing_again(noted, tmp_path, made, monkeypatch):
    first = noted()
    monkeypatch.setattr(every, "inputs", lambda *_: pytest.fail("looked at again"))
    assert noted(CheckFailed("built again")) == first
    monkeypatch.setattr(every, "inputs", lambda *_: {"as": "ever"})
    monkeypatch.setattr(looked, "sources", lambda: "changed")
    monkeypatch.setattr(every, "lacking", lambda *_: pytest.fail("synthesised again"))
    assert noted() == first
    content = made.path.read_bytes()
    made.path.write_bytes(content[:-1] + b"?")
    assert "cifar: built again" in noted(CheckFailed("built again"))[1]
    # One with other seeds is as whole, and not what is noted.
    facts = made.path.parent / building.FACTS
    text = facts.read_text()
    facts.write_text(text.replace(made.facts["sha256"], digest(made.path.read_bytes())))
    assert load(made.path.parent)
    assert "cifar: built again" in noted(CheckFailed("built again"))[1]
    made.path.write_bytes(content)
    facts.write_text(text)
    assert noted(CheckFailed("built again")) == first
    file = tmp_path / "results" / "hx8k.json"
    file.write_text(file.read_text().replace(made.facts["sha256"], "other"))
    assert "cifar: built again" in noted(CheckFailed("built again"))[1]


@pytest.mark.parametrize("made", ["icebreaker"], indirect=True)
@pytest.mark.parametrize(
    ("why", "reason"),
    [
        (TooLarge(BOARDS["hx8k"], "lif", "DSPs 9 of 8"), "DSPs 9 of 8"),
        (NoBitstream("hx8k: lif is not placed and routed"), "hx8k: lif is not placed and routed"),
    ],
)
def test_what_can_not_be_had_is_noted_and_not_tried_again(noted, tmp_path, why, reason):
    first = noted(why)
    assert first[0] == 0
    assert f"hx8k, lif cifar: no: {reason}\n" in first[1]
    assert stored(tmp_path, "cifar") == {"fits": False, "reason": reason, "inputs": {"as": "ever"}}
    (tmp_path / "built" / "every.json").unlink()
    assert noted(CheckFailed("built again")) == first


@pytest.mark.parametrize("made", ["icebreaker"], indirect=True)
def test_a_tool_that_fails_is_no_result(noted, tmp_path):
    code, output = noted(CheckFailed("no such cell"))
    assert code == 1
    assert output.endswith("error: 1 failed; the first: no such cell\n")
    assert "cifar" not in json.loads((tmp_path / "results" / "hx8k.json").read_text())["lif"]
    assert noted(UserError("can't write"))[0] == 2


def test_sources_are_all_that_a_bitstream_is_made_from(monkeypatch, tmp_path):
    monkeypatch.setattr(looked, "ROOT", tmp_path)
    names = (
        "hw/a.py",
        "hw/b/c.py",
        "gen/d.py",
        "boards/e.py",
        "boards/pads.v",
        "requirements.lock",
    )
    for name in names:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("as it was")
    digests = {looked.sources()}
    for name in names:
        (tmp_path / name).write_text("changed")
        digests.add(looked.sources())
    assert len(digests) == 1 + len(names)


@pytest.mark.slow
@pytest.mark.parametrize("name", BOARDS)
def test_a_bitstream_for_every_board(name, emission, tmp_path):
    done = make(name, emission, tmp_path)
    assert done.path.stat().st_size > 50_000
    assert done.clock >= done.wanted
    said = resources_in(done)
    assert {k: int(said[k]) for k in BOARDS[name].resources} == BOARDS[name].resources
