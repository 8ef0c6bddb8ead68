"""Golden model of a whole spiking transformer, put together from those of the units.

A model is a folder with two files:

``model.json``
    ``format`` and ``schema``; ``name``; the sizes ``timesteps``, ``tokens``, ``channels``,
    ``heads``, ``head_dim``, ``classes``; ``input``, which has ``image`` (height and width),
    ``patch`` (the same of a token's part of it), ``low`` and ``high`` (of a pixel); and ``layers``.
``model.npz``
    The integers of the layers that have some: ``<layer>.weights`` [O, I] and ``<layer>.bias`` [O]
    or [N, O], which is one for each token.

Layers stand in an order in which they can be computed. Each has a ``name``, a ``kind``, and under
``input`` (``inputs``; ``q``, ``k``, ``v``) the names of those it takes; ``input`` is the tokens
themselves, of an image the same in every time step. What comes out of a layer is [T, N, C] for an
image:

=============  ===================================================================================
``linear``     ``(weights @ x + bias) << shift``, the bias in every time step. ``inputs`` and
               ``outputs`` are its channels; weights are signed numbers of ``weight_bits``, biases
               of ``bias_bits``
``lif``        spikes of neurons, one for each token and channel, cleared before each image: ``tau,
               decay_input, threshold, reset, fire, fraction_bits, decay_bits`` as in `lif`, and
               ``reset_delay`` where it is true; ``threshold`` is what U is compared with, U = 2h
               at tau 2
``sdsa``       ``q, k, v, variant, masked, heads`` and the neuron's as in `sdsa`; with variant 4
               ``threshold`` is a list, of each channel
``attention``  ``q, k, v, encoder, rng, heads, causal, seed, reseed`` as in `attention`; with the
               same ``source`` in several layers they draw in turn from one, and have one seed
``moe``        ``routing, overflow`` (and what these ask for: ``k``, ``fill``, ``capacity``) and
               the neuron's as in `moe`. ``inputs, outputs, weight_bits, bias_bits`` and the arrays
               are those of the scores, which have ``score_exponent``. ``experts`` holds a list of
               layers for each expert, whose ``input`` is the token; the last are neurons of as
               many ``channels`` as the token has. The sum over the experts is shifted left by
               ``shift``
``add``        the sum of its ``inputs``
``pool``       the sum over tokens, [T, 1, C]
``readout``    the sum over tokens and time steps, [C]: its greatest is the answer, ties to the
               lowest index. It is the last layer
=============  ===================================================================================

An expert works in the time steps in which it is given a token. In the others its neurons for that
token rest: nothing is added to their membranes and nothing leaks.

Two entries of ``linear``, ``moe``, ``add`` and ``pool`` are there for those who build or read, and
nothing is computed from them here: whatever the image, results lie in ``low..high``; and
``exponent`` says what an integer stands for in the real network, ``integer * 2**-exponent``. Both
inputs of an ``add`` have the same one. ``input`` may have an ``exponent`` as well.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sim.golden.assembly import Assembly
from sim.golden.attention import attention
from sim.golden.lif import lif
from sim.golden.moe import moe
from sim.golden.sdsa import sdsa

FORMAT = "spikewright transformer"
SCHEMA = 1

Values = dict[str, np.ndarray]
State = dict[str, tuple[int, int] | None]


def read(folder: Path) -> tuple[dict[str, Any], Values]:
    """Read a model.

    Parameters
    ----------
    folder : Path
        Holds ``model.json`` and ``model.npz``.

    Returns
    -------
    model : dict
    arrays : dict
        Weights and biases.

    Raises
    ------
    ValueError
        Where it is of another format, or an array is missing or unknown, of a wrong shape, not of
        integers or out of range; or thresholds are not those of all channels.
    """
    model = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    if (model.get("format"), model.get("schema")) != (FORMAT, SCHEMA):
        raise ValueError(
            f"{folder / 'model.json'}: want format {FORMAT!r} with schema {SCHEMA}, "
            f"got {model.get('format')!r} with {model.get('schema')!r}"
        )
    # Opened here: `np.load` leaves a file open that it can't read.
    with (folder / "model.npz").open("rb") as raw, np.load(raw, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    for layer in model["layers"]:
        axes = (model["channels"],) if layer.get("variant") == 4 else ()
        if layer["kind"] == "sdsa" and np.shape(layer["threshold"]) != axes:
            raise ValueError(f"model.json: want a threshold of shape {axes} in {layer['name']}, "
                             f"got {np.shape(layer['threshold'])}")  # fmt: skip
    matrices = weighted(model["layers"])
    known = {f"{x['name']}.{part}" for x in matrices for part in ("weights", "bias")}
    if unknown := sorted(arrays.keys() - known):
        raise ValueError(f"model.npz: unknown: {', '.join(unknown)}")
    for layer in matrices:
        shape = (layer["outputs"], layer["inputs"])
        want = {
            "weights": ([shape], layer["weight_bits"]),
            "bias": ([shape[:1], (model["tokens"], *shape[:1])], layer["bias_bits"]),
        }
        for part, (shapes, bits) in want.items():
            name = f"{layer['name']}.{part}"
            array = arrays.get(name)
            if array is None or array.shape not in shapes:
                raise ValueError(f"model.npz: want {name} of shape {shapes[-1]}, "
                                 f"got {'none' if array is None else array.shape}")  # fmt: skip
            if not np.issubdtype(array.dtype, np.integer):
                raise ValueError(f"model.npz: want integers in {name}, got {array.dtype}")
            if array.min() < -(1 << (bits - 1)) or array.max() >= 1 << (bits - 1):
                raise ValueError(f"model.npz: want {name} of {bits} bits, "
                                 f"got {array.min()}..{array.max()}")  # fmt: skip
    return model, arrays


def weighted(layers: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the layers that have weights, those of experts among them."""
    found = []
    for layer in layers:
        if layer["kind"] in ("linear", "moe"):
            found.append(layer)
        for expert in layer.get("experts", ()):
            found.extend(weighted(expert))
    return found


