"""The board's end of a link: two pipes of bytes that nothing is lost from or comes twice out of.

Go-Back-N in both directions (`boards.packet` has the form of a packet). The host is the master:
it alone opens sessions and has timers. The board answers every packet, the bad ones too, and
sends what it has as long as its ring has room for what is not yet acknowledged.
"""

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.hdl import Value
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out

from boards import packet
from boards.framing import Crc, Decoder, Encoder
from hw.attributes import BLOCK, NO_COLLISION

RING_BITS = 9
"""log2 of the bytes of a ring: a block RAM of an iCE40."""


class Link(wiring.Component):
    """Packets on one side, bytes of the session on the other.

    Parameters
    ----------
    identity : bytes
        `packet.HASH_BYTES`, for the status.
    ring_bits : int
        log2 of the bytes of each of the two rings.

    Attributes
    ----------
    data, take : Signal(8), Signal(), in
        A byte from the line, and whether one has come: at most one in 16 clocks, so that what the
        end of a packet sets off is over before the next byte.
    line : stream of bytes, out
        To the line.
    down : stream of bytes, out
        What the host has sent.
    up : stream of bytes, in
        What the host gets.
    faults : Signal(8), in
        For the status.
    restart : Signal(), out
        A session begins: whatever is at `down` and `up` is to be in reset. Up to the next byte
        from the line.
    opened : Signal(), out
        There is a session.
    bad : Signal(), out
        A packet has come that could not be used.
    """

    def __init__(self, identity: bytes, ring_bits: int = RING_BITS) -> None:
        if len(identity) != packet.HASH_BYTES:
            raise ValueError(f"identity: want {packet.HASH_BYTES} bytes, got {len(identity)}")
        if not 8 <= ring_bits <= 14:
            raise ValueError(f"ring_bits: want 8..14, got {ring_bits}")
        self._identity = identity
        self._ring_bits = ring_bits
        super().__init__(
            {
                "data": In(8),
                "take": In(1),
                "line": Out(stream.Signature(8)),
                "down": Out(stream.Signature(8)),
                "up": In(stream.Signature(8)),
                "faults": In(8),
                "restart": Out(1),
                "opened": Out(1),
                "bad": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.receive = receive = _Receive(self._ring_bits)
        m.submodules.send = send = _Send(self._identity, self._ring_bits)
        wiring.connect(m, wiring.flipped(self.down), receive.down)
        wiring.connect(m, send.up, wiring.flipped(self.up))
        wiring.connect(m, send.line, wiring.flipped(self.line))
        m.d.comb += [
            receive.data.eq(self.data),
            receive.take.eq(self.take),
            receive.hold.eq(send.quotes),
            receive.restart.eq(self.restart),
            send.session.eq(receive.session),
            send.expected.eq(receive.expected),
            send.taken.eq(receive.taken),
            send.faults.eq(self.faults),
            send.acknowledge.eq(receive.acknowledge),
            send.ack.eq(receive.ack),
            send.again.eq(receive.again),
            send.begin.eq(receive.begin),
            send.restart.eq(self.restart),
            send.answer.eq(receive.answer),
            send.with_status.eq(receive.with_status),
            send.gap.eq(receive.unused),
            self.opened.eq(receive.session != packet.CLOSED),
            self.bad.eq(receive.unused),
        ]
        with m.If(receive.begin):
            m.d.sync += self.restart.eq(1)
        with m.Elif(self.take):
            m.d.sync += self.restart.eq(0)
        return m


class _Receive(wiring.Component):
    """From the line to `down`.

    The payload of a packet is written behind what is in the ring, and its CRC behind that; when
    the packet is known to be good the end of what is in the ring moves over the payload.
    """

    def __init__(self, ring_bits: int) -> None:
        self._ring_bits = ring_bits
        super().__init__(
            {
                "data": In(8),
                "take": In(1),
                "down": Out(stream.Signature(8)),
                "hold": In(1),  # nothing that is in a header may change
                "restart": In(1),
                "session": Out(8, init=packet.CLOSED),
                "expected": Out(16),
                "taken": Out(16),
                "begin": Out(1),  # a session
                "acknowledge": Out(1),  # `ack` is news
                "ack": Out(16),
                "again": Out(1),
                "answer": Out(1),
                "with_status": Out(1),
                "unused": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.decoder = decoder = Decoder()
        m.submodules.crc = crc = Crc(1)
        byte, come = decoder.data, decoder.valid
        m.d.comb += [
            decoder.code.eq(self.data),
            decoder.take.eq(self.take),
            crc.data.eq(byte),
            crc.put.eq(come),
            # Not before: a whole packet may still wait.
            crc.start.eq(decoder.first & come),
        ]

        # The header.
        head = packet.HEAD.size
        least = head + packet.CRC_BYTES
        index = Signal(range(least + 1))  # of the byte; stays at `least`
        kind, sender = Signal(8), Signal(8)
        own, next_one = Signal(), Signal()  # of the session; and at the expected offset
        with m.If(come):
            m.d.sync += index.eq(Mux(decoder.first, 1, index + (index != least)))
            with m.If(decoder.first):
                m.d.sync += [kind.eq(byte), next_one.eq(1)]
            with m.Elif(index == 1):
                m.d.sync += [sender.eq(byte), own.eq(byte == self.session)]
            with m.Elif((index >> 1) == 1):
                m.d.sync += next_one.eq(next_one & (byte == self.expected.word_select(index[0], 8)))
            with m.Elif((index >> 1) == 2):
                m.d.sync += self.ack.eq(Cat(self.ack[8:], byte))

        # The ring.
        size = 1 << self._ring_bits
        m.submodules.ring = ring = memory.Memory(
            shape=8, depth=size, init=[], attrs=NO_COLLISION | BLOCK
        )
        write, read = ring.write_port(), ring.read_port()
        end = Signal(16)  # number of the byte after the one that was written
        full, over = Signal(), Signal()
        m.d.comb += [
            # Once a byte has had no room, none behind it has.
            full.eq(over | ((end ^ self.taken)[: self._ring_bits + 1] == size)),
            write.addr.eq(end),
            write.data.eq(byte),
            # Only what is in the ring is read: never where there is a write.
            write.en.eq(come & (index >= head) & ~full),
        ]
        with m.If(come):
            with m.If(decoder.first):
                m.d.sync += [end.eq(self.expected), over.eq(0)]
            with m.Elif(index >= head):
                m.d.sync += [end.eq(end + 1), over.eq(full)]

        # What the packet does, once it is whole. It waits for a header at most.
        whole = Signal()
        m.d.sync += whole.eq(decoder.end | (whole & self.hold))
        good, opens = Signal(), Signal()
        due = whole & ~self.hold
        m.d.comb += [
            good.eq(crc.match & (index == least) & ~over),
            opens.eq((kind & packet.OPEN).any()),
            self.begin.eq(due & good & opens & ~own),
            self.acknowledge.eq(due & good & own & ~opens),
            self.again.eq(self.acknowledge & (kind & packet.AGAIN).any()),
            self.unused.eq(due & ~(good & (opens | (own & next_one)))),
            self.answer.eq(due),
            self.with_status.eq(good & (opens | ~own)),
        ]
        with m.If(self.acknowledge & next_one):
            m.d.sync += self.expected.eq(end - packet.CRC_BYTES)
        with m.If(self.begin):
            m.d.sync += [self.session.eq(sender), self.expected.eq(0)]

        fetch = Signal()
        m.d.comb += [
            fetch.eq((self.taken != self.expected) & ~self.down.valid & ~self.hold),
            read.addr.eq(self.taken),
            read.en.eq(fetch),
            self.down.payload.eq(read.data),
        ]
        with m.If(fetch):
            m.d.sync += [self.taken.eq(self.taken + 1), self.down.valid.eq(1)]
        with m.Elif(self.down.ready):
            m.d.sync += self.down.valid.eq(0)
        with m.If(self.begin | self.restart):
            m.d.sync += [self.taken.eq(0), self.down.valid.eq(0)]
        return m


class _Send(wiring.Component):
    """From `up` to the line.

    What has no ack yet stays in the ring. A packet is made when the one before it is sent: of what
    there is then, up to where the offset is a multiple of `packet.PAYLOAD`.
    """

    def __init__(self, identity: bytes, ring_bits: int) -> None:
        self._identity = identity
        self._ring_bits = ring_bits
        super().__init__(
            {
                "line": Out(stream.Signature(8)),
                "up": In(stream.Signature(8)),
                "session": In(8),
                "expected": In(16),
                "taken": In(16),
                "faults": In(8),
                "acknowledge": In(1),
                "ack": In(16),
                "again": In(1),
                "begin": In(1),
                "restart": In(1),
                "answer": In(1),
                "with_status": In(1),
                "gap": In(1),
                "quotes": Out(1),  # a header is being made
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.encoder = encoder = Encoder()
        m.submodules.crc = crc = Crc(4)
        wiring.connect(m, wiring.flipped(self.line), encoder.o)

        # The ring: numbers of the first byte without ack, the next to be sent, the next to come.
        size = 1 << self._ring_bits
        m.submodules.ring = ring = memory.Memory(
            shape=8, depth=size, init=[], attrs=NO_COLLISION | BLOCK
        )
        write, read = ring.write_port(), ring.read_port()
        acked, sent, filled = Signal(16), Signal(16), Signal(16)
        some = Signal()  # there are bytes to be sent
        full = (filled ^ acked)[: self._ring_bits + 1] == size
        m.d.comb += [
            some.eq(sent != filled),
            self.up.ready.eq(~full),
            write.addr.eq(filled),
            write.data.eq(self.up.payload),
            write.en.eq(self.up.valid & self.up.ready),
            read.addr.eq(sent),
        ]
        with m.If(write.en):
            m.d.sync += filled.eq(filled + 1)
        # An ack from an earlier packet, which came late, would be behind `acked`.
        with m.If(self.acknowledge & ((self.ack - acked)[self._ring_bits + 1 : 16] == 0)):
            m.d.sync += acked.eq(self.ack)

        # What is owed.
        answer, status, gap, again = Signal(), Signal(), Signal(), Signal()
        starts, names = Signal(), Signal()  # a packet; its first byte is put
        m.d.sync += [
            answer.eq(self.answer | (answer & ~starts)),
            status.eq((self.answer & self.with_status) | (status & ~starts)),
            gap.eq(self.gap | (gap & ~names)),
        ]

        # The packet. One that is being made when a session begins has the old one's number, or no
        # payload.
        as_status = Signal()
        kind = Cat(as_status, ~as_status, gap, Const(0, 4), Const(1, 1))
        fields = Cat(kind, self.session, sent, self.expected, self.taken)
        facts = Cat(
            Const(int.from_bytes(self._identity, "little"), 8 * packet.HASH_BYTES),
            Const(packet.VERSION, 8),
            Const(self._ring_bits, 8),
            self.faults,
        )
        index = Signal(range(len(facts) // 8))
        byte = encoder.data
        last = Signal()  # byte of a part
        turn = Signal()  # a byte takes two clocks, for the CRC

        def put(part: Value) -> None:
            """Put the bytes of a part."""
            m.d.comb += [
                byte.eq(part.word_select(index, 8)),
                encoder.put.eq(turn),
                last.eq(turn & (index == len(part) // 8 - 1)),
            ]
            m.d.sync += [turn.eq(~turn), index.eq(Mux(last, 0, index + turn))]

        m.d.comb += [crc.data.eq(byte), crc.put.eq(encoder.put)]
        with m.FSM() as making:
            with m.State("IDLE"):
                m.d.comb += crc.start.eq(1)
                m.d.sync += index.eq(0)
                with m.If(again):
                    m.d.sync += [again.eq(0), sent.eq(acked)]
                with m.Elif((answer | some) & ~encoder.sending):
                    m.d.comb += starts.eq(1)
                    m.d.sync += as_status.eq(status)
                    m.next = "HEAD"
            with m.State("HEAD"):
                put(fields)
                m.d.comb += names.eq(turn & (index == 0))
                with m.If(last):
                    with m.If(as_status):
                        m.next = "FACTS"
                    with m.Elif(some):
                        m.next = "FETCH"
                    with m.Else():
                        m.next = "SUM"
            with m.State("FACTS"):
                put(facts)
                with m.If(last):
                    m.next = "SUM"
            with m.State("FETCH"):
                m.d.comb += read.en.eq(1)
                m.d.sync += sent.eq(sent + 1)
                m.next = "BODY"
            with m.State("BODY"):
                m.d.comb += [byte.eq(read.data), encoder.put.eq(1)]
                with m.If(some & (sent % packet.PAYLOAD != 0)):
                    m.next = "FETCH"
                with m.Else():
                    m.next = "SUM"
            with m.State("SUM"):
                m.d.sync += turn.eq(~turn)
                with m.If(turn):
                    m.next = "CRC"
            with m.State("CRC"):
                put(crc.crc)
                m.d.comb += crc.put.eq(0)
                with m.If(last):
                    m.next = "CLOSE"
            with m.State("CLOSE"):
                m.d.comb += encoder.close.eq(1)
                m.next = "IDLE"
        m.d.comb += self.quotes.eq(making.ongoing("HEAD"))
        with m.If(self.again):
            m.d.sync += again.eq(1)
        with m.If(self.begin | self.restart):
            m.d.sync += [acked.eq(0), sent.eq(0), filled.eq(0)]
        return m
