"""Quantities of Kubernetes as exact numbers, as k8s.io/apimachinery's ParseQuantity reads them."""

from __future__ import annotations

import re
from fractions import Fraction

_FORM = re.compile(r"([+-]?)([0-9]*)(?:\.([0-9]*))?([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?")
_BINARY = {f"{letter}i": 10 * power for power, letter in enumerate("KMGTPE", 1)}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_NANO = 10**9
_LARGEST = 2**63 - 1
_MAX_EXPONENT = 1000
"""Beyond it the size of a number does not matter any more."""


def quantity(text: str) -> Fraction | None:
    """Return the amount of a quantity, like 1/2 for 500m; None when it is none.

    What is finer than a billionth is rounded away from zero; with a binary unit the largest amount is 2**63 - 1.
    """
    match = _FORM.fullmatch(text)
    if not match or not (match[2] or match[3]):
        return None
    whole, fraction, unit = match[2].lstrip("0"), match[3] or "", match[4] or ""
    sign, digits = -1 if match[1] == "-" else 1, int((whole + fraction) or "0")
    if unit in _BINARY:
        exact = min(Fraction(digits * 2 ** _BINARY[unit], 10 ** len(fraction)), Fraction(_LARGEST))
    else:
        exponent = _DECIMAL[unit] if unit in _DECIMAL else max(-_MAX_EXPONENT, min(_MAX_EXPONENT, int(unit[1:])))
        exact = digits * Fraction(10) ** (exponent - len(fraction))
    return sign * Fraction(-(-exact.numerator * _NANO // exact.denominator), _NANO)
