"""A serial line around an emitted top: records of beats to its streams and back.

To a board a record is ``stream:1 marks:1 beats``: the number of the input stream in the order of
the manifest, and in `marks` how many beats there are, whether the last of them has ``tlast``
(`LAST`) and whether the first one has ``tuser[0]`` (`FIRST`). From a board a record is
``stream+marks:1 beat``: one beat, number and marks in one byte. A beat is ``tdata`` and behind it
the tag of ``tuser``, whole bytes both, lowest first.
"""

from collections.abc import Callable

from amaranth import (
    Cat,
    ClockSignal,
    Const,
    Instance,
    Module,
    ResetInserter,
    ResetSignal,
    Signal,
)
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from boards import packet
from boards.link import RING_BITS, Link
from boards.uart import Receiver, Transmitter
from gen.emit import Emission
from gen.errors import UserError
from hw.config import Config
from hw.stream import Stream, axi_prefix

FIRST, LAST = 0x80, 0x40
"""Marks of a record."""

MOST_BEATS = 63
"""Beats of a record to a board."""

MOST_STREAMS = 64
"""Streams of one direction."""


def beat_bytes(stream: Stream) -> int:
    """Return the bytes of a beat in a record."""
    return stream.tdata_width // 8 + -(-stream.tag // 8)


def ends(config: Config, direction: str) -> tuple[Stream, ...]:
    """Return the streams of a direction; a record has an index into them.

    Raises
    ------
    UserError
        There are more than a record can name.
    """
    found = tuple(s for s in config.streams if s.direction == direction)
    if len(found) > MOST_STREAMS:
        raise UserError(
            f"a link has {MOST_STREAMS} streams a direction, the top has {len(found)} {direction}"
        )
    return found


def beat_signature(one: Stream) -> stream.Signature:
    """Return the signature of a stream's beats: `tdata`, the tag in whole bytes, marks."""
    return stream.Signature(8 * beat_bytes(one) + 2)


