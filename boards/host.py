"""A host's side of a board: arrays in, arrays out, over a serial line."""

import contextlib
import dataclasses
import errno
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import click
import numpy as np
import serial
from rich.console import Console

from boards import classify
from boards.catalogue import BAUDS, BOARDS
from boards.errands import Errands
from boards.identify import in_words, manifest_identity, recognised
from boards.pipe import ENQUIRIES, Line, NoAnswer, Pipe
from boards.records import Reader, Writer
from gen.emit import check_name
from gen.errors import CheckFailed, Command, UserError
from gen.network import model_of, top_of
from gen.options import nearest, parsed, resolve, top_options
from gen.vectors import Word, marks, unpack, words
from hw.config import Config
from hw.stream import Stream
from sim import arrays
from sim.reference import Reference

PATIENCE = 10.0
"""Seconds without any progress after which a board is given up."""

BACKLOG = 4096
"""Bytes that wait to be sent: more are only made when there are fewer."""

GLANCE = 0.005
"""Seconds that a read of the port waits at most."""

FEW_ENQUIRIES = 3
"""Times that a board is asked at a rate which may not be its own."""

UNANSWERED = "expert_out: missing; without answers of experts nothing comes back"


class SerialLine:
    """A serial port of the machine.

    Parameters
    ----------
    port : str
        Its path, or what else pyserial takes for one.
    baud : int

    Raises
    ------
    UserError
        It can't be opened.
    """

    def __init__(self, port: str, baud: int) -> None:
        self._name = port
        try:
            self._port = serial.serial_for_url(
                port, baudrate=baud, timeout=GLANCE, write_timeout=PATIENCE, exclusive=True
            )
        except (serial.SerialException, ValueError, OverflowError) as wrong:
            number = getattr(wrong, "errno", None)
            reason = os.strerror(number) if number else wrong
            if number == errno.EAGAIN:
                reason = "another program has it"
            raise UserError(f"--port: can't open {port}: {reason}") from wrong
        # An adapter that waits for more before it hands a byte on costs most of the throughput.
        with contextlib.suppress(AttributeError, OSError, ValueError):
            self._port.set_low_latency_mode(True)

    def set_baud(self, baud: int) -> None:
        """Go on at another rate."""
        try:
            self._port.baudrate = baud
        except (serial.SerialException, OSError, ValueError, OverflowError) as wrong:
            raise UserError(f"{self._name}: can't do {baud} baud: {wrong}") from wrong

    def read(self, seconds: float) -> bytes:
        """Return what has come; wait for the first byte, but no longer than a glance."""
        try:
            return bytes(self._port.read(1) + self._port.read(self._port.in_waiting))
        except (serial.SerialException, OSError) as wrong:
            raise CheckFailed(f"{self._name} is gone: {wrong}") from wrong

    def write(self, data: bytes) -> None:
        """Send bytes."""
        try:
            self._port.write(data)
        except (serial.SerialException, OSError) as wrong:
            raise CheckFailed(f"{self._name} is gone: {wrong}") from wrong

    @property
    def now(self) -> float:
        """Seconds of the machine's clock."""
        return time.monotonic()

    def close(self) -> None:
        """Close the port."""
        self._port.close()


@dataclasses.dataclass(frozen=True)
class Report:
    """What a run took.

    Attributes
    ----------
    inferences : int
    beats_in, beats_out : int
        Beats on all streams of the top.
    seconds : float
        From the first byte to the last.
    bytes_sent, bytes_received : int
        On the wire.
    wire_seconds : float
        That the busier direction of the wire takes for them.
    resent, unusable : int
        Packets sent again, and packets that came damaged or too early.
    """

    inferences: int
    beats_in: int
    beats_out: int
    seconds: float
    bytes_sent: int
    bytes_received: int
    wire_seconds: float
    resent: int
    unusable: int


