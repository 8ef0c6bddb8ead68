"""A job: what the process that simulates has to know; it is not the command's process."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any, Self

from hw.config import Config
from hw.tops import TOPS

VARIABLE = "SPIKEWRIGHT_JOB"
"""Environment variable with the path of the job."""


@dataclasses.dataclass(frozen=True)
class Job:
    """What is to be done; a file of JSON on the way.

    Attributes
    ----------
    top : str
    parameters : dict
        Of the configuration, all of them.
    seed : int
        Of all random stimuli and stalls.
    stimulus, result : str, optional
        Paths of the user's data, with a leading batch axis, and of where its results go.
    """

    top: str
    parameters: dict[str, Any]
    seed: int = 1
    stimulus: str | None = None
    result: str | None = None

    @property
    def config(self) -> Config:
        """The configuration of the top."""
        return TOPS[self.top].config(**self.parameters)

    def save(self, path: Path) -> None:
        """Write the job to a file."""
        path.write_text(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def load(cls) -> Self:
        """Return the job that the environment names."""
        return cls(**json.loads(Path(os.environ[VARIABLE]).read_text()))
