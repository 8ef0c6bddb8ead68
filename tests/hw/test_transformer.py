import itertools
import re

import numpy as np
import pytest
from amaranth.sim import Simulator

from gen.emit import emit, yosys
from gen.vectors import random_stimulus
from hw.config import ConfigError
from hw.transformer import TransformerConfig
from hw.transformer.attend import Attend
from hw.transformer.schedule import TURN
from sim.golden.transformer import transformer
from sim.job import Job
from sim.play import play
from sim.runner import Design, build
from tests.sim.benches import bench, design, emitted, failures

#: Little of everything, with sums that fill no beat, group or power of two.
SMALL = {"tokens": 3, "channels": 6, "features": 5, "input_bits": 2, "classes": 3, "timesteps": 2}


@pytest.mark.parametrize(
    ("settings", "channels", "heads", "hidden", "lanes", "word"),
    [({}, 32, 2, 64, 8, 4), ({"channels": 7}, 7, 1, 14, 7, 1), ({"heads": 3}, 48, 3, 96, 8, 4),
     ({"head_dim": 5}, 10, 2, 20, 5, 2), ({"hidden": 48}, 32, 2, 48, 8, 4),
     ({"features": 100}, 32, 2, 64, 8, 16), ({"features": 1}, 32, 2, 64, 8, 1),
     ({"variant": 3, "heads": 3, "head_dim": 6, "features": 9}, 18, 3, 36, 6, 6),
     ({"lanes": 3}, 36, 2, 72, 3, 4), ({"lanes": 32}, 32, 2, 64, 32, 4),
     ({"columns": 8}, 32, 2, 64, 8, 8), ({"channels": 1}, 1, 1, 2, 1, 1)],
)  # fmt: skip
def test_sizes_follow_from_each_other(settings, channels, heads, hidden, lanes, word):
    c = TransformerConfig(**settings)
    assert (c.channels, c.heads, c.hidden, c.lanes) == (channels, heads, hidden, lanes)
    assert c.channels_per_beat == word


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"channels": 10, "heads": 3},
      "channels: want heads * head_dim (3 * 3), got 10"),
     ({"channels": 32, "lanes": 5}, "lanes: want a divisor of channels and hidden (32), got 5"),
     ({"channels": 32, "channels_per_beat": 64},
      "channels_per_beat: want a divisor of channels and hidden (32), got 64"),
     ({"variant": 4, "heads": 4, "head_dim": 4, "channels_per_beat": 8},
      "channels_per_beat: want a divisor of channels, hidden and head_dim (4), got 8"),
     ({"columns": 3, "channels_per_beat": 4},
      "columns: want a divisor of channels_per_beat (4), got 3"),
     ({"residual_bits": 12}, "residual_bits: want at least 17, which sums have, got 12"),
     ({"attention": "ssa", "tokens": 12},
      "tokens: want a power of two with encoder=sample, got 12"),
     ({"variant": 5}, "variant: want 1..4, got 5"),
     ({"attention": "softmax"}, "attention: want sdsa | ssa | none, got 'softmax'")],
)  # fmt: skip
def test_refusals(settings, message):
    with pytest.raises(ConfigError) as error:
        TransformerConfig(**settings)
    assert str(error.value) == message


def test_every_layer_has_its_weights():
    """As many as the matrices have, and one bias for an output, or for that of each token."""
    c = TransformerConfig(tokens=5, channels=12, heads=3, hidden=20, blocks=3, features=7,
                          classes=9, lanes=4, channels_per_beat=4)  # fmt: skip
    block = 4 * 12 * 12 + 2 * 12 * 20
    assert c.weight_count == 8 * 12 + 3 * block + 12 * 12
    assert c.bias_count == 5 * 12 + 3 * (4 * 12 + 20 + 12) + 12
    assert (c.layers, c.shifts) == (1 + 3 * 6, 1 + 3 * 2)
    spikes = 12 + 3 * (5 * 12 + 20 + 12)
    assert c.spike_count == 4 * 5 * spikes


