"""What `encoder` and `transformer` are loaded with, as a network."""

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np


class Assembly:
    """Layers, put together as the settings of a top are taken in order.

    Weights lie output by output within a group of `lanes`, group by group, and in a group slice by
    slice of `columns` inputs, the layers one after another.

    Parameters
    ----------
    parameters : mapping
        The top's configuration.
    arrays : mapping
        ``weights``, ``bias``, ``threshold`` and ``shift``, of all layers one after another; and
        with SDSA-4 those in ``attention_threshold``, for which the parameter stands elsewhere.

    Attributes
    ----------
    layers : list of dict
        As `sim.golden.transformer` has them.
    own : dict of str to ndarray
        Their weights and biases.
    """

    def __init__(self, parameters: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        self.layers: list[dict[str, Any]] = []
        self.own: dict[str, np.ndarray] = {}
        self._parameters = parameters
        loaded = {"attention_threshold": itertools.repeat(parameters["attention_threshold"])}
        self._rest = {name: iter(array) for name, array in (loaded | dict(arrays)).items()}

    def take(self, name: str, *shape: int) -> np.ndarray:
        """Return the next settings of a kind."""
        count = int(np.prod(shape))
        return np.array(list(itertools.islice(self._rest[name], count)), np.int64).reshape(shape)

    def shift(self) -> int:
        """Return the next shift."""
        return int(self.take("shift", 1)[0])

    def matrix(self, i: int, o: int) -> np.ndarray:
        """Return the next weights [O, I]."""
        lanes, columns = self._parameters["lanes"], self._parameters["columns"]
        words = self.take("weights", o // lanes, i // columns, lanes, columns)
        return words.transpose(0, 2, 1, 3).reshape(o, i)

    def multiply(
        self, name: str, source: str, weights: np.ndarray, bias: np.ndarray, *, shift: int = 0
    ) -> str:
        """Add a matrix, and return its name, as all of these do."""
        self.own[f"{name}.weights"], self.own[f"{name}.bias"] = weights, bias
        self.layers.append({"name": name, "kind": "linear", "input": source, "shift": shift})
        return name

    def linear(self, name: str, source: str, i: int, o: int, *, shift: int = 0) -> str:
        """Add a matrix of the next weights and biases."""
        return self.multiply(name, source, self.matrix(i, o), self.take("bias", o), shift=shift)

    def saturate(self, name: str, *inputs: str) -> str:
        """Add the residual, a sum."""
        bits = self._parameters["residual_bits"]
        self.layers.append({"name": name, "kind": "add", "inputs": inputs, "bits": bits})
        return name

    def fire(self, source: str) -> str:
        """Add neurons with the next threshold."""
        name = f"{source}.spikes"
        self.layers.append({"name": name, "kind": "lif", "input": source,
                            "threshold": int(self.take("threshold", 1)[0]),
                            **neuron(self._parameters)})  # fmt: skip
        return name

    def block(self, name: str, residual: str) -> str:
        """Add a block behind a residual, from its first neurons to the residual behind it."""
        p = self._parameters
        channels, hidden = p["channels"], p["hidden"]
        spikes = self.fire(residual)
        if p["attention"] != "none":
            operands = "qv" if p["attention"] == "sdsa" and p["variant"] == 2 else "qkv"
            taken = {
                x: self.fire(self.linear(f"{name}.{x}", spikes, channels, channels))
                for x in operands
            }
            attention = f"{name}.attention"
            self.layers.append({"name": attention, **taken, **self._attention()})
            sums = self.linear(f"{name}.project", attention, channels, channels, shift=self.shift())
            residual = self.saturate(f"{name}.attended", residual, sums)
            spikes = self.fire(residual)
        if p["experts"]:
            sums = self.experts(f"{name}.mlp", spikes)
        else:
            wide = self.fire(self.linear(f"{name}.expand", spikes, channels, hidden))
            sums = self.linear(f"{name}.contract", wide, hidden, channels, shift=self.shift())
        return self.saturate(f"{name}.residual", residual, sums)

    def experts(self, name: str, source: str) -> str:
        """Add a router's matrix and neurons, and the sum of the experts' answers.

        The router's outputs fill groups and words of spikes; the first of them are experts.
        """
        p = self._parameters
        channels, hidden, count = p["channels"], p["hidden"], p["experts"]
        whole = math.lcm(p["lanes"], p["channels_per_beat"])
        self.fire(self.linear(f"{name}.route", source, channels, -(-count // whole) * whole))
        router = self.layers[-1]
        for part in ("weights", "bias"):
            self.own[f"{name}.{part}"] = self.own[f"{name}.route.{part}"][:count]
        found = []
        for e in range(count):
            begin = len(self.layers)
            wide = self.fire(self.linear(f"{name}.{e}.expand", "input", channels, hidden))
            self.fire(self.linear(f"{name}.{e}.contract", wide, hidden, channels))
            self.layers[-1]["channels"] = channels
            found.append(self.layers[begin:])
            del self.layers[begin:]
        self.layers.append({**router, "name": name, "kind": "moe", "input": source,
                            "experts": found, "routing": "mask", "overflow": "drop",
                            "capacity": p["tokens"], "shift": self.shift()})  # fmt: skip
        return name

    def _attention(self) -> dict[str, Any]:
        """Return the attention's entries. All blocks have one unit, so they draw in turn."""
        p = self._parameters
        if p["attention"] == "sdsa":
            threshold: int | list[int] = p["attention_threshold"]
            if p["variant"] == 4:
                threshold = self.take("attention_threshold", p["channels"]).tolist()
            masked = "v" if p["variant"] == 2 else "q"
            return {"kind": "sdsa", "variant": p["variant"], "masked": masked, "heads": p["heads"],
                    **neuron(p), "threshold": threshold}  # fmt: skip
        return {
            "kind": "attention", "causal": False, "source": "attention",
            **{name: p[name] for name in ("encoder", "rng", "heads", "seed", "reseed")},
        }  # fmt: skip


def neuron(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the neurons' entries; those that the configuration leaves to `lif` as it has them."""
    tau = parameters["tau"]
    exact = float(tau).is_integer() and not int(tau) & (int(tau) - 1)
    return {
        **{name: parameters[name] for name in ("tau", "decay_input", "reset", "fire")},
        "fraction_bits": 0 if tau in (1, 2) else 6,
        "decay_bits": int(tau).bit_length() - 1 if exact else 16,
    }
