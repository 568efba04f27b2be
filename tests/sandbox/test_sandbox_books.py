from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest

from balance_bridge.sandbox.books import Asked, KeyKind, expected, local_midnights, local_text, step_ms
from balance_bridge.sandbox.world import Book, Leg, Record, Snapshot, midnight_ms

DAY = date(2026, 11, 20)
OPEN = midnight_ms(DAY)
HOUR = 3_600_000


def record(sn: int, at_ms: int, asset: str, delta: str, balance: str) -> Record:
    return Record(sn, at_ms, "balance", "Deposit", (Leg(asset, Decimal(delta), Decimal(balance)),))


def day_book(opening: dict[str, str], closing: dict[str, str], *records: Record, day: date = DAY) -> Book:
    held = [{asset: Decimal(text) for asset, text in balances.items()} for balances in (opening, closing)]
    snapshots = [Snapshot(day, 100, held[0]), Snapshot(day + timedelta(days=1), 200, held[1])]
    return Book("by hand", snapshots, records)


def deliveries(
    book: Book,
    points: str,
    zone: str = "UTC",
    kind: KeyKind = "instant",
    day: date = DAY,
    *,
    last: date | None = None,
    start: date | None = None,
) -> dict[tuple[str, int], str]:
    found, _ = expected(book, day, last or day, Asked(points.split(","), zone, kind, start or day))
    keys = [one.key(kind) for one in found]
    assert len(set(keys)) == len(keys)
    return {(one.asset, one.at_ms - midnight_ms(day)): format(one.balance, "f") for one in found}


def test_open_and_close_are_the_snapshots_for_every_asset_that_was_there() -> None:
    book = day_book(
        {"BTC": "1", "GONE": "5"},
        {"BTC": "2", "NEW": "-3"},
        record(101, OPEN + HOUR, "BTC", "1", "2"),
        record(102, OPEN + 2 * HOUR, "GONE", "-5", "0"),
        record(103, OPEN + 3 * HOUR, "NEW", "-3", "-3"),
        record(104, OPEN + 4 * HOUR, "FLASH", "7", "7"),
        record(105, OPEN + 5 * HOUR, "FLASH", "-7", "0"),
    )
    assert deliveries(book, "open,close") == {
        ("BTC", 0): "1",
        ("FLASH", 0): "0",
        ("GONE", 0): "5",
        ("NEW", 0): "0",
        ("BTC", 24 * HOUR): "2",
        ("FLASH", 24 * HOUR): "0",
        ("GONE", 24 * HOUR): "0",
        ("NEW", 24 * HOUR): "-3",
    }


def test_the_last_record_by_sn_decides_and_not_the_latest_time() -> None:
    book = day_book(
        {"BTC": "1"},
        {"BTC": "4"},
        record(101, OPEN + 2 * HOUR, "BTC", "1", "2"),
        record(102, OPEN + 1 * HOUR, "BTC", "2", "4"),
    )
    assert deliveries(book, "changes") == {("BTC", 1 * HOUR): "4", ("BTC", 2 * HOUR): "4"}
    assert deliveries(book, "every 12h") == {("BTC", 12 * HOUR): "4", ("BTC", 24 * HOUR): "4"}


def test_steps_start_after_the_opening_and_include_the_closing() -> None:
    book = day_book({"BTC": "1"}, {"BTC": "3"}, record(101, OPEN + 8 * HOUR, "BTC", "2", "3"))
    assert deliveries(book, "every 8h") == {("BTC", 8 * HOUR): "3", ("BTC", 16 * HOUR): "3", ("BTC", 24 * HOUR): "3"}
    assert len(deliveries(book, "every 15min")) == 96


def test_a_record_outside_the_day_moves_to_the_nearest_instant_inside() -> None:
    book = day_book(
        {"BTC": "1"},
        {"BTC": "4"},
        record(101, OPEN - 4_000, "BTC", "1", "2"),
        record(102, OPEN + HOUR, "BTC", "1", "3"),
        record(103, OPEN + 24 * HOUR + 400, "BTC", "1", "4"),
    )
    assert deliveries(book, "changes") == {("BTC", 1): "2", ("BTC", HOUR): "3", ("BTC", 24 * HOUR): "4"}
    by_second = deliveries(book, "changes", kind="local_second")
    assert by_second == {("BTC", 1000): "2", ("BTC", HOUR): "3", ("BTC", 24 * HOUR): "4"}


def test_before_every_record_the_opening_holds() -> None:
    book = day_book({"BTC": "1"}, {"BTC": "3"}, record(101, OPEN + 13 * HOUR, "BTC", "2", "3"))
    assert deliveries(book, "every 12h") == {("BTC", 12 * HOUR): "1", ("BTC", 24 * HOUR): "3"}


