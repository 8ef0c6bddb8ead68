"""A board that sends back what it gets, and a line to it on which things go wrong."""

import dataclasses
import functools
import random
from collections.abc import Callable

from amaranth import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from boards.link import Link
from boards.pipe import Pipe
from boards.uart import Receiver, Transmitter
from boards.virtual import TOP, Model, build
from gen.verilog import convert

DIVISOR = 2
CLOCK_HZ = 2e5  # slow, so that what a USB adapter adds is little
BAUD = CLOCK_HZ / DIVISOR
IDENTITY = bytes(range(16))


AROUND = f"""
module {TOP} (input clk, input rx, output tx, output alive, output session, output fault);
    reg [1:0] up = 0;
    always @(posedge clk) if (up != 3) up <= up + 1;
    echo echo (
        .clk(clk), .rst(up != 3), .rx(rx), .tx(tx), .alive(alive), .session(session), .fault(fault)
    );
endmodule
"""


class Echo(wiring.Component):
    """The ports of a board around a link alone, and a unit that pauses if asked to."""

    rx: In(1, init=1)
    tx: Out(1, init=1)
    alive: Out(1)
    session: Out(1)
    fault: Out(1)

    def __init__(self, link=Link, pauses=False):
        self._link = link
        self._pauses = pauses
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        m.submodules.receiver = receiver = Receiver(DIVISOR)
        m.submodules.transmitter = transmitter = Transmitter(DIVISOR)
        m.submodules.link = link = self._link(IDENTITY)
        wiring.connect(m, link.line, transmitter.i)
        goes = Signal(init=1)
        if self._pauses:
            self._pause(m, goes)
        m.d.comb += [
            link.up.payload.eq(link.down.payload),
            link.up.valid.eq(link.down.valid & goes),
            link.down.ready.eq(link.up.ready & goes),
            receiver.rx.eq(self.rx),
            link.data.eq(receiver.data),
            link.take.eq(receiver.valid),
            self.tx.eq(transmitter.tx),
            self.session.eq(link.opened),
            self.fault.eq(link.bad),
        ]
        return m

    def _pause(self, m, goes):
        """Let bytes through for up to 255 clocks, then none for up to 16,383."""
        dice = Signal(16, init=1)
        left = Signal(16)
        m.d.sync += dice.eq(Mux(dice[0], dice >> 1 ^ 0xB400, dice >> 1))
        with m.If(left != 0):
            m.d.sync += left.eq(left - 1)
        with m.Else():
            m.d.sync += [goes.eq(~goes), left.eq(Mux(goes, dice[:14], dice[:8]))]


@functools.cache
def library(link=Link, pauses=False):
    return build({f"{TOP}.v": AROUND, "echo.v": convert(Echo(link, pauses), "echo", "v")})


def model(link=Link, seed=1, pauses=False):
    return Model(library(link, pauses), DIVISOR, seed)


# What goes wrong with a packet, which is bytes with their delimiter.


def lost(rng, packet, before):
    return b""


def cut(rng, packet, before):
    """Without its end, or a piece out of it."""
    a, b = sorted(rng.sample(range(len(packet) + 1), 2))
    return packet[:a] if rng.random() < 0.5 else packet[:a] + packet[b:]


def repeated(rng, packet, before):
    """At once, or one of those before."""
    return packet + rng.choice([packet, *before])


def flipped(rng, packet, before):
    damaged = bytearray(packet)
    for _ in range(rng.choice([1, 1, 2, 3, 8, 40])):
        damaged[rng.randrange(len(packet))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def garbage(rng, packet, before):
    """Between two packets or inside of one."""
    at = rng.choice([0, 0, rng.randrange(len(packet))])
    return packet[:at] + rng.randbytes(rng.randint(1, 40)) + packet[at:]


KINDS: dict[str, Callable] = {f.__name__: f for f in (lost, cut, repeated, flipped, garbage)}


@dataclasses.dataclass
class Faults:
    """What goes wrong on one direction of a line.

    Attributes
    ----------
    kinds : list of functions
    chance : float
        For a packet to be struck.
    """

    rng: random.Random
    kinds: list = dataclasses.field(default_factory=list)
    chance: float = 0.0
    count: int = 0
    before: list = dataclasses.field(default_factory=list)

    def strike(self, packet):
        self.before = [*self.before[-8:], packet]
        if self.kinds and self.rng.random() < self.chance:
            self.count += 1
            return self.rng.choice(self.kinds)(self.rng, packet, self.before)
        return packet


class Wire:
    """A line to a model, timed by the model's clock: nothing depends on how fast it runs."""

    def __init__(self, model, there=None, back=None):
        self.model = model
        self.there = there or Faults(random.Random(0))
        self.back = back or Faults(random.Random(0))
        self._out = b""
        self._half = b""
        self._early = b""

    @property
    def now(self):
        return self.model.clocks / CLOCK_HZ

    def write(self, data):
        self._out += self.there.strike(data)

    def idle(self, clocks):
        """Let time pass before the next read."""
        self._early += self.model.run(b"", clocks)

    def read(self, seconds):
        data, self._out = self._out, b""
        end = self.model.clocks + max(int(seconds * CLOCK_HZ), 1)
        early, self._early = self._early, b""
        came = self._struck(early + self.model.run(data, end - self.model.clocks))
        # What is lost is lost: go on waiting.
        while not came and self.model.clocks < end:
            came = self._struck(self.model.run(b"", end - self.model.clocks))
        return came

    def cut(self, rng):
        """End in the middle of what is being sent, and of what is being received."""
        self._out = self._out[: rng.randint(0, len(self._out))]
        self._half = self._half[: rng.randint(0, len(self._half))]

    def _struck(self, came):
        *packets, self._half = (self._half + came).split(b"\0")
        return b"".join(self.back.strike(packet + b"\0") for packet in packets)


def pipe(wire, seed=1, patience=20.0):
    return Pipe(wire, BAUD, patience, random.Random(seed))


def exchange(pipe, data):
    """Send bytes; return what comes back, when all has and its acks have gone."""
    pipe.send(data)
    came = b""
    while len(came) < len(data) or pipe.waiting:
        pipe.step()
        came += pipe.receive()
    return came
