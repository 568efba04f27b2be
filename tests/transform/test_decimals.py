from __future__ import annotations

from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balance_bridge import money
from balance_bridge.errors import InvalidAmount
from balance_bridge.transform.decimals import (
    array_of,
    from_units,
    from_words,
    group_sums,
    group_totals,
    sum_unequal,
    to_units,
    to_words,
    unequal,
)
from balance_bridge.transform.schema import AMOUNT

LARGEST = 10**38 - 1
UNITS = (
    st.integers(-LARGEST, LARGEST) | st.integers(-1000, 1000) | st.sampled_from([LARGEST, -LARGEST, 2**64, -(2**63)])
)


def units_of(amount: Decimal) -> int:
    return int(amount.scaleb(18, money.EXACT))


def array(units: list[int]) -> pa.Array:
    return pa.array([Decimal(unit).scaleb(-18, money.EXACT) for unit in units], AMOUNT)


@given(st.lists(UNITS, max_size=20), st.integers(0, 5))
@settings(deadline=None)
def test_amounts_survive_the_way_to_words_and_back(units: list[int], offset: int) -> None:
    amounts = array([0] * offset + units)[offset:]
    words = to_words(amounts)
    assert [words.units(index) for index in range(len(words))] == units
    assert from_words(words).equals(amounts)
    assert [units_of(from_units(unit)) for unit in units] == units


@given(st.integers(-(10**38) + 10**10, 10**38 - 10**10) | st.integers(-1000, 1000))
@settings(deadline=None)
def test_units_and_amounts_are_each_others_inverse(units: int) -> None:
    assert to_units(from_units(units)) == units
    assert to_words(array_of([from_units(units)])).units(0) == units


@given(st.lists(st.lists(UNITS, min_size=1, max_size=6), max_size=8))
@settings(deadline=None)
def test_group_sums_are_exact_or_refused(groups: list[list[int]]) -> None:
    sums = [sum(group) for group in groups]
    words = to_words(array([unit for group in groups for unit in group]))
    starts = np.cumsum([0, *[len(group) for group in groups]])[:-1].astype(np.int64)
    assert group_totals(words, starts) == sums
    if all(abs(total) <= LARGEST for total in sums):
        assert [units_of(amount) for amount in from_words(group_sums(words, starts)).to_pylist()] == sums
    else:
        with pytest.raises(InvalidAmount, match="more than 20 digits"):
            from_words(group_sums(words, starts))


@given(st.tuples(UNITS, UNITS), st.sampled_from([0, 0, 1, -1, 2**64, -(2**64), 2**128]) | UNITS)
@settings(deadline=None)
def test_an_addition_is_found_wrong_exactly_where_it_is(pair: tuple[int, int], off: int) -> None:
    first, second = pair
    total = max(-LARGEST, min(LARGEST, first + second + off))
    found = sum_unequal(*(to_words(array([units])) for units in (first, second, total)))
    assert found.tolist() == [first + second != total]
    assert unequal(to_words(array([first])), to_words(array([second]))).tolist() == [first != second]


def test_a_sum_of_many_of_the_largest_amounts_does_not_wrap() -> None:
    words = to_words(pa.array([from_units(LARGEST)] * 1000, AMOUNT))
    assert group_totals(words, np.array([0])) == [1000 * LARGEST]
    with pytest.raises(InvalidAmount):
        from_words(group_sums(words, np.array([0])))


def test_an_amount_is_written_without_trailing_zeros_or_negative_zero() -> None:
    assert str(from_units(15 * 10**17)) == "1.5"
    assert str(from_units(0)) == "0"
    assert array_of([Decimal("-0"), Decimal("1E+3")]).to_pylist() == [0, 1000]


@pytest.mark.parametrize("text", ["1E+20", "1E-19", "NaN", "Infinity"])
def test_an_amount_that_cannot_be_held_is_refused(text: str) -> None:
    with pytest.raises(InvalidAmount):
        array_of([Decimal(text)])
    with pytest.raises(InvalidAmount):
        to_units(Decimal(text))


def test_words_are_made_of_amounts_only() -> None:
    with pytest.raises(TypeError, match="without nulls"):
        to_words(pa.array([None], AMOUNT))
    with pytest.raises(TypeError, match="decimal128"):
        to_words(pa.array([1.5]))
