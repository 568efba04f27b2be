from __future__ import annotations

import runpy
from datetime import UTC, date, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balance_bridge import daily, intraday
from balance_bridge.errors import NotYetAvailable, ReconciliationBroken, RequestRefused
from balance_bridge.localtime import local_texts
from balance_bridge.transform import balances

DAY = date(2026, 11, 20)
WANTED = [
    daily.BalanceRequest("elven", ["close", "changes"], "Asia/Shanghai", "local_second", DAY),
    daily.BalanceRequest("amlyze", ["open", "changes", "every 30s"], "UTC", "instant", DAY),
]


@pytest.fixture(scope="session")
def kit() -> SimpleNamespace:
    """The exchange in memory that the tests of extraction use."""
    return SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "extract" / "conftest.py")))


class Day:
    """A day that goes on: the exchange shows what has happened by the time of the clock."""

    def __init__(self, kit: SimpleNamespace, *, seed: int = 1, per_day: int = 12, page_limit: int = 5) -> None:
        self.midnight = kit.midnight_ms(DAY) / 1000
        self.clock = kit.FakeClock()
        self.exchange = kit.FakeExchange(kit.World(seed, per_day=per_day), self.clock, page_limit=page_limit)
        self.store = kit.MemoryStore()
        self.told: list[str] = []

    def at(self, seconds: float) -> Day:
        self.clock.now = self.midnight + seconds
        return self

    def job(self, run_id: str) -> daily.Job:
        return daily.Job(self.exchange, self.store, "main_cash", DAY, run_id, log=self.told.append)

    def follow(self) -> dict[str, Any] | None:
        return intraday.run(self.job(intraday.asked_by(DAY)), WANTED)

    def rows(self, key: str) -> dict[tuple[str, int], Any]:
        frame = balances.from_parquet(self.store.read(key))
        at_ms = frame["at"].astype("int64[pyarrow]")
        return dict(zip(zip(frame["asset"], at_ms, strict=True), frame["balance"], strict=True))

    def close(self) -> dict[str, Any]:
        """The daily run, as its tasks run it."""
        self.at(86_400 + 3600)
        job = self.job("daily")
        extracted = daily.fetch_history(job, {})
        return daily.reconcile(job, extracted, tolerance={}, on_break="hold", destinations=WANTED)


@pytest.fixture
def day(kit: SimpleNamespace) -> Day:
    return Day(kit)


def test_what_has_happened_is_told_and_nothing_that_is_not_over_for_a_minute(day: Day) -> None:
    found = day.at(66.9).follow()
    assert found is not None
    assert found["status"] == "so far"
    assert found["until_ms"] == int(day.midnight + 6) * 1000
    for name in ("elven", "amlyze"):
        told = day.rows(found["balances"][name])
        assert told
        assert max(at_ms for _, at_ms in told) < found["until_ms"]
    # All twelve records are known, half of them are not told yet.
    assert found["records"] == 12
    assert found["sn"] == day.exchange.world.records[11][0]


def test_what_is_told_early_is_what_the_day_tells_in_the_end(day: Day) -> None:
    early = [day.at(seconds).follow() for seconds in (61, 63, 64.5, 70, 80, 4000)]
    done = day.close()
    assert done["status"] == "proven"
    for name in ("elven", "amlyze"):
        final = day.rows(done["balances"][name])
        for found in early:
            assert found is not None
            assert day.rows(found["balances"][name]).items() <= final.items()
    assert sum(found["counts"]["amlyze"] for found in early if found) > 0


def test_nothing_that_was_followed_is_asked_for_again_by_the_daily_run(day: Day) -> None:
    for seconds in (62, 64, 66, 90):
        day.at(seconds).follow()
    day.exchange.asked.clear()
    done = day.close()
    assert done["status"] == "proven"
    # The closing snapshot's number is the last record's that was known: nothing can be missing.
    assert day.exchange.asked == ["snapshot 2026-11-21"]


def test_what_happened_since_is_asked_for_from_the_last_known_record_on(day: Day) -> None:
    found = day.at(4.6).follow()
    assert found is not None
    assert 0 < found["records"] < 5
    day.exchange.asked.clear()
    assert day.close()["status"] == "proven"
    assert day.exchange.asked[:2] == ["snapshot 2026-11-21", f"changes {found['sn'] + 1}"]


def test_a_run_without_anything_new_leaves_the_same_balances(day: Day) -> None:
    first, second = day.at(100).follow(), day.at(130).follow()
    assert first is not None
    assert second is not None
    assert second["balances"]["elven"] == first["balances"]["elven"]
    assert second["pages_fetched"] == 1


