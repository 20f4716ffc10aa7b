"""docs/faults.md names tests that exist."""

import re

from tests.cluster.cluster import REPOSITORY

DOCUMENT = (REPOSITORY / "docs/faults.md").read_text()


def test_every_test_that_the_document_names_is_there():
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", DOCUMENT)
    assert named
    for file, name in named:
        (path,) = [*REPOSITORY.glob(f"tests/operator/{file}"), *REPOSITORY.glob(f"tests/{file}")]
        assert re.search(rf"^(async )?def {name}\(", path.read_text(), re.MULTILINE), f"{file}::{name}"


def test_each_trap_has_a_test():
    rows = re.findall(r"^\| (\d+) \|[^|]+\|([^|]+)\|$", DOCUMENT, re.MULTILINE)
    assert [int(number) for number, _ in rows] == [*range(1, 19)]
    assert all("::" in tests for _, tests in rows)


def test_each_complaint_has_a_test():
    rows = re.findall(r"^\| [^|]+ \| [^|]+ \| ([^|]+) \|$", DOCUMENT.split("## Complaints")[1], re.MULTILINE)
    assert len(rows[1:]) == 21
    assert all("::" in tests for tests in rows[1:])
