import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from gen.__main__ import main


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Run the command in the test's folder, on a file or on the arrays of a state_dict."""
    monkeypatch.chdir(tmp_path)

    def run(model, *arguments):
        if isinstance(model, dict):
            np.savez("model.npz", **model)
            model = "model.npz"
        return CliRunner().invoke(
            main, ["import", str(model), "--out", "out", *arguments], prog_name="python -m gen"
        )

    return run


@pytest.fixture
def rows(call):
    """Import, and return (exit status, rows by layer's name, the rest)."""

    def run(model, *arguments):
        done = call(model, "--json", *arguments)
        assert done.stdout, done.stderr
        said = json.loads(done.stdout)
        return done.exit_code, {row["layer"]: row for row in said["layers"]}, said

    return run


@pytest.fixture
def refused(call):
    """Import what can't be, and return the one line that says why."""

    def run(model, *arguments, status=2):
        done = call(model, *arguments)
        assert done.exit_code == status, done.output
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1
        assert not Path("out").exists()
        return done.stderr

    return run
