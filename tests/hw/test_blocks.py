"""Blocks of tokens that stay: where each token lies, and that each is there in time."""

import itertools

import pytest

from hw.attention import AttentionConfig
from hw.attention.plan import HeldPlan
from hw.config import ConfigError


def configs():
    """Yield configurations whose keys are held, of all sizes that differ in kind."""
    for tokens, beat, columns, size in itertools.product(
        (1, 2, 3, 5, 8, 11, 16, 24, 33, 64),
        (1, 2, 3, 4),
        (2, 3, 4, 6, 8, 12, 16, 32, 64),
        (1, 5, 64),
    ):
        try:
            config = AttentionConfig(
                tokens=tokens, tokens_per_beat=beat, columns=columns, head_dim=size
            )
        except ConfigError:
            continue
        if config.held:
            yield config


CONFIGS = list(configs())


def test_there_are_some_of_each_kind():
    assert {c.groups for c in CONFIGS} == {1, 2, 3, 4}
    assert {c.tokens % c.columns != 0 for c in CONFIGS if c.groups > 1} == {False, True}


@pytest.mark.parametrize("name", "kv")
def test_every_token_has_one_place(name):
    for config in CONFIGS:
        shape = HeldPlan(config).blocks(name)
        places = itertools.product(range(shape.groups), range(shape.places))
        tokens = [shape.token(group, place) for group, place in places]
        kept = sorted(token for token in tokens if 0 <= token < config.tokens)
        assert kept == list(range(config.tokens)), config


def test_values_are_there_when_the_scores_are():
    # Keys are there as soon as they can be: by that the pipeline is laid out.
    for config in CONFIGS:
        shape = HeldPlan(config).blocks("v")
        assert shape.soonest <= shape.used_at, config


def test_hops_take_every_place_and_channel_once():
    for config in CONFIGS:
        keys, values = (HeldPlan(config).blocks(name) for name in "kv")
        assert sorted(i for part in keys.hops for i in part) == list(range(keys.places))
        assert [i for part in values.hops for i in part] == list(range(config.channels))
        assert all(len(part) % config.tokens_per_beat == 0 for part in keys.hops)
