"""Send data through a design, with no stalls, and hold what comes out against the golden model."""

import dataclasses
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from gen.errors import CheckFailed
from sim import arrays
from sim.job import Job
from sim.reference import Reference
from sim.runner import PLAYBACK, Design, run


@dataclasses.dataclass(frozen=True)
class Played:
    """What came out for a batch.

    Attributes
    ----------
    results, golden : dict of str to ndarray
        The arrays of ``--result`` with a leading axis of inferences: those that came, and those
        that must come.
    clocks : int
        From the first beat in to the last beat out of the whole batch.
    message : str
        What is wrong with the frames that came; empty where nothing is.
    """

    results: dict[str, np.ndarray]
    golden: dict[str, np.ndarray]
    clocks: int
    message: str

    @property
    def wrong(self) -> int:
        """Elements that are not golden's."""
        return sum(int((self.results[n] != want).sum()) for n, want in self.golden.items())

    @property
    def elements(self) -> int:
        """Elements that were compared."""
        return sum(array.size for array in self.results.values())


def play(
    built: Path,
    design: Design,
    simulator: str,
    job: Job,
    batch: Mapping[str, np.ndarray],
    counts: Path | None = None,
) -> Played:
    """Send a batch through a design, back to back from reset on.

    Parameters
    ----------
    built : Path
    design : Design
    simulator : str
    job : Job
    batch : mapping of str to ndarray
        The arrays of ``--stimulus`` with a leading axis of inferences.
    counts : Path, optional
        As `sim.runner.run` has them.

    Raises
    ------
    CheckFailed
        Not all of it came out.
    RunError
    """
    config = job.config
    length = len(next(iter(batch.values())))
    with tempfile.TemporaryDirectory(prefix="spikewright_") as name:
        stimulus, raw = Path(name, "stimulus.npz"), Path(name, "raw.npz")
        np.savez(stimulus, allow_pickle=False, **batch)
        job = dataclasses.replace(job, stimulus=str(stimulus), result=str(raw))
        (outcome,) = run(built, design, simulator, job, PLAYBACK, counts)
        if not raw.exists():
            raise CheckFailed(outcome.message)
        with np.load(raw) as file:
            came = dict(file)
    results = {}
    for name, array in config.result.items():
        size = (length, *arrays.shape(config, array))
        dtype = np.uint8 if (array.low, array.high) == (0, 1) else np.int64
        if came[name].size != np.prod(size):
            steps, due = len(came[name]), length * config.timesteps
            raise CheckFailed(f"{name}: {steps} time steps came out, expected {due}; no result")
        results[name] = came[name].astype(dtype).reshape(size)
    reference = Reference(job.top, config)
    inferences = [
        reference.run({n: values[b] for n, values in batch.items()}) for b in range(length)
    ]
    # What needs an array that may be left out is not there without it.
    results = {name: values for name, values in results.items() if name in inferences[0]}
    golden = {name: np.array([inference[name] for inference in inferences]) for name in results}
    return Played(results, golden, int(came["cycles"]), outcome.message)
