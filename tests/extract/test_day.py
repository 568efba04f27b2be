from __future__ import annotations

import errno
import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balance_bridge.errors import (
    BudgetExhausted,
    ConnectionFailed,
    Contradiction,
    InvalidResponse,
    NotYetAvailable,
    RequestRefused,
    RetentionExceeded,
    StoreUnwritable,
)
from balance_bridge.extract import raw
from balance_bridge.store import Store, to_json
from balance_bridge.transform.schema import LEGS
from doubles import Killed

DAY = date(2026, 11, 20)
HISTORY = f"raw/main_cash/{DAY}/history"


@pytest.fixture
def world(kit: SimpleNamespace) -> Any:
    return kit.World(days=4, per_day=12)


@pytest.fixture
def clock(kit: SimpleNamespace) -> Any:
    return kit.FakeClock()


@pytest.fixture
def exchange(kit: SimpleNamespace, world: Any, clock: Any) -> Any:
    return kit.FakeExchange(world, clock)


@pytest.fixture
def store(kit: SimpleNamespace) -> Any:
    return kit.MemoryStore()


def bodies(store: Any) -> dict[str, bytes]:
    """The store but for times and run ids."""
    return {
        key: raw.unpack(data, key).body if key.endswith(raw.SUFFIX) else data for key, data in store.objects.items()
    }


def of_day(world: Any, day: date = DAY) -> tuple[int, int]:
    opening, closing = (world.snapshots[date.fromordinal(day.toordinal() + days)][0] for days in (0, 1))
    return opening, closing


def numbers(history: Any) -> list[int]:
    return sorted(set(history.legs["sn"].to_pylist()))


def test_a_day_is_stored_as_its_snapshots_and_pages(kit: Any, exchange: Any, store: Any, world: Any) -> None:
    history = kit.fetch(exchange, store)
    opening, closing = of_day(world)
    sns = world.between(opening, closing)
    cursors = [opening + 1, sns[4] + 1, sns[9] + 1]
    assert exchange.asked == [
        "snapshot 2026-11-20",
        "snapshot 2026-11-21",
        *(f"changes {cursor}" for cursor in cursors),
    ]
    assert sorted(store.objects) == [
        *(f"{HISTORY}/0001/{cursor:020d}-0001.gz" for cursor in cursors),
        "raw/main_cash/2026-11-20/manifest/0001.json",
        "raw/main_cash/2026-11-20/snapshot/0001.gz",
        "raw/main_cash/2026-11-21/snapshot/0001.gz",
        "raw/main_cash/account/history.json",
        "raw/main_cash/account/snapshot.json",
    ]
    assert (history.generation, history.pages, history.fetched) == (f"{HISTORY}/0001", 3, 3)
    assert numbers(history) == sns


def test_what_is_stored_is_never_asked_for_again(kit: Any, exchange: Any, store: Any) -> None:
    first = kit.fetch(exchange, store)
    before, asked = dict(store.objects), len(exchange.asked)
    for run_id in ("run-1", "run-2"):
        again = kit.fetch(exchange, store, run_id=run_id)
        assert (again.generation, again.pages, again.fetched) == (first.generation, first.pages, 0)
    assert len(exchange.asked) == asked
    assert store.objects == before


def test_consecutive_days_share_the_snapshot_between_them(kit: Any, exchange: Any, store: Any, clock: Any) -> None:
    clock.now += 4 * 86_400
    for number in range(4):
        kit.fetch(exchange, store, kit.after(DAY, number))
    assert [request for request in exchange.asked if "snapshot" in request] == [
        f"snapshot {kit.after(DAY, number)}" for number in range(5)
    ]


def test_a_day_without_a_number_between_its_snapshots_takes_no_page(kit: Any, clock: Any, store: Any) -> None:
    exchange = kit.FakeExchange(kit.World(per_day=0), clock)
    history = kit.fetch(exchange, store)
    assert exchange.asked == ["snapshot 2026-11-20", "snapshot 2026-11-21"]
    assert (history.pages, history.fetched) == (0, 0)
    assert history.legs.num_rows == 0
    assert history.legs.schema == LEGS


