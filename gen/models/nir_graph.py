"""From a graph of the Neuromorphic Intermediate Representation (NIR) to a network.

A graph has the equations of its neurons in continuous time, and so neither the time step nor what
a library made of them: `dt`, and where that matters the library, are options. A step of `dt` is
Euler's, ``v += dt / tau * (R * I - v)``.
"""

import math
from typing import Any

import numpy as np

from gen.errors import UserError
from gen.models.graph import (
    INPUT,
    Add,
    Foreign,
    Layer,
    Lif,
    Linear,
    Network,
    Neuron,
    Readout,
)
from gen.models.integers import SNAP, Given, few_bits
from gen.models.read import finite
from gen.models.state_dict import DEFAULTS, Options, few

LIBRARIES: dict[str, tuple[str, str]] = {
    "nir": ("gt", "hard"),
    "norse": ("gt", "hard"),
    "snntorch": ("gt", "soft-delayed"),
    "spikingjelly": ("ge", "hard"),
}
"""How each library's neuron fires and resets unless it is told otherwise."""

SNNTORCH = (
    "R is tau / dt, as snnTorch writes it: its own reset is delayed and subtracts, and its export "
    "loses that; --library or --reset says which it was"
)
MATRICES = ("Affine", "Linear", "Conv1d", "Conv2d")
NEURONS = ("LIF", "IF")
ENDS = ("Input", "Output")
REASONS = {
    "AvgPool2d": "the hardware has no pool over places",
    "SumPool2d": "the hardware has no pool over places",
    "CubaLIF": "the hardware's neurons have no current of their own that leaks",
    "CubaLI": "neurons that never fire",
    "LI": "neurons that never fire",
    "I": "neurons that never fire",
    "Delay": "the hardware has no delays",
    "NIRGraph": "a graph in a graph, which recurrent layers are",
}


def network_of(graph: Any, options: Options) -> tuple[Network, Given | None]:
    """Return the network of a ``nir.NIRGraph``.

    Raises
    ------
    UserError
        Where the graph is none that can be computed layer by layer, or an option is missing.
    """
    return _Graph(graph, options).network(), None


def kind(node: Any) -> str:
    """Return what a node is."""
    return type(node).__name__