def test_a_change_at_the_opening_is_delivered_after_it_and_one_at_the_closing_has_the_snapshots_value() -> None:
    book = day_book(
        {"BTC": "1"},
        {"BTC": "4"},
        record(101, OPEN, "BTC", "1", "2"),
        record(102, OPEN + 24 * HOUR, "BTC", "1", "3"),
        record(103, OPEN + HOUR, "BTC", "1", "4"),
    )
    changes = {("BTC", 1): "2", ("BTC", HOUR): "4", ("BTC", 24 * HOUR): "4"}
    assert deliveries(book, "changes") == changes
    assert deliveries(book, "changes,open,close") == {("BTC", 0): "1"} | changes
    _, collisions = expected(book, DAY, DAY, Asked(["changes"], "UTC", "instant", DAY))
    assert collisions == 0


def test_of_one_second_a_snapshot_wins_and_else_the_latest_instant() -> None:
    book = day_book(
        {"BTC": "1"},
        {"BTC": "5"},
        record(101, OPEN + HOUR + 100, "BTC", "1", "2"),
        record(102, OPEN + HOUR + 900, "BTC", "1", "3"),
        record(103, OPEN + 24 * HOUR - 1, "BTC", "1", "4"),
        record(104, OPEN + 24 * HOUR + 500, "BTC", "1", "5"),
    )
    found, collisions = expected(book, DAY, DAY, Asked(["changes", "close"], "Asia/Shanghai", "local_second", DAY))
    assert [(one.local, one.at_ms - OPEN, format(one.balance, "f"), one.points) for one in found] == [
        ("2026-11-20 09:00:00", HOUR + 900, "3", ("changes",)),
        ("2026-11-21 07:59:59", 24 * HOUR - 1, "4", ("changes",)),
        ("2026-11-21 08:00:00", 24 * HOUR, "5", ("changes", "close")),
    ]
    assert collisions == 1


def test_a_change_in_the_opening_second_is_delivered_under_the_next() -> None:
    book = day_book({"BTC": "1"}, {"BTC": "2"}, record(101, OPEN + 999, "BTC", "1", "2"))
    assert deliveries(book, "changes", kind="local_second") == {("BTC", 1000): "2"}
    assert deliveries(book, "changes,open", kind="local_second") == {("BTC", 0): "1", ("BTC", 1000): "2"}
    assert deliveries(book, "changes", kind="instant") == {("BTC", 999): "2"}


