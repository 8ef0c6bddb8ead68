"""The bench passes on every top: in both simulators, in both forms, and on netlists."""

import pytest

from sim.netlist import synthesise
from tests.sim.benches import ALL_SIMULATORS, bench, design, emitted, failures

#: Idle lanes, one of everything, run-time settings, state and settings in memory; several heads,
#: folds and groups that do not come out even.
CONFIGS = [
    ("lif", "neurons=10 lanes=4 trace=true"),
    ("lif", "neurons=1 timesteps=1"),
    ("lif", "neurons=10 lanes=3 threshold_load=neuron bias_load=shared reset=soft fire=gt"),
    ("lif", "neurons=33 lanes=2 tau=3 reset_delay=true bias_load=neuron timesteps=3 trace=true"),
    ("attention", "tokens=4 head_dim=4 timesteps=3"),
    ("attention", "tokens=1 head_dim=1 timesteps=2"),
    ("attention", "tokens=5 head_dim=3 heads=2 rows=2 columns=2 causal=true timesteps=2"),
    ("attention", "tokens=3 head_dim=5 rows=3 columns=1 timesteps=1"),
]


@pytest.mark.icarus
@pytest.mark.parametrize("form", ["v", "sv"])
@pytest.mark.parametrize(("top", "settings"), CONFIGS)
def test_bench_in_icarus(top, settings, form):
    emission = emitted(top, settings, form=form)
    outcomes = bench(emission, design(emission), "icarus")
    assert not failures(outcomes)
    assert len(outcomes) == 20


@pytest.mark.parametrize(
    ("top", "settings", "form"), [(*CONFIGS[0], "v"), (*CONFIGS[4], "sv"), (*CONFIGS[6], "v")]
)
def test_bench_in_verilator(top, settings, form):
    emission = emitted(top, settings, form=form)
    assert not failures(bench(emission, design(emission), "verilator"))


@pytest.mark.icarus
@pytest.mark.parametrize("family", ["ice40", "ecp5"])
@pytest.mark.parametrize(
    ("top", "settings", "form"), [(*CONFIGS[0], "v"), (*CONFIGS[3], "sv"), (*CONFIGS[4], "v")]
)
def test_bench_on_netlist(top, settings, form, family):
    emission = emitted(top, settings, form=form)
    netlist = synthesise(design(emission), family)
    assert not failures(bench(emission, netlist, "icarus"))


@pytest.mark.slow
@pytest.mark.parametrize("simulator", ALL_SIMULATORS)
@pytest.mark.parametrize("top", ["lif", "attention"])
def test_bench_on_presets(top, simulator):
    for preset in ("default", "icebreaker"):
        emission = emitted(top, preset=preset)
        assert not failures(bench(emission, design(emission), simulator))
