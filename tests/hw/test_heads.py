import re

import numpy as np
import pytest

from gen.emit import yosys
from hw.config import ConfigError
from hw.heads import HeadsConfig
from hw.heads.config import BLOCK_WORDS
from sim.job import Job
from sim.play import play
from sim.runner import Design, build
from tests.sim.benches import bench, design, emitted, failures


@pytest.mark.parametrize(
    ("settings", "channels", "heads", "head_dim", "keep", "channels_per_beat"),
    [({}, 64, 4, 16, 2, 64), ({"channels": 512}, 512, 4, 128, 2, 512),
     ({"heads": 3}, 48, 3, 16, 2, 48), ({"head_dim": 32}, 128, 4, 32, 2, 128),
     ({"channels": 10}, 10, 2, 5, 1, 10), ({"channels": 7}, 7, 1, 7, 1, 7),
     ({"channels": 768, "head_dim": 64}, 768, 12, 64, 6, 384),
     ({"heads": 3, "head_dim": 200}, 600, 3, 200, 2, 200),
     ({"heads": 2, "head_dim": 1024}, 2048, 2, 1024, 1, 512),
     ({"channels": 1021}, 1021, 1, 1021, 1, 1),
     ({"channels": 600, "tokens_per_beat": 2}, 600, 4, 150, 2, 600)],
)  # fmt: skip
def test_sizes_follow_from_each_other(settings, channels, heads, head_dim, keep, channels_per_beat):
    c = HeadsConfig(**settings)
    assert (c.channels, c.heads, c.head_dim) == (channels, heads, head_dim)
    assert (c.keep, c.channels_per_beat) == (keep, channels_per_beat)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"heads": 4, "keep": 5}, "keep: want at most heads (4), got 5"),
     ({"keep": 0}, "keep: want 1..64, got 0"),
     ({"heads": 65}, "heads: want 1..64, got 65"),
     ({"channels": 100, "head_dim": 1}, "heads: want 1..64, got 100"),
     ({"channels": 10, "heads": 3}, "channels: want heads * head_dim (3 * 3), got 10"),
     ({"channels_per_beat": 24},
      "channels_per_beat: want a divisor of channels (64) that divides head_dim (16) or is a "
      "multiple of it, got 24"),
     ({"heads": 3, "head_dim": 4, "channels_per_beat": 6},
      "channels_per_beat: want a divisor of channels (12) that divides head_dim (4) or is a "
      "multiple of it, got 6"),
     ({"tokens_per_beat": 17}, "tokens_per_beat: want at most tokens (16), got 17"),
     ({"tokens_per_beat": 2, "channels_per_beat": 16},
      "channels_per_beat: want channels (64) with tokens_per_beat=2, got 16"),
     ({"gate": 1}, "gate: want true | false, got 1")],
)  # fmt: skip
def test_refusals(settings, message):
    with pytest.raises(ConfigError) as error:
        HeadsConfig(**settings)
    assert str(error.value) == message


@pytest.mark.parametrize("heads", [1, 2, 3, 8, 12, 64])
@pytest.mark.parametrize("head_dim", [1, 16])
def test_nobody_waits_from_an_inference_on_that_is_long_enough(heads, head_dim):
    """With the fewest comparators."""
    enough = HeadsConfig(tokens=1, heads=heads, head_dim=head_dim)
    least = 2 * heads + enough.groups + enough.count_clocks + 3
    for timesteps in range(1, least + 5):
        c = enough.replace(timesteps=timesteps)
        assert (c.pause == 0) == (c.words >= least)
        assert c.pause == 0 or c.comparators == heads
    long = enough.replace(timesteps=heads * (heads + 1) + least)
    assert (long.comparators, long.pause) == (1, 0)


def test_the_ring_holds_little_more_than_an_inference():
    for preset in HeadsConfig.PRESETS:
        c = HeadsConfig.preset(preset)
        assert c.pause == 0
        held = c.words + c.decision_clocks + 1
        assert c.places == held if held > BLOCK_WORDS else held <= c.places <= 2 * held


@pytest.mark.parametrize(("family", "flip_flop"), [("ice40 -device u", "SB_DFFESR"), ("ecp5", "")])
def test_no_lut_a_bit_clears_a_head(family, flip_flop, tmp_path):
    """It is the reset of flip-flops: far fewer LUTs than the 128 bits of a beat."""
    emission = emitted("heads", "tokens=2 heads=2 head_dim=64 keep=1")
    text = emission.verilog
    (tmp_path / "heads.v").write_text(text)
    limit = "select -assert-max 100 heads_unit_gate/t:SB_LUT4 heads_unit_gate/t:LUT4"
    some = f"select -assert-min 128 heads_unit_gate/t:{flip_flop}" if flip_flop else ""
    yosys(f"read_verilog heads.v; synth_{family} -noflatten -top heads; {limit}; {some}",
          cwd=tmp_path)  # fmt: skip


