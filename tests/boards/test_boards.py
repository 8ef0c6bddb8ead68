import json
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from boards import digits, results
from boards.__main__ import main
from boards.build import build
from boards.catalogue import BOARDS
from boards.pins import power_on_clocks
from boards.selftest import SelfTest, Vectors, checksum, deadline
from boards.simulate import simulate
from gen.emit import emit
from gen.vectors import random_stimulus
from hw.attention import AttentionConfig
from hw.lif import LifConfig
from hw.tops import TOPS


def run(*arguments):
    result = CliRunner().invoke(main, arguments)
    return result.exit_code, result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "error: --board is missing: want one of " + ", ".join(BOARDS)),
        (
            ["--board", "icebraker"],
            "error: --board: there is no 'icebraker'; nearest is icebreaker",
        ),
        (
            ["--board", "icebreaker"],
            "error: --top is missing: want one of " + ", ".join(sorted(TOPS)),
        ),
        (
            ["--board", "icebreaker", "--top", "atention"],
            "error: --top: there is no 'atention'; nearest is attention",
        ),
        (
            ["--board", "icebreaker", "--top", "lif", "--set", "tau"],
            "error: --set: want name=value, got 'tau'",
        ),
        (
            ["--board", "icebreaker", "--top", "lif", "--virtual", "--program"],
            "error: --virtual builds nothing: --program, --out and --json are of a bitstream",
        ),
        (
            ["--board", "icebreaker", "--top", "lif", "--model", "m"],
            "error: --model says which transformer it is: want no --top or --preset, got --top lif",
        ),
        (
            ["--board", "icebreaker", "--model", "nowhere"],
            "error: can't read nowhere/model.json: No such file or directory",
        ),
        (
            ["--list", "--top", "lif"],
            "error: --list: want it alone or with --board: it lists all tops",
        ),
        (
            ["--board", "colorlight", "--top", "lif", "--cable", "x"],
            "error: --cable: want --program with it",
        ),
        (["--seeds", "x"], "error: Invalid value for '--seeds': 'x' is not a valid integer range."),
        (["--seeds", "0"], "error: Invalid value for '--seeds': 0 is not in the range 1<=x<=100."),
    ],
)
def test_wrong_requests_are_one_line_and_exit_2(arguments, message):
    code, output = run(*arguments)
    assert (code, output.strip()) == (2, message)


def test_list():
    code, output = run("--list")
    assert code == 0
    for board in BOARDS.values():
        assert board.title in output
        assert board.device in output
    assert output.count("builds; not yet run on a board") == len(BOARDS)
    assert output.count("none: 3.3 V adapter at") == 2


RESULTS = {
    "lif": {
        "icebreaker": {"fits": True, "reason": ""},
        "cifar": {"fits": True, "clock": {"mhz": 34.5}},
        "default": {"fits": False, "reason": "block RAMs 67 of 30"},
    }
}


@pytest.fixture
def known(monkeypatch):
    monkeypatch.setattr("boards.__main__.known", lambda board: RESULTS)


def test_list_of_one_board_says_what_fits_and_what_does_not(known):
    code, output = run("--list", "--board", "hx8k")
    assert code == 0
    assert "lif: cifar (34.5 MHz), icebreaker; not default (block RAMs 67 of 30)" in output
    assert "7,680 logic cells, 32 block RAMs" in output
    assert "icebreaker," not in output
    assert run("--list", "--board", "hx9k")[0] == 2


def test_list_for_programs(known):
    boards = {board["board"]: board for board in json.loads(run("--list", "--json")[1])}
    assert boards.keys() == BOARDS.keys()
    assert boards["tangnano9k"]["resources"]["LUT4s"] == 8640
    assert boards["hx8k"]["presets"]["lif"] == {
        "icebreaker": {"fits": True},
        "cifar": {"fits": True, "mhz": 34.5},
        "default": {"fits": False, "reason": "block RAMs 67 of 30"},
    }


def test_results_are_of_presets_that_there_are_and_clocks_that_were_reached():
    for board in BOARDS.values():
        for top, presets in results.known(board).items():
            assert set(presets) <= set(TOPS[top].config.PRESETS), board.name
            for result in presets.values():
                if "clock" in result:
                    clock = result["clock"]
                    assert clock["mhz"] <= clock["reached_mhz"], (board.name, top)
                    assert clock["min"] <= clock["median"] <= clock["max"], (board.name, top)


