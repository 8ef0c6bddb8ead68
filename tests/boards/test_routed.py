import dataclasses

import numpy as np
import pytest
from rich.console import Console

from boards import routed
from boards.digits import images
from boards.stage import Checks, Steps
from tests.boards.test_demo import golden_played


@pytest.fixture
def go(monkeypatch):
    """Route the tokens of two digits, maybe with something changed in what comes out."""

    def call(change=lambda played: played):
        monkeypatch.setattr(routed, "through", lambda *given: change(golden_played(*given)))
        rng = np.random.default_rng(3)
        tokens = rng.integers(0, 2, (2, 3, 16, 16), np.uint8)
        console = Console(quiet=True)
        check = Checks(console)
        pictures, labels = images()
        return routed.route(tokens, pictures[:2], labels[:2], Steps(console), check), check.passed

    return call


def test_each_expert_gets_tokens_up_to_its_capacity_and_the_others_are_dropped(go):
    what, passed = go()
    assert passed
    loads = what.got.sum(axis=2)
    assert loads.max() == 16 // routed.EXPERTS
    assert (what.got.sum(axis=(0, 1, 2)) > 0).all()
    assert what.dropped.any()
    assert (loads[what.dropped.any(axis=2)] == loads.max()).all()


def test_one_wrong_sum_and_one_clock_too_many_are_seen(go):
    def spoil(played):
        merged = played.results["merged"].copy()
        merged.flat[7] += 1
        return dataclasses.replace(played, results={**played.results, "merged": merged})

    def late(played):
        return dataclasses.replace(played, clocks=played.clocks + len(played.results["merged"]))

    assert not go(spoil)[1]
    assert not go(late)[1]


def test_experts_answer_by_the_token_alone_and_differ():
    tokens = np.random.default_rng(1).integers(0, 2, (5, 16))
    every = routed.answers(tokens)
    assert every.shape == (5, routed.EXPERTS, 16)
    np.testing.assert_array_equal(routed.answers(tokens[2]), every[2])
    assert len({every[0, e].tobytes() for e in range(routed.EXPERTS)}) == routed.EXPERTS
    assert not routed.answers(np.zeros(16, int)).any()
