"""Exact amounts: parse, check, write.

An amount is a ``Decimal`` with at most 18 decimals and at most 20 digits before the point, which is what a
``decimal128(38, 18)`` column holds. Nothing here rounds: what does not fit is refused. There is no float on the way.
"""

from __future__ import annotations

import re
from decimal import Context, Decimal, Inexact, InvalidOperation, Overflow

from balance_bridge.errors import InvalidAmount

PRECISION = 38
SCALE = 18
LIMIT = Decimal(10) ** (PRECISION - SCALE)

# Digits enough for any sum of representable amounts; a result that would have to be rounded raises instead.
EXACT = Context(prec=80, traps=[Inexact, InvalidOperation, Overflow])

# Decimal() would also take NaN, Infinity, underscores, blanks and digits of other scripts.
_AMOUNT = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?")
_MAX_SHOWN = 100


def parse(text: str) -> Decimal:
    """Read an amount from its decimal text.

    Args:
        text: Digits with an optional sign, point and exponent, such as ``-1628.51466633`` or ``7E-9``.

    Returns:
        The identical amount.

    Raises:
        InvalidAmount: If the text is anything else (NaN, blank, a number with a comma), has more than 18 decimals
            that are not zero, or 10**20 or more before the point.
    """
    if not isinstance(text, str) or not _AMOUNT.fullmatch(text):
        shown = repr(text)[:_MAX_SHOWN]
        raise InvalidAmount(f"{shown} is not an amount: digits with an optional sign, point and exponent are expected")
    return check(Decimal(text))


def check(amount: Decimal) -> Decimal:
    """Return the amount, without trailing zeros or a negative zero, if it can be held exactly.

    Raises:
        InvalidAmount: If it is not finite, has more than 18 decimals or 10**20 or more before the point.
    """
    if not amount.is_finite():
        raise InvalidAmount(f"{amount} is not a finite amount")
    if amount.is_zero():
        return Decimal(0)
    # abs() would round to the current context, and 20 nines with a fraction up to the limit.
    if amount.copy_abs() >= LIMIT:
        raise InvalidAmount(f"{str(amount)[:_MAX_SHOWN]} has more than {PRECISION - SCALE} digits before the point")
    try:
        normal = amount.normalize(EXACT)
    except Inexact:
        normal = amount
    exponent = normal.as_tuple().exponent
    if isinstance(exponent, int) and exponent < -SCALE:
        raise InvalidAmount(f"{str(amount)[:_MAX_SHOWN]} has more than {SCALE} decimals")
    return normal


def to_text(amount: Decimal) -> str:
    """Write an amount as a JSON number with its exact digits: no exponent, no trailing zeros, no negative zero.

    Raises:
        InvalidAmount: As :func:`check`.
    """
    return format(check(amount), "f")
