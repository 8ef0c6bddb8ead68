"""Golden model of the leaky integrate-and-fire array."""

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np


def lif(
    parameters: Mapping[str, Any], arrays: Mapping[str, np.ndarray], state: None = None
) -> tuple[dict[str, np.ndarray], None]:
    """Run one inference of an array of neurons.

    Parameters
    ----------
    parameters : mapping
        ``tau, threshold, reset, reset_delay, fire, bias, fraction_bits, decay_bits``.
    arrays : mapping
        ``current`` [T, N] int; ``threshold`` and ``bias``, [C] or [], take the place of the
        parameters where they are given; neuron n has the one of channel n mod C.
    state : None
        Nothing runs on over inferences.

    Returns
    -------
    result : dict
        ``spikes`` [T, N] 0/1; ``membrane`` [T, N] int, in units of 2^-fraction_bits: U after the
        reset and before the next decay (with a delayed reset, U with the reset still to come);
        ``charged`` [T, N] int, in the same units: U before the reset, as it is compared with the
        threshold.
    state : None

    Notes
    -----
    Spike-driven Transformer (arXiv 2307.01694), eq. 1-3, with ``U = tau * h`` (`decay_input`) or
    ``U = h``, which is the same recurrence.
    """
    current = np.asarray(arrays["current"], dtype=np.int64)
    unit = 1 << parameters["fraction_bits"]
    scale = 1 << parameters["decay_bits"]
    factor = round((1 - 1 / Fraction(parameters["tau"])) * scale)
    upward = parameters["fire"] == "gt"
    halving = factor & (factor - 1) == 0  # the decay is 2^-k, where directed rounding is exact

    threshold, bias = (
        np.resize(np.asarray(arrays.get(name, parameters[name]), np.int64), current.shape[1])
        for name in ("threshold", "bias")
    )
    threshold = threshold * unit
    soft, hard = parameters["reset"] == "soft", parameters["reset"] == "hard"
    delayed = parameters["reset_delay"]

    membrane = np.zeros(current.shape[1], np.int64)
    pending = np.zeros(current.shape[1], bool)  # spikes whose reset is still to come
    spikes, trace, before = [], [], []
    for x in current:
        if hard:
            membrane = np.where(pending, 0, membrane)
        product = membrane * factor
        if halving:
            decayed = -(-product // scale) if upward else product // scale
        elif upward:  # nearest, a tie away from firing
            decayed = (2 * product + scale) // (2 * scale)
        else:
            decayed = -((scale - 2 * product) // (2 * scale))
        charged = decayed + (x + bias) * unit
        if soft:
            charged = charged - np.where(pending, threshold, 0)
        fired = charged > threshold if upward else charged >= threshold
        membrane = charged
        if delayed:
            pending = fired
        elif hard:
            membrane = np.where(fired, 0, charged)
        elif soft:
            membrane = np.where(fired, charged - threshold, charged)
        spikes.append(fired)
        trace.append(membrane)
        before.append(charged)
    return {
        "spikes": np.array(spikes, np.uint8),
        "membrane": np.array(trace, np.int64),
        "charged": np.array(before, np.int64),
    }, None
