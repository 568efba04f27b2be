"""What a budget promises, for each thing that it can be kept in: real files, real servers, real processes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import servers
from balance_bridge.errors import ConnectionFailed
from balance_bridge.extract.budget import MARGIN_S, Budget, Usage, open_budget

Interval = tuple[float, float]


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    with servers.redis_server("--requirepass", "a-password-not-real") as port:
        yield f"redis://:a-password-not-real@127.0.0.1:{port}/0"


@pytest.fixture(scope="module")
def postgresql_url() -> Iterator[str]:
    with servers.postgresql_server() as url:
        yield url


@pytest.fixture(params=["sqlite", "redis", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/budget.db"
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def key(request: pytest.FixtureRequest) -> str:
    """A key of its own for each test: the servers are shared."""
    return f"{request.node.name}-{time.time_ns()}"


def most_in_a_window(requests: list[Interval], window_s: float) -> int:
    """How many of them the server can have seen in one window, wherever within its interval each arrived."""
    # Of the windows that reach an interval's end, none meets more intervals than the one that begins there.
    return max(
        (sum(start <= begin + window_s and end >= begin for start, end in requests) for _, begin in requests), default=0
    )


def make(url: str, key: str, **options: Any) -> Budget:
    return open_budget(url, key, **({"window_s": 0.4, "lease_s": 0.6} | options))


def test_eight_are_let_through_and_the_ninth_is_told_how_long_to_wait(url: str, key: str) -> None:
    budget = make(url, key, window_s=30)
    places = [budget.try_take()[0] for _ in range(8)]
    assert None not in places
    assert len(set(places)) == 8
    place, wait_s = budget.try_take()
    assert place is None
    assert wait_s == pytest.approx(30 + 0.6 + MARGIN_S, abs=1)
    budget.give_back(places[3] or 0)
    assert budget.try_take()[1] == pytest.approx(30 + MARGIN_S, abs=1)
    assert budget.usage() == Usage(8, 8, 8, 0)


def test_a_place_is_free_one_window_after_it_was_given_back(url: str, key: str) -> None:
    budget = make(url, key, limit=1)
    with budget.place():
        time.sleep(0.2)
        ended = time.monotonic()
    with budget.place():
        assert 0.4 <= time.monotonic() - ended < 1.5


def test_a_dead_holder_s_place_comes_back(url: str, key: str) -> None:
    budget = make(url, key, limit=1)
    began = time.monotonic()
    assert budget.try_take()[0] is not None
    with budget.place():
        assert 1.0 <= time.monotonic() - began < 3


def test_a_request_that_outlived_its_lease_is_counted_when_it_ends(url: str, key: str) -> None:
    budget = make(url, key, limit=1, window_s=0.2, lease_s=0.1)
    place, _ = budget.try_take()
    time.sleep(0.5)
    budget.give_back(place or 0)
    assert budget.try_take()[0] is None
    with budget.place():
        pass


def test_a_window_that_the_server_calls_full_is_full_for_all(url: str, key: str) -> None:
    under_way, _ = make(url, key, window_s=20).try_take()
    make(url, key, window_s=20).fill(120)
    budget = make(url, key, window_s=20)
    assert budget.try_take() == (None, pytest.approx(120 + MARGIN_S, abs=1))
    # Giving a place back does not undo it.
    budget.give_back(under_way or 0)
    assert budget.try_take() == (None, pytest.approx(120 + MARGIN_S, abs=1))
    assert budget.usage() == Usage(8, 8, 1, 1)


def test_keys_do_not_share_a_budget(url: str, key: str) -> None:
    for _ in range(8):
        assert make(url, f"{key}-1").try_take()[0] is not None
    assert make(url, f"{key}-1").try_take()[0] is None
    assert make(url, f"{key}-2").try_take()[0] is not None


def test_threads_that_begin_at_once_make_one_budget(url: str, key: str) -> None:
    barrier, found = threading.Barrier(12), []

    def take() -> None:
        barrier.wait(10)
        found.append(make(url, key, window_s=30).try_take()[0])

    threads = [threading.Thread(target=take) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sum(place is not None for place in found) == 8


WORKER = """
import json, os, random, signal, sys, time
from balance_bridge.clock import Clock
from balance_bridge.extract.budget import open_budget
url, key, seed, dies = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4] == "dies"
# A worker's own wall clock may be off; a shared backend goes by its own, one machine's by a clock that nobody can set.
clock = Clock(wall=lambda: time.time() + seed * 1000)
budget = open_budget(url, key, window_s=1.0, lease_s=1.5, clock=clock)
chance = random.Random(seed)
made = 0
while True:
    with budget.place():
        begin = time.time()
        time.sleep(chance.random() * 0.2)
        print(json.dumps([begin, time.time()]), flush=True)
        made += 1
        if dies and made == 2:
            os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow  # six real processes at a time for eight real windows
