"""ECP5: gates in front of a carry chain move into the chain's own cells.

Half of a CCU2C computes P from its pins A to D, and G from A and B. Its sum is P xor the carry in;
its carry out is the carry in where P holds, and G elsewhere. Of the four pins Yosys takes two for
an addition, and puts what comes before it, such as the ANDs of ``(a & b) + (c & d)``, into LUTs.

P and G are one table: P is INIT at all pins, and G is INIT[3:0] at A and B. So whether a half can
take the gates in is a question of what the two want where C and D are 0.
"""

import dataclasses
import functools
import itertools
import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Set
from pathlib import Path
from typing import Any

from gen.block_registers import block_registers
from gen.emit import write

__all__ = ["absorb", "absorb_file"]

PINS = "ABCD"

Net = int

Reader = tuple[str, str]
"""A cell and its half ("0" or "1" of a CCU2C) or port; or no cell and a name of the module's."""

Operand = tuple[int, tuple[int, ...]]
"""A truth table, and the variables that it is of."""

IDENTITY = 0b10
CONSTANT = {"0": 0b0, "1": 0b1}


@dataclasses.dataclass(frozen=True)
class Function:
    """Functions of nets, as truth tables.

    Attributes
    ----------
    nets : tuple of int
        All are different.
    tables : tuple of int
        Bit i of a table is the value where ``nets[k]`` has the value of bit k of i. A LUT has one
        table, a half has three: P, G, and where G matters.
    """

    nets: tuple[Net, ...]
    tables: tuple[int, ...]


def absorb(netlist: Mapping[str, Any]) -> int:
    """Move LUTs in front of carry chains into the chains, and return how many are gone.

    A LUT goes if all that read it are halves of CCU2C, and each can compute the same from the LUT's
    inputs. What is at the module's ports, and at those of every cell but these, stays the same.

    Parameters
    ----------
    netlist : mapping
        What Yosys writes with ``write_json`` after ``synth_ecp5``. It is changed in place, and only
        the netlist decides how.
    """
    return sum(_Module(module).absorb() for module in netlist["modules"].values())


def absorb_file(path: Path) -> None:
    """Absorb in the netlist that Yosys wrote into a file."""
    netlist = json.loads(path.read_text())
    absorb(netlist)
    block_registers(netlist)
    write({path.name: json.dumps(netlist, indent=1)}, path.parent)