def test_without_an_opening_snapshot_there_is_nothing_to_follow(day: Day) -> None:
    def not_there(request: str) -> None:
        raise NotYetAvailable(request)

    day.exchange.before_ask = not_there
    assert day.at(5).follow() is None
    assert day.told[-1] == f"there is nothing of {DAY} to follow yet: snapshot {DAY}"


@pytest.mark.parametrize("retention_days", [1, 7])
def test_changes_that_the_exchange_does_not_have_are_refused_as_in_a_daily_run_and_asked_for_by_the_next(
    day: Day, retention_days: int
) -> None:
    day.exchange.retention_days = retention_days

    def no_data(request: str) -> None:
        if request.startswith("changes"):
            raise NotYetAvailable("code 100002")

    day.exchange.before_ask = no_data
    with pytest.raises(RequestRefused, match=r"changes of 2026-11-20 from sn .* does not have it, .* should") as caught:
        day.at(70).follow()
    assert "Ask the exchange for it" in caught.value.log_entry()
    day.exchange.before_ask = lambda _: None
    found = day.at(80).follow()
    assert found is not None
    assert found["records"] == 12


def test_a_day_that_is_over_is_left_to_its_daily_run(day: Day) -> None:
    assert day.at(86_401).follow() is None
    assert day.exchange.asked == []
    assert "its daily run takes it from here" in day.told[-1]


def test_a_chain_that_breaks_is_asked_about_once_a_day_and_nothing_is_told(day: Day) -> None:
    lost = day.exchange.world.records.pop(3)
    for seconds, snapshots in ((70, 2), (80, 2), (90, 2)):
        with pytest.raises(ReconciliationBroken, match="so far does not add up, nothing more of it is delivered"):
            day.at(seconds).follow()
        assert day.exchange.asked.count("snapshot 2026-11-20") == snapshots
    assert day.store.list("intraday") == []
    # It turns up, too late for what was asked for; the daily run asks once more before it believes.
    day.exchange.world.records.insert(3, lost)
    assert day.close()["status"] == "proven"


def test_a_record_that_appears_late_is_healed_by_asking_once_more(day: Day) -> None:
    lost = day.exchange.world.records.pop(3)
    asked: list[str] = []

    def turn_up(request: str) -> None:
        asked.append(request)
        if len(asked) == 5:
            day.exchange.world.records.insert(3, lost)

    day.exchange.before_ask = turn_up
    found = day.at(100).follow()
    assert found is not None
    assert found["records"] == 12
    assert day.close()["status"] == "proven"


def test_a_stored_page_that_was_damaged_is_asked_for_again(day: Day) -> None:
    day.at(64).follow()
    (key, *_) = day.store.list(f"raw/main_cash/{DAY}/history")
    day.store.objects[key] = b"damaged"
    found = day.at(100).follow()
    assert found is not None
    assert found["records"] == 12
    assert day.close()["status"] == "proven"


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    per_day=st.integers(0, 30),
    page_limit=st.integers(2, 7),
    at=st.lists(st.floats(0, 100), max_size=4),
)
def test_the_daily_run_is_the_same_with_and_without_having_followed(
    kit: SimpleNamespace, seed: int, per_day: int, page_limit: int, at: list[float]
) -> None:
    followed, plain = (Day(kit, seed=seed, per_day=per_day, page_limit=page_limit) for _ in range(2))
    for seconds in sorted(at):
        followed.at(seconds).follow()
    done, expected = followed.close(), plain.close()
    for name in ("elven", "amlyze"):
        assert followed.store.read(done["balances"][name]) == plain.store.read(expected["balances"][name])
    assert followed.store.read(done["ledger"]) == plain.store.read(expected["ledger"])
    cursors = [request for request in followed.exchange.asked if request.startswith("changes")]
    fuller = len(cursors) - len([request for request in plain.exchange.asked if request.startswith("changes")])
    assert fuller <= len(at) + 1


def booked_day(data: st.DataObject, kit: SimpleNamespace, day: date) -> tuple[Any, dict[int, int]]:
    """A day's records and snapshots, and when each record was booked: in order, up to a minute after its time."""
    midnight = kit.midnight_ms(day)
    around = st.sampled_from([500, 2_000, 3_600_300, 5_412_000, 9_012_000, 86_399_999, 86_400_400])
    booked = sorted(data.draw(st.lists(around | st.integers(0, 86_400_500), max_size=8)))
    held, records, times = {"BTC": 1, "ETH": 2}, [], {}
    for sn, booked_ms in enumerate(booked, 101):
        at_ms = midnight + booked_ms - data.draw(st.sampled_from([0, 0, 300, 2_000]) | st.integers(0, 59_000))
        asset, delta = data.draw(st.sampled_from(["BTC", "ETH"])), data.draw(st.integers(-2, 2))
        held[asset] += delta
        records.append((sn, False, kit.change(sn, at_ms, kit.leg(asset, delta, held[asset]))))
        times[sn] = midnight + booked_ms
    snapshots = {day: (100, {"BTC": 1, "ETH": 2}), kit.after(day, 1): (100 + len(records), held)}
    return SimpleNamespace(records=records, snapshots=snapshots), times


