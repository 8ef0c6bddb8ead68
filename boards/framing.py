"""COBS and CRC-32 in hardware: a packet is bytes without a zero, and a zero at its end.

Of packets below 254 bytes: no block of COBS is full then (Cheshire and Baker, Consistent Overhead
Byte Stuffing, 1999). On a host the libraries `cobs` and `zlib` do the same.
"""

from amaranth import Module, Mux, Signal
from amaranth.lib import memory, stream, wiring
from amaranth.lib.crc.catalog import CRC32_ETHERNET
from amaranth.lib.wiring import In, Out

from hw.attributes import NO_COLLISION

PLACES = 256
"""Bytes of the encoder's memory."""


class Crc(wiring.Component):
    """The CRC-32 of Ethernet, some bits of a byte in a clock: the fewer, the fewer cells.

    Parameters
    ----------
    bits : {1, 2, 4}
        Bits in a clock.

    Attributes
    ----------
    start : Signal(), in
        Begin anew; with `put` or without.
    data, put : Signal(8), Signal(), in
        A byte, and whether there is one; the next one ``8 / bits`` clocks later, or after that.
    crc : Signal(32), out
        Of all bytes, from ``8 / bits + 1`` clocks behind the last one on.
    match : Signal(), out
        The last four of them were the CRC of those before.
    """

    def __init__(self, bits: int) -> None:
        self._bits = bits
        super().__init__(
            {"start": In(1), "data": In(8), "put": In(1), "crc": Out(32), "match": Out(1)}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.processor = processor = CRC32_ETHERNET(data_width=self._bits).create()
        held = Signal(8)
        left = Signal(8 // self._bits)  # as many ones as there are parts
        m.d.comb += [
            processor.start.eq(self.start),
            processor.data.eq(held),
            processor.valid.eq(left[0]),
            self.crc.eq(processor.crc),
            self.match.eq(processor.match_detected),
        ]
        m.d.sync += [
            held.eq(Mux(self.put, self.data, held >> self._bits)),
            left.eq(Mux(self.put, -1, left >> 1)),
        ]
        return m


class Decoder(wiring.Component):
    """Take the code bytes out, in the clock in which they come.

    Attributes
    ----------
    code, take : Signal(8), Signal(), in
        A byte, and whether it has come.
    data, valid : Signal(8), Signal(), out
        A byte of the packet, and whether there is one.
    first : Signal(), out
        It is the first one.
    end : Signal(), out
        The packet is over; one without a byte is none.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "code": In(8),
                "take": In(1),
                "data": Out(8),
                "valid": Out(1),
                "first": Out(1),
                "end": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        outside = Signal(init=1)  # of a packet
        fresh = Signal(init=1)  # nothing of it has been handed on
        left = Signal(8)  # bytes of the block that are to come
        zero = Signal()
        m.d.comb += [
            zero.eq(self.code == 0),
            self.data.eq(Mux(left == 0, 0, self.code)),
            # The zero between two blocks is known when the second one begins.
            self.valid.eq(self.take & ~zero & ~((left == 0) & outside)),
            self.first.eq(fresh),
            self.end.eq(self.take & zero & ~fresh),
        ]
        with m.If(self.take):
            m.d.sync += [
                outside.eq(zero),
                left.eq(Mux(zero, 0, Mux(left == 0, self.code, left) - 1)),
                fresh.eq(zero | (fresh & ~self.valid)),
            ]
        return m


class Encoder(wiring.Component):
    """Hold a packet, with its code bytes, and send it.

    A byte is written as it comes, unless it is a zero: then its distance goes to the place of the
    code byte before it, and its own place is the next one. So a packet needs no second look.

    Attributes
    ----------
    data, put : Signal(8), Signal(), in
        A byte, and whether there is one.
    close : Signal(), in
        The packet is whole; a clock of its own.
    o : stream of bytes, out
        The packet with its delimiter, from the clock after `close` on.
    sending : Signal(), out
        Nothing may be put.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "data": In(8),
                "put": In(1),
                "close": In(1),
                "o": Out(stream.Signature(8)),
                "sending": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # Reads begin when writes are over.
        m.submodules.memory = store = memory.Memory(
            shape=8, depth=PLACES, init=[], attrs=NO_COLLISION
        )
        write, read = store.write_port(), store.read_port()
        place, code = Signal(range(PLACES), init=1), Signal(range(PLACES))
        ends = Signal()  # of a block
        m.d.comb += [
            ends.eq(self.close | (self.data == 0)),
            write.addr.eq(Mux(ends, code, place)),
            write.data.eq(Mux(ends, place - code, self.data)),
            write.en.eq(self.put | self.close),
        ]
        with m.If(self.put):
            m.d.sync += place.eq(place + 1)
            with m.If(ends):
                m.d.sync += code.eq(place)

        index = Signal(range(PLACES))
        fetched, over = Signal(), Signal()
        m.d.comb += [
            read.addr.eq(index),
            read.en.eq(self.sending & ~fetched),
            self.o.valid.eq(fetched),
            self.o.payload.eq(Mux(over, 0, read.data)),
        ]
        with m.If(self.close):
            m.d.sync += self.sending.eq(1)
        with m.If(self.sending & ~fetched):
            m.d.sync += [fetched.eq(1), over.eq(index == place), index.eq(index + 1)]
        with m.If(fetched & self.o.ready):
            m.d.sync += fetched.eq(0)
            with m.If(over):
                m.d.sync += [self.sending.eq(0), place.eq(1), code.eq(0), index.eq(0)]
        return m
