"""``python -m bench.energy``: synaptic operations of the digits networks, and energy by constants.

Counts on the held-out originals, stores ``bench/studies/energy.json`` and writes the tables of
``docs/energy.md`` from it. The ratios that papers give are computed again from their sizes and
rates.
"""

import collections
import hashlib
import json
import math
import platform
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click
import numpy as np

from bench.study import Study, save_study
from bench.table import ROOT, filled, markdown
from examples.digits import data
from examples.digits.evaluate import CHUNK, HARDWARE, TITLES, TRAINED, variants
from gen.emit import write
from gen.errors import CheckFailed, Command
from sim.activity import E_ADD, E_MAC
from sim.golden.attention import count_skews, draws, moved
from sim.golden.moe import moe
from sim.golden.transformer import State, network, patches, weighted

STUDY = "energy"

PAGE = ROOT / "docs" / "energy.md"

KINDS = {
    "mac": "multiplication of an integer by a weight, with addition",
    "serial": "the same in additions: a weight for each one in the integer, as `linear` does it",
    "add": "addition of a weight, or of an entry of K^T V, for a spike",
    "count": "addition of a bit that is 1",
    "mask": "AND of two bits",
    "compare": "comparison of a count with a random number",
    "neuron": "update of a membrane",
    "fixed": "addition whatever spikes: biases and residuals",
    "total": "addition in a sum over tokens or time steps",
}
"""Kinds of operations. ``serial`` is another way to do what ``mac`` counts: one of them is paid."""

Operations = Mapping[str, int]
"""How many, by kind."""

Counts = Mapping[str, Operations]
"""Operations by layer, wherever they were counted."""

Prices = Mapping[str, float]
"""Energy of an operation in pJ, by kind."""

ADD_8, ADD_16, ADD_32, MULTIPLY_8 = 0.03, 0.05, 0.1, 0.2
"""Integers of so many bits in pJ, 45 nm, 0.9 V (Horowitz, ISSCC 2014, fig. 1.1.9)."""

FREE = dict.fromkeys(KINDS, 0.0)

SPIKING: dict[str, Prices] = {
    "papers": FREE | {"mac": E_MAC, "add": E_ADD, "count": E_ADD},
    "integers": FREE
    | {"count": ADD_8, "compare": ADD_8, "total": ADD_32}
    | dict.fromkeys(("serial", "add", "neuron", "fixed"), ADD_16),
}
"""Of a spiking network, by account.

``papers`` as in Spike-driven Transformer (arXiv 2307.01694, table 1): floating point, the first
layer in multiplications, additions for spikes, nothing else. ``integers`` pays everything but the
ANDs, for which there is no constant: 16 bits for sums of weights and for membranes, 8 for counts,
32 for sums over tokens and time steps.
"""

ANN: dict[str, Prices] = {"papers": {"mac": E_MAC}, "integers": {"mac": MULTIPLY_8 + ADD_32}}
"""Of a network without spikes, by account; in integers 8 bits, added up in 32."""

SYNAPTIC = ("add", "count")
"""What is called a synaptic operation."""

BITS = ("lif", "sdsa", "attention")
"""Kinds of layers whose results are spikes."""


def energy(counts: Counts, prices: Prices) -> float:
    """Return the energy of all operations in pJ.

    Raises
    ------
    KeyError
        Operations of a kind that has no price.
    """
    return sum(prices[kind] * n for own in counts.values() for kind, n in own.items())


def sum_of(counts: Counts, kinds: Iterable[str]) -> int:
    """Return how many operations of some kinds there are in all layers."""
    return sum(own.get(kind, 0) for own in counts.values() for kind in kinds)