def spiking(layers: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the layers that put out spikes, those of experts among them."""
    found = []
    for layer in layers:
        if layer["kind"] in ("lif", "sdsa", "attention"):
            found.append(layer)
        for expert in layer.get("experts", ()):
            found.extend(spiking(expert))
    return found


def spikes_of(model: Mapping[str, Any], values: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the spikes of an image as a top puts them out.

    Layer by layer; tokens, time steps and channels, but of the attention time steps first.
    """
    return np.concatenate(
        [
            (x.swapaxes(0, 2) if layer["kind"] == "lif" else x).ravel()
            for layer in spiking(model["layers"])
            for x in [values[layer["name"]]]
        ]
    )


def transformer(
    parameters: Mapping[str, Any], arrays: Mapping[str, np.ndarray], state: State | None = None
) -> tuple[Values, State]:
    """Run one image through the top of this name.

    Parameters
    ----------
    parameters : mapping
        Its configuration.
    arrays : mapping
        ``patches`` [N, I] int; ``weights``, ``bias``, ``threshold`` and ``shift``, of all layers
        one after another, as `network_of` takes them apart; with SDSA-4 ``attention_threshold``,
        channels ascending, block by block, which the parameter stands for if it is left out.
    state : dict, optional
        The registers of the attention.

    Returns
    -------
    result : dict
        ``logits`` [classes] int, ``answer``, and ``spikes`` of each layer, one after another:
        [N, T, C], and [T, N, C] of the attention.
    state : dict
    """
    model, own = network_of(parameters, arrays)
    steps, planes = parameters["timesteps"], np.arange(parameters["input_bits"])
    bits = np.concatenate(np.asarray(arrays["patches"]) >> planes[:, None, None] & 1, axis=-1)
    tokens = np.broadcast_to(bits, (steps, 1, *bits.shape))
    values, state = network(model, {**own, "tokens": tokens}, state)
    logits = values["logits"][0, : parameters["classes"]]
    result = {
        "logits": logits,
        "answer": np.asarray(logits.argmax()),
        "spikes": spikes_of(model, values),
    }
    return result, state


def network_of(
    parameters: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> tuple[dict[str, Any], Values]:
    """Return the network that a configuration of the top is, with its weights and biases.

    Weights lie output by output within a group of `lanes`, group by group, and in a group slice by
    slice of `columns` inputs; the layers one after another: embedding, then for each block those
    of q, k and v that its attention takes, the projection, and the two of the MLP, or the router's
    and those of each expert, then the head. What sizes are filled up with has weights as well.

    The inputs of the network are the bits of those of the top, the lowest of all of them first:
    the residual, which saturates, is added up bit by bit, and the bias is that of the lowest.
    """
    p = parameters
    inputs = -(-p["features"] // p["channels_per_beat"]) * p["channels_per_beat"]
    a = Assembly(p, arrays)
    scale = a.shift()
    weights = a.matrix(inputs, p["channels"])
    bias = a.take("bias", p["tokens"], p["channels"])
    planes = p["input_bits"]
    residual = ""
    for plane in range(planes):
        name = f"embed.{plane}"
        matrix = np.zeros((p["channels"], planes * inputs), np.int64)
        matrix[:, plane * inputs : (plane + 1) * inputs] = weights
        a.multiply(name, "input", matrix, bias * (plane == 0), shift=scale + plane)
        residual = a.saturate(f"{name}.residual", *([residual] if residual else []), name)
    for block in range(p["blocks"]):
        residual = a.block(f"blocks.{block}", residual)
    classes = -(-p["classes"] // p["lanes"]) * p["lanes"]
    a.linear("head", a.fire(residual), p["channels"], classes)
    a.layers.append({"name": "logits", "kind": "readout", "input": "head"})
    return {"timesteps": p["timesteps"], "layers": a.layers}, a.own


def network(
    parameters: Mapping[str, Any], arrays: Mapping[str, np.ndarray], state: State | None = None
) -> tuple[Values, State]:
    """Run a batch of images, one after another.

    Parameters
    ----------
    parameters : mapping
        The model.
    arrays : mapping
        Its weights and biases, and ``image`` [B, height, width] int; or ``tokens`` [T, B, N, I]
        int, where those are not the same in every time step.
    state : dict, optional
        The registers of each `attention`, by the layer's name; those after reset if left out.

    Returns
    -------
    result : dict
        What comes out of each layer, by its name: [T, B, N, C] int; the last is [B, C]. Spikes of
        an expert are 0 in the time steps in which a token is not given to it; its other layers are
        not among them.
    state : dict
        The registers behind the last image.
    """
    if "tokens" in arrays:
        values = {"input": np.asarray(arrays["tokens"], np.int64)}
    else:
        tokens = patches(parameters, arrays["image"])
        values = {"input": np.broadcast_to(tokens, (parameters["timesteps"], *tokens.shape))}
    state = dict(state or {})
    layers = parameters["layers"]
    if any("source" in layer for layer in layers):  # image by image, layers draw in turn
        images = []
        for image in np.split(values["input"], values["input"].shape[1], axis=1):
            images.append({"input": image})
            _run(layers, arrays, images[-1], state)
        for name in images[0]:
            axis = 0 if images[0][name].ndim == 2 else 1
            values[name] = np.concatenate([one[name] for one in images], axis)
    else:
        _run(layers, arrays, values, state)
    del values["input"]
    return values, state


def patches(parameters: Mapping[str, Any], images: np.ndarray) -> np.ndarray:
    """Return the tokens [B, N, I] of images: their patches and what is in these, row by row."""
    height, width = parameters["input"]["patch"]
    rows, columns = (side // p for side, p in zip(images.shape[1:], (height, width), strict=True))
    cut = np.asarray(images, np.int64).reshape(-1, rows, height, columns, width)
    return cut.swapaxes(2, 3).reshape(len(images), rows * columns, height * width)


def _run(
    layers: Sequence[Mapping[str, Any]],
    arrays: Mapping[str, np.ndarray],
    values: Values,
    state: State,
) -> None:
    for layer in layers:
        name, kind = layer["name"], layer["kind"]
        if kind in ("sdsa", "attention"):
            operands = {name: values[layer[name]] for name in "qkv" if name in layer}
            if kind == "sdsa":
                values[name] = _sdsa(layer, operands)
            else:
                source = layer.get("source", name)
                values[name], state[source] = _attention(layer, operands, state.get(source))
        elif kind == "add":
            values[name] = sum((values[one] for one in layer["inputs"][1:]),
                               start=values[layer["inputs"][0]])  # fmt: skip
            if "bits" in layer:
                top = 1 << (layer["bits"] - 1)
                values[name] = np.clip(values[name], -top, top - 1)
        else:
            x = values[layer["input"]]
            if kind == "moe":
                values[name] = _moe(layer, arrays, x, values, state)
            elif kind == "linear":
                values[name] = _linear(layer, arrays, x)
            elif kind == "lif":
                spikes = _lif(layer, x.reshape(len(x), -1))
                values[name] = spikes.reshape(x.shape).astype(np.int64)
            elif kind == "pool":
                values[name] = x.sum(axis=2, keepdims=True)
            elif kind == "readout":
                values[name] = x.sum(axis=(0, 2))
            else:
                raise ValueError(f"{name}: no kind of layer {kind!r}")


def _linear(layer: Mapping[str, Any], arrays: Mapping[str, np.ndarray], x: np.ndarray) -> Any:
    # In float64 for speed: numpy multiplies matrices of integers one by one. Sums stay below
    # 2^53, so they are exact in any order.
    weights, bias = (
        np.asarray(arrays[f"{layer['name']}.{part}"], np.float64) for part in ("weights", "bias")
    )
    return (x.astype(np.float64) @ weights.T + bias).astype(np.int64) << layer["shift"]


def _lif(layer: Mapping[str, Any], current: np.ndarray) -> np.ndarray:
    neurons = {"reset_delay": False, **layer, "bias": 0}
    # One for each neuron: `lif` is slow in repeating a few of them over many neurons.
    settings = {name: np.full(current.shape[1], neurons[name]) for name in ("threshold", "bias")}
    return lif(neurons, {"current": current, **settings})[0]["spikes"]


def _sdsa(layer: Mapping[str, Any], operands: Values) -> np.ndarray:
    steps, batch, tokens, channels = operands["q"].shape
    # Images are to each other as heads are.
    arrays = {
        name: x.swapaxes(1, 2).reshape(steps, tokens, batch * channels)
        for name, x in operands.items()
    }
    if layer["variant"] == 4:
        arrays["threshold"] = np.tile(layer["threshold"], batch)
    parameters = {**layer, "heads": batch * layer["heads"], "pool": False}
    out = sdsa(parameters, arrays)[0]["out"].astype(np.int64)
    return out.reshape(steps, tokens, batch, channels).swapaxes(1, 2)


def _attention(layer: Mapping[str, Any], operands: Values, state: Any) -> tuple[np.ndarray, Any]:
    steps, batch, tokens, channels = operands["q"].shape
    arrays = {
        name: x.swapaxes(0, 1).reshape(batch * steps, tokens, channels)
        for name, x in operands.items()
    }
    # Nothing but the draws runs over time steps, so images whose draws run on make one inference.
    alone = layer["reseed"] or layer["rng"] == "sobol"
    stretch = steps if alone else batch * steps
    out = []
    for begin in range(0, batch * steps, stretch):
        own = {name: x[begin : begin + stretch] for name, x in arrays.items()}
        result, state = attention(layer, own, state)
        out.append(result["out"].astype(np.int64))
    return np.concatenate(out).reshape(batch, steps, tokens, channels).swapaxes(0, 1), state


def _moe(
    layer: Mapping[str, Any], arrays: Mapping[str, np.ndarray], x: np.ndarray, values: Values,
    state: State,
) -> np.ndarray:  # fmt: skip
    batch = x.shape[1]
    weights, bias = (arrays[f"{layer['name']}.{part}"] for part in ("weights", "bias"))
    mask, out = [], []
    for b in range(batch):
        scored = {"tokens": x[:, b], "weights": weights, "bias": bias}
        mask.append(moe(layer, scored)[0]["mask"])
    given = np.stack(mask, axis=1)  # [T, B, N, E]
    for e, expert in enumerate(layer["experts"]):
        # The time steps in which a token comes, first; what is behind them is not looked at.
        order = np.argsort(given[..., e] == 0, axis=0, kind="stable")[..., np.newaxis]
        own = {"input": np.take_along_axis(x, order, axis=0)}
        _run(expert, arrays, own, state)
        for inner in spiking(expert):
            bits = np.zeros_like(own[inner["name"]])
            np.put_along_axis(bits, order, own[inner["name"]], axis=0)
            values[inner["name"]] = bits * given[..., e, np.newaxis]
        out.append(values[expert[-1]["name"]])
    answers = np.stack(out, axis=3)  # [T, B, N, E, D]
    merged = [
        moe(layer, {"tokens": x[:, b], "weights": weights, "bias": bias,
                    "expert_out": answers[:, b]})[0]["merged"]
        for b in range(batch)
    ]  # fmt: skip
    return np.stack(merged, axis=1) << layer["shift"]
