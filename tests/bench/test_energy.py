"""The account of synaptic operations and energy."""

import json

import numpy as np
import pytest

from bench import energy
from bench.study import load_study
from bench.table import filled
from examples.digits import data
from examples.digits.evaluate import HARDWARE, RESULTS, TRAINED, classes, variants
from gen.errors import CheckFailed
from sim.golden.attention import attention, count_skews, draws, moved
from sim.golden.sdsa import sdsa
from sim.golden.transformer import network, patches, read

NEURON = {
    "tau": 2, "decay_input": True, "reset": "hard", "fire": "ge", "fraction_bits": 0,
    "decay_bits": 1,
}  # fmt: skip


def linear(name, source, inputs, outputs):
    return {
        "name": name, "kind": "linear", "input": source, "inputs": inputs, "outputs": outputs,
        "shift": 0, "weight_bits": 8, "bias_bits": 16,
    }  # fmt: skip


@pytest.fixture
def small():
    """Two tokens of two pixels; neurons fire at 3 in every step, at 2 in the second, else never."""
    layers = [
        linear("embed", "input", 2, 2),
        {
            "name": "spikes",
            "kind": "lif",
            "input": "embed",
            "channels": 2,
            "threshold": 3,
            **NEURON,
        },
        linear("head", "spikes", 2, 3),
        {"name": "sum", "kind": "add", "inputs": ["head", "head"]},
        {"name": "logits", "kind": "readout", "input": "sum"},
    ]
    model = {"timesteps": 2, "tokens": 2, "channels": 2, "input": {"patch": [1, 2]},
             "layers": layers}  # fmt: skip
    arrays = {"embed.weights": np.eye(2, dtype=int), "embed.bias": np.zeros(2, int),
              "head.weights": np.ones((3, 2), int), "head.bias": np.array([0, 1, 0])}  # fmt: skip
    return model, arrays


HAND = {
    # 2 steps x 2 tokens x 2 inputs x 2 outputs; ones in 3, 2, 1, 0: 4, x 2 outputs x 2 steps
    "embed": {"mac": 16, "serial": 16, "fixed": 8},
    "spikes": {"neuron": 8},
    "head": {"add": 3 * 3, "fixed": 12},
    "sum": {"fixed": 12},
    "logits": {"total": 12},
}


def test_a_network_by_hand(small):
    counts, answers = energy.count(*small, np.array([[[3, 2], [1, 0]]]))
    assert counts == HAND
    assert answers.tolist() == [1]


def test_images_add_up(small):
    counts, _ = energy.count(*small, np.tile([[[3, 2], [1, 0]]], (energy.CHUNK + 3, 1, 1)))
    every = {name: {kind: n * (energy.CHUNK + 3) for kind, n in own.items()}
             for name, own in HAND.items()}  # fmt: skip
    assert counts == every


def test_energy_by_hand(small):
    assert energy.energy(HAND, energy.SPIKING["papers"]) == pytest.approx(16 * 4.6 + 9 * 0.9)
    integers = 0.05 * (16 + 8 + 8 + 9 + 12 + 12) + 0.1 * 12
    assert energy.energy(HAND, energy.SPIKING["integers"]) == pytest.approx(integers)
    ann = energy.dense(small[0])
    assert ann == {"embed": {"mac": 8}, "head": {"mac": 12}}
    assert energy.energy(ann, energy.ANN["papers"]) == pytest.approx(20 * 4.6)
    assert energy.energy(ann, energy.ANN["integers"]) == pytest.approx(20 * 0.3)


@pytest.mark.parametrize("layer", ["embed", "head"])
def test_a_layer_that_is_left_out_is_missed(layer):
    rest = {name: own for name, own in HAND.items() if name != layer}
    for prices in energy.SPIKING.values():
        assert energy.energy(rest, prices) < energy.energy(HAND, prices)


def test_every_kind_has_a_price():
    for prices in energy.SPIKING.values():
        assert prices.keys() == energy.KINDS.keys()
    with pytest.raises(KeyError):
        energy.energy({"one": {"unheard of": 1}}, energy.SPIKING["papers"])


def test_an_unknown_layer_is_refused():
    with pytest.raises(ValueError, match="no kind of layer 'convolution'"):
        energy.layer_counts(
            [{"name": "one", "kind": "convolution"}], {}, {}, {}, np.ones((1, 1, 1))
        )


