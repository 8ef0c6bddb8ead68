"""The bench passes on every top: in both simulators, in both forms, and on netlists."""

import pytest

from sim.drivers import PATTERNS
from sim.job import Job
from sim.netlist import synthesise
from sim.runner import BENCH, build, run
from tests.sim.benches import ALL_SIMULATORS, bench, design, emitted, failures

#: Idle lanes, one of everything, run-time settings, state and settings in memory; several heads,
#: folds and groups that do not come out even.
CONFIGS = [
    ("lif", "neurons=10 lanes=4 trace=true", "v"),
    ("lif", "neurons=1 timesteps=1", "sv"),
    ("lif", "neurons=10 lanes=3 tau=3 threshold_load=neuron bias_load=shared reset=soft", "v"),
    ("lif", "neurons=33 lanes=2 reset_delay=true fire=gt bias_load=neuron timesteps=3", "sv"),
    ("attention", "tokens=4 head_dim=4 timesteps=3", "sv"),
    ("attention", "tokens=1 head_dim=1 timesteps=2", "v"),
    ("attention", "tokens=5 head_dim=3 heads=2 rows=2 columns=2 causal=true timesteps=2", "v"),
    ("attention", "tokens=3 head_dim=5 rows=3 columns=1 timesteps=1", "sv"),
    ("attention", "tokens=7 head_dim=4 tokens_per_beat=3 heads=2 timesteps=2", "sv"),
    ("attention", "tokens=13 head_dim=6 rows=4 tokens_per_beat=2 columns=6 rng=sobol", "v"),
    ("attention", "tokens=11 head_dim=3 heads=2 columns=4 causal=true timesteps=2", "v"),
    ("attention", "encoder=sample tokens=4 head_dim=8 timesteps=3", "v"),
    ("attention", "encoder=sample tokens=1 head_dim=1 timesteps=2", "sv"),
    ("attention", "encoder=sample tokens=16 head_dim=4 heads=2 causal=true rng=sobol", "v"),
    ("attention", "encoder=sample tokens=2 head_dim=2 heads=3 reseed=true timesteps=2", "sv"),
    ("sdsa", "tokens=5 channels=3 count_sops=true", "v"),
    ("sdsa", "tokens=4 channels=12 channels_per_beat=3 buffer_q=true count_sops=true", "sv"),
    ("sdsa", "tokens=1 channels=1 timesteps=1 masked=k count_sops=true", "sv"),
    ("sdsa", "tokens=7 channels=10 threshold=3 masked=v buffer_q=true", "v"),
    ("sdsa", "tokens=3 channels=9 channels_per_beat=3 tau=3 reset=soft fire=gt", "sv"),
    ("sdsa", "variant=2 tokens=6 channels=8 count_sops=true timesteps=3", "v"),
    ("sdsa", "variant=2 masked=q tokens=2 channels=6 channels_per_beat=2 reset=none", "sv"),
    ("sdsa", "pool=true tokens=6 width=3 channels=8 channels_per_beat=2 count_sops=true", "v"),
    ("sdsa", "variant=3 tokens=5 heads=2 head_dim=4 columns=2 count_sops=true", "v"),
    ("sdsa", "variant=3 tokens=3 heads=2 head_dim=3 columns=6 reset=soft timesteps=2", "sv"),
    ("sdsa", "variant=4 tokens=2 heads=2 head_dim=3 columns=1 threshold_bits=5 tau=3", "v"),
    ("sdsa", "variant=4 pool=true width=1 tokens=4 head_dim=4 buffer_q=true fire=gt", "sv"),
    ("lif", "neurons=12 channels=4 lanes=2 threshold_load=neuron current_signed=false", "v"),
    ("moe", "tokens=5 channels=16 channels_per_beat=4 timesteps=2 trace=true", "v"),
    ("moe", "tokens=3 channels=8 experts=3 routing=topk k=2 capacity=1 trace=true", "sv"),
    ("moe", "tokens=4 channels=6 channels_per_beat=3 experts=5 routing=kwta k=3 timesteps=3", "v"),
    (
        "moe",
        "tokens=2 channels=16 channels_per_beat=8 capacity=1 overflow=stall readback=true",
        "v",
    ),
    ("moe", "tokens=1 channels=2 experts=1 timesteps=1 trace=true weight_bits=4", "v"),
    ("heads", "tokens=5 heads=6 head_dim=2 channels_per_beat=4 timesteps=2", "v"),
    ("heads", "tokens=3 heads=3 head_dim=4 channels_per_beat=2 keep=1", "sv"),
    ("heads", "tokens=1 heads=1 head_dim=1 timesteps=1", "v"),
    ("heads", "tokens=5 tokens_per_beat=3 heads=4 head_dim=3 gate=false", "v"),
    (
        "linear",
        "tokens=3 inputs=12 outputs=6 lanes=2 channels_per_beat=4 mode=events timesteps=2",
        "v",
    ),
    ("linear", "tokens=3 inputs=1 outputs=1 timesteps=2 mode=events", "sv"),
    (
        "linear",
        "tokens=3 inputs=6 outputs=4 input_bits=5 columns=3 bias_per_token=true timesteps=1",
        "v",
    ),
    ("moe", "tokens=5 channels=24 channels_per_beat=8 tiles=2 routing=topk k=3 capacity=4", "sv"),
    (
        "transformer",
        "tokens=1 channels=1 hidden=1 features=1 classes=1 timesteps=1 trace=true",
        "v",
    ),
    (
        "transformer",
        "tokens=2 channels=2 variant=4 blocks=2 features=3 input_bits=2 classes=3 timesteps=2",
        "sv",
    ),
    ("encoder", "tokens=2 channels=2 experts=2 hidden=2 timesteps=2 mode=events", "v"),
]

