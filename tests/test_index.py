"""The index: always what the store says, however many write it, and cheap to read."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from balance_bridge import index
from balance_bridge.errors import StoreDamaged
from balance_bridge.facts import Day, Delivered
from balance_bridge.load.documents import Action, Plan, Row
from balance_bridge.load.log import DayLog
from balance_bridge.store import Store, to_json

DAY, NEXT = date(2026, 11, 20), date(2026, 11, 21)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def report(store: Store, account: str, day: date, status: str = "proven", **more: Any) -> None:
    document = {"status": status, "records": 3, "assets": 2, "break_count": 0, "drift": {}, **more}
    store.append(f"reconciliation/{account}/{day}", ".json", to_json(document))


def plan(store: Store, account: str, day: date, name: str = "elven", *, number: int = 1) -> None:
    """A delivery that is planned, and of which nothing was sent."""
    row = Row("BTC", 1, "1.5", "close", Action.SEND, number=f"n{number}", key="k", batch=1)
    made = Plan(account, str(day), name, "elven", "run", "2026-11-21T00:00:00Z", "g", False, {}, [row])
    assert DayLog(store, account, day, name).put_plan(number, made)


def days(store: Store, account: str = "main") -> dict[str, Day]:
    found = index.read(store, ["2026-11"], {})
    return found["2026-11", account].days if ("2026-11", account) in found else {}


def test_an_entry_is_what_the_store_says_of_the_day(store: Store) -> None:
    report(store, "main", DAY, "broken", break_count=2, drift={"BTC": "0.1"}, approval={"by": "alice"})
    plan(store, "main", DAY)
    index.record(store, "main", DAY)
    found = days(store)[str(DAY)]
    assert (found.proof, found.breaks, found.drift, found.approved_by) == ("broken", 2, {"BTC": "0.1"}, "alice")
    assert found.destinations == {"elven": Delivered(counts={"planned": 1}, planned=True)}


def test_a_day_is_added_and_the_others_of_the_month_stay(store: Store) -> None:
    report(store, "main", DAY)
    index.record(store, "main", DAY)
    report(store, "main", NEXT, "tolerated")
    index.record(store, "main", NEXT)
    assert {day: each.proof for day, each in days(store).items()} == {str(DAY): "proven", str(NEXT): "tolerated"}


def test_a_first_entry_brings_what_the_store_had_before_there_was_an_index(store: Store) -> None:
    report(store, "main", DAY)
    report(store, "main", NEXT)
    index.record(store, "main", NEXT)
    assert list(days(store)) == [str(DAY), str(NEXT)]


def test_a_damaged_index_is_made_again_by_the_next_run_and_named_until_then(store: Store) -> None:
    report(store, "main", DAY)
    index.record(store, "main", DAY)
    report(store, "main", NEXT)
    index.record(store, "main", NEXT)
    newest = store.list("index/2026-11/main")[-1]
    path = Path(store.describe(newest))
    path.chmod(0o600)
    path.write_text(path.read_text().replace("proven", "broken"))
    with pytest.raises(StoreDamaged, match=r"index/2026-11/main"):
        days(store)
    index.record(store, "main", NEXT)
    assert {each.proof for each in days(store).values()} == {"proven"}


def test_rebuilding_gives_what_recording_gave(store: Store) -> None:
    for day in (DAY, NEXT):
        report(store, "main", day)
        plan(store, "main", day)
        index.record(store, "main", day)
    recorded = days(store)
    for key in store.list("index"):
        store.discard(key)
    assert [index.rebuild(store, "main", month) for month in index.months_of(store, "main")] == [2]
    assert days(store) == recorded


def test_recording_what_is_known_writes_nothing(store: Store) -> None:
    report(store, "main", DAY)
    index.record(store, "main", DAY)
    before = store.list("index")
    index.record(store, "main", DAY)
    assert store.list("index") == before


def test_old_objects_go_but_for_the_one_that_somebody_may_be_reading(store: Store) -> None:
    for number in range(1, 6):
        report(store, "main", DAY, records=number)
        index.record(store, "main", DAY)
    assert [key.rsplit("/", 1)[1] for key in store.list("index")] == ["00000004.json", "00000005.json"]


class Racing(Store):
    """A store in which somebody else does something between a read and the write after it, once."""

    def __init__(self, root: Path, meanwhile: Callable[[], None]) -> None:
        super().__init__(root)
        self._meanwhile: Callable[[], None] | None = meanwhile

    def put(self, key: str, data: bytes) -> bool:
        if self._meanwhile is not None and key.startswith("index/"):
            meanwhile, self._meanwhile = self._meanwhile, None
            meanwhile()
        return super().put(key, data)


def test_whoever_writes_last_has_seen_what_the_others_did(store: Store, tmp_path: Path) -> None:
    report(store, "main", DAY)
    plan(store, "main", DAY, "elven")

    def meanwhile() -> None:
        plan(store, "main", DAY, "amlyze")
        report(store, "main", NEXT)
        index.record(store, "main", NEXT)
        index.record(store, "main", DAY)

    index.record(Racing(tmp_path, meanwhile), "main", DAY)
    assert list(days(store)) == [str(DAY), str(NEXT)]
    assert set(days(store)[str(DAY)].destinations) == {"elven", "amlyze"}


def test_what_cannot_be_read_is_named_and_the_rest_of_the_day_is_there(store: Store) -> None:
    report(store, "main", DAY)
    plan(store, "main", DAY, "elven")
    plan(store, "main", DAY, "amlyze")
    path = Path(store.describe(f"receipts/main/{DAY}/elven/plan-0001.jsonl.gz"))
    path.chmod(0o600)
    path.write_bytes(b"torn")
    index.record(store, "main", DAY)
    found = days(store)[str(DAY)]
    assert "elven/plan-0001" in found.destinations["elven"].unreadable
    assert (found.proof, found.destinations["amlyze"].counts) == ("proven", {"planned": 1})


class Counting(Store):
    """A store that counts what is asked of it."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.listings = 0
        self.reads = 0

    def list(self, prefix: str) -> list[str]:
        self.listings += 1
        return super().list(prefix)

    def read(self, key: str) -> bytes:
        self.reads += 1
        return super().read(key)


