"""What every source must promise, as tests: a new source subclasses :class:`SourceConformance` with its own harness.

The history is a sandbox :class:`Book`; a harness publishes it in the other side's own form and hands out the source.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest

from balance_bridge.errors import Contradiction, InvalidResponse, NotYetAvailable
from balance_bridge.extract import raw
from balance_bridge.extract.day import DayExtraction
from balance_bridge.extract.paging import NO_END, Walk
from balance_bridge.extract.source import Source
from balance_bridge.sandbox.world import Book, Leg, Record, Snapshot, midnight_ms
from balance_bridge.transform.ledger import build_ledger
from balance_bridge.transform.reconciliation import reconcile
from balance_bridge.transform.schema import LEGS
from doubles import FakeClock, MemoryStore

DAY = date(2026, 11, 20)
NEXT = DAY + timedelta(days=1)
LAST = DAY + timedelta(days=2)
# What decimal128(38, 18) can hold at most: a record leads there and back.
WIDEST = Decimal("99999999999999999999.999999999999999999")


def a_book(name: str = "one", *, per_day: int = 12, days: int = 2) -> Book:
    """Records of DAY and the days after, with gaps between their numbers, and the snapshots around them."""
    balances = {"BTC": Decimal("0.5"), "USDT": Decimal("-12.00000001")}
    sn = 1000
    snapshots, records = [Snapshot(DAY, sn, dict(balances))], []
    for number in range(days):
        day = DAY + timedelta(days=number)
        for place in range(per_day):
            sn += 1 + (place * 7 + number) % 5
            at_ms = midnight_ms(day) + place * (86_400_000 // per_day) + 123
            records.append(_record(sn, at_ms, place, balances))
        shown = {asset: amount for asset, amount in balances.items() if amount}
        snapshots.append(Snapshot(day + timedelta(days=1), sn, shown))
    return Book(name, snapshots, records)


def _record(sn: int, at_ms: int, place: int, balances: dict[str, Decimal]) -> Record:
    def moved(asset: str, delta: Decimal, after: Decimal, *, fee: bool = False) -> Leg:
        balances[asset] = after
        return Leg(asset, delta, after, fee)

    if place == 0:
        return Record(sn, at_ms, "balance", "Deposit", (moved("WIDE", WIDEST, WIDEST),))
    if place == 1:
        return Record(sn, at_ms, "balance", "Withdrawal", (moved("WIDE", WIDEST.copy_negate(), Decimal(0)),))
    bought, paid, fee = Decimal(place).scaleb(-18), Decimal(place) / 8, Decimal(place).scaleb(-6)
    after = balances["USDT"] - paid - fee
    legs = (
        moved("BTC", bought, balances["BTC"] + bought),
        moved("USDT", -paid, after),
        moved("USDT", -fee, after, fee=True),
    )
    return Record(sn, at_ms, "order", "Limit", legs, order_id=f"r{sn}", side="Buy")


class Harness(ABC):
    """Publishes a history in the other side's own form.

    Attributes:
        clock: Noon of the day after the last snapshot's, and what the source is to take the time from.
    """

    def __init__(self) -> None:
        self.clock = FakeClock(midnight_ms(LAST) / 1000 + 43_200)

    @abstractmethod
    def source(self, book: Book, *, retention_days: int = 7) -> Source:
        """The source of an account with this history and no other."""


def changes(source: Source, day: date, cursor: int, closing_sn: int = NO_END) -> list[dict[str, Any]]:
    """The legs of every record from a cursor on, page by page."""
    legs = []
    closes = None if closing_sn == NO_END else closing_sn
    pages = Walk(source.page_limit, closing_sn)
    for step in pages.steps(lambda sn: (source.read_page(source.fetch_changes(sn, day, closes).body), True), cursor):
        assert step.page.legs.schema == LEGS
        wanted = range(step.cursor, min(step.end, closing_sn + 1))
        legs += [leg for leg in step.page.legs.to_pylist() if leg["sn"] in wanted]
    return legs


def rows(records: Sequence[Record]) -> list[tuple[Any, ...]]:
    return sorted(
        (record.sn, record.at_ms, record.kind, leg.asset, leg.fee, leg.delta, leg.balance)
        for record in records
        for leg in record.legs
    )


def rows_of_legs(legs: Any) -> list[tuple[Any, ...]]:
    return sorted(
        (
            row["sn"],
            int(row["at"].timestamp() * 1000),
            row["kind"],
            row["asset"],
            row["fee"],
            row["delta"],
            row["balance"],
        )
        for row in legs
    )


class SourceConformance:
    """Subclass it in a test module with a fixture ``harness``; pytest does not collect this class by itself."""

    def test_a_position_by_day_is_exact_and_names_its_place(self, harness: Harness) -> None:
        book = a_book()
        source = harness.source(book)
        for day in (DAY, NEXT, LAST):
            found = source.read_snapshot(source.fetch_snapshot(day).body, day).snapshot
            assert (found.sn, found.at_ms) == (book.snapshots[day].sn, midnight_ms(day))
            assert {asset: amount for asset, amount in found.balances.items() if amount} == book.snapshots[day].balances

    def test_an_account_without_balances_has_a_snapshot_all_the_same(self, harness: Harness) -> None:
        source = harness.source(Book("one", [Snapshot(DAY, 7, {})]))
        found = source.read_snapshot(source.fetch_snapshot(DAY).body, DAY).snapshot
        assert found.sn == 7
        assert not any(found.balances.values())

    def test_every_change_behind_a_position_comes_once(self, harness: Harness) -> None:
        book = a_book()
        source = harness.source(book)
        opening, closing = book.snapshots[DAY], book.snapshots[NEXT]
        for cursor in (opening.sn + 1, book.records[3].sn, book.records[3].sn + 1):
            wanted = [record for record in book.records if cursor <= record.sn <= closing.sn]
            assert rows_of_legs(changes(source, DAY, cursor, closing.sn)) == rows(wanted)

    @pytest.mark.parametrize("per_day", [499, 500, 501, 1100])
    def test_nothing_is_lost_where_pages_are_full(self, harness: Harness, per_day: int) -> None:
        book = a_book(per_day=per_day, days=1)
        source = harness.source(book)
        assert rows_of_legs(changes(source, DAY, book.snapshots[DAY].sn + 1)) == rows(book.records)

    def test_a_page_behind_everything_is_not_full(self, harness: Harness) -> None:
        book = a_book(days=1)
        source = harness.source(book)
        page = source.read_page(source.fetch_changes(book.records[-1].sn + 1, DAY, None).body)
        assert len(page) < source.page_limit

    def test_amounts_come_as_they_were_told(self, harness: Harness) -> None:
        book = a_book()
        source = harness.source(book)
        closing = book.snapshots[NEXT]
        found = changes(source, DAY, book.snapshots[DAY].sn + 1, closing.sn)
        assert rows_of_legs(found) == rows([record for record in book.records if record.sn <= closing.sn])

    def test_reading_is_pure(self, harness: Harness) -> None:
        source = harness.source(a_book())
        snapshot, page = source.fetch_snapshot(DAY).body, source.fetch_changes(1001, DAY, None).body
        # Another source of the same kind, which has nothing to ask, reads the very same.
        other = harness.source(Book("nobody"))
        for reader in (source, other):
            assert reader.read_snapshot(snapshot, DAY) == source.read_snapshot(snapshot, DAY)
            once, again = reader.read_page(page), source.read_page(page)
            assert (once.account_ref, once.lists, once.legs) == (again.account_ref, again.lists, again.legs)

    def test_answers_survive_the_raw_store_byte_for_byte(self, harness: Harness) -> None:
        source = harness.source(a_book())
        for answer in (source.fetch_snapshot(DAY), source.fetch_changes(1001, DAY, None)):
            assert answer.sent_at <= answer.ended_at
            assert raw.unpack(raw.pack(answer, asked_by="test"), "here").body == answer.body

    def test_another_day_s_snapshot_is_refused(self, harness: Harness) -> None:
        source = harness.source(a_book())
        body = source.fetch_snapshot(DAY).body
        with pytest.raises(InvalidResponse):
            source.read_snapshot(body, NEXT)

    def test_what_is_malformed_is_refused(self, harness: Harness) -> None:
        source = harness.source(a_book())
        snapshot, page = source.fetch_snapshot(DAY).body, source.fetch_changes(1001, DAY, None).body
        for body in (b"", b"[]", b"{}", b"null", b"<html>", b"\xff"):
            with pytest.raises(InvalidResponse):
                source.read_snapshot(body, DAY)
            with pytest.raises(InvalidResponse):
                source.read_page(body)
        with pytest.raises(InvalidResponse):
            source.read_snapshot(snapshot[:-1], DAY)
        with pytest.raises(InvalidResponse):
            source.read_page(page[:-1])

    def test_what_is_not_there_is_not_yet_available(self, harness: Harness) -> None:
        with pytest.raises(NotYetAvailable):
            harness.source(a_book()).fetch_snapshot(LAST + timedelta(days=1))

    def test_the_oldest_day_follows_the_clock(self, harness: Harness) -> None:
        source = harness.source(a_book(), retention_days=5)
        assert source.oldest() == source.today() - timedelta(days=5)

    def test_another_account_behind_the_same_name_is_refused(self, harness: Harness) -> None:
        store = MemoryStore()
        DayExtraction(harness.source(a_book("one")), store, "main", asked_by="run").snapshot(DAY)
        with pytest.raises(Contradiction, match="account"):
            DayExtraction(harness.source(a_book("two")), store, "main", asked_by="run").snapshot(NEXT)

    def test_days_in_a_row_are_proven(self, harness: Harness) -> None:
        book = a_book()
        source, store = harness.source(book), MemoryStore()
        for day in (DAY, NEXT):
            assert _fetched(source, store, day)

    def test_a_day_goes_on_where_an_earlier_asking_ended(self, harness: Harness) -> None:
        book, store = a_book(days=1), MemoryStore()
        half = Book("one", list(book.snapshots.values())[:1], book.records[:5])
        now = harness.clock.now
        harness.clock.now = midnight_ms(DAY) / 1000 + 50_000
        early = DayExtraction(harness.source(half), store, "main", asked_by="early")
        early.history(DAY, early.snapshot(DAY), None)
        harness.clock.now = now
        one_asking = MemoryStore()
        assert _fetched(harness.source(book), store, DAY) == _fetched(harness.source(book), one_asking, DAY)


def _fetched(source: Source, store: MemoryStore, day: date) -> list[tuple[Any, ...]]:
    """The legs of a day, which must be proven."""
    extraction = DayExtraction(source, store, "main", asked_by="run")
    opening, closing = extraction.snapshot(day), extraction.snapshot(day + timedelta(days=1))
    legs = extraction.history(day, opening, closing).legs
    assert reconcile(opening.snapshot, closing.snapshot, build_ledger(legs)).status == "proven"
    return rows_of_legs(legs.to_pylist())