def test_in_the_repeated_hour_the_later_instant_wins() -> None:
    # Berlin, 2026-10-25: 00:30Z and 01:30Z are both 02:30:00.
    day = date(2026, 10, 25)
    start = midnight_ms(day)
    book = day_book(
        {"BTC": "1"},
        {"BTC": "3"},
        record(101, start + HOUR // 2, "BTC", "1", "2"),
        record(102, start + 3 * HOUR // 2, "BTC", "1", "3"),
        day=day,
    )
    assert deliveries(book, "changes", "Europe/Berlin", "local_second", day) == {("BTC", 3 * HOUR // 2): "3"}
    assert len(deliveries(book, "changes", "Europe/Berlin", "instant", day)) == 2


def test_a_repeat_of_the_opening_second_an_hour_later_is_under_it_too() -> None:
    # The Azores, 2026-10-25: 00:00Z and 01:00Z are both 00:00:00.
    day = date(2026, 10, 25)
    start = midnight_ms(day)
    book = day_book({"BTC": "1"}, {"BTC": "2"}, record(101, start + HOUR + 5, "BTC", "1", "2"), day=day)
    steps = deliveries(book, "every 1h", "Atlantic/Azores", "local_second", day)
    assert ("BTC", HOUR) not in steps
    assert len(steps) == 23
    assert ("BTC", 0) in deliveries(book, "every 1h,open", "Atlantic/Azores", "local_second", day)
    assert deliveries(book, "changes", "Atlantic/Azores", "local_second", day) == {("BTC", HOUR + 1000): "2"}


def test_texts_that_the_clock_shows_on_two_days_are_the_first_ones() -> None:
    # Troll, 2026-10-25: clocks go from 03:00 back to 01:00 at 01:00Z, and 01:00 was at 23:00Z the day before.
    first, day = date(2026, 10, 24), date(2026, 10, 25)
    start = midnight_ms(day)
    snapshots = [Snapshot(first + timedelta(days=n), 100 * (n + 1), {"BTC": Decimal(n + 1)}) for n in range(3)]
    records = [
        record(150, start - HOUR + 12_000, "BTC", "1", "2"),
        record(250, start + HOUR + 12_000, "BTC", "1", "3"),
    ]
    book = Book("by hand", snapshots, records)
    changes = deliveries(book, "changes", "Antarctica/Troll", "local_second", first, last=day)
    assert changes == {("BTC", 23 * HOUR + 12_000): "2", ("BTC", 26 * HOUR + 1000): "3"}


def test_points_that_share_an_instant_make_one_row_and_no_collision() -> None:
    book = day_book({"BTC": "1"}, {"BTC": "1"})
    found, collisions = expected(book, DAY, DAY, Asked(["every 24h", "local_midnight", "close"], "UTC", "instant", DAY))
    assert [one.points for one in found] == [("close", "every 24h", "local_midnight")]
    assert collisions == 0


@pytest.fixture
def two_days() -> Book:
    """Each day with a record that was booked after its midnight; the asset of the first day's is gone after it."""
    held = [{"BTC": Decimal(1), "ETH": Decimal(5)}, {"BTC": Decimal(2)}, {"BTC": Decimal(3)}]
    return Book(
        "two days",
        [Snapshot(DAY + timedelta(days=n), 100 * (n + 1), balances) for n, balances in enumerate(held)],
        [
            record(150, OPEN + 24 * HOUR + 400, "BTC", "1", "2"),
            record(160, OPEN + 24 * HOUR + 500, "ETH", "-5", "0"),
            record(250, OPEN + 24 * HOUR - 700, "BTC", "1", "3"),
        ],
    )


@pytest.mark.parametrize("kind", ["instant", "local_second"])
@pytest.mark.parametrize("points", ["changes", "changes,close", "changes,local_midnight", "changes,every 6h"])
def test_a_record_booked_around_midnight_reaches_every_destination_that_asks_for_changes(
    two_days: Book, points: str, kind: KeyKind
) -> None:
    found = deliveries(two_days, points, kind=kind, last=DAY + timedelta(days=1))
    tick = 1 if kind == "instant" else 1000
    assert found["BTC", 24 * HOUR] == "2"
    assert found["ETH", 24 * HOUR] == "0"
    assert found["BTC", 24 * HOUR + tick] == "3"


@pytest.mark.parametrize(
    ("points", "start", "by_day"),
    [
        ("close", 0, [[24], [48]]),
        ("open", 0, [[0], [24]]),
        ("open,close", 0, [[0, 24], [48]]),
        ("open,close", 1, [[], [24, 48]]),  # the run of a day before the account's first
        ("open,close", -5, [[24], [48]]),
        ("open,every 24h", 0, [[0], [24]]),
        ("open,close,every 24h", 0, [[0, 24], [48]]),
        ("every 24h", 0, [[24], [48]]),
        ("local_midnight", 0, [[24], [48]]),
        ("open,local_midnight", 0, [[0], [24]]),
    ],
)
def test_each_midnight_is_one_days_to_deliver(two_days: Book, points: str, start: int, by_day: list[list[int]]) -> None:
    last, first = DAY + timedelta(days=1), DAY + timedelta(days=start)
    for kind in ("instant", "local_second"):
        found, _ = expected(two_days, DAY, last, Asked(points.split(","), "UTC", kind, first))
        hours = [
            sorted({(one.at_ms - OPEN) // HOUR for one in found if one.day == day and one.asset == "BTC"})
            for day in (DAY, last)
        ]
        assert hours == by_day


@pytest.mark.parametrize(
    ("zone", "day", "expected_texts"),
    [
        ("UTC", DAY, ["2026-11-21T00:00:00"]),
        ("Asia/Shanghai", DAY, ["2026-11-20T16:00:00"]),
        ("Asia/Kolkata", DAY, ["2026-11-20T18:30:00"]),
        ("America/Santiago", date(2026, 9, 6), ["2026-09-06T04:00:00"]),  # the clocks go from 00:00 to 01:00
        ("America/Havana", date(2026, 11, 1), ["2026-11-01T04:00:00"]),  # 00:00 comes twice
        ("Pacific/Apia", date(2011, 12, 30), ["2011-12-30T10:00:00"]),  # 2011-12-30 never came
        ("Pacific/Apia", date(2011, 12, 29), ["2011-12-29T10:00:00"]),
    ],
)
def test_local_midnights_are_the_first_instants_of_local_dates(zone: str, day: date, expected_texts: list[str]) -> None:
    start = midnight_ms(day)
    found = local_midnights(start, start + 24 * HOUR, zone)
    assert [datetime.fromtimestamp(at / 1000, UTC).replace(tzinfo=None).isoformat() for at in found] == expected_texts


def test_local_text_is_cut_and_not_rounded() -> None:
    assert local_text(OPEN + 999, "Asia/Shanghai") == "2026-11-20 08:00:00"
    assert local_text(-1, "UTC") == "1969-12-31 23:59:59"


@pytest.mark.parametrize("point", ["every 7h", "every 0s", "every 1d", "hourly", "every 48h", ""])
def test_unknown_points_are_refused(point: str) -> None:
    with pytest.raises(ValueError, match="is no point"):
        step_ms(point)


def test_a_day_that_is_not_in_the_books_is_refused() -> None:
    with pytest.raises(ValueError, match="2026-11-21"):
        deliveries(day_book({}, {}), "close", last=DAY + timedelta(days=1))
