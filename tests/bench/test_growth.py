"""The figure of how sdsa grows."""

import numpy as np

from bench import growth
from bench.measure import load


def stored():
    return [
        found for name in ("cifar", *growth.GRID["sdsa"]) if (found := load("sdsa", name, "ecp5"))
    ]


def test_only_what_differs_in_one_size_is_shown():
    results = stored()
    for changed, kept in (("tokens", "channels"), ("channels", "tokens")):
        shown = [result["parameters"] for result in growth.series(results, changed)]
        assert len(shown) >= 5
        assert [p[changed] for p in shown] == sorted({p[changed] for p in shown})
        assert {p[kept] for p in shown} == {growth.SIZE[kept]}
        assert not any(p["buffer_q"] or p["count_sops"] for p in shown)


def test_clocks_and_cells_lie_on_straight_lines():
    results = stored()
    for changed in growth.SIZE:
        shown = growth.series(results, changed)
        x = [result["parameters"][changed] for result in shown]
        for y, most in (
            ([result["timing"]["cycles"] for result in shown], 0),
            ([result["cells"]["lut4_equivalents"] for result in shown], 0.02),
        ):
            off = np.abs(np.polyval(np.polyfit(x, y, 1), x) - y).max()
            assert off <= most * max(y) + 1e-6


def test_the_stored_figure_is_that_of_the_data():
    assert growth.draw(stored()) == growth.FIGURE.read_text()
