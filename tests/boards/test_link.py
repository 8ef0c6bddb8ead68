"""The link from end to end, in a simulator, on a line where things go wrong."""

import random
import types
import zlib
from pathlib import Path

import pytest
from cobs import cobs

import boards.link
from boards.packet import (
    AGAIN,
    BOARD_DATA,
    CLOSED,
    DATA,
    GAP,
    OPEN,
    PAYLOAD,
    STATUS,
    VERSION,
    BadPacket,
    Packet,
    Status,
)
from boards.pipe import Pipe
from gen.errors import CheckFailed, UserError
from tests.boards.echo import (
    BAUD,
    DIVISOR,
    IDENTITY,
    KINDS,
    Faults,
    Wire,
    exchange,
    model,
    pipe,
)

COUNT = 400


@pytest.fixture
def board():
    return model()


def test_it_says_what_it_is(board):
    host = pipe(Wire(board))
    assert not board.lamps["session"]
    assert host.open() == Status(IDENTITY, version=1, ring=512, faults=0)
    assert board.lamps["session"]


def test_nothing_is_sent_twice_on_a_good_line_and_it_is_busy(board):
    host = pipe(Wire(board))
    host.open()
    data = random.Random(1).randbytes(150_000)  # numbers of bytes wrap twice
    start = board.clocks
    assert exchange(host, data) == data
    assert (host.traffic.resent, host.traffic.unusable) == (0, 0)
    assert len(data) * 10 * DIVISOR / (board.clocks - start) > 0.75


def test_nothing_is_sent_twice_at_any_pace(board):
    """Ends of packets meet headers that are being made, in every clock of them."""
    rng = random.Random(2)
    wire = Wire(board)
    host = pipe(wire)
    host.open()
    sent = came = b""
    for _ in range(3 * COUNT):
        more = rng.randbytes(rng.choice([1, 10, 100, 300]))
        sent += more
        host.send(more)
        host.step()
        wire.idle(rng.randrange(30))
        came += host.receive()
    came += exchange(host, b"")
    while len(came) < len(sent):
        host.step()
        came += host.receive()
    assert came == sent
    assert (host.traffic.resent, host.traffic.unusable) == (0, 0)


@pytest.mark.parametrize("value", [b"\0", b"\1", b"\xff", b"\0\xff"])
def test_bytes_of_one_value(board, value):
    host = pipe(Wire(board))
    host.open()
    for length in (*range(1, 8), *range(120, 140), 700):
        assert exchange(host, value * length) == value * length
    assert host.traffic.resent == 0


def wrong(kinds, chance, there, back, seed):
    rng = random.Random(seed)
    kinds = [KINDS[kind] for kind in kinds]
    return (
        Faults(random.Random(rng.random()), kinds if there else [], chance),
        Faults(random.Random(rng.random()), kinds if back else [], chance),
    )


def torture(board, there, back, count, seed):
    """Exchange bytes until `count` things went wrong."""
    rng = random.Random(seed)
    wire = Wire(board, there, back)
    host = pipe(wire, seed)
    host.open()
    sent = 0
    while there.count + back.count < count:
        data = rng.randbytes(rng.choice([1, 3, 20, 60, 200, 800]))
        assert exchange(host, data) == data
        sent += len(data)
    return host, sent


