from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balance_bridge.sandbox.world import BUSY_RECORDS, Book, GeneratedBook, World, midnight_ms, utc_day

TODAY = date(2026, 11, 20)
DAYS = [TODAY + timedelta(days=offset) for offset in range(-10, 1)]


def book(seed: int, category: str) -> GeneratedBook:
    made = GeneratedBook(seed, TODAY, f"sandbox-{category}-key", category)
    made.grow(TODAY)
    return made


def check(made: Book, days: list[date]) -> None:
    for day in days:
        opening, closing = made.snapshots[day], made.snapshots[day + timedelta(days=1)]
        records = made.between(opening, closing)
        balances = dict(opening.balances)
        for record in records:
            after = {leg.asset: leg.balance for leg in record.legs}
            for leg in record.legs:
                balances[leg.asset] = balances.get(leg.asset, Decimal(0)) + leg.delta
                assert leg.balance == after[leg.asset]
            assert {asset: balances[asset] for asset in after} == after
        assert {asset: amount for asset, amount in balances.items() if amount} == closing.balances


@pytest.mark.parametrize("category", ["cash", "margin"])
@settings(deadline=None, max_examples=6)
@given(seed=st.integers(0, 10**6))
def test_opening_plus_every_change_is_closing_and_the_chain_holds_on_every_day(category: str, seed: int) -> None:
    check(book(seed, category), DAYS)


@settings(deadline=None, max_examples=6)
@given(seed=st.integers(0, 10**6))
def test_days_are_as_large_as_they_must_be_and_three_fit_into_four_pages(seed: int) -> None:
    for category in ("cash", "margin"):
        made = book(seed, category)
        sizes = [len(made.between(made.snapshots[day], made.snapshots[day + timedelta(days=1)])) for day in DAYS]
        if category == "cash":
            assert sizes[-3] == BUSY_RECORDS
            assert all(100 <= size <= 300 for size in sizes[:-3] + sizes[-2:])
        else:
            assert all(40 <= size <= 150 for size in sizes)
        assert sum(-(-size // 500) for size in sizes[-4:-1]) <= 4


def test_the_same_seed_and_day_make_the_same_world_however_it_is_asked_for() -> None:
    at_once, in_steps = book(7, "cash"), GeneratedBook(7, TODAY, "sandbox-cash-key", "cash")
    for day in DAYS:
        in_steps.grow(day)
    assert at_once.records == in_steps.records
    assert at_once.snapshots == in_steps.snapshots
    assert book(8, "cash").records != at_once.records


def test_the_world_goes_on_after_today() -> None:
    made = book(7, "cash")
    made.grow(TODAY + timedelta(days=2))
    check(made, [*DAYS, TODAY + timedelta(days=1), TODAY + timedelta(days=2)])


def test_sequence_numbers_rise_with_gaps_and_disagree_with_the_times() -> None:
    records = book(7, "cash").records
    steps = {later.sn - earlier.sn for earlier, later in pairwise(records)}
    assert min(steps) == 1
    assert max(steps) > 1000
    assert any(later.at_ms < earlier.at_ms for earlier, later in pairwise(records))
    assert all(record.at_ms <= record.visible_ms for record in records)
    assert [record.visible_ms for record in records] == sorted(record.visible_ms for record in records)


@pytest.mark.parametrize("category", ["cash", "margin"])
def test_every_day_has_a_record_from_before_its_midnight_and_one_at_each_edge(category: str) -> None:
    made = book(7, category)
    for day in DAYS:
        opening, closing = made.snapshots[day], made.snapshots[day + timedelta(days=1)]
        times = [record.at_ms for record in made.between(opening, closing)]
        assert min(times) < opening.at_ms
        assert opening.at_ms in times
        assert closing.at_ms in times
        assert all(utc_day(at_ms) >= day - timedelta(days=1) for at_ms in times)


def test_cash_has_the_assets_that_are_awkward() -> None:
    made = book(7, "cash")
    snapshots = [made.snapshots[TODAY + timedelta(days=offset)] for offset in range(-3, 1)]
    assert {"BTC", "BTMX-S", "BTT-B", "1INCH", "NO", "SPAM"} <= set(snapshots[0].balances)
    assert ["AKRO" in snapshot.balances for snapshot in snapshots] == [True, True, False, False]
    assert ["ADA" in snapshot.balances for snapshot in snapshots] == [False, False, False, True]
    assert not any("FLASH" in snapshot.balances for snapshot in snapshots)
    touched = {leg.asset for record in made.between(snapshots[0], snapshots[1]) for leg in record.legs}
    assert "FLASH" in touched
    assert not any(leg.asset == "ANKR" for record in made.records for leg in record.legs)
    assert snapshots[0].balances["ANKR"] == Decimal(200)
    deltas = {leg.delta for record in made.records for leg in record.legs}
    assert Decimal("0.000000007") in deltas
    assert min(delta.as_tuple().exponent for delta in deltas) == -18  # type: ignore[type-var]
    assert all(leg.balance >= 0 for record in made.records for leg in record.legs)


def test_an_asset_rests_on_some_days() -> None:
    made = book(7, "cash")
    active = [
        any(leg.asset == "XRP" for record in made.records if utc_day(record.visible_ms) == day for leg in record.legs)
        for day in DAYS
    ]
    assert True in active
    assert False in active


@pytest.mark.parametrize("seed", range(5))
def test_margin_owes_usdt_in_every_snapshot(seed: int) -> None:
    assert all(snapshot.balances["USDT"] < 0 for snapshot in book(seed, "margin").snapshots.values())


def test_a_record_has_several_legs_of_one_asset_with_one_balance() -> None:
    record = next(record for record in book(7, "cash").records if record.kind == "order" and record.legs[2].fee)
    usdt = [leg for leg in record.legs if leg.asset == "USDT"]
    assert len(usdt) == 2
    assert len({leg.balance for leg in usdt}) == 1


def test_each_key_and_category_has_its_own_book() -> None:
    world = World(7, TODAY)
    books = [world.book(key, category, TODAY) for key in ("a", "b") for category in ("cash", "margin")]
    assert len({made.snapshots[TODAY].sn for made in books}) == 4
    assert books[0].snapshot_account_id != books[0].history_account_id


@given(day=st.dates(date(1971, 1, 1), date(2200, 1, 1)), ms=st.integers(0, 86_399_999))
def test_an_instant_of_a_day_is_of_that_day(day: date, ms: int) -> None:
    assert utc_day(midnight_ms(day) + ms) == day
