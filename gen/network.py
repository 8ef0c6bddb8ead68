"""A trained network as a configuration of `transformer`, and as the arrays that it takes."""

import io
import json
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np
from amaranth.utils import bits_for

from gen.emit import emit, write
from gen.errors import Command, UserError
from gen.models.form import check
from gen.options import parsed
from hw.config import ConfigError
from hw.transformer import TransformerConfig

Layer = Mapping[str, Any]
Arrays = dict[str, np.ndarray]

NEURONS = ("lif", "sdsa", "moe")
"""Kinds of layers that have neurons."""

NEURON = ("tau", "decay_input", "reset", "fire")
EXACT = ("fraction_bits", "decay_bits")
"""What all neurons of a network have in common; the second follow from the first in the top."""

ATTENTION = {"sdsa": ("variant",), "attention": ("encoder", "rng", "reseed")}
"""What the attention of all blocks has in common, by kind of layer."""


ROOM = ("input_bits", "weight_bits", "bias_bits", "threshold_bits", "shift_bits")
"""What a configuration may have more of than a model needs."""


class _Layers:
    """The layers of a model, taken in an order in which the top computes them."""

    def __init__(self, model: Mapping[str, Any]) -> None:
        self._rest = list(model["layers"])
        self.taken: list[Layer] = []

    def __len__(self) -> int:
        """Layers that are left."""
        return len(self._rest)

    def enter(self, inner: Iterable[Layer]) -> None:
        """Take the layers within one before what is behind it."""
        self._rest[:0] = inner

    def take(self, kind: str, **takes: Any) -> Layer:
        """Return the next layer, which has to be of a kind and to take what it should."""
        if not self._rest:
            raise UserError(f"the model: transformer wants a layer of kind {kind} at its end")
        layer: Layer = self._rest.pop(0)
        if layer["kind"] != kind:
            raise UserError(
                f"{layer['name']}: transformer wants a layer of kind {kind}, got {layer['kind']}"
            )
        for entry, want in takes.items():
            if layer[entry] != want:
                raise UserError(
                    f"{layer['name']}: transformer wants {want} as its {entry}, got {layer[entry]}"
                )
        self.taken.append(layer)
        return layer

    def common(self, kinds: tuple[str, ...], entries: tuple[str, ...]) -> dict[str, Any]:
        """Return entries that all layers of some kinds have in common."""
        found: dict[str, Any] = {}
        for layer in self.taken:
            for entry in entries if layer["kind"] in kinds else ():
                if found.setdefault(entry, layer[entry]) != layer[entry]:
                    raise UserError(
                        f"{layer['name']}: transformer wants one {entry} in all layers, "
                        f"got {layer[entry]} beside {found[entry]}"
                    )
        return found


