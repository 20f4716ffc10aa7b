"""Quantities of Kubernetes (500m, 64Gi, 1e3) as the API server reads them: exactly, in decimal digits."""

from __future__ import annotations

import re
from decimal import MAX_EMAX, MIN_EMIN, ROUND_UP, Context, Decimal

_FORM = re.compile(r"(?P<sign>[+-]?)(?P<whole>[0-9]*)(?:\.(?P<fraction>[0-9]*))?(?P<suffix>[eEinumkKMGTP]*[+-]?[0-9]*)")
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {f"{letter}i": 10 * power for power, letter in enumerate("KMGTPE", 1)}
_NANO = -9
_MOST = Decimal(2**63 - 1)
# No number here comes near: nothing is rounded but to whole nanos.
_EXACT = Context(prec=400, Emax=MAX_EMAX, Emin=MIN_EMIN)


def amount(text: str) -> Decimal | None:
    """Return the amount of a quantity, like 0.5 for 500m; None for what is none.

    Notes
    -----
    As k8s.io/apimachinery's resource.ParseQuantity, on which CEL's quantity() and isQuantity() rest: amounts are rounded up
    to whole nanos, those with a binary suffix end at 2 ** 63 - 1, and a suffix without any digit is 0 unless its range is
    larger than that of an int64.
    """
    match = _FORM.fullmatch(text)
    if not text or not match:
        return None
    whole, fraction, suffix = match["whole"], match["fraction"] or "", match["suffix"]
    if suffix in _BINARY:
        exponent, factor = 0, 1 << _BINARY[suffix]
    elif (found := _decimal_exponent(suffix)) is not None:
        exponent, factor = found, 1
    else:
        return None
    if not whole + fraction and (suffix in ("Pi", "Ei") or exponent < _NANO):
        return None
    digits = Decimal(f"{match['sign']}{whole or 0}.{fraction or 0}e{exponent}")
    value = _EXACT.multiply(digits, Decimal(factor))
    if exponent - len(fraction) < _NANO:
        value = value.quantize(Decimal(1).scaleb(_NANO), ROUND_UP, _EXACT)
    return max(-_MOST, min(value, _MOST)) if suffix in _BINARY else value


def compare(one: str, other: str) -> int:
    """Return -1, 0 or 1 as a quantity is less than another one, equal, or more.

    Raises
    ------
    ValueError
        One of them is none.
    """
    first, second = amount(one), amount(other)
    if first is None or second is None:
        raise ValueError(f"no quantities: {one}, {other}")
    return (first > second) - (first < second)


def _decimal_exponent(suffix: str) -> int | None:
    if suffix in _DECIMAL:
        return _DECIMAL[suffix]
    number = re.fullmatch(r"[eE]([+-]?[0-9]+)", suffix)
    if not number or not -(2**63) <= int(number[1]) < 2**63:
        return None
    return (int(number[1]) + 2**31) % 2**32 - 2**31  # it is cut to 32 bits there
