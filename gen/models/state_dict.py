"""From a PyTorch state_dict with the names of published spiking transformers to a network.

======================  ============================================================================
``sdt``                 Spike-driven Transformer (arXiv 2307.01694): the residual is of currents,
                        attention is SDSA-1
``spikformer``          Spikformer (arXiv 2209.15425): the residual is of spikes, attention is
                        ``q (k^T v) * 0.125``, which is SDSA-3; its matrices are ``_linear`` or
                        ``_conv``
``spikingjelly``        the same network as SpikingJelly has it, and its layer
                        ``SpikingSelfAttention`` alone
======================  ============================================================================
"""

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping
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
    Mean,
    Network,
    Neuron,
    Readout,
    Sdsa,
)
from gen.models.integers import Given
from gen.models.rounding import fold

FAMILIES = ("sdt", "spikformer", "spikingjelly")
STEM = "patch_embed"
HEAD = "head"
PARTS = (STEM, HEAD)
"""What can be skipped."""

SCALE = 0.125
NORMALISATION = ("weight", "bias", "running_mean", "running_var")
COUNTER = "num_batches_tracked"
SHOWN = 4
"""Names in an error."""

POOLING = {"sdt": "1111", "spikformer": "0011", "spikingjelly": "0011"}
"""Of the released models: which of the four stages of the stem end with a max pool."""

LEARNT = re.compile(r"(_lif\d*)\.w$")
"""Time constants that were trained."""

REPCONV = re.compile(r"(.+?_conv)\.0\.body\.")

State = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Options:
    """What no file says. None is what the released code has."""

    family: str | None = None
    timesteps: int | None = None
    tokens: int | None = None
    heads: int | None = None
    tau: float | None = None
    v_threshold: float | None = None
    attention_threshold: float | None = None
    reset: str | None = None
    fire: str | None = None
    decay_input: bool | None = None
    pooling: str | None = None
    dt: float | None = None
    library: str | None = None
    skip: tuple[str, ...] = ()


DEFAULTS: dict[str, Any] = {
    "timesteps": 4,
    "tokens": 64,
    "heads": 8,
    "tau": 2.0,
    "v_threshold": 1.0,
    "attention_threshold": 0.5,
    "reset": "hard",
    "fire": "ge",
    "decay_input": True,
}
"""Those of the released code."""


@dataclasses.dataclass(frozen=True)
class Projection:
    """A matrix and, unless `bn` is empty, the normalisation behind it, by their names."""

    name: str
    matrix: str
    bn: str


def few(names: Iterable[str]) -> str:
    """Return some names, and how many more there are."""
    every = sorted(names)
    more = f" and {len(every) - SHOWN} more" if len(every) > SHOWN else ""
    return ", ".join(every[:SHOWN]) + more


def network_of(state: State, options: Options) -> tuple[Network, Given | None]:
    """Return the network of a state_dict, and its input where the network says it.

    Raises
    ------
    UserError
        Names or shapes that are those of no network that is known here.
    """
    if reps := sorted({found.group(1) for name in state if (found := REPCONV.match(name))}):
        return _refused(reps, options), Given(0, 1)
    return _Reader(state, options).network()


def _refused(names: list[str], options: Options) -> Network:
    reason = (
        "RepConv, of the second and third Spike-driven Transformer: it pads with what "
        "normalisation makes of 0, so at a border it is no convolution of weights and a bias"
    )
    layers: list[Layer] = [Foreign(name, (INPUT,), "RepConv", reason) for name in names]
    return Network("sdt-v2", options.timesteps or 4, 1, 1, 1, 1, 1, layers)


