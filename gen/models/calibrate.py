"""Choose scales by data, and measure what integers lose of real numbers on them."""

import dataclasses
from fractions import Fraction
from pathlib import Path

import numpy as np

from gen.errors import UserError
from gen.models.graph import INPUT, Lif, Linear, Network, Readout, Sdsa, Values, run
from gen.models.integers import Integers, Quantiser
from gen.models.read import archive, finite
from gen.models.rounding import exponent, rounded

FINEST = 3
"""By how many bits a scale may be finer than the one at which all weights fit."""


@dataclasses.dataclass(frozen=True)
class Samples:
    """Inputs of a network.

    Attributes
    ----------
    array : ndarray
        ``image`` [B, N, I], integers, the same in every time step; or ``tokens`` [B, N, I] or
        [T, B, N, I], real values.
    real : bool
        Which of the two.
    """

    array: np.ndarray
    real: bool

    @property
    def tokens(self) -> int:
        """Tokens of a sample."""
        return int(self.array.shape[-2])

    def span(self, step: Fraction | None) -> tuple[float, float]:
        """Return the least and greatest real value, 0 between them."""
        scale = 1.0 if self.real or step is None else float(step)
        return min(0.0, float(self.array.min()) * scale), max(0.0, float(self.array.max()) * scale)

    def whole(self, network: Network, step: Fraction) -> np.ndarray:
        """Return the integers [T, B, N, I] that stand for the samples."""
        array = self.array / float(step) if self.real else self.array
        array = np.rint(array).astype(np.int64)
        if array.ndim == 3:
            array = np.broadcast_to(array, (network.timesteps, *array.shape))
        want = (network.timesteps, "B", network.tokens, network.inputs)
        got = (array.shape[0], "B", *array.shape[2:])
        if want != got:
            raise UserError(f"--calibrate: want samples of {list(want[2:])} (tokens, channels) in "
                            f"{want[0]} time steps, got {list(got[2:])} in {got[0]}")  # fmt: skip
        return array


def read(path: Path) -> Samples:
    """Read samples.

    Raises
    ------
    UserError
        Where there is no such file, or there are no samples in it.
    """
    arrays = archive(path)
    names = sorted({"image", "tokens"} & set(arrays))
    if len(names) != 1:
        have = ", ".join(arrays) or "nothing"
        raise UserError(f"--calibrate: want `image` or `tokens` in {path}, got {have}")
    array = finite(names[0], arrays[names[0]])
    real = names[0] == "tokens"
    if array.ndim not in ((3, 4) if real else (3,)) or not array.size:
        axes = "[B, N, I] or [T, B, N, I]" if real else "[B, N, I]"
        raise UserError(f"--calibrate: want {names[0]} {axes}, got shape {list(array.shape)}")
    if not real and (array != np.rint(array)).any():
        raise UserError("--calibrate: want integers in image; real values go by the name of tokens")
    return Samples(array, real)


def scaled(network: Network, quantiser: Quantiser, samples: Samples) -> tuple[Quantiser, Integers]:
    """Return the integer model, and what made it, with the scales that lose least on samples.

    A finer scale rounds less and lets the greatest weights saturate. Of each matrix the one is
    taken whose result, on what goes into that matrix in the trained network, is nearest to it.
    """
    integers = quantiser.integers()
    values = floats(quantiser.network, samples, integers.step)
    finer = {}
    for layer in quantiser.network.layers:
        if isinstance(layer, Linear):
            factor = quantiser.factor(layer.inputs[0])
            inputs = values[layer.inputs[0]] / factor
            finer[layer.name] = _finer(layer.weights * factor, inputs, quantiser.bits)
    better = Quantiser(network, quantiser.given, quantiser.bits, quantiser.residual_bits, finer)
    return better, better.integers()


def _finer(weights: np.ndarray, inputs: np.ndarray, bits: int) -> int:
    """Return by how much the best scale of a matrix is finer than that at which all fits."""
    flat = inputs.reshape(-1, inputs.shape[-1])
    likeness = flat.T @ flat
    limit = 1 << (bits - 1)
    if not weights.any():
        return 0
    e = exponent(weights, bits)

    def error(more: int) -> float:
        whole = rounded(weights, e + more).clip(-limit, limit - 1)
        apart = whole * 2.0 ** -(e + more) - weights
        return float(np.einsum("oi,ij,oj->", apart, likeness, apart, optimize=True))

    return min(range(FINEST + 1), key=error)


def floats(network: Network, samples: Samples, step: Fraction) -> Values:
    """Return what comes out of each layer of the trained network."""
    tokens = samples.whole(network, step) * float(step)
    return {INPUT: tokens} | run(network, tokens)


def losses(network: Network, integers: Integers, samples: Samples) -> dict[str, str]:
    """Return, of each layer, how far the integer network is from the trained one.

    Both run by themselves from the input on, so that what one layer loses the next have lost
    too. Of currents it is the root of the mean square of the difference, over that of the
    current; of neurons the share of spikes that differ; of the readout the share of samples whose
    greatest class is the same.
    """
    # Only here does this need sim, which builds on gen: golden is what the integers mean.
    from sim.golden import transformer as golden

    model = integers.model
    whole = samples.whole(network, integers.step)
    real = floats(network, samples, integers.step)
    result, _ = golden.network(model, {**integers.arrays, "tokens": whole})
    entries = {entry["name"]: entry for entry in model["layers"]}
    said = {}
    for layer in network.layers:
        trained, own = real[layer.name], result[layer.name]
        if isinstance(layer, Lif | Sdsa):
            said[layer.name] = f"{100 * np.mean(trained != own):.3g} % of spikes"
        elif isinstance(layer, Readout):
            same = np.mean(trained.argmax(axis=1) == own.argmax(axis=1))
            said[layer.name] = f"{100 * same:.4g} % of answers are the same"
        else:
            entry = entries[layer.name]
            count = model["tokens"] if entry["kind"] == "pool" else 1
            apart = own * 2.0 ** -entry["exponent"] / count - trained
            size = np.sqrt(np.mean(trained**2))
            rms = np.sqrt(np.mean(apart**2))
            share = f" ({100 * rms / size:.3g} %)" if size else ""
            said[layer.name] = f"RMS {rms:.3g}{share}"
    return said