def count(
    model: Mapping[str, Any], arrays: Mapping[str, np.ndarray], pixels: np.ndarray
) -> tuple[dict[str, dict[str, int]], np.ndarray]:
    """Run the golden model on images, one after another, and count.

    Parameters
    ----------
    model, arrays : mapping
        As `sim.golden.transformer` reads them.
    pixels : array [B, height, width] of int

    Returns
    -------
    counts : dict
        Operations by layer over all images and time steps, those of experts by their own names.
    answers : array [B]
        What the images are taken for.
    """
    totals: dict[str, collections.Counter[str]] = {}
    answers = []
    state: State | None = None
    # Layers that draw in turn from one source do so image by image.
    size = 1 if any("source" in layer for layer in model["layers"]) else CHUNK
    for begin in range(0, len(pixels), size):
        images = pixels[begin : begin + size]
        before = dict(state or {})
        values, state = network(model, {**arrays, "image": images}, before)
        answers.append(values[model["layers"][-1]["name"]].argmax(axis=1))
        tokens = patches(model, images)
        values["input"] = np.broadcast_to(tokens, (model["timesteps"], *tokens.shape))
        every = np.ones(values["input"].shape[:3], bool)
        for name, own in layer_counts(model["layers"], arrays, values, before, every):
            totals.setdefault(name, collections.Counter()).update(own)
    return {name: dict(own) for name, own in totals.items()}, np.concatenate(answers)


def layer_counts(
    layers: Sequence[Mapping[str, Any]],
    arrays: Mapping[str, np.ndarray],
    values: Mapping[str, np.ndarray],
    state: State,
    awake: np.ndarray,
    bits: frozenset[str] = frozenset(),
) -> list[tuple[str, dict[str, int]]]:
    """Return the operations of each layer.

    Parameters
    ----------
    layers : sequence of mapping
    arrays : mapping
        Weights and biases.
    values : mapping
        What goes into layers and comes out of them, [T, B, N, C] int, by name.
    state : dict
        The registers that each `attention` draws from, before the first image; then behind it.
    awake : array [T, B, N] of bool
        The tokens and time steps in which something is computed; not all of them in experts.
    bits : frozenset of str
        Inputs that are spikes, beside those that come out of neurons and attention.
    """
    bits |= {layer["name"] for layer in layers if layer["kind"] in BITS}
    found: list[tuple[str, dict[str, int]]] = []
    for layer in layers:
        name, kind = layer["name"], layer["kind"]
        if kind == "linear":
            own = matrix(layer, values[layer["input"]], awake, layer["input"] in bits)
        elif kind == "lif":
            own = {"neuron": int(awake.sum()) * layer["channels"]}
        elif kind == "sdsa":
            own = masked_attention(layer, *(values[layer[operand]] for operand in "qkv"))
        elif kind == "attention":
            q, k, v = (values[layer[operand]] for operand in "qkv")
            source = layer.get("source", name)
            own, state[source] = stochastic_attention(layer, q, k, v, state.get(source))
        elif kind == "moe":
            own, experts = mixture(layer, arrays, values[layer["input"]])
            own["count"] = int(values[name].sum()) >> layer["shift"]
            found += experts
        elif kind == "add":
            own = {"fixed": (len(layer["inputs"]) - 1) * values[name].size}
        elif kind in ("pool", "readout"):
            own = {"total": values[layer["input"]].size}
        else:
            raise ValueError(f"{name}: no kind of layer {kind!r}")
        found.append((name, own))
    return found


def matrix(
    layer: Mapping[str, Any], x: np.ndarray, awake: np.ndarray, spikes: bool
) -> dict[str, int]:
    """Return the operations of a matrix: ``outputs`` additions for each spike that comes in.

    Integers are multiplied; or they go bit by bit, as if each of their bits were a spike.
    """
    rows, outputs = int(awake.sum()), layer["outputs"]
    ones = int(np.bitwise_count(x[awake]).sum())
    own = {"fixed": rows * outputs}
    if spikes:
        return own | {"add": ones * outputs}
    return own | {"mac": rows * layer["inputs"] * outputs, "serial": ones * outputs}


