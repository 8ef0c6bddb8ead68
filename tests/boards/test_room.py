import pytest
from click.testing import CliRunner
from rich.console import Console

from boards import room
from boards.__main__ import main
from boards.catalogue import BOARDS
from hw.transformer import TransformerConfig

QUIET = Console(quiet=True)
CONFIG = TransformerConfig(lanes=8)


@pytest.fixture
def too_large(monkeypatch):
    """Return a set of boards and numbers of lanes that have no room."""
    full: set[str | int] = set()

    def lacking(board, top, config):
        assert top == "transformer"
        return ["block RAMs 31 of 30"] if full & {board.name, config.lanes} else []

    monkeypatch.setattr(room, "lacking", lacking)
    return full


def test_most_lanes_with_which_it_fits(too_large):
    too_large.update((8, 4))
    told = room.what_would_fit(BOARDS["icebreaker"], CONFIG, QUIET)
    assert told == "with --set lanes=2 it would"


def test_boards_that_it_fits(too_large):
    too_large.update(set(BOARDS) - {"ecpix5", "tangmega138k"})
    told = room.what_would_fit(BOARDS["icebreaker"], CONFIG, QUIET)
    assert told == "it would fit ecpix5, tangmega138k"


def test_no_board(too_large):
    too_large.update(BOARDS)
    told = room.what_would_fit(BOARDS["icebreaker"], CONFIG, QUIET)
    assert told.startswith("it fits no board that there is: ")


def test_room_of_a_small_top():
    config = TransformerConfig(tokens=2, channels=4, timesteps=1, lanes=1)
    assert room.lacking(BOARDS["hx8k"], "transformer", config) == []


@pytest.mark.slow
def test_a_model_that_is_too_large_is_refused_with_what_would_fit():
    wide = ("--model", "examples/digits/trained/tiny", "--set", "lanes=8")
    result = CliRunner().invoke(main, ["--board", "icebreaker", *wide])
    assert result.exit_code == 2
    assert result.output.startswith("error: icebreaker: transformer does not fit: it needs ")
    assert result.output.strip().endswith("; with --set lanes=4 it would")
