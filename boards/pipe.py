"""The host's end of a link: two pipes of bytes that nothing is lost from or comes twice out of.

`boards.packet` has the form of a packet, `boards.link` the other end.
"""

import dataclasses
import random
from typing import Protocol

from boards.packet import (
    AGAIN,
    CLOSED,
    DATA,
    GAP,
    OFFSETS,
    OPEN,
    PAYLOAD,
    SPARE,
    VERSION,
    BadPacket,
    Packet,
    Status,
)
from gen.errors import CheckFailed, UserError

LONGEST_WAIT = 1.0
"""Seconds after which a silent board is asked again, at most."""

ENQUIRIES = 6
"""Times that a board is asked for its status; each waits twice as long as the one before."""

STRANGERS = 3
"""Statuses of another session, with nothing of the own one between, that say that it is over."""

STILL = 60.0
"""Seconds after which a board is given up that answers, but takes and gives nothing."""

LEAST_ROOM = 64
"""Bytes that are worth a packet while others are on their way."""


class NoAnswer(UserError):
    """Nobody has answered."""


class Line(Protocol):
    """A serial line, as a host sees it."""

    def read(self, seconds: float) -> bytes:
        """Return what has come; wait so long for the first byte."""

    def write(self, data: bytes) -> None:
        """Send bytes."""

    @property
    def now(self) -> float:
        """Seconds, on the clock by which a board is given time to answer."""


@dataclasses.dataclass
class Traffic:
    """What has gone over the wire.

    Attributes
    ----------
    sent, received : int
        Bytes.
    resent : int
        Packets that were sent once more.
    unusable : int
        What came and was no packet, or came too early.
    """

    sent: int = 0
    received: int = 0
    resent: int = 0
    unusable: int = 0


