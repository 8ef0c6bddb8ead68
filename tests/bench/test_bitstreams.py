"""The table of bitstreams says what was built, what does not fit, and what is not known."""

import pytest

from bench import bitstreams
from boards.build import clocks
from boards.catalogue import BOARDS
from boards.results import known
from hw.tops import TOPS

CLOCK = {"mhz": 34.5, "min": 34.09, "median": 36.71, "max": 38.39}


@pytest.mark.parametrize(
    ("result", "want"),
    [
        ({}, "not built"),
        ({"fits": True}, "not built"),
        ({"fits": False, "reason": "block RAMs 67 of 30"}, "`icebreaker`: block RAMs 67 of 30"),
        ({"fits": True, "clock": CLOCK}, "`icebreaker` 34.5 (34.1 / 36.7 / 38.4)"),
    ],
)
def test_a_cell(monkeypatch, result, want):
    monkeypatch.setattr(bitstreams, "of", lambda *_: result)
    assert bitstreams.cell(BOARDS["icebreaker"], "lif") == want


def test_every_board_has_a_row_and_every_top_a_column():
    header, rule, *rows = bitstreams.render().split("\n\n")[0].splitlines()
    assert header.count("`") == 2 * len(TOPS)
    assert [row.split(" | ")[0].removeprefix("| ") for row in rows] == [
        board.title for board in BOARDS.values()
    ]
    assert {line.count("|") for line in (header, rule, *rows)} == {len(TOPS) + 2}


@pytest.mark.parametrize("name", BOARDS)
def test_clocks_that_are_stored_are_those_of_the_configurations(name):
    for top, presets in known(BOARDS[name]).items():
        for preset, result in presets.items():
            if "clock" in result:
                config = TOPS[top].config.preset(preset)
                assert result["timing"] == clocks(config, result["clock"]["mhz"]), (top, preset)
