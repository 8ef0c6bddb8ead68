import copy
import itertools
import json
import os
import random
import subprocess
import sys

import pytest

from gen.absorb import absorb, absorb_file
from gen.emit import yosys
from gen.errors import CheckFailed

# --- Halves by themselves, against the equations of the cell's simulation model ---

ADD = "1001011010101010"
INPUTS = range(2, 8)  # nets; 8 and 9 are those of the LUTs
CARRY, CARRY_OUT, SUMS = 10, 11, (12, 13)


def cell(kind, parameters, **connections):
    outputs = {"Z", "S0", "S1", "COUT"}
    return {
        "type": kind,
        "parameters": parameters,
        "attributes": {},
        "port_directions": {p: "output" if p in outputs else "input" for p in connections},
        "connections": {port: [bit] for port, bit in connections.items()},
    }


def lut(output, table, *pins):
    return cell("LUT4", {"INIT": f"{table:016b}"}, **dict(zip("ABCD", pins, strict=True)), Z=output)


def ccu2c(first, second, inits=(ADD, ADD), **parameters):
    pins = {
        f"{pin}{half}": bit
        for half, bits in enumerate((first, second))
        for pin, bit in zip("ABCD", bits, strict=True)
    }
    sums = {f"S{half}": net for half, net in enumerate(SUMS)}
    parameters = {"INJECT1_0": "NO", "INJECT1_1": "NO"} | parameters
    inits = {f"INIT{half}": init for half, init in enumerate(inits)}
    return cell("CCU2C", inits | parameters, CIN=CARRY, **pins, **sums, COUT=CARRY_OUT)


def design(cells, outputs=(*SUMS, CARRY_OUT)):
    ports = {
        "i": {"direction": "input", "bits": [*INPUTS, CARRY]},
        "o": {"direction": "output", "bits": list(outputs)},
    }
    return {"modules": {"top": {"attributes": {}, "ports": ports, "cells": cells, "netnames": {}}}}


def evaluate(netlist, inputs):
    """Return the outputs of one carry cell behind one level of LUTs."""
    module = netlist["modules"]["top"]
    value = dict(zip(module["ports"]["i"]["bits"], inputs, strict=True)) | {"0": 0, "1": 1}

    def number(connections, pins):
        return sum(value[connections[pin][0]] << k for k, pin in enumerate(pins))

    for part in sorted(module["cells"].values(), key=lambda part: part["type"], reverse=True):
        nets, parameters = part["connections"], part["parameters"]
        if part["type"] == "LUT4":
            value[nets["Z"][0]] = int(parameters["INIT"], 2) >> number(nets, "ABCD") & 1
            continue
        carry = value[nets["CIN"][0]]
        for half in "01":
            init = int(parameters[f"INIT{half}"], 2)
            lut4 = init >> number(nets, [f"{pin}{half}" for pin in "ABCD"]) & 1
            lut2 = (init & 0xF) >> number(nets, [f"{pin}{half}" for pin in "AB"]) & 1
            inject = parameters[f"INJECT1_{half}"] == "YES"
            value[nets[f"S{half}"][0]] = lut4 ^ (0 if inject else carry)
            carry = (not lut4 and lut2 and not inject) or (lut4 and carry)
        value[nets["COUT"][0]] = int(carry)
    return [value[bit] for bit in module["ports"]["o"]["bits"]]


def absorbed(netlist):
    """Return how many LUTs were absorbed, having compared what comes out for all that goes in."""
    before = copy.deepcopy(netlist)
    count = absorb(netlist)
    cells = netlist["modules"]["top"]["cells"]
    assert count == len(before["modules"]["top"]["cells"]) - len(cells)
    for inputs in itertools.product((0, 1), repeat=len(INPUTS) + 1):
        assert evaluate(netlist, inputs) == evaluate(before, inputs)
    return count


@pytest.mark.parametrize("subtract", "01")
@pytest.mark.parametrize("half", [0, 1])
def test_all_pairs_of_two_input_gates(half, subtract):
    """A half can take f and g if one is 0 for the zeros on C and D, or what it adds is at least."""
    idle = ["0", "0", subtract, "1"]
    for f, g in itertools.product(range(16), repeat=2):
        cells = {
            "f": lut(8, f * 0x1111, 2, 3, "0", "0"),
            "g": lut(9, g * 0x1111, 4, 5, "1", "0"),
            "sum": ccu2c(*[[8, 9, subtract, "1"], idle][:: 1 if half == 0 else -1]),
        }
        count = absorbed(design(cells))
        inverted = subtract == "1"
        at_zero = f & 1 == 0 or (g & 1) ^ inverted == 0
        assert count == 2 if at_zero else count >= 1