class _Graph:
    def __init__(self, graph: Any, options: Options) -> None:
        self.nodes = dict(getattr(graph, "nodes", {}))
        if not self.nodes:
            raise UserError("NIR: there are no nodes in the graph")
        self.options = options
        self.notes: list[str] = []
        self.assumed: dict[str, Any] = {}
        self.layers: list[Layer] = []
        self.sources: dict[str, list[str]] = {name: [] for name in self.nodes}
        for before, behind in dict.fromkeys((str(a), str(b)) for a, b in graph.edges):
            if not {before, behind} <= set(self.nodes):
                raise UserError(f"NIR: an edge goes from {before} to {behind}, and one is no node")
            self.sources[behind].append(before)
        self.skipped = self._ancestors()
        # A layer's name in the network, its tokens and its channels, by the node's name.
        self.made: dict[str, tuple[str, int, int]] = {}

    def _ancestors(self) -> set[str]:
        """Return the nodes that are skipped, and all in front of them."""
        if not self.options.skip:
            return set()
        if len(self.options.skip) > 1:
            raise UserError("--skip: want one node of a graph; those in front of it go as well")
        (last,) = self.options.skip
        if last not in self.nodes:
            raise UserError(f"--skip: there is no {last!r} here; want one of {few(self.nodes)}")
        found, ahead = set(), [last]
        while ahead:
            name = ahead.pop()
            if name not in found:
                found.add(name)
                ahead += self.sources[name]
        for name, sources in self.sources.items():
            if name not in found and (found - {last}) & set(sources):
                raise UserError(f"--skip: {name} takes what is in front of {last}")
        return found

    def _order(self) -> list[str]:
        """Return the nodes in an order in which they can be computed."""
        order, ready = [], set(self.skipped)
        left = [name for name in self.nodes if name not in ready]
        while left:
            next_ones = [name for name in left if set(self.sources[name]) <= ready]
            if not next_ones:
                raise UserError(f"NIR: a ring of layers: {few(left)}")
            order += next_ones
            ready |= set(next_ones)
            left = [name for name in left if name not in ready]
        return order

    def network(self) -> Network:
        """Return the network."""
        inputs = (0, 0)
        ends = []
        if self.skipped:
            (last,) = self.options.skip
            inputs = self._shape(last, self.nodes[last].output_type)
            self.made[last] = (INPUT, *inputs)
        for name in self._order():
            node = self.nodes[name]
            if kind(node) == "Input":
                if inputs[1]:
                    raise UserError(f"NIR: want one input, got {name} as well")
                inputs = self._shape(name, node.input_type)
                self.made[name] = (INPUT, *inputs)
                continue
            source = self._source(name)
            if kind(node) == "Output":
                ends.append(source)
            elif kind(node) == "Flatten":
                self.made[name], inputs = self._flatten(name, source, inputs)
            elif kind(node) in MATRICES:
                self.made[name] = self._matrix(name, node, source)
            elif kind(node) in NEURONS:
                self.made[name] = self._neurons(name, node, source)
            else:
                reason = REASONS.get(kind(node), "the hardware has nothing of that kind")
                self.made[name] = self._foreign(name, node, source, reason)
        if len(ends) != 1:
            raise UserError(f"NIR: want one output, got {len(ends)}")
        last, _, classes = ends[0]
        self.layers.append(Readout("logits", (last,)))
        timesteps = self.options.timesteps
        if timesteps is None:
            timesteps = self.assumed["timesteps"] = DEFAULTS["timesteps"]
        tokens, count = inputs
        return Network("nir", timesteps, tokens, classes, 1, classes, count, self.layers,
                       self.assumed, self.notes)  # fmt: skip

    def _source(self, name: str) -> tuple[str, int, int]:
        """Return what goes into a node: a layer, or the sum of some."""
        taken = [self.made[one] for one in self.sources[name] if one in self.made]
        if not taken:
            raise UserError(f"NIR: nothing goes into {name}")
        if len(taken) == 1:
            return taken[0]
        if len({one[1:] for one in taken}) > 1:
            raise UserError(f"NIR: what goes into {name} has shapes that differ: "
                            f"{few(str(list(one[1:])) for one in taken)}")  # fmt: skip
        self.layers.append(Add(f"{name}.sum", tuple(one[0] for one in taken)))
        return (f"{name}.sum", *taken[0][1:])

    def _shape(self, name: str, types: Any) -> tuple[int, int]:
        """Return (tokens, channels) of what comes out of a node."""
        shapes = [shape for shape in (types or {}).values() if shape is not None]
        if not shapes:
            raise UserError(f"NIR: {name} has no shape")
        shape = [int(side) for side in np.ravel(shapes[0])]
        places = any(kind(node) in ("Conv1d", "Conv2d", "AvgPool2d", "SumPool2d")
                     for node in self.nodes.values())  # fmt: skip
        if not shape or min(shape) < 1 or len(shape) > 3:
            raise UserError(f"NIR: {name} has shape {shape}; want channels, tokens and channels, "
                            "or channels, height and width")  # fmt: skip
        if len(shape) == 1:
            return 1, shape[0]
        if len(shape) == 3 or places:
            return math.prod(shape[1:]), shape[0]
        return shape[0], shape[1]

    def _flatten(
        self, name: str, source: tuple[str, int, int], inputs: tuple[int, int]
    ) -> tuple[tuple[str, int, int], tuple[int, int]]:
        if source[1] == 1:
            return source, inputs
        alone = [n for n, own in self.sources.items() if "Input" in
                 [kind(self.nodes[one]) for one in own]] == [name]  # fmt: skip
        if source[0] == INPUT and alone and not self.skipped:
            count = source[1] * source[2]
            return (INPUT, 1, count), (1, count)
        reason = f"it makes one token of {source[1]}, and a matrix then takes all of them"
        return self._foreign(name, self.nodes[name], source, reason), inputs

    def _foreign(
        self, name: str, node: Any, source: tuple[str, int, int], reason: str
    ) -> tuple[str, int, int]:
        self.layers.append(Foreign(name, (source[0],), kind(node), reason))
        try:
            return (name, *self._shape(name, node.output_type))
        except UserError:
            return (name, *source[1:])

    def _matrix(self, name: str, node: Any, source: tuple[str, int, int]) -> tuple[str, int, int]:
        weights = finite(f"{name}.weight", node.weight)
        if kind(node) in ("Conv1d", "Conv2d"):
            sides = "x".join(str(side) for side in weights.shape[2:])
            plain = (
                weights[0, 0].size == 1
                and np.all(np.ravel(node.stride) == 1)
                and node.groups == 1
                and (isinstance(node.padding, str) or not np.any(node.padding))
            )
            if not plain:
                reason = f"a convolution of {sides}: the hardware has matrices alone"
                return self._foreign(name, node, source, reason)
            weights = weights.reshape(weights.shape[:2])
        if weights.ndim != 2:
            return self._foreign(name, node, source, "a matrix for each place")
        if weights.shape[1] != source[2]:
            raise UserError(f"{name}.weight: want {source[2]} channels to go in, got shape "
                            f"{list(weights.shape)}")  # fmt: skip
        bias = getattr(node, "bias", None)
        bias = np.zeros(len(weights)) if bias is None else finite(f"{name}.bias", bias)
        if bias.shape != weights.shape[:1]:
            raise UserError(f"{name}.bias: want shape [{len(weights)}], got {list(bias.shape)}")
        self.layers.append(Linear(name, (source[0],), weights, bias))
        return name, source[1], len(weights)

    def _value(self, name: str, part: str, array: Any, channels: int) -> float | np.ndarray:
        """Return a parameter of neurons: one number where all are alike, else one a channel."""
        values = finite(f"{name}.{part}", array)
        if not values.size:
            raise UserError(f"{name}.{part}: there are no numbers in it")
        if not np.ptp(values):
            return float(values.ravel()[0])
        for axis in (0, values.ndim - 1):
            rows = np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)
            if len(rows) == channels and not np.ptp(rows, axis=1).any():
                return rows[:, 0]
        raise UserError(f"{name}.{part}: want one for each of {channels} channels, got shape "
                        f"{list(values.shape)}")  # fmt: skip

    def _neurons(self, name: str, node: Any, source: tuple[str, int, int]) -> tuple[str, int, int]:
        channels = source[2]
        parts = ("tau", "r", "v_leak", "v_threshold", "v_reset")
        have = {part: self._value(name, part, getattr(node, part), channels)
                for part in parts if getattr(node, part, None) is not None}  # fmt: skip
        for part in ("v_leak", "v_reset"):
            if np.any(have.get(part, 0.0)):
                reason = f"a {part} that is not 0"
                return self._foreign(name, node, source, reason)
        for part in ("r", "v_threshold"):
            if np.min(have[part]) <= 0:
                raise UserError(f"{name}.{part}: want numbers above 0, got {np.min(have[part]):g}")
        library = self.options.library
        fire, reset = LIBRARIES[library or "nir"]
        fire, reset = self.options.fire or fire, self.options.reset or reset
        if library is None:
            for option, value in (("fire", fire), ("reset", reset)):
                if getattr(self.options, option) is None:
                    self.assumed[option] = value
        word, _, delayed = reset.partition("-")
        r, doubt, tau = have["r"], "", math.inf
        if kind(node) == "LIF":
            steps = self._steps(name, have["tau"])
            if isinstance(steps, str):
                return self._foreign(name, node, source, steps)
            tau = steps
        else:
            if self.options.dt and np.allclose(r * self.options.dt, 1, rtol=SNAP):
                r = 1.0
            self.notes.append(f"{name}: an input of 1 adds R to the membrane in a time step")
        whole = math.isfinite(tau) and bool(np.allclose(r, tau, rtol=10 * SNAP)) and tau != 1
        if whole:
            r = 1.0
            if library is None and self.options.reset is None:
                doubt = SNNTORCH
        neuron = Neuron(tau, have["v_threshold"] / r, word, fire, not whole, bool(delayed), doubt)
        self.layers.append(Lif(name, (source[0],), neuron))
        return name, source[1], channels

    def _steps(self, name: str, tau: float | np.ndarray) -> float | str:
        """Return tau in time steps, or why there is none."""
        if np.ndim(tau):
            return "a tau that differs between channels"
        if self.options.dt is None:
            raise UserError(f"--dt: missing: {name} has a tau of {tau:g}, and no graph of NIR says "
                            "what a time step is (snnTorch writes tau for 1e-4)")  # fmt: skip
        steps = float(tau) / self.options.dt
        if steps < 1 - SNAP:
            raise UserError(f"--dt: {name} has a tau of {tau:g}, which is less than a time step of "
                            f"{self.options.dt:g}")  # fmt: skip
        found = few_bits(1 - 1 / max(steps, 1.0))
        return max(steps, 1.0) if found is None else 1 / (1 - found[0] / 2 ** found[1])