@pytest.mark.slow  # each example follows a day and closes it
@settings(max_examples=20, deadline=None)
@given(st.data())
def test_what_is_settled_early_has_the_keys_and_amounts_that_the_day_gives_it_in_the_end(
    kit: SimpleNamespace, data: st.DataObject
) -> None:
    zone, of_month = data.draw(
        st.sampled_from(
            [
                ("Asia/Shanghai", DAY),
                ("Europe/Berlin", date(2026, 10, 25)),
                ("Atlantic/Azores", date(2026, 10, 25)),
                ("Antarctica/Troll", date(2026, 10, 24)),
                ("Antarctica/Troll", date(2026, 10, 25)),
                ("America/Havana", date(2026, 11, 1)),
            ]
        )
    )
    extra = data.draw(st.lists(st.sampled_from(["open", "close", "local_midnight", "every 1h"]), unique=True))
    keys: list[Any] = ["instant", "local_second"]
    requests = [daily.BalanceRequest(key, ["changes", *extra], zone, key, of_month) for key in keys]
    world, booked = booked_day(data, kit, of_month)
    everything, midnight = list(world.records), kit.midnight_ms(of_month)
    day = Day(kit)
    day.exchange.world = world

    def book(_: str) -> None:
        world.records = [record for record in everything if booked[record[0]] <= day.clock.now * 1000]

    day.exchange.before_ask = book

    def job(run_id: str) -> daily.Job:
        return daily.Job(day.exchange, day.store, "main_cash", of_month, run_id)

    early = []
    for seconds in sorted(data.draw(st.lists(st.integers(70, 86_399) | st.integers(3_600, 12_000), max_size=3))):
        day.clock.now = midnight / 1000 + seconds
        early.append(intraday.run(job(intraday.asked_by(of_month)), requests))

    day.clock.now = midnight / 1000 + 86_400 + 3600
    extracted = daily.fetch_history(job("daily"), {})
    done = daily.reconcile(job("daily"), extracted, tolerance={}, on_break="hold", destinations=requests)
    for key in keys:
        frame = balances.from_parquet(day.store.read(done["balances"][key]))
        known = frame["points"].str.contains("changes|every")
        final = {each: amount for each, amount in day.rows(done["balances"][key]).items() if each[1] > midnight}
        asked = dict(zip(day.rows(done["balances"][key]), known, strict=True))
        for found in early:
            assert found is not None
            ahead = range(found["until_ms"], midnight + 86_400_001, 1000)
            texts = min(local_texts(ahead, zone))
            settled = {
                each: amount
                for each, amount in final.items()
                if asked[each] and (each[1] < ahead[0] if key == "instant" else local_texts([each[1]], zone)[0] < texts)
            }
            assert day.rows(found["balances"][key]) == settled


@pytest.mark.parametrize("ahead_s", [-30, 45, 600, 7200])
def test_no_instant_is_delivered_before_it_has_happened_by_the_exchange_s_clock(day: Day, ahead_s: int) -> None:
    day.at(3600 + ahead_s)
    exchange_s = day.midnight + 3600
    day.exchange.server_date = lambda: format_datetime(datetime.fromtimestamp(exchange_s, UTC), usegmt=True)
    found = day.follow()
    assert found is not None
    assert found["until_ms"] == (int(exchange_s) - intraday.SETTLED_S) * 1000
    for name in ("elven", "amlyze"):
        instants = [at_ms for _, at_ms in day.rows(found["balances"][name])]
        assert instants
        assert max(instants) < exchange_s * 1000


def test_a_page_that_comes_after_midnight_leaves_the_closing_instant_to_the_daily_run(day: Day) -> None:
    exchange_s = day.midnight + 86_400 + 600
    day.exchange.server_date = lambda: format_datetime(datetime.fromtimestamp(exchange_s, UTC), usegmt=True)
    found = day.at(86_399).follow()
    assert found is not None
    close_ms = int(day.midnight + 86_400) * 1000
    assert found["until_ms"] == close_ms
    assert all(at_ms < close_ms for _, at_ms in day.rows(found["balances"]["amlyze"]))


def test_the_days_between_are_no_matter(day: Day) -> None:
    """A follower that sleeps for hours goes on where it was."""
    day.at(62).follow()
    found = day.at(timedelta(hours=20).total_seconds()).follow()
    assert found is not None
    assert found["records"] == 12