class _Reader:
    def __init__(self, state: State, options: Options) -> None:
        self.state, self.options = state, options
        self.assumed: dict[str, Any] = {}
        self.notes: list[str] = []
        self.layers: list[Layer] = []
        self.family = self._family()
        stems = {name.split(".")[0] for name in state}
        self.blocks = "blocks" if "blocks" in stems and "block" not in stems else "block"
        self.alone = self.blocks not in stems
        self.depth = 1 + max(
            (int(found.group(1)) for name in state
             if (found := re.match(rf"{self.blocks}\.(\d+)\.", name))), default=0
        )  # fmt: skip
        self.has_stem = not self.alone and STEM not in options.skip
        self.has_head = not self.alone and HEAD not in options.skip
        for part in options.skip:
            if part not in PARTS or part not in stems:
                have = ", ".join(p for p in PARTS if p in stems) or "none"
                raise UserError(f"--skip: there is no {part!r} here; want one of {have}")

    def _family(self) -> str:
        if self.options.family:
            return self.options.family
        names = self.state
        if any("qkv_conv_bn." in name for name in names):
            return "spikingjelly"
        if any(name.endswith("q_linear.weight") for name in names):
            return "spikformer"
        if not any(name.endswith("q_conv.weight") for name in names):
            raise UserError(
                "no spiking transformer that is known here: want q_conv (Spike-driven "
                "Transformer), q_linear (Spikformer) or qkv_conv_bn (SpikingJelly), got "
                + few(names)
            )
        if not any(".talking_heads." in name for name in names):
            self.assumed["family"] = "sdt"
        return "sdt"

    def _value(self, name: str) -> Any:
        given = getattr(self.options, name)
        if given is not None:
            return given
        self.assumed[name] = DEFAULTS[name]
        return DEFAULTS[name]

    # Names

    def _block(self, i: int) -> str:
        return "" if self.alone else f"{self.blocks}.{i}."

    def _attention(self, i: int) -> str:
        return self._block(i) + ("" if self.alone else "attn.")

    def _plain(self, prefix: str, part: str) -> Projection:
        """Return the names of q, k, v, proj, fc1 or fc2."""
        name = f"{prefix}{part}"
        if self.family == "spikingjelly":
            inner = part if part.startswith("fc") else f"{part}_conv_bn"
            return Projection(name, f"{prefix}{inner}.0", f"{prefix}{inner}.1")
        kinds = ("conv", "linear") if self.family == "sdt" else ("linear", "conv")
        kind = next((k for k in kinds if f"{name}_{k}.weight" in self.state), kinds[0])
        return Projection(name, f"{name}_{kind}", f"{name}_bn")

    def _stem(self) -> list[Projection]:
        if self.family == "spikingjelly":
            inner = [(f"{STEM}.stages.{i}", f"{STEM}.stages.{i}.conv_bn.block") for i in range(4)]
            inner.append((f"{STEM}.rpe", f"{STEM}.positional_encoding.conv_bn.block"))
            return [Projection(name, f"{own}.0", f"{own}.1") for name, own in inner]
        parts = [("proj", ""), ("proj", "1"), ("proj", "2"), ("proj", "3"), ("rpe", "")]
        if not any(f"{STEM}.{p}_conv{n}.weight" in self.state for p, n in parts[1:]):
            parts = parts[:1]
        out = []
        for part, number in parts:
            kind = "linear" if f"{STEM}.{part}_linear{number}.weight" in self.state else "conv"
            out.append(Projection(f"{STEM}.{part}{number}", f"{STEM}.{part}_{kind}{number}",
                                  f"{STEM}.{part}_bn{number}"))  # fmt: skip
        return out

    def _projections(self) -> Iterator[Projection]:
        if self.has_stem:
            yield from self._stem()
        for i in range(self.depth):
            own = self._attention(i)
            for part in ("qkv",) if self.family == "spikingjelly" else ("q", "k", "v"):
                yield self._plain(own, part)
            yield self._plain(own, "proj")
            if not self.alone:
                yield self._plain(f"{self._block(i)}mlp.", "fc1")
                yield self._plain(f"{self._block(i)}mlp.", "fc2")
        if self.has_head:
            yield Projection(HEAD, HEAD, "")

    def _check_names(self, projections: list[Projection]) -> None:
        required, allowed = set(), set()
        for p in projections:
            required.add(f"{p.matrix}.weight")
            allowed.add(f"{p.matrix}.bias")
            if p.bn:
                required |= {f"{p.bn}.{part}" for part in NORMALISATION}
        known = required | allowed
        missing = required - set(self.state)
        unknown = {
            name for name in set(self.state) - known
            if not name.endswith((f".{COUNTER}", "talking_heads.weight"))
            and not LEARNT.search(name)
            and name.split(".")[0] not in self.options.skip
        }  # fmt: skip
        if missing or unknown:
            parts = [f"{word}: {few(names)}" for word, names in
                     (("missing", missing), ("unknown", unknown)) if names]  # fmt: skip
            raise UserError(f"no state_dict of {self.family}: {'; '.join(parts)}")
        unused = [name for name in self.state if name.endswith("talking_heads.weight")]
        if unused:
            self.notes.append("talking_heads.weight is in no sum of the released code: left out")

    # Numbers

    def _numbers(self, p: Projection) -> tuple[np.ndarray, np.ndarray, int]:
        """Return weights [O, I, ...] and bias [O] with normalisation, and the kernel's side."""
        matrix = self.state[f"{p.matrix}.weight"]
        if matrix.ndim not in (2, 3, 4):
            raise UserError(f"{p.matrix}.weight: want a matrix or a convolution, got shape "
                            f"{list(matrix.shape)}")  # fmt: skip
        count = matrix.shape[0]
        side = max(matrix.shape[2:], default=1)
        flat = matrix.reshape(count, -1)
        bias = self._vector(f"{p.matrix}.bias", count) if f"{p.matrix}.bias" in self.state else 0.0
        if not p.bn:
            return flat, np.zeros(count) + bias, side
        gain, offset, mean, variance = (
            self._vector(f"{p.bn}.{part}", count) for part in NORMALISATION
        )
        if variance.min() < 0:
            raise UserError(f"{p.bn}.running_var: a variance of {variance.min():g} is none")
        weights, bias = fold(flat, gain, offset, mean, variance, bias)
        return weights, bias, side

    def _vector(self, name: str, count: int) -> np.ndarray:
        array = self.state[name]
        if array.shape != (count,):
            raise UserError(f"{name}: want shape [{count}], got {list(array.shape)}")
        return array

    def _linear(self, p: Projection, source: str, inputs: int, outputs: int | None = None) -> str:
        weights, bias, side = self._numbers(p)
        if side > 1:
            reason = f"a convolution of {side}x{side}: the hardware has matrices alone"
            self._foreign(p.name, source, f"conv {side}x{side}", reason)
            return p.name
        want = (len(bias) if outputs is None else outputs, inputs)
        if weights.shape != want:
            raise UserError(f"{p.matrix}.weight: want shape {list(want)}, got "
                            f"{list(weights.shape)}")  # fmt: skip
        self.layers.append(Linear(p.name, (source,), weights, bias))
        return p.name

    def _foreign(self, name: str, source: str, what: str, reason: str) -> str:
        stem = f"; --skip {STEM} imports the rest" if name.startswith(STEM) else ""
        self.layers.append(Foreign(name, (source,), what, reason + stem))
        return name

    def _neuron(self, name: str, v_threshold: str = "v_threshold") -> Neuron:
        tau = self._value("tau")
        learnt = self.state.get(f"{name}.w")
        if learnt is not None:
            tau = 1 + float(np.exp(-learnt.reshape(())))
        reset, _, delayed = self._value("reset").partition("-")
        return Neuron(tau, self._value(v_threshold), reset, self._value("fire"),
                      self._value("decay_input"), bool(delayed))  # fmt: skip

    def _lif(self, name: str, source: str) -> str:
        self.layers.append(Lif(name, (source,), self._neuron(name)))
        return name

    def _add(self, name: str, *sources: str) -> str:
        self.layers.append(Add(name, sources))
        return name

    # The networks

    def network(self) -> tuple[Network, Given | None]:
        projections = list(self._projections())
        self._check_names(projections)
        named = {p.name: p for p in projections}
        first = self._attention(0) + ("qkv" if self.family == "spikingjelly" else "q")
        channels = int(self._matrix(named[first]).shape[1])
        heads = self._heads(channels)
        inputs, source = channels, INPUT
        if self.has_stem:
            inputs = int(self._matrix(named[self._stem()[0].name]).shape[1])
            source = self._embedded(inputs)
        current = self.family == "sdt"
        for i in range(self.depth):
            block = self._sdt if current else self._spikformer
            source = block(i, source, channels, heads, named)
        if current and not self.alone:
            self.layers.append(Mean("mean", (source,)))
            source = self._lif("head_lif", "mean")
        classes = channels
        if self.has_head:
            classes = len(self.state[f"{HEAD}.weight"])
            source = self._linear(named[HEAD], source, channels)
        elif HEAD in self.options.skip or self.alone:
            self.notes.append("the readout is the mean of what the last layer gives")
        self.layers.append(Readout("logits", (source,)))
        network = Network(
            self.family, self._value("timesteps"), self._value("tokens"), channels, heads,
            classes, inputs, self.layers, self.assumed, self.notes,
        )  # fmt: skip
        return network, self._given(current)

    def _given(self, current: bool) -> Given | None:
        """Return what goes in where it follows from the network."""
        if self.has_stem or current:
            return None
        # A bare attention layer takes spikes, the blocks behind the stem the sum of two.
        return Given(0, 1 if self.alone else 2)

    def _matrix(self, p: Projection) -> np.ndarray:
        matrix = self.state[f"{p.matrix}.weight"]
        if matrix.ndim < 2:
            raise UserError(f"{p.matrix}.weight: want a matrix, got shape {list(matrix.shape)}")
        return matrix

    def _heads(self, channels: int) -> int:
        heads = int(self._value("heads"))
        if channels % heads:
            raise UserError(f"--heads: want a divisor of {channels} channels, got {heads}")
        return heads

    def _embedded(self, inputs: int) -> str:
        """Add the stem and return what it hands over."""
        stem = self._stem()
        if len(stem) == 1:
            last = self._linear(stem[0], INPUT, inputs)
            return last if self.family == "sdt" else self._lif(f"{last}_lif", last)
        pooling = self.options.pooling
        if pooling is None:
            pooling = self.assumed["pooling"] = POOLING[self.family]
        source = INPUT
        for i, p in enumerate(stem[:4]):
            source = self._linear(p, source, inputs)
            inputs = self._matrix(p).shape[0]
            late = i == 3 and self.family == "sdt"
            ahead = source if late else self._lif(f"{STEM}.proj_lif{i or ''}", source)
            source = ahead
            if pooling[i] == "1":
                source = self._foreign(f"{STEM}.maxpool{i or ''}", source, "max pool",
                                       "the hardware has no pool over places")  # fmt: skip
        feature = source
        if self.family == "sdt":
            rpe = self._linear(stem[4], self._lif(f"{STEM}.proj_lif3", feature), inputs)
        else:
            rpe = self._lif(f"{STEM}.rpe_lif", self._linear(stem[4], feature, inputs))
        return self._add(f"{STEM}.residual", feature, rpe)

    def _sdt(
        self, i: int, x: str, channels: int, heads: int, named: Mapping[str, Projection]
    ) -> str:
        own, mlp = self._attention(i), f"{self._block(i)}mlp."
        spikes = self._lif(f"{own}shortcut_lif", x)
        q, k, v = (
            self._lif(f"{own}{part}_lif",
                      self._linear(named[f"{own}{part}"], spikes, channels, channels))
            for part in "qkv"
        )  # fmt: skip
        # The released code has its own name for these neurons, SpikingJelly's layer another.
        neuron = self._neuron(f"{own}talking_heads_lif", "attention_threshold")
        self.layers.append(Sdsa(f"{own}sdsa", (q, k, v), 1, heads, 1.0, neuron))
        proj = self._linear(named[f"{own}proj"], f"{own}sdsa", channels, channels)
        x = self._add(f"{own}residual", x, proj)
        if self.alone:
            return x
        hidden = len(self._matrix(named[f"{mlp}fc1"]))
        first = self._linear(named[f"{mlp}fc1"], self._lif(f"{mlp}fc1_lif", x), channels, hidden)
        if hidden == channels:
            first = x = self._add(f"{mlp}fc1_residual", x, first)
        second = self._linear(named[f"{mlp}fc2"], self._lif(f"{mlp}fc2_lif", first), hidden,
                              channels)  # fmt: skip
        return self._add(f"{mlp}residual", x, second)

    def _spikformer(
        self, i: int, x: str, channels: int, heads: int, named: Mapping[str, Projection]
    ) -> str:
        own, mlp = self._attention(i), f"{self._block(i)}mlp."
        if self.family == "spikingjelly":
            sources = self._parted(named[f"{own}qkv"], x, channels)
        else:
            sources = [self._linear(named[f"{own}{part}"], x, channels, channels) for part in "qkv"]
        q, k, v = (
            self._lif(f"{own}{part}_lif", source)
            for part, source in zip("qkv", sources, strict=True)
        )
        neuron = self._neuron(f"{own}attn_lif", "attention_threshold")
        self.layers.append(Sdsa(f"{own}sdsa", (q, k, v), 3, heads, SCALE, neuron))
        proj = self._linear(named[f"{own}proj"], f"{own}sdsa", channels, channels)
        spikes = self._lif(f"{own}proj_lif", proj)
        if self.alone:
            return spikes
        x = self._add(f"{own}residual", x, spikes)
        hidden = len(self._matrix(named[f"{mlp}fc1"]))
        first = self._linear(named[f"{mlp}fc1"], x, channels, hidden)
        first = self._lif(f"{mlp}fc1_lif", first)
        second = self._linear(named[f"{mlp}fc2"], first, hidden, channels)
        return self._add(f"{mlp}residual", x, self._lif(f"{mlp}fc2_lif", second))

    def _parted(self, p: Projection, source: str, channels: int) -> list[str]:
        """Add q, k and v, whose matrices lie in one; return their names."""
        weights, bias, side = self._numbers(p)
        if weights.shape != (3 * channels, channels) or side > 1:
            raise UserError(f"{p.matrix}.weight: want shape [{3 * channels}, {channels}, 1], got "
                            f"{list(self.state[f'{p.matrix}.weight'].shape)}")  # fmt: skip
        names = []
        for part, w, b in zip("qkv", np.split(weights, 3), np.split(bias, 3), strict=True):
            name = f"{p.name.removesuffix('qkv')}{part}"
            self.layers.append(Linear(name, (source,), w, b))
            names.append(name)
        return names
