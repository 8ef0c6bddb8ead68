import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gen.options import resolve
from gen.vectors import marks, pack, random_stimulus, unpack
from hw.stream import Stream


def stream(lanes, width, signed, elements, steps):
    beats = -(-elements // lanes)
    return Stream("s", "in", lanes, width, signed, beats, elements, steps, "words")


def test_element_0_is_lowest_and_twos_complement():
    assert pack(stream(3, 4, True, 3, 1), np.array([1, -1, -8])) == [0x8F1]


def test_idle_lanes_are_0():
    assert pack(stream(2, 8, True, 3, 2), np.array([[-1, -1, -1], [1, 2, 3]])) == [
        0xFFFF, 0x00FF, 0x0201, 0x0003,
    ]  # fmt: skip


def test_one_element_without_axes():
    assert pack(stream(1, 16, True, 1, 1), np.array(-2)) == [0xFFFE]


def test_bools():
    assert pack(stream(9, 1, False, 9, 1), np.array([[True] + 7 * [False] + [True]])) == [0x101]


def test_marks():
    assert marks(stream(2, 1, False, 3, 2)) == [(0, 1), (1, 0), (0, 0), (1, 0)]


@st.composite
def cases(draw):
    width, signed = draw(st.integers(1, 40)), draw(st.booleans())
    elements = draw(st.integers(1, 20))
    s = stream(draw(st.integers(1, elements)), width, signed, elements, draw(st.integers(1, 3)))
    low, high = (-(1 << (width - 1)), (1 << (width - 1)) - 1) if signed else (0, (1 << width) - 1)
    size = s.steps * s.elements
    values = draw(st.lists(st.integers(low, high), min_size=size, max_size=size))
    return s, np.array(values).reshape(s.steps, s.elements)


@given(cases())
def test_unpack_is_the_inverse_of_pack(case):
    s, array = case
    words = pack(s, array)
    assert len(words) == s.steps * s.beats
    assert max(words) < 1 << s.tdata_width
    np.testing.assert_array_equal(unpack(s, words), array)


@pytest.mark.parametrize("top", ["lif", "attention"])
def test_random_stimulus_is_of_the_shapes_and_ranges(top):
    config = resolve(top, None, ["threshold_load=neuron"] if top == "lif" else [])
    arrays = random_stimulus(config, np.random.default_rng(1))
    assert set(arrays) == set(config.stimulus)
    for name, spec in config.stimulus.items():
        assert arrays[name].shape == tuple(getattr(config, axis) for axis in spec.shape)
        assert spec.low <= arrays[name].min() <= arrays[name].max() <= spec.high


def test_random_stimulus_of_a_range_with_one_value():
    config = resolve("transformer", None, ["shift_bits=0"])
    assert not random_stimulus(config, np.random.default_rng(1))["shift"].any()
