"""The catalogue says what amaranth-boards and nextpnr say."""

import dataclasses

import pytest
from amaranth.build import ResourceError

from boards.catalogue import BAUDS, BOARDS
from boards.gowin import Gowin
from boards.ice40 import ICE40
from hw.tops import TOPS

OWED = {
    "icebreaker": "iCE40UP5K-SG48",
    "hx8k": "iCE40HX8K-CT256",
    "ulx3s_25f": "LFE5U-25F-6 BG381",
    "ulx3s_85f": "LFE5U-85F-6 BG381",
    "orangecrab": "LFE5U-25F-8 MG285",
    "ecpix5": "LFE5UM5G-85F-8 BG554",
    "colorlight": "LFE5U-25F-6 BG256",
    "tangnano9k": "GW1NR-LV9QN88PC6/I5",
    "tangprimer20k": "GW2A-LV18PG256C8/I7",
    "tangmega138k": "GW5AST-LV138FPG676AC1/I0",
}


@pytest.fixture(params=BOARDS)
def board(request):
    return BOARDS[request.param]


def test_the_boards_are_there():
    assert {name: board.device for name, board in BOARDS.items()} == OWED


def test_no_field_is_empty_but_those_of_an_adapter(board):
    for field in dataclasses.fields(board):
        if field.name not in ("adapter", "extras"):
            assert getattr(board, field.name), field.name
    assert (board.bridge == "adapter") == bool(board.adapter)


def test_pins_of_clock_serial_port_and_lamps_are_the_platforms_and_differ(board):
    platform = board.pins()
    ports = [platform.request(platform.default_clk, dir="-")]
    uart = platform.request(*board.uart, dir="-")
    ports += [uart.rx, uart.tx]
    refused = []
    requested = {}
    for resource, number, *part in board.lamps:
        try:
            port = requested.get((resource, number))
            port = port or requested.setdefault(
                (resource, number), platform.request(resource, number, dir="-")
            )
        except ResourceError:
            refused.append((resource, number))
            continue
        for name in part:
            port = getattr(port, name)
        ports.append(port)
    pins = [meta.name for port in ports for meta in port.io.metadata]
    assert len(pins) == len(set(pins)) == len(ports)
    # The only lamp of the Colorlight is at the pin of TX.
    assert refused == ([("led", 0)] if board.name == "colorlight" else [])


def test_pins_where_the_platforms_were_looked_up():
    """Known from the boards' own documents; a new release may not move them."""

    def pins(name):
        platform = BOARDS[name].pins()
        uart = platform.request(*BOARDS[name].uart, dir="-")
        clock = platform.request(platform.default_clk, dir="-")
        return [port.io.metadata[0].name for port in (clock, uart.rx, uart.tx)]

    assert pins("icebreaker") == ["35", "6", "9"]
    assert pins("ulx3s_85f") == ["G2", "M1", "L4"]
    assert pins("orangecrab") == ["A9", "N17", "M18"]
    assert pins("colorlight") == ["P6", "M13", "P11"]
    assert pins("tangnano9k") == ["52", "18", "17"]


def test_clocks():
    rates = {name: board.mhz for name, board in BOARDS.items()}
    assert rates == {
        "icebreaker": 12, "hx8k": 12, "ulx3s_25f": 25, "ulx3s_85f": 25, "orangecrab": 48,
        "ecpix5": 100, "colorlight": 25, "tangnano9k": 27, "tangprimer20k": 27, "tangmega138k": 50,
    }  # fmt: skip


def test_every_preset_that_a_board_names_exists(board):
    assert board.presets.keys() == TOPS.keys()
    for top, preset in board.presets.items():
        assert preset in TOPS[top].config.PRESETS


def test_a_platform_looks_for_no_tools_and_takes_no_other_flow(board):
    platform = board.pins()
    assert platform.required_tools == []
    assert platform.command_templates == []


def test_families():
    kinds = {name: type(board.family).__name__ for name, board in BOARDS.items()}
    assert list(kinds.values()).count("ICE40") == 2
    assert list(kinds.values()).count("ECP5") == 5
    assert list(kinds.values()).count("Gowin") == 3


def test_the_clock_pin_of_the_icebreaker_is_the_plls_own():
    own = {
        name: board.family.pll_has_pin(board.pins())
        for name, board in BOARDS.items()
        if isinstance(board.family, ICE40)
    }
    assert own == {"icebreaker": True, "hx8k": False}


def test_apicula_knows_a_pll_where_the_catalogue_says_so():
    from importlib.resources import files

    from apycula import chipdb

    for board in BOARDS.values():
        if isinstance(board.family, Gowin):
            chip = chipdb.load_chipdb(files("apycula") / f"{board.family.chip}.msgpack.xz")
            bels = {
                name
                for row in range(chip.rows)
                for column in range(chip.cols)
                for name in chip[row, column].bels
            }
            assert any("PLL" in name for name in bels) == board.family.has_pll, board.name


@pytest.mark.parametrize("mhz", [12, 16.5, 21.75, 27, 38.25, 48, 61.875, 99.9, 127.5, 238.5])
def test_a_baud_rate_is_the_highest_that_is_near_enough(board, mhz):
    baud, divisor = board.divisor(mhz)
    assert baud <= board.baud
    assert abs(mhz * 1e6 / divisor / baud - 1) <= 0.015  # a third of what loses a frame
    assert divisor >= 4
    for faster in BAUDS[: BAUDS.index(baud)]:
        nearest = max(4, round(mhz * 1e6 / faster))
        assert faster > board.baud or abs(mhz * 1e6 / nearest / faster - 1) > 0.015