#: Places in `CONFIGS` of those that Verilator simulates, and of those whose netlists are tested.
VERILATED = (0, 4, 9, 13, 16, 18, 23, 25, 28, 29, 30, 31, 33, 37, 40, 41, 42, 43)
SLOW = 41  # transformer of one of everything: the next one has more to it
NETLISTS = (3, 4, 11, 19, 25, 32, 37)

#: Those of the netlists that are slow: each top is quick for a family or two, of one netlist each.
SLOW_NETLISTS = {"ice40": (11, 19), "ecp5": (3, 4, 25, 37)}


def several(settings):
    """Return (top, settings) of each."""
    return [(top, one) for top, many in settings.items() for one in many]


PAPER_IN_BEATS = "tokens=64 head_dim=64 timesteps=10 columns=64 tokens_per_beat=2"

TRANSFORMERS = [
    "tokens=3 channels=6 timesteps=2 trace=true",
    "tokens=2 head_dim=2 attention=ssa blocks=2 features=3 classes=3 timesteps=2 trace=true",
    "tokens=3 channels=4 attention=ssa encoder=count lanes=2 columns=2 features=9 reseed=true",
    "tokens=2 channels=4 variant=2 reset=soft fire=gt tau=3 weight_bits=4 timesteps=3 trace=true",
    "tokens=4 channels=4 attention=none blocks=3 input_bits=8 shift_bits=0 hidden=12 timesteps=1",
    "tokens=2 channels=4 experts=3 blocks=2 lanes=2 features=2 timesteps=3 trace=true",
    "tokens=1 channels=1 experts=1 attention=none hidden=1 features=1 classes=1 timesteps=1",
    "tokens=3 head_dim=2 attention=ssa encoder=count experts=5 reset=soft tau=3 hidden=8 lanes=4",
    "tokens=2 channels=4 mode=events columns=2 channels_per_beat=2 timesteps=2 trace=true",
    "tokens=3 channels=6 variant=4 blocks=3 features=2 attention_threshold=40 timesteps=2",
    "tokens=1 channels=1 variant=4 blocks=2 features=1 attention_threshold=1 mode=events",
]