def test_random_gates_and_tables():
    """Whatever stands in front and however the half is wired, the outputs stay the same."""
    choice = random.Random(1)
    total = 0
    for _ in range(400):
        sources = [*INPUTS[:5], "0", "1"]
        pins = [8, 9, *INPUTS, "0", "1"]
        tables = [f"{choice.getrandbits(16):016b}" for _ in range(2)]
        inits = choice.choice([(ADD, ADD), (ADD, tables[0]), tables])
        cells = {
            "f": lut(8, choice.getrandbits(16), *choice.choices(sources, k=4)),
            "g": lut(9, choice.getrandbits(16), *choice.choices(sources, k=4)),
            "sum": ccu2c(choice.choices(pins, k=4), choice.choices(pins, k=4), inits),
        }
        outputs = choice.choice([(*SUMS, CARRY_OUT), SUMS, SUMS[:1], (CARRY_OUT,)])
        total += absorbed(design(cells, outputs))
    assert total > 100


AND = 0x8888


def gated(**changes):
    """Return the sum of two ANDs, of which one stands before both halves."""
    cells = {
        "f": lut(8, AND, 2, 3, "0", "0"),
        "g": lut(9, AND, 4, 5, "0", "0"),
        "sum": ccu2c([8, 9, "0", "1"], [8, 6, "0", "1"], **changes),
    }
    return design(cells)


def test_a_gate_before_several_halves():
    assert absorbed(gated()) == 2


def test_the_carry_injector():
    """Both operands are the same net: the sum is 0 and the carry is the net."""
    netlist = design(
        {
            "f": lut(8, AND, 2, 3, "0", "0"),
            "sum": ccu2c([8, 8, "0", "1"], [4, 5, "0", "1"]),
        }
    )
    assert absorbed(netlist) == 1
    changed = netlist["modules"]["top"]["cells"]["sum"]
    assert changed["parameters"]["INIT0"] == "0000000000001000"
    assert [changed["connections"][f"{pin}0"] for pin in "ABCD"] == [[2], [3], ["1"], ["1"]]


def test_gates_that_fit_only_together():
    """Either gate alone would leave four nets, and 1 on its place where C and D are 0."""
    parity = 0x6969
    cells = {
        "f": lut(8, parity, 2, 3, 4, "0"),
        "g": lut(9, parity ^ 0xEEEE, 2, 3, 4, "0"),
        "sum": ccu2c([8, 9, "0", "1"], ["0", "0", "0", "1"]),
    }
    assert absorbed(design(cells)) == 2


def test_an_injecting_half_is_left_alone():
    assert absorbed(gated(INJECT1_0="YES")) == 0
    assert absorbed(gated(INJECT1_1="YES")) == 1  # what only the first half reads


@pytest.mark.parametrize("what", ["net", "gate", "carry", "port", "undefined", "unknown"])
def test_what_others_need_stays(what):
    netlist = gated()
    module = netlist["modules"]["top"]
    if what == "net":
        module["netnames"]["n"] = {"bits": [8], "attributes": {"keep": "1"}}
    elif what == "gate":
        module["cells"]["f"]["attributes"]["keep"] = "1"
    elif what == "carry":
        module["cells"]["sum"]["attributes"]["keep"] = "1"
    elif what == "port":
        module["ports"]["o"]["bits"].append(8)
    elif what == "undefined":
        module["cells"]["f"]["connections"]["D"] = ["x"]
    else:
        other = {"type": "other", "parameters": {}, "attributes": {}, "connections": {"p": [8]}}
        module["cells"]["other"] = other
    absorb(netlist)
    assert "f" in module["cells"]
    assert ("g" in module["cells"]) == (what == "carry")


def test_gates_behind_gates():
    cells = {
        "f": lut(8, AND, 2, 3, "0", "0"),
        "g": lut(9, 0xEEEE, 8, 4, "0", "0"),
        "sum": ccu2c([9, 5, "0", "1"], ["0", "0", "0", "1"]),
    }
    netlist = design(cells)
    netlist["modules"]["top"]["netnames"] = {
        "inner": {"bits": [8], "attributes": {}},
        "vector": {"bits": [9, 5], "attributes": {}},
    }
    assert absorb(netlist) == 2
    assert netlist["modules"]["top"]["netnames"] == {"vector": {"bits": ["x", 5], "attributes": {}}}


# --- Designs, proved by Yosys ---

DESIGNS = {
    # name: (body, LUTs before, LUTs after)
    "sum of products": ("assign y = (a & b) + (c & d);", 16, 0),
    "masked weight": ("assign y = a + (b & {8{s}});", 8, 0),
    "masked difference": ("assign y = a - (b & {8{s}});", 8, 0),
    "difference of products": ("assign y = (a & b) - (c & d);", 16, 0),
    "other gates": ("assign y = (a ^ b) + (c | d);", 16, 0),
    "shared": ("wire [7:0] m = a & b; assign y = m + c; assign z = m + d;", 8, 0),
    "an output too": ("assign z = a & b; assign y = z + c;", 8, 8),
    "kept": ("(* keep *) wire [7:0] m = a & b; assign y = m + c;", 8, 8),
    "constant": ("assign y = (a & {8{s}}) + 77;", 9, 1),
    "three inputs": ("assign y = a + (b & c & d);", 8, 0),
    "three inputs taken away": ("assign y = a - (b & c & d);", 8, 8),
    "five inputs": ("assign y = a + (b & c & d & {8{s}});", 8, 8),
    "comparison": ("assign y = (a & b) < (c & d);", 17, 1),
    # Full adders side by side: where both operands are one bit, the chain begins anew with it.
    "counted in one chain": (
        "wire [7:0] p = a & b, q = c & d;"
        "assign y = {1'b0, p[6], q[0], p[3], p[5], p[0], p[2]}"
        "         + {1'b0, p[7], q[0], p[4], p[5], p[1], p[2]};",
        9,
        0,
    ),
}