def interrupt(exchange: Any, store: Any, act: Callable[[], None], at: int) -> list[str]:
    """Act once, before the given step; a step is a request or a write."""
    steps: list[str] = []

    def step(what: str) -> None:
        steps.append(what)
        if len(steps) == at:
            act()

    exchange.before_ask = lambda request: step(f"ask {request}")
    store.before_put = lambda key: step(f"put {key}")
    return steps


def leave_alone(exchange: Any, store: Any) -> None:
    exchange.before_ask = store.before_put = lambda _: None


def undisturbed(kit: Any, clock: Any, **options: Any) -> tuple[dict[str, bytes], list[str], int]:
    exchange, store = kit.FakeExchange(kit.World(), clock), kit.MemoryStore()
    if options:
        kit.fetch(exchange, store, run_id="run-0")
        exchange.asked.clear()
    steps = interrupt(exchange, store, lambda: None, 0)
    kit.fetch(exchange, store, **options)
    return bodies(store), exchange.asked, len(steps)


@pytest.mark.parametrize("options", [{}, {"again": "refetch"}], ids=["first time", "refetch"])
def test_killed_at_any_step_and_tried_again_the_store_is_that_of_a_clean_run(
    kit: Any, clock: Any, options: Any
) -> None:
    clean, asked, steps = undisturbed(kit, clock, **options)
    for at in range(1, steps + 1):
        exchange, store = kit.FakeExchange(kit.World(), clock), kit.MemoryStore()
        if options:
            kit.fetch(exchange, store, run_id="run-0")
            exchange.asked.clear()

        def kill() -> None:
            raise Killed

        interrupt(exchange, store, kill, at)
        with pytest.raises(Killed):
            kit.fetch(exchange, store, **options)
        leave_alone(exchange, store)
        kit.fetch(exchange, store, **options)
        assert bodies(store) == clean, f"killed at step {at}"
        assert len(exchange.asked) <= len(asked) + 1, f"killed at step {at}"


@pytest.mark.parametrize(
    ("options", "other_run"), [({}, "run-1"), ({}, "run-2"), ({"again": "refetch"}, "run-1")], ids=str
)
def test_two_live_copies_leave_the_store_of_one(kit: Any, clock: Any, options: Any, other_run: str) -> None:
    clean, _, steps = undisturbed(kit, clock, **options)
    for at in range(1, steps + 1):
        exchange, store = kit.FakeExchange(kit.World(), clock), kit.MemoryStore()
        if options:
            kit.fetch(exchange, store, run_id="run-0")
        ended: list[Any] = []

        def run_the_other(exchange: Any = exchange, store: Any = store, ended: list[Any] = ended) -> None:
            leave_alone(exchange, store)
            clock.now += 1
            ended.append(kit.fetch(exchange, store, run_id=other_run, **options))

        interrupt(exchange, store, run_the_other, at)
        ours = kit.fetch(exchange, store, **options)
        assert bodies(store) == clean, f"the other copy ran at step {at}"
        (theirs,) = ended
        assert (ours.generation, ours.pages) == (theirs.generation, theirs.pages)


def test_two_live_copies_believe_one_snapshot_even_if_they_were_told_two(kit: Any, exchange: Any, store: Any) -> None:
    told: list[str] = []

    def differ(_: str, document: Any) -> Any:
        told.append(f"{len(told)}.5")
        document["snapshot"] = [{"asset": "BTC", "totalBalance": told[-1]}]
        return document

    exchange.alter = differ
    theirs: list[Any] = []

    def run_the_other() -> None:
        leave_alone(exchange, store)
        theirs.append(kit.extraction(exchange, store).snapshot(DAY))

    interrupt(exchange, store, run_the_other, 2)
    ours = kit.extraction(exchange, store).snapshot(DAY)
    assert len(told) == 2
    assert [ours] == theirs
    assert kit.extraction(exchange, store).snapshot(DAY) == ours


