"""The self test as RTL around the emitted Verilog: seconds in Icarus, so on many tops."""

import subprocess

import numpy as np
import pytest

from boards.selftest import SelfTest, Vectors, deadline
from gen.emit import emit
from gen.vectors import random_stimulus
from gen.verilog import convert
from hw.attention import AttentionConfig
from hw.heads import HeadsConfig
from hw.lif import LifConfig

pytestmark = pytest.mark.icarus

RESET = 3  # clocks at whose end it is 0

TOPS = {
    "smallest": ("lif", LifConfig(neurons=1, timesteps=1)),
    "uneven": ("lif", LifConfig(neurons=5, lanes=2, timesteps=3)),
    "traced": ("lif", LifConfig(neurons=5, lanes=2, timesteps=3, trace=True)),
    "settings": (
        "lif",
        LifConfig(neurons=5, lanes=2, timesteps=3, threshold_load="neuron", bias_load="shared"),
    ),
    "attention": ("attention", AttentionConfig(tokens=3, head_dim=5, timesteps=4)),
    "heads": ("heads", HeadsConfig(tokens=3, heads=3, head_dim=2, timesteps=2)),
}

BENCH = """
module bench;
    reg clk = 0, rst = 1, green = 0, red = 0;
    wire passed, failed;
    integer clocks = 0;
    selftest dut (.clk(clk), .rst(rst), .passed(passed), .failed(failed));
    always #5 clk = !clk;
    always @(negedge clk) begin
        clocks <= clocks + 1;
        rst <= clocks < RESET;
        if (passed && !green) $display("passed %0d", clocks);
        if (failed && !red) $display("failed %0d", clocks);
        green <= passed; red <= failed;
        if (clocks == LAST) $finish;
    end
endmodule
"""


@pytest.fixture(params=TOPS)
def case(request):
    top, config = TOPS[request.param]
    emission = emit(top, config)
    rng = np.random.default_rng(5)
    while True:
        arrays = random_stimulus(config, rng)
        vectors = Vectors.of(emission, arrays)
        if any(vectors.words[s.name] != [0] * len(vectors.words[s.name]) for s in outputs(config)):
            return emission, arrays, vectors


def outputs(config):
    return [s for s in config.streams if s.direction == "out"]


def simulate(emission, vectors, folder, verilog=None):
    """Return {"passed" or "failed": clock after reset}."""
    (folder / "unit.v").write_text(verilog or emission.verilog)
    (folder / "selftest.v").write_text(convert(SelfTest(emission, vectors), "selftest", "v"))
    last = RESET + 2 * deadline(emission.config)
    bench = BENCH.replace("RESET", str(RESET)).replace("LAST", str(last))
    (folder / "bench.v").write_text(bench)
    subprocess.run(
        ["iverilog", "-g2005", "-o", "sim", "-s", "bench", "bench.v", "selftest.v", "unit.v"],
        cwd=folder,
        check=True,
    )
    said = subprocess.run(["vvp", "sim"], cwd=folder, check=True, capture_output=True, text=True)
    lit = [line.split() for line in said.stdout.splitlines() if line[:6] in ("passed", "failed")]
    return {name: int(clock) - RESET for name, clock in lit}


def flipped(vectors, stream, index):
    words = list(vectors.words[stream])
    words[index] ^= 1
    return Vectors({**vectors.words, stream: words})


def test_passes_at_the_deadline(case, tmp_path):
    emission, _, vectors = case
    assert simulate(emission, vectors, tmp_path) == {"passed": deadline(emission.config)}


def test_fails_with_a_bit_of_an_expected_word_flipped(case, tmp_path):
    emission, _, vectors = case
    for stream in outputs(emission.config):
        last = len(vectors.words[stream.name]) - 1
        lit = simulate(emission, flipped(vectors, stream.name, last), tmp_path)
        assert lit.keys() == {"failed"}


def test_fails_with_a_value_of_the_stimulus_changed(case, tmp_path):
    """What is in ROM is really what goes in."""
    emission, arrays, vectors = case
    rng = np.random.default_rng(6)
    for name, array in emission.config.stimulus.items():
        while True:
            other = {**arrays, name: random_stimulus(emission.config, rng)[name]}
            golden = Vectors.of(emission, other)
            if any(golden.words[s.name] != vectors.words[s.name] for s in outputs(emission.config)):
                break
        words = {**vectors.words, array.stream: golden.words[array.stream]}
        assert simulate(emission, Vectors(words), tmp_path).keys() == {"failed"}


@pytest.mark.parametrize(
    ("port", "value"),
    [("m_axis_tvalid", "1'h0"), ("m_axis_tvalid", "1'h1"), ("m_axis_tlast", "1'h0")],
)
def test_fails_where_the_unit_hangs_or_says_too_much(port, value, tmp_path):
    top, config = TOPS["uneven"]
    emission = emit(top, config)
    vectors = Vectors.of(emission, random_stimulus(config, np.random.default_rng(5)))
    lines = emission.verilog.splitlines()
    (place,) = (i for i, line in enumerate(lines) if line.strip().startswith(f"assign {port} ="))
    lines[place] = f"  assign {port} = {value};"
    broken = "\n".join(lines) + "\n"
    assert simulate(emission, vectors, tmp_path, broken).keys() == {"failed"}


def test_a_setting_left_out_is_that_of_the_parameters(tmp_path):
    top, config = TOPS["settings"]
    emission = emit(top, config)
    arrays = random_stimulus(config, np.random.default_rng(5))
    vectors = Vectors.of(emission, {"current": arrays["current"]})
    assert vectors.words.keys() == {"current", "spikes"}
    assert simulate(emission, vectors, tmp_path) == {"passed": deadline(config)}
