import collections
import re

import numpy as np
import pytest
from amaranth import Module, Signal
from amaranth.sim import Simulator

from boards.stage import through
from gen.emit import yosys
from gen.vectors import random_stimulus
from hw.config import ConfigError
from hw.moe import Moe, MoeConfig
from hw.moe.link import Link
from sim.experts import EXPERT_CLOCKS
from sim.runner import Design
from tests.sim.benches import bench, design, emitted, failures


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"channels": 10, "channels_per_beat": 4},
      "channels_per_beat: want a divisor of channels (10), got 4"),
     ({"routing": "topk", "k": 5}, "k: want at most experts (4), got 5"),
     ({"k": 2}, "k: want routing=topk or kwta with it, got 2"),
     ({"fill": True}, "fill: want routing=kwta with it, got mask"),
     ({"capacity": 0}, "capacity: want 1..1024, got 0"),
     ({"capacity": 17}, "capacity: want at most tokens (16), got 17"),
     ({"weight_bits": 9}, "weight_bits: want 2..8, got 9"),
     ({"window": 2}, "window: want at least 14 for tokens to come in at once, got 2"),
     ({"tiles": 3}, "tiles: want a divisor of experts (4), got 3"),
     ({"tiles": 4, "routing": "topk"}, "tiles: want at most 2, the beats of a token, in which "
      "their scores meet, got 4"),
     ({"routing": "best"}, "routing: want mask | topk | kwta, got 'best'")],
)  # fmt: skip
def test_refusals(settings, message):
    with pytest.raises(ConfigError) as error:
        MoeConfig(**settings)
    assert str(error.value) == message


def test_the_smallest_window_is_enough_for_experts_that_are_quick():
    c = MoeConfig(window=MoeConfig().window_for(4))
    assert EXPERT_CLOCKS <= 4 <= c.plan.answer_clocks < 4 + c.groups
    with pytest.raises(ConfigError, match="window"):
        c.replace(window=c.window - 1)


def waits(config, answer):
    """Return the clocks in which tokens wait behind the first one, if experts take `answer`."""
    dut = Moe(config)
    beats = config.timesteps * config.tokens * config.groups
    waited = 0

    async def bench(ctx):
        nonlocal waited
        due = [collections.deque() for _ in range(config.experts)]
        takers = [getattr(dut, f"expert{e}") for e in range(config.experts)]
        answers = [getattr(dut, f"answer{e}") for e in range(config.experts)]
        for port in (dut.merged, *takers):
            ctx.set(port.ready, 1)
        sent = merged = clock = 0
        while merged < beats:
            ctx.set(dut.tokens.valid, sent < beats)
            ctx.set(dut.tokens.payload.first, sent == 0)
            ctx.set(dut.tokens.payload.last, (sent + 1) % (config.tokens * config.groups) == 0)
            for queue, port in zip(due, answers, strict=True):
                comes = bool(queue) and queue[0][0] <= clock
                ctx.set(port.valid, comes)
                if comes:
                    _, last, tag = queue[0]
                    ctx.set(port.payload.last, last)
                    ctx.set(port.payload.tag, tag)
            ready = ctx.get(dut.tokens.ready)
            waited += bool(sent) and sent < beats and not ready
            sent += sent < beats and ready
            for queue, taker, port in zip(due, takers, answers, strict=True):
                if ctx.get(port.valid) and ctx.get(port.ready):
                    queue.popleft()
                if ctx.get(taker.valid) and ctx.get(taker.payload.last):
                    for beat in range(config.groups):
                        last = beat == config.groups - 1
                        tag = ctx.get(taker.payload.tag)
                        queue.append((clock + 1 + answer + beat, last, tag))
            merged += ctx.get(dut.merged.valid)
            await ctx.tick()
            clock += 1

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return waited


@pytest.mark.parametrize(("groups", "tiles"), [(1, 1), (2, 1), (3, 1), (2, 2), (5, 3)])
def test_tokens_come_in_at_once_as_long_as_experts_answer_within_the_bound(groups, tiles):
    c = MoeConfig(
        tokens=50, channels=4 * groups, channels_per_beat=4, timesteps=1, experts=tiles,
        tiles=tiles, routing="topk", k=tiles,
    )  # fmt: skip
    c = c.replace(window=c.window_for(7))
    bound = c.plan.answer_clocks
    assert waits(c, bound) == 0
    assert waits(c, bound + 1) > 0