def test_asking_anew_makes_one_generation_per_run_beside_the_old_one(kit: Any, exchange: Any, store: Any) -> None:
    kit.fetch(exchange, store)
    old = dict(store.objects)
    generations = [
        kit.fetch(exchange, store, run_id=run_id, again="refetch").generation
        for run_id in ("run-2", "run-2", "run-3", "run-3")
    ]
    assert generations == [f"{HISTORY}/{number}" for number in ("0002", "0002", "0003", "0003")]
    assert old.items() <= store.objects.items()
    assert len([key for key in store.objects if "/snapshot/" in key]) == 6
    # Without a reason to ask anew the newest one counts.
    assert kit.fetch(exchange, store, run_id="run-4").generation == f"{HISTORY}/0003"
    folders = {key.rsplit("/", 1)[0] for key in store.list(f"raw/{kit.ACCOUNT}/{DAY}/history")}
    assert len(folders) == 3


def test_another_reason_of_the_same_run_is_another_generation(kit: Any, exchange: Any, store: Any) -> None:
    kit.fetch(exchange, store)
    assert kit.fetch(exchange, store, again="it did not add up").generation == f"{HISTORY}/0002"
    assert kit.fetch(exchange, store, again="it did not add up").generation == f"{HISTORY}/0002"


def break_leg(field: str, value: Any) -> Callable[[Any], Any]:
    def alter(document: Any) -> Any:
        (document["order"] or document["balance"])[0]["data"][0][field] = value
        return document

    return alter


MALFORMED: dict[str, Callable[[Any], Any]] = {
    "a number for a text": break_leg("curBalance", 1.5),
    "an amount that is none": break_leg("deltaQty", "NaN"),
    "an asset that is none": break_leg("asset", " "),
    "a field that is missing": lambda document: {"meta": {"ac": "cash"}},
    "HTML": lambda document: b"<html>",
    "nothing": lambda document: b"",
}


@pytest.mark.parametrize("case", MALFORMED)
@pytest.mark.parametrize("page", [0, 1, 2])
def test_a_malformed_page_is_kept_and_asked_for_again_beside_it(
    kit: Any, exchange: Any, store: Any, world: Any, case: str, page: int
) -> None:
    opening, closing = of_day(world)
    cursor = [opening, *world.between(opening, closing)][5 * page] + 1
    request = f"changes {cursor}"
    exchange.alter = lambda asked, document: MALFORMED[case](document) if asked == request else document
    with pytest.raises(InvalidResponse):
        kit.fetch(exchange, store)
    exchange.alter = lambda _, document: document
    history = kit.fetch(exchange, store)
    assert exchange.asked.count(request) == 2
    assert len(exchange.asked) == 6
    names = [key.rsplit("/", 1)[1] for key in store.list(HISTORY)]
    assert f"{cursor:020d}-0001.gz" in names
    assert f"{cursor:020d}-0002.gz" in names
    assert history.pages == 3
    assert numbers(history) == world.between(opening, closing)


@pytest.mark.parametrize("page", [0, 1, 2])
@pytest.mark.parametrize("again", [None, "refetch"])
def test_a_damaged_page_is_asked_for_again_beside_it(
    kit: Any, exchange: Any, store: Any, page: int, again: str | None
) -> None:
    kit.fetch(exchange, store, again=again)
    clean = bodies(store)
    key = store.list(HISTORY)[page]
    store.objects[key] = store.objects[key][:-5]
    history = kit.fetch(exchange, store, again=again)
    assert history.generation == f"{HISTORY}/0001"
    assert (history.pages, history.fetched) == (3, 1)
    beside = key.replace("-0001.gz", "-0002.gz")
    del store.objects[key]
    assert bodies(store) == {name: body for name, body in clean.items() if name != key} | {beside: clean[key]}


