"""An extraction from end to end on a clock of its own: real client, source, budget and stages, against the sandbox.

Only two things are stand-ins: the clock, which stands still unless something takes time, and the transport, whose
answers take a drawn time and reach the exchange at a drawn moment within it.
"""

from __future__ import annotations

import random
import tempfile
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock
from urllib.parse import urlencode, urlsplit

from balance_bridge import daily
from balance_bridge.errors import BudgetExhausted
from balance_bridge.extract import ascendex
from balance_bridge.extract.ascendex import AscendexAccount, AscendexClient, Category
from balance_bridge.extract.budget import Budget
from balance_bridge.sandbox.exchange import Exchange, ExchangeOptions
from balance_bridge.sandbox.wire import Call, Journal
from balance_bridge.sandbox.world import DAY_MS, Book, Leg, Record, Snapshot, World, midnight_ms
from balance_bridge.transform import ledger
from balance_bridge.transport import Credentials, Response
from doubles import FakeClock, MemoryStore

DAY = date(2026, 11, 20)
KEY, SECRET, ACCOUNT = "key", "secret", "main_cash"
LIMIT, WINDOW_S = 8, 60.0
# As the operators have them, which cannot be imported without Airflow.
MAX_INLINE_WAIT_S, LEAD_S = 10.0, 2.0
NEVER_MS = 2**62
WITHIN_A_MINUTE_MS = (0, 0, 30_000, 59_000, 59_000)

Result = TypeVar("Result")


def day_after(number: int) -> date:
    return DAY + timedelta(days=number)


class Rows(Book):
    """A book written by hand that finds a sequence number quickly, and shows no more than one answer can hold."""

    def __init__(self, snapshots: Sequence[Snapshot], records: Sequence[Record]) -> None:
        super().__init__("simulated", snapshots, records)
        self._sns = [record.sn for record in self.records]

    def visible(self, sn: int, now_ms: int) -> list[Record]:
        first = bisect_left(self._sns, sn)
        return [record for record in self.records[first : first + 500] if record.visible_ms <= now_ms]


