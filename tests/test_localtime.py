from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balance_bridge.errors import ConfigurationError, InvalidResponse
from balance_bridge.localtime import local_midnights, local_seconds, local_texts, new_seconds

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DAY_MS = 86_400_000
ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "America/Santiago",
    "Pacific/Apia",
    "Pacific/Kiritimati",
    "Asia/Shanghai",
    "America/Havana",
    "Africa/Monrovia",
    "America/St_Johns",
]


def ms(text: str) -> int:
    return (datetime.fromisoformat(text).astimezone(UTC) - EPOCH) // timedelta(milliseconds=1)


def without_traceback(at_ms: int, zone: str) -> str:
    return (EPOCH + timedelta(milliseconds=at_ms)).astimezone(ZoneInfo(zone)).replace(tzinfo=None).isoformat(" ")[:19]


def near_changes() -> st.SearchStrategy[int]:
    """Instants within hours of changes of offset, and anywhere between 1900 and 2100."""
    changes = ["2026-03-29T01:00Z", "2026-10-25T01:00Z", "2026-11-01T06:00Z", "2026-04-04T15:00Z", "2026-09-06T04:00Z"]
    changes += ["2011-12-30T10:00Z", "1972-01-07T00:44:30Z", "1900-12-31T15:54:17Z", "2006-10-29T02:31Z"]
    around = st.sampled_from(changes).flatmap(
        lambda text: st.integers(-4_000_000, 4_000_000).map(lambda d: ms(text) + d)
    )
    return around | st.integers(ms("1900-01-01T00:00Z"), ms("2100-01-01T00:00Z"))


@given(st.lists(near_changes(), max_size=30), st.sampled_from(ZONES))
@settings(deadline=None)
def test_local_texts_are_what_zoneinfo_gives_cut_to_the_second(at_ms: list[int], zone: str) -> None:
    assert local_texts(at_ms, zone) == [without_traceback(instant, zone) for instant in at_ms]
    assert local_texts(np.array(at_ms, np.int64), zone) == local_texts(at_ms, zone)


@given(st.lists(near_changes(), min_size=2, max_size=30), st.sampled_from(ZONES))
@settings(deadline=None)
def test_local_seconds_are_equal_exactly_where_local_texts_are(at_ms: list[int], zone: str) -> None:
    seconds, texts = local_seconds(at_ms, zone), local_texts(at_ms, zone)
    assert [a == b for a in seconds for b in seconds] == [a == b for a in texts for b in texts]


def test_fractions_are_cut_towards_the_past_before_1970_as_well() -> None:
    assert local_texts([1999, -1, -1000, -1001], "UTC") == [
        "1970-01-01 00:00:01",
        "1969-12-31 23:59:59",
        "1969-12-31 23:59:59",
        "1969-12-31 23:59:58",
    ]


def test_the_repeated_hour_gives_one_text_for_two_instants() -> None:
    texts = local_texts([ms("2026-10-25T00:30Z"), ms("2026-10-25T01:30Z")], "Europe/Berlin")
    assert texts == ["2026-10-25 02:30:00"] * 2


def test_nothing_in_gives_nothing_out() -> None:
    assert local_texts([], "Europe/Berlin") == []
    assert local_texts(np.zeros(0, np.int64), "UTC") == []


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "/etc/passwd", "../UTC", "Europe", "Europe/Berlin\0", "utc+1"])
def test_an_unknown_zone_is_refused_by_name(zone: str) -> None:
    with pytest.raises(ConfigurationError, match="IANA zone"):
        local_texts([0], zone)
    with pytest.raises(ConfigurationError, match="IANA zone"):
        local_midnights(0, DAY_MS, zone)


@pytest.mark.parametrize("at_ms", [2**60, -(2**60), 2**63 - 1, 253_402_300_799_000])
def test_an_instant_that_no_calendar_has_is_refused(at_ms: int) -> None:
    with pytest.raises(InvalidResponse, match="years 1 to 9999"):
        local_texts([at_ms], "Asia/Shanghai")
    with pytest.raises(InvalidResponse, match="years 1 to 9999"):
        local_midnights(at_ms, at_ms, "Asia/Shanghai")


