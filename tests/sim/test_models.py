"""The models of cells that Yosys has none of, against the memories they were made from."""

import re
import subprocess

import pytest

from sim.netlist import FAMILIES, synthesise
from sim.runner import Design

pytestmark = pytest.mark.icarus

FILL = """
    integer k;
    initial begin
        for (k = 0; k < DEPTH; k = k + 1) m[k] = k * 32'd2654435761;
        q = 0; p = 0; r = 0;
    end
"""

#: What each memory does in a clock, and which cells it becomes for widths of bytes and of nines.
KINDS = {
    "sdp": ("if (we) m[wa] <= d; if (re) q <= m[ra];", ("DPB", "DPX9B", "SDPX9B")),
    "cleared": (
        "if (we) m[wa] <= d; if (rst) q <= 0; else if (re) q <= m[ra];",
        ("DPB", "DPX9B", "SDPX9B"),
    ),
    "parts": (
        "if (we && e[0]) m[wa][H-1:0] <= d[H-1:0]; if (we && e[1]) m[wa][W-1:H] <= d[W-1:H];"
        " if (re) q <= m[ra];",
        ("DPB", "DPX9B", "SDPX9B"),
    ),
    "kept": ("if (re) begin if (we) m[wa] <= d; else q <= m[wa]; end", ("SP", "SPX9")),
    "through": (
        "if (re) begin if (we) begin m[wa] <= d; q <= d; end else q <= m[wa]; end",
        ("SP", "SPX9"),
    ),
    "before": ("if (re) begin if (we) m[wa] <= d; q <= m[wa]; end", ("SP", "SPX9")),
    "behind": ("if (we) m[wa] <= d; if (re) r <= m[ra]; q <= r;", ()),
    "two": (
        "if (re) begin if (we) m[wa] <= d; else q <= m[wa]; end end always @(posedge clk) begin "
        "if (e[0]) begin if (e[1]) m[ra] <= ~d; else p <= m[ra]; end",
        ("DPB", "DPX9B"),
    ),
}

BENCH = """
module bench;
    parameter W = WIDTH, A = ADDRESS;
    reg clk = 0, rst, we, re;
    reg [1:0] e;
    reg [A-1:0] wa, ra;
    reg [W-1:0] d;
    wire [W-1:0] q0, p0, q1, p1;
    rtl a(clk, rst, we, re, e, wa, ra, d, q0, p0);
    mem b(clk, rst, we, re, e, wa, ra, d, q1, p1);
    integer n, wrong = 0, moved = 0;
    reg [W-1:0] was;
    initial begin
        for (n = 0; n < 3000; n = n + 1) begin
            rst = $random % 16 == 0; we = $random; re = $random; e = $random;
            d = {$random, $random};
            wa = $random & 63 | (n & 1 ? {A{1'b1}} << 6 : 0);
            ra = $random & 63 | (n & 1 ? {A{1'b1}} << 6 : 0);
            if (ra == wa) ra = ra ^ 1;
            #1 clk = 1; #1 clk = 0;
            if (q0 !== q1 || p0 !== p1) wrong = wrong + 1;
            if (q1 !== was) moved = moved + 1;
            was = q1;
        end
        $display("wrong %0d moved %0d", wrong, moved);
    end
endmodule
"""


def memory(name, kind, width, depth):
    ports = "input clk, rst, we, re, input [1:0] e, input [A-1:0] wa, ra, input [W-1:0] d"
    return (
        f"module {name}({ports}, output reg [W-1:0] q, p);\n"
        f"    parameter W = {width}, DEPTH = {depth}, A = {depth.bit_length() - 1}, "
        "H = W % 9 ? 8 : 9;\n"
        '    (* ram_style = "block", no_rw_check *) reg [W-1:0] m [0:DEPTH-1];\n'
        "    reg [W-1:0] r;\n"
        f"{FILL}    always @(posedge clk) begin {KINDS[kind][0]} end\nendmodule\n"
    )


