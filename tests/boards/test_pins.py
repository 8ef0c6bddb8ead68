"""A design with a serial port and lamps on the pins of every board."""

import re

import pytest
from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from boards import build as building
from boards.catalogue import BOARDS
from boards.family import Pll
from boards.pins import LOCK_STAGES, SETTLING, power_on_clocks
from gen.emit import emit
from hw.lif import LifConfig


class Echo(wiring.Component):
    """What comes in at `rx` goes out at `tx`; its lamps show both."""

    rx: In(1)
    tx: Out(1)
    alive: Out(1)
    busy: Out(1)
    wrong: Out(1)

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.tx.eq(self.rx)
        m.d.comb += [self.alive.eq(1), self.busy.eq(~self.tx), self.wrong.eq(self.tx & ~self.rx)]
        return m


@pytest.fixture(scope="module")
def emission():
    return emit("lif", LifConfig(neurons=1, timesteps=1))


def sources(name, emission, pll=None, mhz=None):
    board = BOARDS[name]
    work = building._Work(board, emission, lambda _: Echo(), True)
    return work.sources(mhz or board.mhz, pll)


def located(files):
    """Return the pins that are constrained, by port."""
    (text,) = (text for name, text in files.items() if name.startswith("pins."))
    patterns = (
        r'LOCATE COMP "(\S+)" SITE "(\S+)"', r'IO_LOC "(\S+)" (\S+);', r"set_io (\S+) (\S+)",
    )  # fmt: skip
    return {port: pin for pattern in patterns for port, pin in re.findall(pattern, text)}


@pytest.mark.parametrize("name", BOARDS)
def test_the_serial_port_the_clock_and_the_lamps_have_pins(name, emission):
    board = BOARDS[name]
    pins = located(sources(name, emission))
    uart, _ = board.uart
    lamps = 0 if name == "colorlight" else min(3, len(board.lamps))
    assert f"{uart}_0__rx__io" in pins
    assert f"{uart}_0__tx__io" in pins
    assert len(pins) == 3 + lamps
    assert len(set(pins.values())) == len(pins)


def test_adapters_are_at_the_pins_that_the_list_names(emission):
    crab, light = (located(sources(name, emission)) for name in ("orangecrab", "colorlight"))
    assert (crab["adapter_0__rx__io"], crab["adapter_0__tx__io"]) == ("N17", "M18")
    assert (light["uart_0__rx__io"], light["uart_0__tx__io"]) == ("M13", "P11")


@pytest.mark.parametrize("name", ["icebreaker", "ulx3s-25f", "tangnano9k"])
def test_the_clock_comes_from_the_pll_if_there_is_one(name, emission):
    straight = sources(name, emission)
    assert "pll.v" not in straight
    assert "\\pll" not in straight["design.il"]
    files = sources(name, emission, Pll(40.0, "module pll; endmodule\n"), 40.0)
    assert files["pll.v"] == "module pll; endmodule\n"
    assert re.search(r"cell \\pll ", files["design.il"])
    # On the iCEBreaker the pin is the PLL's own: nothing else may read it.
    buffer = "clock.buf" in files["design.il"] or "SB_GB_IO" in files["design.il"]
    assert buffer == (name != "icebreaker")


def test_reset_lasts_until_block_rams_can_be_read():
    for mhz in (12, 48, 133.3):
        assert power_on_clocks(mhz) >= SETTLING * mhz * 1e6
        assert power_on_clocks(mhz) <= SETTLING * mhz * 1e6 + LOCK_STAGES + 1


def test_sources_are_the_same_each_time_and_name_no_folder(emission):
    first, second = (sources("ulx3s-25f", emission) for _ in range(2))
    assert first == second
    assert "attribute \\src" not in first["design.il"]
