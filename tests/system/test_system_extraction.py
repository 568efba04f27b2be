"""Extraction by several real processes at once, against the sandbox over real sockets, some of them killed."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from balance_bridge.extract import raw
from balance_bridge.sandbox.exchange import ExchangeOptions
from balance_bridge.sandbox.server import CREDENTIALS, Sandbox
from balance_bridge.store import Store

pytestmark = [pytest.mark.system, pytest.mark.slow]

WORKER = Path(__file__).with_name("extract_worker.py")
CASH, MARGIN = sorted(CREDENTIALS.exchange)
KILLS = int(os.environ.get("KILLS", "5"))
# How often the request budget is used up.
TURNS = 2 if os.environ.get("THOROUGH") else 1


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
        "limits": {},
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


# A record as told by the books and by a page: its list, its time, and (asset, delta, balance) of what moved.
Told = tuple[str, int, list[tuple[str, Decimal, Decimal]]]


def due(sandbox: Sandbox, key: str, category: str, day: date) -> dict[int, Told]:
    """What the sandbox's own books say of the day, by sequence number."""
    book = sandbox.exchange.world.book(key, category, datetime.now(UTC).date())
    between = book.between(book.snapshots[day], book.snapshots[day + timedelta(days=1)])
    return {
        each.sn: (each.kind, each.at_ms, sorted((leg.asset, leg.delta, leg.balance) for leg in each.legs))
        for each in between
    }


def fetched(store: Store, found: dict[str, Any]) -> dict[int, Told]:
    """What the pages of a fetch say; where two pages overlap, they say the same."""
    told: dict[int, Told] = {}
    for key in raw.newest_pages(store, found["history"]).values():
        document = json.loads(raw.read(store, key).body)
        for kind in ("order", "balance"):
            for item in document.get(kind) or []:
                legs = sorted(
                    (leg["asset"], Decimal(leg["deltaQty"]), Decimal(leg["curBalance"])) for leg in item["data"]
                )
                record = (kind, item["transactTime"], legs)
                assert told.setdefault(item["sn"], record) == record
    return told


# A minute and more: the exchange's real window of 60 s.
def test_four_processes_share_two_keys_without_a_refusal_and_use_what_they_are_granted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    day = yesterday()
    with Sandbox() as sandbox:
        # So many requests for each key that its budget is used up, however much the copies share.
        limit = len(due(sandbox, CASH, "cash", day)) // (2 * TURNS)
        second = len(due(sandbox, CASH, "margin", day)) // (3 * TURNS)
        other = len(due(sandbox, MARGIN, "margin", day)) // (8 * TURNS)
        orders = [
            order(tmp_path, "cash", sandbox, CASH, "cash", [day], page_limit=limit),
            order(tmp_path, "cash", sandbox, CASH, "cash", [day], page_limit=limit),
            order(tmp_path, "second", sandbox, CASH, "margin", [day], page_limit=second),
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
            arrivals = [each.at_s for each in sandbox.journal.requests if each.key == key]
            # The last window is only used as far as there was something left to ask for.
            windows = (arrivals[-1] - arrivals[0]) // 60
            granted = [at for at in arrivals if at - arrivals[0] < windows * 60]
            used[key] = len(granted) / (8 * windows)
            assert len(arrivals) > 8 * TURNS
        with capsys.disabled():
            shown = ", ".join(f"{key} {share:.0%}" for key, share in used.items())
            print(f"\n4 processes, 2 keys, {took_s:.0f} s, no 429; of the budget was used: {shown}")
        assert took_s > 60 * TURNS
        assert min(used.values()) >= 0.9
        assert found[0]["history"] == found[1]["history"]
        store = Store(tmp_path / "store")
        for name, key, category, of in (
            ("cash", CASH, "cash", found[0]),
            ("second", CASH, "margin", found[2]),
            ("margin", MARGIN, "margin", found[3]),
        ):
            books, pages = due(sandbox, key, category, day), fetched(store, of)
            # The last page may hold the first records of the next day as well.
            assert {sn: pages.get(sn) for sn in books} == books, name
            assert of["records"] == len(books)


def content(store: Store) -> dict[str, Any]:
    """The store file by file, but for times, run ids and compression."""
    return {
        key: raw.read(store, key).body if key.endswith(raw.SUFFIX) else store.read(key) for key in store.list("raw")
    }


# Half a minute: processes are started and killed.
def test_killed_again_and_again_the_store_is_that_of_an_undisturbed_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = random.SystemRandom().randrange(10**6)
    chance = random.Random(seed)
    days = [yesterday() - timedelta(days=back) for back in (4, 3, 2, 1, 0)]
    # A short window, so that there is time for many requests. The place of a killed process stays taken for longer than
    # any request is under way, however busy this machine is.
    limits = {"window_s": 0.5, "lease_s": 3}
    # One budget for all: it is one key that they ask with.
    budget = f"sqlite:///{tmp_path}/budget.db"
    with Sandbox(options=ExchangeOptions(window_s=0.5)) as sandbox:
        folders = [tmp_path / name for name in ("clean", "killed")]
        for folder in folders:
            folder.mkdir()
        clean, killed = (
            order(folder, "cash", sandbox, CASH, "cash", days, page_limit=6, limits=limits, budget=budget)
            for folder in folders
        )
        with worker(clean) as process:
            ended_well(process, 120)
        asked = len(sandbox.journal.requests)
        kills = 0
        while kills < KILLS:
            before = len(sandbox.journal.requests)
            with worker(killed) as process:
                # Counted from its first request, so that each process is killed at its work, however long it takes to
                # start: while it asks, writes, or waits for its place.
                end = time.monotonic() + 60
                while len(sandbox.journal.requests) == before and process.poll() is None:
                    assert time.monotonic() < end, f"seed {seed}: a process asks for nothing"
                    time.sleep(0.001)
                try:
                    process.wait(chance.random() * 0.3)
                except subprocess.TimeoutExpired:
                    process.kill()
                    kills += 1
                    continue
                assert process.returncode == 0
                break
        with worker(killed) as process:
            ended_well(process, 120)
        with capsys.disabled():
            again = len(sandbox.journal.requests) - asked
            print(f"\nseed {seed}: killed {kills} times; {asked} requests undisturbed, {again} with the kills")
        assert content(Store(folders[1] / "store")) == content(Store(folders[0] / "store")), f"seed {seed}"
        assert again <= asked + kills, f"seed {seed}: at most one request is made again for each kill"
        assert sandbox.journal.refusals(429) == [], f"seed {seed}"
        assert kills == KILLS, f"seed {seed}: it ended too soon to be killed so often"