def compare(family, kind, width, depth, folder, spoil=lambda text: text):
    """Return (cells of the netlist, clocks that differ, clocks in which the output moved)."""
    text = memory("mem", kind, width, depth)
    netlist = synthesise(Design("mem", {"mem.v": text}), family)
    files = {**netlist.files, "rtl.v": memory("rtl", kind, width, depth)}
    (model,) = FAMILIES[family].own
    files[model] = spoil(files[model])
    files["bench.v"] = BENCH.replace("WIDTH", str(width)).replace(
        "ADDRESS", str(depth.bit_length() - 1)
    )
    for name, content in files.items():
        (folder / name).write_text(content)
    sources = sorted(name for name in files if name.endswith(".v"))
    subprocess.run(["iverilog", "-g2005", "-s", "bench", "-o", "sim", *sources],
                   cwd=folder, check=True)  # fmt: skip
    said = subprocess.run(["vvp", "sim"], cwd=folder, check=True, capture_output=True, text=True)
    wrong, moved = map(int, re.search(r"wrong (\d+) moved (\d+)", said.stdout).groups())
    cells = re.findall(
        r"^  (SPX?9?|SDPX9B|DPX?9?B|DP16KD) #", netlist.files[f"mem_{family}.v"], re.M
    )
    return set(cells), wrong, moved


CASES = [
    ("sdp", 1, 1024), ("sdp", 4, 512), ("sdp", 8, 512), ("sdp", 36, 512), ("cleared", 18, 512),
    ("parts", 18, 512), ("kept", 2, 512), ("kept", 36, 512), ("through", 9, 512),
    ("before", 36, 512), ("two", 4, 512), ("two", 18, 512),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "width", "depth"), CASES)
def test_a_block_ram_is_the_memory_it_was_made_from(kind, width, depth, tmp_path):
    cells, wrong, moved = compare("gowin", kind, width, depth, tmp_path)
    assert cells <= set(KINDS[kind][1])
    assert cells
    assert wrong == 0
    assert moved > 200


@pytest.mark.parametrize(
    ("kind", "width", "depth", "old", "new"),
    [
        ("sdp", 4, 512, "address & 7 & -width : 0", "0 : 0"),
        ("sdp", 36, 512, "address[13:3] & -groups(width)", "address[13:3]"),
        ("parts", 18, 512, "? address[i] : 1'b1", "? 1'b1 : 1'b1"),
        ("cleared", 18, 512, "if (rstb) {qb, rb} <= 0;", ""),
        ("through", 9, 512, "if (MODE_A == 1) qa <= dia;", ""),
        ("before", 36, 512, "if (MODE_A == 2) qa <= reada;", ""),
    ],
)
def test_a_spoilt_model_is_found(kind, width, depth, old, new, tmp_path):
    def spoil(text):
        assert old in text
        return text.replace(old, new)

    assert compare("gowin", kind, width, depth, tmp_path, spoil)[1] > 0


ECP5 = [("sdp", 36, 512), ("parts", 18, 1024), ("behind", 18, 1024)]

MORE_ECP5 = [
    ("sdp", 1, 1024), ("sdp", 2, 1024), ("sdp", 4, 512), ("sdp", 8, 2048), ("parts", 36, 512),
    ("kept", 2, 512), ("kept", 18, 1024), ("before", 9, 512), ("behind", 36, 512),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "width", "depth"),
    [*ECP5, *(pytest.param(*case, marks=pytest.mark.slow) for case in MORE_ECP5)],
)
def test_a_block_ram_of_the_ecp5_is_the_memory_it_was_made_from(kind, width, depth, tmp_path):
    cells, wrong, moved = compare("ecp5", kind, width, depth, tmp_path)
    assert cells == {"DP16KD"}
    assert wrong == 0
    assert moved > 200


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "width", "depth", "old", "new"),
    [
        ("sdp", 4, 512, "address & 7 & -width", "0"),
        ("sdp", 36, 512, "address[13:3] & -groups(width)", "address[13:3] ^ 1"),
        ("parts", 18, 1024, "? address[i] : 1'b1", "? 1'b1 : 1'b1"),
        ("before", 9, 512, "qa <= read;\n            if", "qa <= dia;\n            if"),
        ("behind", 18, 1024, '"OUTREG" ? rb : qb', '"OUTREG" ? qb : qb'),
    ],
)
def test_a_spoilt_model_of_the_ecp5_is_found(kind, width, depth, old, new, tmp_path):
    def spoil(text):
        assert old in text
        return text.replace(old, new)

    assert compare("ecp5", kind, width, depth, tmp_path, spoil)[1] > 0
