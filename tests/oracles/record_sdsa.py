"""Record spike-driven self-attention, in PyTorch and with SpikingJelly's own LIF neurons.

The recording is the outside reference of the integer SDSA: tensors, pools and neurons are those of
the libraries that the released models run on, in the order of the released code, and no code of
this project has a part in it. Run it in the environment that has them::

    .venv-oracles/bin/python tests/oracles/record_sdsa.py            # writes sdsa.npz, sdsa.sha256
    .venv-oracles/bin/python tests/oracles/record_sdsa.py --check    # makes it again and compares

Arrays of ``sdsa.npz``
----------------------
``cases`` : str, shape (C,)
    One JSON object a case, with the fields of :class:`Case` and what follows from them.
``STIMULUS.q``, ``STIMULUS.k``, ``STIMULUS.v`` : uint8, shape (ceil(T * N * D / 8),)
    The operands, before the pool: bits [T, N, D] in C order, as ``numpy.packbits`` packs them.
    Token n is at row ``n // width``, column ``n % width``; the channels of head 0 come first.
``NAME.out`` : uint8, shape (ceil(T * N * D / 8),)
    The output spikes, packed in the same way.
``recorder`` : str, shape ()
    JSON object: the versions of the packages beneath the libraries.

What is computed
----------------
With ``lif`` an ``LIFNode`` of tau 2 and ``decay_input``, hard (``v_reset=0.0``) or soft
(``v_reset=None``) reset, over the T steps of one inference:

* Variant 1, with q masked, is ``q.mul(lif(k.mul(v).sum(tokens)))`` (Spike-driven Transformer,
  ``MS_SSA_Conv``, where the neuron is ``talking_heads_lif``). The other two cases mask k or v.
* Variant 2 is ``v.mul(lif(q.sum(tokens)))`` (Meta-SpikeFormer), or with q and v exchanged.
* Variant 3 is ``lif((q @ (k.transpose(-2, -1) @ v)) * 0.125)`` for each head (Meta-SpikeFormer,
  ``MS_Attention_RepConv_qkv_id``, where the neuron is ``attn_lif``).
* Variant 4 is variant 3 with one ``LIFNode`` a channel, each with a ``v_threshold`` of its own.
* The pool is a ``MaxPool3d`` of 1 x 3 x 3 over k and v as images of a channel (``Erode``).

The library compares ``h`` with ``v_threshold``; in terms of the plain sum or product the threshold
is the integer ``2 * v_threshold / scale``, and every case has one: v_threshold 0.5 is 1 without a
scale and 8 with 0.125, as released.

The released DVS model has two pools more: the same module, on ``k.mul(v)`` and on the output, when
the tensors are already [T, B, H, N, D / H], so that it runs over neighbouring *channels* and the
tokens before and after. They are not recorded. The classification models of Meta-SpikeFormer have
no pool: variants 3 and 4 with one stand for the same K and V as variant 1's.

Why float64 is exact here
-------------------------
A step halves ``v + x``; x is a multiple of 1/8 and at most 64, and v_threshold is a multiple of
1/16. After T <= 16 steps v is a multiple of 2^-19 and at most 64, so it needs 26 of the 53 bits
that float64 holds: nothing is rounded in any step, and the spikes are those of the real-valued
neuron. It would not be so with another tau, with a scale that is no power of two, or over more than
40 steps. No case was left out.
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

RECORDING = Path(__file__).resolve().with_name("sdsa.npz")
TAU = 2.0
PRODUCT_SCALE = 0.125


@dataclasses.dataclass(frozen=True)
class Stimulus:
    """Operands that several cases share.

    Parameters
    ----------
    name : str
        Unique in the recording.
    timesteps, tokens, width, channels, heads : int
        T, N, tokens of a row of the grid, D, H.
    rates : tuple of float
        Firing rates of q, k, v.
    sum_threshold, product_threshold : int
        Thresholds of variants 1 and 2, and of 3, in units of the sum and of the product.
    seed : int
        Seed of the operands and of the thresholds per channel.
    """

    name: str
    timesteps: int
    tokens: int
    width: int
    channels: int
    heads: int
    rates: tuple[float, float, float]
    sum_threshold: int
    product_threshold: int
    seed: int

    def operands(self) -> dict[str, np.ndarray]:
        """Draw the operands.

        Returns
        -------
        dict
            ``q``, ``k`` and ``v``: bool of shape (T, N, D).
        """
        random = np.random.default_rng(self.seed)
        shape = (self.timesteps, self.tokens, self.channels)
        return {n: random.random(shape) < rate for n, rate in zip("qkv", self.rates, strict=True)}

    def channel_thresholds(self) -> list[int]:
        """Draw the thresholds of variant 4.

        Returns
        -------
        list of int
            One a channel, from 1 to twice variant 3's, in units of the product.
        """
        random = np.random.default_rng([self.seed, 4])
        return random.integers(1, 2 * self.product_threshold, self.channels, endpoint=True).tolist()


STIMULI = (
    Stimulus("image", 4, 64, 8, 32, 4, (0.3, 0.3, 0.3), 9, 8, 1),
    # The rates of a trained model's first block.
    Stimulus("sparse", 4, 64, 8, 32, 4, (0.3, 0.02, 0.02), 1, 1, 2),
    Stimulus("rare", 8, 35, 7, 24, 2, (0.02, 0.02, 0.02), 1, 1, 3),
    Stimulus("dvs", 16, 16, 4, 16, 2, (0.3, 0.3, 0.3), 3, 8, 4),
    Stimulus("odd", 9, 15, 5, 15, 3, (0.5, 0.5, 0.5), 6, 21, 5),
    Stimulus("row", 16, 9, 9, 5, 1, (0.5, 0.3, 0.3), 2, 7, 6),
    Stimulus("column", 11, 7, 1, 6, 6, (0.5, 0.5, 0.3), 3, 3, 7),
    Stimulus("one", 16, 1, 1, 7, 1, (0.5, 0.5, 0.5), 1, 3, 8),
)


@dataclasses.dataclass(frozen=True)
class Case:
    """One recorded attention.

    Parameters
    ----------
    stimulus : Stimulus
        What it works on.
    variant : int
        1 to 4.
    masked : str or None
        The operand that the mask is applied to; None for variants 3 and 4.
    pool : bool
        Whether k and v are pooled first.
    reset : str
        ``hard`` or ``soft``.
    """

    stimulus: Stimulus
    variant: int
    masked: str | None
    pool: bool
    reset: str

    @property
    def name(self) -> str:
        """Name of the case, unique in the recording."""
        parts = [self.stimulus.name, f"sdsa{self.variant}", self.masked]
        return "-".join([*filter(None, parts), *(["pool"] if self.pool else []), self.reset])

    @property
    def scale(self) -> float:
        """What is between the sum or product and the neuron."""
        return 1.0 if self.variant < 3 else PRODUCT_SCALE

    @property
    def threshold(self) -> int | list[int]:
        """Threshold in units of the sum or product; a list has one a channel."""
        if self.variant == 4:
            return self.stimulus.channel_thresholds()
        return self.stimulus.sum_threshold if self.variant < 3 else self.stimulus.product_threshold

    @property
    def v_threshold(self) -> float | list[float]:
        """The library's own threshold; a list has one a channel."""
        if isinstance(self.threshold, list):
            return [threshold * self.scale / TAU for threshold in self.threshold]
        return self.threshold * self.scale / TAU

    def run(self, operands: dict[str, np.ndarray]) -> np.ndarray:
        """Run the attention.

        Parameters
        ----------
        operands : dict
            ``q``, ``k`` and ``v``: bool of shape (T, N, D).

        Returns
        -------
        numpy.ndarray
            bool of shape (T, N, D).
        """
        tensors = {n: torch.from_numpy(x).to(torch.float64) for n, x in operands.items()}
        with torch.no_grad():
            if self.pool:
                width = self.stimulus.width
                tensors |= {n: _erode(tensors[n], width) for n in "kv"}
            out = self._mask(**tensors) if self.variant < 3 else self._product(**tensors)
        return out.numpy().astype(bool)

    def _mask(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        if self.variant == 1:
            masked, a, b = {"q": (q, k, v), "k": (k, q, v), "v": (v, q, k)}[self.masked]
            summed = a.mul(b)
        else:
            masked, summed = {"v": (v, q), "q": (q, v)}[self.masked]
        return masked.mul(self._node(self.v_threshold)(summed.sum(dim=-2, keepdim=True)))

    def _product(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        timesteps, tokens, channels = q.shape
        heads = self.stimulus.heads
        q, k, v = (
            x.reshape(timesteps, tokens, heads, channels // heads).permute(0, 2, 1, 3)
            for x in (q, k, v)
        )  # T head N C//h
        x = (q @ (k.transpose(-2, -1) @ v)) * self.scale
        x = x.transpose(2, 3).reshape(timesteps, channels, tokens)
        if isinstance(self.v_threshold, list):
            nodes = [self._node(v_threshold) for v_threshold in self.v_threshold]
            x = torch.stack([node(x[:, d]) for d, node in enumerate(nodes)], dim=1)
        else:
            x = self._node(self.v_threshold)(x)
        return x.transpose(1, 2)

    def _node(self, v_threshold: float) -> neuron.LIFNode:
        return neuron.LIFNode(
            tau=TAU,
            v_threshold=v_threshold,
            v_reset={"hard": 0.0, "soft": None}[self.reset],
            detach_reset=True,
            step_mode="m",
        )

    def metadata(self, out: np.ndarray) -> dict[str, object]:
        """Describe the case for the recording.

        Parameters
        ----------
        out : numpy.ndarray
            What :meth:`run` returned.

        Returns
        -------
        dict
            ``name``, the fields, with ``stimulus`` the name of the arrays and its own fields
            beside it, ``version`` of SpikingJelly, ``tau``, ``decay_input``, ``fire``,
            ``v_threshold``, ``scale``, ``threshold``, and ``spikes`` (how many).
        """
        sizes = ("timesteps", "tokens", "width", "channels", "heads", "rates", "seed")
        return {
            "name": self.name,
            "stimulus": self.stimulus.name,
            **{size: getattr(self.stimulus, size) for size in sizes},
            "variant": self.variant,
            "masked": self.masked,
            "pool": self.pool,
            "reset": self.reset,
            "version": version("spikingjelly"),
            "tau": TAU,
            "decay_input": True,
            "fire": "ge",
            "v_threshold": self.v_threshold,
            "scale": self.scale,
            "threshold": self.threshold,
            "spikes": int(out.sum()),
        }


def _erode(x: torch.Tensor, width: int) -> torch.Tensor:
    timesteps, tokens, channels = x.shape
    images = x.transpose(1, 2).reshape(timesteps, 1, channels, tokens // width, width)
    pool = torch.nn.MaxPool3d(kernel_size=(1, 3, 3), stride=(1, 1, 1), padding=(0, 1, 1))
    return pool(images).flatten(3)[:, 0].transpose(1, 2)


def cases() -> Iterator[Case]:
    """List the cases: every form with either reset, on every stimulus.

    Yields
    ------
    Case
        In the order of the recording.
    """
    for stimulus in STIMULI:
        for variant, masked, pool in (
            (1, "q", False),
            (1, "q", True),
            (1, "k", False),
            (1, "v", False),
            (2, "v", False),
            (2, "q", False),
            (3, None, False),
            (3, None, True),
            (4, None, False),
            (4, None, True),
        ):
            for reset in ("hard", "soft"):
                yield Case(stimulus, variant, masked, pool, reset)


def record() -> dict[str, np.ndarray]:
    """Run every case.

    Returns
    -------
    dict
        The arrays of the recording by name, in a fixed order.
    """
    operands = {stimulus.name: stimulus.operands() for stimulus in STIMULI}
    arrays = {
        f"{stimulus}.{name}": np.packbits(bits)
        for stimulus, named in operands.items()
        for name, bits in named.items()
    }
    metadata = []
    for case in cases():
        out = case.run(operands[case.stimulus.name])
        metadata.append(case.metadata(out))
        arrays[f"{case.name}.out"] = np.packbits(out)
    return assemble(metadata, arrays)


if __name__ == "__main__":
    sys.exit(main(RECORDING, record, "Record spike-driven self-attention with SpikingJelly."))
