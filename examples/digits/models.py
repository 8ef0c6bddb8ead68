"""The networks in PyTorch, with SpikingJelly's neurons. Needs the environment of `make oracles`."""

import dataclasses

import torch
from spikingjelly.activation_based import functional, neuron, surrogate
from torch import Tensor, nn

from examples.digits.data import BRIGHTEST, CLASSES

KINDS = ("ann", "none", "sdsa1", "sdsa3", "ssa", "moe")

TAU = 2.0
V_THRESHOLD = 1.0
ATTENTION_V_THRESHOLD = 0.5
PRODUCT_SCALE = 0.125
"""In front of the neurons of SDSA-3, as in Meta-SpikeFormer (arXiv 2404.03663)."""

INPUTS = 4  # pixels of a patch
START = 0.5
"""Biases of the normalisation start here: at 0 few neurons would fire, and few would learn."""
ATTENTION_START = 1.0
"""The same for q, k and v of SSA, whose product of three bits is rarely 1."""


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes of a network.

    Attributes
    ----------
    timesteps, tokens, channels, heads : int
    blocks : int
        Each is attention and perceptron, or attention and experts.
    hidden : int
        Channels between the two matrices of a perceptron; over all experts, with experts.
    experts : int
        For kind ``moe``.
    """

    timesteps: int = 4
    tokens: int = 16
    channels: int = 64
    heads: int = 4
    blocks: int = 2
    hidden: int = 128
    experts: int = 4

    @property
    def head_dim(self) -> int:
        """Channels of a head."""
        return self.channels // self.heads


def lif(v_threshold: float = V_THRESHOLD, step_mode: str = "m") -> neuron.LIFNode:
    """Return neurons with a hard reset that fire at >=, trained through a sigmoid."""
    return neuron.LIFNode(
        tau=TAU,
        decay_input=True,
        v_threshold=v_threshold,
        v_reset=0.0,
        surrogate_function=surrogate.Sigmoid(alpha=4.0),
        detach_reset=True,
        step_mode=step_mode,
    )


class Projection(nn.Module):
    """A matrix and batch normalisation of what comes out, over all axes but the last."""

    def __init__(self, inputs: int, outputs: int, start: float = 0.0) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs, bias=False)
        self.bn = nn.BatchNorm1d(outputs)
        nn.init.constant_(self.bn.bias, start)

    def forward(self, x: Tensor) -> Tensor:
        """Project [..., inputs] to [..., outputs]."""
        y = self.linear(x)
        return self.bn(y.flatten(0, -2)).view_as(y)


class Straight(torch.autograd.Function):
    """Bernoulli bits; the gradient is that of their expectation."""

    @staticmethod
    def forward(ctx: object, chance: Tensor) -> Tensor:
        """Draw a bit for each chance."""
        return torch.bernoulli(chance)

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        """Return the gradient as it is."""
        return gradient


class Attention(nn.Module):
    """q, k and v of spikes, attention, projection: [T, B, N, D] bits to [T, B, N, D] currents."""

    def __init__(self, kind: str, sizes: Sizes) -> None:
        super().__init__()
        self.kind, self.sizes = kind, sizes
        start = {"ssa": ATTENTION_START, "ann": 0.0}.get(kind, START)
        self.qkv = Projection(sizes.channels, 3 * sizes.channels, start)
        self.spikes = nn.Identity() if kind == "ann" else lif()
        if kind not in ("ssa", "ann"):
            self.neurons = lif(ATTENTION_V_THRESHOLD)
        self.out = Projection(sizes.channels, sizes.channels)

    def forward(self, x: Tensor) -> Tensor:
        """Attend within each image and time step."""
        q, k, v = self.spikes(self.qkv(x)).chunk(3, dim=-1)
        if self.kind in ("sdsa3", "ssa", "ann"):
            q, k, v = (self._by_head(y) for y in (q, k, v))
            y = getattr(self, f"_{self.kind}")(q, k, v).transpose(-3, -2).flatten(-2)
            y = self.neurons(y) if self.kind == "sdsa3" else y
        else:
            y = q * self.neurons((k * v).sum(dim=-2, keepdim=True))
        return self.out(y)

    def _by_head(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.sizes.heads, -1)).transpose(-3, -2)

    def _sdsa3(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return q @ (k.transpose(-2, -1) @ v) * PRODUCT_SCALE

    def _ssa(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = Straight.apply(q @ k.transpose(-2, -1) / self.sizes.head_dim)
        return Straight.apply(scores @ v / self.sizes.tokens)

    def _ann(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return (q @ k.transpose(-2, -1) / self.sizes.head_dim**0.5).softmax(dim=-1) @ v


class Perceptron(nn.Module):
    """Two projections with neurons between them: [T, B, N, D] bits to [T, B, N, D] currents."""

    def __init__(self, kind: str, sizes: Sizes) -> None:
        super().__init__()
        self.first = Projection(sizes.channels, sizes.hidden, START)
        self.spikes = nn.ReLU() if kind == "ann" else lif()
        self.second = Projection(sizes.hidden, sizes.channels)

    def forward(self, x: Tensor) -> Tensor:
        """Apply both to each token."""
        return self.second(self.spikes(self.first(x)))


class Experts(nn.Module):
    """Experts, each a small perceptron with bits at its end, and the neurons that choose them.

    The sum of the bits of the experts that a token is given to is what comes out. An expert's
    neurons for a token move on when it gets the token, and rest in the other time steps.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        experts, hidden = sizes.experts, sizes.hidden // sizes.experts
        self.experts = experts
        self.router = Projection(sizes.channels, experts, START)
        self.mask = lif()
        self.first = Projection(sizes.channels, experts * hidden, START)
        self.hidden_spikes = lif(step_mode="s")
        self.second = nn.ModuleList(
            Projection(hidden, sizes.channels, START) for _ in range(experts)
        )
        self.spikes = lif(step_mode="s")

    def forward(self, x: Tensor) -> Tensor:
        """Apply to each token the experts that it is given to."""
        mask = self.mask(self.router(x)).unsqueeze(-1)  # [T, B, N, E, 1]
        hidden = self.first(x).unflatten(-1, (self.experts, -1))
        bits = _resting(self.hidden_spikes, hidden, mask)
        currents = [one(bits[..., e, :]) for e, one in enumerate(self.second)]
        return (mask * _resting(self.spikes, torch.stack(currents, dim=-2), mask)).sum(dim=-2)


