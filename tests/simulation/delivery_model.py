"""A world in which a day is fetched, proven and delivered, and in which everything can go wrong.

One process, a virtual clock, one seed: the sandbox's three APIs answer through a wire that errs, the store tells each
write, and at every request and write the process can die or another live copy of it can go on instead. A person mends
what a run says is to be mended. Judging is left to ``delivery_checks``.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

import requests

from balance_bridge import daily
from balance_bridge.errors import BalanceBridgeError
from balance_bridge.extract.ascendex import AscendexClient, AscendexSource, Category
from balance_bridge.load.amlyze import Amlyze
from balance_bridge.load.delivery import deliver
from balance_bridge.load.destination import balances_from_table
from balance_bridge.load.elven import Elven
from balance_bridge.load.outcomes import Status
from balance_bridge.load.policy import Policy
from balance_bridge.load.receipts import Receipts
from balance_bridge.load.summary import DeliverySummary
from balance_bridge.sandbox import amlyze, elven, exchange, webhook
from balance_bridge.sandbox.app import Apis
from balance_bridge.sandbox.wire import Journal
from balance_bridge.sandbox.world import DAY_MS, Book, Leg, Record, Snapshot, World, midnight_ms
from balance_bridge.transform.balances import from_parquet
from balance_bridge.transport import Transport
from doubles import FakeClock, MemoryStore
from simulation.delivery_wire import Sent, Wire

DAY = date(2026, 11, 20)
ACCOUNT, ZONE = "main_cash", "Asia/Shanghai"
EXCHANGE_KEY, EXCHANGE_SECRET = "exchange-key-not-real", "exchange-secret-not-real"
ELVEN_KEY, ELVEN_SECRET = "elven-key-not-real", "elven-secret-not-real"
TOKEN = "amlyze-token-not-real"
POINTS = {"elven": ("open", "close", "changes"), "amlyze": ("open", "close", "every 12h", "changes")}
# What the destinations do not know before somebody has made it known there, and what they are not told of.
UNKNOWN, IGNORED = "ODD", "SPAM"
HELD = {
    "BTC": Decimal("1.500000000000000001"),
    "BTMX-S": Decimal("40000.112249285"),
    UNKNOWN: Decimal("7"),
    IGNORED: Decimal("777000"),
    "USDT": Decimal("-20.25"),
}


class Killed(BaseException):
    """The process ends here: nothing may catch it."""


class Rows(MemoryStore):
    """A store that also tells when something was written."""

    def __init__(self) -> None:
        super().__init__()
        self.after_put: Callable[[str], None] = lambda _: None

    def put(self, key: str, data: bytes) -> bool:
        written = super().put(key, data)
        self.after_put(key)
        return written


class Places:
    """A request budget that always has a place, and lets time pass where the server wants it."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock

    @contextmanager
    def place(self) -> Iterator[None]:
        yield

    def fill(self, wait_s: float) -> None:
        self._clock.now += min(wait_s, 900.0)


