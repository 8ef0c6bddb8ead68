"""Make a trained network integer: ``python -m examples.digits.quantise --float DIR --out DIR``.

Batch normalisation goes into weights and biases. Each matrix has a scale of its own, the greatest
power of two at which its weights fit; thresholds and biases are brought to the same scale. What is
added to the residual is shifted left to the finest of the scales among its addends, which is that
of the residual in all blocks: nothing is lost there, and neurons take it with one threshold. Where
the residual could leave its 16 bits that scale is made coarser, which rounds some weights more.
"""

import argparse
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gen.models.rounding import (
    BITS,
    EPSILON,
    FORMAT,
    RESIDUAL_BITS,
    SCHEMA,
    exponent,
    files,
    fold,
    linear,
    ranges,
    rounded,
)

__all__ = ["BITS", "EPSILON", "Builder", "exponent", "folded", "load", "neuron", "quantise",
           "rounded", "write"]  # fmt: skip

BRIGHTEST = 16  # the pixel that the network was trained to see as 1
TAU = 2
V_THRESHOLD = 1.0
ATTENTION_V_THRESHOLD = 0.5
PRODUCT_SCALE = 0.125
ATTENTION_SEED = 1

ADDENDS = (".attention.out.linear.weight", ".mlp.second.linear.weight")
"""How the names of the matrices end that are added to the residual."""

Floats = Mapping[str, np.ndarray]


