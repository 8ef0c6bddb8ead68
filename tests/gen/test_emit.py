import json
import os
import re
from pathlib import Path

import pytest

from gen.emit import WAIVERS, check_name, emit, write, yosys
from gen.errors import UserError
from gen.options import resolve

NEVER_WAIVED = ["LATCH", "UNOPTFLAT", "MULTIDRIVEN", "UNDRIVEN", "SELRANGE", "PINMISSING",
                "IMPLICIT"]  # fmt: skip


def lif(*settings, **options):
    return emit("lif", resolve("lif", None, settings or ["neurons=3"]), **options)


def test_verilator_has_nothing_to_say(written, verilate):
    files = written.manifest["files"]
    done = verilate("--lint-only", "-Wall", "--quiet", files["waivers"], files["verilog"])
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_verilator_would_say_something(verilate, tmp_path):
    """That the lint above is not of the kind that passes whatever it reads."""
    emission = lif()
    write(emission.files, tmp_path)
    broken = emission.verilog.replace("assign m_axis_tlast = ", "assign tlast_lost = ")
    assert broken != emission.verilog
    (tmp_path / "lif.v").write_text(broken)
    done = verilate("--lint-only", "-Wall", "--quiet", "lif.vlt", "lif.v")
    assert done.returncode == 1
    assert {"%Warning-IMPLICIT", "%Warning-UNDRIVEN"} <= set(
        re.findall(r"^%[\w-]+", done.stderr, re.M)
    )


@pytest.mark.parametrize("rule", NEVER_WAIVED)
def test_faults_are_never_waived(rule):
    assert f"-rule {rule}" not in WAIVERS.read_text()


def test_every_waiver_has_its_reason():
    blocks = WAIVERS.read_text().partition("`verilator_config\n\n")[2].split("\n\n")
    for block in blocks:
        *reason, waiver = block.strip().splitlines()
        assert re.fullmatch(r'lint_off -rule \w+ -file "\*"', waiver)
        assert reason
        assert all(line.startswith("// ") for line in reason)


@pytest.mark.icarus
def test_icarus_has_nothing_to_say(written, icarus):
    files = written.manifest["files"]
    language = {"v": ["-g2001", "-g2005", "-g2012"], "sv": ["-g2012"]}[written.form]
    for mode in language:
        done = icarus("-Wall", mode, files["verilog"], simulate=False)
        assert done.returncode == 0
        # Icarus 11 makes an always_comb sensitive to whole vectors and says so; it is only slower.
        said = [
            line
            for line in done.stderr.splitlines()
            if "sorry: constant selects in always_* processes are not currently supported "
            "(all bits will be included)." not in line
        ]
        assert said == []


@pytest.mark.icarus
def test_outputs_are_known_from_time_0_on(written, icarus, tmp_path):
    outputs = [p["name"] for p in written.manifest["ports"] if p["direction"] == "out"]
    inputs = [p["name"] for p in written.manifest["ports"] if p["direction"] == "in"]
    widths = {p["name"]: p["width"] for p in written.manifest["ports"]}
    wires = "".join(f"wire [{widths[n] - 1}:0] {n};\n" for n in outputs)
    ports = ", ".join([*(f".{n}({n})" for n in outputs), *(f".{n}({n})" for n in inputs)])
    values = {"rst": 1}
    regs = "".join(f"reg [{widths[n] - 1}:0] {n} = {values.get(n, 0)};\n" for n in inputs)
    shown = "\n".join(f'$display("{n} %b", {n});' for n in outputs)
    bench = f"module bench; {wires} {regs} {written.name} dut ({ports});"
    (tmp_path / "bench.v").write_text(f"{bench} initial begin #1 {shown} end endmodule")
    file = written.manifest["files"]["verilog"]
    shows = icarus("-g2012", "-s", "bench", file, "bench.v").stdout.splitlines()
    assert len(shows) == len(outputs)
    for line in shows:
        assert set(line.split()[1]) <= {"0", "1"}, line


def test_yosys_reads_it(written, tmp_path):
    flag = "-sv " if written.form == "sv" else ""
    file = written.manifest["files"]["verilog"]
    yosys(
        f"read_verilog {flag}{file}; hierarchy -check -top {written.name}; proc; check -assert",
        cwd=tmp_path,
    )


def test_example_of_the_instance_lints(verilate, tmp_path):
    emission = lif("trace=true", name="mine")
    write(emission.files, tmp_path)
    done = verilate("--lint-only", "-Wall", "--quiet", "--top-module", "mine_instance", "mine.vlt",
                    "mine.v", "mine_instance.v")  # fmt: skip
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    for port in emission.manifest["ports"]:
        assert f".{port['name']}({port['name']})" in emission.files["mine_instance.v"]


