import re

import pytest

from gen.emit import yosys
from hw.config import ConfigError
from hw.moe import MoeConfig
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
     ({"window": 2}, "window: want at least 15 for tokens to come in at once, got 2"),
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
        "experts=1 bias_bits=4", r"assign o__ready = room & ", "assign o__ready = ",
        "golden_under_stalls/pattern=bursts",
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
    assert test in failures(bench(emission, broken, "verilator"))


def test_weights_that_were_loaded_wrong_are_seen_where_they_are_read_back():
    settings = "tokens=2 channels=8 readback=true weight_bits=4"
    emission = emitted("moe", settings)
    text, count = re.subn(r"\$signed\(total\) - ", "$signed(total) + ", emission.verilog)
    assert count
    broken = Design(emission.name, {f"{emission.name}.v": text})
    found = failures(bench(emission, broken, "verilator"))
    assert "stored" in found["settings"]


def test_the_bench_passes_on_what_is_not_broken():
    emission = emitted("moe", "tokens=5 channels=8 channels_per_beat=4 timesteps=2 trace=true")
    assert not failures(bench(emission, design(emission), "verilator"))
