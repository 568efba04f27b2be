from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from balance_bridge.load.numbers import communication_number, compact_instant, is_instant, number_prefix, rfc3339

# Few letters, many separators: collisions would be found if there were any.
NAMES = st.text("ab_-.~%", min_size=1, max_size=5)
ASSETS = st.text("AB-.%/ 1é", min_size=1, max_size=6) | st.sampled_from(["BTMX-S", "b.a-B", "A-20261120T000000000Z-1"])
PARTS = st.tuples(
    st.text("aB.1", min_size=1, max_size=4),
    NAMES,
    NAMES,
    ASSETS,
    st.sampled_from([0, 1, 1_795_219_200_000, -1]),
    st.integers(1, 12),
)


def make(parts):
    namespace, account, destination, asset, at_ms, attempt = parts
    return communication_number(number_prefix(namespace, account, destination), asset, at_ms, attempt)


@given(PARTS, PARTS)
def test_two_different_things_never_share_a_number(first, second):
    assert (make(first) == make(second)) == (first == second)


def test_a_number_can_be_read_by_people():
    number = make(("bb", "main_cash", "amlyze", "BTMX-S", 1_795_132_800_123, 2))
    assert number == "bb-main_cash.amlyze-BTMX-S-20261120T000000123Z-2"


def test_instants_are_written_with_milliseconds_in_utc():
    assert rfc3339(1_795_132_800_000) == "2026-11-20T00:00:00.000Z"
    assert rfc3339(-1) == "1969-12-31T23:59:59.999Z"
    assert compact_instant(-1) == "19691231T235959999Z"
    assert not is_instant(10**15)
    assert not is_instant(-(10**15))