def top_of(
    model: Mapping[str, Any], arrays: Mapping[str, np.ndarray], **settings: Any
) -> tuple[TransformerConfig, Arrays]:
    """Return the configuration that computes a model, and its settings as arrays.

    The blocks share one attention unit. With `attention` they draw from its random source in turn:
    the seed is that of the first block.

    Parameters
    ----------
    model : mapping
        As ``sim/golden/transformer.py`` has it.
    arrays : mapping
        Its weights and biases.
    **settings
        Parameters of the configuration: `lanes` and others that do not follow from the model, and
        those of which there may be more than it needs.

    Returns
    -------
    config : TransformerConfig
    arrays : dict
        ``weights``, ``bias``, ``threshold`` and ``shift``; of SDSA-4 ``attention_threshold``.

    Raises
    ------
    UserError
        It has a layer that `transformer` does not have, or not there; or `settings` are not the
        model's.
    """
    layers = _Layers(model)
    matrices: list[Layer] = []
    thresholds: list[int] = []
    shifts: list[int] = []
    hidden: list[int] = []
    counts: set[int] = set()

    def linear(source: Layer | str, *, scaled: bool = False) -> Layer:
        layer = layers.take("linear", input=source if isinstance(source, str) else source["name"])
        matrices.append(layer)
        if scaled:
            shifts.append(layer["shift"])
        elif layer["shift"]:
            raise UserError(
                f"{layer['name']}: transformer shifts what goes into the residual alone, "
                f"got a shift of {layer['shift']}"
            )
        return layer

    def fires(source: Layer) -> Layer:
        layer = layers.take("lif", input=source["name"])
        if layer.get("reset_delay"):
            raise UserError(f"{layer['name']}: transformer has no delayed reset")
        thresholds.append(layer["threshold"])
        return layer

    def perceptron(source: Layer) -> Layer:
        wide = linear(source)
        hidden.append(wide["outputs"])
        return linear(fires(wide), scaled=True)

    def experts(source: Layer) -> Layer:
        moe = layers.take("moe", input=source["name"], routing="mask", overflow="drop")
        if moe["capacity"] < model["tokens"]:
            raise UserError(
                f"{moe['name']}: transformer gives an expert all tokens that choose it, "
                f"got a capacity of {moe['capacity']}"
            )
        matrices.append(moe)
        thresholds.append(moe["threshold"])
        for own in moe["experts"]:
            layers.enter(own)
            wide = linear("input")
            hidden.append(wide["outputs"])
            fires(linear(fires(wide)))
        shifts.append(moe["shift"])
        counts.add(len(moe["experts"]))
        return moe

    def added(residual: Layer, sums: Layer) -> Layer:
        return layers.take("add", inputs=[residual["name"], sums["name"]])

    kinds = {layer["kind"] for layer in model["layers"]}
    attention = next((kind for kind in ATTENTION if kind in kinds), "none")
    operands = "qv" if attention == "sdsa" and _variant(model) == 2 else "qkv"
    residual = linear("input", scaled=True)
    spikes = fires(residual)
    blocks = 0
    while len(layers) > 2:
        if attention != "none":
            taken = {name: fires(linear(spikes))["name"] for name in operands}
            out = layers.take(attention, **taken, heads=model["heads"])
            residual = added(residual, linear(out, scaled=True))
            spikes = fires(residual)
        residual = added(residual, experts(spikes) if "moe" in kinds else perceptron(spikes))
        spikes = fires(residual)
        blocks += 1
    layers.take("readout", input=linear(spikes)["name"])
    if len(counts) > 1:
        raise UserError(
            "the model: transformer wants as many experts in all blocks, got "
            + " and ".join(map(str, sorted(counts)))
        )

    most = max(abs(edge) for layer in (*matrices, *layers.taken) for edge in _edges(layer))
    found = {
        **{name: model[name] for name in ("timesteps", "tokens", "channels", "heads", "classes")},
        "features": matrices[0]["inputs"], "input_bits": bits_for(model["input"]["high"]),
        "blocks": blocks, "hidden": max(hidden), "experts": max(counts, default=0),
        "attention": {"attention": "ssa"}.get(attention, attention),
        **layers.common(NEURONS, NEURON),
        **layers.common((attention,), ATTENTION.get(attention, ())),
        **{name: max(m[name] for m in matrices) for name in ("weight_bits", "bias_bits")},
        "threshold_bits": max(bits_for(max(thresholds)), 1),
        "shift_bits": bits_for(max(shifts)) if any(shifts) else 0,
    }  # fmt: skip
    room: tuple[str, ...] = ROOM
    own: Arrays = {}
    if attention == "sdsa" and found["variant"] == 4:
        loaded = np.concatenate([x["threshold"] for x in layers.taken if x["kind"] == "sdsa"])
        own["attention_threshold"] = loaded.astype(np.int64)
        found["attention_threshold"] = int(loaded.max())
        room += ("attention_threshold",)
    elif attention == "sdsa":
        found["attention_threshold"] = layers.common(("sdsa",), ("threshold",))["threshold"]
    if attention == "attention":
        found["seed"] = next(x["seed"] for x in layers.taken if x["kind"] == attention)
    for name, value in found.items():
        asked = settings.get(name, value)
        if asked < value if name in room else asked != value:
            least = "at least " if name in room else ""
            raise UserError(f"{name}: the model takes {least}{value}, got {asked}")
    try:
        config = TransformerConfig(**{**found, **settings})
        least = bits_for(most, True)
        if config.residual_bits < least and "residual_bits" in settings:
            raise UserError(
                f"residual_bits: the model takes at least {least}, got {config.residual_bits}"
            )
        if config.residual_bits < least:
            config = TransformerConfig(**{**found, "residual_bits": least, **settings})
    except ConfigError as wrong:
        raise UserError(str(wrong)) from wrong
    if "low" in model["input"] and model["input"]["low"] < 0:
        raise UserError(f"input: transformer wants numbers from 0 on, got {model['input']['low']}")
    exact = {name: getattr(config.neuron, name) for name in EXACT}
    for name, value in layers.common(NEURONS, EXACT).items():
        if value != exact[name]:
            raise UserError(f"{name}: transformer has {exact[name]}, the model {value}")
    return config, _packed(config, matrices, arrays, thresholds, shifts) | own


def patches(config: TransformerConfig, tokens: np.ndarray) -> np.ndarray:
    """Return tokens [..., N, I] filled up to the whole beats of a configuration."""
    idle = config.beat_features - tokens.shape[-1]
    return np.pad(tokens, [(0, 0)] * (tokens.ndim - 1) + [(0, idle)])


