from __future__ import annotations

import heapq
import itertools
import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balance_bridge.clock import Clock
from balance_bridge.errors import BudgetExhausted, ConfigurationError, ConnectionFailed
from balance_bridge.extract.budget import (
    LEASE_S,
    MARGIN_S,
    REQUESTS_PER_WINDOW,
    WINDOW_S,
    Budget,
    SqliteBudget,
    Usage,
    budget_key,
    open_budget,
    redacted,
)
from balance_bridge.extract.budget.base import MAX_FILL_S

Interval = tuple[float, float]


@pytest.fixture
def time(kit: SimpleNamespace) -> SimpleNamespace:
    return kit.FakeClock()


@pytest.fixture
def budget(time: SimpleNamespace, tmp_path: Path) -> SqliteBudget:
    return SqliteBudget(tmp_path / "budget.db", "key", clock=time.clock)


def most_in_a_window(requests: list[Interval], window_s: float) -> int:
    """How many of them the server can have seen in one window, wherever within its interval each arrived."""
    # Of the windows that reach an interval's end, none meets more intervals than the one that begins there.
    return max(
        (sum(start <= begin + window_s and end >= begin for start, end in requests) for _, begin in requests), default=0
    )


def run_workers(budget: Budget, time: SimpleNamespace, plans: list[list[tuple[float, float]]]) -> list[Interval]:
    """Let several workers ask in virtual time; each entry of a plan is (pause before, latency) in seconds."""
    requests: list[Interval] = []
    order = itertools.count()
    origin = time.now
    waiting = [(origin + plan[0][0], next(order), worker, 0) for worker, plan in enumerate(plans) if plan]
    under_way: list[tuple[float, int, int, int, int, float]] = []
    heapq.heapify(waiting)
    while waiting or under_way:
        if under_way and (not waiting or under_way[0][0] <= waiting[0][0]):
            time.now, _, worker, step, place, start = heapq.heappop(under_way)
            budget.give_back(place)
            requests.append((start, time.now))
            if step + 1 < len(plans[worker]):
                heapq.heappush(waiting, (time.now + plans[worker][step + 1][0], next(order), worker, step + 1))
            continue
        time.now, _, worker, step = heapq.heappop(waiting)
        taken, wait_s = budget.try_take()
        if taken is None:
            heapq.heappush(waiting, (time.now + wait_s, next(order), worker, step))
        else:
            end = time.now + plans[worker][step][1]
            heapq.heappush(under_way, (end, next(order), worker, step, taken, time.now))
    return requests


latencies = st.one_of(st.just(0.0), st.floats(0, 0.5), st.floats(0, 30), st.floats(30, LEASE_S))
pauses = st.one_of(st.just(0.0), st.floats(0, 5), st.floats(50, 70))


@pytest.mark.slow  # each example commits to SQLite some dozens of times
@settings(max_examples=25, deadline=None)
@given(plans=st.lists(st.lists(st.tuples(pauses, latencies), max_size=8), min_size=1, max_size=5))
def test_no_window_ever_holds_more_than_eight_requests_whatever_the_latency(
    plans: list[list[tuple[float, float]]], kit: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory
) -> None:
    time = kit.FakeClock()
    budget = SqliteBudget(tmp_path_factory.mktemp("budget") / "b.db", "key", clock=time.clock)
    requests = run_workers(budget, time, plans)
    assert len(requests) == sum(map(len, plans))
    assert most_in_a_window(requests, WINDOW_S) <= REQUESTS_PER_WINDOW


def test_without_latency_no_wait_is_longer_than_needed(budget: SqliteBudget, time: SimpleNamespace) -> None:
    origin, starts = time.now, []
    for _ in range(2 * REQUESTS_PER_WINDOW + 1):
        with budget.place():
            starts.append(time.now - origin)
    assert starts[:8] == [0.0] * 8
    assert starts[8:16] == pytest.approx([WINDOW_S + MARGIN_S] * 8, abs=0.001)
    assert starts[16:] == pytest.approx([2 * (WINDOW_S + MARGIN_S)], abs=0.001)


