import re

from bench.devices import DEVICES
from bench.grid import GRID, cases, configuration, points, presets, seeds
from hw.tops import TOPS


def test_every_point_is_a_configuration_of_its_own():
    for top, named in GRID.items():
        configs = [configuration(top, name) for name in [*TOPS[top].config.PRESETS, *named]]
        assert len(set(configs)) == len(configs)


def test_names_of_points_are_no_presets_and_stand_in_file_names():
    for top, named in GRID.items():
        assert not set(named) & set(TOPS[top].config.PRESETS)
        assert all(re.fullmatch(r"[a-z0-9_]+", name) for name in named)


def test_presets_are_measured_on_every_device_and_points_where_they_say():
    keys = list(cases())
    assert len(set(keys)) == len(keys) == len(list(presets())) * len(DEVICES) + len(list(points()))
    assert {device for _, _, device in points()} <= set(DEVICES)


def test_a_reason_and_a_seed_for_each():
    for top, named in GRID.items():
        for name, point in named.items():
            assert point.why
            assert seeds(top, name) == point.seeds >= 1
