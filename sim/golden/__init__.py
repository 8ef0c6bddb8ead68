"""Golden models: numpy and integers, bit-exact, no clock cycles; one file per unit.

Each module has a function of its own name,

    result, state = unit(parameters, arrays, state=None)

for one inference: `parameters` is the configuration as a mapping (the manifest's ``parameters``),
`arrays` and `result` are those of ``--stimulus`` and ``--result``, and `state` is whatever runs on
over inferences (random sources), None after reset. The models never import ``hw``: a model that
shares code with what it checks proves nothing.

`transformer` is no unit: it runs whole networks, put together from the others.
"""

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Arrays = Mapping[str, np.ndarray]
Golden = Callable[[Mapping[str, Any], Arrays, Any], tuple[dict[str, np.ndarray], Any]]


def golden(top: str) -> Golden:
    """Return the golden model of `top`."""
    return getattr(importlib.import_module(f"sim.golden.{top}"), top)
