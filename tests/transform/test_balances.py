from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balance_bridge import money
from balance_bridge.errors import ConfigurationError, InvalidAmount, InvalidResponse
from balance_bridge.points import BalanceRequest
from balance_bridge.transform.balances import MAX_COLLIDED, Balances, balances_at
from balance_bridge.transform.ledger import build_ledger
from balance_bridge.transform.schema import BALANCES

DAY_MS = 86_400_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
HOUR_MS = 3_600_000
STEPS_MS = {"every 1h": 3_600_000, "every 15min": 900_000, "every 6h": 21_600_000, "every 24h": DAY_MS}
QUICK = settings(max_examples=20, deadline=None)
DAY = date(2026, 3, 1)
CLOSE = BalanceRequest("there", ["close"], "UTC", "instant", DAY)
POINTS = ["open", "close", "changes", "local_midnight", *STEPS_MS]


def expected(
    world: SimpleNamespace, history: Any, points: list[str], zone: str, key: str
) -> tuple[list[Any], set[Any]]:
    """Rows and collisions of an account's first day, asset by asset and instant by instant, in plain Python."""
    opening, closing = history.opening, history.closing
    own = own_instants(world, opening.at_ms, closing.at_ms, zone, key)
    history = replace(history, records=tuple(replace(r, at=own(r.at)) for r in history.records))
    touched = {asset for record in history.records for asset in record.after}
    assets = touched | {a for s in (opening, closing) for a, value in s.balances.items() if value}
    shared: dict[str, list[int]] = {"open": [opening.at_ms], "close": [closing.at_ms]}
    shared["local_midnight"] = world.midnights(opening.at_ms - 60_000, closing.at_ms, zone)
    for name, step_ms in STEPS_MS.items():
        shared[name] = [opening.at_ms + step_ms * n for n in range(DAY_MS // step_ms + 1)]

    rows, lost = [], set()
    for asset in assets:
        asked: dict[int, list[str]] = {}
        for point in points:
            changes = [record.at for record in history.records if asset in record.after]
            for at in set(changes if point == "changes" else shared[point]):
                asked.setdefault(at, []).append(point)
        if "open" not in points:
            asked.pop(opening.at_ms, None)
        closes = "open" not in points or "close" in points
        if not closes:
            # The next day's, with its key; but what has come to nothing is this day's to say.
            asking = {"open", *asked.get(closing.at_ms, ())} & {"open", "changes"}
            asked[closing.at_ms] = [point for point in points if point in asking]
        keys: dict[Any, list[int]] = {}
        for at in sorted(asked):
            keys.setdefault(at if key == "instant" else world.local_text(at, zone), []).append(at)
        for instants in keys.values():
            mine = [at for at in instants if own(at) == at or at == opening.at_ms]
            kept = next((s.at_ms for s in (opening, closing) if s.at_ms in mine), max(mine, default=None))
            left = not closes and kept == closing.at_ms and balance(history, asset, kept) != 0
            instead = None if left else kept
            lost |= {(asset, at, world.local_text(at, zone), instead) for at in instants if at != kept}
            if kept is not None and not left:
                rows.append((kept, asset, balance(history, asset, kept), ",".join(asked[kept])))
    return sorted(rows), lost


def own_instants(world: SimpleNamespace, open_ms: int, close_ms: int, zone: str, key: str) -> Callable[[int], int]:
    """Gives the nearest instant of the day, from an instant on, whose key no earlier day can have."""
    step_ms = 1 if key == "instant" else 1000
    shown = shown_before(world, open_ms, zone) if key == "local_second" else set()

    def own(at: int) -> int:
        at = max(at, open_ms)
        while at < close_ms and (at == open_ms or (shown and world.local_text(at, zone) in shown)):
            at = (at // step_ms + 1) * step_ms
        return min(at, close_ms)

    return own


@lru_cache(maxsize=64)
def shown_before(world: SimpleNamespace, open_ms: int, zone: str) -> set[str]:
    return {world.local_text(at, zone) for at in range(open_ms - DAY_MS, open_ms + 1, 1000)}


def balance(history: Any, asset: str, at_ms: int) -> Decimal:
    for snapshot in (history.opening, history.closing):
        if at_ms == snapshot.at_ms:
            return snapshot.balances.get(asset, Decimal(0))
    units = history.before.get(asset, 0)
    for record in history.records:
        if record.at <= at_ms and asset in record.after:
            units = record.after[asset]
    return Decimal(units).scaleb(-18, money.EXACT)


def found_rows(found: Balances) -> list[Any]:
    table = pa.Table.from_pandas(found.frame, preserve_index=False)
    at = table["at"].cast(pa.int64()).to_pylist()
    columns = [at, table["asset"].to_pylist(), table["balance"].to_pylist(), table["points"].to_pylist()]
    return list(zip(*columns, strict=True))


def deliver(history: Any, points: list[str], zone: str = "UTC", key: Any = "instant", seed: int = 0) -> Balances:
    """Balances of an account's first day."""
    request = BalanceRequest("there", points, zone, key, (EPOCH + timedelta(milliseconds=history.open_ms)).date())
    return balances_at(history.opening, history.closing, build_ledger(history.legs(seed)), request)


@given(st.data())
@settings(max_examples=40, deadline=None)
@pytest.mark.slow  # each example is worked out a second time, minute by minute, for both kinds of keys
def test_balances_are_what_a_plain_reading_of_the_rules_gives(world: SimpleNamespace, data: st.DataObject) -> None:
    zone, day = data.draw(st.sampled_from(world.DAYS))
    history = data.draw(world.histories(world.ms_of(day)))
    points = data.draw(st.lists(st.sampled_from(POINTS), min_size=1, max_size=4, unique=True))
    for key in ("instant", "local_second"):
        found = deliver(history, points, zone, key, seed=data.draw(st.integers(0, 3)))
        rows, lost = expected(world, history, points, zone, key)
        assert found_rows(found) == rows
        assert found.collisions == len(lost)
        listed = [tuple(each.values()) for each in found.collided]
        assert listed == sorted(lost, key=lambda one: (one[1], one[0]))[:MAX_COLLIDED]


@given(st.data())
@QUICK
def test_one_key_has_one_balance_and_no_column_is_a_float(world: SimpleNamespace, data: st.DataObject) -> None:
    zone, day = data.draw(st.sampled_from(world.DAYS))
    history = data.draw(world.histories(world.ms_of(day)))
    found = deliver(history, ["changes", "every 1h", "close"], zone, "local_second").frame
    assert [dtype.pyarrow_dtype for dtype in found.dtypes] == BALANCES.types
    assert list(found.columns) == BALANCES.names
    keys = [(row[1], world.local_text(row[0], zone)) for row in found_rows(Balances(found))]
    assert len(set(keys)) == len(keys)


@given(st.data())
@QUICK
def test_what_is_delivered_does_not_depend_on_other_points_for_instants(
    world: SimpleNamespace, data: st.DataObject
) -> None:
    history = data.draw(world.histories())
    points = data.draw(st.lists(st.sampled_from(["close", "changes", "every 1h"]), min_size=1, unique=True))
    together = {row[:3] for row in found_rows(deliver(history, points))}
    assert together == {row[:3] for point in points for row in found_rows(deliver(history, [point]))}


@pytest.fixture
def tale(world: SimpleNamespace) -> Any:
    """Builds a history of one day from (sn, ms after the opening, asset, balance after), in units of 10**-18."""

    def build(before: dict[str, int], *steps: tuple[int, int, str, int], day: str = "2026-03-01") -> Any:
        open_ms, last, records = world.ms_of(day), dict(before), []
        for sn, after_ms, asset, units in steps:
            leg = world.Leg(asset, units - last.get(asset, 0), False)
            last[asset] = units
            records.append(world.Record(sn, open_ms + after_ms, "order", (leg,), {asset: units}))
        return world.History(open_ms, 1, 99, before, tuple(records))

    return build


def rows_in_ms(found: Balances, open_ms: int) -> list[tuple[int, str, int, str]]:
    return [(at - open_ms, asset, int(value * 10**18), points) for at, asset, value, points in found_rows(found)]


def test_balances_follow_sequence_numbers_where_times_do_not(tale: Any) -> None:
    history = tale({"A": 1}, (2, 5_000_000, "A", 2), (3, 1_000_000, "A", 3), (4, 4_000_000, "A", 4))
    assert rows_in_ms(deliver(history, ["changes"]), history.open_ms) == [
        (1_000_000, "A", 3, "changes"),
        (4_000_000, "A", 4, "changes"),
        (5_000_000, "A", 4, "changes"),  # sn 2 came later by time, but is not the last by sn
    ]


def test_open_and_close_are_the_snapshots_even_against_the_records(tale: Any, world: SimpleNamespace) -> None:
    history = tale({"A": 1}, (2, 0, "A", 2), (3, DAY_MS, "A", 3), (4, DAY_MS + 1, "A", 4))
    found = deliver(history, ["changes", "open", "close", "every 24h"])
    assert rows_in_ms(found, history.open_ms) == [
        (0, "A", 1, "open,every 24h"),
        (1, "A", 2, "changes"),
        (DAY_MS, "A", 4, "changes,close,every 24h"),
    ]
    assert (found.collisions, found.moved) == (0, 2)


@pytest.mark.parametrize(("key", "first_ms"), [("instant", 1), ("local_second", 1000)])
def test_a_record_booked_outside_the_day_is_delivered_at_the_nearest_instant_inside(
    tale: Any, key: str, first_ms: int
) -> None:
    before = tale({"A": 1}, (2, -9_000, "A", 2), (3, 0, "B", 3))
    after = tale({"A": 1}, (2, DAY_MS + 400, "A", 0), (3, 2 * DAY_MS, "B", 4))
    exactly = tale({"A": 1}, (2, DAY_MS, "A", 2))
    for points in (["changes"], ["changes", "every 1h"], ["local_midnight", "changes"]):
        early, late, last = (deliver(history, points, key=key) for history in (before, after, exactly))
        assert [row[:3] for row in rows_in_ms(early, before.open_ms)][:2] == [(first_ms, "A", 2), (first_ms, "B", 3)]
        assert [row[:3] for row in rows_in_ms(late, after.open_ms)][-2:] == [(DAY_MS, "A", 0), (DAY_MS, "B", 4)]
        assert rows_in_ms(last, exactly.open_ms)[-1][:3] == (DAY_MS, "A", 2)
        assert (early.moved, late.moved, last.moved) == (2, 2, 0)
        assert early.collisions == late.collisions == last.collisions == 0


def test_moved_records_are_counted_once_however_many_assets_they_touch(tale: Any, world: SimpleNamespace) -> None:
    history = tale({}, (2, 400, "A", 2))
    record = replace(
        history.records[0], legs=tuple(world.Leg(a, 5, False) for a in "ABC"), after=dict.fromkeys("ABC", 5)
    )
    history = replace(history, records=(record,))
    assert deliver(history, ["changes"]).moved == 0
    assert deliver(history, ["changes"], key="local_second").moved == 1


def test_which_assets_are_delivered(tale: Any, world: SimpleNamespace) -> None:
    history = tale({"GONE": 5, "IDLE": 7, "NEVER": 0, "MARGIN": -3}, (2, 1000, "GONE", 0), (3, 2000, "NEW", 4))
    found = deliver(history, ["open", "close"])
    assert rows_in_ms(found, history.open_ms) == [
        (0, "GONE", 5, "open"),
        (0, "IDLE", 7, "open"),
        (0, "MARGIN", -3, "open"),
        (0, "NEW", 0, "open"),
        (DAY_MS, "GONE", 0, "close"),
        (DAY_MS, "IDLE", 7, "close"),
        (DAY_MS, "MARGIN", -3, "close"),
        (DAY_MS, "NEW", 4, "close"),
    ]
    assert not any(value.is_signed() and not value for value in found.frame["balance"])


def test_changes_are_asked_for_per_asset_and_steps_for_all(tale: Any) -> None:
    history = tale({"A": 1, "B": 9}, (2, 1000, "A", 2))
    found = deliver(history, ["changes", "every 12h"])
    assert rows_in_ms(found, history.open_ms) == [
        (1000, "A", 2, "changes"),
        (DAY_MS // 2, "A", 2, "every 12h"),
        (DAY_MS // 2, "B", 9, "every 12h"),
        (DAY_MS, "A", 2, "every 12h"),
        (DAY_MS, "B", 9, "every 12h"),
    ]


def test_records_of_one_millisecond_are_one_instant_and_no_collision(tale: Any) -> None:
    history = tale({"A": 1}, (2, 1500, "A", 2), (3, 1500, "A", 3))
    for key in ("instant", "local_second"):
        found = deliver(history, ["changes"], key=key)
        assert (rows_in_ms(found, history.open_ms), found.collisions) == ([(1500, "A", 3, "changes")], 0)


def test_of_one_second_the_latest_instant_is_delivered(tale: Any) -> None:
    history = tale({"A": 1}, (2, 1999, "A", 2), (3, 1001, "A", 3), (4, 2000, "A", 4))
    found = deliver(history, ["changes"], key="local_second")
    assert rows_in_ms(found, history.open_ms) == [(1999, "A", 3, "changes"), (2000, "A", 4, "changes")]
    lost = history.open_ms + 1001
    assert [tuple(each.values()) for each in found.collided] == [
        ("A", lost, "2026-03-01 00:00:01", history.open_ms + 1999)
    ]
    assert deliver(history, ["changes"]).collisions == 0


def test_a_snapshot_wins_its_text_against_the_days_other_instants(tale: Any) -> None:
    # In Baku clocks went from 05:00 back to 04:00 with the day's end, so that 23:00 UTC has the closing instant's text.
    history = tale({"A": 1}, (2, DAY_MS - HOUR_MS, "A", 2), (3, DAY_MS - HOUR_MS + 700, "A", 3), day="2015-10-24")
    found = deliver(history, ["changes", "close"], "Asia/Baku", "local_second")
    assert rows_in_ms(found, history.open_ms) == [(DAY_MS, "A", 3, "close")]
    assert [(each["at_ms"] - history.open_ms, each["kept_at_ms"] - history.open_ms) for each in found.collided] == [
        (DAY_MS - HOUR_MS, DAY_MS),
        (DAY_MS - HOUR_MS + 700, DAY_MS),
    ]
    alone = deliver(history, ["changes"], "Asia/Baku", "local_second")
    assert rows_in_ms(alone, history.open_ms) == [(DAY_MS - HOUR_MS + 700, "A", 3, "changes")]


def test_the_opening_second_is_left_to_the_day_before(tale: Any) -> None:
    history = tale({"A": 1}, (2, 0, "A", 2), (3, 400, "A", 3), (4, 1001, "A", 5), (5, 999, "B", 4), (6, -1, "A", 6))
    by_second = deliver(history, ["changes"], "Asia/Kolkata", "local_second")
    assert rows_in_ms(by_second, history.open_ms) == [(1000, "B", 4, "changes"), (1001, "A", 6, "changes")]
    assert (by_second.moved, by_second.collisions) == (4, 1)
    by_instant = deliver(history, ["changes"])
    assert [row[0] for row in rows_in_ms(by_instant, history.open_ms)] == [1, 400, 999, 1001]
    assert (by_instant.moved, by_instant.collisions) == (2, 0)


def test_in_the_repeated_hour_the_later_instant_is_delivered(tale: Any) -> None:
    half_past_midnight = 1_800_000  # 02:30 in Berlin, and again one hour later
    history = tale(
        {"A": 1}, (2, half_past_midnight, "A", 2), (3, half_past_midnight + 3_600_000, "A", 3), day="2026-10-25"
    )
    found = deliver(history, ["changes"], "Europe/Berlin", "local_second")
    assert rows_in_ms(found, history.open_ms) == [(half_past_midnight + 3_600_000, "A", 3, "changes")]
    assert found.collided[0]["local_text"] == "2026-10-25 02:30:00"
    hourly = deliver(history, ["every 1h"], "Europe/Berlin", "local_second")
    assert (len(hourly.frame), hourly.collisions) == (23, 1)


def test_a_repeated_hour_that_begins_with_the_day_leaves_the_opening_text_alone(tale: Any) -> None:
    # In the Azores clocks go from 01:00 back to 00:00 at 01:00 UTC: the opening text comes again after an hour.
    history = tale({"A": 1}, (2, HOUR_MS + 300, "A", 2), day="2026-10-25")
    found = deliver(history, ["every 1h", "changes"], "Atlantic/Azores", "local_second")
    assert found.collided[0]["kept_at_ms"] is None
    assert rows_in_ms(found, history.open_ms)[0] == (HOUR_MS + 1000, "A", 2, "changes")
    assert found.moved == 1
    with_open = deliver(history, ["every 1h", "open"], "Atlantic/Azores", "local_second")
    assert rows_in_ms(with_open, history.open_ms)[0] == (0, "A", 1, "every 1h,open")
    assert with_open.collided[0]["kept_at_ms"] == history.open_ms


def test_texts_that_the_day_before_has_shown_are_left_to_it(tale: Any) -> None:
    # At Troll clocks go two hours back at 01:00 UTC: what they show until 03:00 they have shown before, half of it
    # on the day before.
    history = tale({"A": 1}, (2, HOUR_MS - 1, "A", 2), (3, HOUR_MS, "B", 3), (4, 2 * HOUR_MS, "C", 4), day="2026-10-25")
    found = deliver(history, ["changes", "every 1h"], "Antarctica/Troll", "local_second")
    changes = [row for row in rows_in_ms(found, history.open_ms) if "changes" in row[3]]
    assert changes == [
        (HOUR_MS - 1, "A", 2, "changes"),
        *((2 * HOUR_MS + 1000, asset, units, "changes") for asset, units in (("B", 3), ("C", 4))),
    ]


def test_a_midnight_that_is_the_close_is_one_row_of_two_points(tale: Any) -> None:
    history = tale({"A": 1})
    found = deliver(history, ["local_midnight", "close"])
    assert (rows_in_ms(found, history.open_ms), found.collisions) == ([(DAY_MS, "A", 1, "local_midnight,close")], 0)
    shifted = deliver(history, ["local_midnight"], "Asia/Shanghai")
    assert rows_in_ms(shifted, history.open_ms) == [(16 * 3_600_000, "A", 1, "local_midnight")]


def test_a_date_that_the_zone_left_out_has_no_midnight(tale: Any) -> None:
    found = deliver(tale({"A": 1}, day="2011-12-30"), ["local_midnight"], "Pacific/Apia", "local_second")
    (row,) = found_rows(found)
    assert row[0] == found_rows(deliver(tale({"A": 1}, day="2011-12-30"), ["every 2h"]))[4][0]


def test_amounts_of_every_digit_are_delivered_as_they_are(tale: Any) -> None:
    largest = 10**38 - 10**16
    history = tale({"A": largest, "B": 1}, (2, 1000, "A", 1), (3, 1000, "B", -1), (4, 1000, "C", -largest))
    values = [row[2] for row in found_rows(deliver(history, ["open", "changes"]))]
    most, least = Decimal("99999999999999999999.99"), Decimal("1E-18")
    assert values == [most, least, 0, least, -least, most.copy_negate()]


def test_a_day_on_which_there_is_nothing_gives_an_empty_frame(tale: Any) -> None:
    for points in (POINTS, ["changes"], []):
        found = deliver(tale({"NEVER": 0}), points, key="local_second")
        assert (len(found.frame), found.collisions, list(found.frame.columns)) == (0, 0, BALANCES.names)


def test_collisions_are_counted_and_the_list_of_them_is_cut(tale: Any) -> None:
    history = tale({}, *[(2 + n, 1_000_000 + n, "A", n) for n in range(95)], *[(97, 5_000, "A", 1)])
    history = replace(
        history,
        close_sn=10**6,
        records=tuple(replace(r, sn=r.sn + 1000 * k, at=r.at + 60_000 * k) for k in range(3) for r in history.records),
    )
    found = deliver(history, ["changes"], key="local_second")
    assert (found.collisions, len(found.collided)) == (3 * 94, MAX_COLLIDED)
    instants = [each["at_ms"] for each in found.collided]
    assert instants == sorted(instants)
    document = found.to_document()
    assert (document["count"], len(document["first"])) == (282, 100)
    assert document["first"][0]["local_text"] == "2026-03-01 00:16:40"


def test_a_point_that_is_asked_for_twice_is_one(tale: Any) -> None:
    history = tale({"A": 1})
    assert rows_in_ms(deliver(history, ["close", "close"]), history.open_ms) == [(DAY_MS, "A", 1, "close")]


def test_every_step_that_divides_the_day_may_be_asked_for_at_once(tale: Any) -> None:
    day = DAY_MS // 1000
    steps = [f"every {step}s" for step in range(day, 0, -1) if day % step == 0]
    points = ["open", *steps, "changes", "close"]
    assert len(steps) == 96
    history = tale({"A": 1}, (2, 1500, "A", 2), (3, 2000, "A", 3))
    rows = {at: row for at, *row in rows_in_ms(deliver(history, points), history.open_ms)}
    assert len(rows) == day + 2
    assert rows[0] == ["A", 1, ",".join(["open", *steps])]
    assert rows[1000] == ["A", 1, "every 1s"]
    assert rows[1500] == ["A", 2, "changes"]
    assert rows[2000] == ["A", 3, "every 2s,every 1s,changes"]
    assert rows[DAY_MS] == ["A", 3, ",".join([*steps, "close"])]


@pytest.mark.parametrize("point", ["every 7h", "Close", "", "midnight", "1h30"])
def test_an_unknown_point_is_refused_with_what_is_allowed(tale: Any, point: str) -> None:
    with pytest.raises(ConfigurationError, match="is no point: open, close, changes, local_midnight or a step"):
        deliver(tale({"A": 1}), ["close", point])


def test_an_unknown_zone_is_refused(tale: Any) -> None:
    with pytest.raises(ConfigurationError, match="Mars/Olympus"):
        deliver(tale({"A": 1}), ["close"], "Mars/Olympus", "local_second")


def test_snapshots_in_the_wrong_order_or_with_impossible_amounts_are_refused(tale: Any) -> None:
    history = tale({"A": 1})
    ledger = build_ledger(history.legs())
    with pytest.raises(InvalidResponse, match="is not after the opening"):
        balances_at(history.closing, history.opening, ledger, CLOSE)
    impossible = replace(history.closing, balances={"A": Decimal("1E-19")})
    with pytest.raises(InvalidAmount):
        balances_at(history.opening, impossible, ledger, CLOSE)


@pytest.mark.slow  # 300,000 records, so that a step back to row-by-row work would show
def test_a_large_day_takes_seconds(world: SimpleNamespace) -> None:
    count = 300_000
    assets = pa.DictionaryArray.from_arrays(
        pa.array(np.arange(count, dtype=np.int32) % 200), [f"A{n:03d}" for n in range(200)]
    )
    one = pa.array([Decimal(1)] * count, pa.decimal128(38, 18))
    table = pa.table(
        {
            "sn": np.arange(2, count + 2),
            "at": pa.array(np.arange(count) * 200 + 1, pa.int64()).cast(pa.timestamp("ms", tz="UTC")),
            "kind": pa.array(["order"] * count).dictionary_encode(),
            "event": pa.array(["Limit"] * count).dictionary_encode(),
            "order_id": pa.nulls(count, pa.string()),
            "asset": assets,
            "fee": pa.array([False] * count),
            "delta": one,
            "balance": one,
        }
    )
    opening, closing = world.Snapshot(1, 0, {}), world.Snapshot(count + 2, DAY_MS, {})
    points = ["changes", "close", "every 1h"]
    begin = time.monotonic()
    found = balances_at(
        opening, closing, build_ledger(table), BalanceRequest("there", points, "Asia/Shanghai", "local_second", DAY)
    )
    assert time.monotonic() - begin < 5
    assert isinstance(found.frame, pd.DataFrame)
    assert len(found.frame) + found.collisions > count
