"""Several days in a row, against the sandbox's own books: each balance is exactly one day's to deliver."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balance_bridge.points import BalanceRequest
from balance_bridge.sandbox.books import Asked, expected, local_text
from balance_bridge.sandbox.world import Book, Leg, Record, Snapshot, midnight_ms
from balance_bridge.transform import snapshot
from balance_bridge.transform.balances import balances_at
from balance_bridge.transform.ledger import build_ledger
from balance_bridge.transform.schema import LEGS

DAY_MS = 86_400_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ASSETS = ["BTC", "USDT", "1INCH"]
POINTS = ["open", "close", "changes", "local_midnight", "every 1h", "every 24h"]
# Zones in which, around the day, clocks go forward, back, back over a UTC midnight, or nothing happens.
DAYS = [
    ("UTC", date(2026, 11, 20)),
    ("Asia/Shanghai", date(2026, 11, 20)),
    ("Europe/Berlin", date(2026, 10, 25)),
    ("America/Havana", date(2026, 11, 1)),
    ("Atlantic/Azores", date(2026, 10, 25)),
    ("Atlantic/Azores", date(2026, 3, 29)),
    ("Antarctica/Troll", date(2026, 10, 25)),
    ("Antarctica/Troll", date(2026, 3, 29)),
    ("Asia/Baku", date(2015, 10, 25)),
    ("Pacific/Apia", date(2011, 12, 30)),
]


def times(midnight: int) -> st.SearchStrategy[int]:
    """Anywhere in the day that ends with a midnight, around both of its ends, and outside it."""
    ends = st.sampled_from([midnight - DAY_MS, midnight])
    near = st.sampled_from([-400, -1, 0, 1, 400, 999, 1000, 3_600_000, 3_600_300, -3_600_000, -3_599_300, 5_412_000])
    return st.integers(midnight - DAY_MS - 5_000, midnight + 5_000) | st.builds(lambda a, b: a + b, ends, near)


@st.composite
def books(draw: st.DrawFn, first: date, days: int) -> Book:
    sn, held = 100, dict(draw(st.dictionaries(st.sampled_from(ASSETS), st.integers(-5, 5), max_size=3)))
    snapshots, records = [Snapshot(first, sn, amounts(held))], []
    for number in range(1, days + 1):
        midnight = midnight_ms(first + timedelta(days=number))
        for _ in range(draw(st.integers(0, 12))):
            sn += draw(st.integers(1, 3))
            touched = draw(st.sets(st.sampled_from(ASSETS), min_size=1, max_size=2))
            legs = []
            for asset in sorted(touched):
                before = held.get(asset, 0)
                # Often enough an asset goes to nothing.
                held[asset] = draw(st.sampled_from([0, before + 1, before - 2]))
                legs.append(Leg(asset, Decimal(held[asset] - before), Decimal(held[asset])))
            records.append(Record(sn, draw(times(midnight)), "balance", "Deposit", tuple(legs)))
        sn += draw(st.integers(0, 2))
        snapshots.append(Snapshot(first + timedelta(days=number), sn, amounts(held)))
    return Book("by chance", snapshots, records)


def amounts(held: dict[str, int]) -> dict[str, Decimal]:
    return {asset: Decimal(units) for asset, units in held.items() if units}


def of_pipeline(book: Book, day: date, request: BalanceRequest) -> list[tuple[Any, ...]]:
    ends = [book.snapshots[day], book.snapshots[day + timedelta(days=1)]]
    opening, closing = (snapshot.Snapshot(end.sn, end.at_ms, end.balances) for end in ends)
    rows = [
        {"sn": one.sn, "at": one.at_ms, "kind": one.kind, "event": one.event, "order_id": None, "fee": False}
        | {"asset": leg.asset, "delta": leg.delta, "balance": leg.balance}
        for one in book.between(*ends)
        for leg in one.legs
    ]
    frame = balances_at(opening, closing, build_ledger(pa.Table.from_pylist(rows, schema=LEGS)), request).frame
    at = frame["at"].astype("int64[pyarrow]").tolist()
    return [(day, *row) for row in zip(frame["asset"], at, frame["balance"], strict=True)]


@pytest.mark.slow  # chains of days, each worked out twice
@given(st.data())
@settings(max_examples=60, deadline=None)
def test_over_days_in_a_row_each_balance_is_delivered_by_exactly_one(
    world: SimpleNamespace, data: st.DataObject
) -> None:
    zone, middle = data.draw(st.sampled_from(DAYS))
    days = data.draw(st.integers(1, 4))
    first = middle - timedelta(days=data.draw(st.integers(0, days - 1)))
    book = data.draw(books(first, days))
    points = data.draw(st.lists(st.sampled_from(POINTS), min_size=1, max_size=4, unique=True))
    start = first + timedelta(days=data.draw(st.integers(-2, 2)))
    key = data.draw(st.sampled_from(["instant", "local_second"]))
    request = BalanceRequest("there", points, zone, key, start)

    delivered = [row for number in range(days) for row in of_pipeline(book, first + timedelta(days=number), request)]
    due, _ = expected(book, first, first + timedelta(days=days - 1), Asked(points, zone, key, start))
    assert sorted(delivered) == sorted((one.day, one.asset, one.at_ms, one.balance) for one in due)
    keys = [(asset, at if key == "instant" else local_text(at, zone)) for _, asset, at, _ in delivered]
    assert len(set(keys)) == len(keys)


@pytest.mark.slow  # as above
@given(st.data())
@settings(max_examples=20, deadline=None)
def test_what_an_account_came_to_hold_is_the_last_balance_of_every_destination_that_asks_for_changes(
    data: st.DataObject,
) -> None:
    """Whatever the times of its records: no record is lost between two days."""
    zone, first = data.draw(st.sampled_from(DAYS))
    book = data.draw(books(first, 2))
    points = data.draw(st.sampled_from([["changes"], ["changes", "close"], ["local_midnight", "changes", "every 1h"]]))
    request = BalanceRequest("there", points, zone, data.draw(st.sampled_from(["instant", "local_second"])), first)
    rows = [row for number in range(2) for row in of_pipeline(book, first + timedelta(days=number), request)]
    last = {asset: balance for _, asset, _, balance in sorted(rows, key=lambda row: row[2])}
    held = book.snapshots[first + timedelta(days=2)].balances
    touched = {leg.asset for one in book.records for leg in one.legs}
    assert {asset: last[asset] for asset in touched} == {asset: held.get(asset, Decimal(0)) for asset in touched}


@pytest.mark.slow  # as above
@given(st.data())
@settings(max_examples=20, deadline=None)
def test_every_midnight_shows_each_asset_that_the_day_before_knew_also_if_it_has_gone_to_nothing(
    data: st.DataObject,
) -> None:
    zone, first = data.draw(st.sampled_from(DAYS))
    book = data.draw(books(first, 3))
    points = data.draw(st.sampled_from([["open"], ["open", "every 24h"], ["changes", "open"], ["open", "close"]]))
    request = BalanceRequest("there", points, zone, data.draw(st.sampled_from(["instant", "local_second"])), first)
    days = [first + timedelta(days=number) for number in range(3)]
    rows = {(asset, at): amount for day in days for _, asset, at, amount in of_pipeline(book, day, request)}
    for day in days[:-1]:
        opening, closing = book.snapshots[day], book.snapshots[day + timedelta(days=1)]
        touched = {leg.asset for one in book.between(opening, closing) for leg in one.legs}
        for asset in touched.union(opening.balances, closing.balances):
            assert rows[asset, closing.at_ms] == closing.balances.get(asset, Decimal(0))
