"""Golden model of dynamic head pruning."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from sim.golden.moe import greatest


def heads(
    parameters: Mapping[str, Any], arrays: Mapping[str, np.ndarray], state: None = None
) -> tuple[dict[str, np.ndarray], None]:
    """Choose the attention heads that stay, for one inference, and clear the others.

    Parameters
    ----------
    parameters : mapping
        ``heads`` H, of channels that lie together; ``keep``, the heads that stay: ceil(p * H) for
        the share p. ``gate``, whether there is an ``out``.
    arrays : mapping
        ``q`` [T, N, D] 0/1; the channels of head 0 come first.
    state : None
        Nothing runs on over inferences.

    Returns
    -------
    result : dict
        ``kept`` [H] 0/1: the heads with the most spikes of Q over all time steps, tokens and
        channels, ties to the lowest index. With ``gate`` also ``out`` [T, N, D] 0/1: ``q`` with 0
        in the heads that do not stay.
    state : None

    Notes
    -----
    Dynamic head pruning (D^3): the score of a head is its number of spikes of Q.
    """
    q = np.asarray(arrays["q"], np.uint8)
    by_head = q.sum(axis=(0, 1), dtype=np.int64).reshape(parameters["heads"], -1)
    kept = greatest(by_head.sum(axis=1), parameters["keep"]).astype(np.uint8)
    if not parameters["gate"]:
        return {"kept": kept}, None
    return {"out": q * kept.repeat(by_head.shape[1]), "kept": kept}, None