def test_a_snapshot_that_cannot_be_used_is_asked_for_again_beside_it(kit: Any, exchange: Any, store: Any) -> None:
    exchange.alter = lambda request, document: b"<html>" if "snapshot" in request else document
    for expected in ("0001", "0002"):
        with pytest.raises(InvalidResponse):
            kit.extraction(exchange, store).snapshot(DAY)
        assert store.newest(f"raw/main_cash/{DAY}/snapshot", ".gz").endswith(f"{expected}.gz")
    exchange.alter = lambda _, document: document
    found = kit.extraction(exchange, store).snapshot(DAY)
    assert found.key.endswith("0003.gz")
    store.objects[found.key] = b"damaged"
    again = kit.extraction(exchange, store).snapshot(DAY)
    assert again == replace(found, key=found.key.replace("0003", "0004"))


def test_what_was_fetched_stays_when_the_exchange_goes_away(kit: Any, exchange: Any, store: Any) -> None:
    def go_away(request: str) -> None:
        if len(exchange.asked) == 4:
            raise ConnectionFailed("no connection")

    exchange.before_ask = go_away
    with pytest.raises(ConnectionFailed):
        kit.fetch(exchange, store)
    assert len([key for key in store.objects if key.endswith(raw.SUFFIX)]) == 4
    exchange.before_ask = lambda _: None
    assert kit.fetch(exchange, store).fetched == 1


def test_a_day_that_is_too_old_is_refused_before_any_request(kit: Any, exchange: Any, store: Any, clock: Any) -> None:
    clock.now += 7 * 86_400  # today is the 28th: the 21st is the oldest day to be had
    with pytest.raises(
        RetentionExceeded, match=r"the snapshot of 2026-11-20.*no longer serves.*oldest available day is 2026-11-21"
    ):
        kit.fetch(exchange, store)
    assert exchange.asked == []
    assert store.objects == {}


def test_the_oldest_day_of_the_window_is_asked_for(kit: Any, exchange: Any, store: Any, clock: Any) -> None:
    clock.now += 6 * 86_400
    assert kit.fetch(exchange, store).pages == 3


def test_a_day_that_is_too_old_is_served_from_the_store(kit: Any, exchange: Any, store: Any, clock: Any) -> None:
    first = kit.fetch(exchange, store)
    exchange.asked.clear()
    clock.now += 365 * 86_400
    again = kit.fetch(exchange, store, run_id="a year later")
    assert (again.generation, again.pages, again.fetched) == (first.generation, first.pages, 0)
    assert exchange.asked == []
    with pytest.raises(RetentionExceeded):
        kit.fetch(exchange, store, run_id="a year later", again="refetch")
    assert exchange.asked == []


def test_a_page_that_is_missing_from_an_old_day_is_refused_by_its_number(
    kit: Any, exchange: Any, store: Any, clock: Any
) -> None:
    kit.fetch(exchange, store)
    key = store.list(HISTORY)[1]
    del store.objects[key]
    clock.now += 30 * 86_400
    cursor = int(key.rsplit("/", 1)[1].split("-")[0])
    with pytest.raises(RetentionExceeded, match=f"changes of 2026-11-20 from sn {cursor} on"):
        kit.fetch(exchange, store)


def test_todays_snapshot_may_not_be_there_yet(kit: Any, exchange: Any, store: Any, world: Any) -> None:
    del world.snapshots[kit.after(DAY, 1)]
    with pytest.raises(NotYetAvailable):
        kit.extraction(exchange, store).snapshot(kit.after(DAY, 1))
    assert store.objects == {}


@pytest.mark.parametrize(
    ("days_later", "expected", "told"),
    [
        (0, RequestRefused, "although it should by now"),
        (4, RequestRefused, "then clear this task"),
        (5, RetentionExceeded, "nor at the exchange any more"),
        (6, RetentionExceeded, "The oldest available day is 2026-11-21 or later"),
        (7, RetentionExceeded, "the exchange no longer serves that day"),
    ],
)
def test_a_past_snapshot_that_the_exchange_does_not_have_is_refused_or_beyond_its_window(
    kit: Any, exchange: Any, store: Any, world: Any, clock: Any, days_later: int, expected: Any, told: str
) -> None:
    del world.snapshots[DAY]
    clock.now += days_later * 86_400
    with pytest.raises(expected, match=f"the snapshot of 2026-11-20.*{told}"):
        kit.extraction(exchange, store).snapshot(DAY)
    assert len(exchange.asked) == (days_later < 7)