@pytest.mark.parametrize(("tiles", "own", "groups"), [(2, 2, 4), (3, 1, 3), (4, 4, 8), (5, 2, 5)])
def test_links_tell_every_tile_all_values_however_far_they_are_apart(tiles, own, groups):
    c = MoeConfig(
        channels=groups, channels_per_beat=1, experts=tiles * own, tiles=tiles, routing="kwta",
        timesteps=100, window=40,
    )  # fmt: skip
    plan, rng, tokens = c.plan, np.random.default_rng(1), 60
    values = rng.integers(0, 100, (tiles, tokens, plan.parts, plan.lanes))
    m = Module()
    links = [Link(c, 3) for _ in range(tiles)]
    stalls = Signal(tiles)
    for i, (link, after) in enumerate(zip(links, [*links[1:], links[0]], strict=True)):
        m.submodules[f"link{i}"] = link
        m.d.comb += [
            after.from_last.valid.eq(link.to_next.valid & ~stalls[i]),
            after.from_last.payload.eq(link.to_next.payload),
            link.to_next.ready.eq(after.from_last.ready & ~stalls[i]),
        ]
    got = [[] for _ in links]

    async def bench(ctx):
        written = [0] * tiles  # parts
        for clock in range(400 * groups * tiles):
            done = min(len(words) for words in got) // plan.slots
            ctx.set(stalls, int(rng.integers(2**tiles)) & int(rng.integers(2**tiles)))
            for i, link in enumerate(links):
                token, part = divmod(written[i], plan.parts)
                # The parts of a token come together; no tile is further ahead than the window.
                ahead = token >= done + c.window or rng.random() < 0.5 or clock < 100 * i
                comes = token < tokens and (part > 0 or not ahead)
                ctx.set(link.write, comes)
                if comes:
                    ctx.set(link.values, [int(value) for value in values[i, token, part]])
                    ctx.set(link.marks, token % 8)
                    written[i] += 1
                if ctx.get(link.came):
                    value = [int(ctx.get(link.value[lane])) for lane in range(plan.lanes)]
                    got[i].append((ctx.get(link.slot), ctx.get(link.mark), value))
            await ctx.tick()

    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    for i, words in enumerate(got):
        assert words == [
            (hop * plan.parts + part, token % 8, values[(i - hop) % tiles, token, part].tolist())
            for token in range(tokens)
            for hop in range(tiles)
            for part in range(plan.parts)
        ]


@pytest.mark.parametrize("family", ["ice40 -dsp", "ecp5"])
def test_no_multiplier_anywhere(family, tmp_path):
    emission = emitted("moe", preset="icebreaker")
    (tmp_path / "moe.v").write_text(emission.verilog)
    yosys(
        f"read_verilog moe.v; synth_{family} -top moe; "
        "select -assert-none t:MULT18X18D t:SB_MAC16 t:ALU54B",
        cwd=tmp_path,
    )


#: What is changed in the Verilog, and the test that must see it.
MUTANTS = {
    "of equals the later one wins": (
        "routing=topk k=2", r"(_?keeps\d\w* = [^;]*) >= ", r"\1 > ",
        "settings_of_one_value",
    ),
    "the first ones have the rank of the last": (
        "routing=kwta k=2", r"rank0 <= \w+;", "rank0 <= 2'h3;", "golden_under_stalls/pattern=none",
    ),
    "capacity is one more": (
        "capacity=2", r"(assign full\[\d\] = \w+ == )2'h2;", r"\g<1>2'h3;",
        "golden_under_stalls/pattern=none",
    ),
    "any tag will do": (
        "", r"assign right = [^;]*;", "assign right = 1'h1;", "wrong_answers/pattern=none",
    ),
    "the window never closes": (
        "experts=1 bias_bits=4", r"assign tokens__ready = room & ", "assign tokens__ready = ",
        "golden_under_stalls/pattern=bursts",
    ),
    "of equals in two tiles both keep their places": (
        "experts=4 tiles=2 routing=topk k=2", r"assign lower = [^;]*;", "assign lower = 1'h0;",
        "settings_of_one_value",
    ),
    "a tile's sums are left out": (
        "experts=4 tiles=2", r"so_far <= [^;]*;", "so_far <= 0;",
        "golden_under_stalls/pattern=none",
    ),
    "an answer of a wrong length stays": (
        "", r"\.undo\(\w+\)", ".undo(1'h0)", "wrong_answers/pattern=none",
    ),
}  # fmt: skip


@pytest.mark.parametrize("change", MUTANTS)
def test_broken_hardware_fails(change):
    settings, old, new, test = MUTANTS[change]
    sizes = "tokens=5 channels=8 channels_per_beat=4 timesteps=2 trace=true"
    emission = emitted("moe", f"{sizes} {settings}")
    text, count = re.subn(old, new, emission.verilog)
    assert count
    broken = Design(emission.name, {f"{emission.name}.v": text})
    assert failures(bench(emission, broken, "verilator", only=test))


def test_weights_that_were_loaded_wrong_are_seen_where_they_are_read_back():
    settings = "tokens=2 channels=8 readback=true weight_bits=4"
    emission = emitted("moe", settings)
    text, count = re.subn(r"\$signed\(total\) - ", "$signed(total) + ", emission.verilog)
    assert count
    broken = Design(emission.name, {f"{emission.name}.v": text})
    found = failures(bench(emission, broken, "verilator", only="settings"))
    assert "stored" in found["settings"]


def test_the_bench_passes_on_what_is_not_broken():
    emission = emitted("moe", "tokens=5 channels=8 channels_per_beat=4 timesteps=2 trace=true")
    assert not failures(bench(emission, design(emission), "verilator"))


@pytest.mark.slow
def test_four_tiles_of_four_are_one_of_sixteen():
    sizes = "tokens=6 channels=48 channels_per_beat=12 experts=16 timesteps=3 trace=true"
    rng = np.random.default_rng(1)
    for routing in ("mask", "topk k=5 capacity=3"):
        batch, results = None, []
        for tiles in (1, 4):
            emission = emitted("moe", f"{sizes} routing={routing} tiles={tiles}")
            batch = batch or {
                name: np.stack([random_stimulus(emission.config, rng)[name] for _ in range(3)])
                for name in emission.config.stimulus
            }
            played = through(emission, batch)
            assert played.wrong == 0
            results.append(played.results)
        for name, array in results[0].items():
            np.testing.assert_array_equal(results[1][name], array)
        assert 0 < results[0]["mask"].mean() < 1