NAMES = {design: f"design{k}" for k, design in enumerate(DESIGNS)}


@pytest.fixture(scope="module")
def synthesised(tmp_path_factory):
    """Return the netlist of all designs, a module each."""
    folder = tmp_path_factory.mktemp("absorb")
    lines = [
        "module top;",
        *(f"  (* keep *) {name} {name}_i();" for name in NAMES.values()),
        "endmodule",
    ]
    for key, name in NAMES.items():
        ports = "input [7:0] a, b, c, d, input s, output [8:0] y, z"
        lines += [f"module {name}({ports});", f"  {DESIGNS[key][0]}", "endmodule"]
    (folder / "all.v").write_text("\n".join([*lines, ""]))
    command = "synth_ecp5 -nowidelut -noflatten -top top"
    yosys(f"read_verilog all.v; {command}; write_json all.json", cwd=folder)
    return json.loads((folder / "all.json").read_text())


@pytest.fixture
def absorbed_too(synthesised):
    """Return the same netlist after the pass."""
    netlist = copy.deepcopy(synthesised)
    absorb(netlist)
    return netlist


def prove(before, after, names, folder):
    """Have Yosys prove modules of two netlists equivalent, or raise `CheckFailed`."""
    modules = {
        f"{which}_{name}": netlist["modules"][name]
        for which, netlist in (("gold", before), ("gate", after))
        for name in names
    }
    (folder / "both.json").write_text(json.dumps({"creator": "", "modules": modules}))
    yosys(
        "read_json both.json; read_verilog -DNO_INCLUDES +/ecp5/cells_sim.v; "
        "hierarchy -check; proc; flatten; "
        + "".join(
            f"miter -equiv -flatten -make_assert gold_{name} gate_{name} miter_{name}; "
            f"sat -verify -prove-asserts miter_{name}; "
            for name in names
        ),
        cwd=folder,
    )


def luts(netlist, name):
    cells = netlist["modules"][name]["cells"].values()
    return sum(cell["type"] == "LUT4" for cell in cells)


@pytest.mark.parametrize("design", DESIGNS)
def test_luts_in_front_of_chains_are_absorbed(synthesised, absorbed_too, design):
    _, *counts = DESIGNS[design]
    assert [luts(netlist, NAMES[design]) for netlist in (synthesised, absorbed_too)] == counts


def test_all_designs_stay_equivalent(synthesised, absorbed_too, tmp_path):
    prove(synthesised, absorbed_too, NAMES.values(), tmp_path)


@pytest.mark.parametrize("entry", [0, 3, 15])
def test_a_wrong_table_is_not_equivalent(synthesised, absorbed_too, tmp_path, entry):
    name = NAMES["sum of products"]
    parameters = next(
        cell["parameters"]
        for cell in absorbed_too["modules"][name]["cells"].values()
        if isinstance(cell["connections"]["D0"][0], int)
    )
    parameters["INIT0"] = f"{int(parameters['INIT0'], 2) ^ 1 << entry:016b}"
    with pytest.raises(CheckFailed, match="proof did fail"):
        prove(synthesised, absorbed_too, [name], tmp_path)


def test_yosys_reads_back_what_is_written(synthesised, absorbed_too, tmp_path):
    """Cells, parameters and attributes are those that nextpnr would see without the detour."""
    (tmp_path / "all.json").write_text(json.dumps(synthesised))
    absorb_file(tmp_path / "all.json")
    assert json.loads((tmp_path / "all.json").read_text()) == absorbed_too
    yosys("read_json all.json; write_json again.json", cwd=tmp_path)
    again = json.loads((tmp_path / "again.json").read_text())
    for name in NAMES.values():
        written, read = absorbed_too["modules"][name], again["modules"][name]
        assert written["ports"] == read["ports"]
        assert written["cells"].keys() == read["cells"].keys()
        for key, cell in written["cells"].items():
            # Nets get other numbers.
            assert cell | {"connections": 0} == read["cells"][key] | {"connections": 0}


def test_same_netlist_same_bytes(synthesised, tmp_path):
    path = tmp_path / "netlist.json"
    texts = set()
    for seed in "12":
        path.write_text(json.dumps(synthesised))
        subprocess.run(
            [
                sys.executable,
                "-c",
                "import pathlib, sys; from gen.absorb import absorb_file; "
                "absorb_file(pathlib.Path(sys.argv[1]))",
                str(path),
            ],
            env=os.environ | {"PYTHONHASHSEED": seed},
            check=True,
        )
        texts.add(path.read_bytes())
    assert len(texts) == 1
