"""A top that tests itself: stimulus and golden's checksum in ROM, the verdict on two wires."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from amaranth import Cat, ClockSignal, Instance, Module, ResetSignal, Signal
from amaranth.hdl import Value
from amaranth.lib import memory, wiring
from amaranth.lib.crc import Parameters, catalog
from amaranth.lib.wiring import Out

from gen.emit import Emission
from gen.vectors import marks, pack
from hw.config import Config
from hw.stream import Stream, axi_prefix
from sim.golden import golden


@dataclasses.dataclass(frozen=True)
class Vectors:
    """One inference as it goes over the ports of an emitted top.

    Attributes
    ----------
    words : dict of str to list of int
        ``tdata`` of every beat, by stream.
    """

    words: dict[str, list[int]]

    @classmethod
    def of(cls, emission: Emission, arrays: Mapping[str, np.ndarray]) -> "Vectors":
        """Return the vectors of a stimulus and of what golden makes of it after reset."""
        config = emission.config
        result, _ = golden(emission.top)(config.asdict(), arrays, None)
        everything = {**config.stimulus, **config.result}
        values = {**arrays, **result}
        streams = {s.name: s for s in config.streams}
        return cls(
            {
                array.stream: pack(streams[array.stream], values[name])
                for name, array in everything.items()
                if name in values
            }
        )


def deadline(config: Config) -> int:
    """Return the clock after reset in which the verdict falls: ample, even for a tiny top."""
    settings = sum(s.beats for s in config.streams if s.direction == "in" and s.auxiliary)
    return 2 * config.cycles + settings + 32


def crc_of(stream: Stream) -> Parameters:
    """Return the CRC-32 over the beats of a stream: ``tdata``, ``tlast`` and ``tuser``."""
    return catalog.CRC32_ETHERNET(data_width=stream.tdata_width + 2)


def checksum(stream: Stream, words: list[int]) -> int:
    """Return the CRC-32 of the beats of one inference."""
    shift = stream.tdata_width
    return crc_of(stream).compute(
        word | last << shift | first << (shift + 1)
        for word, (last, first) in zip(words, marks(stream), strict=True)
    )


class SelfTest(wiring.Component):
    """Feed an emitted top from ROM once after reset and check what comes out.

    The top is the emitted Verilog as an instance, so what was verified is what is on the board.
    Settings are loaded first. Every output beat (``tdata``, ``tlast``, ``tuser``) goes into a
    CRC-32 per stream.

    Parameters
    ----------
    emission : Emission
    vectors : Vectors

    Attributes
    ----------
    passed : Signal(), out
        Every output was there and right; stays.
    failed : Signal(), out
        Something was wrong, was too much, or did not come before the `deadline`.
    """

    def __init__(self, emission: Emission, vectors: Vectors) -> None:
        self._emission = emission
        self._vectors = vectors
        super().__init__({"passed": Out(1), "failed": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self._emission.config
        ports: dict[str, object] = {"i_clk": ClockSignal(), "i_rst": ResetSignal()}
        done, wrong, settled = [], [], []
        loaded = Signal()  # the settings are
        for stream in config.streams:
            prefix = axi_prefix(stream, config.streams)
            beat = {
                "tdata": Signal(stream.tdata_width, name=f"{stream.name}_tdata"),
                "tlast": Signal(name=f"{stream.name}_tlast"),
                "tuser": Signal(name=f"{stream.name}_tuser"),
            }
            valid, ready = (Signal(name=f"{stream.name}_{x}") for x in ("tvalid", "tready"))
            there, back = ("i", "o") if stream.direction == "in" else ("o", "i")
            ports |= {f"{there}_{prefix}_{name}": signal for name, signal in beat.items()}
            ports |= {f"{there}_{prefix}_tvalid": valid, f"{back}_{prefix}_tready": ready}
            words = self._vectors.words.get(stream.name, [])
            if stream.direction == "in" and words:
                go = 1 if stream.auxiliary else loaded
                sent = self._source(m, stream, words, beat, valid, ready, go)
                settled += [sent] if stream.auxiliary else []
            elif stream.direction == "out":
                m.d.comb += ready.eq(1)
                whole, bad = self._sink(m, stream, words, Cat(*beat.values()), valid)
                done.append(whole)
                wrong.append(bad)
        faults = Signal(8)
        m.submodules.unit = Instance(self._emission.name, o_faults=faults, **ports)

        m.d.sync += loaded.eq(Cat(settled).all())
        clock = Signal(range(deadline(config) + 1))
        late = clock == deadline(config)
        with m.If(~late):
            m.d.sync += clock.eq(clock + 1)
        with m.If(Cat(wrong).any() | (faults != 0) | (late & ~Cat(done).all())):
            m.d.sync += self.failed.eq(1)
        m.d.comb += self.passed.eq(late & Cat(done).all() & ~self.failed)
        return m

    def _source(
        self, m: Module, stream: Stream, words: list[int], beat: dict[str, Signal],
        valid: Signal, ready: Signal, go: Signal | int,
    ) -> Value:  # fmt: skip
        """Send the words once `go` is 1; return whether they are sent."""
        rom = memory.Memory(shape=stream.lanes * stream.width, depth=len(words), init=words)
        m.submodules[f"{stream.name}_rom"] = rom
        port = rom.read_port()
        index, upcoming = (Signal(range(len(words) + 1), name=f"{stream.name}_{x}")
                           for x in ("index", "upcoming"))  # fmt: skip
        in_step = Signal(range(max(stream.beats, 2)), name=f"{stream.name}_beat")
        moves = valid & ready
        started = Signal(name=f"{stream.name}_started")  # the ROM's first word is there
        m.d.sync += [started.eq(1), index.eq(upcoming)]
        with m.If(moves):
            m.d.comb += upcoming.eq(index + 1)
            m.d.sync += in_step.eq(in_step + 1)
            with m.If(beat["tlast"]):
                m.d.sync += in_step.eq(0)
        with m.Else():
            m.d.comb += upcoming.eq(index)
        m.d.comb += [
            port.addr.eq(upcoming),
            valid.eq(started & go & (index != len(words))),
            beat["tdata"].eq(port.data),
            beat["tlast"].eq(in_step == stream.beats - 1),
            beat["tuser"].eq(index == 0),
        ]
        return index == len(words)

    def _sink(
        self, m: Module, stream: Stream, words: list[int], beat: Cat, valid: Signal
    ) -> tuple[Signal, Signal]:
        """Return (every beat came and was right, something is wrong)."""
        crc = m.submodules[f"{stream.name}_crc"] = crc_of(stream).create()
        count = Signal(range(len(words) + 1), name=f"{stream.name}_count")
        full, done, wrong = (Signal(name=f"{stream.name}_{x}") for x in ("full", "done", "wrong"))
        m.d.comb += [
            full.eq(count == len(words)),
            crc.valid.eq(valid & ~full),
            crc.data.eq(beat),
            done.eq(full & (crc.crc == checksum(stream, words))),
            wrong.eq(full & (valid | (crc.crc != checksum(stream, words)))),
        ]
        with m.If(valid & ~full):
            m.d.sync += count.eq(count + 1)
        return done, wrong