ENCODERS = [
    "tokens=1 channels=1 hidden=1 timesteps=1 attention=none",
    "tokens=3 channels=6 channels_per_beat=2 lanes=3 experts=2 timesteps=2 trace=true",
    "tokens=2 head_dim=2 variant=3 columns=2 reset=soft tau=3 timesteps=3 trace=true",
    "tokens=4 head_dim=2 attention=ssa mode=events lanes=2 timesteps=2 trace=true",
    "tokens=2 channels=4 experts=3 mode=events lanes=1 hidden=8 residual_bits=24 timesteps=2",
    "tokens=3 head_dim=2 variant=4 reset=soft fire=gt tau=3 timesteps=3 trace=true",
    "tokens=5 channels=1 hidden=1 variant=4 attention_threshold=1",
    "tokens=2 channels=2 variant=4 experts=2 mode=events timesteps=2 trace=true",
]

#: Little enough for a netlist.
SMALL_BLOCKS = {
    "transformer": [
        "tokens=2 channels=2 variant=4 blocks=2 features=3 input_bits=2 classes=3 timesteps=2",
        "tokens=2 channels=2 experts=2 attention=none features=1 input_bits=1 timesteps=2",
    ],
    "encoder": ["tokens=2 channels=2 experts=2 timesteps=2"],
}

TILES = [
    f"tokens=5 channels=24 channels_per_beat={channels} experts={experts} tiles={tiles} {rest}"
    for channels, experts, tiles in ((8, 6, 2), (4, 9, 3), (6, 4, 4), (12, 2, 2), (4, 16, 4))
    for rest in (
        "timesteps=3 trace=true", "routing=topk k=2 readback=true",
        "routing=topk k=2 trace=true capacity=2",
        "routing=kwta k=2 timesteps=5 trace=true", "routing=kwta k=1 fill=true tau=3",
        "routing=kwta k=2 capacity=1 overflow=stall",
    )
]  # fmt: skip

LINEAR = [
    f"{sizes} mode={mode} {rest}"
    for sizes in (
        "tokens=1 inputs=1 outputs=1 timesteps=1", "tokens=2 inputs=1 outputs=6 lanes=2",
        "tokens=3 inputs=7 outputs=5", "tokens=3 inputs=5 outputs=7 lanes=1 channels_per_beat=1",
        "tokens=5 inputs=24 outputs=3 channels_per_beat=12", "tokens=2 inputs=70 outputs=4 lanes=2",
        "tokens=3 inputs=12 outputs=4 lanes=1 channels_per_beat=6 columns=3",
        "tokens=2 inputs=32 outputs=8 channels_per_beat=16 columns=8",
    )
    for mode in ("dense", "events")
    for rest in (
        "", "bias_per_token=true weight_bits=4 bias_bits=2", "input_bits=3 weight_bits=2",
        "input_bits=8 bias_bits=24 bias_per_token=true",
    )
]  # fmt: skip

MOE = [
    f"tokens={tokens} {channels} experts={experts} {routing} {rest}"
    for tokens in (1, 2, 5, 18)
    for channels in (
        "channels=1", "channels=10 channels_per_beat=5", "channels=12 channels_per_beat=1",
    )
    for experts, routing in (
        (1, "routing=mask"), (7, "routing=mask tau=4 reset=soft"), (2, "routing=topk fire=gt"),
        (6, "routing=topk k=4 tau=3"), (3, "routing=kwta k=2"), (5, "routing=kwta k=5 fill=true"),
    )
    for rest in ("trace=true", "timesteps=3 weight_bits=5 bias_bits=6 readback=true")
] + [
    f"tokens=6 channels=8 channels_per_beat=2 capacity={capacity} overflow={overflow} {routing}"
    " trace=true"
    for capacity in (1, 2, 5)
    for overflow in ("drop", "stall")
    for routing in ("routing=mask", "routing=topk k=3", "routing=kwta k=2")
]  # fmt: skip