def a_book(
    chance: random.Random,
    counts: Sequence[int],
    *,
    slack: bool = False,
    lags: Sequence[int] = WITHIN_A_MINUTE_MS,
    orders: float = 0.6,
) -> Rows:
    """A history of consecutive days from DAY on.

    Args:
        chance: Draws it.
        counts: Records of each day. All changes are positive, so that no record can be missing unseen.
        slack: Whether a snapshot's number may lie above its last record's.
        orders: The share of records by orders, whose sequence numbers are their own: only they let a page end without
            being looked at once more.
        lags: Milliseconds by which a record may be booked after it happened, drawn from these bounds.
    """
    held = {"BTC": Decimal("1.5"), "USDT": Decimal("-20.000000000000000001"), "BTMX-S": Decimal("40000.112249285")}
    sn, snapshots, records = 10_000, [], []
    for number, count in enumerate([*counts, 0]):
        opening_ms = midnight_ms(day_after(number))
        snapshots.append(Snapshot(day_after(number), sn, dict(held)))
        booked = sorted(chance.randrange(1, DAY_MS) for _ in range(count))
        for booked_ms in booked:
            sn += chance.randint(1, 9)
            at_ms = max(1, booked_ms - chance.randint((lag := chance.choice(lags)) // 2, lag))
            order = chance.random() < orders
            assets = chance.sample(sorted(held), 2 if order else 1)
            moved = [(asset, Decimal(chance.randint(1, 10**9)).scaleb(-12)) for asset in assets]
            for asset, delta in moved:
                held[asset] += delta
            legs = tuple(Leg(asset, delta, held[asset], fee=False) for asset, delta in moved)
            kind, event = ("order", "Limit") if order else ("balance", "Deposit")
            records.append(
                Record(
                    sn,
                    opening_ms + at_ms,
                    "order" if order else "balance",
                    event,
                    legs,
                    opening_ms + booked_ms,
                    order_id=f"r{sn}" if kind == "order" else "",
                    side="Buy" if order else "",
                )
            )
        sn += chance.randint(0, 3) if slack else 0
    return Rows(snapshots, records)


def of_the_book(book: Book, number: int) -> list[tuple[int, str, Decimal, Decimal]]:
    """A day's (sn, asset, change, balance) as the book has them."""
    opening, closing = book.snapshots[day_after(number)], book.snapshots[day_after(number + 1)]
    rows = [(record.sn, leg) for record in book.between(opening, closing) for leg in record.legs]
    return sorted((sn, leg.asset, leg.delta, leg.balance) for sn, leg in rows)


@dataclass(frozen=True)
class Sent:
    """One request, with the instants of its start, its arrival and its end."""

    start: float
    arrival: float
    end: float
    request: str
    status: int


@dataclass
class Wire:
    """The transport's stand-in.

    Attributes:
        before: Called with each request, after its place was taken and before it goes out.
        alter: Called with each request and its document; returns the one that is answered.
        status: Called with each request; a status with which to answer without asking the exchange, or 0.
    """

    exchange: Exchange
    clock: FakeClock
    chance: random.Random
    fastest_s: float = 0.05
    slowest_s: float = 2.0
    sent: list[Sent] = field(default_factory=list)
    before: Callable[[str], None] = lambda _: None
    alter: Callable[[str, Any], Any] = lambda _, document: document
    status: Callable[[str], int] = lambda _: 0

    def send(
        self, method: str, url: str, *, headers: Mapping[str, str], params: Mapping[str, str], **_: Any
    ) -> Response:
        path, query = urlsplit(url).path, urlencode(params)
        request = f"{path.rsplit('/', 1)[1]}?{query}"
        self.before(request)
        start = self.clock.now
        took = self.chance.uniform(self.fastest_s, self.slowest_s)
        out = took * self.chance.choice((0.0, 1.0, self.chance.random()))
        self.clock.now += out
        status, arrival = self.status(request), self.clock.now
        if status:
            body = b'{"code": 200002, "reason": "TOO_MANY_ATTEMPTS", "message": "slow down"}'
        else:
            reply = self.exchange.answer(Call(method, path, query, headers))
            status = reply.status
            body = reply.body()
            if status == 200:
                body = type(reply)(200, self.alter(request, reply.document)).body()
        self.clock.now += took - out
        self.sent.append(Sent(start, arrival, self.clock.now, request, status))
        return Response(f"GET {request}", status, {}, body, start, self.clock.now)


class TellingStore(MemoryStore):
    """A store that also tells when something was written."""

    def __init__(self) -> None:
        super().__init__()
        self.after_put: Callable[[str], None] = lambda _: None

    def put(self, key: str, data: bytes) -> bool:
        written = super().put(key, data)
        self.after_put(key)
        return written


class Client(AscendexClient):
    """The real client, that also tells before it asks, its place not yet taken and nothing signed."""

    before_get: Callable[[str], None]

    def get(self, api_path: str, params: Mapping[str, str]) -> Response:
        self.before_get(api_path)
        return super().get(api_path, params)


class Lab:
    """An exchange, an account at it and a worker that runs the account's stages.

    Args:
        book: What happened.
        folder: Where the budget's file lies.
        seed: Draws how long requests take, and when they arrive.
        page_limit: Records of a full page.
        options: The exchange's options.
    """

    def __init__(
        self, book: Book, folder: Path, *, seed: int = 0, page_limit: int = 5, options: ExchangeOptions | None = None
    ) -> None:
        self.book = book
        self.page_limit = page_limit
        self.clock = FakeClock(midnight_ms(max(book.snapshots)) / 1000 + 3600)
        self.journal = Journal()
        world = World(0, DAY, {(KEY, "cash"): book})
        exchange = Exchange({KEY: SECRET}, world, self.clock.clock, self.journal, options)
        self.wire = Wire(exchange, self.clock, random.Random(seed))
        self.store = TellingStore()
        self.told: list[str] = []
        self.budget_file = folder / "budget.db"
        self.before_get: Callable[[str], None] = lambda _: None

    def budget(self, patience_s: float = float("inf")) -> Budget:
        return Budget(f"sqlite:///{self.budget_file}", KEY, patience_s=patience_s, clock=self.clock.clock)

    def source(self, patience_s: float = float("inf")) -> AscendexAccount:
        client = Client(
            self.wire,  # type: ignore[arg-type]
            Credentials("https://exchange.example", KEY, SECRET),
            budget=self.budget(patience_s),
            clock=self.clock.clock,
            log=self.told.append,
        )
        client.before_get = lambda api_path: self.before_get(api_path)
        source = AscendexAccount(client, Category.CASH, retention_days=7, clock=self.clock.clock)
        source.page_limit = self.page_limit
        return source

    def job(
        self, number: int = 0, *, run_id: str = "run-1", refetch: bool = False, patience_s: float = float("inf")
    ) -> daily.Job:
        """A day's job as a task that just began has it."""
        day = day_after(number)
        return daily.Job(self.source(patience_s), self.store, ACCOUNT, day, run_id, refetch, self.told.append)

    def extract(self, number: int = 0, **options: Any) -> dict[str, Any]:
        """The three tasks that ask the exchange, each with a source of its own."""
        daily.fetch_snapshot(self.job(number, **options), "opening")
        daily.fetch_snapshot(self.job(number, **options), "closing")
        return daily.fetch_history(self.job(number, **options), {})

    def legs(self, extracted: Mapping[str, Any]) -> list[tuple[int, str, Decimal, Decimal]]:
        """A day's (sn, asset, change, balance) as its ledger has them."""
        manifest = self.store.read_json(extracted["manifest"])
        frame = ledger.from_parquet(self.store.read(manifest["ledger"]))
        columns = (frame[name] for name in ("sn", "asset", "delta", "balance"))
        return [(int(sn), str(asset), delta, balance) for sn, asset, delta, balance in zip(*columns, strict=True)]

    def page(self, from_sn: int, limit: int | None = None) -> Any:
        """The page from a number on, as the exchange has it by now."""
        params = {"sn": str(from_sn), "limit": str(limit or self.page_limit)}
        return self.wire.exchange._history(self.book, params, int(self.clock.now * 1000))

    def asked(self) -> list[str]:
        return [sent.request for sent in self.wire.sent]


@contextmanager
def laboratory(book: Book, *, page_limit: int = 5, **options: Any) -> Iterator[Lab]:
    """A lab with a budget file of its own, and pages of few records."""
    memory = Path("/dev/shm")  # a budget that outlives the machine is of no use here
    with (
        tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder,
        mock.patch.object(ascendex, "PAGE_LIMIT", page_limit),
    ):
        yield Lab(book, Path(folder), page_limit=page_limit, **options)


@dataclass
class Deferred:
    """What a task's waits without a worker came to.

    Attributes:
        times: How often it gave up its worker.
        away_s: Seconds for which it had none.
    """

    times: int = 0
    away_s: float = 0.0


def deferring(
    step: Callable[[], Result], clock: FakeClock, chance: random.Random, waits: Deferred, *, most: int = 10_000
) -> Result:
    """Run a task that gives up its worker, and is woken by the triggerer, as the operators do.

    Waking is asked for two seconds early, and takes two to three seconds until the task runs again.
    """
    refused = 0
    for _ in range(most):
        try:
            return step()
        except BudgetExhausted as error:
            if error.refusal is not None and refused:
                raise error.refusal from error
            refused = int(error.refusal is not None)
            away_s = max(error.wait_s - LEAD_S, 1.0) + chance.uniform(2.0, 3.0)
            clock.now += away_s
            waits.times += 1
            waits.away_s += away_s
    raise AssertionError("it waits for ever")


def least_pages(book: Book, days: int, limit: int) -> int:
    """The least number of pages for consecutive days that are all over.

    A page holds at most ``limit`` consecutive records from a number on, however the days divide them: what it holds
    behind its day is the beginning of the next. Where a full page ends with a balance record, others of its number may
    have been cut off, so the next page begins with it once more; not where it is the last that is wanted.
    """
    return least_pages_day_by_day(book, [NEVER_MS] * days, limit)


def least_pages_day_by_day(book: Book, asked_at_ms: Sequence[int], limit: int) -> int:
    """The same where each day is asked for at an instant of its own, soon after it has ended.

    Then a page holds at most what is booked by that instant, and the next day's begin behind it.
    """
    records = [record for record in book.records if record.sn > book.snapshots[DAY].sn]
    closings = {snapshot.sn for snapshot in book.snapshots.values()}
    pages, had, was_full = 0, 0, False
    for number, at_ms in enumerate(asked_at_ms):
        wanted = sum(record.sn <= book.snapshots[day_after(number + 1)].sn for record in records)
        shown = sum(record.visible_ms <= at_ms for record in records)
        while had < min(wanted, shown):
            again = was_full and records[had - 1].kind == "balance" and records[had - 1].sn not in closings
            start = had - again
            was_full, had = start + limit <= shown, min(start + limit, shown)
            pages += 1
    return pages


def free_times(ended: Sequence[float], held_since: Sequence[float]) -> list[float]:
    """When places come free: a window and the margin after an end; for a dead process's, after its lease besides."""
    return sorted([end + WINDOW_S + 0.05 for end in ended] + [start + 120 + WINDOW_S + 0.05 for start in held_since])


def schedule(durations: Sequence[float], begin: float, free: Sequence[float]) -> list[float]:
    """When requests start that follow each other without a pause, as soon as one of the eight places is free.

    Args:
        durations: How long each takes.
        begin: When the first could start.
        free: When the places come free that are taken at the beginning.
    """
    taken, now, starts = sorted(free), begin, []
    for duration in durations:
        taken = [moment for moment in taken if moment > now]
        if len(taken) >= LIMIT:
            now = taken[len(taken) - LIMIT]
        starts.append(now)
        now += duration
        taken = sorted([*taken, now + WINDOW_S + 0.05])
    return starts