#: What is changed in the Verilog, and the test that must see it.
MUTANTS = {
    "of equals the higher head stays": (r"~ \{ share, lane \}", "{ share, lane }", "extremes"),
    "one head more": (r"(beaten\d) < 2'h2", r"\1 < 2'h3", "golden_under_stalls/pattern=none"),
    "sums go on from one inference to the next": (
        r"assign fresh = .*;", "assign fresh = 1'h0;", "golden_under_stalls/pattern=none",
    ),
    "every token waits": (r"assign final_ = .*;", "assign final_ = 1'h1;", "timing"),
    "room for ever": (r"assign room = .*;", "assign room = 1'h1;", "valid_does_not_wait"),
    "the last token does not wait": (
        r"= busy & final_;", "= 1'h0;", "golden_under_stalls/pattern=bursts",
    ),
    "a void inference stays in the ring": (
        r"undo \? start : ", "1'h0 ? start : ", "framing_faults",
    ),
    "the next inference has the heads of the one before": (
        r"begin_ \? kept : ", "(begin_ & !active) ? kept : ", "extremes",
    ),
    "kept is overwritten": (
        r"assign taken = .*;", "assign taken = decided & ready;", "valid_does_not_wait",
    ),
}  # fmt: skip

SIZES = "tokens=4 heads=4 head_dim=2 channels_per_beat=4 timesteps=3"


@pytest.mark.icarus
@pytest.mark.parametrize("change", MUTANTS)
def test_broken_hardware_fails(change):
    old, new, test = MUTANTS[change]
    emission = emitted("heads", SIZES)
    text, count = re.subn(old, new, emission.verilog)
    assert count
    broken = Design(emission.name, {f"{emission.name}.v": text})
    assert failures(bench(emission, broken, "icarus", only=test))


@pytest.mark.icarus
def test_the_bench_passes_on_what_is_not_broken():
    emission = emitted("heads", SIZES)
    assert not failures(bench(emission, design(emission), "icarus"))


def through(top, settings, batch):
    """Return what comes of a batch in RTL that agrees with golden, and its clocks."""
    emission = emitted(top, settings)
    tested = design(emission)
    job = Job(top, emission.config.asdict())
    played = play(build(tested, "icarus"), tested, "icarus", job, batch)
    assert (played.wrong, played.message) == (0, "")
    return played.results, played.clocks


@pytest.mark.icarus
def test_a_ring_that_is_no_power_of_two_and_lies_in_two_memories():
    emission = emitted("heads", "tokens=130 heads=2 head_dim=1 timesteps=4")
    c = emission.config
    assert c.places == 520 + 11
    q = np.random.default_rng(5).integers(0, 2, (4, 4, 130, 2), np.uint8)
    _, clocks = through("heads", "tokens=130 heads=2 head_dim=1 timesteps=4", {"q": q})
    assert clocks == c.cycles + 3 * 4 * c.interval


@pytest.mark.icarus
@pytest.mark.parametrize(
    ("top", "settings"),
    [("sdsa", "tokens=6 heads=4 head_dim=4 channels_per_beat=8 timesteps=3"),
     ("attention", "tokens=6 heads=4 head_dim=4 timesteps=3")],
)  # fmt: skip
def test_in_front_of_a_unit_the_other_heads_come_out_as_they_did(top, settings):
    rng = np.random.default_rng(4)
    rates = rng.random((5, 1, 1, 4, 1)) * [[0.6], [0.7], [0.5], [0.8]]
    q = (rng.random((5, 3, 6, 4, 4)) < rates).reshape(5, 3, 6, 16).astype(np.uint8)
    k, v = (rng.random((2, *q.shape)) < 0.6).astype(np.uint8)
    beat = next((s for s in settings.split() if s.startswith("channels_per_beat")), "")
    sizes = f"tokens=6 heads=4 head_dim=4 timesteps=3 {beat}"
    found, _ = through("heads", sizes, {"q": q})
    assert len({tuple(kept) for kept in found["kept"]}) > 1
    ports = emitted("heads", sizes).config.streams
    unit = emitted(top, settings).config.streams
    for field in ("lanes", "width", "beats", "elements", "steps"):
        assert {getattr(s, field) for s in (*ports[:2], unit[0])} == {getattr(unit[0], field)}
    pruned = through(top, settings, {"q": found["out"], "k": k, "v": v})[0]["out"]
    full = through(top, settings, {"q": q, "k": k, "v": v})[0]["out"]
    stays = found["kept"].repeat(4, axis=1)[:, np.newaxis, np.newaxis]
    np.testing.assert_array_equal(pruned, full * stays)
    assert full.any()
