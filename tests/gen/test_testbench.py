import subprocess

import pytest

from gen.emit import emit, write
from gen.options import resolve
from gen.testbench import bench_files
from sim.golden import golden

#: A comparison of each top, and what stands in its place.
GATES = {"lif": (" >= ", " > "), "attention": (" & ", " | ")}


def design(top, form, folder):
    settings = {
        "lif": ["neurons=20", "lanes=3", "trace=true"],
        "attention": ["tokens=3", "heads=2", "head_dim=3", "columns=2", "timesteps=3"],
    }[top]
    emission = emit(top, resolve(top, None, settings), name=f"my_{top}", form=form)
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


@pytest.mark.parametrize(("top", "form"), [("lif", "sv"), ("attention", "v")])
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


def test_same_seed_same_vectors():
    emission = emit("lif", resolve("lif", None, ["neurons=3"]))
    first = bench_files(emission, golden("lif"))
    assert bench_files(emission, golden("lif")) == first
    assert bench_files(emission, golden("lif"), seed=2) != first