@pytest.mark.parametrize("name", ["none", "sdsa1", "sdsa3", "ssa", "moe"])
def test_every_layer_is_counted(name):
    images = data.split()["test"].pixels[: energy.CHUNK + 8]
    for model, arrays in variants(TRAINED / name).values():
        counts, answers = energy.count(model, arrays, images)
        layers = [*model["layers"], *(
            one for layer in model["layers"] for expert in layer.get("experts", ())
            for one in expert
        )]  # fmt: skip
        assert counts.keys() == {layer["name"] for layer in layers}
        assert all(counts[layer["name"]].get("add") for layer in layers
                   if layer["kind"] in ("linear", "moe") and layer["name"] != "embed")  # fmt: skip
        assert np.array_equal(answers, classes(model, arrays, images))


def test_random_numbers_run_on_from_image_to_image(monkeypatch):
    model, arrays = variants(TRAINED / "ssa")["ssa_count"]
    alone = [layer.copy() for layer in model["layers"]]
    for layer in alone:
        layer.pop("source", None)
    images = data.split()["test"].pixels[:10]
    together, _ = energy.count(model | {"layers": alone}, arrays, images)
    monkeypatch.setattr(energy, "CHUNK", 3)
    assert energy.count(model | {"layers": alone}, arrays, images)[0] == together


def test_blocks_draw_in_turn(monkeypatch):
    model, arrays = variants(TRAINED / "ssa")["ssa_count"]
    layer = next(one for one in model["layers"] if one["kind"] == "attention")
    steps, sizes = model["timesteps"], (model["head_dim"], model["tokens"])
    began, right = [], energy.scores
    monkeypatch.setattr(energy, "scores", lambda *of: began.append(of[3]) or right(*of))
    energy.count(model, arrays, data.split()["test"].pixels[:3])
    assert began == [None, *(draws(layer, sizes, i * steps, None)[1] for i in range(1, 6))]


def test_answers_of_experts_are_added_up():
    model, arrays = read(TRAINED / "moe")
    images = data.split()["test"].pixels[:8]
    counts, _ = energy.count(model, arrays, images)
    values, _ = network(model, {**arrays, "image": images})
    for layer in model["layers"]:
        if layer["kind"] == "moe":
            answers = values[layer["name"]] // 2 ** layer["shift"]
            assert counts[layer["name"]]["count"] == answers.sum() > 0


def test_additions_are_spikes_times_outputs():
    model, arrays = read(TRAINED / "sdsa1")
    images = data.split()["test"].pixels[:8]
    counts, _ = energy.count(model, arrays, images)
    values, _ = network(model, {**arrays, "image": images})
    for layer in model["layers"]:
        if layer["kind"] == "linear" and layer["name"] != "embed":
            rows = values[layer["input"]].reshape(-1, layer["inputs"])
            one_by_one = sum(int(row.sum()) * layer["outputs"] for row in rows)
            assert counts[layer["name"]]["add"] == one_by_one
    shown = sum(f"{pixel:b}".count("1") for pixel in patches(model, images).ravel().tolist())
    assert counts["embed"]["serial"] == 64 * 4 * shown


def bits(rng, *shape, rate=0.4):
    return (rng.random(shape) < rate).astype(np.int64)


@pytest.mark.parametrize(("variant", "masked"), [(1, "q"), (1, "v"), (2, "v"), (3, None)])
def test_sdsa_adds_as_often_as_its_port_says(variant, masked):
    rng = np.random.default_rng(1)
    steps, batch, tokens, heads, size = 3, 2, 5, 2, 4
    q, k, v = bits(rng, 3, steps, batch, tokens, heads * size)
    layer = {"variant": variant, "masked": masked, "heads": heads, "threshold": 2, "pool": False,
             **NEURON}  # fmt: skip
    own = energy.masked_attention(layer, q, k, v)
    port = sum(
        int(sdsa(layer, {"q": q[:, b], "k": k[:, b], "v": v[:, b]})[0]["sops"].sum())
        for b in range(batch)
    )
    assert energy.sum_of({"attention": own}, energy.SYNAPTIC) == port > 0


