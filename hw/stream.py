"""The stream protocol: beats, framing, and the AXI4-Stream shell around a component.

Rules of the inner stream
-------------------------
1. A beat moves in a clock in which `valid` and `ready` are both 1.
2. `valid` never waits for `ready`; once it is 1, payload and `valid` hold until the beat moves.
3. The payload is `data` (an array of elements, the first one lowest), `last` (the last beat of a
   time step) and `first` (the first beat of an inference; state is cleared there).
4. A time step is a fixed number of beats, an inference a fixed number of time steps.
5. A frame that breaks rule 4 voids its inference. What was complete before it stands, nothing of
   it or after it is used, and the next `first` starts afresh (`FrameGuard`). So a void inference
   leaves a component as a shorter one, and the component behind it sees the early `first`.

`AxiShell` is the only place that knows of AXI4-Stream; a component inside a larger design is
connected by its inner streams.
"""

import dataclasses
from typing import Protocol

from amaranth import Cat, Const, Module, Mux, ResetSignal, Signal, signed, unsigned
from amaranth.hdl import ShapeLike, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.turns import following

FAULT_BITS = 8
"""Width of the saturating counter of broken frames."""


@dataclasses.dataclass(frozen=True)
class Stream:
    """One stream of a component: what a beat holds and how beats make a frame.

    Attributes
    ----------
    name : str
        Name of the component's member.
    direction : {"in", "out"}
        Seen from the component.
    lanes : int
        Elements in a beat.
    width : int
        Bits of an element.
    signed : bool
        Whether an element is two's complement.
    beats : int
        Beats of one time step.
    elements : int
        Elements of one time step; lanes beyond them in the last beat are idle.
    steps : int
        Time steps of one inference.
    help : str
        What it carries.
    auxiliary : bool
        Not part of the main flow (run-time settings, traces); always named in the ports.
    ahead : int
        Inputs: beats accepted with nothing coming on the other inputs.
    lockstep : bool
        It is joined with another one beat by beat, unbuffered: a stray `first` may cost the
        inference behind it too (`hw.lockstep.Lockstep`).
    """

    name: str
    direction: str
    lanes: int
    width: int
    signed: bool
    beats: int
    elements: int
    steps: int
    help: str
    auxiliary: bool = False
    ahead: int = 0
    lockstep: bool = False
    tag: int = 0
    peer: bool = False

    @property
    def element(self) -> ShapeLike:
        """Amaranth shape of one element."""
        return signed(self.width) if self.signed else unsigned(self.width)

    @property
    def signature(self) -> stream.Signature:
        """Amaranth signature of the stream, as seen from its source."""
        fields = {"data": data.ArrayLayout(self.element, self.lanes), "last": 1, "first": 1}
        return stream.Signature(data.StructLayout(fields | ({"tag": self.tag} if self.tag else {})))

    @property
    def tdata_width(self) -> int:
        """Bits of ``tdata``: whole bytes."""
        return -(-self.lanes * self.width // 8) * 8


class UnitConfig(Protocol):
    """What the shell needs to know of a configuration."""

    @property
    def streams(self) -> tuple[Stream, ...]: ...


def members(config: UnitConfig) -> dict[str, wiring.Member]:
    """Return the members of a unit's component: its streams, and its count of broken frames."""
    flow = {"in": In, "out": Out}
    ports = {s.name: flow[s.direction](s.signature) for s in config.streams}
    return {**ports, "faults": Out(FAULT_BITS)}


def axi_prefix(stream: Stream, streams: tuple[Stream, ...]) -> str:
    """Return the prefix of a stream's ports: ``s_axis`` or ``m_axis``, with a name if needed."""
    role = "s_axis" if stream.direction == "in" else "m_axis"
    main = [s for s in streams if s.direction == stream.direction and not s.auxiliary]
    return role if not stream.auxiliary and len(main) == 1 else f"{role}_{stream.name}"


class FrameGuard(wiring.Component):
    """Pass whole frames on, void broken ones.

    Combinational from `i` to `o`; a broken frame costs one clock when it is `first` that comes
    early, none otherwise. State: the position of the next beat and whether frames are being
    dropped until the next `first`.

    Where several streams are joined, a stream that takes one inference too many or too few is
    paired wrongly for ever. So a `joined` guard goes on counting beats behind a fault, to tell:

    * a `first` that came early, because beats before it were lost, from a stray one: after a stray
      one, a `last` or the next `first` comes just where the old count expects it;
    * an inference whose `first` is missing from beats left over behind the one before: the former
      is at least half an inference long.

    Parameters
    ----------
    stream : Stream
        What a frame is.
    joined : bool
        The stream is one of several whose inferences belong together.
    lockstep : bool
        Whoever joins them does so beat by beat, and needs the last three attributes.

    Attributes
    ----------
    i : stream, in
    o : stream, out
        The whole frames of `i`.
    beat : Signal(range(beats)), out
        Position of the beat on `o` in its time step.
    opening : Signal(), out
        The beat on `o` is of the first time step of an inference.
    done : Signal(), out
        The last beat of a whole time step moves.
    void : Signal(), out
        An inference is voided before any of its time steps was whole. It has left no trace, so
        whoever joins several streams needs this mark to stay aligned. Only when `o.ready` is 1.
    broken : Signal(), out
        What moves or is refused now breaks the frame; `beat` goes back to 0.
    fault : Signal(), out
        A broken frame is found; once for an inference.
    whole, failed : Signal(), out
        The last beat of an inference moves, or one is voided: for each, one of them once.
    dissolved : Signal(), out
        The inference at hand was begun by a stray `first`, and is none.
    in_final : Signal(), out
        The beat on `o` is of the last time step of an inference.
    """

    def __init__(self, stream: Stream, *, joined: bool = False, lockstep: bool = False) -> None:
        self._beats = stream.beats
        self._steps = stream.steps
        self._joined = joined
        self._lockstep = lockstep
        super().__init__(
            {
                "i": In(stream.signature),
                "o": Out(stream.signature),
                "beat": Out(range(max(stream.beats, 2))),
                "opening": Out(1, init=1),
                "done": Out(1),
                "void": Out(1),
                "broken": Out(1),
                "fault": Out(1),
            }
            | (
                dict.fromkeys(("whole", "failed", "dissolved", "in_final"), Out(1))
                if lockstep
                else {}
            )
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        lost = Signal()
        step = Signal(range(max(self._steps, 2)))
        i, o = self.i, self.o

        # Where the next beat is, known before it comes: the beat itself arrives late in its clock.
        at_end = Signal(init=self._beats == 1)
        at_start = Signal(init=1)  # of an inference
        in_final = Signal(init=self._steps == 1)
        early = Signal()  # an inference begins before the last one is whole
        missing = Signal()  # an inference does not begin where it must
        placed = Signal()  # it begins where it must, or goes on
        cut = Signal()  # `last` is not where it must be
        holds_first = Signal()  # a `first` that comes now can't move yet
        long = Signal()  # behind half an inference that began without `first`
        stray = Signal()  # if `first` comes now, the inference at hand was begun by a stray one
        stray_last = Signal()  # if `last` does
        owed = Signal()  # what was dropped was an inference, whose mark comes before the next one
        # While frames are being dropped, `at_start` is 1.
        m.d.comb += [
            early.eq(i.valid & i.payload.first & ~at_start),
            missing.eq(i.valid & ~i.payload.first & at_start & ~lost),
            placed.eq(i.valid & (i.payload.first == at_start) & ~owed),
            cut.eq(placed & (i.payload.last != at_end)),
            o.payload.eq(i.payload),
            o.valid.eq(placed & (i.payload.last == at_end)),
            i.ready.eq(Mux(i.payload.first, o.ready & ~holds_first, lost | o.ready)),
            holds_first.eq((~at_start & ~stray) | long),
            self.done.eq(o.valid & o.ready & at_end),
            self.broken.eq((early | missing | cut) & o.ready),
            self.fault.eq(self.broken & ~(cut & i.payload.last & stray_last)),
            self.void.eq((self.fault & ~missing & self.opening) | (owed & o.ready)),
        ]
        if self._lockstep:
            m.d.comb += [
                self.whole.eq(self.done & in_final),
                self.failed.eq(self.void | ((early | cut) & o.ready & ~self.opening)),
                self.dissolved.eq(self.broken & ~self.fault),
                self.in_final.eq(in_final),
            ]
        with m.If(o.ready):
            with m.If(early | missing | cut):
                m.d.sync += [
                    self.beat.eq(0), step.eq(0), self.opening.eq(1), lost.eq(~early | stray),
                    at_start.eq(1), at_end.eq(self._beats == 1), in_final.eq(self._steps == 1),
                ]  # fmt: skip
            with m.Elif(o.valid):
                m.d.sync += [
                    self.beat.eq(Mux(at_end, 0, self.beat + 1)),
                    lost.eq(0),
                    at_start.eq(at_end & in_final),
                    at_end.eq(self._before(self.beat, self._beats)),
                ]
                with m.If(at_end):
                    m.d.sync += [
                        step.eq(Mux(in_final, 0, step + 1)),
                        self.opening.eq(in_final),
                        in_final.eq(self._before(step, self._steps)),
                    ]
        if self._joined:
            ends = o.valid & at_end & in_final
            self._count_on(
                m, step, at_start, at_end, ends, early, missing, cut, stray, stray_last, owed, long
            )
        return m

    @staticmethod
    def _before(count: Signal, length: int) -> Value:
        """Return whether a count goes on to the last of `length`."""
        return Const(1) if length == 1 else count == length - 2

    def _count_on(
        self, m: Module, step: Signal, at_start: Signal, at_end: Signal, ends: Value,
        early: Signal, missing: Signal, cut: Signal, stray: Signal,
        stray_last: Signal, owed: Signal, long: Signal,
    ) -> None:  # fmt: skip
        """Count beats behind a fault to find `stray`, `stray_last` and `owed`."""
        doubt = Signal()  # behind an early `first`: the count goes on from where it broke in
        hole = Signal()  # behind a missing `first`: the count is of what was dropped
        beat_count, step_count = Signal.like(self.beat), Signal.like(step)
        end, start = Signal(), Signal()  # where the counts are: like `at_end` and `at_start`
        i, o = self.i, self.o
        half = -(-self._beats * self._steps // 2)
        opens = i.valid & i.payload.first
        m.d.comb += [
            stray.eq(doubt & start),
            stray_last.eq(doubt & self.opening & end),
            owed.eq(long & opens),
        ]
        with m.If(i.valid & i.ready):
            m.d.sync += [
                beat_count.eq(Mux(end, 0, beat_count + 1)),
                end.eq(self._before(beat_count, self._beats)),
                start.eq(end & (step_count == self._steps - 1)),
            ]
            with m.If(end):
                m.d.sync += step_count.eq(following(step_count, self._steps))
            with m.If(early | cut | ends):
                m.d.sync += doubt.eq(0)
            step_of_half, beat_of_half = divmod(half - 1, self._beats)
            with m.If(hole & (step_count == step_of_half) & (beat_count == beat_of_half)):
                m.d.sync += long.eq(1)
            with m.If(missing):
                first, second = divmod(1, self._beats)
                m.d.sync += [
                    hole.eq(1), long.eq(half == 1),
                    beat_count.eq(second), step_count.eq(first % self._steps),
                    end.eq(second == self._beats - 1), start.eq(self._beats * self._steps == 1),
                ]  # fmt: skip
        with m.If(o.ready & early & ~stray):  # this beat is still to move
            m.d.sync += [
                doubt.eq(1), beat_count.eq(self.beat), step_count.eq(step),
                end.eq(at_end), start.eq(at_start),
            ]  # fmt: skip
        with m.If(o.ready & opens):
            m.d.sync += [hole.eq(0), long.eq(0)]


class FaultCounter(wiring.Component):
    """Count the broken frames of `inputs` streams, two clocks later; saturates.

    Attributes
    ----------
    fault : Signal(inputs), in
        Pulses, several may come in one clock.
    count : Signal(FAULT_BITS), out
    """

    def __init__(self, inputs: int) -> None:
        super().__init__({"fault": In(inputs), "count": Out(FAULT_BITS)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        total = Signal(FAULT_BITS + 1)
        seen = Signal.like(self.fault)  # a fault is known late in its clock
        m.d.sync += seen.eq(self.fault)
        m.d.comb += total.eq(self.count + sum(seen))
        m.d.sync += self.count.eq(Mux(total[FAULT_BITS], 2**FAULT_BITS - 1, total))
        return m


class AxiShell(wiring.Component):
    """AXI4-Stream ports of DESIGN.md section 3 around a component; wires, and a gate for reset.

    No beat moves on any port in a clock with `rst` at 1: an Amaranth register is only reset by
    that clock's edge, and combinational `ready` would take a beat that is lost. A unit may see one
    then that did not move, and forgets it: only settings outlast a reset. So what goes into it
    does without the gate, which would be in front of a `FrameGuard`'s whole logic.

    Parameters
    ----------
    unit : wiring.Component
        Its members are those of `members`.
    streams : tuple of Stream
    """

    def __init__(self, unit: wiring.Component, streams: tuple[Stream, ...]) -> None:
        self._unit = unit
        self._streams = streams
        ports: dict[str, wiring.Member] = {"faults": Out(FAULT_BITS)}
        for s in streams:
            prefix = axi_prefix(s, streams)
            there, back = (In, Out) if s.direction == "in" else (Out, In)
            ports |= {
                f"{prefix}_tdata": there(s.tdata_width),
                f"{prefix}_tlast": there(1),
                f"{prefix}_tuser": there(1 + s.tag),
                f"{prefix}_tvalid": there(1),
                f"{prefix}_tready": back(1),
            }
        super().__init__(ports)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.unit = self._unit
        running = ~ResetSignal()
        m.d.comb += self.faults.eq(self._unit.faults)
        for s in self._streams:
            prefix = axi_prefix(s, self._streams)
            inner = getattr(self._unit, s.name)
            tdata, tlast, tuser, tvalid, tready = (
                getattr(self, f"{prefix}_{port}")
                for port in ("tdata", "tlast", "tuser", "tvalid", "tready")
            )
            word = inner.payload.data.as_value()
            user: Value = inner.payload.first
            if s.tag:
                user = Cat(user, inner.payload.tag)
            if s.direction == "in":
                m.d.comb += [
                    word.eq(tdata),
                    inner.payload.last.eq(tlast),
                    user.eq(tuser),
                    inner.valid.eq(tvalid & running if s.auxiliary else tvalid),
                    tready.eq(inner.ready & running),
                ]
            else:
                m.d.comb += [
                    tdata.eq(word),
                    tlast.eq(inner.payload.last),
                    tuser.eq(user),
                    tvalid.eq(inner.valid & running),
                    inner.ready.eq(tready),
                ]
        return m
