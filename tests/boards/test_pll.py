"""PLL settings: the rate that they say, and the highest that is allowed."""

import re

import pytest

from boards.catalogue import BOARDS
from boards.ecp5 import ECP5
from boards.ice40 import ICE40
from gen.emit import yosys


def parameters(verilog):
    """Return the parameters of the PLL as numbers."""
    found = re.findall(r"\.(\w+)\((\d+'b)?(\d+)\)", verilog)
    return {name: int(digits, 2 if base else 10) for name, base, digits in found}


def rate(family, source, verilog):
    """Return the rate at the output, by the vendors' formulas, and that of the VCO."""
    p = parameters(verilog)
    if isinstance(family, ICE40):
        vco = source / (p["DIVR"] + 1) * (p["DIVF"] + 1)
        return vco / 2 ** p["DIVQ"], vco
    if isinstance(family, ECP5):
        out = source / p["CLKI_DIV"] * p["CLKFB_DIV"]
        return out, out * p["CLKOP_DIV"]
    out = source / (p["IDIV_SEL"] + 1) * (p["FBDIV_SEL"] + 1)
    return out, out * p["ODIV_SEL"]


def attainable(name):
    """Return all rates of a board's PLL, from the limits in the data sheets."""
    source = BOARDS[name].mhz
    if name in ("icebreaker", "hx8k"):
        return [
            source / r * f / 2**q
            for r in range(1, 17) if 10 <= source / r <= 133
            for f in range(1, 129) if 533 <= source / r * f <= 1066
            for q in range(1, 7) if 16 <= source / r * f / 2**q <= 275
        ]  # fmt: skip
    low, high, pfd = (400, 1200, 400) if name == "tangnano9k" else (500, 1250, 500)
    return [
        source / i * f
        for i in range(1, 65) if 3 <= source / i <= pfd
        for f in range(1, 65)
        if any(low < source / i * f * o < high for o in (2, 4, 8, 16, 32, 48, 64, 80, 96, 112, 128))
    ]  # fmt: skip


RANGES = {
    "icebreaker": (533, 1066), "hx8k": (533, 1066), "ulx3s_25f": (400, 800), "ecpix5": (400, 800),
    "orangecrab": (400, 800), "tangnano9k": (400, 1200), "tangprimer20k": (500, 1250),
}  # fmt: skip


@pytest.mark.parametrize("limit", [38.999, 60.0])
@pytest.mark.parametrize("name", RANGES)
def test_the_rate_is_below_the_limit_and_what_the_parameters_say(name, limit, tmp_path):
    board = BOARDS[name]
    found = board.family.pll(board.pins(), board.mhz, limit, tmp_path)
    assert found.mhz <= limit
    output, vco = rate(board.family, board.mhz, found.verilog)
    assert found.mhz == pytest.approx(output, abs=0.001)
    low, high = RANGES[name]
    assert low <= vco <= high
    if not isinstance(board.family, ECP5):
        assert found.mhz == pytest.approx(max(r for r in attainable(name) if r <= limit), abs=0.001)
    else:
        assert found.mhz > 0.96 * limit


def test_none_where_the_limit_is_below_all(tmp_path):
    board = BOARDS["icebreaker"]
    assert board.family.pll(board.pins(), board.mhz, 11.0, tmp_path) is None


def test_none_on_the_device_whose_pll_apicula_does_not_know(tmp_path):
    board = BOARDS["tangmega138k"]
    assert board.family.pll(board.pins(), board.mhz, 100.0, tmp_path) is None


@pytest.mark.parametrize("name", ["icebreaker", "hx8k", "ulx3s_25f", "tangnano9k"])
def test_the_module_is_what_the_design_instantiates(name, tmp_path):
    board = BOARDS[name]
    found = board.family.pll(board.pins(), board.mhz, 50.0, tmp_path)
    (tmp_path / "pll.v").write_text(found.verilog)
    ports = "input clock_in, output clock_out, locked"
    (tmp_path / "top.v").write_text(
        f"module top({ports}); pll p(.clock_in(clock_in), .clock_out(clock_out), "
        ".locked(locked)); endmodule\n"
    )
    yosys(
        f"read_verilog pll.v top.v; {board.family.synthesis(board.pins())} -top top",
        cwd=tmp_path,
    )


def test_a_calculator_that_overshoots_is_asked_for_less(tmp_path):
    """The nearest rate may be too much; the highest that is not is found all the same."""
    rates = [10.0, 20.0, 21.0, 33.0]

    class Coarse(ICE40):
        def calculate(self, platform, source, target, folder):
            from boards.family import Pll

            return Pll(min(rates, key=lambda r: abs(r - target)), "")

    for limit, want in ((32.0, 21.0), (20.9, 20.0), (19.9, 10.0), (40.0, 33.0), (10.0, 10.0)):
        assert Coarse().pll(None, 12.0, limit, tmp_path).mhz == want
    assert Coarse().pll(None, 12.0, 4.0, tmp_path) is None