def rename(account: str, when: Callable[[str], bool]) -> Callable[[str, Any], Any]:
    def alter(request: str, document: Any) -> Any:
        if when(request):
            document["meta"]["accountId"] = account
        return document

    return alter


def test_the_snapshots_of_two_accounts_do_not_make_a_day(kit: Any, exchange: Any, store: Any) -> None:
    exchange.alter = rename("cshB", lambda request: request == "snapshot 2026-11-21")
    with pytest.raises(
        InvalidResponse, match=r"for account cshB, and did for cshA so far .*connection leads to another account"
    ):
        kit.fetch(exchange, store)
    assert len(exchange.asked) == 2, "no page is asked for"


def test_the_pages_of_two_accounts_do_not_make_a_day(kit: Any, exchange: Any, store: Any) -> None:
    exchange.alter = rename("MPXB", lambda request: len(exchange.asked) == 4)
    with pytest.raises(InvalidResponse, match=r"for account MPXB, and did for MPXA so far \(history\)"):
        kit.fetch(exchange, store)


def test_the_two_endpoints_may_spell_the_account_differently(kit: Any, exchange: Any, store: Any) -> None:
    assert kit.fetch(exchange, store).pages == 3  # cshA and MPXA


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_page_missing_from_the_store_is_fetched_again_and_no_other(
    kit: Any, exchange: Any, store: Any, world: Any, missing: int
) -> None:
    kit.fetch(exchange, store)
    (gone, asked) = (store.list(HISTORY)[missing], list(exchange.asked))
    del store.objects[gone]
    history = kit.fetch(exchange, store)
    assert numbers(history) == world.between(*of_day(world))
    assert exchange.asked[len(asked) :] == [asked[2 + missing]]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), per_day=st.integers(0, 25), limit=st.integers(2, 7))
def test_the_legs_of_a_day_are_those_of_its_records(kit: SimpleNamespace, seed: int, per_day: int, limit: int) -> None:
    clock, store = kit.FakeClock(), kit.MemoryStore()
    exchange = kit.FakeExchange(kit.World(seed, days=2, per_day=per_day), clock, page_limit=limit)
    clock.now += 86_400
    for day in (DAY, kit.after(DAY, 1)):
        history = kit.fetch(exchange, store, day)
        opening, closing = of_day(exchange.world, day)
        due = [document for sn, _, document in exchange.world.records if opening < sn <= closing]
        expected = sorted(
            (record["sn"], leg["asset"], Decimal(leg["deltaQty"]), Decimal(leg["curBalance"]), "eventType" in record)
            for record in due
            for leg in record["data"]
        )
        found = [
            (leg["sn"], leg["asset"], leg["delta"], leg["balance"], leg["kind"] == "balance")
            for leg in history.legs.to_pylist()
        ]
        assert sorted(found) == expected


@pytest.mark.parametrize("stops", [1, 2])
def test_a_page_is_read_once_when_it_comes_and_at_most_once_more(
    kit: Any, exchange: Any, store: Any, stops: int
) -> None:
    # Of an account's first page ever the name is read besides.
    store.put("raw/main_cash/account/history.json", to_json({"account_ref": "MPXA"}))
    read: list[bytes] = []
    plain = exchange.read_page
    exchange.read_page = lambda body: (read.append(body), plain(body))[1]
    extraction = kit.extraction(exchange, store)
    opening, closing = extraction.snapshot(DAY), extraction.snapshot(kit.after(DAY, 1))

    def budget_is_used_up(_: str) -> None:
        if len(exchange.asked) == 2 + stops:
            raise BudgetExhausted("no slot", wait_s=60.0)

    exchange.before_ask = budget_is_used_up
    with pytest.raises(BudgetExhausted):
        extraction.history(DAY, opening, closing)
    assert len(read) == stops
    exchange.before_ask = lambda _: None
    extraction.history(DAY, opening, closing)
    assert len(read) == 3 + stops


