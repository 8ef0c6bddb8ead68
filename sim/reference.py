"""What must come out of a top: its golden model, with the state that runs on over inferences."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from gen.vectors import marks, pack
from hw.config import Config
from hw.stream import Stream
from sim.golden import golden
from sim.protocol import Word

Arrays = Mapping[str, np.ndarray]

TIME = "timesteps"
"""Name of the axis of time steps."""


class Reference:
    """The golden model of a top from reset on.

    Parameters
    ----------
    top : str
    config : Config
    """

    def __init__(self, top: str, config: Config) -> None:
        self._model = golden(top)
        self._config = config
        self.reset()

    def reset(self) -> None:
        """Forget the state."""
        self._state = None

    def run(self, arrays: Arrays, steps: int | None = None) -> dict[str, np.ndarray]:
        """Return all that golden has of an inference, or of its first time steps.

        Parameters
        ----------
        arrays : mapping
            The stimulus, settings included.
        steps : int, optional
            Time steps that are accepted before the inference is broken; all if left out.
        """
        stimulus = self._config.stimulus
        cut = {
            name: array[:steps] if stimulus[name].shape[:1] == (TIME,) else array
            for name, array in arrays.items()
        }
        result, self._state = self._model(self._config.asdict(), cut, self._state)
        return result


def words(stream: Stream, array: np.ndarray, steps: int | None = None) -> list[Word]:
    """Return the beats of one inference of `stream`, or of its first time steps."""
    if steps is not None:
        stream = dataclasses.replace(stream, steps=steps)
    return [
        (data, last, first)
        for data, (last, first) in zip(pack(stream, array), marks(stream), strict=True)
    ]
