from __future__ import annotations

import heapq
import itertools
import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balance_bridge.errors import ConfigurationError, NotReached
from balance_bridge.extract.budget import (
    LEASE_S,
    MARGIN_S,
    REQUESTS_PER_WINDOW,
    WINDOW_S,
    Budget,
    SqliteBudget,
    budget_key,
    open_budget,
)

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
    assert max(time.slept) <= 5, "looks again every few seconds: places under way come free early"


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
    for asked_s, kept_s in ((5, WINDOW_S), (100, 100), (10**6, LEASE_S + WINDOW_S)):
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


def test_a_clock_that_is_set_back_does_not_lock_for_ever(budget: SqliteBudget, time: SimpleNamespace) -> None:
    for _ in range(REQUESTS_PER_WINDOW):
        with budget.place():
            pass
    time.now -= 365 * 86_400
    begin = time.now
    with budget.place():
        assert time.now - begin <= LEASE_S + WINDOW_S + 1


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
        pytest.raises(NotReached, match=r"without it no request is made: see that the folder.*option") as caught,
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
        with pytest.raises(NotReached, match="database is locked"):
            SqliteBudget(tmp_path / "b.db", "key").try_take()
    finally:
        holder.close()


WORKER = """
import json, random, sys, time
from pathlib import Path
from balance_bridge.extract import budget
budget.WINDOW_S, budget.LEASE_S, budget.MARGIN_S, budget._RECHECK_S = 0.4, 2.0, 0.002, 0.05
shared = budget.SqliteBudget(Path(sys.argv[1]), "key")
chance = random.Random(int(sys.argv[2]))
sys.stdin.readline()
for _ in range(4):
    with shared.place():
        start = time.time()
        time.sleep(chance.random() * 0.05)
        end = time.time()
    print(json.dumps([start, end]), flush=True)
"""


@pytest.mark.slow  # real processes, real waits: three windows of 0.4 s and the start of six interpreters
def test_six_processes_together_stay_within_the_budget(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(tmp_path / "b.db"), str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for number in range(6)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        process.stdin.flush()
    requests = []
    for process in processes:
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        requests += [json.loads(line) for line in out.splitlines()]
    assert len(requests) == 24
    assert most_in_a_window([(start, end) for start, end in requests], 0.4) <= REQUESTS_PER_WINDOW


def test_a_url_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a folder" / "b%20?x#y.db"
    budget = open_budget(f"sqlite:///{path}", "key")
    budget.fill()
    assert path.is_file()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "redis://localhost:6379/0",
        "sqlite://",
        "sqlite:///relative.db",
        "sqlite://host/x",
        "/a/b.db",
        "postgresql:////x",
    ],
)
def test_a_url_of_another_kind_is_refused_by_name(url: str) -> None:
    with pytest.raises(ConfigurationError, match="allowed: sqlite:////absolute/path") as caught:
        open_budget(url, "key")
    assert f"budget = {url}:" in str(caught.value)
