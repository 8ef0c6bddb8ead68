"""Golden model of dynamic head pruning."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from sim.golden.moe import greatest


def heads(
    parameters: Mapping[str, Any], arrays: Mapping[str, np.ndarray], state: None = None
) -> tuple[dict[str, np.ndarray], None]:
    """Choose the attention heads that stay, for one inference.

    Parameters
    ----------
    parameters : mapping
        ``heads`` H, of channels that lie together; ``keep``, the heads that stay: ceil(p * H) for
        the share p.
    arrays : mapping
        ``q`` [T, N, D] 0/1; the channels of head 0 come first.
    state : None
        Nothing runs on over inferences.

    Returns
    -------
    result : dict
        ``kept`` [H] 0/1: the heads with the most spikes of Q over all time steps, tokens and
        channels, ties to the lowest index.
    state : None

    Notes
    -----
    Dynamic head pruning (D^3): the score of a head is its number of spikes of Q.
    """
    by_head = np.asarray(arrays["q"], np.int64).sum(axis=(0, 1)).reshape(parameters["heads"], -1)
    return {"kept": greatest(by_head.sum(axis=1), parameters["keep"]).astype(np.uint8)}, None