@pytest.mark.system
def test_many_processes_stay_within_the_budget_though_some_are_killed(url: str, key: str) -> None:
    """Each arrival may lie anywhere between a request's begin and its end, or the death of its process."""

    def start(seed: int, how: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", WORKER, url, key, str(seed), how]
        return subprocess.Popen(command, stdout=subprocess.PIPE)

    lasting: list[subprocess.Popen[bytes]] = []
    mortal: list[subprocess.Popen[bytes]] = []
    died: list[int | None] = [None]
    try:
        lasting += [start(seed, "lasts") for seed in range(3)]
        began = time.monotonic()
        # At least eight windows, and until all six have died: on a busy machine a process takes seconds to start.
        while (time.monotonic() < began + 8 or None in died) and time.monotonic() < began + 90:
            # Six in all die, three at a time, each with a place in hand.
            if len(mortal) < 6 and sum(process.poll() is None for process in mortal) < 3:
                mortal.append(start(3 + len(mortal), "dies"))
            time.sleep(0.05)
            died = [process.poll() for process in mortal] + [None] * (6 - len(mortal))
    finally:
        for process in lasting + mortal:
            process.kill()
        outputs = [process.communicate(timeout=30)[0] for process in lasting + mortal]
    assert died == [-signal.SIGKILL] * 6
    requests = [(begin, end) for out in outputs for begin, end in map(json.loads, out.splitlines())]
    assert most_in_a_window(requests, 1.0) <= 8
    # And the budget is used: nearly eight a second, but for the leases of those that were killed.
    span = max(end for _, end in requests) - min(begin for begin, _ in requests)
    assert len(requests) >= 0.5 * 8 * span


@pytest.mark.parametrize("kind", ["redis", "postgresql"])
def test_a_server_that_is_down_is_told_without_its_password(kind: str, closed_port: int) -> None:
    budget = open_budget(f"{kind}://me:a-password-not-real@127.0.0.1:{closed_port}/0", "key")
    for act in (budget.try_take, budget.fill, budget.usage):
        with pytest.raises(ConnectionFailed, match="without it no request is made") as caught:
            act()
        assert "not-real" not in str(caught.value)


def test_wrong_credentials_are_told_without_them(redis_url: str, postgresql_url: str) -> None:
    for url in (redis_url, postgresql_url):
        wrong = url.replace("a-password-not-real", "another-password")
        with pytest.raises(ConnectionFailed, match="cannot be reached") as caught:
            open_budget(wrong, "key").try_take()
        assert "another-password" not in str(caught.value)


def test_a_user_that_may_make_no_table_uses_those_that_are_there(postgresql_url: str, key: str) -> None:
    import psycopg

    make(postgresql_url, key).try_take()
    with psycopg.connect(postgresql_url, autocommit=True) as db:
        db.execute("CREATE USER worker PASSWORD 'worker-not-real'")
        db.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO worker")
        db.execute("GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO worker")
    url = postgresql_url.replace("tester:a-password-not-real", "worker:worker-not-real")
    assert make(url, key).try_take()[0] is not None
