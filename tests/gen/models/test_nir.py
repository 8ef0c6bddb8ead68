"""Graphs are written with the package `nir`; what they should do is computed here, in float64."""

import itertools
from pathlib import Path

import nir
import numpy as np
import pytest

from sim.golden.transformer import network, read

STEPS, INPUTS, HIDDEN, CLASSES = 6, 7, 12, 4
DT = 1e-3
COMMON = ("--timesteps", str(STEPS), "--input-range", "0:2")


def affine(rng, outputs, inputs, share=16):
    return nir.Affine(
        weight=rng.integers(-12, 13, (outputs, inputs)) / share,
        bias=rng.integers(2, 20, outputs) / share,
    )


def lif(count, tau=2.0, v=1.0, r=1.0, leak=0.0, reset=0.0):
    one = np.ones(count)
    return nir.LIF(tau=one * tau * DT, r=one * r, v_leak=one * leak, v_threshold=one * v,
                   v_reset=one * reset)  # fmt: skip


def written(nodes, edges=None, tokens=None, inputs=INPUTS, outputs=CLASSES):
    ends = [(tokens, n) if tokens else (n,) for n in (inputs, outputs)]
    nodes = {
        "input": nir.Input({"input": np.array(ends[0])}),
        **nodes,
        "output": nir.Output({"output": np.array(ends[1])}),
    }
    names = list(nodes)
    edges = edges or list(itertools.pairwise(names))
    nir.write("graph.nir", nir.NIRGraph(nodes=nodes, edges=edges, type_check=False))
    return "graph.nir"


def chain(rng, neuron=None, **settings):
    return {
        "first": affine(rng, HIDDEN, INPUTS),
        "spikes": neuron or lif(HIDDEN, **settings),
        "second": affine(rng, CLASSES, HIDDEN),
    }


def golden(tokens):
    model, arrays = read(Path("out"))
    return network(model, {**arrays, "tokens": tokens})[0]


def spikes_of(current, tau, v, share=True, fire=np.greater, reset="hard"):
    """Euler's step of the equations of NIR, in float64; `share`: tau divides the input."""
    membrane, pending, out = np.zeros_like(current[0]), np.zeros_like(current[0]), []
    for x in current:
        membrane = membrane * (1 - 1 / tau) + x / (tau if share else 1)
        membrane = membrane - pending * v
        fired = fire(membrane, v)
        if reset == "hard":
            membrane = np.where(fired, 0.0, membrane)
        elif reset == "soft":
            membrane = np.where(fired, membrane - v, membrane)
        else:
            pending = fired.astype(float)
        out.append(fired)
    return np.array(out)


@pytest.fixture(autouse=True)
def here(call):
    """Work in the test's folder."""


@pytest.mark.parametrize("tau", [2.0, 1.0, 4 / 3, 4.0, 8.0])
@pytest.mark.parametrize("seed", range(3))
def test_a_leak_of_few_bits_is_exact(call, seed, tau):
    rng = np.random.default_rng(seed)
    nodes = chain(rng, tau=tau, v=0.5)
    done = call(written(nodes), *COMMON, "--dt", str(DT))
    assert done.exit_code == 0, done.output
    tokens = rng.integers(0, 3, (STEPS, 8, 1, INPUTS))
    first = nodes["first"]
    want = spikes_of(tokens @ first.weight.T + first.bias, tau, 0.5)
    np.testing.assert_array_equal(golden(tokens)["spikes"], want)
    assert 0 < want.mean() < 1


@pytest.mark.parametrize(
    ("arguments", "fire", "reset"),
    [
        ((), np.greater, "hard"),
        (("--library", "norse"), np.greater, "hard"),
        (("--library", "spikingjelly"), np.greater_equal, "hard"),
        (("--library", "snntorch"), np.greater, "delayed"),
        (("--reset", "soft"), np.greater, "soft"),
        (("--fire", "ge"), np.greater_equal, "hard"),
    ],
)
def test_fire_and_reset_are_those_of_the_library(call, arguments, fire, reset):
    rng = np.random.default_rng(5)
    nodes = chain(rng, v=0.5)
    assert call(written(nodes), *COMMON, "--dt", str(DT), *arguments).exit_code == 0
    tokens = rng.integers(0, 3, (STEPS, 200, 1, INPUTS))
    current = tokens @ nodes["first"].weight.T + nodes["first"].bias
    want = spikes_of(current, 2, 0.5, fire=fire, reset=reset)
    found = golden(tokens)["spikes"]
    np.testing.assert_array_equal(found, want)
    other = np.greater if fire is np.greater_equal else np.greater_equal
    assert (found != spikes_of(current, 2, 0.5, fire=other, reset=reset)).any()