@pytest.mark.parametrize(("rng", "reseed"), [("lfsr", False), ("lfsr", True), ("sobol", False)])
@pytest.mark.parametrize("causal", [False, True])
def test_scores_are_those_that_golden_draws(rng, reseed, causal):
    random = np.random.default_rng(1)
    steps, batch, tokens, heads, size = 3, 2, 8, 2, 4
    q, k, v = bits(random, 3, steps, batch, tokens, heads * size, rate=0.6)
    layer = {"encoder": "count", "rng": rng, "heads": heads, "causal": causal, "seed": 3,
             "reseed": reseed}  # fmt: skip
    before = None if rng == "sobol" else (12345, 678)
    drawn, after = energy.scores(layer, q, k, before)
    state = before
    for b in range(batch):
        numbers, _ = draws(layer, (size, tokens), steps, state)
        out, state = attention(layer, {"q": q[:, b], "k": k[:, b], "v": v[:, b]}, state)
        for t, h in np.ndindex(steps, heads):
            own = slice(h * size, (h + 1) * size)
            _, skews = count_skews(3, h, tokens, size)
            sums = drawn[t, b, h] @ v[t, b][:, own]
            fired = moved(numbers[t][1], skews, tokens) < sums
            assert np.array_equal(fired, out["out"][t, :, own])
    assert (after == state) or rng == "sobol"
    ones = 0
    for t, b, h, n, m in np.ndindex(drawn.shape):
        own = slice(h * size, (h + 1) * size)
        ones += int((q[t, b, n, own] & k[t, b, m, own]).sum())
        ones += int(drawn[t, b, h, n, m]) * int(v[t, b, m, own].sum())
    found, _ = energy.stochastic_attention(layer, q, k, v, before)
    assert found == {
        "count": ones,
        "mask": 2 * steps * batch * heads * tokens * tokens * size,
        "compare": steps * batch * heads * (tokens * tokens + tokens * size),
    }


def test_picking_adds_nothing():
    q = np.ones((2, 1, 4, 8), np.int64)
    found, _ = energy.stochastic_attention({"encoder": "sample"}, q, q, q, None)
    assert found == {"mask": 2 * q.size}


def test_experts_count_what_they_are_given():
    model, arrays = read(TRAINED / "moe")
    layer = next(one for one in model["layers"] if one["kind"] == "moe")
    tokens = bits(np.random.default_rng(1), 4, 2, 16, 64)
    own, found = energy.mixture(layer, arrays, tokens)
    assert own["add"] == int(tokens.sum()) * 4
    score = tokens @ arrays[f"{layer['name']}.weights"].T + arrays[f"{layer['name']}.bias"]
    given = fires(score, layer["threshold"], np.ones(score.shape, bool))
    assert 0 < given.mean() < 1
    counts = dict(found)
    for e, expert in enumerate(layer["experts"]):
        mask = given[..., e]
        first, hidden, second, last = (one["name"] for one in expert)
        current = tokens @ arrays[f"{first}.weights"].T + arrays[f"{first}.bias"]
        spikes = fires(current, expert[1]["threshold"], mask[..., None])
        assert counts[first] == {"add": int(tokens[mask].sum()) * 32, "fixed": mask.sum() * 32}
        assert counts[second] == {"add": int(spikes.sum()) * 64, "fixed": mask.sum() * 64}
        assert counts[hidden] == {"neuron": mask.sum() * 32}
        assert counts[last] == {"neuron": mask.sum() * 64}


def fires(current, threshold, awake):
    """Neurons of tau 2 that rest where they are not awake."""
    u, out = np.zeros(current.shape[1:], np.int64), []
    for x, on in zip(current, np.broadcast_to(awake, current.shape), strict=True):
        charged = (u >> 1) + x
        fired = on & (charged >= threshold)
        u = np.where(on, np.where(fired, 0, charged), u)
        out.append(fired)
    return np.array(out)


def test_the_ann_by_hand():
    model, _ = read(TRAINED / "sdsa1")
    block = 4 * 64 * 64 + 2 * 64 * 128
    macs = 16 * (4 * 64 + 2 * block + 64 * 10) + 2 * (2 * 16 * 16 * 64)
    assert energy.sum_of(energy.dense(model), ["mac"]) == macs
    experts, _ = read(TRAINED / "moe")
    assert energy.sum_of(energy.dense(experts), ["mac"]) == macs + 16 * 2 * 64 * 4


