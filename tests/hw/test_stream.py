import random

import pytest
from amaranth.sim import Simulator

from hw.stream import FAULT_BITS, FaultCounter, FrameGuard, Stream, axi_prefix
from hw.tops import TOPS


def guard_model(beats, steps, stream, joined):
    """Return (beats passed on, faults, voids) of a sequence of (data, last, first)."""
    passed, faults, voids = [], 0, 0
    position, lost = 0, False  # position of the next beat in the inference
    old = None  # position in the inference that an early `first` broke into
    dropped = 0  # beats since a missing `first`
    for data, last, first in stream:
        if lost and not first:
            dropped += dropped > 0
            continue
        if joined and 2 * dropped >= beats * steps:
            voids += 1
        dropped = 0
        if first and position:  # begins before the last one is whole
            faults += 1
            voids += position < beats
            if joined and old == 0:  # just where the old count wants it: the last one was stray
                position, lost, old = 0, True, None
                continue
            position, old = 0, position
        if not first and not position:
            faults, lost, dropped = faults + 1, True, 1
            continue
        if last != (position % beats == beats - 1):
            if not (joined and old is not None and position < beats and last
                    and old % beats == beats - 1):  # fmt: skip
                faults += 1
                voids += position < beats
            position, lost, old = 0, True, None
            continue
        lost = False
        passed.append((data, last, first, position % beats, position < beats))
        position = (position + 1) % (beats * steps)
        if old is not None:
            old = (old + 1) % (beats * steps) if position else None
    return passed, faults, voids


def broken_stream(rng, beats, steps, inferences):
    stream = []
    for _ in range(inferences):
        frame = [
            [rng.getrandbits(8), b == beats - 1, not (t or b)]
            for t in range(steps)
            for b in range(beats)
        ]
        for _ in range(rng.choice([0, 0, 1, 2])):
            i = rng.randrange(len(frame))
            match rng.randrange(4):
                case 0:
                    frame[i][1] ^= True
                case 1:
                    frame[i][2] ^= True
                case 2:
                    del frame[i : i + rng.randint(1, 3)]
                case 3:
                    frame.insert(i, list(frame[i]))
            if not frame:
                break
        stream += frame
    return stream


@pytest.mark.parametrize("beats", [1, 2, 5])
@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("joined", [False, True])
def test_guard_passes_whole_frames_and_nothing_else(beats, steps, joined):
    rng = random.Random(beats * 10 + steps)
    guard = FrameGuard(Stream("x", "in", 1, 8, False, beats, beats, steps, ""), joined=joined)
    stream = broken_stream(rng, beats, steps, 150)
    passed, counts = [], {"fault": 0, "void": 0, "done": 0}
    fed = False

    async def source(ctx):
        nonlocal fed
        for data, last, first in stream:
            while rng.random() < 0.3:
                await ctx.tick()
            ctx.set(guard.i.payload.data[0], data)
            ctx.set(guard.i.payload.last, last)
            ctx.set(guard.i.payload.first, first)
            ctx.set(guard.i.valid, 1)
            await ctx.tick().until(guard.i.ready)
            ctx.set(guard.i.valid, 0)
        fed = True

    async def sink(ctx):
        while not fed:
            ctx.set(guard.o.ready, rng.random() < 0.6)
            o = guard.o
            *_, moves, data, last, first, beat, opening, fault, void, done = (
                await ctx.tick().sample(
                    o.valid & o.ready, o.payload.data[0], o.payload.last, o.payload.first,
                    guard.beat, guard.opening, guard.fault, guard.void, guard.done,
                )
            )  # fmt: skip
            if moves:
                passed.append((data, last, first, beat, opening))
            counts["fault"] += fault
            counts["void"] += void
            counts["done"] += done

    simulator = Simulator(guard)
    simulator.add_clock(1e-6)
    simulator.add_testbench(source)
    simulator.add_testbench(sink)
    simulator.run()
    expected, faults, voids = guard_model(beats, steps, stream, joined)
    assert faults > 10
    assert passed == expected
    assert counts == {
        "fault": faults,
        "void": voids,
        "done": sum(beat == beats - 1 for *_, beat, _ in expected),
    }


def test_fault_counter_adds_up_and_saturates():
    counter = FaultCounter(3)

    async def bench(ctx):
        ctx.set(counter.fault, 0b101)
        await ctx.tick().repeat(4)
        assert ctx.get(counter.count) == 6
        ctx.set(counter.fault, 0b111)
        await ctx.tick().repeat(200)
        assert ctx.get(counter.count) == 2**FAULT_BITS - 1

    simulator = Simulator(counter)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


def test_ports_are_named_where_a_direction_has_several_streams():
    def prefixes(top, **settings):
        streams = TOPS[top].config(**settings).streams
        return [axi_prefix(s, streams) for s in streams]

    assert prefixes("lif") == ["s_axis", "m_axis"]
    assert prefixes("lif", trace=True, bias_load="shared") == [
        "s_axis",
        "s_axis_bias",
        "m_axis",
        "m_axis_membrane",
    ]
    assert prefixes("attention") == ["s_axis_q", "s_axis_k", "s_axis_v", "m_axis"]


@pytest.mark.parametrize("top", TOPS)
def test_streams_and_arrays_agree(top):
    for preset in TOPS[top].config.PRESETS:
        config = TOPS[top].config.preset(preset)
        streams = {s.name: s for s in config.streams}
        for arrays, direction in ((config.stimulus, "in"), (config.result, "out")):
            for array in arrays.values():
                if config.asks and array.stream not in streams:  # what neighbours answer
                    assert array.optional
                    assert f"{array.stream}0" in streams
                    continue
                stream = streams[array.stream]
                assert stream.direction == direction
                elements = 1
                for axis in array.shape:
                    elements *= getattr(config, axis)
                assert elements == stream.elements * stream.steps
                assert (stream.beats - 1) * stream.lanes < stream.elements
                assert stream.elements <= stream.beats * stream.lanes
                assert stream.tdata_width % 8 == 0
