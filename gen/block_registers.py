"""ECP5: registers behind a block RAM become the one that it has itself.

A DP16KD has a register at the outputs of each port, with an enable (OCE). Yosys leaves it out; with
it data is there 3 ns earlier in its clock, and the flip-flops are saved.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

__all__ = ["block_registers"]

PLAIN = {"CLKMUX": "CLK", "REGSET": "RESET"}
"""Parameters of a flip-flop that a block RAM's register can stand for."""

Place = tuple[str, str]
"""A cell and its port; no cell for the module's own."""


def block_registers(netlist: Mapping[str, Any]) -> int:
    """Move flip-flops behind block RAM into it, and return how many are gone.

    Those of a port go if all its outputs that anybody reads are read by flip-flops alone, each by
    one of the same clock and enable, without a reset.

    Parameters
    ----------
    netlist : mapping
        What Yosys writes with ``write_json`` after ``synth_ecp5``. It is changed in place, and only
        the netlist decides how.
    """
    return sum(_of_module(module) for module in netlist["modules"].values())


def _of_module(module: Mapping[str, Any]) -> int:
    cells = module["cells"]
    readers: dict[int, list[Place]] = defaultdict(list)
    for name, port in module["ports"].items():
        for bit in port["bits"]:
            readers[bit].append(("", name))
    for name, cell in cells.items():
        for port, bits in cell["connections"].items():
            if cell.get("port_directions", {}).get(port) != "output":
                for bit in bits:
                    readers[bit].append((name, port))
    gone = 0
    for cell in list(cells.values()):
        if cell["type"] == "DP16KD":
            for port in "AB":
                gone += _of_port(cells, cell, port, readers)
    return gone


def _of_port(
    cells: dict[str, Any], block: dict[str, Any], port: str, readers: Mapping[int, list[Place]]
) -> int:
    """Move the flip-flops behind a port; return how many."""
    parameters, connections = block["parameters"], block["connections"]
    paired = int(parameters["DATA_WIDTH_B"], 2) == 36  # port A writes, and both are read by B
    if paired and port == "A":
        return 0
    sides = "AB" if paired else port
    pins = {
        pin: bits[0]
        for pin, bits in connections.items()
        if pin[:2] == "DO" and pin[2] in sides and bits and readers.get(bits[0])
    }
    if not pins or any(parameters[f"REGMODE_{side}"] != "NOREG" for side in sides):
        return 0
    if connections[f"RST{port}"] != ["0"]:  # it would reset the register as well
        return 0
    found = {}
    for pin, net in pins.items():
        if len(readers[net]) != 1:
            return 0
        ((name, at),) = readers[net]
        if not name or cells[name]["type"] != "TRELLIS_FF" or at != "DI":
            return 0
        found[pin] = name
    kinds = {_kind(cells[name]) for name in found.values()}
    clock = connections[f"CLK{port}"][0]
    if len(kinds) != 1 or parameters.get(f"CLK{port}MUX") != f"CLK{port}":
        return 0
    (kind,) = kinds
    if kind is None or kind[0] != clock:
        return 0
    for pin, name in found.items():
        connections[pin] = cells.pop(name)["connections"]["Q"]
    for side in sides:
        parameters[f"REGMODE_{side}"] = "OUTREG"
        connections[f"OCE{side}"] = [kind[1]]
    return len(found)


def _kind(cell: Mapping[str, Any]) -> tuple[int, int | str] | None:
    """Return clock and enable of a flip-flop; None for one that does something else as well."""
    parameters, connections = cell["parameters"], cell["connections"]
    if set(connections) - {"CLK", "CE", "DI", "LSR", "Q"} or connections.get("LSR", ["0"]) != ["0"]:
        return None
    if any(parameters.get(name) != value for name, value in PLAIN.items()):
        return None
    mux = parameters["CEMUX"].strip()
    if mux not in ("1", "CE"):
        return None
    return connections["CLK"][0], "1" if mux == "1" else connections["CE"][0]