def test_spike_driven_transformer():
    n, d = 196, 512
    assert energy.vanilla(d) == pytest.approx(4.6 * (3 * n * d * d + 2 * n * n * d))
    assert energy.spike_driven(d, 0.5, 0.25) == pytest.approx(
        0.9 * 4 * (0.5 * 3 * n * d * d + 0.25 * n * d)
    )
    mean = (0.0091 + 0.0090 + 0.0649) / 3
    assert energy.sdt_ratio(d, mean, 0.0181) == pytest.approx(57.2, rel=0.015)
    for channels, ratio in energy.SDT_RATIOS.items():
        rate = energy.implied_rate(channels, ratio, 0.0181)
        assert energy.sdt_ratio(channels, rate, 0.0181) == pytest.approx(ratio)


def test_without_its_matrices_attention_would_not_depend_on_channels():
    one, other = (4.6 * 2 * 196**2 * d / energy.spike_driven(d, 0, 0.0181) for d in (384, 768))
    assert one == pytest.approx(other)


def test_stochastic_spiking_attention():
    assert energy.ssa_ann_uj() == pytest.approx(48 * 2 * 65 * 65 * 64 * 0.3e-6)
    assert energy.ssa_ann_uj() == pytest.approx(7.77, rel=0.003)
    ones, comparisons = 48 * 10 * 2 * 65 * 65 * 64 * 0.25, 48 * 10 * (65 * 65 + 65 * 64)
    assert energy.ssa_uj(0.25) == pytest.approx(0.03e-6 * (ones + comparisons))
    assert energy.ssa_uj(energy.implied_share()) == pytest.approx(1.23)
    assert energy.ssa_uj(1) > energy.ssa_ann_uj()
    assert energy.traffic_ratio(1) == pytest.approx(8 * (4 * 64 + 2 * 65) / (10 * 4 * 64))
    assert energy.traffic_ratio(2) == pytest.approx(8 * (4 * 64 + 4 * 65) / (10 * 4 * 64))


@pytest.fixture(scope="module")
def stored():
    return load_study(energy.STUDY)


def test_the_stored_study_is_that_of_the_models(stored):
    networks = energy.networks()
    assert stored["models"].keys() == networks.keys()
    recorded = json.loads(RESULTS.read_text())["models"]
    for name, (model, arrays) in networks.items():
        own = stored["models"][name]
        assert own["sha256"] == energy.digest(arrays)
        assert own["correct"] == recorded[name]["integer"]["test"]
        assert own["ann_estimated"] == energy.dense(model)
        found = json.loads(HARDWARE.read_text()).get(name, {})
        assert own["counted_in_rtl"] == energy.seen(name, own["counted"], found, stored["images"])
    images = data.split()["test"]
    assert stored["images"] == len(images)
    for name in ("sdsa1", "ssa_count", "moe"):
        counts, _ = energy.count(*networks[name], images.pixels)
        assert stored["models"][name]["counted"] == counts


def test_the_rtl_counts_what_golden_counts():
    """A layer that is counted otherwise is named."""
    counts = {"head": {"add": 30, "fixed": 9}, "bits": {"count": 4, "add": 3, "mask": 8}}
    rtl = {"images": 2, "synaptic_operations": {"head": 30, "bits": 7}}
    assert energy.seen("one", counts, {"rtl": rtl}, 2) == ["bits", "head"]
    assert energy.seen("one", counts, {"rtl": rtl}, 3) == energy.seen("one", counts, {}, 2) == []
    with pytest.raises(CheckFailed, match="one, head: golden counts 29, the RTL 30"):
        energy.seen("one", counts | {"head": {"add": 29}}, {"rtl": rtl}, 2)


def test_the_page_is_that_of_the_study(stored):
    page = energy.PAGE.read_text()
    assert filled(page, energy.tables(stored), energy.PAGE.name) == page


def test_what_is_computed_from_papers_is_called_estimated(stored):
    assert {one["label"] for one in stored["published"]} == {"estimated"}
    share = next(one for one in stored["published"] if "ones added" in one["what"])
    counts = stored["models"]["ssa_count"]["counted"].values()
    ones = sum(own["count"] for own in counts if "compare" in own)
    masks = sum(own["mask"] for own in counts if "compare" in own)
    assert share["recomputed"] == pytest.approx(
        energy.ssa_ann_uj() / energy.ssa_uj(ones / masks), abs=1e-4
    )
    assert energy.published(ones / masks) == stored["published"]