def test_a_page_changed_by_hand_is_named_and_asked_for_again(kit: Any, exchange: Any, store: Any) -> None:
    told: list[str] = []
    kit.fetch(exchange, store)
    key = store.list(HISTORY)[1]
    store.objects[key] = gzip.compress(gzip.decompress(store.objects[key]).replace(b"Deposit", b"deposit") + b" ")
    assert kit.fetch(exchange, store, log=told.append).fetched == 1
    assert any(f"{key} cannot be used" in line and "not the one that was stored" in line for line in told)


def test_a_page_that_is_damaged_and_too_old_is_refused_by_its_name(
    kit: Any, exchange: Any, store: Any, clock: Any
) -> None:
    kit.fetch(exchange, store)
    key = store.list(HISTORY)[1]
    store.objects[key] = b"damaged"
    clock.now += 30 * 86_400
    with pytest.raises(RetentionExceeded, match=f"cannot be used: {key}.*The oldest available day is 2026-12-14"):
        kit.fetch(exchange, store)


def opened(kit: Any, exchange: Any, store: Any, day: date = DAY) -> Any:
    """A day that is still going on, as far as it has come."""
    extraction = kit.extraction(exchange, store, "intraday")
    return extraction.history(day, extraction.snapshot(day), None)


def test_a_day_continued_while_it_goes_on_is_asked_for_once(kit: Any, store: Any, clock: Any) -> None:
    exchange = kit.FakeExchange(kit.World(per_day=12), clock, page_limit=40)
    midnight = kit.midnight_ms(DAY) / 1000
    for seconds in (0, 0, 2, 2, 4, 9, 9):
        clock.now = midnight + seconds + 0.6
        opened(kit, exchange, store)
    early = len(exchange.asked)
    clock.now = midnight + 86_400 + 30
    history = kit.fetch(exchange, store, run_id="daily")
    assert numbers(history) == exchange.world.between(*of_day(exchange.world))
    assert history.generation == f"{HISTORY}/0001"
    assert [request.split()[0] for request in exchange.asked[early:]] == ["snapshot", "changes"]
    # Every record came once, but for those of the pages that were asked for when they were still empty.
    sns = [item["sn"] for key in store.list(HISTORY) for item in records(store, key)]
    assert len(sns) == len(set(sns))


def records(store: Any, key: str) -> list[Any]:
    document = json.loads(raw.read(store, key).body)
    return [*document["order"], *document["balance"]]


def test_what_the_last_page_holds_of_the_next_day_is_not_asked_for_again(kit: Any, store: Any, clock: Any) -> None:
    exchange = kit.FakeExchange(kit.World(days=4, per_day=3), clock, page_limit=5)
    clock.now += 4 * 86_400
    for number in range(4):
        day = kit.after(DAY, number)
        history = kit.fetch(exchange, store, day)
        assert numbers(history) == exchange.world.between(*of_day(exchange.world, day))
    # 12 records in pages of 5: 5, 5, 2.
    assert [request.split()[0] for request in exchange.asked if "changes" in request] == ["changes"] * 3
    assert len([request for request in exchange.asked if "snapshot" in request]) == 5


def test_a_taken_over_page_that_was_asked_for_too_early_is_followed_by_another(
    kit: Any, exchange: Any, store: Any, clock: Any
) -> None:
    # One second into the day after DAY: its first records are there, the rest is not.
    clock.now = kit.midnight_ms(kit.after(DAY, 1)) / 1000 + 2.6
    kit.fetch(exchange, store)
    clock.now += 2 * 86_400
    day = kit.after(DAY, 1)
    history = kit.fetch(exchange, store, day)
    assert numbers(history) == exchange.world.between(*of_day(exchange.world, day))
    (first, *_) = store.list(f"raw/main_cash/{day}/history")
    assert int(first.rsplit("/", 1)[1].split("-")[0]) <= of_day(exchange.world, day)[0]