def _resting(neurons: neuron.LIFNode, currents: Tensor, mask: Tensor) -> Tensor:
    """Run neurons that keep their membrane where the mask is 0."""
    spikes = []
    membrane: Tensor | float = 0.0
    for current, awake in zip(currents, mask.detach(), strict=True):
        neurons.v = membrane if isinstance(membrane, Tensor) else torch.zeros_like(current)
        before = neurons.v
        spikes.append(neurons(current))
        membrane = awake * neurons.v + (1 - awake) * before
    return torch.stack(spikes)


class Block(nn.Module):
    """Attention (if any) and perceptron or experts, each beside a residual of currents.

    The residual is added in front of the neurons (membrane shortcut, arXiv 2307.01694), so that
    every matrix takes bits.
    """

    def __init__(self, kind: str, sizes: Sizes) -> None:
        super().__init__()
        neurons = nn.ReLU if kind == "ann" else lif
        if kind != "none":
            self.attention_spikes = neurons()
            self.attention = Attention("sdsa1" if kind == "moe" else kind, sizes)
        self.spikes = neurons()
        self.mlp = Experts(sizes) if kind == "moe" else Perceptron(kind, sizes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the residual [T, B, N, D] behind the block."""
        if hasattr(self, "attention"):
            x = x + self.attention(self.attention_spikes(x))
        return x + self.mlp(self.spikes(x))


class Network(nn.Module):
    """A transformer for digits.

    Parameters
    ----------
    kind : str
        One of `KINDS`: ``ann`` (real activations and softmax), ``none`` (no attention), ``sdsa1``,
        ``sdsa3``, ``ssa``, ``moe`` (SDSA-1, and experts in place of the perceptron).
    sizes : Sizes
    """

    def __init__(self, kind: str, sizes: Sizes) -> None:
        super().__init__()
        self.timesteps = 1 if kind == "ann" else sizes.timesteps
        self.embed = Projection(INPUTS, sizes.channels, START)
        self.position = nn.Parameter(0.02 * torch.randn(sizes.tokens, sizes.channels))
        self.blocks = nn.ModuleList(Block(kind, sizes) for _ in range(sizes.blocks))
        self.spikes = nn.ReLU() if kind == "ann" else lif()
        self.head = nn.Linear(sizes.channels, CLASSES)

    def forward(self, patches: Tensor) -> Tensor:
        """Return the logits [B, 10] of patches [B, N, 4] of pixels 0..16."""
        functional.reset_net(self)
        x = self.embed(patches / BRIGHTEST) + self.position
        x = x.expand(self.timesteps, *x.shape)
        for block in self.blocks:
            x = block(x)
        return self.head(self.spikes(x)).mean(dim=(0, 2))
