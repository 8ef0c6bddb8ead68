import dataclasses
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from gen import report as r


class Page(HTMLParser):
    """The attributes of a page, and whether its elements are closed as they were opened."""

    EMPTY = frozenset({"meta", "br", "hr", "img", "link", "input"})

    def __init__(self, text):
        super().__init__()
        self.attributes = []
        self.words = []
        self.open = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes += [(tag, *pair) for pair in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    def named(self, attribute):
        return [value for _, name, value in self.attributes if name == attribute]


def matrices():
    rng = np.random.default_rng(5)
    exact = rng.random((16, 16))
    return exact, exact + 0.01 * rng.standard_normal((16, 16))


def marked(shape):
    """Return who got what, and who was chosen for it and did not."""
    kind = np.random.default_rng(7).integers(0, 4, shape)
    return kind == 1, kind == 2


def example():
    exact, measured = matrices()
    rng = np.random.default_rng(6)
    spikes = {name: rng.integers(0, 2, (4, 16, 16)) for name in ("q", "out")}
    falling = 1 / np.sqrt(np.arange(1, 9))
    figures = [
        r.image_figure(np.arange(64).reshape(8, 8), 2, "digit"),
        r.raster_figure(spikes, "raster"),
        r.maps_figure(exact, measured, ("query", "key"), "map"),
        r.agreement_figure(exact, measured, np.full((16, 16), 0.01), falling, falling, "agreement"),
        r.routing_figure(rng.random((2, 4, 4)), *marked((2, 3, 4, 7)), "routing"),
        r.diagram([[r.Block("pixels")], [r.Block("unit", ["12 clocks"], True)]], [["8 bit"]]),
    ]
    figures.append(figures[-1])  # two diagrams on one page
    return r.Report(
        title="A title & more",
        lead="What this <is>.",
        passed=True,
        checks=[("one check", True)],
        cards=[r.Card("clock", "30 MHz", "wanted: 12")],
        sections=[
            r.Section(
                "Pictures", "What they show.", [r.Figure(svg, "a caption") for svg in figures]
            ),
            r.Section("Numbers", "What was used.", [r.Table(("what", "n"), [("cells", "7")])]),
            r.Section(
                "Lines", "On a scale.", [r.Bars([r.Bar("cells", 7 / 9, "7 of 9")], "of the device")]
            ),
        ],
    )


@pytest.fixture(scope="module")
def page():
    return r.html(example())


def test_nothing_is_loaded_from_anywhere(page):
    parsed = Page(page)
    for name in ("src", "href", "xlink:href", "srcset", "data", "action"):
        for value in parsed.named(name):
            assert value.startswith(("#", "data:")), f"{name}={value}"
    assert not [tag for tag, *_ in parsed.attributes if tag in ("link", "script", "iframe")]
    assert "@import" not in page
    assert all(target.startswith("#") for target in re.findall(r"url\(['\"]?([^)'\"]*)", page))


def test_same_data_same_bytes_and_no_date(page):
    assert r.html(example()) == page
    assert "<metadata" not in page
    assert not re.search(r"\b20\d\d-\d\d-\d\d", page)


def test_identifiers_are_unique_and_there(page):
    parsed = Page(page)
    identifiers = parsed.named("id")
    assert len(set(identifiers)) == len(identifiers)
    wanted = [v[1:] for name in ("href", "xlink:href") for v in parsed.named(name) if v[0] == "#"]
    wanted += re.findall(r"url\(#([^)]+)\)", page)
    assert set(wanted) <= set(identifiers)


def test_every_section_is_there_and_every_element_is_closed(page):
    parsed = Page(page)
    assert parsed.open == []
    text = " ".join(parsed.words)
    for section in example().sections:
        assert f"<h2>{section.title}</h2>" in page
        assert section.text in text
    for words in ("A title & more", "What this <is>.", "one check", "30 MHz", "7 of 9", "cells"):
        assert words in text


@pytest.mark.parametrize(
    ("held", "words"), [(True, "all checks passed"), (False, "a check failed")]
)
def test_the_verdict(held, words):
    text = r.html(dataclasses.replace(example(), passed=held, checks=[("one", held)]))
    assert words in text
    assert ('<li class="bad">' in text) is not held


def test_a_routing_is_drawn_from_its_marks():
    image, none = np.zeros((1, 4, 4)), np.zeros((1, 1, 4, 3), bool)
    one = none.copy()
    one[0, 0, 2, 1] = True
    drawn = [r.routing_figure(image, *marks, "r") for marks in ((none, none), (one, none),
                                                               (none, one))]  # fmt: skip
    assert len(set(drawn)) == 3


def test_an_image_is_drawn_from_its_values():
    dark = r.image_figure(np.zeros((8, 8)), 2, "digit")
    assert dark != r.image_figure(np.eye(8), 2, "digit")
