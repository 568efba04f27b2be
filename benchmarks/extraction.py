"""What extraction costs: requests, time, workers and memory, each as a ratio to what is possible.

    python benchmarks/extraction.py [--real]

Requests, utilisation and worker seconds are counted on a clock of its own: the real client, source, request budget and
stages against the sandbox in one process, where only the clock and the network are stand-ins. An answer takes 0.05 to
1 s there; a task that gives up its worker is woken two seconds early and runs again after two to three. Computing takes
no time on that clock. Memory is that of real processes. With --real the utilisation is also measured with processes,
sockets and the sandbox on loopback, over three windows of 60 s.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

PAGE = 500
SEED = 11
DAY = date(2026, 11, 20)
OPEN_MS = int(datetime(2026, 11, 20, tzinfo=UTC).timestamp() * 1000)
DAY_MS = 86_400_000
FIRST_SN = 11_000_000_000
ASSETS = 200
PAGES = (10, 400)
WINDOWS = 25
REAL_WINDOWS = 3
REAL_WORKERS = 3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", action="store_true", help="also three windows with real processes (3 min)")
    parser.add_argument("--pages", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.pages is not None:
        print(json.dumps(peak_mib(chosen.pages)))
        return 0
    # Memory first: a process inherits the peak of the one that starts it, and this one is still small.
    for rows in (memory(), calls(), one_long_day(), real() if chosen.real else iter(())):
        for figure, value, meaning in rows:
            print(f"{figure:42} {value:>18}  {meaning}", flush=True)
    return 0


Row = tuple[str, str, str]


def calls() -> Iterator[Row]:
    from balance_bridge import intraday
    from balance_bridge.sandbox.world import midnight_ms
    from simulation import lab

    chance = random.Random(SEED)
    counts = [chance.randint(300, 2600) for _ in range(7)]
    book = lab.a_book(chance, counts)
    with quick(book) as made:
        asked_at_ms = [midnight_ms(lab.day_after(number + 1)) + 3_600_000 for number in range(7)]
        for number, at_ms in enumerate(asked_at_ms):
            made.clock.now = max(made.clock.now, at_ms / 1000) if number else at_ms / 1000
            made.extract(number)
        least = 8 + lab.least_pages_day_by_day(book, asked_at_ms, PAGE)
        yield (
            "calls / least possible, a week",
            ratio(len(made.wire.sent), least),
            "7 days as they end: 8 snapshots, and pages of which the next day takes what is behind its own",
        )
    book = lab.a_book(random.Random(SEED), [100_000])
    with quick(book) as made:
        made.extract()
        least = 2 + lab.least_pages(book, 1, PAGE)
        yield (
            "calls / least possible, one long day",
            ratio(len(made.wire.sent), least),
            "100,000 records: 2 snapshots and 200 full pages",
        )
    book = lab.a_book(random.Random(SEED), [2_000])
    with quick(book) as made:
        runs, had = 0, 0
        least = 2
        for number in range(1, 96):
            made.clock.now = max(made.clock.now if runs else 0.0, midnight_ms(lab.DAY) / 1000 + 900 * number)
            booked = sum(record.visible_ms <= made.clock.now * 1000 for record in book.records)
            least += max(1, -(-(booked - had) // PAGE))
            intraday.run(made.job(run_id=intraday.asked_by(lab.DAY)), [])
            runs, had = runs + 1, booked
        made.clock.now = midnight_ms(lab.day_after(1)) / 1000 + 600
        made.extract()
        least += -(-(len(book.records) - had) // PAGE)
        yield (
            "calls / least possible, every 15 min",
            ratio(len(made.wire.sent), least),
            f"{runs} runs during a day, each of which must ask once at least, and its daily run",
        )


def one_long_day() -> Iterator[Row]:
    from balance_bridge import daily
    from simulation import lab

    # The last request is the first of its window, so that the windows before it are whole.
    records = (WINDOWS * lab.LIMIT - 1) * PAGE
    book = lab.a_book(random.Random(SEED), [records], orders=1)
    for gives_up in (False, True):
        chance, waits = random.Random(SEED), lab.Deferred()
        with quick(book) as made:
            patience_s = lab.MAX_INLINE_WAIT_S if gives_up else float("inf")
            begin = made.clock.now
            for which in ("opening", "closing"):
                lab.deferring(
                    lambda which=which, made=made, patience_s=patience_s: daily.fetch_snapshot(
                        made.job(patience_s=patience_s), which
                    ),
                    made.clock,
                    chance,
                    waits,
                )
            lab.deferring(
                lambda made=made, patience_s=patience_s: daily.fetch_history(made.job(patience_s=patience_s), {}),
                made.clock,
                chance,
                waits,
            )
            sent = made.wire.sent
            refused = len(made.journal.refusals())
            took_s = sent[-1].start - sent[0].start
            held_s = made.clock.now - begin - waits.away_s
        how = "deferring" if gives_up else "not deferring"
        used = (len(sent) - 1) // lab.LIMIT * lab.WINDOW_S / took_s
        yield (
            f"budget used, {how}",
            f"{used:.1%}",
            f"{len(sent)} requests, the least time that so many take over the time they took; {refused} refused",
        )
        yield (
            f"worker seconds per 1000 records, {how}",
            f"{held_s / records * 1000:.2f}",
            f"a worker is held for {held_s:.0f} s of {took_s:.0f} s; it is given up {waits.times} times",
        )


def memory() -> Iterator[Row]:
    peaks = {pages: run_apart(pages) for pages in (0, *PAGES)}
    base, few, many = (peaks[pages] for pages in (0, *PAGES))
    yield (
        f"peak memory, {PAGES[1]} pages / {PAGES[0]} pages",
        f"{many:.0f} / {few:.0f} = {many / few:.2f}",
        "MiB of a process that extracts and proves a day, which it holds as a whole",
    )
    yield (
        "the same above an empty day's",
        f"{many - base:.0f} / {few - base:.0f}",
        f"MiB more than a day without a record takes ({base:.0f} MiB: the interpreter and Arrow)",
    )


def real() -> Iterator[Row]:
    """Real processes that ask as fast as their shared budget lets them."""
    from balance_bridge.sandbox.fixtures import CREDENTIALS
    from balance_bridge.sandbox.server import Sandbox

    (key, secret) = next(iter(CREDENTIALS.exchange.items()))
    with tempfile.TemporaryDirectory() as folder, Sandbox() as sandbox:
        until = time.monotonic() + REAL_WINDOWS * 60 + 2
        arguments = (sandbox.url, key, secret, str(Path(folder) / "budget.db"), until)
        spawn = multiprocessing.get_context("spawn")
        workers = [spawn.Process(target=ask, args=arguments) for _ in range(REAL_WORKERS)]
        try:
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join(REAL_WINDOWS * 60 + 90)
        finally:
            for worker in workers:
                if worker.is_alive():
                    worker.kill()
        arrived = sorted(each.at_s for each in sandbox.journal.requests if each.key == key and each.status != 429)
        refused = len(sandbox.journal.refusals(429))
    whole = (len(arrived) - 1) // 8 * 8
    took_s = arrived[whole] - arrived[0]
    yield (
        "budget used, real processes",
        f"{whole / 8 * 60 / took_s:.1%}",
        f"{REAL_WORKERS} processes, {len(arrived)} requests over {took_s:.0f} s of loopback; {refused} refused",
    )


def ask(url: str, key: str, secret: str, budget_file: str, until: float) -> None:
    from balance_bridge.errors import BudgetExhausted
    from balance_bridge.extract.ascendex import AscendexClient
    from balance_bridge.extract.budget import Budget, budget_key
    from balance_bridge.transport import Credentials, Transport

    while (left_s := until - time.monotonic()) > 0:
        budget = Budget(f"sqlite:///{budget_file}", budget_key(key), patience_s=left_s)
        client = AscendexClient(Transport(), Credentials(url, key, secret), budget=budget)
        try:
            client.get("data/v1/cash/balance/snapshot", {"date": datetime.now(UTC).date().isoformat()})
        except BudgetExhausted:
            return


@contextmanager
def quick(book):
    """The simulation with full pages and answers within a second."""
    from simulation import lab

    with lab.laboratory(book, seed=SEED, page_limit=PAGE) as made:
        made.wire.slowest_s = 1.0
        yield made


def ratio(calls: int, least: int) -> str:
    return f"{calls} / {least} = {calls / least:.3f}"


def run_apart(pages: int) -> float:
    command = [sys.executable, __file__, "--pages", str(pages)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    return float(json.loads(done.stdout.splitlines()[-1]))


def peak_mib(pages: int) -> float:
    """Extract and prove a day of so many pages; the answers are made as they are asked for, so nothing else is held."""
    from balance_bridge import daily
    from balance_bridge.extract.ascendex import AscendexAccount, Category
    from balance_bridge.store import Store
    from balance_bridge.transport import Response

    last = pages * PAGE

    def answered(document: dict) -> Response:
        return Response("GET bench", 200, {}, json.dumps(document).encode(), time.time(), time.time())

    class Made(AscendexAccount):
        """Records numbered in a row, each an asset's next billionth: any page follows from its number alone."""

        def now(self) -> float:
            return OPEN_MS / 1000 + 2 * 86_400

        def fetch_snapshot(self, day: date) -> Response:
            records = last if day > DAY else 0
            held = {asset(n): 1000 * 10**9 + (records - n + ASSETS - 1) // ASSETS for n in range(ASSETS)}
            meta = {"ac": "cash", "accountId": "bench", "sn": FIRST_SN + records}
            meta["snapshotTime"] = OPEN_MS + (DAY_MS if day > DAY else 0)
            rows = [{"asset": name, "totalBalance": text(units)} for name, units in held.items()]
            return answered({"meta": meta, "snapshot": rows})

        def fetch_changes(self, from_sn: int, day: date, closing_sn: int | None) -> Response:  # noqa: ARG002
            first = from_sn - FIRST_SN - 1
            found = [record(n) for n in reversed(range(first, min(first + PAGE, last)))]
            return answered({"meta": {"ac": "cash", "accountId": "bench"}, "balance": found})

    def record(n: int) -> dict:
        leg = {"asset": asset(n), "curBalance": text(1000 * 10**9 + n // ASSETS + 1), "deltaQty": "0.000000001"}
        at_ms = OPEN_MS + 1 + n * (DAY_MS - 2) // last
        return {"data": [leg], "eventType": "Reward", "sn": FIRST_SN + 1 + n, "transactTime": at_ms}

    with tempfile.TemporaryDirectory() as folder:
        source = Made(None, Category.CASH, retention_days=7)  # type: ignore[arg-type]  # nothing is sent
        job = daily.Job(source, Store(Path(folder)), "bench", DAY, "bench")
        found = daily.fetch_history(job, {})
        if found["records"] != last or found["pages"] < pages:
            raise SystemExit(f"a day of {last} records came out as {found}")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def asset(n: int) -> str:
    return f"A{n % ASSETS:03d}"


def text(units: int) -> str:
    """Exact decimal text of an amount in 10**-9."""
    whole, part = divmod(units, 10**9)
    return f"{whole}.{part:09d}"


if __name__ == "__main__":
    sys.exit(main())
