"""Say what an import came to: one row a layer."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from gen.models.integers import Row

WIDTH = 200
"""Columns of a table that does not go to a terminal."""

COLUMNS = ("layer", "kind", "neuron, threshold", "reset", "fires at", "leak", "scale", "bits",
           "verdict", "why")  # fmt: skip


def show(
    rows: Sequence[Row],
    assumed: Mapping[str, Any],
    notes: Sequence[str],
    losses: Mapping[str, str] | None = None,
) -> None:
    """Print the table, what was assumed and what else there is to say."""
    console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False, markup=False)
    table = Table(*COLUMNS, *(("loses",) if losses is not None else ()), box=None)
    for row in rows:
        why = "; ".join([*row.verdict.reasons, *([row.loss] if row.loss else [])])
        cells = [row.name, row.kind, row.neuron, row.reset, row.fire, row.leak, row.scale,
                 row.bits, row.verdict.word, why]  # fmt: skip
        if losses is not None:
            cells.append(losses.get(row.name, ""))
        table.add_row(*cells)
    console.print(table)
    for name, value in assumed.items():
        shown = str(value).lower() if isinstance(value, bool) else value
        console.print(f"assumed: {name.replace('_', '-')} {shown}", soft_wrap=True)
    for note in notes:
        console.print(f"note: {note}", soft_wrap=True)


def as_data(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the table for programs."""
    return [
        {
            "layer": row.name, "kind": row.kind, "neuron": row.neuron, "reset": row.reset,
            "fire": row.fire, "leak": row.leak, "scale": row.scale, "bits": row.bits,
            "verdict": row.verdict.word, "reasons": row.verdict.reasons, "loss": row.loss,
        }
        for row in rows
    ]  # fmt: skip
