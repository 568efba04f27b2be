"""Exact arithmetic on whole columns of amounts.

Arrow's own sums and additions of ``decimal128`` wrap around silently where a result does not fit, and numpy has no
such type. An amount is therefore taken as what lies in Arrow's buffer, a 128-bit two's complement number of units of
10**-18, in two 64-bit words; sums are made of 32-bit limbs, which cannot overflow a 64-bit word, and are checked.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import NoReturn

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from balance_bridge import money
from balance_bridge.errors import InvalidAmount
from balance_bridge.transform.schema import AMOUNT

Int64 = npt.NDArray[np.int64]
UInt64 = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]

_LIMIT: int = 10**money.PRECISION
_LIMB_BITS = 32
_LIMB = np.int64((1 << _LIMB_BITS) - 1)
_WORD = (1 << 64) - 1


@dataclass(frozen=True)
class Words:
    """Amounts as 128-bit numbers: value = high * 2**64 + low, in units of 10**-18."""

    low: UInt64
    high: Int64

    def __len__(self) -> int:
        return len(self.low)

    def take(self, indices: Int64) -> Words:
        """The amounts at these places."""
        return Words(self.low[indices], self.high[indices])

    def where(self, mask: Mask) -> Words:
        """The amounts where the mask is true, zero elsewhere."""
        return Words(np.where(mask, self.low, np.uint64(0)), np.where(mask, self.high, np.int64(0)))

    def units(self, index: int) -> int:
        """The amount at a place, in units of 10**-18."""
        return (int(self.high[index]) << 64) | int(self.low[index])


def to_words(amounts: pa.Array) -> Words:
    """View an array of amounts, without nulls, as words; nothing is copied but the split."""
    if amounts.type != AMOUNT or amounts.null_count:
        raise TypeError(f"amounts must be {AMOUNT} without nulls, not {amounts.type} with {amounts.null_count} nulls")
    start = amounts.offset * 2
    buffer = np.frombuffer(amounts.buffers()[1] or b"", dtype="<u8")[start : start + 2 * len(amounts)].reshape(-1, 2)
    return Words(buffer[:, 0], buffer[:, 1].view(np.int64))


def from_words(words: Words) -> pa.Array:
    """The amounts as an Arrow array.

    Raises:
        InvalidAmount: If one has 10**20 or more before the point.
    """
    beyond = _beyond(words)
    if beyond.any():
        _refuse(words.units(int(np.flatnonzero(beyond)[0])))
    buffer = np.empty((len(words), 2), dtype="<u8")
    buffer[:, 0] = words.low
    buffer[:, 1] = words.high.view(np.uint64)
    return pa.Array.from_buffers(AMOUNT, len(words), [None, pa.py_buffer(buffer)])


def group_sums(words: Words, starts: Int64) -> Words:
    """The sum of each group of consecutive amounts.

    Args:
        words: Amounts, less than 2**31 of them.
        starts: Where each group starts: ascending, the first 0, none empty.

    Raises:
        InvalidAmount: If a sum needs more than 128 bits. One that has them but is too large to be an amount is
            refused by :func:`from_words`.
    """
    limbs = _limb_sums(words, starts)
    too_large = (limbs[3] < -(1 << 31)) | (limbs[3] >= 1 << 31)
    if too_large.any():
        _refuse(_units_of_limbs(limbs, int(np.flatnonzero(too_large)[0])))
    low = (limbs[1].astype(np.uint64) << np.uint64(_LIMB_BITS)) | limbs[0].astype(np.uint64)
    return Words(low, (limbs[3] << _LIMB_BITS) | limbs[2])


def group_totals(words: Words, starts: Int64) -> list[int]:
    """The sum of each group of consecutive amounts, in units of 10**-18 and of any size."""
    limbs = _limb_sums(words, starts)
    return [_units_of_limbs(limbs, index) for index in range(len(starts))]


def unequal(left: Words, right: Words) -> Mask:
    """Where two columns of amounts differ."""
    differs: Mask = (left.low != right.low) | (left.high != right.high)
    return differs


def sum_unequal(first: Words, second: Words, total: Words) -> Mask:
    """Where first + second is not total.

    The addition is made modulo 2**128. That is exact: each amount is below 10**38 in units, so first + second - total
    is below 3 * 10**38, which is less than 2**128, and only zero is zero modulo 2**128.
    """
    low = first.low + second.low
    carry = low < first.low
    high = first.high.view(np.uint64) + second.high.view(np.uint64) + carry
    differs: Mask = (low != total.low) | (high.view(np.int64) != total.high)
    return differs


def to_units(amount: Decimal) -> int:
    """An amount in units of 10**-18.

    Raises:
        InvalidAmount: If it is not one that can be held exactly.
    """
    return int(money.check(amount).scaleb(money.SCALE, money.EXACT))


def from_units(units: int) -> Decimal:
    """The amount of so many units of 10**-18, without trailing zeros."""
    amount = _exact(units)
    return amount.normalize(money.EXACT) if amount else Decimal(0)


def array_of(amounts: Iterable[Decimal]) -> pa.Array:
    """Amounts as an Arrow array.

    Raises:
        InvalidAmount: If one cannot be held exactly.
    """
    return pa.array([money.check(amount) for amount in amounts], AMOUNT)


def is_amount(units: int) -> bool:
    """Whether so many units of 10**-18 can be held."""
    return abs(units) < _LIMIT


def _refuse(units: int) -> NoReturn:
    raise InvalidAmount(f"{_exact(units):f} has more than {money.PRECISION - money.SCALE} digits before the point")


def _exact(units: int) -> Decimal:
    return Decimal(units).scaleb(-money.SCALE, money.EXACT)


def _beyond(words: Words) -> Mask:
    top_high, top_low = np.int64(_LIMIT >> 64), np.uint64(_LIMIT & _WORD)
    bottom_high, bottom_low = np.int64(-_LIMIT >> 64), np.uint64(-_LIMIT & _WORD)
    above = (words.high > top_high) | ((words.high == top_high) & (words.low >= top_low))
    below = (words.high < bottom_high) | ((words.high == bottom_high) & (words.low <= bottom_low))
    beyond: Mask = above | below
    return beyond


def _limb_sums(words: Words, starts: Int64) -> list[Int64]:
    """Per group four limbs, least first; the first three are 0 to 2**32 - 1, the last carries sign and excess."""
    if not len(starts):
        return [np.zeros(0, np.int64)] * 4
    limbs = [
        (words.low & np.uint64(_LIMB)).view(np.int64),
        (words.low >> np.uint64(_LIMB_BITS)).view(np.int64),
        words.high & _LIMB,
        words.high >> _LIMB_BITS,
    ]
    sums: list[Int64] = [np.add.reduceat(limb, starts) for limb in limbs]
    for index in range(3):
        sums[index + 1] += sums[index] >> _LIMB_BITS
        sums[index] &= _LIMB
    return sums


def _units_of_limbs(limbs: list[Int64], index: int) -> int:
    return sum(int(limb[index]) << (_LIMB_BITS * place) for place, limb in enumerate(limbs))
