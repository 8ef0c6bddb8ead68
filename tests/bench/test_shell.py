import json

import pytest

from bench.shell import NAME, shell
from gen.emit import yosys

PORTS = [
    {"name": "clk", "direction": "in", "width": 1},
    {"name": "rst", "direction": "in", "width": 1},
    {"name": "tdata", "direction": "in", "width": 5},
    {"name": "count", "direction": "out", "width": 11},
    {"name": "tready", "direction": "out", "width": 1},
]


def registers(folder, text):
    """Return how many flip-flops the shell has."""
    (folder / "shell.v").write_text(text)
    yosys(
        f"read_verilog shell.v; prep -top {NAME}; check -assert; simplemap; "
        "tee -q -o cells.json stat -json",
        cwd=folder,
    )
    types = json.loads((folder / "cells.json").read_text())["design"]["num_cells_by_type"]
    return types["$_DFF_P_"]


def test_every_port_but_the_clock_has_a_register(tmp_path):
    # 6 inputs, 12 outputs, and those fold to 3 and then to 1
    assert registers(tmp_path, shell("unit", PORTS)) == 6 + 12 + 3 + 1


@pytest.mark.parametrize(("width", "folds"), [(1, 0), (2, 1), (4, 1), (5, 2 + 1), (17, 5 + 2 + 1)])
def test_outputs_of_any_width_fold_into_one(tmp_path, width, folds):
    ports = [*PORTS[:2], {"name": "count", "direction": "out", "width": width}]
    assert registers(tmp_path, shell("unit", ports)) == 1 + width + folds