def test_every_expert_has_its_weights():
    c = TransformerConfig(tokens=5, channels=12, heads=3, hidden=20, blocks=3, features=7,
                          classes=9, lanes=4, channels_per_beat=2, experts=6)  # fmt: skip
    block = 4 * 12 * 12 + 12 * 8 + 6 * 2 * 12 * 20  # the router's outputs fill groups
    assert c.weight_count == 8 * 12 + 3 * block + 12 * 12
    assert c.bias_count == 5 * 12 + 3 * (4 * 12 + 8 + 6 * (20 + 12)) + 12
    assert (c.layers, c.shifts) == (1 + 3 * (4 + 1 + 6 * 2 + 1), 1 + 3 * 2)
    spikes = 12 + 3 * (5 * 12 + 8 + 6 * (20 + 12) + 12)
    assert c.spike_count == 4 * 5 * spikes


def test_an_expert_rests_while_a_token_is_not_its():
    """It is given every other time step, 2 each time, and fires at 3: 2, then 2 / 2 + 2.

    If its membrane leaked in the step between, that would be 2 / 4 + 2.
    """
    sizes = dict.fromkeys(("tokens", "channels", "hidden", "experts", "features", "input_bits"), 1)
    c = TransformerConfig(**sizes, attention="none", classes=1, shift_bits=0, trace=True)
    arrays = {
        "patches": np.ones((1, 1), int),
        # Embedding, router, the two of the expert, what comes behind it.
        "weights": np.array([4, 2, 2, 3, 1]), "threshold": np.array([4, 3, 3, 3, 5]),
        "bias": np.zeros(5, int), "shift": np.zeros(2, int),
    }  # fmt: skip
    spikes = transformer(c.asdict(), arrays)[0]["spikes"].reshape(5, 4)
    assert spikes.tolist() == [[1, 1, 1, 1], [0, 1, 0, 1], [0, 0, 0, 1], [0, 0, 0, 1], [0, 1, 0, 1]]


@pytest.mark.parametrize("timesteps", [pytest.param(1, marks=pytest.mark.slow), 3])
@pytest.mark.parametrize(
    "unit",
    [{}, {"attention_threshold": 3}, {"variant": 2}, {"variant": 3}, {"variant": 4},
     {"attention": "ssa"}, {"attention": "ssa", "encoder": "count"}],
)  # fmt: skip
@pytest.mark.parametrize(
    "sizes",
    [{"tokens": 4, "channels": 8}, {"tokens": 1, "channels": 4},
     {"tokens": 8, "channels": 16, "heads": 2, "channels_per_beat": 2},
     {"tokens": 2, "channels": 16, "heads": 1, "channels_per_beat": 16}],
)  # fmt: skip
def test_clocks_of_the_attention(sizes, unit, timesteps):
    """Whatever spikes are in memory, and the second time like the first."""
    c = TransformerConfig(**sizes, **unit, timesteps=timesteps)
    attend = Attend(c)
    simulator = Simulator(attend)
    simulator.add_clock(1e-6)
    rng = np.random.default_rng(1)
    took = []

    async def run(ctx):
        ctx.set(attend.room, 1)
        for _ in range(2):
            ctx.set(attend.start, 1)
            clocks = 1  # and the one from which the next pass begins
            while not ctx.get(attend.done):
                await ctx.tick()
                ctx.set(attend.start, 0)
                ctx.set(attend.read_word, int(rng.integers(2**c.channels_per_beat)))
                clocks += 1
                assert clocks < 10_000
            took.append(clocks)
            await ctx.tick()

    simulator.add_testbench(run)
    simulator.run()
    assert took == [c.schedule.attend_clocks] * 2


def test_every_channel_of_every_block_has_its_threshold():
    c = TransformerConfig(**SMALL, blocks=3, variant=4, attention_threshold=20)
    assert c.attention_thresholds == 3 * 6
    assert c.stream("attention_threshold").beats == 3 * 6
    array = c.stimulus["attention_threshold"]
    assert (array.low, array.high, array.optional) == (1, 31, True)
    for other in ({"variant": 3}, {"attention": "ssa", "encoder": "count"}, {"attention": "none"}):
        assert "attention_threshold" not in c.replace(**other).stimulus


def test_sdsa_4_takes_no_more_clocks_than_sdsa_3():
    """Thresholds are looked up where they lie, and not brought in front of a pass."""
    three, four = (TransformerConfig(**SMALL, blocks=2, variant=v, trace=True) for v in (3, 4))
    assert (three.latency, three.cycles) == (four.latency, four.cycles)


