from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from balance_bridge.transform.columns import codes, group_starts, pair_keys, sort_order

NUMBERS = st.integers(-5, 5) | st.integers(-(2**63), 2**63 - 1)


@given(st.lists(st.tuples(NUMBERS, NUMBERS), max_size=20))
@settings(deadline=None)
def test_pair_keys_order_and_tell_apart_as_the_pairs_do(pairs: list[tuple[int, int]]) -> None:
    major, minor = (np.array([pair[index] for pair in pairs], np.int64) for index in (0, 1))
    keys = pair_keys(major, minor).tolist()
    for key, pair in zip(keys, pairs, strict=True):
        assert [key < other for other in keys] == [pair < other for other in pairs]


@given(st.lists(st.integers(0, 9), max_size=20))
@settings(deadline=None)
def test_sorting_leaves_equal_keys_as_they_are_and_groups_are_found(values: list[int]) -> None:
    keys = np.array(values, np.int64)
    order = sort_order(keys)
    places = list(range(len(values))) if order is None else order.tolist()
    assert places == sorted(range(len(values)), key=lambda place: (values[place], place))
    assert (order is None) == (values == sorted(values))
    ordered = sorted(values)
    assert group_starts(keys[places]).tolist() == [ordered.index(value) for value in sorted(set(ordered))]


@given(
    st.lists(st.sampled_from(["USDT", "BTC", "1INCH", "NO", "é", "𝔅"]), max_size=12), st.sets(st.sampled_from("XYZ"))
)
@settings(deadline=None)
def test_codes_are_places_in_the_sorted_list_of_the_names_in_use(names: list[str], more: set[str]) -> None:
    # A dictionary may hold names that no row uses, and one name twice.
    dictionary = ["UNUSED", *sorted(set(names), reverse=True), *names[:1]]
    array = pa.DictionaryArray.from_arrays(pa.array([dictionary.index(name) for name in names], pa.int8()), dictionary)
    for given_names in (array, pa.array(names, pa.string())):
        places, known = codes(given_names, more)
        assert known == sorted(set(names) | more)
        assert [known[place] for place in places] == names