SDSA = [
    f"variant={variant} tokens={tokens} channels={channels} {rest} count_sops=true"
    for variant in (1, 2)
    for tokens in (1, 2, 3, 4, 9)
    for channels in ("1", "6 channels_per_beat=3", "20 channels_per_beat=1", "33")
    for rest in ("buffer_q=true", "threshold=2 reset=soft tau=4", "timesteps=1 threshold=5")
] + [
    f"variant={variant} tokens={tokens} {sizes} {rest} count_sops=true"
    for variant in (3, 4)
    for tokens in (1, 2, 3, 4, 9)
    for sizes in (
        "head_dim=1", "head_dim=7 columns=1", "heads=3 head_dim=4 columns=2",
        "heads=4 head_dim=3 columns=6",
    )
    for rest in ("buffer_q=true threshold=3", "pool=true reset=soft", "timesteps=1 fire=gt tau=3")
]  # fmt: skip

HEADS = [
    f"tokens={tokens} {sizes} {rest}"
    for tokens in (1, 2, 7, 33)
    for sizes in (
        "heads=1 head_dim=1", "heads=2 head_dim=6 channels_per_beat=3",
        "heads=6 head_dim=2 channels_per_beat=6", "heads=5 head_dim=3 channels_per_beat=1",
        "heads=8 head_dim=1", "heads=17 head_dim=2 channels_per_beat=2",
    )
    for rest in ("", "keep=1 timesteps=1", "timesteps=3 gate=false")
] + [
    f"tokens={tokens} tokens_per_beat={many} heads=3 head_dim=5 timesteps={timesteps} keep=3"
    for tokens, many in ((2, 2), (9, 2), (16, 5))
    for timesteps in (1, 4)
] + [
    # The ring is not a power of two.
    "tokens=130 heads=2 head_dim=1", "tokens=100 heads=12 head_dim=2 channels_per_beat=8",
]  # fmt: skip


@pytest.mark.icarus
@pytest.mark.parametrize(
    ("top", "settings", "form"),
    [
        # Each configuration is in one of the quick tests.
        pytest.param(*config, marks=pytest.mark.slow if i in VERILATED + NETLISTS else ())
        for i, config in enumerate(CONFIGS)
    ],
)
def test_bench_in_icarus(top, settings, form):
    emission = emitted(top, settings, form=form)
    outcomes = bench(emission, design(emission), "icarus")
    assert not failures(outcomes)
    assert len(outcomes) == 27


@pytest.mark.parametrize(
    ("top", "settings", "form"),
    [pytest.param(*CONFIGS[i], marks=pytest.mark.slow if i == SLOW else ()) for i in VERILATED],
)
def test_bench_in_verilator(top, settings, form):
    emission = emitted(top, settings, form=form)
    assert not failures(bench(emission, design(emission), "verilator"))


@pytest.mark.icarus
@pytest.mark.parametrize(
    ("top", "settings", "form", "family"),
    [
        pytest.param(*CONFIGS[i], family, marks=pytest.mark.slow if i in slow else ())
        for i in NETLISTS
        for family, slow in SLOW_NETLISTS.items()
    ],
)
def test_bench_on_netlist(top, settings, form, family):
    emission = emitted(top, settings, form=form)
    netlist = synthesise(design(emission), family)
    assert not failures(bench(emission, netlist, "icarus"))


#: Its netlist for Gowin has carry cells with constant inputs alone.
SCALED = "tau=10 decay_input=false fire=gt reset=soft reset_delay=true decay_bits=10"


@pytest.mark.icarus
@pytest.mark.parametrize(
    ("top", "settings", "form"),
    [CONFIGS[3], CONFIGS[11], ("lif", f"neurons=2 lanes=1 timesteps=2 {SCALED}", "v")],
)
def test_bench_on_netlist_for_gowin(top, settings, form):
    emission = emitted(top, settings, form=form)
    assert not failures(bench(emission, synthesise(design(emission), "gowin"), "icarus"))