def test_what_snntorch_writes_is_doubted_until_it_is_said(call, rows):
    rng = np.random.default_rng(3)
    nodes = chain(rng, tau=2.0, r=2.0, v=0.5)
    status, said, _ = rows(written(nodes), *COMMON, "--dt", str(DT))
    assert status == 1
    assert said["spikes"]["verdict"] == "approximate"
    assert "snnTorch" in said["spikes"]["reasons"][0]
    done = call("graph.nir", *COMMON, "--dt", str(DT), "--library", "snntorch")
    assert done.exit_code == 0
    tokens = rng.integers(0, 3, (STEPS, 50, 1, INPUTS))
    current = tokens @ nodes["first"].weight.T + nodes["first"].bias
    want = spikes_of(current, 2, 0.5, share=False, reset="delayed")
    np.testing.assert_array_equal(golden(tokens)["spikes"], want)


def test_resistance_and_thresholds_of_channels_go_into_the_matrix(call):
    rng = np.random.default_rng(4)
    v, r = 2.0 ** rng.integers(-1, 2, HIDDEN), 2.0 ** rng.integers(-1, 2, HIDDEN)
    nodes = chain(rng, v=v, r=r)
    assert call(written(nodes), *COMMON, "--dt", str(DT)).exit_code == 0
    tokens = rng.integers(0, 3, (STEPS, 8, 1, INPUTS))
    current = (tokens @ nodes["first"].weight.T + nodes["first"].bias) * r
    np.testing.assert_array_equal(golden(tokens)["spikes"], spikes_of(current, 2, v))


def test_a_residual_of_currents_and_spikes(call):
    """Spikes go to a residual of currents through a matrix that is the identity."""
    rng = np.random.default_rng(7)
    nodes = {
        "first": affine(rng, HIDDEN, INPUTS),
        "a": lif(HIDDEN, v=0.5),
        "second": affine(rng, HIDDEN, HIDDEN),
        "b": lif(HIDDEN, v=0.5),
        "third": affine(rng, CLASSES, HIDDEN),
    }
    edges = [("input", "first"), ("first", "a"), ("a", "second"), ("second", "b"), ("a", "b"),
             ("first", "b"), ("b", "third"), ("third", "output")]  # fmt: skip
    done = call(written(nodes, edges), *COMMON, "--dt", str(DT))
    assert done.exit_code == 0, done.output
    tokens = rng.integers(0, 3, (STEPS, 8, 1, INPUTS))
    current = tokens @ nodes["first"].weight.T + nodes["first"].bias
    a = spikes_of(current, 2, 0.5)
    result = golden(tokens)
    np.testing.assert_array_equal(result["a"], a)
    current = current + a + a @ nodes["second"].weight.T + nodes["second"].bias
    np.testing.assert_array_equal(result["b"], spikes_of(current, 2, 0.5))


def test_convolutions_of_one_place_are_matrices_over_tokens(call):
    rng = np.random.default_rng(8)
    weight, bias = rng.integers(-8, 9, (HIDDEN, 3, 1, 1)) / 16, rng.integers(2, 16, HIDDEN) / 16
    one = np.ones((HIDDEN, 2, 3))
    graph = nir.NIRGraph(
        nodes={
            "input": nir.Input({"input": np.array([3, 2, 3])}),
            "conv": nir.Conv2d((2, 3), weight, 1, 0, 1, 1, bias),
            "lif": nir.LIF(tau=one * 2 * DT, r=one, v_leak=0 * one, v_threshold=one),
            "output": nir.Output({"output": np.array([HIDDEN, 2, 3])}),
        },
        edges=[("input", "conv"), ("conv", "lif"), ("lif", "output")],
    )
    nir.write("conv.nir", graph)
    done = call("conv.nir", *COMMON, "--dt", str(DT))
    assert done.exit_code == 0, done.output
    tokens = rng.integers(0, 3, (STEPS, 5, 6, 3))
    want = spikes_of(tokens @ weight[:, :, 0, 0].T + bias, 2, 1.0)
    np.testing.assert_array_equal(golden(tokens)["lif"], want)


def test_flatten_in_front_of_all_makes_one_token(call):
    rng = np.random.default_rng(9)
    nodes = {"flat": nir.Flatten({"input": np.array([INPUTS, 1])}, 0), **chain(rng, v=0.5)}
    graph = nir.NIRGraph(
        nodes={"input": nir.Input({"input": np.array([INPUTS, 1])}), **nodes,
               "output": nir.Output({"output": np.array([CLASSES])})},
        edges=[("input", "flat"), ("flat", "first"), ("first", "spikes"), ("spikes", "second"),
               ("second", "output")], type_check=False,
    )  # fmt: skip
    nir.write("graph.nir", graph)
    done = call("graph.nir", *COMMON, "--dt", str(DT))
    assert done.exit_code == 0, done.output
    tokens = rng.integers(0, 3, (STEPS, 8, 1, INPUTS))
    current = tokens @ nodes["first"].weight.T + nodes["first"].bias
    np.testing.assert_array_equal(golden(tokens)["spikes"], spikes_of(current, 2, 0.5))


