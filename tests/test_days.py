from __future__ import annotations

import functools
import inspect
import re
from datetime import UTC, date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balance_bridge import days
from balance_bridge.errors import InvalidDay

D = date(2026, 11, 20)
resolve_day = functools.partial(days.resolve_day, run_type="manual")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


zones = st.one_of(
    st.just(UTC),
    st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes))),
    st.sampled_from(["Asia/Shanghai", "America/New_York", "Pacific/Apia", "Europe/Berlin"]).map(ZoneInfo),
)
instants = st.integers(0, 3 * 10**9 * 1000).map(lambda ms: at("2000-01-02") + timedelta(milliseconds=ms))


@pytest.mark.parametrize(
    ("run", "requested", "logical_date", "run_after", "expected"),
    [
        ("scheduled", None, "2026-11-20", "2026-11-21", "2026-11-20"),
        ("backfilled long after", None, "2026-11-20", "2026-11-21", "2026-11-20"),
        ("dags test with a past day", None, "2026-11-20", "2026-11-27T14:03:09", "2026-11-20"),
        ("dags test with today", None, "2026-11-20", "2026-11-20T14:03:09", "2026-11-19"),
        ("triggered without a logical date", None, None, "2026-11-20T14:03:09", "2026-11-19"),
        ("triggered just before midnight", None, None, "2026-11-20T23:59:59.999999", "2026-11-19"),
        ("triggered at midnight", None, None, "2026-11-21", "2026-11-20"),
        ("triggered with an instant of a day that is over", None, "2026-11-20T15:00", "2026-11-21T08:00", "2026-11-20"),
        ("triggered with an instant of today", None, "2026-11-20T15:00", "2026-11-20T16:00", "2026-11-19"),
        ("triggered with a logical date in the future", None, "2027-01-01", "2026-11-20T16:00", "2026-11-19"),
        ("a date given", "2026-11-18", None, "2026-11-20T16:00", "2026-11-18"),
        ("a date wins over the logical date", "2026-11-18", "2026-11-19", "2026-11-20T16:00", "2026-11-18"),
        ("an old date", "2001-02-28", "2026-11-19", "2026-11-20T16:00", "2001-02-28"),
        ("a leap day", "2024-02-29", None, "2026-11-20T16:00", "2024-02-29"),
        ("yesterday", "2026-11-19", None, "2026-11-20", "2026-11-19"),
    ],
)
def test_each_kind_of_run_delivers_its_day(
    run: str, requested: str | None, logical_date: str | None, run_after: str, expected: str
) -> None:
    logical = None if logical_date is None else at(logical_date)
    assert resolve_day(requested, logical, at(run_after)) == date.fromisoformat(expected), run


@settings(deadline=None)
@given(st.dates(date(2000, 1, 1), date(2100, 1, 1)))
def test_a_scheduled_run_delivers_the_day_of_its_logical_date(day: date) -> None:
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    due = midnight + timedelta(days=1)
    for run_type in ("scheduled", "backfill", "manual"):
        assert days.resolve_day(None, midnight, due, run_type=run_type) == day


@settings(deadline=None)
@given(st.one_of(st.none(), instants), instants)
def test_the_day_had_always_ended_when_the_run_was_due(logical: datetime | None, run_after: datetime) -> None:
    day = resolve_day(None, logical, run_after)
    end = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)
    assert end <= run_after
    if logical is None or logical.date() >= run_after.date():
        assert run_after - end < timedelta(days=1)
    else:
        assert day == logical.date()


@settings(deadline=None)
@given(st.one_of(st.none(), instants), instants, zones, zones)
def test_the_zone_in_which_an_instant_is_given_changes_nothing(
    logical: datetime | None, run_after: datetime, one: timezone, other: timezone
) -> None:
    moved = None if logical is None else logical.astimezone(one)
    assert resolve_day(None, moved, run_after.astimezone(other)) == resolve_day(None, logical, run_after)


@settings(deadline=None)
@given(st.dates(date(1990, 1, 1), date(2110, 1, 1)), st.one_of(st.none(), instants), instants)
def test_a_date_that_is_given_is_the_day_or_refused(day: date, logical: datetime | None, run_after: datetime) -> None:
    if day < run_after.date():
        assert resolve_day(day.isoformat(), logical, run_after) == day
    else:
        with pytest.raises(InvalidDay, match=re.escape(day.isoformat())):
            resolve_day(day.isoformat(), logical, run_after)


def test_a_day_that_is_not_over_names_itself_and_the_last_one_that_is() -> None:
    with pytest.raises(InvalidDay, match=r"date = 2026-11-20 is not over yet.*2026-11-20 16:00 UTC.*was 2026-11-19"):
        resolve_day("2026-11-20", None, at("2026-11-20T16:00"))


def test_a_day_in_the_future_names_itself() -> None:
    for future in ("2026-11-21", "2999-01-01", "9999-12-31"):
        with pytest.raises(InvalidDay, match=f"date = {future} lies in the future"):
            resolve_day(future, None, at("2026-11-20T16:00"))


@pytest.mark.parametrize(
    "text",
    [
        *("", "20261118", "2026-W47-3", "2026-11-18T00:00", "2026-11-18\n", "2026-02-29", "0000-01-01", "yesterday"),
        *("-2026-11-18", "2026-11-1\u0668", "2026\u201011\u201018", "11/18/2026"),
    ],
)
def test_a_malformed_date_is_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidDay, match=r"is (not of the form YYYY-MM-DD|a date that does not exist)") as caught:
        resolve_day(text, at("2026-11-18"), at("2026-11-20T16:00"))
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("value", [20261118, ["2026-11-18"], {}, False, D, 0])
def test_a_date_that_is_no_text_is_refused(value: object) -> None:
    with pytest.raises(InvalidDay, match="is not of the form"):
        resolve_day(value, None, at("2026-11-27"))  # type: ignore[arg-type]


@pytest.mark.parametrize("run_type", ["backfill", "scheduled"])
@pytest.mark.parametrize("text", ["2026-11-18", "2026-11-10"])
def test_a_run_that_has_a_day_of_its_own_refuses_another_and_says_what_to_do(run_type: str, text: str) -> None:
    with pytest.raises(
        InvalidDay, match=rf"date = {text} cannot be given to a run of a backfill.*--from-date"
    ) as caught:
        days.resolve_day(text, at("2026-11-18"), at("2026-11-19"), run_type=run_type)
    assert "--dag-run-conf '{}'" in str(caught.value)
    assert f'Trigger the DAG once with {{"date": "{text}"}}' in str(caught.value)


def test_nothing_asks_for_the_time() -> None:
    assert re.search(r"\b(now|today|utcnow|time)\(", inspect.getsource(days)) is None