def test_a_place_is_free_one_window_after_its_request_ended(budget: SqliteBudget, time: SimpleNamespace) -> None:
    for _ in range(REQUESTS_PER_WINDOW):
        with budget.place():
            time.now += 10
    begin = time.now
    with budget.place():
        # The first request ended 70 s before the last one did.
        assert time.now == begin
    for _ in range(REQUESTS_PER_WINDOW - 1):
        budget.try_take()
    assert budget.try_take()[0] is None


def test_a_request_that_fails_is_counted(budget: SqliteBudget) -> None:
    for _ in range(REQUESTS_PER_WINDOW):
        with pytest.raises(OSError, match="lost"), budget.place():
            raise OSError("lost")
    place, wait_s = budget.try_take()
    assert place is None
    assert wait_s == pytest.approx(WINDOW_S + MARGIN_S, abs=0.001)


def test_a_dead_holder_s_place_comes_back_when_its_lease_and_a_window_are_over(
    budget: SqliteBudget, time: SimpleNamespace
) -> None:
    for _ in range(REQUESTS_PER_WINDOW):
        assert budget.try_take()[0] is not None
    time.now += LEASE_S + WINDOW_S - 0.1
    assert budget.try_take()[0] is None
    time.now += 0.2
    assert budget.try_take()[0] is not None


def test_a_request_that_outlived_its_lease_is_counted_when_it_ends(budget: SqliteBudget, time: SimpleNamespace) -> None:
    places = [budget.try_take()[0] for _ in range(REQUESTS_PER_WINDOW)]
    time.now += LEASE_S + WINDOW_S + 1
    assert budget.try_take()[0] is not None  # the leases are over
    for place in places:
        assert place is not None
        budget.give_back(place)
    assert budget.try_take()[0] is None


def test_a_wait_is_told_once_and_no_secret_with_it(time: SimpleNamespace, tmp_path: Path) -> None:
    told: list[str] = []
    budget = SqliteBudget(tmp_path / "b.db", "key", limit=1, clock=time.clock, log=told.append)
    for _ in range(2):
        with budget.place():
            pass
    assert told == ["the request budget is used up: waiting 60 s for a place"]
    assert time.slept == pytest.approx([WINDOW_S + MARGIN_S]), "a wait that is known is slept exactly"


def test_keys_do_not_share_a_budget(time: SimpleNamespace, tmp_path: Path) -> None:
    one, other = (SqliteBudget(tmp_path / "b.db", key, clock=time.clock) for key in ("one", "other"))
    one.fill()
    assert one.try_take()[0] is None
    assert other.try_take()[0] is not None


def test_two_budgets_of_one_key_share_it(time: SimpleNamespace, tmp_path: Path) -> None:
    one, other = (SqliteBudget(tmp_path / "b.db", "key", clock=time.clock) for _ in range(2))
    taken = [budget.try_take()[0] for budget in (one, other) * 5]
    assert sum(place is not None for place in taken) == REQUESTS_PER_WINDOW


def test_a_key_is_not_readable_from_its_name() -> None:
    name = budget_key("api-key-not-real")
    assert "api-key" not in name
    assert name == budget_key("api-key-not-real")
    assert name != budget_key("other-key")


@pytest.mark.parametrize("taken", [0, 3, REQUESTS_PER_WINDOW])
def test_a_window_that_the_server_calls_full_is_full_for_a_window(
    budget: SqliteBudget, time: SimpleNamespace, taken: int
) -> None:
    for _ in range(taken):
        with budget.place():
            pass
    time.now += 30
    budget.fill()
    place, wait_s = budget.try_take()
    assert place is None
    assert wait_s == pytest.approx(WINDOW_S + MARGIN_S, abs=0.001)
    time.now += wait_s
    free = [budget.try_take()[0] is not None for _ in range(REQUESTS_PER_WINDOW + 1)]
    assert free == [True] * REQUESTS_PER_WINDOW + [False]


def test_the_server_s_own_time_counts_within_bounds(budget: SqliteBudget) -> None:
    for asked_s, kept_s in ((5, WINDOW_S), (600, 600), (10**6, 900)):
        budget.fill(asked_s)
        assert budget.try_take()[1] == pytest.approx(kept_s + MARGIN_S, abs=0.001)