class _Module:
    """The LUTs and the halves of a module, and who reads which net."""

    def __init__(self, module: Mapping[str, Any]) -> None:
        self.cells: dict[str, dict[str, Any]] = module["cells"]
        self.names: dict[str, dict[str, Any]] = module["netnames"]
        self.luts: dict[Net, str] = {}
        self.gates: dict[Net, Function] = {}
        self.halves: dict[Reader, Function] = {}
        self.changed: set[Reader] = set()
        self.readers: dict[Net, set[Reader]] = defaultdict(set)
        for name, port in module["ports"].items():
            self._read(port["bits"], ("", name))
        for name, named in self.names.items():
            if _kept(named):
                self._read(named["bits"], ("", name))
        halves = {name: _halves(cell) for name, cell in self.cells.items()}
        for name, cell in self.cells.items():
            own = {f"{pin}{half}": half for half in halves[name] for pin in PINS}
            directions = cell.get("port_directions", {})
            for port, bits in cell["connections"].items():
                if directions.get(port) != "output":
                    self._read(bits, (name, own.get(port, port)))
            if cell["type"] == "LUT4" and (gate := _function(cell)) and not _kept(cell):
                (output,) = cell["connections"]["Z"]
                self.luts[output] = name
                self.gates[output] = gate
        for name, found in halves.items():
            for half, function in found.items():
                self.halves[name, half] = self._without_dead_carry(name, half, function)

    def _read(self, bits: Iterable[Net | str], reader: Reader) -> None:
        for bit in bits:
            if isinstance(bit, int):
                self.readers[bit].add(reader)

    def _without_dead_carry(self, name: str, half: str, function: Function) -> Function:
        """Return the function of a half, whose G does not matter if nobody sees its carry out."""
        outputs = ("S1", "COUT") if half == "0" else ("COUT",)
        connections = self.cells[name]["connections"]
        if any(self.readers.get(bit) for port in outputs for bit in connections.get(port, ())):
            return function
        propagate, generate, _ = function.tables
        return Function(function.nets, (propagate, generate, 0))

    def absorb(self) -> int:
        """Absorb until nothing more can be, and return how many LUTs are gone."""
        before = set(self.luts)
        while sum(self._start(net) for net in self._candidates(self.luts)):
            pass  # the next round begins with those that have come closer
        for name, half in self.changed:
            self._rewire(name, half)
        gone = before - set(self.luts)
        self._forget(gone)
        return len(gone)

    def _candidates(self, nets: Iterable[Net]) -> list[Net]:
        """Return those of `nets` that are outputs of LUTs and are read by halves only.

        Those that ask least of the fewest halves come first.
        """
        found = [
            net
            for net in nets
            if net in self.luts and self.readers[net] and self.readers[net] <= self.halves.keys()
        ]
        return sorted(
            found,
            key=lambda net: (
                len(self.readers[net]),
                len(self.gates[net].nets),
                self.luts[net],
            ),
        )

    def _start(self, net: Net) -> bool:
        """Absorb the LUT at `net`, alone or with another that the same half reads, if possible."""
        if net not in self.luts:  # gone with another one
            return False
        if self._move({net}):
            return True
        beside = {n for reader in self.readers[net] for n in self.halves[reader].nets} - {net}
        return any(self._move({net, other}) for other in self._candidates(beside))

    def _move(self, nets: Collection[Net]) -> bool:
        """Absorb all LUTs at `nets` if that is possible, and return whether it was."""
        gates = {net: self.gates[net] for net in nets}
        merged = {}
        for reader in set().union(*(self.readers[net] for net in nets)):
            merged[reader] = _substitute(self.halves[reader], gates)
            if _wiring(merged[reader].tables, len(merged[reader].nets)) is None:
                return False
        for reader, function in merged.items():
            for net in self.halves[reader].nets:
                self.readers[net].discard(reader)
            self._read(function.nets, reader)
        self.halves |= merged
        self.changed |= merged.keys()
        for net in nets:
            name = self.luts.pop(net)
            del self.gates[net]
            for port, bits in self.cells.pop(name)["connections"].items():
                for bit in bits:
                    self.readers[bit].discard((name, port))
        return True

    def _rewire(self, name: str, half: str) -> None:
        """Write the function of a half into its cell."""
        function = self.halves[name, half]
        found = _wiring(function.tables, len(function.nets))
        assert found is not None
        order, init = found
        bits = [function.nets[k] for k in order]
        cell = self.cells[name]
        for pin, bit in itertools.zip_longest(PINS, bits, fillvalue="1"):
            cell["connections"][f"{pin}{half}"] = [bit]
        cell["parameters"][f"INIT{half}"] = f"{init:016b}"

    def _forget(self, gone: Set[Net]) -> None:
        """Take nets that have no driver any more out of the names."""
        for name, named in list(self.names.items()):
            if not gone.isdisjoint(named["bits"]):
                named["bits"] = ["x" if bit in gone else bit for bit in named["bits"]]
                if set(named["bits"]) == {"x"}:
                    del self.names[name]


def _kept(thing: Mapping[str, Any]) -> bool:
    """Return whether a cell or a named net is to be kept as it is."""
    return "1" in thing["attributes"].get("keep", "")


def _halves(cell: Mapping[str, Any]) -> dict[str, Function]:
    """Return the halves of a cell that can be rewritten."""
    if cell["type"] != "CCU2C" or _kept(cell):
        return {}
    modes = {half: cell["parameters"].get(f"INJECT1_{half}") for half in "01"}
    found = {half: _function(cell, half) for half, mode in modes.items() if mode == "NO"}
    return {half: function for half, function in found.items() if function}