@pytest.mark.slow
@pytest.mark.icarus
@pytest.mark.parametrize(
    ("top", "settings", "form"), [CONFIGS[i] for i in (0, 4, 16, 19, 25, 30, 32, 33, 37)]
)
def test_bench_on_netlist_of_every_top_for_gowin(top, settings, form):
    emission = emitted(top, settings, form=form)
    assert not failures(bench(emission, synthesise(design(emission), "gowin"), "icarus"))


@pytest.mark.slow
@pytest.mark.icarus
@pytest.mark.parametrize("form", ["v", "sv"])
@pytest.mark.parametrize("seed", range(2, 7))
def test_bench_with_other_seeds(seed, form):
    for top, settings, _ in CONFIGS:
        emission = emitted(top, settings, form=form)
        assert not failures(bench(emission, design(emission), "icarus", seed=seed))


@pytest.mark.slow
@pytest.mark.icarus
@pytest.mark.parametrize(
    ("top", "settings"),
    several({"sdsa": SDSA, "moe": MOE + TILES, "heads": HEADS, "linear": LINEAR}),
)
def test_corners_in_icarus(top, settings):
    emission = emitted(top, settings)
    assert not failures(bench(emission, design(emission), "icarus"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("top", "settings"),
    several({"transformer": TRANSFORMERS, "encoder": ENCODERS, "attention": [PAPER_IN_BEATS]}),
)
def test_corners_in_verilator(top, settings):
    emission = emitted(top, settings)
    assert not failures(bench(emission, design(emission), "verilator"))


@pytest.mark.slow
@pytest.mark.parametrize("family", ["ice40", "ecp5", "gowin"])
@pytest.mark.parametrize(("top", "settings"), several(SMALL_BLOCKS))
def test_blocks_on_netlist(top, settings, family):
    emission = emitted(top, settings)
    netlist = synthesise(design(emission), family, large_memory=emission.config.large_memory)
    assert not failures(bench(emission, netlist, "verilator"))


@pytest.mark.slow
def test_weights_in_the_large_ram_of_the_up5k():
    emission = emitted("encoder", "tokens=1 channels=32 hidden=256 lanes=2 attention=none")
    netlist = synthesise(design(emission), "ice40", large_memory=True)
    assert "SB_SPRAM256KA " in netlist.files["encoder_ice40.v"]
    assert not failures(bench(emission, netlist, "verilator"))


@pytest.mark.slow
@pytest.mark.icarus
@pytest.mark.parametrize("family", ["ice40", "ecp5"])
@pytest.mark.parametrize("index", [16, 30, 33, 39])
def test_bench_on_netlist_that_takes_long(family, index):
    top, settings, form = CONFIGS[index]
    netlist = synthesise(design(emitted(top, settings, form=form)), family)
    assert not failures(bench(emitted(top, settings, form=form), netlist, "icarus"))


@pytest.mark.slow
@pytest.mark.parametrize("simulator", ALL_SIMULATORS)
def test_a_hundred_thousand_tokens(simulator):
    sizes = "tokens=1024 timesteps=10 channels=12 channels_per_beat=12 capacity=500 trace=true"
    emission = emitted("moe", f"{sizes} routing=topk k=2")
    tested = design(emission)
    job = Job(emission.top, emission.config.asdict())
    only = "golden_under_stalls"  # two inferences without stalls, and of each kind of them
    outcomes = run(build(tested, simulator), tested, simulator, job, BENCH, only=only)
    assert [outcome.status for outcome in outcomes] == ["passed"] * (1 + len(PATTERNS))
    assert 2 * len(outcomes) * emission.config.timesteps * emission.config.tokens > 100_000


@pytest.mark.slow
@pytest.mark.parametrize("simulator", ALL_SIMULATORS)
@pytest.mark.parametrize("top", ["lif", "attention", "sdsa", "moe", "heads", "linear"])
def test_bench_on_presets(top, simulator):
    for preset in ("default", "icebreaker"):
        emission = emitted(top, preset=preset)
        assert not failures(bench(emission, design(emission), simulator))