def test_a_request_under_way_while_the_window_is_called_full_still_counts(
    budget: SqliteBudget, time: SimpleNamespace
) -> None:
    place = budget.try_take()[0]
    assert place is not None
    budget.fill()
    time.now += 50
    budget.give_back(place)
    time.now += WINDOW_S + MARGIN_S - 50 + 1
    free = [budget.try_take()[0] is not None for _ in range(REQUESTS_PER_WINDOW)]
    assert free == [True] * (REQUESTS_PER_WINDOW - 1) + [False]


def test_a_request_that_outlasts_a_full_window_still_counts(budget: SqliteBudget, time: SimpleNamespace) -> None:
    assert budget.try_take()[0] is not None
    budget.fill()
    time.now += WINDOW_S + MARGIN_S + 1
    free = [budget.try_take()[0] is not None for _ in range(REQUESTS_PER_WINDOW)]
    assert free == [True] * (REQUESTS_PER_WINDOW - 1) + [False]


def test_a_wall_clock_that_is_set_has_no_effect(budget: SqliteBudget, tmp_path: Path, time: SimpleNamespace) -> None:
    shifted = Clock(wall=lambda: time.now + 10**6, monotonic=time.wall, sleep=time.sleep)
    for _ in range(REQUESTS_PER_WINDOW):
        with budget.place():
            pass
    assert SqliteBudget(tmp_path / "budget.db", "key", clock=shifted).try_take()[0] is None


@pytest.mark.parametrize("uptime_s", [0.0, 5.0, 59.0, 1e6])
def test_after_a_start_of_the_machine_places_are_kept_too_long_rather_than_too_short(
    budget: SqliteBudget, time: SimpleNamespace, uptime_s: float
) -> None:
    for _ in range(REQUESTS_PER_WINDOW):
        with budget.place():
            pass
    began, time.now = time.now, uptime_s
    with budget.place():
        waited = time.now - uptime_s
    # Up for longer than at the time of the requests: then they are longer ago than that.
    assert waited == 0.0 if uptime_s > began + WINDOW_S else waited <= MAX_FILL_S + 1


def test_a_wait_that_is_longer_than_the_patience_is_told_and_not_slept(time: SimpleNamespace, tmp_path: Path) -> None:
    budget = SqliteBudget(tmp_path / "b.db", "key", patience_s=10, clock=time.clock)
    for _ in range(REQUESTS_PER_WINDOW):
        with budget.place():
            time.now += 3
    with pytest.raises(BudgetExhausted, match=r"used up for 39 s \(8 requests in any 60 s\)") as caught, budget.place():
        raise AssertionError("there is no place")
    assert (time.slept, caught.value.refusal) == ([], None)
    assert caught.value.wait_s == pytest.approx(WINDOW_S + MARGIN_S - 21, abs=0.001)
    time.now += caught.value.wait_s - 9
    with budget.place():
        assert time.slept == pytest.approx([9], abs=0.01)


def test_places_under_way_are_looked_at_each_second_and_expected_for_a_window(
    time: SimpleNamespace, tmp_path: Path
) -> None:
    def budget(patience_s: float) -> SqliteBudget:
        return SqliteBudget(tmp_path / "b.db", "key", patience_s=patience_s, clock=time.clock)

    places = [budget(1).try_take()[0] for _ in range(REQUESTS_PER_WINDOW)]
    with pytest.raises(BudgetExhausted) as caught, budget(10).place():
        raise AssertionError("there is no place")
    assert caught.value.wait_s == WINDOW_S
    origin = time.now

    def sleep(seconds: float) -> None:
        time.sleep(seconds)
        if time.now - origin >= 5 and places:
            budget(1).give_back(places.pop() or 0)

    clock = Clock(wall=time.wall, monotonic=time.wall, sleep=sleep)
    with SqliteBudget(tmp_path / "b.db", "key", clock=clock).place():
        assert time.now - origin == pytest.approx(5 + WINDOW_S + MARGIN_S, abs=1.1)


