import json
import pathlib
import subprocess

import numpy as np
import pytest

from sim.golden.moe import moe

ORACLES = pathlib.Path(__file__).parents[2] / "oracles"
RECORDING = np.load(ORACLES / "moe.npz")
CASES = {case["name"]: case for case in map(json.loads, RECORDING["cases"])}
FORMS = [(decay_input, reset) for decay_input in (True, False) for reset in ("hard", "soft")]


def bits(name, *shape):
    return np.unpackbits(RECORDING[name], count=np.prod(shape)).reshape(shape)


def mask(case):
    return bits(f"{case['name']}.mask", case["timesteps"], case["tokens"], case["experts"])


def ours(case, **others):
    """Return golden's result for the setting and the input of a recorded case."""
    parameters = {name: case[name] for name in ("tau", "threshold", "reset", "fire")}
    parameters |= {"routing": "mask", "overflow": "drop", "capacity": case["tokens"],
                   "fraction_bits": 0, "decay_bits": 1}  # fmt: skip
    arrays = {name: RECORDING[f"{case['stimulus']}.{name}"] for name in ("weights", "bias")}
    sizes = (case["timesteps"], case["tokens"], case["channels"])
    arrays["tokens"] = bits(f"{case['stimulus']}.tokens", *sizes)
    return moe(parameters | others, arrays)[0]


def form(case):
    return case["decay_input"], case["reset"]


def test_the_recording_has_every_form_with_two_thresholds_on_every_stimulus():
    stimuli = {case["stimulus"] for case in CASES.values()}
    found = [(c["stimulus"], *form(c), c["v_threshold"] / c["scale"]) for c in CASES.values()]
    assert len(set(found)) == len(found) == len(stimuli) * len(FORMS) * 2 >= 60
    released = {(c["stimulus"], *form(c)) for c in CASES.values()
                if (c["v_threshold"], c["scale"]) == (1.0, 1.0)}  # fmt: skip
    assert released == {(s, *f) for s in stimuli for f in FORMS}
    assert {c["experts"] for c in CASES.values()} == set(range(1, 9))
    assert {1, 4, 16} < {c["timesteps"] for c in CASES.values()}
    for case in CASES.values():
        scale = case["scale"] / (2 if case["decay_input"] else 1)
        assert case["threshold"] * scale == case["v_threshold"]


@pytest.mark.parametrize("name", CASES)
def test_golden_equals_the_libraries(name):
    case = CASES[name]
    recorded = mask(case)
    assert 0 < recorded.sum() == case["spikes"] < recorded.size
    result = ours(case)
    np.testing.assert_array_equal(result["mask"], recorded)
    assert not result["dropped"].any()


@pytest.mark.parametrize("wanted", FORMS, ids=str)
def test_another_setting_is_noticed(wanted):
    """The recorded spikes tell each setting from its neighbour, for every form."""
    cases = [case for case in CASES.values() if form(case) == wanted]
    other = {"hard": "soft", "soft": "hard"}[wanted[1]]
    others = [{"fire": "gt"}, {"reset": "none"}, {"reset": other}, {"tau": 1.0}, {"capacity": 1}]
    for setting in others:
        assert any((ours(c, **setting)["mask"] != mask(c)).any() for c in cases), setting
    for step in (-1, 1):
        differs = [
            (ours(c, threshold=c["threshold"] + step)["mask"] != mask(c)).any() for c in cases
        ]
        assert sum(differs) > len(cases) / 2


@pytest.mark.oracle
def test_the_recording_is_what_the_libraries_say_today():
    root = ORACLES.parents[1]
    command = [root / ".venv-oracles/bin/python", ORACLES / "record_moe.py", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
