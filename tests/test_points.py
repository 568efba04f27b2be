from __future__ import annotations

import subprocess
import sys
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balance_bridge.points import POINT_NAMES, BalanceRequest, opens, parse_step_ms


@pytest.mark.parametrize(
    ("text", "step_ms"),
    [
        ("1h", 3_600_000),
        ("every 1h", 3_600_000),
        ("every 15min", 900_000),
        ("30s", 30_000),
        ("24h", 86_400_000),
        ("86400s", 86_400_000),
        ("01h", 3_600_000),
    ],
)
def test_a_step_that_divides_the_day_is_read_in_milliseconds(text: str, step_ms: int) -> None:
    assert parse_step_ms(text) == step_ms


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "1",
            "h",
            "0h",
            "5h",
            "7min",
            "48h",
            "-1h",
            "1.5h",
            "1 h",
            "1d",
            "1H",
            "1h\n",
            "١h",
            "1h30min",
            "172800s",
        ),
        *("every", "every  1h", "every every 1h", "close", "9" * 5000 + "s"),
    ],
)
def test_a_step_that_is_no_step_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(ValueError, match="a whole number of s, min or h that divides 24 h, such as 30s or 1h"):
        parse_step_ms(text)


def test_reading_points_loads_neither_pandas_nor_arrow() -> None:
    code = "import sys, balance_bridge.points; print(sorted({'pandas', 'numpy', 'pyarrow'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_the_names_of_points_are_the_public_ones() -> None:
    assert POINT_NAMES == ("open", "close", "changes", "local_midnight")


@pytest.mark.parametrize(
    ("points", "days_that_open"),
    [
        (["close"], []),
        (["open"], [-1, 0, 1]),
        (["open", "close"], [0]),
        (["every 1h", "open"], [-1, 0, 1]),
        (["changes", "local_midnight"], []),
    ],
)
def test_a_days_opening_is_its_own_only_where_the_day_before_does_not_close(
    points: list[str], days_that_open: list[int]
) -> None:
    start = date(2026, 11, 1)
    assert [ahead for ahead in (-1, 0, 1) if opens(points, start + timedelta(days=ahead), start)] == days_that_open


@given(st.sets(st.sampled_from([*POINT_NAMES, "every 1h"])), st.dates(), st.integers(-3, 3))
def test_each_midnight_is_delivered_by_exactly_one_of_its_two_days(points: set[str], day: date, ahead: int) -> None:
    day = min(max(day, date(2, 1, 1)), date(9998, 1, 1))
    request = BalanceRequest("there", sorted(points), "UTC", "instant", day + timedelta(days=ahead))
    assert request.delivers_closing(day) != request.delivers_opening(day + timedelta(days=1))