class Board:
    """A top on a board, in a ``with`` statement: a session, from reset on.

    Random sources go on over the runs of a session. Settings (weights, thresholds, seeds) are
    those of each run: they are sent again where they differ from what was loaded last.

    Parameters
    ----------
    board : str, optional
        Name of the board in the catalogue: by it the rates that its serial port may have are
        known, and the preset that is taken for a top where none is given.
    port : str or Line
        The serial port.
    top : str, optional
        Key of ``hw.tops.TOPS``. Without it, or where its configuration does not follow from
        `board`, `preset` and `settings`, the board is asked, which is understood if it has a preset
        or what was built into ``build/boards``.
    preset : str, optional
    settings : mapping or iterable of str
        Parameters by name, or ``name=value``.
    name : str, optional
        Of the module, if it was not emitted under the top's.
    baud : int, optional
        Bits a second on the line. Without it all are tried that the board may have.
    guesses : iterable of (str, Config)
        Tops that the board may have, besides presets and what was built.
    check : bool
        Hold every run against golden.

    Attributes
    ----------
    top : str
    config : Config
    baud : int
        The three in the ``with`` statement.
    report : Report
        Of the last run.

    Raises
    ------
    UserError
        There is no such port, no board, or another bitstream on it.
    """

    top: str
    config: Config
    baud: int

    def __init__(
        self,
        board: str | None,
        port: str | Line,
        top: str | None = None,
        preset: str | None = None,
        settings: Mapping[str, object] | Iterable[str] = (),
        *,
        name: str | None = None,
        baud: int | None = None,
        guesses: Iterable[tuple[str, Config]] = (),
        check: bool = False,
    ) -> None:
        if board is not None and board not in BOARDS:
            raise UserError(f"--board: there is no {board!r}; {nearest(board, BOARDS)}")
        target = BOARDS[board] if board else None
        if isinstance(settings, Mapping):
            settings = [
                f"{key}={str(value).lower() if isinstance(value, bool) else value}"
                for key, value in settings.items()
            ]
        settings = list(settings)
        self._wanted: tuple[str, Config] | None = None
        self._asked = top
        if top is not None:
            if preset is None and target:
                preset = target.presets.get(top)
            config = resolve(top, preset, settings)
            if preset or settings or name:
                self._wanted = top, config
        elif preset or settings or name:
            raise UserError("--top is missing: --preset and --set are of a top")
        self._name = check_name(name) if name else None
        self._port = port
        if baud:
            self._rates = [baud]
        else:
            self._rates = [rate for rate in BAUDS if not target or rate <= target.baud]
        self._guesses = guesses
        self._check = check
        self._open: contextlib.ExitStack | None = None

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            said = self._reach(stack)
            if self._wanted:
                self.top, self.config = self._wanted
                want = manifest_identity(self.top, self.config, self._name)
                if said != want:
                    raise UserError(
                        f"another bitstream is on the board: want {self.top} with manifest "
                        f"{want.hex()}, got {in_words(said, self._guesses)}"
                    )
            else:
                self.top, self.config = recognised(said, self._guesses)
                if self._asked not in (None, self.top):
                    raise UserError(
                        f"another bitstream is on the board: want {self._asked}, got "
                        f"{in_words(said, self._guesses)}"
                    )
            self._open = stack.pop_all()
        self._streams = {s.name: s for s in self.config.streams}
        self._results = {array.stream for array in self.config.result.values()}
        self._writer, self._reader = Writer(self.config), Reader(self.config)
        self._golden = Reference(self.top, self.config) if self._check else None
        self._loaded: dict[str, np.ndarray] = {}
        self._faults = 0
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        if self._open:
            self._open.close()
            self._open = None

    def _reach(self, stack: contextlib.ExitStack) -> bytes:
        """Begin a session, at the rate that the board answers at; return its manifest's hash."""
        line: Line
        if isinstance(self._port, str):
            line = own = SerialLine(self._port, self._rates[0])
            stack.callback(own.close)
        else:
            line, own = self._port, None
        rates = self._rates if own else self._rates[:1]
        for baud in rates:
            if own:
                own.set_baud(baud)
            self._pipe = Pipe(line, baud, PATIENCE)
            self.baud = baud
            try:
                return self._pipe.open(ENQUIRIES if baud == rates[-1] else FEW_ENQUIRIES).hash
            except NoAnswer:
                continue
        raise UserError(
            f"no board answers at {', '.join(f'{rate:,}' for rate in rates)} baud: want its port, "
            "and a bitstream with a link"
        )

    def run(self, **stimulus: np.ndarray) -> dict[str, np.ndarray]:
        """Send arrays through the top and return the arrays that come out.

        Parameters
        ----------
        **stimulus : ndarray
            The arrays of ``--stimulus``, all with or all without a leading batch axis. Settings
            are loaded where they are not yet; one that is left out is that of the parameters.

        Returns
        -------
        dict of str to ndarray
            The arrays of ``--result`` but `cycles`: a board does not count them.

        Raises
        ------
        UserError
            Wrong arrays; with `check`, arrays of which none come back; no ``with`` statement.
        CheckFailed
            The board is silent, its unit has counted a broken frame, marks are not where they
            must be, or with `check` something is not golden's.
        """
        if not self._open:
            raise UserError("want the board in a with statement: it is not open")
        batch, batched = arrays.check(stimulus, self.config)
        if self._golden and not self.comes(batch):
            raise UserError(f"{UNANSWERED}, and golden has nothing to be held against")
        run = _Run(self._writer, self._streams, self._results, batch)
        before = dataclasses.replace(self._pipe.traffic)
        start = time.monotonic()
        for settings, inferences in self._spans(batch, run.length):
            for name, array in settings.items():
                beats = words(self._streams[name], array)
                run.beats_in += len(beats)
                self._pipe.send(self._writer.frames(name, beats))
            self._stream(run, inferences)
        status = self._pipe.ask()
        if status.faults != self._faults:
            self._faults = status.faults
            raise CheckFailed(f"{self.top} has counted a broken frame")
        traffic = self._pipe.traffic
        sent, received = traffic.sent - before.sent, traffic.received - before.received
        self.report = Report(
            run.length, run.beats_in, run.beats_out, time.monotonic() - start, sent, received,
            10 * max(sent, received) / self.baud,
            traffic.resent - before.resent, traffic.unusable - before.unusable,
        )  # fmt: skip
        results = self._arrays(run)
        if self._golden:
            self._hold(batch, results)
        return results if batched else {name: array[0] for name, array in results.items()}

    def comes(self, stimulus: Mapping[str, np.ndarray]) -> list[str]:
        """Return the names of the arrays that come back of a stimulus.

        A top that asks neighbours has no sums of their answers where there are none.
        """
        silent = self.config.asks and "expert_out" not in stimulus
        return [
            name
            for name, array in self.config.result.items()
            if not silent or self._streams[array.stream].auxiliary
        ]

    def _spans(
        self, batch: arrays.Arrays, length: int
    ) -> Iterator[tuple[dict[str, np.ndarray], range]]:
        """Yield what is to be loaded, by stream, and the inferences that go with it."""
        begin = 0
        load: dict[str, np.ndarray] = {}
        for b in range(length):
            wanted = self._settings(batch, b)
            if any(
                name not in self._loaded or (self._loaded[name] != array).any()
                for name, array in wanted.items()
            ):
                if b > begin:
                    yield load, range(begin, b)
                begin, load = b, wanted
                self._loaded = wanted
        yield load, range(begin, length)

    def _settings(self, batch: arrays.Arrays, b: int) -> dict[str, np.ndarray]:
        """Return the settings of an inference, by stream."""
        found = {}
        for name, array in self.config.stimulus.items():
            stream = self._streams.get(array.stream)
            if stream and stream.auxiliary:
                # One from an earlier session outlives the reset.
                size = arrays.shape(self.config, array)
                found[stream.name] = (
                    batch[name][b]
                    if name in batch
                    else np.full(size, getattr(self.config, name), np.int64)
                )
        return found

    def _stream(self, run: "_Run", inferences: range) -> None:
        """Send inferences and take what comes out, until all of it is there."""
        errands = Errands(self.config, run.batch, inferences) if self.config.asks else None
        records = run.records(inferences)
        upcoming = next(records, None)
        wanted = {
            name: len(inferences) * self._streams[name].steps * self._streams[name].beats
            for name in self._results
        }
        have = {name: len(run.came[name]) for name in wanted}
        while any(len(run.came[name]) - have[name] < wanted[name] for name in wanted):
            while upcoming and self._pipe.waiting < BACKLOG and (not errands or errands.room):
                beats, record = upcoming
                run.beats_in += beats
                self._pipe.send(record)
                if errands:
                    errands.sent += 1
                upcoming = next(records, None)
            self._pipe.step()
            for stream, word in self._reader.read(self._pipe.receive()):
                run.beats_out += 1
                run.came.setdefault(stream.name, []).append(word)
                if errands and (answer := errands.take(stream, word)):
                    run.beats_in += len(answer[1])
                    self._pipe.send(self._writer.frames(*answer))

    def _arrays(self, run: "_Run") -> dict[str, np.ndarray]:
        """Return the results, or raise `CheckFailed` where the marks are not what they must be."""
        results = {}
        for name in self.comes(run.batch):
            array = self.config.result[name]
            stream = self._streams[array.stream]
            came = run.came[stream.name]
            frame = marks(stream) * run.length
            if len(came) > len(frame):
                raise CheckFailed(f"{stream.name}: want {len(frame)} beats, got {len(came)}")
            for i, ((_, *got), want) in enumerate(zip(came, frame, strict=True)):
                if tuple(got) != want:
                    raise CheckFailed(
                        f"{stream.name}: beat {i}: want tlast, tuser {want}, got {tuple(got)}"
                    )
            size = (run.length, *arrays.shape(self.config, array))
            dtype = np.uint8 if (array.low, array.high) == (0, 1) else np.int64
            values = unpack(stream, [data for data, _, _ in came])
            results[name] = values.astype(dtype).reshape(size)
        return results

    def _hold(self, batch: arrays.Arrays, results: arrays.Arrays) -> None:
        """Raise `CheckFailed` where results are not golden's."""
        assert self._golden
        length = len(next(iter(batch.values())))
        golden = [
            self._golden.run({n: values[b] for n, values in batch.items()}) for b in range(length)
        ]
        want = {name: np.array([one[name] for one in golden]) for name in results}
        if wrong := arrays.mismatch(want, results):
            raise CheckFailed(wrong)


