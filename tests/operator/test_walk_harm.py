"""Undesired states of a job's children: what somebody changed, took out or deleted by hand is mended."""

import pytest

from tests.operator.walk_harm import harm_all
from tests.operator.walk_places import Place, without_nodes

pytestmark = pytest.mark.cluster

SECONDS = 60


@pytest.mark.timeout(600)
def test_what_is_done_to_children_by_hand_is_mended(lone_operator, operator_cluster, worlds):
    lone_operator.start()
    with without_nodes(operator_cluster):
        found = harm_all(Place(operator_cluster, worlds().namespace), print, SECONDS)
    assert {harm: kind for harm, kind in found.items() if kind.startswith("wrong")} == {}
    assert "Mended" in found.values()
