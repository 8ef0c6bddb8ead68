"""Broken frames on one of three streams: what is lost, and that the streams meet again."""

import itertools
import random

import numpy as np
import pytest
from amaranth.sim import Simulator

from hw.attention import AttentionConfig
from hw.attention import attention as component
from sim.golden.attention import attention

INFERENCES = 5
CONFIGS = {
    "folded": AttentionConfig(tokens=3, head_dim=4, timesteps=2, columns=1),
    "held": AttentionConfig(tokens=3, head_dim=4, timesteps=2, columns=3),
    "held, three groups": AttentionConfig(tokens=8, head_dim=2, timesteps=2, columns=3),
}
EVERY = {"folded": 1, "held": 1, "held, three groups": 3}  # beat is tried


def frame(array):
    """Return [token, last, first] for each beat of an inference [T, N, D]."""
    steps, tokens, _ = array.shape
    return [
        [int("".join(map(str, array[t, n][::-1])), 2), n == tokens - 1, not (t or n)]
        for t in range(steps)
        for n in range(tokens)
    ]


def run(config, streams, seed):
    """Return the beats (token, last, first) that come out, and the count of faults."""
    rng = random.Random(seed)
    dut = component(config)
    out, idle = [], 0

    def source(name):
        port = getattr(dut, name)

        async def drive(ctx):
            for token, last, first in streams[name]:
                while rng.random() < 0.2:
                    await ctx.tick()
                ctx.set(port.payload.data.as_value(), token)
                ctx.set(port.payload.last, last)
                ctx.set(port.payload.first, first)
                ctx.set(port.valid, 1)
                await ctx.tick().until(port.ready)
                ctx.set(port.valid, 0)

        return drive

    async def sink(ctx):
        nonlocal idle
        o = dut.out
        while idle < 100:
            ctx.set(o.ready, rng.random() < 0.7)
            *_, moves, token, last, first = await ctx.tick().sample(
                o.valid & o.ready, o.payload.data.as_value(), o.payload.last, o.payload.first
            )
            idle = 0 if moves else idle + 1
            if moves:
                out.append((token, last, first))
        out.append(ctx.get(dut.faults))

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    for name in "qkv":
        simulator.add_testbench(source(name), background=True)
    simulator.add_testbench(sink)
    simulator.run()
    return out[:-1], out[-1]


def break_frame(beats, kind, place, tokens):
    """Return an inference with one fault of `kind` at beat `place`; None if there is no such."""
    beats = [list(b) for b in beats]
    n = place % tokens
    match kind:
        case "early last" if n < tokens - 1:
            beats[place][1] = True
        case "missing last" if n == tokens - 1:
            beats[place][1] = False
        case "missing first" if place == 0:
            beats[place][2] = False
        case "stray first" if place > 0:
            beats[place][2] = True
        case "lost beat":
            del beats[place]
        case "repeated beat" if place > 0:  # two that are there can't be told from two that follow
            beats.insert(place, beats[place])
        case "cut short" if place > 0:  # one that is not there at all can't be told from the next
            del beats[place:]
        case _:
            return None
    return beats


KINDS = ("early last", "missing last", "missing first", "stray first", "lost beat",
         "repeated beat", "cut short")  # fmt: skip


def test_the_forms():
    assert [c.held for c in CONFIGS.values()] == [False, True, True]
    assert [c.groups for c in CONFIGS.values()] == [3, 1, 3]


@pytest.mark.parametrize("name", "qkv")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", CONFIGS)
def test_one_broken_frame(form, name, kind):
    config = CONFIGS[form]
    N, D, T = config.tokens, config.channels, config.timesteps
    rng = np.random.default_rng(1)
    infs = [{x: rng.integers(0, 2, (T, N, D)) for x in "qkv"} for _ in range(INFERENCES)]
    whole = {x: [frame(inf[x]) for inf in infs] for x in "qkv"}
    tried = 0
    for place in range(0, N * T, EVERY[form]):
        broken = break_frame(whole[name][1], kind, place, N)
        if broken is None:
            continue
        tried += 1
        streams = {x: list(itertools.chain(*beats)) for x, beats in whole.items()}
        streams[name] = list(itertools.chain(whole[name][0], broken, *whole[name][2:]))
        out, faults = run(config, streams, place)
        steps = [out[i : i + N] for i in range(0, len(out), N)]
        assert all([last for _, last, _ in s] == [False] * (N - 1) + [True] for s in steps)
        starts = [i for i, s in enumerate(steps) if s[0][2]] + [len(steps)]
        lengths = [b - a for a, b in itertools.pairwise(starts)]

        # What was whole before the fault leaves, in its time steps, and nothing else of it.
        before = (place + (kind == "repeated beat")) // N
        stray_step = kind == "stray first" and place % N == 0  # nothing tells at once
        if not stray_step:
            assert faults == 1
            assert lengths == [T, *([before] if before else []), *[T] * (INFERENCES - 2)]
            kept = [(0, T), (1, before), (2, T), (3, T), (4, T)]
        else:
            assert faults == 2
            assert lengths == [T, before, T - before, *[T] * (INFERENCES - 3)]
            kept = [(0, T), (1, before), (None, T - before), (3, T), (4, T)]
        state, at = None, 0
        for index, count in kept:
            arrays = {x: (infs[index or 0][x])[:count] for x in "qkv"}
            result, state = attention(config.asdict(), arrays, state)
            for t in range(count):
                if index is not None:
                    tokens = [int("".join(map(str, row[::-1])), 2) for row in result["out"][t]]
                    assert [token for token, *_ in steps[at]] == tokens
                at += 1
        assert at == len(steps)
    assert tried
