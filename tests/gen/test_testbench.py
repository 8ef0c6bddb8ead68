import subprocess

import pytest

from gen.emit import emit, write
from gen.options import resolve
from gen.testbench import INFERENCES, bench_files
from sim.golden import golden

#: A comparison of each top, and what stands in its place.
GATES = {"lif": (" >= ", " > "), "attention": (" & ", " | ")}

SETTINGS = {
    "lif": "neurons=20 lanes=3 trace=true",
    "attention": "tokens=3 heads=2 head_dim=3 columns=2 timesteps=3",
    "moe": "tokens=3 channels=16 channels_per_beat=4 timesteps=2 routing=topk k=2 readback=true",
}

#: Each routing and overflow, tokens of one beat and of several, tiles, more ports than 32.
ROUTERS = [
    "tokens=5 channels=16 channels_per_beat=4 timesteps=2 capacity=2 trace=true",
    "tokens=4 channels=8 channels_per_beat=4 routing=kwta k=2 fill=true capacity=1 overflow=stall",
    "tokens=5 channels=24 channels_per_beat=8 tiles=2 routing=topk k=3 capacity=4 readback=true",
    "tokens=2 channels=2 experts=16 timesteps=1 trace=true",
    "tokens=1 channels=1 experts=1 timesteps=1",
]


def design(top, form, folder, settings=None):
    config = resolve(top, None, (settings or SETTINGS[top]).split())
    emission = emit(top, config, name=f"my_{top}", form=form)
    write({**emission.files, **bench_files(emission, golden(top))}, folder)
    return emission


def icarus_arguments(emission):
    name = emission.name
    return "-g2012", "-s", f"{name}_tb", f"{name}.{emission.form}", f"{name}_tb.sv"


def break_gate(emission, folder):
    old, new = GATES[emission.top]
    assert old in emission.verilog
    text = emission.verilog.replace(old, new)
    (folder / f"{emission.name}.{emission.form}").write_text(text)


@pytest.mark.icarus
@pytest.mark.parametrize("form", ["v", "sv"])
@pytest.mark.parametrize("top", GATES)
def test_bench_passes_and_a_changed_gate_fails(top, form, icarus, tmp_path):
    emission = design(top, form, tmp_path)
    done = icarus(*icarus_arguments(emission))
    assert done.returncode == 0
    assert done.stdout.startswith(f"PASS: my_{top}: 3 inferences")
    break_gate(emission, tmp_path)
    done = icarus(*icarus_arguments(emission))
    assert done.returncode == 1
    assert done.stdout.startswith("FAIL: ")
    assert "PASS" not in done.stdout


@pytest.mark.icarus
@pytest.mark.parametrize("settings", ROUTERS)
def test_bench_of_routers(settings, icarus, tmp_path):
    done = icarus(*icarus_arguments(design("moe", "v", tmp_path, settings)))
    assert done.returncode == 0
    assert done.stdout.startswith("PASS: my_moe: 3 inferences")


@pytest.mark.icarus
@pytest.mark.parametrize(
    ("port", "bit", "stream"),
    [
        ("m_axis_expert2_tdata", 0, "expert2"),
        ("m_axis_expert2_tlast", 0, "expert2"),
        ("m_axis_expert2_tuser", 0, "expert2"),
        ("m_axis_expert2_tuser", 3, "expert2"),
        ("m_axis_tdata", 0, "merged"),
        ("m_axis_stored_tdata", 31, "stored"),
    ],
)
def test_bench_fails_with_a_wrong_bit_of_a_router(port, bit, stream, icarus, tmp_path):
    emission = design("moe", "v", tmp_path)
    assign = f"assign {port} = "
    assert emission.verilog.count(assign) == 1
    text = emission.verilog.replace(assign, f"{assign}{1 << bit} ^ ")
    (tmp_path / "my_moe.v").write_text(text)
    done = icarus(*icarus_arguments(emission))
    assert done.returncode == 1
    assert done.stdout.startswith(f"FAIL: {stream}: beat 0: want tdata ")