def integrators(rng, low):
    one = np.ones(HIDDEN)
    first = nir.Affine(rng.integers(low, 13, (HIDDEN, INPUTS)) / 16, np.zeros(HIDDEN))
    return {"first": first, "spikes": nir.IF(r=one, v_threshold=one * 1.5),
            "second": affine(rng, CLASSES, HIDDEN)}  # fmt: skip


def test_a_neuron_that_never_leaks_is_exact_where_its_membrane_is_bounded(call):
    rng = np.random.default_rng(10)
    nodes = integrators(rng, 0)
    done = call(written(nodes), *COMMON)
    assert done.exit_code == 0, done.output
    tokens = rng.integers(0, 3, (STEPS, 8, 1, INPUTS))
    current = tokens @ nodes["first"].weight.T
    want = spikes_of(current, np.inf, 1.5, share=False)
    np.testing.assert_array_equal(golden(tokens)["spikes"], want)


def test_a_neuron_that_never_leaks_is_approximate_where_it_is_not(rows):
    status, said, _ = rows(written(integrators(np.random.default_rng(11), -12)), *COMMON)
    assert status == 1
    assert said["spikes"]["verdict"] == "approximate"
    assert "nothing bounds" in said["spikes"]["reasons"][0]


def test_a_leak_of_many_bits_is_approximate(rows, call):
    path = written(chain(np.random.default_rng(12), tau=10.0, v=0.5))
    status, said, _ = rows(path, *COMMON, "--dt", str(DT))
    assert (status, said["spikes"]["verdict"]) == (1, "approximate")
    assert not Path("out").exists()
    assert call(path, *COMMON, "--dt", str(DT), "--allow-approximate").exit_code == 0
    assert read(Path("out"))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"spikes": lif(HIDDEN, leak=0.1)}, "v_leak"),
        ({"spikes": lif(HIDDEN, reset=0.1)}, "v_reset"),
        ({"spikes": lif(HIDDEN, tau=np.arange(2.0, 2 + HIDDEN))}, "tau that differs"),
        ({"spikes": nir.LI(*(np.ones(HIDDEN),) * 3)}, "never fire"),
    ],
)
def test_what_is_unsupported_refuses_even_what_may_be_approximate(rows, change, word):
    nodes = chain(np.random.default_rng(0)) | change
    status, said, _ = rows(written(nodes), *COMMON, "--dt", str(DT), "--allow-approximate")
    assert (status, said["spikes"]["verdict"]) == (1, "unsupported")
    assert word in said["spikes"]["reasons"][0]
    assert not Path("out").exists()


def test_skipping_a_node_makes_it_the_input(call):
    rng = np.random.default_rng(13)
    nodes = chain(rng, v=0.5)
    done = call(written(nodes), "--skip", "first", "--dt", str(DT), "--input-range=-4:4",
                "--input-step", "1/16")  # fmt: skip
    assert done.exit_code == 0, done.output
    model, _ = read(Path("out"))
    assert (model["input"]["low"], model["layers"][0]["input"]) == (-64, "input")


def test_the_time_step_is_asked_for(refused):
    path = written(chain(np.random.default_rng(0)))
    assert "--dt: missing" in refused(path, *COMMON)
    assert "less than a time step" in refused(path, *COMMON, "--dt", "1")


def test_graphs_that_are_none(refused):
    rng = np.random.default_rng(0)
    args = (*COMMON, "--dt", str(DT))
    nodes = chain(rng)
    edges = [("input", "first"), ("first", "spikes"), ("spikes", "second"), ("second", "first"),
             ("second", "output")]  # fmt: skip
    ring = nodes | {"second": affine(rng, INPUTS, HIDDEN)}
    assert "ring" in refused(written(ring, edges, outputs=INPUTS), *args)
    bad = nodes | {"second": affine(rng, CLASSES, HIDDEN + 1)}
    assert "second.weight" in refused(written(bad), *args)
    assert "nothing goes into output" in refused(written(nodes, edges[:3]), *args)
    nodes["first"].weight[0, 0] = np.nan
    assert "first.weight: 1 of" in refused(written(nodes), *args)
    Path("no.nir").write_bytes(b"nothing")
    assert "no graph of NIR" in refused("no.nir", *args)
