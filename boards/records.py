"""Beats of streams as records in a pipe of bytes, and back: `boards.shell` says what they are."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from boards.shell import FIRST, LAST, MOST_BEATS, MOST_STREAMS, beat_bytes, ends
from gen.errors import CheckFailed
from gen.vectors import Word
from hw.config import Config
from hw.stream import Stream


class Writer:
    """Records to a top.

    One record waits for another, so beats go in an order in which no input waits for one that is
    still to come. Inputs that are joined beat by beat take turns; they, and what else may run a
    time step ahead of the others, come first.

    Parameters
    ----------
    config : Config
    """

    def __init__(self, config: Any) -> None:
        self._inputs = ends(config, "in")
        main = [s for s in self._inputs if not s.auxiliary]
        joined = tuple(s for s in main if s.lockstep)
        alone = sorted((s for s in main if not s.lockstep), key=lambda s: -s.ahead)
        self._turns = [*([joined] if joined else []), *((s,) for s in alone)]
        self._grain: int = config.groups if config.asks else 0
        for stream, *_ in self._turns[:-1]:
            if not stream.lockstep and stream.ahead < stream.beats:
                raise AssertionError(f"{stream.name}: no time step of it goes ahead of the others")

    def record(self, name: str, beats: Sequence[Word]) -> bytes:
        """Return a record: at most `MOST_BEATS`, `tlast` on none but the last of them."""
        number = next(n for n, s in enumerate(self._inputs) if s.name == name)
        stream = self._inputs[number]
        low = stream.tdata_width // 8
        high = beat_bytes(stream) - low
        marks = len(beats) | LAST * beats[-1][1] | FIRST * (beats[0][2] & 1)
        return bytes((number, marks)) + b"".join(
            tdata.to_bytes(low, "little") + (tuser >> 1).to_bytes(high, "little")
            for tdata, _, tuser in beats
        )

    def frames(self, name: str, beats: Sequence[Word]) -> bytes:
        """Return the records of beats of one stream."""
        records = []
        begin = 0
        for i, (_, last, _) in enumerate(beats, 1):
            if last or i - begin == MOST_BEATS or i == len(beats):
                records.append(self.record(name, beats[begin:i]))
                begin = i
        return b"".join(records)

    def inference(self, beats: Mapping[str, Sequence[Word]]) -> Iterator[tuple[int, bytes]]:
        """Yield what the main inputs get of an inference, and how many beats that are.

        A time step at a time; a token at a time where tokens wait for answers.
        """
        (main, *_), *_ = self._turns
        for step in range(main.steps):
            for turn in self._turns:
                ways = [beats[s.name][step * s.beats : (step + 1) * s.beats] for s in turn]
                if len(turn) > 1:
                    yield (
                        len(turn) * len(ways[0]),
                        b"".join(
                            self.record(s.name, [word])
                            for words in zip(*ways, strict=True)
                            for s, word in zip(turn, words, strict=True)
                        ),
                    )
                    continue
                for at in range(0, len(ways[0]), self._grain or len(ways[0])):
                    some = ways[0][at : at + (self._grain or len(ways[0]))]
                    yield len(some), self.frames(turn[0].name, some)


class Reader:
    """Records from a top.

    Parameters
    ----------
    config : Config
    """

    def __init__(self, config: Config) -> None:
        self._outputs = ends(config, "out")
        self._rest = b""

    def read(self, data: bytes) -> Iterator[tuple[Stream, Word]]:
        """Return the beats that are whole with these bytes.

        Raises
        ------
        CheckFailed
            A record is of no stream.
        """
        self._rest += data
        at = 0
        while at < len(self._rest):
            head = self._rest[at]
            number = head % MOST_STREAMS
            if number >= len(self._outputs):
                raise CheckFailed(f"the board sends beats of a stream {number}, which is none")
            stream = self._outputs[number]
            end = at + 1 + beat_bytes(stream)
            if end > len(self._rest):
                break
            value = int.from_bytes(self._rest[at + 1 : end], "little")
            tag = value >> stream.tdata_width
            tdata = value & ((1 << stream.tdata_width) - 1)
            yield stream, (tdata, int(bool(head & LAST)), tag << 1 | bool(head & FIRST))
            at = end
        self._rest = self._rest[at:]
