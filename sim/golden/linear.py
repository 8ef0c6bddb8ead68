"""Golden model of the matrix product."""

from collections.abc import Mapping
from typing import Any

import numpy as np


def linear(
    parameters: Mapping[str, Any], arrays: Mapping[str, np.ndarray], state: None = None
) -> tuple[dict[str, np.ndarray], None]:
    """Multiply every token by a matrix and add a bias, for one inference.

    Parameters
    ----------
    parameters : mapping
        None is looked at: the arrays say it all.
    arrays : mapping
        ``spikes`` [T, N, I] 0/1, or unsigned integers; ``weights`` [O, I]; ``bias`` [O], or
        [N, O] for one of each token.
    state : None
        Nothing runs on over inferences.

    Returns
    -------
    result : dict
        ``out`` [T, N, O]: ``sum over i of weights[o, i] * spikes[t, n, i], plus bias``, the bias in
        every time step.
    state : None
    """
    spikes, weights, bias = (
        np.asarray(arrays[name], np.int64) for name in ("spikes", "weights", "bias")
    )
    return {"out": np.einsum("oi,tni->tno", weights, spikes) + bias}, None