class OneByOne(Executor):
    """Does what is to be done at the same time one by one, in an order that is drawn."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def map(self, work: Callable[..., Any], *items: Any, **_: Any) -> Iterator[Any]:  # type: ignore[override]
        (of,) = (list(each) for each in items)
        done = {place: work(of[place]) for place in self._chance.sample(range(len(of)), len(of))}
        return iter([done[place] for place in range(len(of))])


def a_book(seed: object, shift: dict[str, Decimal], *, records: int, days: int = 1) -> Book:
    """The history of some days; ``shift`` corrects all balances of an asset by an amount."""
    chance = random.Random(f"{seed}/book")
    held = {asset: amount + shift.get(asset, Decimal(0)) for asset, amount in HELD.items()}
    snapshots, made = [Snapshot(DAY, 10_000, dict(held))], list[Record]()
    for ahead in range(days):
        made += _a_day(chance, held, snapshots[-1], records)
        sn = made[-1].sn if records else snapshots[-1].sn
        snapshots.append(Snapshot(DAY + timedelta(days=ahead + 1), sn, dict(held)))
    return Book("simulated", snapshots, made)


def _a_day(chance: random.Random, held: dict[str, Decimal], opening: Snapshot, records: int) -> Iterator[Record]:
    sn, start = opening.sn, midnight_ms(opening.day)
    for at_ms in sorted(chance.randrange(1, DAY_MS - 60_000) for _ in range(records)):
        sn += chance.randint(1, 9)
        moves = [(asset, Decimal(chance.randint(1, 10**9)).scaleb(-12)) for asset in chance.sample(sorted(held), 2)]
        for asset, delta in moves:
            held[asset] += delta
        legs = tuple(Leg(asset, delta, held[asset]) for asset, delta in moves)
        booked_ms = start + at_ms + chance.choice((0, 900, 30_000))
        yield Record(sn, start + at_ms, "order", "Limit", legs, booked_ms, order_id=f"r{sn}", side="Buy")


class Turns:
    """Two copies of a run, of which one goes on at a time; who does is drawn at each of their steps.

    Args:
        chance: Draws it.
        often: The chance of a change at a step.
        limit_s: Seconds of real time after which it is taken for stuck.
    """

    def __init__(self, chance: random.Random, often: float, limit_s: float = 60.0) -> None:
        self.now = 0
        self._chance = chance
        self._often = often
        self._limit_s = limit_s
        self._alive: list[int] = []
        self._wake: list[threading.Semaphore] = []
        self._failures: list[BaseException] = []

    def run(self, copies: Sequence[Callable[[], None]]) -> None:
        """Run all to their ends; raises the first failure."""
        self._alive = list(range(len(copies)))
        self._wake = [threading.Semaphore(0) for _ in copies]
        threads = [threading.Thread(target=self._live, args=(me, copy), daemon=True) for me, copy in enumerate(copies)]
        for thread in threads:
            thread.start()
        self._wake[0].release()
        for thread in threads:
            thread.join(self._limit_s)
            if thread.is_alive():
                raise RuntimeError("two copies of a run wait for each other")
        if self._failures:
            raise self._failures[0]

    def step(self) -> None:
        """Perhaps let the other one go on."""
        me, others = self.now, [each for each in self._alive if each != self.now]
        if others and self._chance.random() < self._often:
            self.now = others[0]
            self._wake[self.now].release()
            self._wake[me].acquire(timeout=self._limit_s)

    def _live(self, me: int, copy: Callable[[], None]) -> None:
        self._wake[me].acquire(timeout=self._limit_s)
        try:
            copy()
        except BaseException as error:
            self._failures.append(error)
        finally:
            self._alive.remove(me)
            if self._alive:
                self.now = self._alive[0]
                self._wake[self.now].release()


@dataclass
class Ended:
    """How one task of one run ended."""

    task: str
    error: BaseException | None
    summary: DeliverySummary | None


@dataclass
class Simulation:
    """The world of one seed.

    Attributes:
        chance: Draws whatever happens.
        records: Changes of a day.
        days: How many days there are.
        in_flight: Requests at the same time.
        extracted: What each day has to deliver.
        hung: The same from before the last correction, for a copy that hung meanwhile.
        book_before: The history from before it.
        written: Called with the key of each object that was written.
        sending: Called with the rows of each request, before it is made.
        fault: Called with the API's name at each request; the fault that strikes, or an empty text.
        die_at: Per copy the step at which it dies.
        steps: Per copy how many steps it has taken in this run: two for each write and each request.
    """

    seed: object
    records: int = 3
    days: int = 1
    in_flight: int = 1
    written: Callable[[str], None] = lambda _: None
    sending: Callable[[Sent], None] = lambda _: None
    fault: Callable[[str], str] = lambda _: ""
    die_at: dict[int, int] = field(default_factory=dict)
    steps: Counter[int] = field(default_factory=Counter)
    told: list[str] = field(default_factory=list)
    secrets: set[str] = field(default_factory=lambda: {EXCHANGE_SECRET, ELVEN_SECRET, EXCHANGE_KEY, ELVEN_KEY, TOKEN})
    sent: list[Sent] = field(default_factory=list)
    struck: Counter[str] = field(default_factory=Counter)
    turns: Turns | None = None
    version: int = 0
    extracted: dict[date, dict[str, Any]] = field(default_factory=dict)
    hung: dict[date, dict[str, Any]] = field(default_factory=dict)
    book_before: Book | None = None
    run: int = 0
    shared: bool = False

    def __post_init__(self) -> None:
        self.chance = random.Random(f"{self.seed}")
        self.clock = FakeClock(midnight_ms(DAY + timedelta(days=self.days)) / 1000 + 3600)
        self.store = Rows()
        self.store.before_put, self.store.after_put = lambda _: self.step(), self._was_written
        self.book = a_book(self.seed, {}, records=self.records, days=self.days)
        clock, journal = self.clock.clock, Journal()
        self.world = World(0, DAY, {(EXCHANGE_KEY, "cash"): self.book})
        free = exchange.ExchangeOptions(requests=10**9)
        self.exchange = exchange.Exchange({EXCHANGE_KEY: EXCHANGE_SECRET}, self.world, clock, journal, free)
        self.elven = elven.Elven(
            users={ELVEN_KEY: ELVEN_SECRET},
            accounts={"ENTITY": ACCOUNT},
            sources=[elven.Source("SOURCE", "ENTITY", "balances", elven.BALANCE_SOURCE)],
            symbols=["BTC", "BTMX", "USDT"],
            clock=clock,
            journal=journal,
        )
        known = [f"CASH-{asset}" for asset in HELD if asset != UNKNOWN]
        self.amlyze = amlyze.Amlyze(token=TOKEN, clock=clock, journal=journal, accounts=known)
        # Nothing is sent there.
        receiver = webhook.Webhook(secret=TOKEN, clock=clock, journal=journal)
        self.apis = Apis(self.exchange, self.elven, self.amlyze, receiver, journal, clock)

    @property
    def all_days(self) -> list[date]:
        """The days that there are, in order."""
        return [DAY + timedelta(days=ahead) for ahead in range(self.days)]

    def fault_of(self, api: str) -> str:
        """The fault that strikes the next request; an empty text if none does."""
        return self.fault(api)

    def step(self) -> None:
        """An effect is about to happen, or has just happened: the process may end, or another one go on."""
        if self.turns is not None:
            self.turns.step()
        me = self.turns.now if self.turns else 0
        self.steps[me] += 1
        if self.steps[me] == self.die_at.get(me):
            raise Killed

    def _was_written(self, key: str) -> None:
        self.written(key)
        self.step()

    def transport(self) -> Transport:
        session = requests.Session()
        session.trust_env = False
        session.mount("http://", Wire(self, self.apis))
        return Transport(session, self.clock.clock)

    def destination(self, name: str, *, forgiving: bool = False) -> Elven | Amlyze:
        transport, assets = self.transport(), {IGNORED: "ignore"}
        if name == "amlyze":
            return Amlyze(
                transport=transport,
                base_url="http://amlyze.example",
                token=TOKEN,
                requester="treasury",
                account_ext_id="CASH-{asset}",
                assets=assets,
                max_rows=4,
                policy=self._policy(Amlyze.default_policy, forgiving),
            )
        return Elven(
            transport=transport,
            base_url="http://elven.example",
            api_key=ELVEN_KEY,
            api_secret=ELVEN_SECRET,
            entity_account_id="ENTITY",
            source_id="SOURCE",
            timezone=ZONE,
            assets={**assets, "BTMX-S": {"symbol": "BTMX"}, "BTC": {"asset_id": "BTC"}},
            max_rows=4,
            policy=self._policy(Elven.default_policy, forgiving),
            clock=self.clock.clock,
        )

    def _policy(self, default: Policy, forgiving: bool) -> Policy:
        return replace(default, on_unconfirmed="warn" if forgiving else "fail", max_in_flight=self.in_flight)

    def correct(self, shift: dict[str, Decimal]) -> None:
        """The exchange corrects its records; the next run is told to ask anew."""
        self.version += 1
        corrected = a_book(self.seed, shift, records=self.records, days=self.days)
        self.book_before = Book("before", list(self.book.snapshots.values()), list(self.book.records))
        self.book.snapshots, self.book.records = corrected.snapshots, corrected.records
        self.hung, self.extracted = self.extracted, {}

    def a_run(
        self, order: Sequence[str] = ("elven", "amlyze"), day: date = DAY, *, forgiving: bool = False
    ) -> list[Ended]:
        """One run of a day's tasks, of which those that had succeeded are not done again; how each ended.

        Raises:
            Killed: The process died.
        """
        ended: list[Ended] = []
        if day not in self.extracted:
            error = self._tried(partial(self._extract, day), ended, "extract")
            if error is not None:
                return ended
        for name in order:
            self._tried(partial(self._load, name, day, self.extracted[day], forgiving=forgiving), ended, name)
        return ended

    def wake(self, order: Sequence[str], day: date) -> list[Ended]:
        """What a run does that hung before the last correction and goes on now; how each of its tasks ended."""
        ended: list[Ended] = []
        for name in order:
            self._tried(partial(self._load, name, day, self.hung[day], forgiving=False), ended, name)
        return ended

    def _tried(
        self, task: Callable[[], DeliverySummary | None], ended: list[Ended], name: str
    ) -> BalanceBridgeError | None:
        try:
            ended.append(Ended(name, None, task()))
        except BalanceBridgeError as error:
            ended.append(Ended(name, error, getattr(error, "summary", None)))
            self.told += texts_of(error)
            return error
        return None

    def _extract(self, day: date) -> None:
        client = AscendexClient(
            self.transport(),
            "http://exchange.example",
            EXCHANGE_KEY,
            EXCHANGE_SECRET,
            budget=Places(self.clock),  # type: ignore[arg-type]
            clock=self.clock.clock,
            log=self.told.append,
        )
        source = AscendexSource(client, Category.CASH, retention_days=7, clock=self.clock.clock)
        job = daily.Job(source, self.store, ACCOUNT, day, f"run-{self.version}", self.version > 0, self.told.append)
        opening, closing = daily.fetch_snapshot(job, "opening"), daily.fetch_snapshot(job, "closing")
        wanted = [
            daily.Wanted("elven", POINTS["elven"], ZONE, "local_second"),
            daily.Wanted("amlyze", POINTS["amlyze"], "UTC", "instant"),
        ]
        history = daily.fetch_history(job, opening, closing, {})
        self.extracted[day] = daily.reconcile(job, history, tolerance={}, on_break="hold", destinations=wanted)

    def _load(self, name: str, day: date, extracted: dict[str, Any], *, forgiving: bool) -> DeliverySummary:
        return deliver(
            destination=self.destination(name, forgiving=forgiving),
            store=self.store,
            account=ACCOUNT,
            day=day,
            namespace="bb",
            balances=balances_from_table(from_parquet(self.store.read(extracted["balances"][name]))),
            run_id=f"run-{self.version}",
            clock=self.clock.clock,
            log=self.told.append,
            executor=lambda _: OneByOne(self.chance),
        )

    def mend(self) -> None:
        """A person makes known to the destinations what they did not know."""
        self.elven.symbols |= {UNKNOWN}
        self.amlyze.accounts = frozenset(f"CASH-{asset}" for asset in HELD)

    def resolve(self, numbers: dict[str, tuple[date, str]]) -> None:
        """A person asks Amlyze about numbers (with their days and batches) and writes down what it said."""
        taken = {kept.number for kept in self.amlyze.registered}
        receipts = Receipts(self.store, ACCOUNT, "amlyze")
        for number, (day, batch) in sorted(numbers.items()):
            status = Status.ACCEPTED if number in taken else Status.REJECTED
            receipts.resolve(day, batch, [number], status, by="kim", reason="asked", now_ms=self.clock.clock.now_ms())


def texts_of(error: BaseException) -> list[str]:
    """An error's text and those of what it came from."""
    found, each = [], error
    while each is not None and len(found) < 10:
        found.append(f"{type(each).__name__}: {each}")
        each = each.__cause__  # type: ignore[assignment]
    return found