def masked_attention(
    layer: Mapping[str, Any], q: np.ndarray, k: np.ndarray, v: np.ndarray
) -> dict[str, int]:
    """Return the operations of SDSA, additions as the port ``sops`` of the hardware counts them.

    The neuron of each sum is one even where the hardware has an OR.
    """
    steps, batch, tokens, channels = q.shape
    if layer["variant"] < 3:
        operands = {"q": q, "k": k, "v": v} if layer["variant"] == 1 else {"q": q, "v": v}
        del operands[layer["masked"]]
        ones = np.prod(list(operands.values()), axis=0)
        return {
            "count": int(ones.sum()),
            "mask": len(operands) * q.size,
            "neuron": steps * batch * channels,
        }
    size = channels // layer["heads"]
    by_head = (steps, batch, tokens, layer["heads"], size)
    pairs = k.reshape(by_head).sum(axis=4) * v.reshape(by_head).sum(axis=4)
    return {
        "count": int(pairs.sum()),
        "add": size * int(q.sum()),
        "mask": size * q.size,
        "neuron": q.size,
    }


def stochastic_attention(
    layer: Mapping[str, Any],
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    state: tuple[int, int] | None,
) -> tuple[dict[str, int], tuple[int, int] | None]:
    """Return the operations of SSA: both stages AND, count and compare; or pick, which only ANDs.

    The making of random numbers is not counted. Also returned are the registers behind the last
    image, but for the second kind, which has no use for them.
    """
    if layer["encoder"] == "sample":
        return {"mask": 2 * q.size}, None
    heads, tokens = layer["heads"], q.shape[2]
    drawn, state = scores(layer, q, k, state)  # [T, B, H, N, N]
    score_ones = (by_heads(q, heads).sum(axis=3) * by_heads(k, heads).sum(axis=3)).sum()
    output_ones = (drawn.sum(axis=3) * by_heads(v, heads).sum(axis=4)).sum()
    counts = {
        "count": int(score_ones + output_ones),
        "mask": 2 * tokens * q.size,
        "compare": drawn.size + q.size,
    }
    return counts, state


def scores(
    layer: Mapping[str, Any], q: np.ndarray, k: np.ndarray, state: tuple[int, int] | None
) -> tuple[np.ndarray, tuple[int, int] | None]:
    """Return the scores that the count encoder draws, [T, B, H, N, N] bool; and its registers.

    Parameters
    ----------
    layer : mapping
    q, k : array [T, B, N, D]
    state : (int, int) or None
        The registers before the first image.
    """
    steps, batch, tokens, channels = q.shape
    heads = layer["heads"]
    size = channels // heads
    alone = layer["reseed"] or layer["rng"] == "sobol"
    numbers = []
    for stretch in [steps] * batch if alone else [steps * batch]:
        more, state = draws(layer, (size, tokens), stretch, state)
        numbers += more
    first = np.array([r for r, _ in numbers]).reshape(batch, steps).T[:, :, None, None, None]
    skews = np.array([count_skews(layer["seed"], h, tokens, size)[0] for h in range(heads)])
    ones = by_heads(q, heads) @ by_heads(k, heads).swapaxes(3, 4)
    drawn = moved(first, skews, size) < ones
    return np.tril(drawn) if layer["causal"] else drawn, state


def by_heads(x: np.ndarray, heads: int) -> np.ndarray:
    """Return [T, B, N, D] as [T, B, H, N, D / H]."""
    return x.reshape(*x.shape[:3], heads, -1).swapaxes(2, 3)