@pytest.mark.parametrize("way", ["there", "back"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_of_one_kind_on_one_way(board, kind, way):
    there, back = wrong([kind], 0.3, way == "there", way == "back", 1)
    torture(board, there, back, COUNT, 2)
    assert there.count + back.count >= COUNT


def test_all_faults_at_once(board):
    there, back = wrong(KINDS, 0.3, True, True, 3)
    torture(board, there, back, 2 * COUNT, 4)


def crash(host, wire, rng):
    """Be a host that disappears somewhere in what it does."""
    host.send(rng.randbytes(rng.randint(0, 900)))
    for _ in range(rng.randint(0, 4)):
        host.step()
    wire.cut(rng)


def vanish(board, count):
    """Let so many hosts disappear one after the other."""
    rng = random.Random(7)
    wire = Wire(board)
    for i in range(count):
        host = pipe(wire, seed=i)
        host.open()
        data = rng.randbytes(rng.choice([1, 100, 600]))
        assert exchange(host, data) == data
        assert host.receive() == b""
        crash(host, wire, rng)


def test_a_host_that_disappears_leaves_the_board_to_the_next(board):
    vanish(board, COUNT)


def overrun(count):
    """Send without a break to a unit that pauses for longer than its ring lasts.

    A bit is two clocks: no board has a line that fast.
    """
    host = pipe(Wire(model(pauses=True)))
    host.open()
    rng = random.Random(9)
    packets = 0
    while packets < count:
        data = rng.randbytes(20_000)
        assert exchange(host, data) == data
        packets += len(data) // PAYLOAD
    assert host.traffic.unusable == 0
    return host


def test_a_unit_that_pauses_makes_the_host_wait_and_nothing_overruns():
    host = overrun(COUNT // 4)
    assert host.traffic.resent == 0


def test_a_repeated_open_is_only_answered(board):
    host = pipe(Wire(board))
    host.open()
    data = bytes(range(256)) * 2
    host.send(data)
    came = b""
    while len(came) < len(data):
        assert host.ask().faults == 0
        host.step()
        came += host.receive()
    assert came == data


class Raw:
    """Packets by hand."""

    def __init__(self, board):
        self.board = board

    def __call__(self, packet):
        """Send a packet; return all that comes."""
        came = self.run(packet if isinstance(packet, bytes) else packet.encode(), 20_000 * DIVISOR)
        return [Packet.decode(frame) for frame in came.split(b"\0") if frame]

    def run(self, data, clocks):
        """Send bytes; return what comes in so many clocks."""
        end = self.board.clocks + clocks
        came = self.board.run(data, clocks)
        while self.board.clocks < end:
            came += self.board.run(b"", end - self.board.clocks)
        return came


def test_data_of_another_session_is_dropped_and_told_so(board):
    raw = Raw(board)
    (told,) = raw(Packet(DATA, 9, payload=b"nobody has opened it"))
    assert (told.kind & OPEN, told.session, told.ack) == (OPEN, CLOSED, 0)
    (told,) = raw(Packet(OPEN, 5))
    assert (told.session, told.ack) == (5, 0)
    (told,) = raw(Packet(DATA, 6, payload=b"somebody else's"))
    assert (told.kind & OPEN, told.session, told.ack) == (OPEN, 5, 0)
    came = raw(Packet(DATA, 5, payload=b"own"))
    assert b"".join(p.payload for p in came) == b"own"
    assert came[-1].ack == 3


def test_what_comes_twice_or_too_early_is_dropped(board):
    raw = Raw(board)
    raw(Packet(OPEN, 5))
    raw(Packet(DATA, 5, payload=b"abc"))
    for offset in (0, 1, 2, 4, 0x103, 0x8003, 0xFFFF):
        (told,) = raw(Packet(DATA, 5, offset, 3, payload=b"xyz"))
        assert (told.kind & GAP, told.ack, told.payload) == (GAP, 3, b"")
    came = raw(Packet(DATA, 5, 3, 3, payload=b"def"))
    assert b"".join(p.payload for p in came) == b"def"


def test_an_ack_that_comes_late_changes_nothing(board):
    raw = Raw(board)
    raw(Packet(OPEN, 5))
    raw(Packet(DATA, 5, payload=b"abc"))
    raw(Packet(DATA, 5, 3, 3))
    for late in (0, 1, 2):
        raw(Packet(DATA, 5, 3, late))
        assert raw(Packet(DATA | AGAIN, 5, 3, late))[-1].payload == b""
    came = raw(Packet(DATA | AGAIN, 5, 3, 3, payload=b"def"))
    assert next(p.payload for p in came if p.payload) in (b"d", b"de", b"def")
    assert all(p.offset >= 3 for p in came)


def test_what_has_no_ack_is_sent_again_when_asked(board):
    raw = Raw(board)
    raw(Packet(OPEN, 5))
    raw(Packet(DATA, 5, payload=b"abc"))
    for ack in (0, 1, 2):
        came = raw(Packet(DATA | AGAIN, 5, 3, ack))
        assert (came[-1].offset, came[-1].payload) == (ack, b"abc"[ack:])


def test_numbers_in_a_header_belong_together(board):
    """The end of a packet meets the header of an answer, in every clock of it."""
    raw = Raw(board)
    first, second = bytes(range(200)), bytes(100)
    raw(Packet(OPEN, 1))
    start = board.clocks
    assert board.run(Packet(DATA, 1, payload=first).encode(), 100_000)[-1] == 0
    answered = board.clocks - start  # about here the next header is made
    for shift in range(-60, 20):
        session = 2 + shift % 2
        raw(Packet(OPEN, session))
        more = Packet(DATA, session, 200, payload=second).encode()
        wait = answered + shift - 10 * DIVISOR * len(more)
        came = raw.run(Packet(DATA, session, payload=first).encode(), wait)
        came += raw.run(more, 20_000 * DIVISOR)
        packets = [Packet.decode(frame) for frame in came.split(b"\0")[:-1]]
        assert {p.ack for p in packets} <= {200, 300}
        assert all(p.taken <= p.ack for p in packets)
        raw(Packet(OPEN, 1))


def test_a_ring_that_is_full_drops_what_does_not_fit(board):
    """A host that obeys never sends so much: nobody takes what comes back."""
    raw = Raw(board)
    raw(Packet(OPEN, 5))
    sent = taken = 0
    while sent < 512 + 508:
        told = raw(Packet(DATA, 5, sent, payload=bytes([sent % 251] * 12)))[-1]
        assert told.ack == sent + 12
        sent, taken = told.ack, told.taken
    assert taken < sent
    for length in (100, 13, 5):
        told = raw(Packet(DATA, 5, sent, payload=bytes([7] * length)))[-1]
        if told.ack != sent:
            assert told.kind & GAP
    want = b"".join(bytes([n % 251] * 12) for n in range(0, sent, 12))
    got = b""
    told = raw(Packet(DATA | AGAIN, 5, sent, 0))
    while len(got) < len(want):
        for packet in told:
            assert packet.offset <= len(got)
            got += packet.payload[len(got) - packet.offset :]
        told = raw(Packet(DATA, 5, sent, len(got)))
    assert got == want


def test_what_is_no_packet_is_not_taken_for_one(board):
    raw = Raw(board)
    raw(Packet(OPEN, 5))
    rng = random.Random(8)
    whole = cobs.decode(Packet(DATA, 5).encode()[:-1])
    for length in range(6):  # too short, but with its CRC
        text = whole[:length]
        told = raw(cobs.encode(text + zlib.crc32(text).to_bytes(4, "little")) + b"\0")
        assert [(p.kind & GAP, p.ack) for p in told] == [(GAP, 0)]
    for length in range(1, 14):  # the CRC of nothing is 0
        told = raw(b"\1" * length + b"\0")
        assert bool(told) == (length > 1)  # one is nothing
        assert all(p.kind & GAP and p.session == 5 for p in told)
    for _ in range(100):
        told = raw(rng.randbytes(rng.randint(1, 300)) + b"\0")
        assert all(p.session == 5 and p.ack == 0 for p in told)
    came = raw(Packet(DATA, 5, payload=b"good"))
    assert b"".join(p.payload for p in came) == b"good"


def test_power_that_is_cut_ends_the_session(board):
    host = pipe(Wire(board))
    host.open()
    exchange(host, b"something")
    board.reset()
    with pytest.raises(CheckFailed, match="the board was reset, or opened by another host"):
        exchange(host, b"more")
    host.open()
    assert exchange(host, b"again") == b"again"


def test_another_host_ends_the_session(board):
    first, second = pipe(Wire(board), 1), pipe(Wire(board), 2)
    first.open()
    exchange(first, b"something")
    second.open()
    with pytest.raises(CheckFailed, match="the board was reset, or opened by another host"):
        exchange(first, b"more")
    assert exchange(second, b"something") == b"something"


def test_nobody_there(board):
    everything = Faults(random.Random(1), [KINDS["lost"]], 1.0)
    with pytest.raises(UserError, match="no board answers"):
        pipe(Wire(board, everything)).open()
    assert not board.lamps["session"]


def test_a_board_that_falls_silent(board):
    wire = Wire(board)
    host = pipe(wire, patience=2.0)
    host.open()
    wire.there = Faults(random.Random(1), [KINDS["lost"]], 1.0)
    with pytest.raises(CheckFailed, match="the board has been silent for 2 s"):
        exchange(host, b"hello")
    with pytest.raises(CheckFailed, match="the board does not answer any more"):
        host.ask()


class Stuck:
    """A line to a board that answers everything, and takes nothing."""

    now = 0.0
    said = b""

    def write(self, data):
        for packet in map(Packet.decode, filter(None, data.split(b"\0"))):
            status = Status.FORM.pack(IDENTITY, VERSION, 9, 0)
            kind, payload = (STATUS, status) if packet.kind & OPEN else (BOARD_DATA, b"")
            self.said += Packet(kind, packet.session, payload=payload).encode()

    def read(self, seconds):
        self.now += 0.2
        said, self.said = self.said, b""
        return said


def test_a_unit_that_does_nothing_is_waited_for_but_not_for_ever():
    """It may compute for long, with the link alive."""
    line = Stuck()
    host = Pipe(line, BAUD, 2.0)
    host.open()
    with pytest.raises(CheckFailed, match="answers, but its unit has done nothing for 60 s"):
        exchange(host, b"hello")
    assert 60 < line.now < 63


def test_it_does_not_matter_what_was_in_its_memories():
    for seed in range(2, 6):
        host = pipe(Wire(model(seed=seed)))
        assert host.open().hash == IDENTITY
        data = random.Random(seed).randbytes(2000)
        assert exchange(host, data) == data


MUTANTS = {
    "takes a wrong CRC": ("crc.match & (index", "(index"),
    "takes what is too short": ("& (index == least) &", "&"),
    "keeps the CRC": ("end - packet.CRC_BYTES", "end"),
    "does not look at the session": ("good & own & ~opens", "good & ~opens"),
    "does not look at the offset": ("self.acknowledge & next_one", "self.acknowledge"),
    "begins a session anew": ("good & opens & ~own", "good & opens"),
    "believes late acks": ("[self._ring_bits + 1 : 16] == 0", "[self._ring_bits + 1 : 16] >= 0"),
    "writes over what is in the ring": ("(index >= head) & ~full", "(index >= head)"),
    "takes what did not fit": ("over.eq(full)", "over.eq(0)"),
    "starts the CRC anew too early": ("decoder.first & come", "decoder.first"),
    "says two numbers in one header": ('self.quotes.eq(making.ongoing("HEAD"))', "[]"),
    "never sends again": ("sent.eq(acked)]", "sent.eq(sent)]"),
}

CHECKS = [
    test_nothing_is_sent_twice_on_a_good_line_and_it_is_busy,
    test_nothing_is_sent_twice_at_any_pace,
    test_a_repeated_open_is_only_answered,
    test_data_of_another_session_is_dropped_and_told_so,
    test_what_comes_twice_or_too_early_is_dropped,
    test_an_ack_that_comes_late_changes_nothing,
    test_what_has_no_ack_is_sent_again_when_asked,
    test_numbers_in_a_header_belong_together,
    test_a_ring_that_is_full_drops_what_does_not_fit,
    test_what_is_no_packet_is_not_taken_for_one,
    test_all_faults_at_once,
    test_a_host_that_disappears_leaves_the_board_to_the_next,
]


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_a_broken_link_is_found(name):
    old, new = MUTANTS[name]
    source = Path(boards.link.__file__).read_text()
    assert source.count(old) == 1
    mutant = types.ModuleType("mutant")
    exec(compile(source.replace(old, new), "mutant", "exec"), mutant.__dict__)
    for check in CHECKS:
        try:
            check(model(mutant.Link))
        except (AssertionError, CheckFailed, UserError, BadPacket, IndexError, ValueError):
            return
    pytest.fail("all is well with it")


@pytest.mark.slow
@pytest.mark.parametrize("way", ["there", "back"])
@pytest.mark.parametrize("kind", KINDS)
def test_faults_by_the_ten_thousands(board, kind, way):
    there, back = wrong([kind], 0.25, way == "there", way == "back", 5)
    torture(board, there, back, 30_000, 6)


@pytest.mark.slow
def test_hosts_that_disappear_by_the_thousands(board):
    vanish(board, 5_000)


@pytest.mark.slow
def test_pauses_by_the_thousands():
    overrun(2_000)
