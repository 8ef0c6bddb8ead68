"""What switches in the netlist of sdsa, and what does not."""

import json

import numpy as np
import pytest

from bench import activity
from bench.table import replace
from gen.emit import emit
from gen.errors import CheckFailed
from hw.sdsa import SdsaConfig
from sim.activity import OUTPUTS, ActivityMeter, read
from sim.reference import Reference

TOKENS, STEPS, INFERENCES = 8, 2, 3

SILENT = {"q": 0.0, "k": 0.0, "v": 0.0}


def config(channels, **settings):
    return SdsaConfig(timesteps=STEPS, tokens=TOKENS, channels=channels, **settings)


def spikes(channels, rates):
    rng = np.random.default_rng(3)
    size = (INFERENCES, STEPS, TOKENS, channels)
    return {name: (rng.random(size) < rate).astype(np.uint8) for name, rate in rates.items()}


def changes(array):
    """Return how many bits of a port change in an inference, the first one aside."""
    beats = array.reshape(INFERENCES * STEPS * TOKENS, -1)
    return (beats[1:] != beats[:-1])[STEPS * TOKENS - 1 :].sum() / (INFERENCES - 1)


@pytest.fixture(scope="module")
def meter():
    return ActivityMeter(emit("sdsa", config(8)))


@pytest.fixture(scope="module")
def still(meter):
    return meter(spikes(8, SILENT))


def test_channels_without_spikes_switch_nothing(still):
    wide = ActivityMeter(emit("sdsa", config(12)))(spikes(12, SILENT))
    assert wide["flip-flops"] == still["flip-flops"] > 0


@pytest.mark.parametrize("name", ["k", "v"])
def test_a_sum_without_a_partner_stops_at_the_input_register(meter, still, name):
    batch = spikes(8, {**SILENT, name: 0.5})
    extra = changes(batch[name])
    assert extra > 50
    assert meter(batch) == {**still, "flip-flops": still["flip-flops"] + extra}


def test_what_is_masked_away_stops_at_its_two_input_registers(meter, still):
    batch = spikes(8, {**SILENT, "q": 0.5})
    found = meter(batch)
    beats = batch["q"].reshape(INFERENCES * STEPS * TOKENS, -1)
    assert {**found, "flip-flops": 0} == {**still, "flip-flops": 0}
    extra = found["flip-flops"] - still["flip-flops"]
    assert 0 < extra <= 2 * STEPS * TOKENS * 8
    # Beats go into the two of them by turns.
    turns = (beats[2:] != beats[:-2])[STEPS * TOKENS - 2 :].sum() / (INFERENCES - 1)
    assert abs(extra - turns) <= 8


def test_sums_switch_less_at_published_rates_than_at_a_half(meter, still):
    def above(rates):
        return sum(meter(spikes(8, rates)).values()) - sum(still.values())

    published, half = (above(activity.RATES[name]) for name in ("as published", "half"))
    assert 0 < published < half / 3


def test_coverage_is_counted_by_outputs_of_cells():
    def line(page, what, count):
        return f"C '\1page\2v_toggle/{page}\1o\2{what}\1h\2top.x' {count}"

    lines = ["# SystemC::Coverage-3", line("LUT4__I1", "Z:0->1", 3), line("LUT4", "Z:1->0", 4),
             line("LUT4", "A:0->1", 100), line("TRELLIS_FF__p", "Q:0->1", 5),
             line("TRELLIS_DPR16X4", "DO[3]:1->0", 7), line("other", "Q:0->1", 100)]  # fmt: skip
    assert read("\n".join(lines)) == {"LUTs": 7, "flip-flops": 5, "memories": 7}


def test_a_wrong_result_is_told(meter, monkeypatch):
    right = Reference.run
    monkeypatch.setattr(
        Reference, "run", lambda *of: {name: 1 - array for name, array in right(*of).items()}
    )
    with pytest.raises(CheckFailed, match="the netlist is not golden: 384"):
        meter(spikes(8, SILENT))


def test_the_page_is_what_the_data_say():
    study = json.loads((activity.PAGE.parent.parent / "bench/studies/activity.json").read_text())
    page = activity.PAGE.read_text()
    assert replace(page, activity.table(study), activity.STUDY) == page
    assert {name for name, _ in OUTPUTS.values()} >= set(activity.kinds(study))
    assert study["sha256"] == activity.facts()["sha256"]
