"""The AXI4-Stream protocol, watched on every port of a top: what moves, and what must not happen.

The rules are those of DESIGN.md, section 3:

1. No beat can move in a clock with `rst` at 1: `tready` of inputs and `tvalid` of outputs are 0.
2. `tvalid` and `tready` are 0 or 1, never X or Z, from power-up on; so is the payload of a beat.
3. Once `tvalid` is 1 it holds, and the payload with it, until the beat moves.
4. Bits of `tdata` above the elements are 0.

That `tvalid` never waits for `tready` can't be seen from outside; the bench has a test for it.
"""

import dataclasses
from typing import Any, NoReturn

from cocotb.triggers import RisingEdge

from gen.vectors import Word
from hw.config import Config
from hw.stream import Stream, axi_prefix


class ProtocolError(AssertionError):
    """A rule is broken."""


@dataclasses.dataclass(frozen=True, slots=True)
class Beat:
    """A beat that moved.

    Attributes
    ----------
    clock : int
        Number of the clock edge at which it moved.
    word : Word
    """

    clock: int
    word: Word


class Port:
    """The wires of one stream, and the beats that moved on it.

    Parameters
    ----------
    dut : cocotb handle
    stream : Stream
    prefix : str
        Of the names of its ports.

    Attributes
    ----------
    beats : list of Beat
        Since `forget`.
    offered : bool
        Whether there was a beat at all, moved or not, since `forget`.
    """

    def __init__(self, dut: Any, stream: Stream, prefix: str) -> None:
        self.stream = stream
        self.prefix = prefix
        self._tdata, self._tlast, self._tuser, self._tvalid, self._tready = (
            _wire(dut, f"{prefix}_{name}", width)
            for name, width in (
                ("tdata", stream.tdata_width),
                ("tlast", 1),
                ("tuser", 1 + stream.tag),
                ("tvalid", 1),
                ("tready", 1),
            )
        )
        self.forget()

    def forget(self) -> None:
        """Start afresh."""
        self.beats: list[Beat] = []
        self.offered = False
        self._stalled: Word | None = None

    @property
    def words(self) -> list[Word]:
        """What moved."""
        return [beat.word for beat in self.beats]

    def sample(self, clock: int, reset: bool) -> bool:
        """Look at the port at a clock edge; return whether a beat moves.

        Raises
        ------
        ProtocolError
        """
        valid = self._bit(clock, "tvalid", self._tvalid)
        ready = self._bit(clock, "tready", self._tready)
        if reset:
            name, level = ("tready", ready) if self.stream.direction == "in" else ("tvalid", valid)
            if level:
                self._fail(clock, f"{name} is 1 during reset")
            self._stalled = None
            return False
        if not valid:
            if self._stalled is not None:
                self._fail(clock, "tvalid dropped before the beat moved")
            return False
        word = self._payload(clock)
        if self._stalled is not None and word != self._stalled:
            self._fail(clock, f"the payload changed while stalled: {self._stalled}, then {word}")
        self.offered = True
        self._stalled = None if ready else word
        if ready:
            self.beats.append(Beat(clock, word))
        return bool(ready)

    def _bit(self, clock: int, name: str, wire: Any) -> int:
        value = wire.value
        try:
            return int(value)
        except ValueError:
            self._fail(clock, f"{name} is {value}")

    def _payload(self, clock: int) -> Word:
        values = [wire.value for wire in (self._tdata, self._tlast, self._tuser)]
        try:
            data, last, first = (int(value) for value in values)
        except ValueError:
            names = ("tdata", "tlast", "tuser")
            self._fail(
                clock,
                f"a beat is {', '.join(f'{n} {v}' for n, v in zip(names, values, strict=True))}",
            )
        if data >> (self.stream.lanes * self.stream.width):
            self._fail(clock, f"unused high bits of tdata are not 0: {data:#x}")
        return data, last, first

    def _fail(self, clock: int, what: str) -> NoReturn:
        raise ProtocolError(f"{self.prefix}: clock {clock}: {what}")


class Monitor:
    """Watch all ports of a top.

    Parameters
    ----------
    dut : cocotb handle
    config : Config

    Attributes
    ----------
    ports : dict of str to Port
        By the name of the stream.
    clock : int
        Clock edges so far.
    moved : int
        The clock in which the latest beat moved.
    """

    def __init__(self, dut: Any, config: Config) -> None:
        self._clk = _wire(dut, "clk", 1)
        self._rst = _wire(dut, "rst", 1)
        self.ports = {s.name: Port(dut, s, axi_prefix(s, config.streams)) for s in config.streams}
        self.clock = 0
        self.moved = 0

    async def run(self) -> None:
        """Sample all ports at each clock edge, for ever."""
        edge = RisingEdge(self._clk)
        while True:
            await edge
            self.clock += 1
            reset = bool(self._rst.value)
            for port in self.ports.values():
                if port.sample(self.clock, reset):
                    self.moved = self.clock

    def forget(self) -> None:
        """Forget all beats."""
        for port in self.ports.values():
            port.forget()


def _wire(dut: Any, name: str, width: int) -> Any:
    """Return a port of the top, which must be there and as wide as it is expected."""
    wire = getattr(dut, name, None)
    if wire is None:
        raise ProtocolError(f"there is no port {name}: the file is of other parameters")
    if len(wire) != width:
        raise ProtocolError(
            f"port {name} has {len(wire)} bits, want {width}: the file is of other parameters"
        )
    return wire
