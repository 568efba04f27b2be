"""Extraction by several real processes at once, against the sandbox over real sockets, some of them killed."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from balance_bridge.extract import raw
from balance_bridge.extract.pages import newest_pages
from balance_bridge.sandbox.exchange import ExchangeOptions
from balance_bridge.sandbox.server import CREDENTIALS, Sandbox
from balance_bridge.store import Store

pytestmark = [pytest.mark.system, pytest.mark.slow]

WORKER = Path(__file__).with_name("extract_worker.py")
CASH, MARGIN = sorted(CREDENTIALS.exchange)
# What each end of a window's measurement may be off by: a request's way, and a process's start.
KILLS = 20


def yesterday() -> date:
    return datetime.now(UTC).date() - timedelta(days=1)


def order(
    folder: Path, name: str, sandbox: Sandbox, key: str, category: str, days: Sequence[date], **more: Any
) -> Path:
    """What a worker is asked for, as a file."""
    asked = {
        "url": sandbox.url,
        "key": key,
        "secret": CREDENTIALS.exchange[key],
        "category": category,
        "account": name,
        "days": [day.isoformat() for day in days],
        "store": str(folder / "store"),
        "budget": f"sqlite:///{folder}/budget.db",
        "options": {},
        "page_limit": 500,
    }
    path = folder / f"{name}-{time.monotonic_ns()}.json"
    path.write_text(json.dumps(asked | more))
    return path


@contextmanager
def worker(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, str(WORKER), str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=30)


def ended_well(process: subprocess.Popen[bytes], limit_s: float) -> list[dict[str, Any]]:
    out, err = process.communicate(timeout=limit_s)
    assert process.returncode == 0, err.decode()
    return [json.loads(line) for line in out.splitlines()]


def records(sandbox: Sandbox, key: str, category: str, day: date) -> list[int]:
    book = sandbox.exchange.world.book(key, category, datetime.now(UTC).date())
    return [record.sn for record in book.between(book.snapshots[day], book.snapshots[day + timedelta(days=1)])]


def fetched(store: Store, found: dict[str, Any]) -> list[int]:
    """The sequence numbers in the pages of a fetch, each as often as it is there."""
    sns = []
    for key in newest_pages(store, found["history"]).values():
        document = json.loads(raw.read(store, key).body)
        sns += [item["sn"] for name in ("order", "balance") for item in document.get(name) or []]
    return sns


# Two minutes: the exchange's real window of 60 s, three times.
@pytest.mark.xdist_group("extraction")
def test_four_processes_share_two_keys_without_a_refusal_and_use_what_they_are_granted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    day = yesterday()
    with Sandbox() as sandbox:
        # So many requests for each key that its budget is used up twice over and more.
        limit = len(records(sandbox, CASH, "cash", day)) // 4
        other = len(records(sandbox, MARGIN, "margin", day)) // 16
        orders = [
            order(tmp_path, "cash", sandbox, CASH, "cash", [day], page_limit=limit),
            order(tmp_path, "cash", sandbox, CASH, "cash", [day], page_limit=limit),
            order(tmp_path, "second", sandbox, CASH, "margin", [day], page_limit=50),
            order(tmp_path, "margin", sandbox, MARGIN, "margin", [day], page_limit=other),
        ]
        began = time.monotonic()
        processes = [
            subprocess.Popen([sys.executable, str(WORKER), str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            for path in orders
        ]
        try:
            found = [ended_well(process, 400)[0] for process in processes]
        finally:
            for process in processes:
                process.kill()
                process.wait(10)
        took_s = time.monotonic() - began
        assert sandbox.journal.refusals(429) == []
        used = {}
        for key in (CASH, MARGIN):
            arrivals = sandbox.journal.arrivals_s("exchange", key)
            # The last window is only used as far as there was something left to ask for.
            windows = (arrivals[-1] - arrivals[0]) // 60
            granted = [at for at in arrivals if at - arrivals[0] < windows * 60]
            used[key] = len(granted) / (8 * windows)
            assert len(arrivals) > 16
        with capsys.disabled():
            shown = ", ".join(f"{key} {share:.0%}" for key, share in used.items())
            print(f"\n4 processes, 2 keys, {took_s:.0f} s, no 429; of the budget was used: {shown}")
        assert took_s > 120
        assert min(used.values()) >= 0.9
        assert found[0]["history"] == found[1]["history"]
        store = Store(tmp_path / "store")
        for name, key, category, of in (
            ("cash", CASH, "cash", found[0]),
            ("second", CASH, "margin", found[2]),
            ("margin", MARGIN, "margin", found[3]),
        ):
            due = records(sandbox, key, category, day)
            assert sorted(set(fetched(store, of)) & set(due)) == due, name
            assert of["records"] == len(due)


def content(store: Store) -> dict[str, Any]:
    """The store file by file, but for times, run ids and compression."""
    return {
        key: raw.read(store, key).body if key.endswith(raw.SUFFIX) else store.read(key) for key in store.list("raw")
    }


# A minute: twenty processes are started and killed.
def test_killed_twenty_times_the_store_is_that_of_an_undisturbed_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = random.SystemRandom().randrange(10**6)
    chance = random.Random(seed)
    days = [yesterday() - timedelta(days=back) for back in (4, 3, 2, 1, 0)]
    # A short window, so that there is time for many requests; a place of a killed process is free after a second.
    options = {"window_s": 0.5, "lease_s": 0.5}
    # One budget for all: it is one key that they ask with.
    budget = f"sqlite:///{tmp_path}/budget.db"
    with Sandbox(options=ExchangeOptions(window_s=0.5)) as sandbox:
        folders = [tmp_path / name for name in ("clean", "killed")]
        for folder in folders:
            folder.mkdir()
        clean, killed = (
            order(folder, "cash", sandbox, CASH, "cash", days, page_limit=6, options=options, budget=budget)
            for folder in folders
        )
        with worker(clean) as process:
            ended_well(process, 120)
        asked = len(sandbox.journal.requests)
        kills = 0
        while kills < KILLS:
            with worker(killed) as process:
                # Somewhere between the start of the interpreter and the end of what there is to do.
                try:
                    process.wait(0.6 + chance.random() * 0.8)
                except subprocess.TimeoutExpired:
                    process.kill()
                    kills += 1
                    continue
                assert process.returncode == 0
                break
        with worker(killed) as process:
            ended_well(process, 120)
        with capsys.disabled():
            print(f"\nseed {seed}: killed {kills} times")
        again = len(sandbox.journal.requests) - asked
        assert content(Store(folders[1] / "store")) == content(Store(folders[0] / "store")), f"seed {seed}"
        assert again <= asked + kills, f"seed {seed}: at most one request is made again for each kill"
        assert sandbox.journal.refusals(429) == [], f"seed {seed}"
        assert kills == KILLS, f"seed {seed}: it ended too soon to be killed so often"