def _function(cell: Mapping[str, Any], half: str = "") -> Function | None:
    """Return what half of a CCU2C or a LUT does, unless a pin or a parameter is undefined."""
    init = cell["parameters"].get(f"INIT{half}", "")
    pins = [bit for pin in PINS for bit in cell["connections"].get(f"{pin}{half}", ())]
    if len(init) != 16 or set(init) - {"0", "1"} or len(pins) != 4 or {"x", "z"} & set(pins):
        return None
    nets = tuple(dict.fromkeys(pin for pin in pins if isinstance(pin, int)))
    operands = tuple(
        (IDENTITY, (nets.index(pin),)) if isinstance(pin, int) else (CONSTANT[pin], ())
        for pin in pins
    )
    everything = int(init, 2)
    # INIT[3:0] at A and B, whatever C and D are.
    low = int(init[-4:] * 4, 2)
    return Function(nets, _compose((everything, low, everything ^ 0xFFFF), operands, len(nets)))


def _substitute(half: Function, gates: Mapping[Net, Function]) -> Function:
    """Return the function of a half with gates in the place of some of its nets."""
    parts = [gates.get(net, Function((net,), (IDENTITY,))) for net in half.nets]
    nets = tuple(dict.fromkeys(net for part in parts for net in part.nets))
    operands = tuple((part.tables[0], tuple(map(nets.index, part.nets))) for part in parts)
    tables = _compose(half.tables, operands, len(nets))
    kept, tables = _reduce(tables, len(nets))
    return Function(tuple(nets[k] for k in kept), tables)


@functools.cache
def _compose(tables: tuple[int, ...], operands: tuple[Operand, ...], width: int) -> tuple[int, ...]:
    """Return truth tables over `width` variables, from tables over operands of them."""
    composed = [0] * len(tables)
    for i in range(1 << width):
        address = 0
        for k, (table, variables) in enumerate(operands):
            address |= (table >> _gather(i, variables) & 1) << k
        for t, table in enumerate(tables):
            composed[t] |= (table >> address & 1) << i
    return tuple(composed)


@functools.cache
def _reduce(tables: tuple[int, ...], width: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the variables that P, or G where it matters, depends on, and the tables over those."""
    propagate, generate, care = tables
    tables = (propagate, generate & care, care)
    kept = list(range(width))
    for k in reversed(range(width)):
        others = [(IDENTITY, (j,)) for j in range(len(kept) - 1)]
        without, with_ = (
            _compose(tables, (*others[:k], (value, ()), *others[k:]), len(others))
            for value in (0, 1)
        )
        if without == with_:
            tables = without
            del kept[k]
    return tuple(kept), tables


@functools.cache
def _wiring(tables: tuple[int, ...], width: int) -> tuple[tuple[int, ...], int] | None:
    """Return which variables the first pins take, with the others at 1, and INIT, if there is one.

    No more than three variables leave D at 1, and P and G share nothing: there is no better place.
    """
    if width > len(PINS):
        return None
    propagate, generate, care = tables
    for order in itertools.permutations(range(width)):
        init: dict[int, int] = {}
        ones = 0b1111 << width & 0b1111  # the pins without a variable
        wanted = []
        for i in range(1 << width):
            address = ones | _gather(i, order)
            wanted.append((address, propagate >> i & 1))
            if care >> i & 1:
                wanted.append((address & 0b11, generate >> i & 1))
        if all(init.setdefault(address, value) == value for address, value in wanted):
            return order, sum(value << address for address, value in init.items())
    return None


def _gather(number: int, places: Iterable[int]) -> int:
    """Return the bits of a number from these places, side by side."""
    return sum((number >> place & 1) << k for k, place in enumerate(places))
