import json

from bench.statistics import DATA, FIGURE, PAGE, draw, markdown
from bench.table import replace


def test_figure_and_page_are_what_the_data_say():
    data = json.loads(DATA.read_text())
    assert draw(data) == FIGURE.read_text()
    page = PAGE.read_text()
    assert replace(page, markdown(data)) == page
