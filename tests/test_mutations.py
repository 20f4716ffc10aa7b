"""The mutations themselves: each names a text that stands once in the file that it breaks."""

from __future__ import annotations

import re

import pytest

from tests.mutations import MUTATIONS, REPOSITORY


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.what)
def test_a_mutation_breaks_what_is_there(mutation):
    assert (REPOSITORY / mutation.file).read_text().count(mutation.old) == 1
    assert mutation.old != mutation.new
    for test in mutation.tests.split():
        file, _, name = test.partition("::")
        assert (REPOSITORY / file).exists()
        assert not name or re.search(rf"^(async )?def {name}\(", (REPOSITORY / file).read_text(), re.MULTILINE), test
