"""A design on a board's pins: its clock, its reset, its serial port and its lamps."""

import functools
import math
from typing import Any

from amaranth import ClockDomain, ClockSignal, Instance, Module, ResetSignal, Signal
from amaranth.build import ResourceError
from amaranth.hdl import Elaboratable
from amaranth.lib import io, wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import Out

from boards.catalogue import Board

DESIGN = "design"
"""The instance of what is put on the pins."""

SETTLING = 15e-6
"""Seconds of reset after power-up: an iCE40's block RAMs can't be read for the first 3 us, and
Amaranth waits for five times that as well."""

LOCK_STAGES = 2


def power_on_clocks(mhz: float) -> int:
    """Return the clocks of reset after power-up, or after the PLL has locked."""
    return math.ceil(SETTLING * mhz * 1e6) + LOCK_STAGES


class OnPins(Elaboratable):
    """A component on the pins of a board.

    Its ports `rx` and `tx` go to the serial port, if it has them, and its other outputs to the
    lamps in order, as many as the board has.

    Parameters
    ----------
    board : Board
    design : wiring.Component
    mhz : float
        Rate of the clock.
    pll : bool
        Whether it comes from the module ``pll`` and not straight from the board.

    Attributes
    ----------
    ports : dict of str to (str, bool)
        For ``clk``, ``rx``, ``tx`` and each lamp that has a pin: the port of the top, and whether
        it is inverted. Filled when the platform builds.
    """

    def __init__(self, board: Board, design: wiring.Component, mhz: float, pll: bool) -> None:
        self._board = board
        self._design = design
        self._mhz = mhz
        self._pll = pll
        self.ports: dict[str, tuple[str, bool]] = {}

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules[DESIGN] = self._design
        self._clock(m, platform)
        members = dict(self._design.signature.members)
        if "tx" in members:
            uart = platform.request(*self._board.uart, dir="-")
            self._note(rx=uart.rx, tx=uart.tx)
            m.submodules.rx = rx = io.Buffer("i", uart.rx)
            m.submodules.tx = tx = io.Buffer("o", uart.tx)
            m.d.comb += [self._design.rx.eq(rx.i), tx.o.eq(self._design.tx)]
        lit = [name for name, member in members.items() if member.flow == Out and name != "tx"]
        request = functools.cache(lambda *resource: platform.request(*resource, dir="-"))
        for name, (resource, number, *part) in zip(lit, self._board.lamps, strict=False):
            try:
                port = functools.reduce(getattr, part, request(resource, number))
            except ResourceError:  # the pin is the serial port's
                continue
            self._note(**{name: port})
            m.submodules[f"lamp_{name}"] = lamp = io.Buffer("o", port)
            m.d.comb += lamp.o.eq(getattr(self._design, name))
        return m

    def _note(self, **ports: io.PortLike) -> None:
        """Note the pins of what is on them."""
        for name, port in ports.items():
            self.ports[name] = (port.io.name, any(port.invert))

    def _clock(self, m: Module, platform: Any) -> None:
        """Drive the domain `sync`: in reset until its clock and the block RAMs have settled."""
        m.domains.sync = ClockDomain()
        m.domains.start = ClockDomain(reset_less=True)
        port = platform.request(platform.default_clk, dir="-")
        self._note(clk=port)
        source, locked = Signal(), Signal()
        if self._pll and self._board.family.pll_has_pin(platform):
            source = port.io
        else:
            m.submodules.clock = clock = io.Buffer("i", port)
            m.d.comb += source.eq(clock.i)
        if self._pll:
            rises = Signal()
            m.submodules.pll = Instance(
                "pll", i_clock_in=source, o_clock_out=rises, o_locked=locked
            )
        else:
            rises = source
            m.d.comb += locked.eq(1)
        m.d.comb += [ClockSignal().eq(rises), ClockSignal("start").eq(rises)]

        steady = Signal()
        m.submodules.lock = FFSynchronizer(locked, steady, o_domain="start", stages=LOCK_STAGES)
        clocks = power_on_clocks(self._mhz) - LOCK_STAGES
        count = Signal(range(clocks + 1))
        waiting = Signal(init=1)
        m.d.comb += ResetSignal().eq(waiting)
        with m.If(~steady):
            m.d.start += [count.eq(0), waiting.eq(1)]
        with m.Elif(count != clocks):
            m.d.start += count.eq(count + 1)
        with m.Else():
            m.d.start += waiting.eq(0)
