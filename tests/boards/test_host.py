"""The host program against whole boards that are simulated, pins and all."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from boards import identify, virtual
from boards.catalogue import BOARDS
from boards.host import Board, main
from boards.identify import manifest_identity, recognised
from boards.virtual import VirtualBoard
from gen.emit import emit
from gen.errors import CheckFailed, UserError
from gen.options import resolve
from gen.vectors import random_stimulus
from hw.lif import LifConfig
from hw.tops import TOPS

SMALL = {
    "attention": ("tokens=4", "head_dim=3", "timesteps=3"),
    "encoder": ("tokens=2", "channels=2", "timesteps=2"),
    "heads": ("tokens=4", "heads=3", "head_dim=5", "timesteps=3"),
    "lif": ("neurons=5", "lanes=2", "timesteps=3"),
    "moe": ("tokens=3", "channels=5", "experts=3", "timesteps=2"),
    "linear": ("tokens=3", "inputs=5", "outputs=6", "timesteps=2", "mode=events"),
    "sdsa": ("tokens=3", "channels=5", "timesteps=3"),
    "transformer": ("tokens=2", "channels=2", "classes=3", "timesteps=2"),
}
"""A configuration of each top that is no preset."""

FAMILIES = ("icebreaker", "ulx3s_25f", "tangnano9k")


def small(top):
    return resolve(top, None, SMALL[top])


def stimulus(config, seed=1, batch=None):
    rng = np.random.default_rng(seed)
    if batch is None:
        return random_stimulus(config, rng)
    several = [random_stimulus(config, rng) for _ in range(batch)]
    return {name: np.stack([one[name] for one in several]) for name in several[0]}


@pytest.fixture(scope="module")
def lif():
    with VirtualBoard(BOARDS["icebreaker"], emit("lif", small("lif"))) as board:
        yield board


@pytest.mark.parametrize(
    ("name", "top"),
    [
        *((name, "lif") for name in FAMILIES),
        *(pytest.param("icebreaker", top, marks=pytest.mark.slow) for top in TOPS if top != "lif"),
        *(
            pytest.param(name, top, marks=pytest.mark.slow)
            for name in BOARDS
            for top in TOPS
            if (name, top) not in [(n, "lif") for n in FAMILIES] and name != "icebreaker"
        ),
    ],
)
def test_a_top_on_a_board_is_golden_over_runs_and_sessions(name, top):
    config = small(top)
    with VirtualBoard(BOARDS[name], emit(top, config)) as there:
        for _ in range(2):
            with Board(name, there.port, top, "default", SMALL[top], check=True) as board:
                for seed in range(2):
                    board.run(**stimulus(config, seed, batch=3))
                    assert board.report.inferences == 3


def test_arrays_are_those_of_the_simulator_with_and_without_a_batch(lif):
    config = small("lif")
    arrays = stimulus(config, batch=2)
    with Board(None, lif.port, "lif", settings=SMALL["lif"], check=True) as board:
        both = board.run(**arrays)["spikes"]
    with Board(None, lif.port, "lif", settings=SMALL["lif"]) as board:
        one = board.run(current=arrays["current"][0])["spikes"]
    assert both.shape == (2, 3, 5)
    assert one.shape == (3, 5)
    assert np.array_equal(both[0], one)


def test_settings_of_a_mapping_are_those_of_the_command(lif):
    settings = {"neurons": 5, "lanes": 2, "timesteps": 3}
    with Board("icebreaker", lif.port, "lif", "default", settings) as board:
        assert board.config == small("lif")


def test_a_board_that_is_asked_says_what_it_has(tmp_path, monkeypatch):
    config = TOPS["lif"].config.preset("icebreaker")
    with (
        VirtualBoard(BOARDS["icebreaker"], emit("lif", config)) as there,
        Board("icebreaker", there.port, check=True) as board,
    ):
        assert (board.top, board.config) == ("lif", config)
        board.run(**stimulus(config))


def test_what_was_built_is_known(tmp_path, monkeypatch):
    config = small("sdsa")
    said = manifest_identity("sdsa", config)
    monkeypatch.setattr(identify, "BUILT", tmp_path)
    with pytest.raises(UserError, match=f"has manifest {said.hex()}, which is no preset's"):
        recognised(said)
    for folder, facts in (
        ("a", "no json"),
        ("b", json.dumps({"top": "other", "parameters": {}})),
        ("c", json.dumps({"top": "lif", "parameters": {"neurons": -1}})),
        ("d", json.dumps({"top": "sdsa", "parameters": config.asdict()})),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "bitstream.json").write_text(facts)
    assert recognised(said) == ("sdsa", config)
    other = LifConfig(neurons=3)
    assert recognised(manifest_identity("lif", other), [("lif", other)]) == ("lif", other)


def test_another_bitstream_is_refused(lif):
    want = r"another bitstream is on the board: want lif with manifest \w{32}, got "
    named = Board(None, lif.port, "lif", settings=SMALL["lif"], name="mine")
    with pytest.raises(UserError, match=rf"{want}\w{{32}}$"), named:
        pass
    there = [("lif", small("lif"))]
    known = Board(None, lif.port, "lif", "icebreaker", guesses=there)
    with pytest.raises(UserError, match=f"{want}lif with timesteps=3 neurons=5 lanes=2 "), known:
        pass
    want = "another bitstream is on the board: want sdsa, got lif with timesteps=3 neurons=5"
    with pytest.raises(UserError, match=want), Board(None, lif.port, "sdsa", guesses=there):
        pass


def test_a_top_alone_is_whatever_of_it_the_board_has(lif):
    with Board(None, lif.port, "lif", guesses=[("lif", small("lif"))]) as board:
        assert board.config == small("lif")
    with pytest.raises(UserError, match="which is no preset's"), Board(None, lif.port, "lif"):
        pass


def test_what_a_board_has_is_said_as_one_asks_for_it():
    config = TOPS["attention"].config.preset("icebreaker")
    assert identify.in_words(manifest_identity("attention", config)) == (
        "attention, preset icebreaker"
    )


def test_lists_are_arrays_and_a_board_is_used_inside_of_its_statement(lif):
    with Board(None, lif.port, "lif", settings=SMALL["lif"], check=True) as board:
        board.run(current=[[1, 2, 3, 4, 5]] * 3)
        with pytest.raises(UserError, match="current: want an array, got rows of several lengths"):
            board.run(current=[[1], [2, 3]])
    for unused in (board, Board(None, lif.port, "lif")):
        with pytest.raises(UserError, match="want the board in a with statement"):
            unused.run(current=[[1, 2, 3, 4, 5]] * 3)


def test_what_nothing_comes_of_is_not_held_against_golden(lif):
    board = Board(None, lif.port, "moe", settings=SMALL["moe"], check=True)
    board.config = small("moe")
    board._open, board._golden = contextlib.ExitStack(), object()
    board._streams = {s.name: s for s in board.config.streams}
    arrays = stimulus(board.config)
    assert board.comes(arrays) == ["merged"]
    del arrays["expert_out"]
    with pytest.raises(UserError, match=r"expert_out: missing; .* nothing to be held against"):
        board.run(**arrays)


def test_a_setting_without_a_top_is_refused():
    with pytest.raises(UserError, match="--top is missing"):
        Board(None, "/dev/null", settings=["neurons=5"])


def test_what_is_not_golden_is_seen(lif, monkeypatch):
    with Board(None, lif.port, "lif", settings=SMALL["lif"], check=True) as board:
        right = board._golden.run

        def wrong(arrays):
            result = right(arrays)
            result["spikes"][1, 2] ^= 1
            return result

        monkeypatch.setattr(board._golden, "run", wrong)
        with pytest.raises(CheckFailed, match="spikes"):
            board.run(**stimulus(small("lif")))


@pytest.mark.parametrize("lost", ["rx", "tx"])
def test_a_board_whose_line_is_cut_is_told(lost, tmp_path):
    """The pins are in the simulation: without one of them nobody answers."""
    board = BOARDS["icebreaker"]
    files, divisor = virtual.board_files(board, emit("lif", small("lif")))
    text = files[f"{virtual.TOP}.v"]
    cut = {"rx": ("(rx)", "(1'b1)"), "tx": ("(tx)", "()")}[lost]
    assert text.count(cut[0]) == 1
    for whole in (True, False):
        model = virtual.Model(virtual.build({**files, f"{virtual.TOP}.v": text}), divisor)
        model.run(b"", 1000)  # up to its reset's end
        came = model.run(b"\0\2\1\1\1\0", 100_000)
        assert (len(came) > 10) == whole
        text = text.replace(*cut)


def test_lamps_are_lit_by_one_on_every_board(lif):
    assert lif.model.lamps["alive"]
    ports = {"clk": ("c__io", False), "alive": ("g__io", True), "fault": ("r__io", False)}
    text = virtual.around(ports)
    assert "assign alive = ~alive_pin;" in text
    assert "assign fault = fault_pin;" in text
    assert "assign session = 1'b0;" in text


@pytest.fixture
def run(lif, tmp_path):
    """Return a function that runs the command on the simulated board."""
    np.savez(tmp_path / "in.npz", **stimulus(small("lif"), batch=2))
    settings = [part for text in SMALL["lif"] for part in ("--set", text)]

    def call(*options, port=lif.port):
        options = options or ("--top", "lif", *settings)
        done = CliRunner().invoke(
            main, ["--port", port, "--stimulus", str(tmp_path / "in.npz"), *options]
        )
        assert done.exception is None or isinstance(done.exception, SystemExit)
        return done.exit_code, done.output

    call.settings = settings
    return call


def test_the_command_writes_what_came_and_says_what_it_took(run, tmp_path):
    target = tmp_path / "out.npz"
    code, said = run("--top", "lif", *run.settings, "--check", "--result", str(target))
    assert code == 0
    assert re.search(r"lif, 2 inferences as golden has them in .* s, .*/s, .* beats/s; on the wire"
                     r" .* s, \d+ packets sent again\n$", said)  # fmt: skip
    assert np.load(target)["spikes"].shape == (2, 3, 5)
    code, said = run("--top", "lif", *run.settings, "--json")
    facts = json.loads(said)
    assert code == 0
    assert (facts["inferences"], facts["beats_in"], facts["beats_out"]) == (2, 18, 18)
    assert facts["top"] == "lif"
    assert facts["checked"] is False


@pytest.mark.parametrize(
    ("options", "want"),
    [
        (("--board", "icebraker", "--top", "lif"), "error: --board: there is no 'icebraker'"),
        (("--top", "liff"), "error: --top: there is no 'liff'"),
        (("--top", "lif"), "error: --top: the board has manifest"),
        (("--top", "sdsa", "--preset", "cifar"), "error: another bitstream is on the board"),
        (("--baud", "4294967295"), "error: --port: can't open"),
        (("--result", "/dev"), "error: can't write /dev: is a folder"),
        (("--result", "/dev/null/x.npz"), "error: can't write /dev/null/x.npz: /dev/null is no"),
        ((), ""),
    ],
)
def test_wrong_requests_are_one_line(run, options, want):
    code, said = run(*options)
    assert code == (2 if want else 0)
    assert said.startswith(want)
    assert said.count("\n") == 1


def test_a_port_that_is_not_there_and_one_at_which_nobody_answers(run):
    code, said = run(port="/dev/there_is_none")
    assert code == 2
    assert said == "error: --port: can't open /dev/there_is_none: No such file or directory\n"
    there, other = os.openpty()
    code, said = run("--board", "tangnano9k", "--top", "lif", "--baud", "115200",
                     port=os.ttyname(other))  # fmt: skip
    os.close(there)
    os.close(other)
    assert code == 2
    assert said.startswith("error: no board answers at 115,200 baud")


def test_all_rates_of_a_board_are_tried():
    there, other = os.openpty()
    with (
        pytest.raises(UserError, match=r"no board answers at 2,000,000, .* 115,200 baud"),
        Board("tangnano9k", os.ttyname(other), "lif"),
    ):
        pass
    os.close(there)
    os.close(other)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_the_command_that_simulates_a_board(stop):
    command = [sys.executable, "-m", "boards", "--board", "icebreaker", "--top", "lif", "--virtual"]
    with contextlib.ExitStack() as stack:
        there = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        stack.callback(there.send_signal, stop)
        port = there.stdout.readline().strip()
        with Board("icebreaker", port, check=True) as board:
            board.run(**stimulus(board.config))
    assert there.returncode == 0
