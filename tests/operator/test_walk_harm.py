"""Undesired states of a job's children: what somebody changed, took out or deleted by hand is mended."""

import random

import pytest

from tests.operator.test_walk import commit
from tests.operator.walk_harm import harm_all
from tests.operator.walk_places import Place, without_nodes

pytestmark = pytest.mark.cluster

SECONDS = 60
COUNT = 15
"""Of these so many are done in each run, other ones with each commit; `make test-walk` does all of them."""


def some(found):
    return random.Random(commit()).sample(found, COUNT)


@pytest.mark.timeout(600)
def test_what_is_done_to_children_by_hand_is_mended(lone_operator, operator_cluster, worlds):
    lone_operator.start()
    with without_nodes(operator_cluster):
        found = harm_all(Place(operator_cluster, worlds().namespace), print, SECONDS, some)
    assert {harm: kind for harm, kind in found.items() if kind.startswith("wrong")} == {}
    assert "Mended" in found.values()