def test_asking_anew_takes_nothing_over(kit: Any, store: Any, clock: Any) -> None:
    exchange = kit.FakeExchange(kit.World(days=4, per_day=3), clock, page_limit=50)
    clock.now += 4 * 86_400
    kit.fetch(exchange, store)
    exchange.asked.clear()
    kit.fetch(exchange, store, kit.after(DAY, 1), again="refetch")
    assert [request.split()[0] for request in exchange.asked] == ["snapshot", "snapshot", "changes"]


@pytest.mark.parametrize("damage", ["manifest", "page"])
def test_without_the_pages_of_the_day_before_a_day_is_asked_for_by_itself(
    kit: Any, store: Any, clock: Any, damage: str
) -> None:
    exchange = kit.FakeExchange(kit.World(days=4, per_day=3), clock, page_limit=50)
    clock.now += 4 * 86_400
    kit.fetch(exchange, store)
    (key,) = store.list(f"raw/main_cash/{DAY}/manifest") if damage == "manifest" else store.list(HISTORY)
    store.objects[key] = b"damaged"
    day = kit.after(DAY, 1)
    history = kit.fetch(exchange, store, day)
    assert history.fetched == 1
    assert numbers(history) == exchange.world.between(*of_day(exchange.world, day))


def test_the_account_of_an_endpoint_is_held_across_days(kit: Any, exchange: Any, store: Any, clock: Any) -> None:
    clock.now += 4 * 86_400
    kit.fetch(exchange, store)
    later = kit.after(DAY, 2)
    for endpoint, name in (("snapshot", "cshB"), ("changes", "MPXB")):
        exchange.alter = rename(name, lambda request, endpoint=endpoint: request.startswith(endpoint))
        with pytest.raises(Contradiction, match=f"account {name}, and did for .* so far"):
            kit.fetch(exchange, store, later, again=endpoint)
    exchange.alter = lambda _, document: document
    assert kit.fetch(exchange, store, later, again="once more").fetched == 3


