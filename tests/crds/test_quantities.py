"""Quantities are exact numbers, and the API server agrees on every comparison."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.crds.corpus import load, patched
from unfreeze_api.apiserver.validate import validate
from unfreeze_api.grammar.quantities import quantity

BASE = load("base.yaml")
DIGITS = st.integers(0, 10**20).map(str)
UNITS = [
    "",
    "n",
    "u",
    "m",
    "k",
    "M",
    "G",
    "T",
    "P",
    "E",
    "Ki",
    "Mi",
    "Gi",
    "Ti",
    "Pi",
    "Ei",
    "e3",
    "E-2",
    "e+1",
    "e-12",
]
TEXTS = st.builds(
    lambda whole, fraction, unit: whole + (f".{fraction}" if fraction is not None else "") + unit,
    DIGITS,
    st.none() | st.integers(0, 10**12).map(str) | st.just(""),
    st.sampled_from(UNITS),
)


def job(request, limit):
    return patched(
        BASE,
        {
            "spec": {
                "distribution": {"resourcesPerNode": {"requests": {"memory": request}, "limits": {"memory": limit}}}
            }
        },
    )


PAIRS = [
    ("700m", "0.7"),
    ("0.7", "700m"),
    ("2300m", "2.3"),
    (9007199254740993, "9007199254740993"),
    (9007199254740993, "9007199254740992"),
    ("9007199254740993", 9007199254740992),
    ("0.1", "100000000n"),
    ("1e-10", "1n"),
    ("1n", "1e-10"),
    ("0.00000000049", "0"),
    ("1Ki", "1.024k"),
    ("1.5Gi", "1536Mi"),
    ("1.0000000001Ki", "1024"),
    ("8Ei", "9223372036854775807"),
    ("9223372036854775808", "9223372036854775807"),
    ("99999999999999999999", "9223372036854775807"),
    ("10E", "9223372036854775807"),
    ("9E", "10E"),
    ("1.", "1"),
    (".5", "500m"),
    ("1E3", "1k"),
    ("1E", "1000P"),
    ("000000000000000000001", "1"),
    ("0.1Ki", "102.4"),
    ("0.0001", "100u"),
]


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("500m", Fraction(1, 2)),
        ("2300m", Fraction(23, 10)),
        ("1.5Gi", Fraction(3 * 2**29)),
        ("1E", Fraction(10**18)),
        ("1E3", Fraction(1000)),
        ("1e-10", Fraction(1, 10**9)),
        ("-1e-10", Fraction(-1, 10**9)),
        ("8Ei", Fraction(2**63 - 1)),
        ("1e99999", Fraction(10) ** 1000),
        ("+.5", Fraction(1, 2)),
    ],
)
def test_amounts(text, amount):
    assert quantity(text) == amount


@pytest.mark.parametrize("text", ["", ".", "m", "1 ", "1mm", "0x1", "1e", "Ki", "1KI", "--1", "1.2.3", "٣"])
def test_what_is_no_quantity(text):
    assert quantity(text) is None


@given(one=TEXTS, factor=st.sampled_from([("k", 3), ("M", 6), ("", 0), ("m", -3)]))
def test_the_same_amount_in_other_units_is_the_same(one, factor):
    number = one.rstrip("numkMGTPEi").partition("e")[0].partition("E")[0]
    if len(number) < 12:
        unit, power = factor
        assert quantity(number + unit) == quantity(f"{number}e{power}")


@pytest.mark.parametrize(("request_", "limit"), PAIRS)
def test_the_rule_about_requests_and_limits_compares_exactly(request_, limit):
    above = quantity(str(request_)) > quantity(str(limit))
    said = [str(cause) for cause in validate(job(request_, limit))]
    assert any("nothing can be requested above its limit" in text for text in said) == above
    assert len(said) == above


def pairs():
    """The pairs above, and a hundred that hypothesis draws."""
    found = []

    @settings(max_examples=100, database=None, derandomize=True)
    @given(st.tuples(TEXTS, TEXTS))
    def draw(pair):
        found.append(pair)

    draw()
    return PAIRS + found
