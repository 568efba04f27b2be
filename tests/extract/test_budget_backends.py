"""The databases that a budget can be kept in: real files, a real server, real processes."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import traceback
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from balance_bridge.errors import ConfigurationError, ConnectionFailed
from balance_bridge.extract import budget as module
from balance_bridge.extract.budget import MARGIN_S, Budget, Limits

Interval = tuple[float, float]


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/budget.db"
    return str(request.getfixturevalue("postgresql_url"))


@pytest.fixture
def key(request: pytest.FixtureRequest) -> str:
    """A key of its own for each test: the server is shared."""
    return f"{request.node.name}-{time.time_ns()}"


def most_in_a_window(requests: list[Interval], window_s: float) -> int:
    """How many of them the server can have seen in one window, wherever within its interval each arrived."""
    # Of the windows that reach an interval's end, none meets more intervals than the one that begins there.
    return max(
        (sum(start <= begin + window_s and end >= begin for start, end in requests) for _, begin in requests), default=0
    )


def take_at_once(url: str, key: str, times: int) -> list[Any]:
    barrier, found = threading.Barrier(times), []

    def take() -> None:
        barrier.wait(10)
        found.append(Budget(url, key).try_take())

    threads = [threading.Thread(target=take) for _ in range(times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return found


def test_threads_that_begin_at_once_make_one_table_and_share_the_slots(url: str, key: str) -> None:
    found = take_at_once(url, key, 12)
    assert len(set(found)) >= 9, "each slot is given once"
    assert sum(isinstance(each, int) for each in found) == 8


def test_a_database_whose_default_isolation_is_stricter_counts_as_well(postgresql_url: str, key: str) -> None:
    url = f"{postgresql_url}?options=-c%20default_transaction_isolation%3Dserializable"
    assert sum(isinstance(each, int) for each in take_at_once(url, key, 10)) == 8


def test_postgresql_counts_by_its_own_clock(postgresql_url: str, key: str) -> None:
    # A real wait: there is no way to hand the server a clock.
    budget = Budget(postgresql_url, key, limits=Limits(1, window_s=0.3))
    with budget.slot():
        pass
    ended = time.monotonic()
    with budget.slot():
        assert 0.3 <= time.monotonic() - ended < 0.3 + MARGIN_S + 1


WORKER = """
import json, os, random, signal, sys, time
from balance_bridge.clock import Clock
from balance_bridge.extract.budget import Budget, Limits
url, key, seed, dies = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4] == "dies"
# A worker's own wall clock may be off; a shared backend goes by its own, one machine's by a clock that nobody can set.
clock = Clock(wall=lambda: time.time() + seed * 1000)
budget = Budget(url, key, limits=Limits(window_s=1.0, lease_s=1.5), clock=clock)
chance = random.Random(seed)
made = 0
while True:
    with budget.slot():
        begin = time.time()
        time.sleep(chance.random() * 0.2)
        print(json.dumps([begin, time.time()]), flush=True)
        made += 1
        if dies and made == 2:
            os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow  # six real processes at a time for five real windows
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
        # At least five windows, and until all six have died: on a busy machine a process takes seconds to start.
        while (time.monotonic() < began + 5 or None in died) and time.monotonic() < began + 90:
            # Six in all die, three at a time, each with a slot in hand.
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
    assert len(requests) >= 0.4 * 8 * span


# What cannot be used


@pytest.mark.parametrize(
    "url",
    [
        "",
        "sqlite://",
        "sqlite:///relative.db",
        "sqlite:///:memory:",
        "sqlite://host/x",
        "/a/b.db",
        "mysql://localhost/x",
        "redis://localhost:6379/0",
        "postgresql+asyncpg://localhost/x",
        "postgresql+psycopg_async://localhost/x",
    ],
)
def test_a_url_of_another_kind_is_refused_with_what_is_allowed(url: str) -> None:
    with pytest.raises(ConfigurationError, match="allowed: sqlite:////absolute/path") as caught:
        Budget(url, "key")
    assert str(caught.value).startswith("[balance_bridge] budget: the URL ")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:a-password-not-real@127.0.0.1:port/x",
        "postgresql://me:a-password-not-real@127.0.0.1:1,127.0.0.1:2/x",
        "postgresql://me:password-not-real/1@127.0.0.1:1/x",
        "postgresql://me@127.0.0.1:1/x?password=a-password-not-real&sslmode=password-not-real",
        "postgresql://me:%61-password%2Dnot-real@127.0.0.1:1/x?connect_timeout=a-password-not-real",
        "postgresql:me:a-password-not-real@host/x",
        "redis://:a-password-not-real@host/0",
        "mysql://me:a-password-not-real@host/x",
        "postgresql://me:a-password@not-real@host/x",
        "sqlite://me:a-password-not-real@host/x",
        "me:a-password-not-real@host",
        "host=h password=a-password-not-real",
    ],
)
def test_no_message_shows_a_password(url: str) -> None:
    with pytest.raises((ConfigurationError, ConnectionFailed)) as caught:
        Budget(url, "key").try_take()
    assert "not-real" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:////a folder/b%20?x#y@z.db", "/a folder/b%20?x#y@z.db"),
        ("postgres://me@a:1/x", "postgresql://a:1/x"),
        ("postgresql+psycopg://me:a-password-not-real@a:1/x?password=not-real", "postgresql://a:1/x"),
    ],
)
def test_a_budget_says_where_it_is_without_credentials(url: str, shown: str) -> None:
    assert Budget(url, "key").where == shown


