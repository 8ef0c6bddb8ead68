"""Golden model of spike-driven self-attention."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from sim.golden.lif import lif


def sdsa(
    parameters: Mapping[str, Any], arrays: Mapping[str, np.ndarray], state: None = None
) -> tuple[dict[str, np.ndarray], None]:
    """Run one inference of SDSA-1 to SDSA-4.

    Parameters
    ----------
    parameters : mapping
        ``variant, masked, heads, tau, threshold, reset, fire, fraction_bits, decay_bits, pool,
        width``. Variants 1 and 2 have a ``masked`` operand and treat all channels alike; 3 and 4
        have ``heads``, of channels that lie together. ``pool`` asks for ``width``, the tokens of
        a row of their grid, and that K and V are not masked.
    arrays : mapping
        ``q``, ``k``, ``v`` [T, N, D] 0/1; variant 2 has no ``k``. ``threshold`` [D] int takes the
        place of the parameter where it is given (variant 4).
    state : None
        Nothing runs on over inferences.

    Returns
    -------
    result : dict
        ``out`` [T, N, D] 0/1; ``sops`` [T] int: the additions that were done. With variants 1
        and 2 these are the bits that were summed up: those of K AND V with variant 1 and masked q.
        With variants 3 and 4 they are the increments of K^T V, |K_h[n]| * |V_h[n]| for token n and
        head h, where |x| is the number of ones; and D / H for each spike of Q, which adds a row of
        K^T V to the output of its token. K and V are the pooled ones.
    state : None

    Notes
    -----
    Spike-driven Transformer (arXiv 2307.01694), eq. 13, and Meta-SpikeFormer (arXiv 2404.03663)::

        1:  masked AND SN( sum over tokens of the AND of the two others )
        2:  masked AND SN( sum over tokens of the other one )
        3:  SN( Q_h (K_h^T V_h) ), for each head h
        4:  3 with a threshold per channel

    The pool is a 3 x 3 maximum with stride 1 and zeros around the grid, of each channel of K and V
    before anything else. (The released DVS model also pools K AND V and its output, over tokens
    and *channels*; that is no part of it here.)
    """
    arrays = {name: np.asarray(array, np.int64) for name, array in arrays.items()}
    if parameters["pool"]:
        arrays |= {name: _pooled(arrays[name], parameters["width"]) for name in ("k", "v")}
    run = _mask if parameters["variant"] in (1, 2) else _product
    return run(parameters, arrays), None


def _mask(parameters: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    operands = ("q", "k", "v") if parameters["variant"] == 1 else ("q", "v")
    bits = np.prod([arrays[n] for n in operands if n != parameters["masked"]], axis=0)
    fired = _neurons(parameters, bits.sum(axis=1))
    masked = arrays[parameters["masked"]].astype(np.uint8)
    return {"out": masked & fired[:, np.newaxis], "sops": bits.sum(axis=(1, 2))}


def _product(
    parameters: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    timesteps, tokens, channels = arrays["q"].shape
    head_dim = channels // parameters["heads"]
    by_head = (timesteps, tokens, parameters["heads"], head_dim)
    q, k, v = (arrays[name].reshape(by_head).swapaxes(1, 2) for name in ("q", "k", "v"))
    products = (q @ (k.swapaxes(2, 3) @ v)).swapaxes(1, 2)  # [T, N, H, D / H]

    threshold = arrays.get("threshold", parameters["threshold"])
    fired = _neurons(
        parameters,
        products.reshape(timesteps, tokens * channels),
        threshold=np.broadcast_to(threshold, (tokens, channels)).ravel(),
    )
    increments = (k.sum(axis=3) * v.sum(axis=3)).sum(axis=(1, 2))
    rows = q.sum(axis=(1, 2, 3))
    return {
        "out": fired.reshape(timesteps, tokens, channels),
        "sops": increments + head_dim * rows,
    }


def _neurons(
    parameters: Mapping[str, Any], current: np.ndarray, **settings: np.ndarray
) -> np.ndarray:
    neurons = {**parameters, "reset_delay": False, "bias": 0}
    return lif(neurons, {"current": current, **settings})[0]["spikes"]


def _pooled(bits: np.ndarray, width: int) -> np.ndarray:
    timesteps, tokens, channels = bits.shape
    grid = bits.reshape(timesteps, tokens // width, width, channels)
    padded = np.pad(grid, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    return windows.max(axis=(-2, -1)).reshape(bits.shape)
