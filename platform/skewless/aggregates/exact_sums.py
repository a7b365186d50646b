"""Sums of floating-point numbers that are exact until they are told, so that neither order nor grouping matters.

A float64 is a whole number of 2**-1074. Sums are kept as whole numbers of that unit, which Python has of any length,
and rounded once, to the nearest float64 (ties to even): the correctly rounded sum, as `math.fsum` gives it, but one
that can be kept, added to another and written down. A sum of three-digit delays takes about 140 bytes in memory and,
written, the few bytes that are not zero.
"""

import math

_FRACTION_BITS = 53
_UNIT_EXPONENT = 1074
_ONE = 1 << _UNIT_EXPONENT
_MANTISSA = float(1 << _FRACTION_BITS)


def exact(value: float) -> int:
    """A finite float64 in units of 2**-1074.

    >>> exact(1.0) == 1 << 1074, exact(5e-324)
    (True, 1)
    """
    mantissa, exponent = math.frexp(value)
    shift = exponent + _UNIT_EXPONENT - _FRACTION_BITS
    whole = int(mantissa * _MANTISSA)
    return whole << shift if shift >= 0 else whole >> -shift  # what a subnormal lacks in bits is zeros


def rounded(total: int) -> float:
    """The float64 nearest to a sum in units of 2**-1074; infinite beyond float64's range, and never -0.0.

    >>> rounded(exact(0.1) + exact(0.2) + exact(-0.3)) == math.fsum([0.1, 0.2, -0.3]), rounded(exact(1e308) * 2)
    (True, inf)
    """
    try:
        return total / _ONE
    except OverflowError:
        return math.inf if total > 0 else -math.inf


def to_bytes(total: int) -> bytes:
    """A whole number, without the zeros at its end: two bytes that say how many there were, then the rest."""
    if not total:
        return b""
    zeros = (total & -total).bit_length() - 1
    kept = total >> zeros
    return zeros.to_bytes(2, "little") + kept.to_bytes(kept.bit_length() // 8 + 1, "little", signed=True)


def from_bytes(data: bytes) -> int:
    """The inverse of `to_bytes`.

    >>> [from_bytes(to_bytes(exact(each))) == exact(each) for each in (0.0, -1.5, 3e300, -5e-324)]
    [True, True, True, True]
    """
    if not data:
        return 0
    return int.from_bytes(data[2:], "little", signed=True) << int.from_bytes(data[:2], "little")
