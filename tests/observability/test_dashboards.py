"""The dashboards are what Grafana takes, and ask for series that exist. That each panel shows data: tests/e2e."""

import re
from itertools import combinations

import pytest

from tests.cluster.cluster import REPOSITORY
from tests.observability.dashboards import load, panels, queries

BOARDS = load()
DOCUMENTED = set(re.findall(r"`((?:\w+:)?unfreeze_\w+(?::\w+)?)`", (REPOSITORY / "docs/operations.md").read_text()))


def test_there_are_two_with_ids_of_their_own():
    assert set(BOARDS) == {"fleet", "job"}
    assert {board["uid"] for board in BOARDS.values()} == {"unfreeze-fleet", "unfreeze-job"}


@pytest.mark.parametrize("name", BOARDS)
def test_panels_say_what_they_show_and_where_it_comes_from(name):
    source = {"type": "prometheus", "uid": "${datasource}"}
    for panel in panels(BOARDS[name]):
        assert panel["title"], panel["id"]
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert [target["datasource"] for target in panel["targets"]] == [source] * len(panel["targets"])
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]) > 0


@pytest.mark.parametrize("name", BOARDS)
def test_panels_do_not_lie_on_each_other(name):
    places = [(panel["id"], panel["gridPos"]) for panel in BOARDS[name]["panels"]]
    assert len({number for number, _ in places}) == len(places)
    assert all(place["x"] + place["w"] <= 24 for _, place in places)
    for (one, a), (other, b) in combinations(places, 2):
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        above = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert beside or above, (one, other)


@pytest.mark.parametrize("name", BOARDS)
def test_queries_ask_for_series_that_the_document_explains(name):
    for what, expression in queries(BOARDS[name]):
        asked = set(re.findall(r"(?:\w+:)?unfreeze_\w+(?::\w+)?", expression))
        assert asked, what
        assert {series.removesuffix("_bucket") for series in asked} <= DOCUMENTED, what


@pytest.mark.parametrize("name", BOARDS)
def test_variables_are_defined(name):
    board = BOARDS[name]
    defined = {variable["name"] for variable in board["templating"]["list"]} | {"__rate_interval"}
    for what, expression in queries(board):
        assert set(re.findall(r"\$(\w+)", expression)) <= defined, what