def mixture(
    layer: Mapping[str, Any], arrays: Mapping[str, np.ndarray], x: np.ndarray
) -> tuple[dict[str, int], list[tuple[str, dict[str, int]]]]:
    """Return the operations of a router, and those of the layers of its experts.

    An expert works on the tokens that it is given, in the time steps in which it is.
    """
    every = np.ones(x.shape[:3], bool)
    own = matrix(layer, x, every, spikes=True) | {"neuron": every.size * layer["outputs"]}
    weights, bias = (arrays[f"{layer['name']}.{part}"] for part in ("weights", "bias"))
    given = np.stack([
        moe(layer, {"tokens": x[:, b], "weights": weights, "bias": bias})[0]["mask"]
        for b in range(x.shape[1])
    ], axis=1)  # [T, B, N, E]  # fmt: skip
    found = []
    for e, expert in enumerate(layer["experts"]):
        # As in golden: the time steps in which a token comes, first.
        order = np.argsort(given[..., e] == 0, axis=0, kind="stable")
        tokens = np.take_along_axis(x, order[..., np.newaxis], axis=0)
        awake = np.take_along_axis(given[..., e], order, axis=0) == 1
        values, _ = network({"layers": expert}, {**arrays, "tokens": tokens})
        values["input"] = tokens
        found += layer_counts(expert, arrays, values, {}, awake, frozenset(("input",)))
    return own, found


