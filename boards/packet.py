"""Packets between a host and a board: what both sides of the link have to agree on.

A packet is ``COBS(kind:1 session:1 offset:2 ack:2 [taken:2] payload crc:4) 00``, numbers little
endian; `taken` is in packets of a board alone. Bytes of a direction are numbered from 0 in each
session, modulo 2^16: `offset` is the number of the payload's first byte, `ack` the number of the
next byte that its sender expects, `taken` how many the board has taken out of its ring. A host
may send bytes up to ``taken + ring - SPARE``.

The CRC is that of Ethernet, over all before it. On a serial line packets may be lost, cut,
repeated or damaged, and come late; none is 64 KiB late.
"""

import dataclasses
import struct
import zlib
from typing import Self

from cobs import cobs

VERSION = 1
"""Number of this protocol; a board says it in its status."""

CLOSED = 0
"""The session of a board that nobody has opened."""

OPEN = 0x01
"""Kind, of a host: begin the session, if it is not the one that is open; to be answered by
`STATUS`. Everything of the one before is forgotten, and the unit is reset."""

DATA = 0x02
"""Kind, of a host: payload of the session, or none."""

AGAIN = 0x04
"""With `DATA` of a host: send again all that has no `ack` yet."""

STATUS = 0x81
"""Kind, of a board: the payload is a `Status`, and its bytes have no numbers."""

BOARD_DATA = 0x82
"""Kind, of a board: payload of the session, or none."""

GAP = 0x04
"""With a kind of a board: since its last packet one came that it could not use."""

HEAD, BOARD_HEAD = struct.Struct("<BBHH"), struct.Struct("<BBHHH")

CRC_BYTES = 4

PAYLOAD = 128
"""Most bytes of a payload; a packet is below 254 bytes, so that no block of COBS is full."""

SPARE = CRC_BYTES
"""Bytes of a board's ring that are never filled: a CRC lies behind the payload until it is known
to be right."""

OFFSETS = 1 << 16

HASH_BYTES = 16
"""Of the manifest's hash in a status."""


class BadPacket(ValueError):
    """What came between two delimiters is no packet; the message says why."""


@dataclasses.dataclass(frozen=True)
class Packet:
    """A packet; `taken` is 0 in those of a host."""

    kind: int
    session: int
    offset: int = 0
    ack: int = 0
    taken: int = 0
    payload: bytes = b""

    @property
    def from_board(self) -> bool:
        """Whether a board has sent it."""
        return bool(self.kind & 0x80)

    def encode(self) -> bytes:
        """Return the bytes on the wire, with the delimiter at their end."""
        if self.from_board:
            head = BOARD_HEAD.pack(self.kind, self.session, self.offset, self.ack, self.taken)
        else:
            head = HEAD.pack(self.kind, self.session, self.offset, self.ack)
        text = head + self.payload
        return bytes(cobs.encode(text + struct.pack("<I", zlib.crc32(text)))) + b"\0"

    @classmethod
    def decode(cls, frame: bytes) -> Self:
        """Return the packet in a frame, which is without its delimiter.

        Raises
        ------
        BadPacket
        """
        try:
            text = cobs.decode(frame)
        except cobs.DecodeError as wrong:
            raise BadPacket(str(wrong)) from wrong
        if len(text) < HEAD.size + CRC_BYTES:
            raise BadPacket(f"{len(text)} bytes are too few")
        text, crc = text[:-CRC_BYTES], text[-CRC_BYTES:]
        if struct.pack("<I", zlib.crc32(text)) != crc:
            raise BadPacket("wrong CRC")
        if not text[0] & 0x80:
            kind, session, offset, ack = HEAD.unpack_from(text)
            return cls(kind, session, offset, ack, 0, text[HEAD.size :])
        if len(text) < BOARD_HEAD.size:
            raise BadPacket(f"{len(text)} bytes are too few")
        kind, session, offset, ack, taken = BOARD_HEAD.unpack_from(text)
        return cls(kind, session, offset, ack, taken, text[BOARD_HEAD.size :])


@dataclasses.dataclass(frozen=True)
class Status:
    """What a board says of itself.

    Attributes
    ----------
    hash : bytes
        The first `HASH_BYTES` of the manifest's hash.
    version : int
    ring : int
        Bytes of the ring of what it receives.
    faults : int
        Broken frames that its unit has counted.
    """

    hash: bytes
    version: int
    ring: int
    faults: int

    FORM = struct.Struct(f"<{HASH_BYTES}sBBB")

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Return the status in a payload, of which a later version may have more.

        Raises
        ------
        BadPacket
        """
        if len(payload) < cls.FORM.size:
            raise BadPacket(f"a status of {len(payload)} bytes is too short")
        identity, version, ring_bits, faults = cls.FORM.unpack_from(payload)
        return cls(identity, version, 1 << ring_bits, faults)


def identity(digest: str) -> bytes:
    """Return what a status says of a manifest's hash."""
    return bytes.fromhex(digest)[:HASH_BYTES]
