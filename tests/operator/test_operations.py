"""docs/operations.md explains every reason of a condition, and no other."""

import re
from datetime import UTC, datetime

import pytest

from tests.cluster.cluster import REPOSITORY
from unfreeze_operator.observed import failure
from unfreeze_operator.status.conditions import REASONS, Conditions

DOCUMENT = (REPOSITORY / "docs/operations.md").read_text()


@pytest.mark.parametrize("type_", REASONS)
def test_the_document_has_each_reason_with_what_it_means_and_what_to_do(type_):
    section = DOCUMENT.split(f"## Condition {type_}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.+) \| (.+) \|$", section, re.MULTILINE)
    assert tuple(reason for reason, _, _ in rows) == REASONS[type_]


def test_a_reason_that_is_not_in_the_list_cannot_be_set():
    conditions = Conditions([], datetime(2026, 1, 1, tzinfo=UTC), 1)
    with pytest.raises(ValueError, match="no reason Tired"):
        conditions.set("Running", False, "Tired", "")


def test_what_pods_fail_of_is_in_the_list():
    words = {reason for reason, _ in (*failure._EXPLAINED.values(), failure._UNASKED)}
    assert words <= set(REASONS["Failed"])
