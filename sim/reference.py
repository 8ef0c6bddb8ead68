"""What must come out of a top: its golden model, with the state that runs on over inferences."""

from collections.abc import Mapping

import numpy as np

from hw.config import Config
from sim.golden import golden

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
