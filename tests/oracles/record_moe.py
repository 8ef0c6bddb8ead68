"""Record the mixture-of-experts router, in PyTorch and with SpikingJelly's own LIF neurons.

The recording is the outside reference of the integer router with routing ``mask``: the linear layer
and the neurons are those of the libraries that the released model runs on, and no code of this
project has a part in it. Run it in the environment that has them::

    .venv-oracles/bin/python tests/oracles/record_moe.py            # writes moe.npz, moe.sha256
    .venv-oracles/bin/python tests/oracles/record_moe.py --check    # makes it again and compares

Arrays of ``moe.npz``
---------------------
``cases`` : str, shape (C,)
    One JSON object a case, with the fields of :class:`Case` and what follows from them.
``STIMULUS.tokens`` : uint8, shape (ceil(T * N * D / 8),)
    The tokens: bits [T, N, D] in C order, as ``numpy.packbits`` packs them.
``STIMULUS.weights`` : int32, shape (E, D)
    The integer weights of the scores.
``STIMULUS.bias`` : int32, shape (E,)
    The integer bias.
``NAME.mask`` : uint8, shape (ceil(T * N * E / 8),)
    The spikes of the router [T, N, E], packed in the same way.
``recorder`` : str, shape ()
    JSON object: the versions of the packages beneath the libraries.

What is computed
----------------
``mask[t] = lif(linear(x[t]))`` for t = 0, 1, ... (SEMM, NeurIPS 2024, with the batch norm folded
into the linear layer): a ``torch.nn.Linear`` of D inputs and E outputs over the tokens of a time
step, and one ``LIFNode`` of tau 2 in single-step mode, called once a time step, which keeps a
membrane for each token and expert. ``decay_input`` is true, as released, or false; the reset hard
(``v_reset=0.0``, as released) or soft (``v_reset=None``). The library has no reset ``none``, its
neurons fire at ``>=``, and its tau is greater than 1.

The parameters of the layer are the integers times ``scale``. The library compares ``h`` with
``v_threshold``; in terms of the integer score the threshold is ``2 * v_threshold / scale`` with
``decay_input`` and ``v_threshold / scale`` without, an integer in every case: 2 for the released
v_threshold 1.0 and no scale.

Why float64 is exact here
-------------------------
The integer score is less than 2^17 in size: D <= 64 weights of 8 bits, or one of 16 bits, and a
bias of 16 bits. ``scale`` is at least 2^-6, and so all partial sums of a score, in whatever order,
are multiples of 2^-6 under 2^17. A step halves ``v`` or ``v + x``; a soft reset subtracts less than
2^17. After T <= 16 steps v is a multiple of 2^-22 and under 2^19: it needs 41 of the 53 bits that
float64 holds, nothing is rounded in any step, and the spikes are those of the real-valued neuron.
It would not be so with another tau, or with a scale that is no power of two. No case was left out.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from recording import assemble, main
from spikingjelly.activation_based import neuron

RECORDING = Path(__file__).resolve().with_name("moe.npz")
TAU = 2.0


@dataclasses.dataclass(frozen=True)
class Stimulus:
    """An input that several cases share.

    Parameters
    ----------
    name : str
        Unique in the recording.
    timesteps, tokens, channels, experts : int
        T, N, D, E.
    rate : float
        Firing rate of the tokens.
    weights, bias : tuple of int
        Least and greatest weight and bias.
    neurons : tuple of tuple of float
        ``v_threshold`` and ``scale`` of its cases.
    seed : int
        Seed of the tokens, the weights and the bias.
    """

    name: str
    timesteps: int
    tokens: int
    channels: int
    experts: int
    rate: float
    weights: tuple[int, int]
    bias: tuple[int, int]
    neurons: tuple[tuple[float, float], ...]
    seed: int

    def operands(self) -> dict[str, np.ndarray]:
        """Draw the input.

        Returns
        -------
        dict
            ``tokens`` : bool of shape (T, N, D); ``weights`` : int32 of shape (E, D); ``bias`` :
            int32 of shape (E,).
        """
        random = np.random.default_rng(self.seed)
        shape = (self.experts, self.channels)
        return {
            "tokens": random.random((self.timesteps, self.tokens, self.channels)) < self.rate,
            "weights": random.integers(*self.weights, shape, np.int32, endpoint=True),
            "bias": random.integers(*self.bias, self.experts, np.int32, endpoint=True),
        }


UNSCALED = (1.0, 1.0)
STIMULI = (
    Stimulus("image", 4, 64, 64, 4, 0.3, (-128, 127), (-99, 99), (UNSCALED, (1.0, 1 / 64)), 1),
    Stimulus("sparse", 4, 64, 64, 4, 0.02, (-6, 7), (-2, 2), (UNSCALED, (1.0, 0.25)), 2),
    Stimulus("dvs", 16, 16, 32, 8, 0.2, (-8, 8), (-4, 4), (UNSCALED, (1.0, 1 / 16)), 3),
    Stimulus("small", 16, 9, 6, 5, 0.4, (-2, 3), (-1, 1), (UNSCALED, (2.0, 1.0)), 4),
    Stimulus("odd", 11, 7, 13, 3, 0.5, (-20, 22), (-9, 9), (UNSCALED, (0.75, 1 / 32)), 5),
    Stimulus("pair", 8, 10, 17, 2, 0.3, (-3, 4), (-3, 3), (UNSCALED, (0.5, 0.125)), 6),
    Stimulus("one", 16, 12, 7, 1, 0.3, (-2, 4), (1, 2), (UNSCALED, (3.0, 1.0)), 7),
    Stimulus("bit", 16, 1, 1, 6, 0.5, (-1, 5), (-1, 2), (UNSCALED, (1.0, 0.5)), 8),
    Stimulus("bias", 16, 5, 4, 7, 0.1, (-4, 4), (-1, 5), (UNSCALED, (2.5, 0.5)), 9),
    Stimulus(
        "wide", 12, 20, 1, 8, 0.6, (-(2**15), 2**15 - 1), (-(2**15), 2**15 - 1),
        (UNSCALED, (256.0, 1 / 64)), 10,
    ),
    Stimulus("single", 1, 30, 9, 6, 0.4, (-3, 3), (-1, 1), (UNSCALED, (0.25, 0.125)), 11),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Case:
    """One recorded router.

    Parameters
    ----------
    stimulus : Stimulus
        What it works on.
    v_threshold : float
        The library's own threshold.
    scale : float
        The layer's parameters for each unit of the integers, a power of two.
    decay_input : bool
        Whether the input is divided by tau, too.
    reset : str
        ``hard`` or ``soft``.
    """

    stimulus: Stimulus
    v_threshold: float
    scale: float
    decay_input: bool
    reset: str

    @property
    def name(self) -> str:
        """Name of the case, unique in the recording."""
        decay = "decay" if self.decay_input else "nodecay"
        return f"{self.stimulus.name}-{decay}-{self.reset}-threshold{self.threshold}"

    @property
    def threshold(self) -> int:
        """Threshold in units of the integer score.

        Raises
        ------
        ValueError
            If it is no integer.
        """
        threshold = self.v_threshold / self.scale * (TAU if self.decay_input else 1.0)
        if not threshold.is_integer():
            raise ValueError(f"want an integer threshold, got {threshold}")
        return int(threshold)

    def run(self, operands: dict[str, np.ndarray]) -> np.ndarray:
        """Run the router.

        Parameters
        ----------
        operands : dict
            ``tokens``, ``weights`` and ``bias``, as :meth:`Stimulus.operands` draws them.

        Returns
        -------
        numpy.ndarray
            bool of shape (T, N, E).
        """
        tokens, weights, bias = (
            torch.from_numpy(operands[name]).to(torch.float64)
            for name in ("tokens", "weights", "bias")
        )
        linear = torch.nn.Linear(self.stimulus.channels, self.stimulus.experts).double()
        lif = neuron.LIFNode(
            tau=TAU,
            decay_input=self.decay_input,
            v_threshold=self.v_threshold,
            v_reset={"hard": 0.0, "soft": None}[self.reset],
            detach_reset=True,
            step_mode="s",
        )
        with torch.no_grad():
            linear.weight.copy_(weights * self.scale)
            linear.bias.copy_(bias * self.scale)
            mask = torch.stack([lif(linear(step)) for step in tokens])
        return mask.numpy().astype(bool)

    def metadata(self, mask: np.ndarray) -> dict[str, object]:
        """Describe the case for the recording.

        Parameters
        ----------
        mask : numpy.ndarray
            What :meth:`run` returned.

        Returns
        -------
        dict
            ``name``, the fields, with ``stimulus`` the name of the arrays and its own fields
            beside it, ``version`` of SpikingJelly, ``tau``, ``fire``, ``threshold``, and ``spikes``
            (how many).
        """
        sizes = ("timesteps", "tokens", "channels", "experts", "rate", "seed")
        return {
            "name": self.name,
            "stimulus": self.stimulus.name,
            **{size: getattr(self.stimulus, size) for size in sizes},
            "version": version("spikingjelly"),
            "tau": TAU,
            "decay_input": self.decay_input,
            "reset": self.reset,
            "fire": "ge",
            "v_threshold": self.v_threshold,
            "scale": self.scale,
            "threshold": self.threshold,
            "spikes": int(mask.sum()),
        }


def cases() -> Iterator[Case]:
    """List the cases: every neuron of each stimulus, with either `decay_input` and either reset.

    Yields
    ------
    Case
        In the order of the recording.
    """
    for stimulus in STIMULI:
        for v_threshold, scale in stimulus.neurons:
            for decay_input in (True, False):
                for reset in ("hard", "soft"):
                    yield Case(stimulus, v_threshold, scale, decay_input, reset)


def record() -> dict[str, np.ndarray]:
    """Run every case.

    Returns
    -------
    dict
        The arrays of the recording by name, in a fixed order.
    """
    operands = {stimulus.name: stimulus.operands() for stimulus in STIMULI}
    arrays = {
        f"{stimulus}.{name}": np.packbits(array) if name == "tokens" else array
        for stimulus, named in operands.items()
        for name, array in named.items()
    }
    metadata = []
    for case in cases():
        mask = case.run(operands[case.stimulus.name])
        metadata.append(case.metadata(mask))
        arrays[f"{case.name}.mask"] = np.packbits(mask)
    return assemble(metadata, arrays)


if __name__ == "__main__":
    sys.exit(main(RECORDING, record, "Record the mixture-of-experts router with SpikingJelly."))
