"""The measuring shell: a unit's wide ports between registers, and three pins outside."""

from collections.abc import Mapping, Sequence
from typing import Any

NAME = "bench_shell"
"""Name of the shell's module."""

UNIT = "dut"
"""Name of the measured unit's instance in the shell."""

FOLD = 4
"""Bits that one LUT folds into one."""


def shell(name: str, ports: Sequence[Mapping[str, Any]]) -> str:
    """Return the Verilog of a shell around the module `name`, with that module as a black box.

    Every port but the clock has a register, which is called as the port is. Those of the inputs
    are one shift register behind one pin, those of the outputs are folded into one pin by a
    registered tree of XOR. So every path of the unit begins and ends at a register, nothing of it
    is idle, and the shell's own paths are at most one LUT deep.

    Parameters
    ----------
    name : str
    ports : sequence of mappings
        The manifest's: `name`, `direction` ("in" or "out") and `width`.
    """
    ports = [port for port in ports if port["name"] != "clk"]
    inputs, outputs = (
        [port["name"] for port in ports if port["direction"] == way] for way in ("in", "out")
    )
    chain = ", ".join(inputs)
    pins = [f".{port}({port})" for port in ["clk", *inputs]]
    pins += [f".{port}({port}_wire)" for port in outputs]
    return "\n".join(
        [
            "(* blackbox *)",
            f"module {name}(",
            "  input clk,",
            ",\n".join(f"  {p['direction']}put [{p['width'] - 1}:0] {p['name']}" for p in ports),
            ");",
            "endmodule",
            "",
            f"module {NAME}(input clk, input scan_in, output scan_out);",
            *(f"  reg [{p['width'] - 1}:0] {p['name']};" for p in ports),
            *(
                f"  wire [{p['width'] - 1}:0] {p['name']}_wire;"
                for p in ports
                if p["direction"] == "out"
            ),
            f"  {name} {UNIT}({', '.join(pins)});",
            "  always @(posedge clk) begin",
            f"    {{{chain}}} <= {{{chain}, scan_in}};",
            *(f"    {port} <= {port}_wire;" for port in outputs),
            "  end",
            *_fold(outputs, sum(p["width"] for p in ports if p["direction"] == "out")),
            "endmodule",
            "",
        ]
    )


def _fold(registers: Sequence[str], bits: int) -> list[str]:
    """Return the lines that fold registers of so many bits into `scan_out`."""
    lines = [f"  wire [{bits - 1}:0] fold0 = {{{', '.join(registers)}}};"]
    level = 0
    while bits > 1:
        parts = [f"^fold{level}[{min(low + FOLD, bits) - 1}:{low}]" for low in range(0, bits, FOLD)]
        bits, level = len(parts), level + 1
        lines += [
            f"  reg [{bits - 1}:0] fold{level};",
            f"  always @(posedge clk) fold{level} <= {{{', '.join(reversed(parts))}}};",
        ]
    return [*lines, f"  assign scan_out = fold{level};"]
