"""Run a network of exactly representable numbers in PyTorch, in float64.

``python -m tests.examples.exact_network KIND DIR`` writes parameters, images and logits to
``DIR/exact.npz``.
"""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import torch

from examples.digits import data, models
from examples.digits.quantise import ATTENTION_SEED, EPSILON
from sim.golden.attention import attention

SIXTEENTHS = 16


def exact(network: torch.nn.Module, rng: np.random.Generator) -> None:
    """Give every parameter a multiple of 1/16, and make normalisation an identity and a bias."""
    for name, tensor in network.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        part = name.rsplit(".", 1)[-1]
        values = {
            "running_mean": np.zeros(tensor.shape),
            "running_var": np.full(tensor.shape, 1 - EPSILON),
        }.get(part)
        if values is None and tensor.ndim == 1 and part == "weight":
            values = np.ones(tensor.shape)  # of normalisation
        if values is None:
            low, high = (4, 29) if tensor.ndim == 1 else (-12, 13)
            values = rng.integers(low, high, tensor.shape) / SIXTEENTHS
        tensor.copy_(torch.from_numpy(values))


class Seeded(models.Attention):
    """Attention whose bits are drawn by golden for an image, in turn by all blocks."""

    state: tuple[int, int] | None = None

    def _ssa(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        parameters = {"encoder": "sample", "rng": "lfsr", "heads": self.sizes.heads,
                      "causal": False, "seed": ATTENTION_SEED, "reseed": False}  # fmt: skip
        own = {name: x[:, 0].transpose(-3, -2).flatten(-2).numpy()
               for name, x in (("q", q), ("k", k), ("v", v))}  # fmt: skip
        result, Seeded.state = attention(parameters, own, Seeded.state)
        return self._by_head(torch.from_numpy(result["out"].astype(np.float64)))[:, None]


def main(kind: str, folder: Path) -> None:
    models.Attention = Seeded
    sizes = models.Sizes()
    rng = np.random.default_rng(6)
    network = models.Network(kind, sizes).double()
    with torch.no_grad():
        exact(network, rng)
        network.eval()
        images = data.split()["validation"].pixels[:20]
        tokens = torch.from_numpy(data.patches(images)).double()
        logits = torch.cat([network(image[None]) for image in tokens])
    state = {f"state.{name}": x.numpy() for name, x in network.state_dict().items()}
    record = json.dumps({"model": kind, "sizes": dataclasses.asdict(sizes)})
    np.savez(folder / "exact.npz", **state, images=images, logits=logits.numpy(), record=record)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
