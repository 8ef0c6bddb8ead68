import pytest

from gen.errors import UserError
from gen.options import nearest, resolve
from hw.tops import TOPS


def test_values_have_the_type_of_their_parameter():
    config = resolve("lif", None, ["neurons=0x20", "tau=3", "reset=soft", "trace=TRUE"])
    assert config.neurons == 32
    assert config.tau == 3.0
    assert type(config.tau) is float
    assert config.reset == "soft"
    assert config.trace is True


def test_settings_stand_on_top_of_the_preset():
    config = resolve("lif", "cifar", ["neurons=256"])
    assert (config.neurons, config.lanes) == (256, 16)


def test_derived_parameters_follow():
    assert resolve("lif", None, ["neurons=3"]).lanes == 3


NAMES = ", ".join(sorted(TOPS))


@pytest.mark.parametrize(
    ("top", "preset", "settings", "message"),
    [
        (None, None, [], f"--top is missing: want one of {NAMES}"),
        ("lift", None, [], "--top: there is no 'lift'; nearest is lif"),
        ("zzz", None, [], f"--top: there is no 'zzz'; want one of {NAMES}"),
        ("lif", "cifat", [], "--preset: lif has no 'cifat'; nearest is cifar"),
        ("lif", None, ["neuron=3"], "--set neuron: lif has no such parameter; nearest is neurons"),
        (
            "lif",
            None,
            ["head_dim=3"],
            "--set head_dim: not a parameter of lif but of attention, encoder, heads, sdsa, "
            "transformer",
        ),
        ("lif", None, ["neurons"], "--set: want name=value, got 'neurons'"),
        ("lif", None, ["neurons="], "--set: want name=value, got 'neurons='"),
        ("lif", None, ["=3"], "--set: want name=value, got '=3'"),
        ("lif", None, ["lanes=1", "lanes=1"], "--set lanes: given more than once"),
        ("lif", None, ["neurons=0"], "lif: neurons: want 1..4194304, got 0"),
        ("lif", None, ["neurons=many"], "--set neurons: want 1..4194304, got 'many'"),
        ("lif", None, ["neurons=2.5"], "--set neurons: want 1..4194304, got '2.5'"),
        ("lif", None, ["trace=maybe"], "--set trace: want true | false, got 'maybe'"),
        ("lif", None, ["reset=hart"], "lif: reset: want hard | soft | none, got 'hart'"),
        ("lif", None, ["tau=nan"], "lif: tau: want 1..1024, got nan"),
        ("lif", None, ["neurons=4", "lanes=5"], "lif: lanes: want at most neurons (4), got 5"),
    ],
)
def test_wrong_requests_are_one_line(top, preset, settings, message):
    with pytest.raises(UserError) as wrong:
        resolve(top, preset, settings)
    assert wrong.value.message == message


def test_nearest_does_not_mind_case():
    assert nearest("LIF", ["attention", "lif"]) == "nearest is lif"
