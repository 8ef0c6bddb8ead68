"""A trained network as real numbers: what every front end makes, and how it computes."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

INPUT = "input"
"""The name under which layers take the tokens."""

Values = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Neuron:
    """How a neuron works.

    Attributes
    ----------
    tau : float
        In time steps; infinite where nothing leaks.
    v_threshold : float or ndarray [C]
    reset : str
        ``hard`` to 0, ``soft`` minus the threshold, ``none``.
    fire : str
        ``ge`` or ``gt``.
    decay_input : bool
        Whether the input is divided by tau as well.
    reset_delay : bool
        The reset acts in the next time step.
    doubt : str
        Why it may have been trained as another one; empty where that is known.
    """

    tau: float = 2.0
    v_threshold: float | np.ndarray = 1.0
    reset: str = "hard"
    fire: str = "ge"
    decay_input: bool = True
    reset_delay: bool = False
    doubt: str = ""

    @property
    def decay(self) -> float:
        """What is left of a membrane after a time step."""
        return 1.0 - 1.0 / self.tau

    @property
    def gain(self) -> float | np.ndarray:
        """The threshold of a membrane that the input is added to as it is."""
        scale = self.tau if self.decay_input and math.isfinite(self.tau) else 1.0
        return scale * self.v_threshold


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer.

    Attributes
    ----------
    name : str
    inputs : tuple of str
        The layers that it takes, or `INPUT`.
    """

    name: str
    inputs: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Linear(Layer):
    """``weights [O, I] @ x + bias [O]``."""

    weights: np.ndarray
    bias: np.ndarray


@dataclasses.dataclass(frozen=True)
class Lif(Layer):
    """Neurons, one for each token and channel."""

    neuron: Neuron


@dataclasses.dataclass(frozen=True)
class Sdsa(Layer):
    """Spike-driven self-attention of q, k and v; `scale` is in front of its neurons."""

    variant: int
    heads: int
    scale: float
    neuron: Neuron


@dataclasses.dataclass(frozen=True)
class Add(Layer):
    """The sum of the inputs."""


@dataclasses.dataclass(frozen=True)
class Mean(Layer):
    """The mean over tokens: one token."""


@dataclasses.dataclass(frozen=True)
class Readout(Layer):
    """The mean over tokens and time steps."""


@dataclasses.dataclass(frozen=True)
class Foreign(Layer):
    """What the hardware has not, and why."""

    what: str
    reason: str


@dataclasses.dataclass
class Network:
    """A trained network.

    Attributes
    ----------
    name : str
    timesteps, tokens, channels, heads, classes : int
        `channels` are those of a token in front of the blocks.
    inputs : int
        Channels of a token of the input.
    layers : list of Layer
        In an order in which they can be computed.
    assumed : dict
        What no file says and no option said, with the value that was taken.
    notes : list of str
        What was left out, and the like.
    """

    name: str
    timesteps: int
    tokens: int
    channels: int
    heads: int
    classes: int
    inputs: int
    layers: list[Layer]
    assumed: dict[str, Any] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)

    def __getitem__(self, name: str) -> Layer:
        """Return a layer."""
        return next(layer for layer in self.layers if layer.name == name)

    def users(self, name: str) -> list[Layer]:
        """Return the layers that take what comes out of one."""
        return [layer for layer in self.layers if name in layer.inputs]


def run(network: Network, tokens: np.ndarray) -> Values:
    """Compute a network in float64.

    Parameters
    ----------
    network : Network
    tokens : ndarray [T, B, N, I]

    Returns
    -------
    dict
        What comes out of each layer, [T, B, N, C], of the last [B, C].
    """
    values: Values = {INPUT: np.asarray(tokens, np.float64)}
    for name, value in _run(network, values):
        values[name] = value
    del values[INPUT]
    return values


def _run(network: Network, values: Values) -> Iterator[tuple[str, np.ndarray]]:
    for layer in network.layers:
        taken = [values[name] for name in layer.inputs]
        if isinstance(layer, Linear):
            value = taken[0] @ layer.weights.T + layer.bias
        elif isinstance(layer, Lif):
            value = neurons(layer.neuron, taken[0])
        elif isinstance(layer, Sdsa):
            value = _sdsa(layer, *taken)
        elif isinstance(layer, Add):
            value = np.sum(taken, axis=0)
        elif isinstance(layer, Mean):
            value = taken[0].mean(axis=2, keepdims=True)
        elif isinstance(layer, Readout):
            value = taken[0].mean(axis=(0, 2))
        else:
            raise ValueError(f"{layer.name}: nothing here computes it")
        yield layer.name, value


def neurons(neuron: Neuron, current: np.ndarray) -> np.ndarray:
    """Return the spikes [T, ..., C] of neurons with a current [T, ..., C]."""
    share = 1 / neuron.tau if neuron.decay_input and math.isfinite(neuron.tau) else 1.0
    membrane, pending = np.zeros(current.shape[1:]), np.zeros(current.shape[1:], bool)
    spikes = []
    for x in current:
        if neuron.reset == "hard":
            membrane = np.where(pending, 0.0, membrane)
        membrane = neuron.decay * membrane + share * x
        if neuron.reset == "soft":
            membrane = membrane - np.where(pending, neuron.v_threshold, 0.0)
        fired = (
            membrane > neuron.v_threshold if neuron.fire == "gt" else membrane >= neuron.v_threshold
        )
        if neuron.reset_delay:
            pending = fired
        elif neuron.reset == "hard":
            membrane = np.where(fired, 0.0, membrane)
        elif neuron.reset == "soft":
            membrane = membrane - np.where(fired, neuron.v_threshold, 0.0)
        spikes.append(fired)
    return np.array(spikes, np.float64)


def _sdsa(layer: Sdsa, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    if layer.variant == 1:
        return q * neurons(layer.neuron, layer.scale * (k * v).sum(axis=-2, keepdims=True))
    *ahead, tokens, channels = q.shape
    parts = (*ahead, tokens, layer.heads, channels // layer.heads)
    q, k, v = (x.reshape(parts).swapaxes(-3, -2) for x in (q, k, v))
    product = layer.scale * (q @ (k.swapaxes(-2, -1) @ v))
    return neurons(layer.neuron, product.swapaxes(-3, -2).reshape(*ahead, tokens, channels))