class Pipe:
    """The bytes of a session.

    Parameters
    ----------
    line : Line
    baud : float
        Bits a second on the line, by which the board's time to answer is reckoned. Too short a
        time costs packets that are sent twice, and nothing else.
    patience : float
        Seconds of silence after which the board is given up.
    dice : random.Random, optional
        Draw the sessions.

    Attributes
    ----------
    traffic : Traffic
    status : Status
        What the board has said last.
    """

    def __init__(
        self, line: Line, baud: float, patience: float, dice: random.Random | None = None
    ) -> None:
        self._line = line
        self._dice = dice or random.SystemRandom()
        self._patience = patience
        self._byte = 10 / baud  # seconds
        # For both rings, the frames of their packets, and what an adapter for USB adds. Once it is
        # measured, for a packet each way at least.
        self._first_wait = 0.03 + 1500 * self._byte
        self._least_wait = 0.05 + 300 * self._byte
        self.traffic = Traffic()
        self.status: Status | None = None
        self._frame = bytearray()
        self._begin()

    def _begin(self) -> None:
        """Begin a session without any bytes."""
        # One that is not open already by a host before, as far as that can be known.
        self._session = self._dice.randint(CLOSED + 1, 255)
        # Numbers of bytes: the first without ack, the next to be sent, the one behind all that
        # were ever sent, the first without room.
        self._acked = self._next = self._top = self._limit = 0
        self._unacked = bytearray()  # what is to be sent, from `_acked` on
        self._expected = 0
        self._came = bytearray()
        self._owes = False  # an ack
        self._again = False  # the board is to send again
        # What was done about a gap is done once: all that is behind it tells of it as well.
        self._asked_at = self._back_at = -1
        # A board may answer late: what it takes is measured, on packets that were sent once.
        self._wait = self._first_wait
        self._timed: tuple[int, float] | None = None  # the byte behind one, and when it was sent
        self._usual = 0.0
        self._moved = self._heard = self._due = self._line.now
        self._told: list[Packet] = []  # the last status
        self._strangers = 0

    def open(self, enquiries: int = ENQUIRIES) -> Status:
        """Begin a session and return what the board says, which is asked so many times.

        Raises
        ------
        NoAnswer
        UserError
            It answers in another protocol.
        """
        while True:
            self._begin()
            told = self._enquire(enquiries)
            if told is None:
                raise NoAnswer("no board answers: want its port, and a bitstream with a link")
            assert self.status
            if self.status.version != VERSION:
                raise UserError(
                    f"the board speaks version {self.status.version} of the link, want {VERSION}"
                )
            # If it had this very session from a host before, it has bytes of it too.
            if not (told.offset or told.ack or told.taken):
                return self.status

    def ask(self) -> Status:
        """Return what the board says now.

        Raises
        ------
        CheckFailed
            It does not answer.
        """
        if self._enquire(ENQUIRIES) is None:
            raise CheckFailed("the board does not answer any more")
        assert self.status
        return self.status

    def _enquire(self, enquiries: int) -> Packet | None:
        """Return the packet of a status, or nothing."""
        self._told.clear()
        wait = self._first_wait
        for _ in range(enquiries):
            self._put(Packet(OPEN, self._session), afresh=True)
            start = self._line.now
            end = start + wait
            while not self._told and (left := end - self._line.now) > 0:
                self._read(left)
            if self._told:
                self._answered(self._line.now - start)
                return self._told[-1]
            wait = min(2 * wait, LONGEST_WAIT)
        return None

    @property
    def waiting(self) -> int:
        """Bytes that the board has not acknowledged."""
        return len(self._unacked)

    def send(self, data: bytes) -> None:
        """Send bytes, as soon as there is room for them."""
        if not self._unacked:  # there may have been nothing to do for long
            self._progress()
        self._unacked += data

    def receive(self) -> bytes:
        """Return what has come since the last call."""
        came = bytes(self._came)
        self._came.clear()
        return came

    def step(self) -> None:
        """Send what there is room for, wait for the board, and ask it again if it is silent.

        Raises
        ------
        CheckFailed
            The session is over, or nothing has moved for too long.
        """
        self._fill()
        self._read(max(self._due - self._line.now, 0))
        now = self._line.now
        if now - max(self._heard, self._moved) > self._patience:
            raise CheckFailed(f"the board has been silent for {self._patience:g} s")
        if now - self._moved > STILL:
            raise CheckFailed(f"the board answers, but its unit has done nothing for {STILL:g} s")
        if now >= self._due:
            self._wait = min(2 * self._wait, LONGEST_WAIT)
            self._due = now + self._wait
            self._go_back()
            self._again = True
            self._asked_at = self._back_at = -1
            self._data(afresh=True)

    def _fill(self) -> None:
        """Send what there is room for, and an ack if one is owed."""
        end = self._acked + len(self._unacked)
        while True:
            left = min(end - self._next, PAYLOAD)
            room = self._limit - self._next
            if left <= 0 or room < min(left, LEAST_ROOM if self._next > self._acked else 1):
                break
            self._data()
        if self._owes or self._again:
            self._data()

    def _data(self, *, afresh: bool = False) -> None:
        """Send a packet of what is next, empty if there is nothing or no room."""
        start = self._next - self._acked
        room = max(min(self._limit - self._next, PAYLOAD), 0)
        payload = bytes(self._unacked[start : start + room])
        kind = DATA | (AGAIN if self._again else 0)
        if self._next < self._top and payload:
            self.traffic.resent += 1
        self._put(
            Packet(
                kind, self._session, self._next % OFFSETS, self._expected % OFFSETS, payload=payload
            ),
            afresh=afresh,
        )
        if self._next == self._acked and payload:
            self._wait_now()
        self._next += len(payload)
        if self._next > self._top and not self._timed:
            self._timed = (self._next, self._line.now)
        self._top = max(self._top, self._next)
        self._owes = self._again = False

    def _put(self, packet: Packet, *, afresh: bool) -> None:
        """Send a packet; `afresh` where it would be lost behind half a one."""
        data = b"\0" * afresh + packet.encode()
        self.traffic.sent += len(data)
        self._line.write(data)

    def _read(self, seconds: float) -> bool:
        """Take what comes, and return whether anything has."""
        data = self._line.read(seconds)
        self.traffic.received += len(data)
        *frames, rest = data.split(b"\0")
        for frame in frames:
            self._frame += frame
            if self._frame:
                self._take(bytes(self._frame))
            self._frame.clear()
        self._frame += rest
        return bool(data)

    def _take(self, frame: bytes) -> None:
        """Take what came between two delimiters."""
        try:
            packet = Packet.decode(frame)
        except BadPacket:
            self.traffic.unusable += 1
            self._miss()
            return
        if packet.session != self._session:
            self._strangers += bool(packet.kind & OPEN)
            if self._strangers == STRANGERS and self._top:
                raise CheckFailed("the board was reset, or opened by another host")
            return
        if not packet.from_board:  # somebody's echo
            return
        self._strangers = 0
        self._heard = self._line.now
        if packet.kind & OPEN:
            try:
                self.status = Status.decode(packet.payload)
            except BadPacket:
                return
            self._told.append(packet)
        else:
            self._take_payload(packet)
        self._take_ack(packet)

    def _take_payload(self, packet: Packet) -> None:
        """Take the payload, if it is what is expected."""
        behind = (self._expected - packet.offset) % OFFSETS
        if behind < OFFSETS // 2:
            news = packet.payload[behind:]
            self._came += news
            self._expected += len(news)
            self._owes |= bool(packet.payload)
            if news:
                self._progress()
        else:
            self.traffic.unusable += 1
            self._miss()

    def _take_ack(self, packet: Packet) -> None:
        """Forget what the board has, and learn how much more it can take."""
        news = (packet.ack - self._acked) % OFFSETS
        if news > self._top - self._acked:  # a packet that comes late
            return
        if news:
            del self._unacked[:news]
            self._acked += news
            self._next = max(self._next, self._acked)
            if self._timed and self._timed[0] <= self._acked:
                self._answered(self._line.now - self._timed[1])
            self._progress()
        if self.status:
            taken = self._acked - (packet.ack - packet.taken) % OFFSETS
            limit = taken + self.status.ring - SPARE
            if limit > self._limit:
                self._limit = limit
                self._progress()
        if packet.kind & GAP:
            if self._next == self._acked:
                self._owes = True  # it was an ack that the board has missed
            elif self._acked != self._back_at:
                self._back_at = self._acked
                self._go_back()

    def _go_back(self) -> None:
        """Send again what has no ack."""
        self._next = self._acked
        self._timed = None

    def _answered(self, took: float) -> None:
        """Learn how long the board takes to answer."""
        self._usual = max(took, (7 * self._usual + took) / 8)
        self._wait = max(2 * self._usual, self._least_wait)
        self._timed = None

    def _miss(self) -> None:
        """Have the board send again what is missing."""
        if self._asked_at != self._expected:
            self._asked_at = self._expected
            self._again = True

    def _progress(self) -> None:
        """Note that something has moved."""
        self._moved = self._line.now
        self._wait_now()

    def _wait_now(self) -> None:
        """Give the board time from now on, for what is on its way too."""
        self._due = self._line.now + self._wait + (self._next - self._acked) * self._byte