@given(
    st.sampled_from(ZONES),
    near_changes().map(lambda at_ms: at_ms // 60_000 * 60_000),
    st.integers(0, 50),
)
@settings(max_examples=50, deadline=None)
def test_midnights_are_the_first_minutes_of_local_dates(zone: str, open_ms: int, hours: int) -> None:
    open_ms = max(open_ms, ms("1973-01-01T00:00Z"))  # before, offsets were no whole minutes
    close_ms = open_ms + hours * 3_600_000
    firsts: dict[str, int] = {}
    for at_ms in range(open_ms - 2 * DAY_MS, close_ms + 1, 60_000):
        firsts.setdefault(without_traceback(at_ms, zone)[:10], at_ms)
    expected = [at_ms for at_ms in firsts.values() if open_ms < at_ms <= close_ms]
    assert local_midnights(open_ms, close_ms, zone) == expected


@pytest.mark.parametrize(
    ("zone", "begin", "end", "expected"),
    [
        pytest.param("UTC", "2026-03-01", "2026-03-02", ["2026-03-02T00:00Z"], id="opening-is-out-closing-is-in"),
        pytest.param("Asia/Kolkata", "2026-03-01", "2026-03-02", ["2026-03-01T18:30Z"], id="half-hour-zone"),
        pytest.param("America/Santiago", "2026-09-06", "2026-09-07", ["2026-09-06T04:00Z"], id="midnight-left-out"),
        pytest.param("America/Havana", "2026-11-01", "2026-11-02", ["2026-11-01T04:00Z"], id="midnight-twice"),
        pytest.param("America/Havana", "2026-03-08", "2026-03-09", ["2026-03-08T05:00Z"], id="midnight-left-out-too"),
        pytest.param("Pacific/Apia", "2011-12-30", "2011-12-31", ["2011-12-30T10:00Z"], id="date-left-out"),
        pytest.param("America/St_Johns", "2006-10-29", "2006-10-30", ["2006-10-29T02:30Z"], id="back-into-yesterday"),
        pytest.param("America/Sao_Paulo", "2018-11-04", "2018-11-05", ["2018-11-04T03:00Z"], id="skipped-until-one"),
        pytest.param("Atlantic/Azores", "2026-10-24", "2026-10-25", ["2026-10-25T00:00Z"], id="midnight-twice-in-utc"),
        pytest.param("Africa/Monrovia", "1972-01-06", "1972-01-07", ["1972-01-06T00:44:30Z"], id="seconds"),
        pytest.param("UTC", "2026-03-01", "2026-03-01", [], id="nothing-between"),
    ],
)
def test_a_days_midnights(zone: str, begin: str, end: str, expected: list[str]) -> None:
    found = local_midnights(ms(f"{begin}T00:00Z"), ms(f"{end}T00:00Z"), zone)
    assert found == [ms(text) for text in expected]


@pytest.mark.parametrize(
    ("zone", "change"),
    [
        ("America/St_Johns", "2006-10-29T02:31Z"),
        ("Africa/Monrovia", "1972-01-07T00:44:30Z"),
        ("Asia/Shanghai", "1900-12-31T15:54:17Z"),
    ],
)
def test_a_change_within_a_quarter_of_an_hour_takes_effect_at_its_second(zone: str, change: str) -> None:
    around = [ms(change) + offset for offset in (-900_000, -60_000, -1000, -1, 0, 1, 999, 60_000, 900_000)]
    assert local_texts(around, zone) == [without_traceback(instant, zone) for instant in around]


@pytest.mark.parametrize(
    ("zone", "day", "left_out"),
    [
        ("UTC", "2026-03-01", []),
        ("Europe/Berlin", "2026-10-25", [(3600, 3600)]),  # at 01:00 UTC clocks show the opening's text again
        ("Europe/Berlin", "2026-03-29", []),
        ("Atlantic/Azores", "2026-10-25", [(3600, 3600)]),
        ("Antarctica/Troll", "2026-10-25", [(3600, 7200)]),  # and here the last hour of the day before as well
        ("Antarctica/Troll", "2026-10-24", []),
        ("Asia/Baku", "2015-10-25", [(1, 3599)]),  # went back at the opening instant itself
    ],
)
def test_seconds_whose_texts_the_day_before_has_shown_are_not_the_days_own(
    zone: str, day: str, left_out: list[tuple[int, int]]
) -> None:
    open_ms = ms(f"{day}T00:00Z")
    own = {second - open_ms // 1000 for second in new_seconds(open_ms, open_ms + DAY_MS, zone).tolist()}
    assert set(range(1, 86_401)) - own == {second for first, last in left_out for second in range(first, last + 1)}


@pytest.mark.parametrize("day", ["2026-10-24", "2026-10-25", "2026-03-29"])
@pytest.mark.parametrize("zone", ["Antarctica/Troll", "Atlantic/Azores", "Europe/Berlin"])
def test_no_text_is_two_days_own(zone: str, day: str) -> None:
    open_ms = ms(f"{day}T00:00Z")
    days = [new_seconds(open_ms + n * DAY_MS, open_ms + (n + 1) * DAY_MS, zone) * 1000 for n in (-1, 0, 1)]
    texts = [set(local_texts(own, zone)) for own in days]
    assert not texts[0] & texts[1]
    assert not texts[1] & texts[2]