def test_a_smaller_limit_than_before_waits_for_several_places(time: SimpleNamespace, tmp_path: Path) -> None:
    for _ in range(4):
        with SqliteBudget(tmp_path / "b.db", "key", limit=4, clock=time.clock).place():
            time.now += 1
    _, wait_s = SqliteBudget(tmp_path / "b.db", "key", limit=2, clock=time.clock).try_take()
    # The third of the four is the second but last.
    assert wait_s == pytest.approx(WINDOW_S + MARGIN_S - 1, abs=0.001)


def test_an_answer_counts_although_its_place_cannot_be_given_back(time: SimpleNamespace, tmp_path: Path) -> None:
    told: list[str] = []
    budget = SqliteBudget(tmp_path / "b.db", "key", clock=time.clock, log=told.append)
    with budget.place():
        (tmp_path / "b.db").unlink()
        (tmp_path / "b.db").mkdir()
    assert "a place of it stays taken for 180 s" in told[0]


def test_requests_and_refusals_are_counted_for_ever(budget: SqliteBudget, time: SimpleNamespace) -> None:
    assert budget.usage() == Usage(8, 0, 0, 0)
    for _ in range(10):
        with budget.place():
            pass
    budget.fill()
    assert budget.usage() == Usage(8, 8, 10, 1)
    time.now += 10**6
    assert budget.usage() == Usage(8, 0, 10, 1)


window_states = st.lists(st.one_of(st.none(), st.floats(0, 59.9)), max_size=REQUESTS_PER_WINDOW)


@pytest.mark.slow  # each example commits to SQLite some dozens of times
@settings(max_examples=30, deadline=None)
@given(state=window_states, durations=st.lists(st.floats(0, 3), min_size=1, max_size=40))
def test_from_every_state_of_the_window_requests_go_out_as_early_as_can_be(
    state: list[float | None], durations: list[float], kit: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """One after another: each begins when the one before has ended and the eighth before it is a window ago."""
    time = kit.FakeClock()
    budget = SqliteBudget(tmp_path_factory.mktemp("budget") / "b.db", "key", clock=time.clock)
    origin = time.now
    # Requests that ended so long ago, and some that nobody will ever end.
    ended = sorted(-ago for ago in state if ago is not None)
    places = [(budget.try_take()[0] or 0) for _ in state]
    for at, place in zip(ended, places, strict=False):
        time.now = origin + at
        budget.give_back(place)
    time.now = origin
    free = sorted(
        [at + WINDOW_S + MARGIN_S for at in ended] + [LEASE_S + WINDOW_S + MARGIN_S] * (len(state) - len(ended))
    )
    free = [0.0] * (REQUESTS_PER_WINDOW - len(free)) + free
    now = 0.0
    for duration in durations:
        begins = max(now, free.pop(0))
        with budget.place():
            assert time.now - origin == pytest.approx(begins, abs=1.01 if begins > 100 else 0.002)
            now = time.now - origin + duration
            time.now += duration
        free = sorted([*free, now + WINDOW_S + MARGIN_S])
    if not state:
        assert now <= (len(durations) - 1) // REQUESTS_PER_WINDOW * (WINDOW_S + MARGIN_S) + sum(durations) + 0.01


def test_a_budget_outlives_the_process(time: SimpleNamespace, tmp_path: Path) -> None:
    SqliteBudget(tmp_path / "b.db", "key", clock=time.clock).fill()
    assert SqliteBudget(tmp_path / "b.db", "key", clock=time.clock).try_take()[0] is None


def unusable(tmp_path: Path, case: str) -> Path:
    path = tmp_path / "folder" / "budget.db"
    if case == "no folder can be made":
        path.parent.write_bytes(b"in the way")
    elif case == "a folder in its place":
        path.mkdir(parents=True)
    else:
        path.parent.mkdir()
        path.write_bytes(b"this is no database, " * 100)
    return path


@pytest.mark.parametrize("case", ["no folder can be made", "a folder in its place", "no database"])
def test_without_its_file_no_request_is_made(case: str, tmp_path: Path) -> None:
    path = unusable(tmp_path, case)
    made = False
    with (
        pytest.raises(ConnectionFailed, match=r"without it no request is made: see that the folder.*option") as caught,
        SqliteBudget(path, "key").place(),
    ):
        made = True
    assert not made
    assert str(path) in str(caught.value)


def test_a_file_that_stays_locked_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda path, **options: connect(path, **(options | {"timeout": 0.01})))
    holder = connect(tmp_path / "b.db", isolation_level=None)
    try:
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(ConnectionFailed, match="database is locked"):
            SqliteBudget(tmp_path / "b.db", "key").try_take()
    finally:
        holder.close()


