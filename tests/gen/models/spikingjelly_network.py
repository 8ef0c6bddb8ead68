"""Run SpikingJelly's own networks on numbers that are exactly representable, in float64.

``python -m tests.gen.models.spikingjelly_network KIND DIR`` writes the state_dict to
``DIR/model.npz`` and ``DIR/model.pt``, and inputs and what comes out to ``DIR/run.npz``.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from spikingjelly.activation_based import functional, layer, neuron
from spikingjelly.activation_based.layer.attention import (
    SpikeDrivenSelfAttention,
    SpikingSelfAttention,
)
from torch import nn

from tests.gen.models.states import EPSILON

CHANNELS, HEADS, STEPS, BATCH, SIDE = 16, 4, 5, 3, 3


def matrix(inputs: int, outputs: int) -> layer.SeqToANNContainer:
    return layer.SeqToANNContainer(
        nn.Conv1d(inputs, outputs, kernel_size=1, bias=False), nn.BatchNorm1d(outputs)
    )


class Perceptron(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = matrix(CHANNELS, 2 * CHANNELS), matrix(2 * CHANNELS, CHANNELS)
        self.neuron1, self.neuron2 = neuron.LIFNode(tau=2.0), neuron.LIFNode(tau=2.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.neuron2(self.fc2(self.neuron1(self.fc1(x))))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn = SpikingSelfAttention(CHANNELS, HEADS)
        self.mlp = Perceptron()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = x.flatten(3)
        tokens = tokens + self.attn(tokens)
        tokens = tokens + self.mlp(tokens)
        return tokens.reshape(x.shape)


class Spikformer(nn.Module):
    """SpikingJelly's Spikformer behind its stem, whose names it has.

    Its own model asks for packages that are not in this environment.
    """

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        self.head = layer.Linear(CHANNELS, 5, step_mode="m")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return self.head(x.flatten(3).mean(dim=-1)).mean(dim=0)


def exact(network: nn.Module, rng: np.random.Generator) -> None:
    """Give every parameter a multiple of 1/16."""
    for name, tensor in network.state_dict().items():
        part = name.rsplit(".", 1)[-1]
        if part == "num_batches_tracked":
            continue
        if part == "running_var":
            values = np.full(tensor.shape, 1 - EPSILON)
        elif part == "weight" and tensor.ndim == 1:
            values = 2.0 ** rng.integers(-1, 2, tensor.shape)
        else:
            low, high = (4, 25) if tensor.ndim == 1 and part == "bias" else (-12, 13)
            values = rng.integers(low, high, tensor.shape) / 16
        tensor.copy_(torch.from_numpy(np.asarray(values, float)))


def main(kind: str, folder: Path) -> None:
    rng = np.random.default_rng(4)
    places: tuple[int, ...] = (SIDE, SIDE)
    high = 3
    if kind == "attention":
        network, places, high = SpikingSelfAttention(CHANNELS, HEADS), (SIDE * SIDE,), 2
    elif kind == "sdsa":
        network = SpikeDrivenSelfAttention(CHANNELS, HEADS)
    else:
        network = Spikformer()
    network = network.double().eval()
    functional.set_step_mode(network, "m")
    tokens = rng.integers(0, high, (STEPS, BATCH, CHANNELS, *places))
    if kind == "sdsa":
        tokens = rng.integers(-8, 25, tokens.shape) / 8
    with torch.no_grad():
        exact(network, rng)
        out = network(torch.from_numpy(tokens).double()).numpy()
    state = network.state_dict()
    torch.save({"state_dict": state}, folder / "model.pt")
    np.savez(folder / "model.npz", **{name: x.numpy() for name, x in state.items()})
    np.savez(folder / "run.npz", tokens=tokens.reshape(STEPS, BATCH, CHANNELS, -1).swapaxes(2, 3),
             out=out)  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