def test_a_page_that_cannot_be_written_is_asked_for_once_more_and_nothing_is_left_of_it(
    kit: Any, exchange: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "store")
    opening = kit.extraction(exchange, store).snapshot(DAY)
    closing = kit.extraction(exchange, store).snapshot(kit.after(DAY, 1))

    def no_room(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", no_room)
        with pytest.raises(StoreUnwritable, match=r"/store/raw/.*No space left on device.*room"):
            kit.extraction(exchange, store).history(DAY, opening, closing)
    assert [path for path in (tmp_path / "store").rglob("*") if path.is_file() and "history" in path.parts] == []
    assert kit.extraction(exchange, store).history(DAY, opening, closing).fetched == 3
    assert exchange.asked.count(f"changes {opening.snapshot.sn + 1}") == 2


def test_a_store_that_cannot_be_written_loses_no_request(kit: Any, exchange: Any, tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file where the folder should be")
    with pytest.raises(StoreUnwritable, match=r"cannot be written.*set another one with the option"):
        kit.extraction(exchange, Store(tmp_path / "store")).snapshot(DAY)
    assert len(exchange.asked) == 1


def test_a_foreign_response_is_refused_and_fetched_again_once_the_connection_points_back(
    kit: Any, exchange: Any, store: Any
) -> None:
    kit.extraction(exchange, store).snapshot(DAY)
    exchange.alter = rename("cshB", lambda request: request.startswith("snapshot"))
    with pytest.raises(Contradiction, match="Point the connection back"):
        kit.fetch(exchange, store)
    exchange.alter = rename("MPXB", lambda request: request.startswith("changes") and len(exchange.asked) > 4)
    with pytest.raises(Contradiction, match="Point the connection back"):
        kit.fetch(exchange, store)
    exchange.alter = lambda _, document: document
    history = kit.fetch(exchange, store)
    assert numbers(history) == exchange.world.between(*of_day(exchange.world))
    # Each foreign response was fetched again, and nothing else.
    assert len(exchange.asked) == 5 + 2


def test_a_renamed_account_is_fetched_again_once_the_note_of_its_name_is_removed(
    kit: Any, exchange: Any, store: Any, clock: Any
) -> None:
    clock.now += 86_400
    kit.fetch(exchange, store)
    later = kit.after(DAY, 1)
    exchange.alter = rename("new", lambda _: True)
    with pytest.raises(Contradiction) as caught:
        kit.fetch(exchange, store, later, "run-2")
    assert "raw/main_cash/account/snapshot.json" in str(caught.value)
    for endpoint in ("snapshot", "history"):
        del store.objects[f"raw/main_cash/account/{endpoint}.json"]
    history = kit.fetch(exchange, store, later, "run-3")
    assert numbers(history) == exchange.world.between(*of_day(exchange.world, later))


@pytest.mark.parametrize("content", [b"<html>", b"{}", b""])
def test_a_newest_snapshot_that_is_nonsense_does_not_hide_an_older_one(
    kit: Any, exchange: Any, store: Any, clock: Any, content: bytes
) -> None:
    first = kit.extraction(exchange, store).snapshot(DAY)
    exchange.alter = lambda request, document: content
    with pytest.raises(InvalidResponse):
        kit.extraction(exchange, store, "run-2", again="refetch").snapshot(DAY)
    clock.now += 30 * 86_400
    exchange.asked.clear()
    assert kit.extraction(exchange, store, "run-3").snapshot(DAY) == first
    assert exchange.asked == []


def test_what_the_exchange_does_not_have_is_asked_for_once_in_a_run(kit: Any, exchange: Any, store: Any) -> None:
    del exchange.world.snapshots[DAY]
    for run_id, asked in (("run-1", 1), ("run-1", 1), ("run-2", 2)):
        with pytest.raises(RequestRefused, match=r"the snapshot of 2026-11-20.*does not have it"):
            kit.extraction(exchange, store, run_id).snapshot(DAY)
        assert len(exchange.asked) == asked
    assert kit.extraction(exchange, store).is_unavailable(DAY)
    assert kit.extraction(exchange, store).is_unavailable(kit.after(DAY, -1)), "it would close the day before"
    assert not kit.extraction(exchange, store).is_unavailable(kit.after(DAY, 1))


def test_a_snapshot_is_not_fetched_before_the_day_has_settled(kit: Any, exchange: Any, store: Any, clock: Any) -> None:
    exchange.settle = timedelta(minutes=10)
    closing = kit.after(DAY, 1)
    clock.now = kit.midnight_ms(closing) / 1000 + 599
    with pytest.raises(NotYetAvailable) as caught:
        kit.extraction(exchange, store).snapshot(closing)
    assert caught.value.wait_s == 1
    assert exchange.asked == []
    clock.now += 1
    found = kit.extraction(exchange, store).snapshot(closing)
    # What is in the store needs no waiting.
    clock.now -= 600
    assert kit.extraction(exchange, store).snapshot(closing) == found


def split_events(kit: Any, exchange: Any) -> int:
    """Give some events a record for each of two assets, which share their number; how many."""
    count = 0
    for place, (sn, by_order, document) in enumerate(list(exchange.world.records)):
        if by_order or count >= 3:
            continue
        twin = kit.change(sn, document["transactTime"], kit.leg(f"X{count}", 1, 1), event=document["eventType"])
        exchange.world.records.insert(place + count + 1, (sn, False, twin))
        count += 1
    return count


@pytest.mark.parametrize("page_limit", [3, 4, 5, 6, 7, 40])
def test_an_event_in_several_records_of_one_number_is_whole_wherever_a_page_cuts_it(
    kit: Any, store: Any, clock: Any, page_limit: int
) -> None:
    exchange = kit.FakeExchange(kit.World(), clock, page_limit=page_limit)
    assert split_events(kit, exchange)
    history = kit.fetch(exchange, store)
    opening, closing = of_day(exchange.world)
    due = [document for sn, _, document in exchange.world.records if opening < sn <= closing]
    expected = sorted((each["sn"], leg["asset"], Decimal(leg["deltaQty"])) for each in due for leg in each["data"])
    assert sorted((leg["sn"], leg["asset"], leg["delta"]) for leg in history.legs.to_pylist()) == expected
    # One number again for each full page, and no request more.
    assert history.fetched <= -(-len(due) // (page_limit - 1))