def dense(model: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Return the operations that an ANN of the same sizes needs for an image, from sizes alone.

    One time step, attention with softmax (2 N^2 D), all experts for all tokens; softmax itself,
    biases and activations are left out.
    """
    tokens, layers = model["tokens"], model["layers"]
    products = {one["name"]: one["inputs"] * one["outputs"] for one in weighted(layers)}
    products |= {
        layer["name"]: 2 * tokens * model["channels"]
        for layer in layers
        if layer["kind"] in ("sdsa", "attention")
    }
    return {name: {"mac": tokens * n} for name, n in products.items()}


# What papers give, from sizes and rates.

SDT_TOKENS, SDT_STEPS = 196, 4
SDT_RATIOS = {384: 42.6, 512: 57.2, 768: 87.2}
"""Energy of vanilla self-attention over that of SDSA, by channels (Spike-driven Transformer)."""
SDT_RATES = {"Q": 0.0091, "K": 0.0090, "V": 0.0649}
"""Mean rates of 8-512 in the paper's names, where V is the operand that is masked.

Its table 2, quoted from memory, unchecked.
"""
SDT_FIRST_BLOCK = {"input": 0.34, "Q": 0.02, "K": 0.02, "V": 0.30}
"""The same of the first block (its table S1), and the rate of what goes into the matrices."""

SSA_TOKENS, SSA_SIZE, SSA_HEADS, SSA_STEPS = 65, 64, 6 * 8, 10
"""N, dK, heads of all blocks together and T.

T is the paper's; the others are those of ``vit_small`` for CIFAR-10 in code of its follow-up
(szh1456/xpikeformer_cifar10): 6 blocks of 8 heads, D = 512, 64 patches and a class token.
"""
SSA_UJ = {"ann": 7.77, "ssa": 1.23, "ann memory": 89.96, "ssa memory": 52.80}
"""Stochastic Spiking Attention (arXiv 2402.09109): estimates for 45 nm, in µJ."""


def vanilla(channels: int) -> float:
    """Return the energy of Q, K, V and attention of a block in pJ, Spike-driven Transformer.

    ``E_MAC (3 N D^2 + 2 N^2 D)`` as in table 1; the scale and softmax, under 0.1 %, are left out.
    """
    n, d = SDT_TOKENS, channels
    return E_MAC * (3 * n * d**2 + 2 * n**2 * d)


def spike_driven(channels: int, rate: float, mask_rate: float) -> float:
    """Return the same of SDSA: ``E_AC T (rate 3 N D^2 + mask_rate N D)``, table 1."""
    n, d = SDT_TOKENS, channels
    return E_ADD * SDT_STEPS * (rate * 3 * n * d**2 + mask_rate * n * d)


def sdt_ratio(channels: int, rate: float, mask_rate: float) -> float:
    """Return the energy of vanilla attention over that of SDSA."""
    return vanilla(channels) / spike_driven(channels, rate, mask_rate)


def implied_rate(channels: int, ratio: float, mask_rate: float) -> float:
    """Return the rate at which `sdt_ratio` is `ratio`."""
    rest = vanilla(channels) / ratio - spike_driven(channels, 0, mask_rate)
    return rest / spike_driven(channels, 1, 0)


def ssa_ann_uj() -> float:
    """Return the energy of attention in 8-bit integers in µJ; the scale and softmax left out."""
    return SSA_HEADS * 2 * SSA_TOKENS**2 * SSA_SIZE * ANN["integers"]["mac"] / 1e6


def ssa_uj(share: float) -> float:
    """Return the energy of SSA in µJ, where `share` of the ANDs are 1 and only ones are added."""
    n, d = SSA_TOKENS, SSA_SIZE
    additions = 2 * n**2 * d * share
    comparisons = n**2 + n * d
    return SSA_HEADS * SSA_STEPS * ADD_8 * (additions + comparisons) / 1e6


def implied_share() -> float:
    """Return the share of ones at which `ssa_uj` is what the paper says."""
    return (SSA_UJ["ssa"] - ssa_uj(0)) / (ssa_uj(1) - ssa_uj(0))


def traffic_ratio(trips: int) -> float:
    """Return the bits that attention moves over those of SSA, each operand once.

    Q, K, V and the output; the ANN also moves its scores out and in again `trips` times, all of 8
    bits. SSA moves bits in each time step, its scores stay.
    """
    n, d = SSA_TOKENS, SSA_SIZE
    return 8 * (4 * n * d + 2 * trips * n**2) / (SSA_STEPS * 4 * n * d)


def published(share: float) -> list[dict[str, Any]]:
    """Return what papers give, the same computed here, and what is behind a difference.

    Parameters
    ----------
    share : float
        Of ones among the ANDs of the count encoder in the digits network.
    """
    mean = math.fsum(SDT_RATES.values()) / 3
    mask = SDT_RATES["Q"] + SDT_RATES["K"]
    rows = []
    for channels, given in SDT_RATIOS.items():
        whose = "" if channels == 512 else " of 8-512, none of this size being known"
        why = (
            f"mean of the rates of Q, K and V{whose}: {mean:.4f} (unchecked); the published ratio "
            f"takes {implied_rate(channels, given, mask):.4f}"
        )
        ours = sdt_ratio(channels, mean, mask)
        rows.append(compared(f"SDT 8-{channels}: self-attention", given, ours, why))

    operands = [SDT_FIRST_BLOCK[operand] for operand in "QKV"]
    mask = SDT_FIRST_BLOCK["Q"] + SDT_FIRST_BLOCK["K"]
    first = {
        "mean of Q, K and V": (
            math.fsum(operands) / 3,
            "the first block fires more often than the others",
        ),
        "rate of the input": (
            SDT_FIRST_BLOCK["input"],
            "additions of the matrices of Q, K and V go with the spikes that come in, not with "
            "those of the neurons behind them",
        ),
    }
    for whose, (rate, why) in first.items():
        ours = sdt_ratio(512, rate, mask)
        rows.append(
            compared(f"SDT 8-512: first block, {whose}, {rate:.3g}", SDT_RATIOS[512], ours, why)
        )

    compute, memory = (SSA_UJ[f"ann{what}"] / SSA_UJ[f"ssa{what}"] for what in ("", " memory"))
    ann = ssa_ann_uj()
    rows += [
        compared("SSA: attention of the ANN, µJ", SSA_UJ["ann"], ann,
                 f"8 bits; {SSA_HEADS} heads, N = {SSA_TOKENS}, dK = {SSA_SIZE} of later code"),
        compared("SSA: compute, every AND added", compute, ann / ssa_uj(1),
                 f"SSA takes {ssa_uj(1):.3g} µJ with an 8-bit addition for each AND; the published "
                 f"{SSA_UJ['ssa']} µJ are additions for {100 * implied_share():.1f} % of them"),
        compared("SSA: compute, ones added", compute, ann / ssa_uj(share),
                 f"{100 * share:.1f} % of the ANDs, counted in `ssa_count`"),
        compared("SSA: memory, scores out and in once", memory, traffic_ratio(1),
                 "bits, each operand once"),
        compared("SSA: memory, scores out and in twice", memory, traffic_ratio(2),
                 "the same; the ANN moves its scores around softmax too"),
    ]  # fmt: skip
    return rows


def compared(what: str, given: float, ours: float, why: str) -> dict[str, Any]:
    """Return a line: all that is computed here is estimated."""
    figures = {"published": round(given, 4), "recomputed": round(ours, 4)}
    return {"what": what, **figures, "label": "estimated", "why": why}


def networks() -> dict[str, tuple[dict[str, Any], dict[str, np.ndarray]]]:
    """Return the integer models that are committed, by name."""
    return {
        name: found
        for folder in sorted(TRAINED.iterdir())
        if (folder / "model.json").exists()
        for name, found in variants(folder).items()
    }


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """Return a hash of weights and biases."""
    sha = hashlib.sha256()
    for name in sorted(arrays):
        sha.update(name.encode() + np.ascontiguousarray(arrays[name]).tobytes())
    return sha.hexdigest()


def seen(name: str, counts: Counts, found: Mapping[str, Any], images: int) -> list[str]:
    """Return the layers whose synaptic operations were counted in the RTL.

    Parameters
    ----------
    name : str
        Of the network.
    counts : mapping
        Golden's operations.
    found : mapping
        What `examples.digits.hardware` has of the network.
    images : int

    Raises
    ------
    CheckFailed
        The two are not the same.
    """
    rtl = found.get("rtl")
    if not rtl or rtl["images"] != images:
        return []
    for layer, came in rtl["synaptic_operations"].items():
        want = sum_of({layer: counts[layer]}, SYNAPTIC)
        if came != want:
            raise CheckFailed(f"{name}, {layer}: golden counts {want}, the RTL {came}")
    return sorted(rtl["synaptic_operations"])


def measure(images: data.Images, hardware: Mapping[str, Any]) -> Study:
    """Return the study.

    Parameters
    ----------
    images : Images
    hardware : mapping
        What `examples.digits.hardware` found.
    """
    models = {}
    for name, (model, arrays) in networks().items():
        counts, answers = count(model, arrays, images.pixels)
        ann = dense(model)
        models[name] = {
            "timesteps": model["timesteps"],
            "correct": int((answers == images.labels).sum()),
            "sha256": digest(arrays),
            "counted": counts,
            "counted_in_rtl": seen(name, counts, hardware.get(name, {}), len(images)),
            "ann_estimated": ann,
            "estimated_nj": {
                account: {
                    "spiking": round(energy(counts, SPIKING[account]) / len(images) / 1e3, 3),
                    "ann": round(energy(ann, ANN[account]) / 1e3, 3),
                }
                for account in SPIKING
            },
        }
    counts = models["ssa_count"]["counted"]
    attention = {name: own for name, own in counts.items() if "compare" in own}
    share = sum_of(attention, ["count"]) / sum_of(attention, ["mask"])
    return {
        "command": "python -m bench.energy",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "set": "test: held-out originals",
        "images": len(images),
        "counted": "operations over all images and time steps, golden model; synaptic ones of the "
        "layers under counted_in_rtl also from spikes that left the RTL, and the same",
        "ann_estimated": "operations of an image, from sizes",
        "kinds": KINDS,
        "prices_pj": {"spiking": SPIKING, "ann": ANN},
        "models": models,
        "published": published(share),
    }


def totals_table(study: Study) -> str:
    """Return operations and energies of the networks, and the caption."""
    head = ("network", "T", "right", "synaptic operations", "products, first layer",
            "products, ANN", "papers: spiking", "ANN", "ratio", "integers: spiking", "ANN",
            "ratio")  # fmt: skip
    under = ("", "", "counted", "counted", "counted", *["estimated"] * 7)
    rows = []
    for name in (name for name in TITLES if name in study["models"]):
        own = study["models"][name]
        cells = [TITLES[name], str(own["timesteps"]), f"{own['correct']} of {study['images']}"]
        for kinds in (SYNAPTIC, ("mac",)):
            cells.append(f"{sum_of(own['counted'], kinds) / study['images']:,.0f}")
        cells.append(f"{sum_of(own['ann_estimated'], ['mac']):,}")
        for account in SPIKING:
            nj = own["estimated_nj"][account]
            cells += [f"{nj[which]:,.1f} nJ" for which in ("spiking", "ann")]
            cells.append(f"{nj['ann'] / nj['spiking']:.1f}")
        rows.append(tuple(cells))
    note = (
        f"An image: mean of {study['images']} originals that nothing was trained on "
        f"(`{study['command']}`, Python {study['python']}, numpy {study['numpy']}). Synaptic "
        "operations are the additions of weights for spikes and of ones in attention."
    )
    return "\n".join([*markdown(head, under, *rows), "", note, ""])


def layers_table(study: Study) -> str:
    """Return the synaptic operations of each layer, and the caption."""
    models = {name: study["models"][name] for name in TITLES if name in study["models"]}
    names = dict.fromkeys(
        layer
        for own in models.values()
        for layer, counts in own["counted"].items()
        if {"mac", "mask", *SYNAPTIC} & set(counts)
    )
    where = ("RTL" if own["counted_in_rtl"] else "golden" for own in models.values())
    rows = [("counted in", *where)]
    for layer in sorted(names):
        cells = [f"`{layer}`"]
        for own in models.values():
            counts = own["counted"].get(layer)
            if counts is None:
                cells.append("–")
                continue
            found = sum(counts.get(kind, 0) for kind in SYNAPTIC) / study["images"]
            products = counts.get("mac", 0) / study["images"]
            shown = f"{products:,.0f} products" if products else f"{found:,.0f}"
            golden = found and own["counted_in_rtl"] and layer not in own["counted_in_rtl"]
            cells.append(f"{shown} (golden)" if golden else shown)
        rows.append(tuple(cells))
    note = (
        "Synaptic operations of an image, counted: in the spikes that left the RTL of the whole "
        "network (`examples/digits/hardware.json`), or in golden's where that is said; where both "
        "are there they are the same. In the first layer the products that its additions bit by "
        "bit stand for, from sizes. `encoder=sample` counts nothing. All other operations stand in "
        "`bench/studies/energy.json`."
    )
    return "\n".join([*markdown(("layer", *(f"`{n}`" for n in models)), *rows), "", note, ""])


def published_table(study: Study) -> str:
    """Return what papers give beside what comes out here."""
    rows = [
        (one["what"], f"{one['published']:.3g}", f"{one['recomputed']:.3g}", one["why"])
        for one in study["published"]
    ]
    head = ("", "published", "recomputed, estimated", "with what, and what is behind a difference")
    return "\n".join([*markdown(head, *rows), ""])


def tables(study: Study) -> dict[str, str]:
    """Return the tables of the page by marker."""
    return {
        "energy": totals_table(study),
        "layers": layers_table(study),
        "published": published_table(study),
    }


@click.command(cls=Command, help=__doc__)
def main() -> None:
    """Run the command."""
    hardware = json.loads(HARDWARE.read_text(encoding="utf-8"))
    study = measure(data.split()["test"], hardware)
    save_study(STUDY, study)
    write({PAGE.name: filled(PAGE.read_text(), tables(study), PAGE.name)}, PAGE.parent)


if __name__ == "__main__":
    main(prog_name="python -m bench.energy")