class _Run:
    """A batch on its way.

    Attributes
    ----------
    length : int
        Inferences.
    came : dict of str to list of Word
        Beats, by stream.
    beats_in, beats_out : int
    """

    def __init__(
        self,
        writer: Writer,
        streams: Mapping[str, Stream],
        results: Iterable[str],
        batch: arrays.Arrays,
    ) -> None:
        self.batch = batch
        self.length = len(next(iter(batch.values())))
        self.came: dict[str, list[Word]] = {name: [] for name in results}
        self.beats_in = self.beats_out = 0
        self._writer = writer
        self._main = [s for s in streams.values() if s.direction == "in" and not s.auxiliary]

    def records(self, inferences: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        """Yield records of the main inputs, and how many beats they have."""
        for b in inferences:
            beats = {s.name: words(s, self.batch[s.name][b]) for s in self._main}
            yield from self._writer.inference(beats)


@click.command(cls=Command)
@click.option("--port", metavar="PATH", required=True, help="The board's serial port.")
@click.option("--board", metavar="BOARD", help="Its name: by it preset and baud rates are known.")
@click.option("--baud", type=click.IntRange(1), help="Bits/s.  [default: what it answers at]")
@top_options
@click.option("--stimulus", type=click.Path(path_type=Path), help="Arrays (.npz).")
@click.option(
    "--classify",
    "images",
    type=click.Path(path_type=Path),
    help="Images (.npz), and labels if there are some, for a network on the board.",
)
@click.option("--model", type=click.Path(path_type=Path), help="That network's folder.")
@click.option("--result", type=click.Path(path_type=Path), help="Where the results go (.npz).")
@click.option("--check", is_flag=True, help="Hold what comes out against golden.")
@click.option("--json", "as_json", is_flag=True, help="Print the report for programs.")
def main(
    port: str, board: str | None, baud: int | None, top: str | None, preset: str | None,
    settings: tuple[str, ...], stimulus: Path | None, images: Path | None, model: Path | None,
    result: Path | None, check: bool, as_json: bool,
) -> None:  # fmt: skip
    """Send arrays through a top on a board; its bitstream must be of the very same parameters.

    Without --top the board is asked which one it has. With --model it may be the top that computes
    the network, with --set as it was built, or any that has room for it.
    """
    if (stimulus is None) == (images is None):
        raise UserError("want either --stimulus or --classify")
    if (images is None) != (model is None):
        raise UserError("--classify and --model go together")
    guesses: list[tuple[str, Config]] = []
    if model:
        network = model_of(model)
        if top in (None, "transformer"):
            guesses = [("transformer", top_of(*network, **parsed("transformer", settings))[0])]
        if not top:
            settings = ()
    if result:
        arrays.check_target(result)
    target = Board(board, port, top, preset, settings, baud=baud, guesses=guesses, check=check)
    said = ""
    more: dict[str, Any] = {}
    with Console(stderr=True).status(f"{port}: {top or 'which top is it?'}"), target:
        if images and model:
            shown, labels = classify.images_of(images, network[0])
            found = classify.classify(target, *network, shown, labels)
            results, batched = {"answer": found.answers, "logits": found.logits}, True
            more = {"answers": found.answers.tolist(), "right": found.right}
            said = f"classes {' '.join(map(str, found.answers))}"
            said += "" if found.right is None else f"; {found.right} of {len(shown)} as labelled"
        elif stimulus:
            batch, batched = arrays.load(stimulus, target.config)
            if result and not target.comes(batch):
                raise UserError(f"--result: {UNANSWERED}")
            results = target.run(**batch)
    if result:
        arrays.save(result, results if batched else {n: a[0] for n, a in results.items()})
    report = target.report
    facts: dict[str, Any] = {
        **dataclasses.asdict(report),
        "top": target.top,
        "baud": target.baud,
        "checked": check,
        "result": str(result) if result else None,
        **more,
    }
    if as_json:
        click.echo(json.dumps(facts, indent=2, sort_keys=True))
        return
    if said:
        click.echo(said)
    beats = (report.beats_in + report.beats_out) / report.seconds
    click.echo(
        f"{port}: {target.top}, {report.inferences} inferences{' as golden has them' * check} in "
        f"{report.seconds:.3g} s, {report.inferences / report.seconds:.4g}/s, {beats:.4g} beats/s; "
        f"on the wire {report.wire_seconds:.3g} s, {report.resent} packets sent again"
    )


if __name__ == "__main__":
    main(prog_name="python -m boards.host")
