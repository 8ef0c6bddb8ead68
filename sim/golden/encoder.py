"""Golden model of an encoder block, put together from those of the units."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from sim.golden.assembly import Assembly
from sim.golden.transformer import State, Values, network, spikes_of


def encoder(
    parameters: Mapping[str, Any], arrays: Mapping[str, np.ndarray], state: State | None = None
) -> tuple[Values, State]:
    """Run one inference of a block.

    Parameters
    ----------
    parameters : mapping
        Its configuration.
    arrays : mapping
        ``current`` [T, N, C] int, the residual in front of the block; ``weights``, ``bias``,
        ``threshold`` and ``shift`` of the layers one after another: those of q, k and v that the
        attention takes, the projection, and the two of the MLP, or the router's and those of each
        expert. The neurons in front of q, k and v have the first threshold. With SDSA-4
        ``attention_threshold`` [C], which the parameter stands for if it is left out.
    state : dict, optional
        The registers of the attention.

    Returns
    -------
    result : dict
        ``out`` [T, N, C] int, the residual behind the block, and ``spikes`` of each layer, one
        after another: [N, T, C], and [T, N, C] of the attention.
    state : dict
    """
    a = Assembly(parameters, arrays)
    out = a.block("block", "input")
    model = {"timesteps": parameters["timesteps"], "layers": a.layers}
    tokens = np.asarray(arrays["current"], np.int64)[:, np.newaxis]
    values, state = network(model, {**a.own, "tokens": tokens}, state)
    return {"out": values[out][:, 0], "spikes": spikes_of(model, values)}, state
