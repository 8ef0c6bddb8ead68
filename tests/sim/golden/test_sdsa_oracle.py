import json
import pathlib
import subprocess

import numpy as np
import pytest

from sim.golden.sdsa import sdsa

ORACLES = pathlib.Path(__file__).parents[2] / "oracles"
RECORDING = np.load(ORACLES / "sdsa.npz")
CASES = {case["name"]: case for case in map(json.loads, RECORDING["cases"])}
FORMS = [(1, "q", False), (1, "q", True), (1, "k", False), (1, "v", False), (2, "v", False),
         (2, "q", False), (3, None, False), (3, None, True), (4, None, False),
         (4, None, True)]  # fmt: skip


def bits(case, name):
    shape = (case["timesteps"], case["tokens"], case["channels"])
    return np.unpackbits(RECORDING[name], count=np.prod(shape)).reshape(shape)


def ours(case, **others):
    """Return golden's output for the setting and the operands of a recorded case."""
    names = ("variant", "masked", "heads", "tau", "reset", "fire", "pool", "width")
    parameters = {name: case[name] for name in names} | {"fraction_bits": 0, "decay_bits": 1}
    arrays = {name: bits(case, f"{case['stimulus']}.{name}") for name in "qkv"}
    if case["variant"] == 4:
        parameters["threshold"] = 8  # which the array stands in for
        arrays["threshold"] = np.array(case["threshold"])
    else:
        parameters["threshold"] = case["threshold"]
    return sdsa(parameters | others, arrays)[0]["out"]


def form(case):
    return case["variant"], case["masked"], case["pool"]


def test_the_recording_has_every_form_with_both_resets_on_every_stimulus():
    stimuli = {case["stimulus"] for case in CASES.values()}
    expected = {(s, *f, r) for s in stimuli for f in FORMS for r in ("hard", "soft")}
    assert {(c["stimulus"], *form(c), c["reset"]) for c in CASES.values()} == expected
    assert len(CASES) == len(expected)
    released = {(1, 0.5, 1.0), (3, 0.5, 0.125)}
    recorded = {(c["variant"], c["v_threshold"], c["scale"]) for c in CASES.values()
                if c["variant"] != 4}  # fmt: skip
    assert released < recorded


@pytest.mark.parametrize("wanted", FORMS, ids=str)
def test_the_recorded_cases_have_spikes(wanted):
    cases = [case for case in CASES.values() if form(case) == wanted]
    rates = [case["spikes"] / bits(case, f"{case['name']}.out").size for case in cases]
    assert min(rates) < 0.05
    assert max(rates) > 0.15


@pytest.mark.parametrize("name", CASES)
def test_golden_equals_the_libraries(name):
    case = CASES[name]
    out = bits(case, f"{name}.out")
    assert out.sum() == case["spikes"]
    np.testing.assert_array_equal(ours(case), out)


@pytest.mark.parametrize("wanted", FORMS, ids=str)
def test_another_setting_is_noticed(wanted):
    """The recorded spikes tell each setting from its neighbour, for every form."""
    variant, _, pool = wanted
    cases = [case for case in CASES.values() if form(case) == wanted]
    others = [{"fire": "gt"}, {"reset": "none"}]
    others += [{"pool": False}] if pool else []
    others += [{"heads": 1}] if variant > 2 else []

    def differs(case, setting):
        return (ours(case, **setting) != bits(case, f"{case['name']}.out")).any()

    for setting in others:
        assert any(differs(case, setting) for case in cases), setting
    for reset, other in (("hard", "soft"), ("soft", "hard")):
        assert any(differs(c, {"reset": other}) for c in cases if c["reset"] == reset)


@pytest.mark.oracle
def test_the_recording_is_what_the_libraries_say_today():
    root = ORACLES.parents[1]
    command = [root / ".venv-oracles/bin/python", ORACLES / "record_sdsa.py", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