def spikes_of(config: TransformerConfig, spikes: np.ndarray) -> dict[str, np.ndarray]:
    """Return what the array ``spikes`` of the top's results holds of each layer, [T, N, C].

    The layers are called by their passes, ``embed`` and ``blocks.0.q``; those of the neurons behind
    the sums of a block are ``blocks.0.project`` and ``blocks.0.contract``. With experts there are
    ``blocks.0.route``, filled up, ``blocks.0.expand.0`` and so on, and ``blocks.0.merge``.
    """
    block = [layer.name for layer in config.schedule.block]
    names = [
        f"{name}.{block[:i].count(name)}" if block.count(name) > 1 else name
        for i, name in enumerate(block)
    ]
    names = ["embed", *(f"blocks.{b}.{name}" for b in range(config.blocks) for name in names)]
    out = {}
    rest = spikes.reshape(-1)
    for name, layer in zip(names, config.schedule.layers[:-1], strict=True):
        shape = (config.timesteps, config.tokens, layer.outputs or config.channels)
        size = int(np.prod(shape))
        own, rest = rest[:size], rest[size:]
        if not layer.attends:  # neurons: all time steps of a token, then the next one
            own = own.reshape(shape[1], shape[0], shape[2]).swapaxes(0, 1)
        out[name] = own.reshape(shape)
    return out


def _variant(model: Mapping[str, Any]) -> int:
    return next(int(layer["variant"]) for layer in model["layers"] if layer["kind"] == "sdsa")


def _edges(layer: Layer) -> tuple[int, ...]:
    """Return the bounds of what goes into the residual."""
    return (layer["low"], layer["high"]) if "low" in layer else ()


def _packed(
    config: TransformerConfig, matrices: list[Layer], arrays: Mapping[str, np.ndarray],
    thresholds: list[int], shifts: list[int],
) -> Arrays:  # fmt: skip
    """Return settings in the order in which the top takes them."""
    schedule = config.schedule
    weights, biases = [], []
    for layer, step in zip(matrices, schedule.multiplied, strict=True):
        matrix = np.asarray(arrays[f"{layer['name']}.weights"], np.int64)
        bias = np.asarray(arrays[f"{layer['name']}.bias"], np.int64)
        if step.residual == "kept":
            bias = np.broadcast_to(bias, (config.tokens, bias.shape[-1]))
        outputs, inputs = matrix.shape
        more = step.outputs - outputs
        matrix = np.pad(matrix, ((0, more), (0, step.inputs - inputs)))
        bias = np.pad(bias, [(0, 0)] * (bias.ndim - 1) + [(0, more)])
        groups, slices = schedule.groups(step), schedule.slices(step)
        words = matrix.reshape(groups, config.lanes, slices, config.columns)
        weights.append(words.transpose(0, 2, 1, 3).ravel())
        biases.append(bias.ravel())
    return {
        "weights": np.concatenate(weights),
        "bias": np.concatenate(biases),
        "threshold": np.array(thresholds, np.int64),
        "shift": np.array(shifts, np.int64),
    }


def model_of(folder: Path) -> tuple[dict[str, Any], Arrays]:
    """Return a trained network and its arrays.

    Raises
    ------
    UserError
        It is not there, or is not what its schema says.
    """
    # Not at the top: golden models are for checks, and this reads their format.
    from sim.golden.transformer import read

    try:
        check(json.loads((folder / "model.json").read_text(encoding="utf-8")))
        return read(folder)
    except OSError as wrong:
        raise UserError(f"can't read {wrong.filename or folder}: {wrong.strerror}") from wrong
    except (ValueError, EOFError, zipfile.BadZipFile) as wrong:
        raise UserError(f"can't read {folder}: {wrong}") from wrong


@click.command(cls=Command)
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--set", "settings", metavar="NAME=VALUE", multiple=True,
              help="A parameter that does not follow from the model.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), default=Path("build/network"),
              show_default=True, help="Folder of what is written.")  # fmt: skip
@click.option("--name", help="Of the module and its files.  [default: transformer]")
def main(model: Path, settings: tuple[str, ...], out: Path, name: str | None) -> None:
    """Write the Verilog of the top that computes a trained network, and its weights.

    MODEL is a folder with model.json and model.npz, as `python -m gen import` writes it.
    """
    config, arrays = top_of(*model_of(model), **parsed("transformer", settings))
    packed = io.BytesIO()
    np.savez_compressed(packed, allow_pickle=False, **arrays)
    emission = emit("transformer", config, name=name)
    write({**emission.files, "settings.npz": packed.getvalue()}, out)
    click.echo(f"{out}: {emission.name}.v, {config.cycles} clocks an image; settings.npz")


if __name__ == "__main__":
    main(prog_name="python -m gen.network")
