"""A serial line, 8N1: bytes to bits and back."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out


def check_divisor(divisor: int) -> int:
    """Return `divisor`, or raise `ValueError`: a bit is at least 2 clocks."""
    if divisor < 2:
        raise ValueError(f"divisor: want at least 2 clocks a bit, got {divisor}")
    return divisor


class Receiver(wiring.Component):
    """Bits to bytes, sampled in the middle of a bit; a byte without a stop bit is dropped.

    Parameters
    ----------
    divisor : int
        Clocks of a bit.

    Attributes
    ----------
    rx : Signal(), in
        The line; it may change at any time.
    data : Signal(8), out
    valid : Signal(), out
        1 for the one clock in which `data` is a byte that has come.
    """

    def __init__(self, divisor: int) -> None:
        self._divisor = check_divisor(divisor)
        super().__init__({"rx": In(1, init=1), "data": Out(8), "valid": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        line = Signal(init=1)
        m.submodules.synchronizer = FFSynchronizer(self.rx, line, init=1)
        timer = Signal(range(self._divisor))
        left = Signal(range(11))  # bits to be sampled, start and stop included
        sample = Signal()
        m.d.comb += sample.eq(timer == 0)
        m.d.sync += [
            timer.eq(Mux(sample, self._divisor - 1, timer - 1)),
            self.valid.eq(sample & (left == 1) & line),
        ]
        with m.If(left == 0):
            m.d.sync += timer.eq(max(self._divisor // 2 - 1, 0))
            with m.If(~line):
                m.d.sync += left.eq(10)
        with m.Elif(sample):
            m.d.sync += [
                left.eq(left - 1),
                self.data.eq(Mux(left == 1, self.data, Cat(self.data[1:], line))),
            ]
            with m.If((left == 10) & line):  # a spike, and no start bit
                m.d.sync += left.eq(0)
        return m


class Transmitter(wiring.Component):
    """Bytes to bits.

    Parameters
    ----------
    divisor : int
        Clocks of a bit.

    Attributes
    ----------
    i : stream of bytes, in
    tx : Signal(), out
        The line, from a register.
    """

    def __init__(self, divisor: int) -> None:
        self._divisor = check_divisor(divisor)
        super().__init__({"i": In(stream.Signature(8)), "tx": Out(1, init=1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        timer = Signal(range(self._divisor))
        left = Signal(range(11))
        bits = Signal(9, init=-1)
        m.d.comb += [self.i.ready.eq(left == 0), self.tx.eq(bits[0])]
        m.d.sync += timer.eq(Mux(timer == 0, self._divisor - 1, timer - 1))
        with m.If(left == 0):
            with m.If(self.i.valid):
                m.d.sync += [
                    timer.eq(self._divisor - 1), left.eq(10), bits.eq(Cat(0, self.i.payload)),
                ]  # fmt: skip
        with m.Elif(timer == 0):
            m.d.sync += [left.eq(left - 1), bits.eq(Cat(bits[1:], 1))]
        return m
