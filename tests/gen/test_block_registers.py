import json
import re
import subprocess

import pytest

from gen.absorb import absorb_file
from gen.block_registers import block_registers
from gen.emit import yosys
from sim.netlist import synthesise
from sim.runner import Design

CLOCKS = 4000

MEMORY = """
module memory(input clk, input write, input [{a}:0] to, input [{w}:0] word,
              input fetch, input [{a}:0] from, input take, output reg [{w}:0] data);
    (* ram_style = "block", no_rw_check *) reg [{w}:0] store [0:{last}];
    reg [{w}:0] read = 0;
    initial data = 0;
    always @(posedge clk) begin
        if (write) store[to] <= word;
        if (fetch) read <= store[from];
        {register}
    end
endmodule
"""

BENCH = """
module bench;
    reg clk = 0, write = 1, fetch = 0, take = 0, filled = 0;
    reg [{a}:0] to = 0, from = 0;
    reg [{w}:0] word = 0;
    wire [{w}:0] want, got;
    integer i, seen = 0;
    memory gate(clk, write, to, word, fetch, from, take, got);
    rtl gold(clk, write, to, word, fetch, from, take, want);
    always begin
        #1 clk = 1;
        #1 clk = 0;
        seen = seen + (got === want && ^want !== 1'bx);
        if (filled && got !== want) begin
            $display("differ: want %h, got %h", want, got);
            $finish;
        end
    end
    initial begin
        // First all words are written, since what is read before that is not the same.
        for (i = 0; i <= {last}; i = i + 1) begin
            to = i; word = {{$random, $random}};
            @(negedge clk);
        end
        {{fetch, take}} = 3;
        repeat (3) @(negedge clk);
        filled = 1;
        for (i = 0; i < {clocks}; i = i + 1) begin
            {{write, fetch, take}} = $random;
            to = {{$random}} % {depth}; from = {{$random}} % {depth}; word = {{$random, $random}};
            // Not one address at once: that is what no_rw_check says.
            if (from == to) write = 0;
            @(negedge clk);
        end
        $display("same: %0d", seen);
        $finish;
    end
endmodule
"""

TAKEN = "if (take) data <= read;"


def texts(width, depth, register=TAKEN):
    values = {"a": (depth - 1).bit_length() - 1, "w": width - 1, "last": depth - 1, "depth": depth}
    verilog = MEMORY.format(register=register, **values)
    return verilog, BENCH.format(clocks=CLOCKS, **values)


def run(netlist, verilog, bench, folder):
    """Return what the bench says of a netlist beside what it was made of."""
    gold = verilog.replace("module memory", "module rtl")
    for name, text in {**netlist.files, "gold.v": gold, "bench.v": bench}.items():
        (folder / name).write_text(text)
    sources = [name for name in (*netlist.files, "gold.v", "bench.v") if name.endswith(".v")]
    subprocess.run(
        ["iverilog", "-g2012", "-s", "bench", "-o", "bench.vvp", *sources], cwd=folder, check=True
    )
    done = subprocess.run(
        ["vvp", "-n", "bench.vvp"], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.mark.icarus
@pytest.mark.parametrize(
    ("width", "depth"), [(1, 9000), (2, 5000), (3, 4000), (9, 1500), (18, 700), (36, 300), (40, 64)]
)
def test_registers_become_the_memorys_own(width, depth, tmp_path):
    verilog, bench = texts(width, depth)
    netlist = synthesise(Design("memory", {"memory.v": verilog}), "ecp5")
    text = netlist.files["memory_ecp5.v"]
    assert "DP16KD" in text
    assert "TRELLIS_FF" not in text
    assert text.count("OUTREG") >= 1
    assert run(netlist, verilog, bench, tmp_path) == f"same: {CLOCKS + 3 + depth}"


@pytest.mark.icarus
@pytest.mark.parametrize(
    ("old", "new"),
    [(r"\.OCEB\(\w+\)", ".OCEB(1'h1)"), ("OUTREG", "NOREG"), (r"\.CEB\(\w+\)", ".CEB(1'h1)")],
    ids=["always taken", "no register", "always fetched"],
)
def test_a_wrong_register_is_seen(old, new, tmp_path):
    verilog, bench = texts(36, 300)
    netlist = synthesise(Design("memory", {"memory.v": verilog}), "ecp5")
    text, count = re.subn(old, new, netlist.files["memory_ecp5.v"])
    assert count
    broken = Design("memory", {**netlist.files, "memory_ecp5.v": text})
    assert run(broken, verilog, bench, tmp_path).startswith("differ")


def moved(register, folder, width=18):
    verilog, _ = texts(width, 600, register)
    (folder / "memory.v").write_text(verilog)
    yosys(
        "read_verilog memory.v; synth_ecp5 -nowidelut -top memory; write_json memory.json",
        cwd=folder,
    )
    netlist = json.loads((folder / "memory.json").read_text())
    before = json.dumps(netlist)
    count = block_registers(netlist)
    assert count or json.dumps(netlist) == before
    return count


@pytest.mark.parametrize(
    ("register", "count"),
    [
        (TAKEN, 18),
        ("data <= read;", 18),
        ("if (take) data[8:0] <= read[8:0]; data[17:9] <= 0;", 9),
        # Not those that do something else as well, or that others read past.
        ("if (take) data <= ~read;", 0),
        ("if (write) data <= 0; else data <= read;", 0),
        ("if (take) data[8:0] <= read[8:0]; data[17:9] <= read[17:9];", 0),
        ("if (take) data <= read; data[0] <= ^read;", 0),
    ],
)
def test_only_plain_registers_move(register, count, tmp_path):
    assert moved(register, tmp_path) == count


def test_not_behind_a_memory_that_is_reset(tmp_path):
    verilog, _ = texts(18, 600)
    reset = "if (word[0]) read <= 0; else if (fetch)"
    verilog = verilog.replace("if (fetch)", reset)
    (tmp_path / "memory.v").write_text(verilog)
    yosys(
        "read_verilog memory.v; synth_ecp5 -nowidelut -top memory; write_json memory.json",
        cwd=tmp_path,
    )
    netlist = json.loads((tmp_path / "memory.json").read_text())
    assert block_registers(netlist) == 0


def test_it_comes_with_what_is_absorbed(tmp_path):
    verilog, _ = texts(18, 600)
    (tmp_path / "memory.v").write_text(verilog)
    yosys("read_verilog memory.v; synth_ecp5 -top memory; write_json memory.json", cwd=tmp_path)
    absorb_file(tmp_path / "memory.json")
    assert "OUTREG" in (tmp_path / "memory.json").read_text()