def test_a_driver_that_is_not_installed_is_named_with_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'balance-bridge\[postgresql\]'"):
        Budget("postgresql://without-driver/x", "key")


def test_without_the_server_no_request_is_made_and_no_password_shown(closed_port: int) -> None:
    budget = Budget(f"postgresql://me:a-password-not-real@127.0.0.1:{closed_port}/x", "key")
    for act in (budget.try_take, budget.block_for, budget.usage):
        with pytest.raises(ConnectionFailed, match="No request is made without it") as caught:
            act()
        assert "not-real" not in str(caught.value)


def test_wrong_credentials_are_refused_without_showing_them(postgresql_url: str) -> None:
    wrong = postgresql_url.replace("a-password-not-real", "another-password")
    with pytest.raises(ConnectionFailed, match="password authentication failed") as caught:
        Budget(wrong, "key").try_take()
    assert "another-password" not in str(caught.value)


def test_a_user_that_may_make_no_table_uses_the_one_that_is_there(postgresql_url: str, key: str) -> None:
    import psycopg

    Budget(postgresql_url, key).try_take()
    with psycopg.connect(postgresql_url, autocommit=True) as db:
        db.execute("CREATE USER worker PASSWORD 'worker-not-real'")
        db.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO worker")
    url = postgresql_url.replace("tester:a-password-not-real", "worker:worker-not-real")
    assert isinstance(Budget(url, key).try_take(), int)


# The file


def test_a_url_names_the_file_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a folder" / "b%20?x#y.db"
    Budget(f"sqlite:///{path}", "key").block_for()
    assert path.is_file()


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
    with (
        pytest.raises(ConnectionFailed, match=r"No request is made without it\. .* or change \[balance_b") as caught,
        Budget(f"sqlite:///{path}", "key").slot(),
    ):
        raise AssertionError("a request is made")
    assert str(path) in str(caught.value)
    assert caught.value.log_entry().splitlines()[-1].endswith("[balance_bridge] budget"), "a whole line"


def test_a_file_that_stays_locked_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SQLITE_TIMEOUT_S", 0.01)
    with closing(sqlite3.connect(tmp_path / "b.db", isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(ConnectionFailed, match="database is locked"):
            Budget(f"sqlite:///{tmp_path}/b.db", "key").try_take()


def test_a_response_counts_although_its_slot_cannot_be_released(tmp_path: Path) -> None:
    logged: list[str] = []
    with Budget(f"sqlite:///{tmp_path}/b.db", "key", log=logged.append).slot():
        (tmp_path / "b.db").unlink()
        (tmp_path / "b.db").mkdir()
    assert "One slot stays taken for 180 s" in logged[0]


def test_the_file_and_those_beside_it_can_be_read_by_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "new" / "budget.db"
    budget = Budget(f"sqlite:///{path}", "key")
    before = os.umask(0)
    try:
        budget.try_take()
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("BEGIN IMMEDIATE")
            db.execute("DELETE FROM balance_bridge_budget")
            journal = path.with_name("budget.db-journal")
            made = {each: each.stat().st_mode & 0o777 for each in (path.parent, path, journal)}
            db.execute("ROLLBACK")
            # As a person may have set it; it stays with the file.
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("CREATE TABLE mine (x)")
            beside = {each.name: each.stat().st_mode & 0o777 for each in path.parent.iterdir()}
        budget.try_take()
    finally:
        os.umask(before)
    assert list(made.values()) == [0o700, 0o600, 0o600]
    assert beside == {"budget.db": 0o600, "budget.db-wal": 0o600, "budget.db-shm": 0o600}