PAIR = """
module pair (input clk, input rst, output [7:0] a, output [7:0] b);
  few few_i (.clk(clk), .rst(rst), .faults(a), .s_axis_tvalid(1'b0), .s_axis_tdata(24'd0),
             .s_axis_tlast(1'b0), .s_axis_tuser(1'b0), .m_axis_tready(1'b1), .s_axis_tready(),
             .m_axis_tdata(), .m_axis_tlast(), .m_axis_tuser(), .m_axis_tvalid());
  many many_i (.clk(clk), .rst(rst), .faults(b), .s_axis_tvalid(1'b0), .s_axis_tdata(64'd0),
               .s_axis_tlast(1'b0), .s_axis_tuser(1'b0), .m_axis_tready(1'b1), .s_axis_tready(),
               .m_axis_tdata(), .m_axis_tlast(), .m_axis_tuser(), .m_axis_tvalid());
endmodule
"""


@pytest.fixture
def pair(tmp_path):
    """Two configurations of one top in one design."""
    write(
        {**lif(name="few").files, **lif("neurons=8", name="many").files, "pair.v": PAIR}, tmp_path
    )
    return tmp_path


def test_two_configurations_in_one_design(pair, verilate):
    text = "".join((pair / f).read_text() for f in ("few.v", "many.v", "pair.v"))
    modules = re.findall(r"^module (\w+)", text, re.MULTILINE)
    assert len(modules) == len(set(modules))
    yosys(
        "read_verilog few.v many.v pair.v; hierarchy -check -top pair; proc; check -assert",
        cwd=pair,
    )
    files = "few.vlt", "many.vlt", "few.v", "many.v", "pair.v"
    done = verilate("--lint-only", "--quiet", "--top-module", "pair", *files)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.icarus
def test_two_configurations_in_one_design_icarus(pair, icarus):
    done = icarus("-g2005", "-s", "pair", "few.v", "many.v", "pair.v")
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("name", ["", "1st", "a-b", "a.b", "a b", "å", "a$", "x" * 129, "a\n"])
def test_names_that_are_no_identifiers(name):
    with pytest.raises(UserError, match="--name: want a Verilog identifier"):
        check_name(name)


@pytest.mark.parametrize("name", ["module", "reg", "logic", "always_ff"])
def test_names_that_are_keywords(name):
    with pytest.raises(UserError, match=f"--name: '{name}' is a keyword"):
        check_name(name)


@pytest.mark.parametrize("name", ["clk", "unit", "guard", "_", "X9"])
def test_names_that_the_inside_uses_too(name, tmp_path):
    write(lif(name=name).files, tmp_path)
    yosys(f"read_verilog {name}.v; hierarchy -check -top {name}; proc; check -assert", cwd=tmp_path)


def test_header_tells_what_it_is():
    emission = lif("tau=3", name="mine")
    header = emission.verilog.partition("\nmodule")[0]
    assert "mine.json" in header
    assert emission.manifest["hash"] in header
    assert emission.manifest["generator"]["version"] in header
    assert "yours to license" in header
    for name, value in emission.manifest["parameters"].items():
        assert f"\n//   {name} = {json.dumps(value)}\n" in header


def test_write_makes_the_folder(tmp_path):
    paths = write({"a.txt": "text", "b.bin": b"\x00"}, tmp_path / "x" / "y")
    assert [p.read_bytes() for p in paths] == [b"text", b"\x00"]
    assert paths[0].stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_write_replaces(tmp_path):
    write({"a": "old"}, tmp_path)
    write({"a": "new"}, tmp_path)
    assert (tmp_path / "a").read_text() == "new"
    assert os.listdir(tmp_path) == ["a"]


def test_a_file_in_the_way_of_the_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"can't write .*file"):
        write({"a": "text"}, tmp_path / "file" / "folder")


@pytest.mark.parametrize("in_the_way", ["a", "b"])
def test_a_folder_in_the_way_of_a_file(tmp_path, in_the_way):
    (tmp_path / in_the_way).mkdir()
    with pytest.raises(UserError, match=f"can't write .*{in_the_way}: is a folder"):
        write({"a": "text", "b": "text"}, tmp_path)
    assert os.listdir(tmp_path) == [in_the_way]


def test_a_full_disk_leaves_the_old_files(tmp_path, monkeypatch):
    write({"a": "old", "b": "old"}, tmp_path)
    whole = Path.write_bytes

    def full(path, content):
        if ".b." in path.name:
            whole(path, content[:1])
            raise OSError(28, "No space left on device", str(path))
        return whole(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match="No space left on device"):
        write({"a": "new", "b": "new"}, tmp_path)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"a": "old", "b": "old"}
