"""Quantities are compared exactly, as the API server compares them (`test_api_server` asks it about generated ones)."""

import pytest
from hypothesis import given

from tests.crds.generate import close
from unfreeze_api.quantities import amount, compare


@given(close())
def test_amounts_are_exact(drawn):
    one, other, order = drawn
    assert compare(one, other) == order
    assert compare(other, one) == -order


@pytest.mark.parametrize(
    ("one", "other", "order"),
    [
        ("700m", "0.7", 0),
        ("2300m", "2.3", 0),
        ("9007199254740993", "9007199254740992", 1),
        ("1e3", "1k", 0),
        ("1E", "1e18", 0),
        ("0.1Ki", "102.4", 0),
        ("1e-12", "1n", 0),  # rounded up
        ("1.0000000001", "1.000000001", 0),
        ("9Ei", "8Ei", 0),  # both are 2 ** 63 - 1
        ("10E", "9Ei", 1),  # without a binary suffix there is no end
        ("1e1000000000", "1e999999999", 1),
        ("k", "0", 0),
        (".", "0", 0),
    ],
)
def test_compare(one, other, order):
    assert compare(one, other) == order


@pytest.mark.parametrize("text", ["", "Ei", "1i", "1K", "1ee3", "e", "1 ", "1e1.5", "1e99999999999999999999", "one"])
def test_no_quantity(text):
    assert amount(text) is None
    with pytest.raises(ValueError, match="no quantities"):
        compare("1", text)