def test_reading_takes_a_listing_for_each_month_and_only_what_has_changed(store: Store, tmp_path: Path) -> None:
    accounts = [f"account_{number}" for number in range(20)]
    for account in accounts:
        report(store, account, DAY)
        index.record(store, account, DAY)
    counting, known = Counting(tmp_path), dict[str, index.Month]()
    assert len(index.read(counting, ["2026-10", "2026-11"], known)) == 20
    assert (counting.listings, counting.reads) == (2, 20)
    report(store, accounts[0], NEXT)
    index.record(store, accounts[0], NEXT)
    found = index.read(counting, ["2026-10", "2026-11"], known)
    assert (counting.listings, counting.reads) == (4, 21)
    assert list(found["2026-11", accounts[0]].days) == [str(DAY), str(NEXT)]
    assert len(known) == 20, "what was replaced is forgotten"


def test_more_writes_than_four_digits_can_count_stop_nothing(store: Store) -> None:
    report(store, "main", DAY)
    index.record(store, "main", DAY)
    (first,) = store.list("index")
    store.put(first.replace("00000001", "00009999"), store.read(first))
    for records in (7, 8):
        report(store, "main", DAY, records=records)
        index.record(store, "main", DAY)
    assert days(store)[str(DAY)].records == 8
    assert index.rebuild(store, "main", "2026-11") == 1


@pytest.mark.parametrize("text", ["[]", "null", '{"records": 3}', '{"status": "proven", "records": "many"}', "torn"])
def test_a_report_that_is_none_is_an_unreadable_day_and_no_error(store: Store, text: str) -> None:
    store.put(f"reconciliation/main/{DAY}/0001.json", text.encode())
    index.record(store, "main", DAY)
    assert f"{DAY}/0001.json" in days(store)[str(DAY)].unreadable