def test_the_residual_saturates():
    """With shifts as large as they may be most sums are at the ends of the range."""
    c = TransformerConfig(**SMALL, blocks=2)
    rng = np.random.default_rng(3)
    arrays = random_stimulus(c, rng)
    most = {"weights": 127, "bias": 2**15 - 1, "shift": 2**c.shift_bits - 1}
    arrays |= {n: np.full_like(arrays[n], v) for n, v in most.items()}
    arrays["threshold"][:] = 2**15  # over 2^(residual_bits - 1) / 2, which U comes near in a step
    wide = c.replace(residual_bits=24)
    spikes, more = (transformer(x.asdict(), arrays)[0]["spikes"] for x in (c, wide))
    assert spikes.size == more.size == c.spike_count
    assert spikes.any()
    assert more.all()


def test_there_is_no_multiplier(tmp_path):
    emission = emitted("transformer", "tokens=2 channels=4 classes=2")
    (tmp_path / "u.v").write_text(emission.verilog)
    yosys("read_verilog u.v; synth_ecp5; tee -q -o stat.txt stat", cwd=tmp_path)
    said = (tmp_path / "stat.txt").read_text()
    assert "CCU2C" in said
    assert "MULT18X18D" not in said


def test_weights_have_no_contents_at_power_up():
    """A large RAM can't have any; all other memories have."""
    text = emitted("transformer", "tokens=2 channels=4 classes=2").verilog
    assert "weights [" in text
    assert not re.search(r"^ *weights\[0\] = ", text, re.MULTILINE)
    assert re.search(r"^ *biases\w*\[0\] = ", text, re.MULTILINE)


def played(config, batch, mutant=None):
    """Send a batch through the RTL in Verilator, which a mutant says how to change."""
    emission = emit("transformer", config)
    text = emission.verilog
    if mutant:
        text, changes = re.subn(*mutant, text)
        assert changes
    simulated = Design(emission.name, {f"{emission.name}.v": text})
    job = Job("transformer", config.asdict())
    return play(build(simulated, "verilator"), simulated, "verilator", job, batch)


def random_config(rng):
    """Return a configuration with small sizes of any kind."""
    while True:
        try:
            return TransformerConfig(
                tokens=int(rng.integers(1, 6)), features=int(rng.integers(1, 8)),
                input_bits=int(rng.integers(1, 4)), heads=int(rng.integers(1, 4)),
                head_dim=int(rng.integers(1, 6)), hidden=int(rng.integers(1, 5)) * 6,
                blocks=int(rng.integers(1, 3)), classes=int(rng.integers(1, 12)),
                timesteps=int(rng.integers(1, 4)),
                attention=str(rng.choice(["sdsa", "ssa", "none"])),
                variant=int(rng.integers(1, 5)), encoder=str(rng.choice(["count", "sample"])),
                rng=str(rng.choice(["lfsr", "sobol"])), reseed=bool(rng.integers(2)),
                seed=int(rng.integers(1, 1000)), tau=float(rng.choice([1, 2, 3, 4])),
                reset=str(rng.choice(["hard", "soft", "none"])),
                fire=str(rng.choice(["ge", "gt"])), weight_bits=int(rng.integers(2, 9)),
                shift_bits=int(rng.integers(0, 4)), trace=True,
                attention_threshold=int(rng.integers(1, 6)),
                experts=int(rng.choice([0, 0, 1, 2, 3, 5])),
                mode=str(rng.choice(["dense", "events"])),
            )  # fmt: skip
        except ConfigError:
            continue


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_random_networks(seed):
    """Logits, answers and all spikes, and the clocks of some images in a row."""
    rng = np.random.default_rng(seed)
    config = random_config(rng)
    settings = random_stimulus(config, rng)
    images = rng.integers(0, 2**config.input_bits, (3, *settings["patches"].shape))
    batch = {n: np.stack([x] * 3) for n, x in settings.items()} | {"patches": images}
    result = played(config, batch)
    assert not result.message
    assert result.wrong == 0
    most = config.cycles + 2 * config.schedule.interval
    assert result.clocks <= most if config.mode == "events" else result.clocks == most