@pytest.mark.icarus
def test_bench_answers_whole_tokens(icarus, tmp_path):
    """In the second token of four beats an expert stops: it answers the first one alone."""
    emission = design("moe", "v", tmp_path)
    text = (tmp_path / "my_moe_tb.sv").read_text()
    for old, new in (
        ("m_axis_expert2_tready <= ", "m_axis_expert2_tready <= m_axis_expert2_next < 6 && "),
        ('more after %0d clocks", clocks)', 'more after %0d answered", s_axis_answer2_next)'),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    (tmp_path / "my_moe_tb.sv").write_text(text)
    done = icarus(*icarus_arguments(emission))
    assert done.returncode == 1
    assert done.stdout.startswith("FAIL: nothing more after 4 answered")


def break_vector(folder):
    """Change one bit of the fifth beat that is expected."""
    vectors = folder / "my_lif_tb_spikes.hex"
    lines = vectors.read_text().splitlines()
    lines[4] = f"{int(lines[4], 16) ^ 1:0{len(lines[4])}x}"
    vectors.write_text("\n".join(lines))


@pytest.mark.icarus
def test_bench_loads_the_settings_first(icarus, tmp_path):
    settings = ["neurons=20", "lanes=3", "threshold_load=neuron", "bias_load=shared", "tau=10"]
    emission = emit("lif", resolve("lif", None, settings), name="set")
    write({**emission.files, **bench_files(emission, golden("lif"))}, tmp_path)
    assert icarus(*icarus_arguments(emission)).stdout.startswith("PASS: set: 3 inferences")
    vectors = tmp_path / "set_tb_bias.hex"
    vectors.write_text(f"{int(vectors.read_text(), 16) ^ 0x4000:x}\n")
    assert icarus(*icarus_arguments(emission)).stdout.startswith("FAIL: spikes: beat ")


@pytest.mark.icarus
def test_bench_names_the_first_wrong_beat(icarus, tmp_path):
    emission = design("lif", "v", tmp_path)
    break_vector(tmp_path)
    done = icarus(*icarus_arguments(emission))
    assert done.returncode == 1
    assert done.stdout.startswith("FAIL: spikes: beat 4: want tdata ")


@pytest.mark.icarus
def test_bench_fails_where_nothing_comes(icarus, tmp_path):
    emission = design("lif", "v", tmp_path)
    text = emission.verilog.replace("assign m_axis_tvalid = ", "assign m_axis_tvalid = 1'b0 & ")
    (tmp_path / "my_lif.v").write_text(text)
    done = icarus(*icarus_arguments(emission))
    assert done.returncode == 1
    assert "FAIL: nothing more after" in done.stdout
    assert "FAIL: spikes: 0 of 84 beats" in done.stdout


@pytest.mark.icarus
@pytest.mark.parametrize(
    ("port", "message"),
    [("m_axis_tvalid", "FAIL: spikes: tvalid is unknown"), ("s_axis_tready", "FAIL: ")],
)
def test_bench_fails_where_a_port_is_unknown(port, message, icarus, tmp_path):
    emission = design("lif", "v", tmp_path)
    text = emission.verilog.replace(f"assign {port} = ", f"assign {port} = 1'bx & ")
    (tmp_path / "my_lif.v").write_text(text)
    done = icarus(*icarus_arguments(emission))
    assert done.returncode == 1
    assert message in done.stdout


@pytest.mark.parametrize(("top", "form"), [("lif", "sv"), ("attention", "v"), ("moe", "v")])
def test_bench_in_verilator(top, form, verilate, tmp_path):
    emission = design(top, form, tmp_path)
    name = emission.name
    built = verilate(
        "--binary", "--timing", "-CFLAGS", "-std=c++20", "--quiet", "--top-module", f"{name}_tb",
        "-MAKEFLAGS", "OPT_FAST=-O0 OPT_GLOBAL=-O0 OPT_SLOW=-O0",
        f"{name}.vlt", f"{name}.{form}", f"{name}_tb.sv",
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    program = tmp_path / "obj_dir" / f"V{name}_tb"

    def simulate():
        return subprocess.run([program], cwd=tmp_path, capture_output=True, text=True, check=False)

    done = simulate()
    assert done.returncode == 0
    assert done.stdout.startswith(f"PASS: {name}: 3 inferences")
    if top == "lif":
        break_vector(tmp_path)
        done = simulate()
        assert done.returncode != 0
        assert done.stdout.startswith("FAIL: spikes: beat 4: want tdata ")


@pytest.mark.parametrize("routing", ["mask", "topk", "kwta"])
def test_every_expert_gets_some_of_the_tokens(routing):
    emission = emit("moe", resolve("moe", None, [f"routing={routing}"]))
    files = bench_files(emission, golden("moe"))
    config = emission.config
    tokens = INFERENCES * config.timesteps * config.tokens * config.groups
    for e in range(config.experts):
        assert 1 < files[f"moe_tb_expert{e}.hex"].count("\n") < tokens


def test_same_seed_same_vectors():
    emission = emit("lif", resolve("lif", None, ["neurons=3"]))
    first = bench_files(emission, golden("lif"))
    assert bench_files(emission, golden("lif")) == first
    assert bench_files(emission, golden("lif"), seed=2) != first