class Feeder(wiring.Component):
    """Records to beats. One beat is held for all streams: it waits until its stream takes it.

    Parameters
    ----------
    streams : tuple of Stream

    Attributes
    ----------
    i : stream of bytes, in
    s0, s1, ... : streams, out
        Beat, `last` and `first` above it.
    """

    def __init__(self, streams: tuple[Stream, ...]) -> None:
        self._streams = streams
        super().__init__(
            {
                "i": In(stream.Signature(8)),
                **{f"s{n}": Out(beat_signature(s)) for n, s in enumerate(streams)},
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        sizes = [beat_bytes(s) for s in self._streams]
        number = Signal(range(max(len(sizes), 2)))
        left = Signal(range(MOST_BEATS + 1))  # beats
        first, last = Signal(), Signal()
        word = Signal(8 * max(sizes))  # the newest byte is the highest
        count = Signal(range(max(sizes)))  # bytes of the beat that have come
        takes = Signal()
        sized = Cat((number == n) & (count == size - 1) for n, size in enumerate(sizes)).any()
        with m.FSM():
            with m.State("NUMBER"):
                m.d.comb += self.i.ready.eq(1)
                m.d.sync += number.eq(self.i.payload)
                with m.If(self.i.valid):
                    m.next = "MARKS"
            with m.State("MARKS"):
                m.d.comb += self.i.ready.eq(1)
                m.d.sync += [Cat(left, last, first).eq(self.i.payload), count.eq(0)]
                with m.If(self.i.valid):
                    m.next = "BYTES"
            with m.State("BYTES"):
                m.d.comb += self.i.ready.eq(1)
                with m.If(self.i.valid):
                    m.d.sync += [word.eq(Cat(word, self.i.payload)[8:]), count.eq(count + 1)]
                    with m.If(sized):
                        m.next = "BEAT"
            with m.State("BEAT"):
                for n in range(len(sizes)):
                    port = getattr(self, f"s{n}")
                    m.d.comb += port.valid.eq(number == n)
                    with m.If((number == n) & port.ready):
                        m.d.comb += takes.eq(1)
                with m.If(takes):
                    m.d.sync += [left.eq(left - 1), first.eq(0), count.eq(0)]
                    with m.If(left == 1):
                        m.next = "NUMBER"
                    with m.Else():
                        m.next = "BYTES"
        for n, size in enumerate(sizes):
            beat = word[-8 * size :]
            m.d.comb += getattr(self, f"s{n}").payload.eq(Cat(beat, last & (left == 1), first))
        return m


class Collector(wiring.Component):
    """Beats to records, of the first stream that has one.

    Parameters
    ----------
    streams : tuple of Stream

    Attributes
    ----------
    s0, s1, ... : streams, in
        Beat, `last` and `first` above it.
    o : stream of bytes, out
    """

    def __init__(self, streams: tuple[Stream, ...]) -> None:
        self._streams = streams
        super().__init__(
            {
                **{f"s{n}": In(beat_signature(s)) for n, s in enumerate(streams)},
                "o": Out(stream.Signature(8)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        sizes = [1 + beat_bytes(s) for s in self._streams]
        word = Signal(8 * max(sizes))
        left = Signal(range(max(sizes) + 1))  # bytes of the record
        m.d.comb += [self.o.payload.eq(word), self.o.valid.eq(left != 0)]
        with m.If(left != 0):
            with m.If(self.o.ready):
                m.d.sync += [left.eq(left - 1), word.eq(word >> 8)]
        for n, size in reversed(list(enumerate(sizes))):  # the last one that is assigned wins
            port = getattr(self, f"s{n}")
            before = Cat(getattr(self, f"s{i}").valid for i in range(n)).any() if n else Const(0)
            m.d.comb += port.ready.eq((left == 0) & ~before)
            with m.If((left == 0) & port.valid):
                beat, marks = port.payload[:-2], port.payload[-2:]
                m.d.sync += [word.eq(Cat(Const(n, 6), marks, beat)), left.eq(size)]
        return m


class Shell(wiring.Component):
    """An emitted top behind a serial line.

    The top is the emitted Verilog as an instance, so what was verified is what is on the board.

    Parameters
    ----------
    emission : Emission
    divisor : int
        Clocks of a bit on the line.
    ring_bits : int
        log2 of the bytes of the rings of `boards.link.Link`.

    Attributes
    ----------
    rx, tx : Signal(), in, out
        The line.
    alive : Signal(), out
        Configured; dark while bytes come.
    fault : Signal(), out
        The unit has counted a broken frame, or a bad packet has come, in this session.
    session : Signal(), out
        A host has opened the board.
    """

    def __init__(self, emission: Emission, divisor: int, ring_bits: int = RING_BITS) -> None:
        self._emission = emission
        self._divisor = divisor
        self._ring_bits = ring_bits
        super().__init__(
            {
                "rx": In(1, init=1),
                "tx": Out(1, init=1),
                "alive": Out(1),
                "fault": Out(1),
                "session": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self._emission.config
        inputs, outputs = ends(config, "in"), ends(config, "out")
        m.submodules.receiver = receiver = Receiver(self._divisor)
        m.submodules.transmitter = transmitter = Transmitter(self._divisor)
        m.submodules.link = link = Link(
            packet.identity(self._emission.manifest["hash"]), self._ring_bits
        )
        feeder, collector = Feeder(inputs), Collector(outputs)
        m.submodules.feeder = ResetInserter(link.restart)(feeder)
        m.submodules.collector = ResetInserter(link.restart)(collector)
        wiring.connect(m, link.line, transmitter.i)
        wiring.connect(m, link.down, feeder.i)
        wiring.connect(m, collector.o, link.up)
        m.d.comb += [
            receiver.rx.eq(self.rx),
            link.data.eq(receiver.data),
            link.take.eq(receiver.valid),
            self.tx.eq(transmitter.tx),
            self.alive.eq(receiver.rx),
            self.session.eq(link.opened),
        ]
        ports: dict[str, object] = {
            "i_clk": ClockSignal(),
            "i_rst": ResetSignal() | link.restart,
            "o_faults": link.faults,
        }
        for part, streams in ((feeder, inputs), (collector, outputs)):
            for n, one in enumerate(streams):
                ports |= self._ports(m, one, getattr(part, f"s{n}"))
        m.submodules.unit = Instance(self._emission.name, **ports)
        seen = Signal()
        with m.If(link.restart):
            m.d.sync += seen.eq(0)
        with m.Elif(link.bad | (link.faults != 0)):
            m.d.sync += seen.eq(1)
        m.d.comb += self.fault.eq(seen)
        return m

    def _ports(self, m: Module, one: Stream, inner: wiring.PureInterface) -> dict[str, object]:
        """Return the ports of a stream of the unit."""
        prefix = axi_prefix(one, self._emission.config.streams)
        tdata = Signal(one.tdata_width, name=f"{one.name}_tdata")
        tuser = Signal(1 + one.tag, name=f"{one.name}_tuser")
        tlast, tvalid, tready = (
            Signal(name=f"{one.name}_{x}") for x in ("tlast", "tvalid", "tready")
        )
        there, back = ("i", "o") if one.direction == "in" else ("o", "i")
        tag = Signal(8 * beat_bytes(one) - one.tdata_width, name=f"{one.name}_tag")
        beat = Cat(tdata, tag, tlast, tuser[0])
        if one.direction == "in":
            m.d.comb += [
                beat.eq(inner.payload), tuser[1:].eq(tag),
                tvalid.eq(inner.valid), inner.ready.eq(tready),
            ]  # fmt: skip
        else:
            m.d.comb += [
                inner.payload.eq(beat), tag.eq(tuser[1:]),
                inner.valid.eq(tvalid), tready.eq(inner.ready),
            ]  # fmt: skip
        return {
            f"{there}_{prefix}_tdata": tdata,
            f"{there}_{prefix}_tuser": tuser,
            f"{there}_{prefix}_tlast": tlast,
            f"{there}_{prefix}_tvalid": tvalid,
            f"{back}_{prefix}_tready": tready,
        }


def behind_link(emission: Emission) -> Callable[[int], Shell]:
    """Return what `boards.build.build` takes: from the clocks of a bit to a shell."""
    return lambda divisor: Shell(emission, divisor)