def folded(state: Floats, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return (weights [O, I], bias [O]) of a matrix and the batch normalisation behind it.

    Parameters
    ----------
    state : mapping
        ``<name>.linear.weight`` and ``<name>.bn.weight, bias, running_mean, running_var``.
    name : str
    """
    parts = ("linear.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var")
    return fold(*(state[f"{name}.{part}"].astype(np.float64) for part in parts))


def neuron(e: int, v_threshold: float = V_THRESHOLD, scale: float = 1.0) -> dict[str, Any]:
    """Return the parameters of neurons whose current has the exponent `e`.

    `scale` is between the current and the neuron of the trained network.
    """
    return {
        "tau": TAU,
        "decay_input": True,
        "threshold": math.ceil(TAU * v_threshold / scale * 2**e),
        "reset": "hard",
        "fire": "ge",
        "fraction_bits": 0,
        "decay_bits": 1,
    }


class Builder:
    """Puts the layers of an integer model together.

    Parameters
    ----------
    state : mapping
        The trained parameters.
    bits : int
        Of the weights.
    finest : int
        The exponent of the residual; no matrix that is added to it has a greater one.
    """

    def __init__(self, state: Floats, bits: int, finest: int) -> None:
        self.state, self.bits, self.finest = state, bits, finest
        self.layers: list[dict[str, Any]] = []
        self.arrays: dict[str, np.ndarray] = {}
        self.residual: dict[str, Any] = {}

    def linear(
        self,
        name: str,
        source: str,
        weights: np.ndarray,
        bias: np.ndarray,
        bounds: tuple[int, int] = (0, 1),
        residual: bool = False,
    ) -> dict[str, Any]:
        """Return a linear layer, its arrays taken in; for the `residual` it is shifted."""
        e = exponent(weights, self.bits)
        if residual:
            e = min(e, self.finest)
        shift = self.finest - e if residual else 0
        whole, offset = rounded(weights, e), rounded(bias, e)
        low, high = ranges(whole, offset, *bounds)
        self.arrays[f"{name}.weights"] = whole.astype(np.int8)
        self.arrays[f"{name}.bias"] = offset.astype(np.int32)
        return linear(name, source, whole, offset, bits=self.bits, shift=shift, exponent=e + shift,
                      low=low, high=high)  # fmt: skip

    def lif(self, name: str, source: Mapping[str, Any], channels: int) -> dict[str, Any]:
        """Return neurons for the current that comes out of the layer `source`."""
        own = {"name": name, "kind": "lif", "input": source["name"], "channels": channels}
        return own | neuron(source["exponent"])

    def add(self, layer: dict[str, Any]) -> None:
        """Add what comes out of a layer to the residual; the first one is the residual."""
        self.layers.append(layer)
        if not self.residual:
            self.residual = layer
            return
        self.residual = {
            "name": f"{layer['name']}.residual",
            "kind": "add",
            "inputs": [self.residual["name"], layer["name"]],
            "exponent": self.finest,
            "low": self.residual["low"] + layer["low"],
            "high": self.residual["high"] + layer["high"],
        }
        self.layers.append(self.residual)

    def spikes(self, name: str, channels: int) -> str:
        """Put neurons behind the residual and return their name."""
        self.layers.append(self.lif(name, self.residual, channels))
        return name


def quantise(
    state: Floats, record: Mapping[str, Any], bits: int = 8, most_shift: int = 15
) -> tuple[dict, dict]:
    """Return the integer model of a trained network.

    Parameters
    ----------
    state : mapping
        The trained parameters by PyTorch's names.
    record : mapping
        ``model``, the kind of network, and ``sizes``.
    bits : int
        Of the weights.
    most_shift : int
        The most that sums are shifted to the scale of the residual, which is made coarser if need
        be; hardware with `shift_bits` does ``2^shift_bits - 1``.

    Returns
    -------
    model : dict
        What ``model.json`` holds.
    arrays : dict
        What ``model.npz`` holds.
    """
    names = [name.removesuffix(".linear.weight") for name in state if name.endswith(ADDENDS)]
    finest = max(
        exponent(folded(state, "embed")[0] / BRIGHTEST, bits),
        *(exponent(folded(state, name)[0], bits) for name in names),
    )
    limit = 1 << (RESIDUAL_BITS - 1)
    while True:
        b = Builder(state, bits, finest)
        _network(b, record["model"], record["sizes"])
        shifted = max(layer.get("shift", 0) for layer in b.layers)
        # The last sum has the widest bounds.
        if -limit <= b.residual["low"] and b.residual["high"] < limit and shifted <= most_shift:
            break
        finest -= 1
    sizes = record["sizes"]
    model = {
        "format": FORMAT,
        "schema": SCHEMA,
        "name": record["model"],
        "timesteps": sizes["timesteps"],
        "tokens": sizes["tokens"],
        "channels": sizes["channels"],
        "heads": sizes["heads"],
        "head_dim": sizes["channels"] // sizes["heads"],
        "classes": len(state["head.bias"]),
        "input": {"image": [8, 8], "patch": [2, 2], "low": 0, "high": BRIGHTEST},
        "layers": b.layers,
    }
    return model, b.arrays


def _network(b: Builder, kind: str, sizes: Mapping[str, int]) -> None:
    channels = sizes["channels"]
    weights, bias = folded(b.state, "embed")
    bias = bias + b.state["position"].astype(np.float64)
    b.add(b.linear("embed", "input", weights / BRIGHTEST, bias, (0, BRIGHTEST), residual=True))
    for i in range(sizes["blocks"]):
        name = f"blocks.{i}"
        if f"{name}.attention.qkv.bn.bias" in b.state:
            _attention(b, kind, sizes, f"{name}.attention")
        spikes = b.spikes(f"{name}.spikes", channels)
        if kind == "moe":
            b.add(_experts(b, sizes, f"{name}.mlp", spikes))
        else:
            first = b.linear(f"{name}.mlp.first", spikes, *folded(b.state, f"{name}.mlp.first"))
            hidden = b.lif(f"{name}.mlp.spikes", first, sizes["hidden"])
            second = folded(b.state, f"{name}.mlp.second")
            b.layers += [first, hidden]
            b.add(b.linear(f"{name}.mlp.second", hidden["name"], *second, residual=True))
    spikes = b.spikes("spikes", channels)
    head = (b.state["head.weight"].astype(np.float64), b.state["head.bias"].astype(np.float64))
    b.layers.append(b.linear("head", spikes, *head))
    b.layers.append({"name": "logits", "kind": "readout", "input": "head"})


def _attention(b: Builder, kind: str, sizes: Mapping[str, int], name: str) -> None:
    channels, heads = sizes["channels"], sizes["heads"]
    source = b.spikes(f"{name}_spikes", channels)
    weights, bias = folded(b.state, f"{name}.qkv")
    operands = {}
    for i, operand in enumerate("qkv"):
        own = slice(i * channels, (i + 1) * channels)
        layer = b.linear(f"{name}.{operand}", source, weights[own], bias[own])
        spikes = b.lif(f"{name}.{operand}_spikes", layer, channels)
        b.layers += [layer, spikes]
        operands[operand] = spikes["name"]
    unit: dict[str, Any] = {"name": f"{name}.bits", **operands, "heads": heads}
    if kind == "ssa":
        # As in hardware, where the blocks share a unit.
        unit |= {"kind": "attention", "encoder": "sample", "rng": "lfsr", "causal": False,
                 "seed": ATTENTION_SEED, "reseed": False, "source": "attention"}  # fmt: skip
    elif kind == "sdsa3":
        unit |= {"kind": "sdsa", "variant": 3, "masked": None}
        unit |= neuron(0, ATTENTION_V_THRESHOLD, PRODUCT_SCALE)
    else:
        unit |= {"kind": "sdsa", "variant": 1, "masked": "q"} | neuron(0, ATTENTION_V_THRESHOLD)
    b.layers.append(unit)
    out = folded(b.state, f"{name}.out")
    b.add(b.linear(f"{name}.out", unit["name"], *out, residual=True))


def _experts(b: Builder, sizes: Mapping[str, int], name: str, source: str) -> dict[str, Any]:
    channels, count = sizes["channels"], sizes["experts"]
    hidden = sizes["hidden"] // count
    first, first_bias = folded(b.state, f"{name}.first")
    experts = []
    for e in range(count):
        own = slice(e * hidden, (e + 1) * hidden)
        inner = b.linear(f"{name}.{e}.first", "input", first[own], first_bias[own])
        bits = b.lif(f"{name}.{e}.hidden", inner, hidden)
        outer = b.linear(f"{name}.{e}.second", bits["name"],
                         *folded(b.state, f"{name}.second.{e}"))  # fmt: skip
        experts.append([inner, bits, outer, b.lif(f"{name}.{e}.spikes", outer, channels)])
    scores = b.linear(name, source, *folded(b.state, f"{name}.router"))
    return (
        scores
        | {"kind": "moe", "routing": "mask", "overflow": "drop", "capacity": sizes["tokens"]}
        | neuron(scores["exponent"])
        | {"score_exponent": scores["exponent"], "shift": b.finest,
           "exponent": b.finest, "low": 0, "high": count << b.finest,
           "experts": experts}
    )  # fmt: skip


def write(folder: Path, model: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Write a model, the same bytes for the same model."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files(model, arrays).items():
        data = content.encode("utf-8") if isinstance(content, str) else content
        (folder / name).write_bytes(data)


def load(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return what training wrote: the parameters, and the record of how they came about."""
    with np.load(folder / "float.npz", allow_pickle=False) as file:
        state = {name: file[name] for name in file.files}
    return state, json.loads((folder / "float.json").read_text(encoding="utf-8"))


def main() -> None:
    """Make a trained network integer."""
    parser = argparse.ArgumentParser(description="Make a trained network integer.")
    parser.add_argument("--float", type=Path, required=True, help="folder that training wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--bits", type=int, choices=BITS, default=8, help="of weights")
    parser.add_argument("--most-shift", type=int, choices=range(16), default=15,
                        help="of what goes into the residual")  # fmt: skip
    args = parser.parse_args()
    try:
        state, record = load(args.float)
    except OSError as error:
        parser.error(f"--float: {error}")
    if record["model"] == "ann":
        parser.error("--float: want a network of spikes, got ann")
    write(args.out, *quantise(state, record, args.bits, args.most_shift))


if __name__ == "__main__":
    main()
