"""Golden model of the mixture-of-experts router."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from sim.golden.lif import lif


def moe(
    parameters: Mapping[str, Any], arrays: Mapping[str, np.ndarray], state: None = None
) -> tuple[dict[str, np.ndarray], None]:
    """Run one inference of the router: which expert gets which token.

    Parameters
    ----------
    parameters : mapping
        ``routing, overflow`` and the neuron's ``tau, threshold, reset, fire, fraction_bits,
        decay_bits``. Routing ``topk`` and ``kwta`` have ``k``, the experts of a token; ``kwta``
        has ``fill``, whether experts that have not fired yet may make up the k. Overflow ``drop``
        has ``capacity``, the tokens that an expert takes in a time step.
    arrays : mapping
        ``tokens`` [T, N, D] 0/1; ``weights`` [E, D] int and ``bias`` [E] int, of the score;
        optionally ``expert_out`` [T, N, E, D] 0/1, what the experts make of the tokens.
    state : None
        Nothing runs on over inferences.

    Returns
    -------
    result : dict
        ``mask`` [T, N, E] 0/1: who got the token; ``dropped`` [T, E] int: tokens that chose the
        expert and did not get it. With ``expert_out`` also ``merged`` [T, N, D] int: the sum of
        what came from the experts that got the token, 0 where none did.
    state : None

    Notes
    -----
    The score is ``sum over d of weights[e, d] * tokens[t, n, d] + bias[e]``, the bias in every time
    step. It is the current of a neuron for each token and expert, which keeps its membrane over the
    time steps of the inference.

    * ``mask`` (SEMM, NeurIPS 2024): a token chooses the experts whose neurons fire, all or none.
    * ``topk`` (3D MoE, ICCAD 2025): it chooses the k experts with the greatest membrane U before
      the reset, fired or not. U is the integer that is compared with the threshold. The neurons
      fire and are reset as ever.
    * ``kwta``: it chooses the k experts whose neurons have fired most often in this inference, this
      time step included; without ``fill`` one that has not fired is not among them, so that there
      may be fewer than k.

    Ties go to the lowest index. Of the tokens that choose an expert in a time step the first
    ``capacity``, in token order, get it; with overflow ``drop`` it is withheld from the others,
    with ``stall`` they wait for it and get it as well.
    """
    arrays = {name: np.asarray(array, np.int64) for name, array in arrays.items()}
    scores = arrays["tokens"] @ arrays["weights"].T + arrays["bias"]  # [T, N, E]
    chosen = _chosen(parameters, scores)
    mask = chosen
    if parameters["overflow"] == "drop":
        mask = chosen & (chosen.cumsum(axis=1) <= parameters["capacity"])
    result = {"mask": mask.astype(np.uint8), "dropped": (chosen & ~mask).sum(axis=1)}
    if "expert_out" in arrays:
        result["merged"] = (mask[..., np.newaxis] * arrays["expert_out"]).sum(axis=2)
    return result, None


def greatest(scores: np.ndarray, k: int) -> np.ndarray:
    """Mark the k greatest numbers of the last axis, ties to the lowest index.

    Parameters
    ----------
    scores : ndarray, shape (..., E)
    k : int
        All are marked where it is E or more.

    Returns
    -------
    ndarray of bool, shape (..., E)
    """
    own, other = scores[..., :, np.newaxis], scores[..., np.newaxis, :]
    index = np.arange(scores.shape[-1])
    better = (other > own) | ((other == own) & (index < index[:, np.newaxis]))
    return better.sum(axis=-1) < k


def _chosen(parameters: Mapping[str, Any], scores: np.ndarray) -> np.ndarray:
    timesteps, tokens, experts = scores.shape
    neurons = {**parameters, "reset_delay": False, "bias": 0}
    result, _ = lif(neurons, {"current": scores.reshape(timesteps, tokens * experts)})
    spikes = result["spikes"].reshape(scores.shape)
    if parameters["routing"] == "mask":
        return spikes == 1
    if parameters["routing"] == "topk":
        return greatest(result["charged"].reshape(scores.shape), parameters["k"])
    counts = spikes.cumsum(axis=0, dtype=np.int64)
    chosen = greatest(counts, parameters["k"])
    return chosen if parameters["fill"] else chosen & (counts > 0)
