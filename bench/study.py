"""What is measured beside the devices: studies in software, kept as data."""

import json
from pathlib import Path
from typing import Any

from gen.emit import write

STUDIES = Path(__file__).parent / "studies"

Study = dict[str, Any]


def load_study(name: str) -> Study | None:
    """Return a stored study, if there is one."""
    path = STUDIES / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def save_study(name: str, study: Study) -> None:
    """Store a study."""
    write({f"{name}.json": json.dumps(study, indent=1, sort_keys=True) + "\n"}, STUDIES)