MUTANTS = {
    "the residual is not added": (r"(residual_word <= )[^;]*;", r"\g<1>0;"),
    "biases of a token are not repeated": (r"(first_bias <= )[^;]*;", r"\g<1>0;"),
    "biases come with every bit": (r"\.mute\([^)]*\)", ".mute(1'b0)"),
}
EXPERTS = {
    "experts do not rest": (r"\.i_given\([^)]*\)", ".i_given(1'b1)"),
    "everybody is given what the first expert is": (r"(\.expert)\([^)]*\)", r"\g<1>(1'b0)"),
    "answers add up over blocks": (r"\.first_answers\([^)]*\)", ".first_answers(1'b0)"),
    "answers are not added up": (r"\.merges\([^)]*\)", ".merges(1'b0)"),
}
THRESHOLDS = {
    "all blocks have the first one's": (r"( origin <= )[^;]*;", r"\g<1>0;"),
    "all channels have their block's first": (r"(setting_\d+) \+ 1'h1", r"\g<1>"),
    "none are loaded": (
        r"(\.threshold__valid)\(attention_threshold__valid[^)]*\)",
        r"\g<1>(1'b0)",
    ),
}


def thresholds_by_turns():
    """Return inferences that differ in thresholds of channels alone, and in their spikes.

    Of a block's channels one has 1 among the greatest, or the other way round.
    """
    c = TransformerConfig(**SMALL, blocks=2, variant=4, trace=True)
    several = [random_stimulus(c, np.random.default_rng(1))] * 4
    least, most = (np.where(np.arange(6) == 4, a, b) for a, b in ((1, 15), (15, 1)))
    loaded = [(least, most), (most, least), (most, most), (least, least)]
    batch = {n: np.stack([x[n] for x in several]) for n in several[0]}
    batch["threshold"] = np.minimum(batch["threshold"], 99)  # that much spikes
    batch["attention_threshold"] = np.array([np.concatenate(x) for x in loaded])
    return c, batch


def test_thresholds_of_channels():
    config, batch = thresholds_by_turns()
    result = played(config, batch)
    assert not result.message
    assert result.wrong == 0
    spikes = result.golden["spikes"]
    assert all((a != b).any() for a, b in itertools.combinations(spikes, 2))


@pytest.mark.slow
@pytest.mark.parametrize("what", THRESHOLDS)
def test_other_thresholds_are_found(what):
    result = played(*thresholds_by_turns(), mutant=THRESHOLDS[what])
    assert not result.message
    assert result.wrong


def test_zeros_take_no_clocks():
    """An image without any, but for the blocks' own biases, is done sooner by those it saves."""
    c = TransformerConfig(**SMALL, mode="events", lanes=1, attention="none")
    arrays = random_stimulus(c, np.random.default_rng(1))
    zeros = {name: np.zeros_like(array) for name, array in arrays.items()}
    zeros["threshold"] += 1
    ones = {n: np.full_like(a, (c.steady | c.busiest)[n]) for n, a in arrays.items()}
    took = []
    for arrays in (zeros, ones):
        result = played(c, {name: array[np.newaxis] for name, array in arrays.items()})
        assert not result.message
        assert result.wrong == 0
        assert result.golden["logits"].any() == (arrays is ones)
        took.append(result.clocks)
    assert took[1] == c.cycles
    # A group of a token takes TURN clocks, where `contract` has 12 inputs to go through, others 6.
    tokens = c.timesteps * c.tokens
    assert took[1] - took[0] >= (tokens - 1) * (6 * (12 - TURN) + (12 + 3) * (6 - TURN))


@pytest.mark.slow
@pytest.mark.parametrize("what", MUTANTS | EXPERTS)
def test_mutants_are_found(what):
    settings = SMALL | ({"experts": 2, "trace": "true"} if what in EXPERTS else {})
    emission = emitted("transformer", " ".join(f"{n}={v}" for n, v in settings.items()))
    text, changes = re.subn(*(MUTANTS | EXPERTS)[what], emission.verilog)
    assert changes
    broken = Design(emission.name, {f"{emission.name}.v": text})
    assert failures(bench(emission, broken, "verilator"))
    assert not failures(bench(emission, design(emission), "verilator"))
