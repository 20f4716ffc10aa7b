"""Figures as people read them."""

from __future__ import annotations

import math

import pytest

from unfreeze_api.grammar.amounts import figure
from unfreeze_api.grammar.sizes import size


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.91249, "0.912"),
        (-12.5, "-12.500"),
        (0.0, "0.000"),
        (0.0004321, "0.000432"),
        (123_456.7, "123456.700"),
        (2.5e7, "2.5e+07"),
        (math.nan, "\u2013"),
        (math.inf, "\u2013"),
        (None, "\u2013"),
    ],
)
def test_a_figure_has_digits_that_count(value, shown):
    assert figure(value) == shown


def test_a_difference_has_a_sign_and_a_table_more_digits():
    assert [figure(value, sign="+") for value in (0.25, -0.25, 0.0004321)] == ["+0.250", "-0.250", "+0.000432"]
    assert figure(0.91249, 4) == "0.9125"


def test_a_size_has_the_unit_that_suits_it():
    assert [size(count) for count in (0, 1023, 1024, -(3 << 20), 5 << 30, 1 << 50)] == [
        *("0 B", "1023 B", "1.0 KiB"),
        *("-3.0 MiB", "5.0 GiB", "1,048,576.0 GiB"),
    ]
