import dataclasses

import pytest

from hw.config import ConfigError, bounds, check
from hw.tops import TOPS


@pytest.mark.parametrize("top", TOPS)
def test_every_parameter_is_documented_and_its_range_holds(top):
    config = TOPS[top].config
    for field in config.parameters():
        assert field.metadata["help"]
        for limit, beyond in (("low", -1), ("high", 1)):
            edge = field.metadata[limit]
            if edge is None:
                continue
            assert check(field, edge) == edge
            with pytest.raises(ConfigError, match=rf"^{field.name}: want .*, got "):
                check(field, edge + beyond)


@pytest.mark.parametrize("top", TOPS)
def test_every_shared_parameter_alone_gives_a_valid_configuration(top):
    config = TOPS[top].config
    shared = {
        "timesteps": (1, 7, 65535),
        "tokens": (1, 3, 64, 196, 256),
        "heads": (1, 3, 8),
        "head_dim": (1, 5, 64, 256),
        "neurons": (1, 5, 384, 65536),
        "lanes": (1, 3),
        "tau": (1.0, 2.0, 3.0, 4.0, 20.0, 1024.0),
        "threshold": (1, 5, 1000),
        "reset": ("hard", "soft", "none"),
        "fire": ("ge", "gt"),
        "decay_input": (False, True),
        "seed": (1, 99, 2**32 - 1),
    }
    names = {field.name for field in config.parameters()}
    tried = 0
    for name in names & set(shared):
        for value in shared[name]:
            c = config(**{name: value})
            assert getattr(c, name) == value
            assert all(v is not None for v in c.asdict().values())
            assert c.streams
            assert c.stimulus
            assert c.result
            assert min(c.latency, c.interval, c.cycles) >= 1
            tried += 1
    assert tried >= 10


@pytest.mark.parametrize("top", TOPS)
def test_presets_are_valid_and_frozen(top):
    config = TOPS[top].config
    assert "default" in config.PRESETS
    for preset in config.PRESETS:
        c = config.preset(preset)
        with pytest.raises(dataclasses.FrozenInstanceError):
            c.timesteps = 3


@pytest.mark.parametrize(
    ("top", "settings", "message"),
    [
        ("lif", {"neurons": 4, "lanes": 5}, r"lanes: want at most neurons \(4\), got 5"),
        ("lif", {"neurons": 0}, r"neurons: want 1\.\.4194304, got 0"),
        ("lif", {"neurons": 4.0}, r"neurons: want 1\.\.4194304, got 4\.0"),
        ("lif", {"neurons": True}, r"neurons: want 1\.\.4194304, got True"),
        ("lif", {"tau": 0.5}, r"tau: want 1\.\.1024, got 0\.5"),
        ("lif", {"tau": float("nan")}, r"tau: want 1\.\.1024, got nan"),
        ("lif", {"reset": "Hard"}, r"reset: want hard \| soft \| none, got 'Hard'"),
        ("lif", {"tau": 8.0, "decay_bits": 2}, r"decay_bits: want at least 3 for tau 8, got 2"),
        (
            "lif",
            {"threshold": 300, "threshold_load": "neuron", "threshold_bits": 8},
            r"threshold: want at most 255 in threshold_bits 8, got 300",
        ),
        (
            "lif",
            {"bias": 200, "bias_load": "shared", "bias_bits": 8},
            r"bias: want 8 bits \(bias_bits\), got 200",
        ),
        ("attention", {"tokens": 257}, r"tokens: want 1\.\.256, got 257"),
        ("attention", {"tokens": 4, "rows": 5}, r"rows: want at most tokens \(4\), got 5"),
        ("attention", {"tokens": 4, "columns": 5}, r"columns: want at most tokens \(4\), got 5"),
        ("attention", {"seed": 0}, r"seed: want 1\.\.4294967295, got 0"),
        ("attention", {"causal": 1}, r"causal: want true \| false, got 1"),
    ],
)
def test_conflicts_are_refused_in_one_line(top, settings, message):
    with pytest.raises(ConfigError, match=f"^{message}$"):
        TOPS[top].config(**settings)


def test_bounds_in_words():
    fields = {f.name: f for f in TOPS["lif"].config.parameters()}
    assert bounds(fields["fire"]) == "ge | gt"
    assert bounds(fields["trace"]) == "true | false"
    assert bounds(fields["neurons"]) == "1..4194304"
