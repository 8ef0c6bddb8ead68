"""What every quantiser shares: folding, rounding, bounds, and the files of a model.

NumPy alone: where networks are trained there is nothing else of what `gen` needs.
"""

import io
import json
import math
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

FORMAT = "spikewright transformer"
SCHEMA = 1

EPSILON = 1e-5
"""What PyTorch's batch normalisation adds to the variance."""

BITS = range(4, 9)
BIAS_BITS = 16
RESIDUAL_BITS = 16


def fold(
    matrix: np.ndarray,
    gain: np.ndarray,
    offset: np.ndarray,
    mean: np.ndarray,
    variance: np.ndarray,
    bias: np.ndarray | float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Return (weights [O, I], bias [O]) of a matrix and the batch normalisation behind it.

    Parameters
    ----------
    matrix : ndarray [O, I]
    gain, offset, mean, variance : ndarray [O]
        ``weight, bias, running_mean, running_var`` of the normalisation.
    bias : ndarray [O]
        What is added between the two.
    """
    gain = gain / np.sqrt(variance + EPSILON)
    return matrix * gain[:, None], offset + (bias - mean) * gain


def exponent(weights: np.ndarray, bits: int) -> int:
    """Return the greatest e at which ``round(weights * 2^e)`` are signed numbers of `bits` bits."""
    high = (1 << (bits - 1)) - 1
    e = math.floor(math.log2((high + 0.5) / np.abs(weights).max()))
    if rounded(weights, e).max() > high or rounded(weights, e).min() < -high - 1:
        e -= 1
    return e


def rounded(values: np.ndarray, e: int) -> np.ndarray:
    """Return the integers nearest to ``values * 2^e``, ties to even."""
    return np.rint(values * 2.0**e).astype(np.int64)


def signed_bits(low: int, high: int) -> int:
    """Return the bits of a signed number in ``low..high``."""
    return 1 + max(
        (~low if low < 0 else low).bit_length(), (~high if high < 0 else high).bit_length()
    )


def ranges(
    whole: np.ndarray, offset: np.ndarray, low: np.ndarray | int, high: np.ndarray | int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the least and greatest ``whole @ x + offset`` of inputs in ``low..high``, [..., O]."""
    down, up = whole.clip(max=0), whole.clip(min=0)
    if np.ndim(low) == 0:
        down, up = down.sum(axis=1), up.sum(axis=1)
        return down * high + up * low + offset, down * low + up * high + offset
    return down @ high + up @ low + offset, down @ low + up @ high + offset


def linear(
    name: str,
    source: str,
    whole: np.ndarray,
    offset: np.ndarray,
    *,
    bits: int,
    shift: int,
    exponent: int,
    low: np.ndarray,
    high: np.ndarray,
) -> dict[str, Any]:
    """Return the entry of a linear layer.

    Parameters
    ----------
    name, source : str
    whole, offset : ndarray
        Integer weights [O, I] and biases.
    bits, shift, exponent : int
        Of a weight; to the left; of what comes out.
    low, high : ndarray
        What comes out in front of the shift.
    """
    return {
        "name": name,
        "kind": "linear",
        "input": source,
        "inputs": whole.shape[1],
        "outputs": whole.shape[0],
        "weight_bits": bits,
        "bias_bits": max(BIAS_BITS, signed_bits(int(offset.min()), int(offset.max()))),
        "shift": shift,
        "exponent": exponent,
        "low": int(low.min()) << shift,
        "high": int(high.max()) << shift,
    }


def files(model: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> dict[str, str | bytes]:
    """Return the files of a model, the same bytes for the same model."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, array, allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, member.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=9)
    return {"model.json": json.dumps(model, indent=1) + "\n", "model.npz": file.getvalue()}