def test_a_url_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a folder" / "b%20?x#y.db"
    budget = open_budget(f"sqlite:///{path}", "key")
    budget.fill()
    assert path.is_file()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "sqlite://",
        "sqlite:///relative.db",
        "sqlite://host/x",
        "/a/b.db",
        "mysql://localhost/x",
        "redis:localhost",
    ],
)
def test_a_url_of_another_kind_is_refused_by_name(url: str) -> None:
    with pytest.raises(ConfigurationError, match="allowed: sqlite:////absolute/path") as caught:
        open_budget(url, "key")
    assert str(caught.value).startswith("[balance_bridge] budget: this names no backend that is known")


@pytest.mark.parametrize(
    "url",
    [
        "redis://:a-password-not-real@127.0.0.1:1/x/y",
        "redis://:a/password-not-real@127.0.0.1:1/0",
        "redis://127.0.0.1:1/0?password=a-password-not-real",
        "redis://127.0.0.1:1/0?db=a-password-not-real",
        "postgresql://me:a-password-not-real@127.0.0.1:port/x",
        "postgresql://me:a-password-not-real@127.0.0.1:1,127.0.0.1:2/x",
        "postgresql://me:password-not-real/1@127.0.0.1:1/x",
        "postgresql://me@127.0.0.1:1/x?password=a-password-not-real&sslmode=password-not-real",
        "postgresql://me:%61-password%2Dnot-real@127.0.0.1:1/x?connect_timeout=a-password-not-real",
        "postgresql:me:a-password-not-real@host/x",
        "mysql://me:a-password-not-real@host/x",
        "sqlite://me:a-password-not-real@host/x",
        "me:a-password-not-real@host",
        "host=h password=a-password-not-real",
    ],
)
def test_no_message_shows_a_password(url: str) -> None:
    with pytest.raises((ConfigurationError, ConnectionFailed)) as caught:
        open_budget(url, "key").try_take()
    assert "not-real" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:////a folder/b%20?x#y@z.db", "sqlite:////a folder/b%20?x#y@z.db"),
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("rediss://me:a-password-not-real@host/0?password=a-password-not-real", "rediss://host/0"),
        ("postgresql://me:a-password-not-real@a:1,b:2/x?password=not-real", "postgresql://a:1,b:2/x"),
    ],
)
def test_a_url_is_shown_without_its_credentials(url: str, shown: str) -> None:
    assert redacted(url) == shown


@pytest.mark.parametrize(
    ("module", "extra", "url"), [("redis", "redis", "redis://h/0"), ("psycopg", "postgresql", "postgresql://h/x")]
)
def test_a_driver_that_is_not_installed_is_told_with_what_to_do(
    module: str, extra: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigurationError, match=rf"pip install 'balance-bridge\[{extra}\]'"):
        open_budget(url, "key")


def test_the_file_and_those_beside_it_can_be_read_by_its_owner_only(tmp_path: Path, time: SimpleNamespace) -> None:
    path = tmp_path / "new" / "budget.db"
    budget = SqliteBudget(path, "key", clock=time.clock)
    before = os.umask(0)
    try:
        budget.try_take()
        with budget._transaction() as (db, _):
            budget._tally(db, "requests")
            journal = path.with_name("budget.db-journal")
            made = {each: each.stat().st_mode & 0o777 for each in (path.parent, path, journal)}
        # As a person may have set it; it stays with the file.
        with closing(sqlite3.connect(path)) as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("CREATE TABLE mine (x)")
            beside = {each.name: each.stat().st_mode & 0o777 for each in path.parent.iterdir()}
    finally:
        os.umask(before)
    assert list(made.values()) == [0o700, 0o600, 0o600]
    assert beside == {"budget.db": 0o600, "budget.db-wal": 0o600, "budget.db-shm": 0o600}