def test_an_output_folder_that_is_a_file(tmp_path):
    place = tmp_path / "file"
    place.write_text("mine")
    code, output = run("--board", "icebreaker", "--top", "lif", "--out", str(place))
    assert code == 2
    assert output.strip() == f"error: can't write {place}: it is no folder"
    assert place.read_text() == "mine"


@pytest.mark.slow
def test_a_design_that_does_not_fit_is_refused_with_what_it_needs():
    code, output = run(
        "--board", "icebreaker", "--top", "lif", "--set", "lanes=4", "--set", "neurons=6400"
    )
    assert code == 2
    assert output.startswith("error: icebreaker: lif does not fit: it needs block RAMs ")
    assert output.strip().endswith(" of 30")


@pytest.fixture(scope="module")
def small():
    config = LifConfig(neurons=5, lanes=2, timesteps=3)
    emission = emit("lif", config)
    return emission, random_stimulus(config, np.random.default_rng(3))


def test_checksum_sees_every_beat_and_mark(small):
    emission, arrays = small
    (stream,) = (s for s in emission.config.streams if s.name == "spikes")
    words = Vectors.of(emission, arrays).words["spikes"]
    assert len(words) == 9
    sums = {checksum(stream, words)}
    for i in range(len(words)):
        for bit in range(stream.lanes):
            sums.add(checksum(stream, [w ^ (1 << bit) * (k == i) for k, w in enumerate(words)]))
    assert len(sums) == 1 + 9 * 2


def on_icebreaker(emission, vectors, folder):
    """Return the bitstream at the board's own clock: the simulation knows no PLL."""
    board = BOARDS["icebreaker"]
    return build(board, emission, lambda _: SelfTest(emission, vectors), folder, (1,), pll=False)


def test_the_whole_board_says_pass_and_a_wrong_checksum_says_fail(small, tmp_path):
    emission, arrays = small
    vectors = Vectors.of(emission, arrays)
    good = on_icebreaker(emission, vectors, tmp_path / "good")
    assert good.path.stat().st_size > 100_000
    assert good.clock >= good.wanted == 12
    verdict = simulate(good, emission)
    assert (verdict.passed, verdict.failed) == (True, False)
    assert verdict.clocks == power_on_clocks(12) + deadline(emission.config)

    vectors.words["spikes"][4] ^= 2
    bad = on_icebreaker(emission, vectors, tmp_path / "bad")
    verdict = simulate(bad, emission)
    assert (verdict.passed, verdict.failed) == (False, True)


def test_digits_are_what_they_say():
    images, labels = digits.images()
    assert images.shape == (200, 8, 8)
    assert images.min() == 0
    assert images.max() == 16
    assert sorted(set(labels)) == list(range(10))
    one = digits.patches(np.arange(64).reshape(8, 8))
    np.testing.assert_array_equal(one[5], [18, 19, 26, 27])


def test_projections_are_three_different_ones_and_every_current_fits():
    front = digits.Front(AttentionConfig.preset("icebreaker"))
    weights = digits.projections(16)
    assert len({w.tobytes() for w in weights.values()}) == 3
    for image in digits.images()[0]:
        for current in front.currents(image).values():
            assert current.min() >= -128
            assert current.max() <= 127
    rates = digits.rates(front, list(digits.images()[0][:20]))
    assert all(0.2 < rate < 0.5 for rate in rates.values())


def test_one_command_prints_the_projections():
    command = [sys.executable, "-m", "boards.digits"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for name in "qkv":
        assert f"{name}: lif tau 2, threshold " in done.stdout


@pytest.mark.slow
def test_the_preset_of_the_board_is_taken_and_reported(tmp_path):
    command = [
        "--board",
        "icebreaker",
        "--top",
        "attention",
        "--json",
        "--out",
        str(tmp_path / "b"),
    ]
    code, output = run(*command)
    assert code == 0
    figures = json.loads(output)
    assert figures["resources"]["logic cells"]["used"] < 2000
    assert figures["clock"]["mhz"] > 12
