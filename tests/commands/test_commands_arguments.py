"""What people type: days, and names with a suggestion."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable
from datetime import date, timedelta
from itertools import pairwise
from typing import Any

import pytest

from balance_bridge import cli
from balance_bridge.commands import arguments

TODAY = date(2026, 11, 21)


@pytest.fixture(autouse=True)
def at_noon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arguments, "today", lambda: TODAY)


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("2026-11-01", date(2026, 11, 1), date(2026, 11, 1)),
        ("yesterday", date(2026, 11, 20), date(2026, 11, 20)),
        ("today", TODAY, TODAY),
        ("2026-11-01..2026-11-07", date(2026, 11, 1), date(2026, 11, 7)),
        ("2026-11-19..yesterday", date(2026, 11, 19), date(2026, 11, 20)),
        ("2024-02-28..2024-03-01", date(2024, 2, 28), date(2024, 3, 1)),
    ],
)
def test_days_are_every_day_from_the_first_to_the_last(text: str, first: date, last: date) -> None:
    days = arguments.parse_days(text)
    assert (days[0], days[-1], len(days)) == (first, last, (last - first).days + 1)
    assert all(after - before == timedelta(days=1) for before, after in pairwise(days))


@pytest.mark.parametrize(
    "text", ["", "..", "2026-11-01..", "..2026-11-01", "2026-11-31", "20261101", "2026-11-02..2026-11-01", "Yesterday"]
)
@pytest.mark.parametrize("parse", [arguments.parse_days, arguments.parse_day, arguments.parse_recent])
def test_what_is_no_day_is_refused(parse: Callable[[str], Any], text: str) -> None:
    with pytest.raises(ArgumentTypeError):
        parse(text)


def test_recent_days_are_counted_back_from_yesterday() -> None:
    assert arguments.parse_recent("2") == [date(2026, 11, 19), date(2026, 11, 20)]
    assert arguments.parse_recent("yesterday") == [date(2026, 11, 20)]


@pytest.mark.parametrize("text", ["400", "d", "29d", "-400d", "400 d", "123456d"])
def test_how_long_to_keep_is_a_number_of_days_and_not_too_few(text: str) -> None:
    assert arguments.parse_keep("30d") == 30
    with pytest.raises(ArgumentTypeError, match="30d or more"):
        arguments.parse_keep(text)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("status main_csh", "main_cash"),
        ("receipts main_csh yesterday", "main_cash"),
        ("receipts main_cash yesterday --destination Elvn", "elven"),
        ("receipts main_cash yesterday --outcome rejectd", "rejected"),
        ("preview main_marginn yesterday", "main_margin"),
        ("preview main_cash yesterday --destination amlize", "amlyze"),
        ("receipts adopt main_cash --destination elvn --by A --reason B", "elven"),
        ("store check main_cahs", "main_cash"),
    ],
)
def test_a_mistyped_name_is_a_usage_error_with_a_suggestion(
    place: Any, capsys: pytest.CaptureFixture[str], typed: str, meant: str
) -> None:
    (place.folder / "balances" / "raw" / "main_cash" / "2026-11-20" / "snapshot").mkdir(parents=True)
    (place.folder / "balances" / "raw" / "main_cash" / "2026-11-20" / "snapshot" / "0001.gz").touch()
    assert cli.main(typed.split()) == 2
    assert f"did you mean {meant}?" in capsys.readouterr().err
