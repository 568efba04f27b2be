"""A world in which a day is delivered, and in which everything can go wrong.

One process, a virtual clock, one seed: the sandbox's APIs respond through a wire that errs, the store reports each
write, and at every request, every write and every look at the log the process can die, freeze, or another live copy of
it can go on instead. A person does what a red run says is to be done. Judging is left to ``delivery_checks``.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from functools import partial

import requests

import delivery_kit as kit
from balance_bridge import daily
from balance_bridge.clock import Clock
from balance_bridge.errors import BalanceBridgeError, StoreUnwritable
from balance_bridge.extract.ascendex import AscendexAccount, AscendexClient, Category
from balance_bridge.load.amlyze import Amlyze
from balance_bridge.load.destination import Balance, Destination, balances_from_table
from balance_bridge.load.documents import Resolution, Said, Word
from balance_bridge.load.elven import Elven
from balance_bridge.load.log import DayLog, time_text
from balance_bridge.load.place import Places
from balance_bridge.load.replies import Reply
from balance_bridge.load.summary import DeliverySummary
from balance_bridge.points import BalanceRequest
from balance_bridge.sandbox import amlyze, elven, exchange
from balance_bridge.sandbox.books import Asked, Expected, expected
from balance_bridge.sandbox.wire import Journal
from balance_bridge.sandbox.world import DAY_MS, Book, Leg, Record, Snapshot, World, midnight_ms
from balance_bridge.transform.balances import from_parquet
from balance_bridge.transport import Credentials, Transport
from delivery_kit import ACCOUNT, DAY, TOKEN
from doubles import FakeClock, Killed, MemoryStore
from simulation.delivery_settings import Settings
from simulation.delivery_turns import Turns
from simulation.delivery_wire import Sent, Wire

EXCHANGE_KEY, EXCHANGE_SECRET = "exchange-key-not-real", "exchange-secret-not-real"
ELVEN_KEY, ELVEN_SECRET = kit.KEY, kit.SECRET
DESTINATIONS = ("elven", "amlyze")
POINTS = ("open", "close", "every 12h", "changes")
# What the destinations do not know before somebody has made it known there, and what is not sent to them.
UNKNOWN, IGNORED = "ODD", "SPAM"
HELD = {
    "BTC": Decimal("1.500000000000000001"),
    "BTMX-S": Decimal("40000.112249285"),
    UNKNOWN: Decimal("7"),
    IGNORED: Decimal("777000"),
    "USDT": Decimal("-20.25"),
}


class Rows(MemoryStore):
    """A store of which the world sees each use of a delivery's log."""

    def __init__(self, world: Simulation) -> None:
        super().__init__()
        self._world = world

    def put(self, key: str, data: bytes) -> bool:
        if not key.startswith("receipts/"):
            return super().put(key, data)
        self._world.step(writing=True)
        won = super().put(key, data)
        if won:
            self._world.written(key)
        self._world.step()
        return won

    def exists(self, key: str) -> bool:
        if not key.startswith("receipts/"):
            return super().exists(key)
        self._world.step(writing=True)
        found = super().exists(key)
        self._world.looked(key, found)
        self._world.step()
        return found

    def _walk(self, prefix: str) -> Iterator[str]:
        keys = list(super()._walk(prefix))
        if not prefix.startswith("receipts/") or self._world.turns is None:
            return iter(keys)
        # A listing is not one instant: what is written meanwhile may show, or not.
        self._world.step()
        half = self._world.chance.choice(keys) if keys else ""
        return iter([key for key in keys if key < half] + [key for key in super()._walk(prefix) if key >= half])


class Budget:
    """A request budget that always has a slot, and lets time pass where the server wants it."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock

    @contextmanager
    def slot(self) -> Iterator[None]:
        yield

    def block_for(self, wait_s: float) -> None:
        self._clock.now += min(wait_s, 900.0)


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


@dataclass
class Ended:
    """How one task of one run ended; the error of one that was killed is ``Killed``."""

    task: str
    day: date
    error: BaseException | None
    summary: DeliverySummary | None
    by: Run


@dataclass(frozen=True)
class Run:
    """What a run is started with.

    Attributes:
        run_id: Airflow's; a retry has that of its run.
        redeliver: Whether to send again what was delivered with other settings.
        hung: Whether it hung before the last correction and goes on now.
        address: What the hosts of the destinations end in, where a run has read that before it was changed.
    """

    run_id: str
    redeliver: bool = False
    hung: bool = False
    address: str = ""


@dataclass
class Simulation:
    """The world of one seed.

    Attributes:
        chance: Draws whatever happens.
        records: Changes of a day.
        days: How many days there are.
        fetched: Whether days come through the whole pipeline, not from the books.
        due: What each day has to deliver: the store's key of its balances, by destination.
        hung: The same from before the last correction, for a copy that hung meanwhile; ``hung_id`` is its run's id.
        book_before: The history from before it.
        settings: The accounts file as it is now; ``settings_before`` has what it was.
        written: Called with the key of each object of the log that was written.
        looked: Called with each key of the log that was looked for, and whether it was there.
        sending: Called with each request to a destination, before it is made.
        fault: Called with the API's name at each request; the fault that strikes, or an empty text.
        die_at: Per copy the step at which it dies.
        store_fails_at: Per copy the first step from which on the store cannot be used, once.
        steps: Per copy how many steps it has taken in this run: two for each write, each look and each request.
    """

    seed: object
    records: int = 3
    days: int = 1
    fetched: bool = False
    written: Callable[[str], None] = lambda _: None
    looked: Callable[[str, bool], None] = lambda *_: None
    sending: Callable[[Sent], None] = lambda _: None
    fault: Callable[[str], str] = lambda _: ""
    die_at: dict[int, int] = field(default_factory=dict)
    store_fails_at: dict[int, int] = field(default_factory=dict)
    steps: Counter[int] = field(default_factory=Counter)
    logged: list[str] = field(default_factory=list)
    secrets: set[str] = field(default_factory=lambda: {EXCHANGE_SECRET, ELVEN_SECRET, EXCHANGE_KEY, ELVEN_KEY, TOKEN})
    sent: list[Sent] = field(default_factory=list)
    struck: Counter[str] = field(default_factory=Counter)
    turns: Turns | None = None
    version: int = 0
    due: dict[date, dict[str, str]] = field(default_factory=dict)
    hung: dict[date, dict[str, str]] = field(default_factory=dict)
    hung_id: str = ""
    book_before: Book | None = None
    settings: Settings = field(default_factory=Settings)
    settings_before: list[Settings] = field(default_factory=list)
    run: int = 0
    defect: Exception | None = None

    def __post_init__(self) -> None:
        self.chance = random.Random(f"{self.seed}")
        self.clock = FakeClock(midnight_ms(DAY + timedelta(days=self.days)) / 1000 + 3600)
        self.time = Clock(wall=self.clock.wall, monotonic=self.clock.wall, sleep=self._sleep)
        self.store = Rows(self)
        self.book = a_book(self.seed, {}, records=self.records, days=self.days)
        journal = Journal()
        self.world = World(0, DAY, {(EXCHANGE_KEY, "cash"): self.book})
        free = exchange.ExchangeOptions(requests=10**9)
        self.exchange = exchange.Exchange({EXCHANGE_KEY: EXCHANGE_SECRET}, self.world, self.time, journal, free)
        self.elven = elven.Elven(
            users={ELVEN_KEY: ELVEN_SECRET},
            accounts={"ENTITY": ACCOUNT},
            sources=[elven.Source(name, "ENTITY", name, elven.BALANCE_SOURCE) for name in ("FIRST", "SECOND")],
            symbols=["BTC", "BTMX", "USDT"],
            clock=self.time,
            journal=journal,
        )
        self.amlyze = amlyze.Amlyze(token=TOKEN, clock=self.time, journal=journal, accounts=_account_ids(UNKNOWN))

    @property
    def all_days(self) -> list[date]:
        """The days that there are, in order."""
        return [DAY + timedelta(days=ahead) for ahead in range(self.days)]

    @property
    def copy(self) -> int:
        """Which copy of a run goes on."""
        return self.turns.now if self.turns else 0

    def fault_of(self, api: str) -> str:
        """The fault that strikes the next request; an empty text if none does."""
        return self.fault(api)

    def step(self, *, writing: bool = False) -> None:
        """An effect is about to happen, or has just happened: the process may end, or another one go on."""
        me = self.copy
        self.steps[me] += 1
        number = self.steps[me]
        if self.turns is not None:
            self.turns.step(number)
        if number == self.die_at.get(me):
            raise Killed
        if writing and number >= self.store_fails_at.get(me, number + 1):
            del self.store_fails_at[me]
            raise StoreUnwritable("no space left on device")

    def _sleep(self, seconds: float) -> None:
        if self.turns is None:
            self.clock.now += seconds
        else:
            self.turns.sleep(seconds)

    def transport(self) -> Transport:
        session = requests.Session()
        session.trust_env = False
        session.mount("http://", Wire(self))
        return Transport(session, self.time)

    def destination(self, name: str, address: str = "") -> Destination:
        transport, settings, url = self.transport(), self.settings, f"http://{name}.{address or self.settings.address}"
        made: Destination
        if name == "amlyze":
            made = Amlyze(settings.amlyze(), Credentials(url, "", TOKEN), transport)
        else:
            made = Elven(settings.elven(), Credentials(url, ELVEN_KEY, ELVEN_SECRET), transport, clock=self.time)
        made.send = partial(self._send, made.send)  # type: ignore[method-assign]
        return made

    def _send(self, send: Callable[[bytes, Sequence[str]], Reply], body: bytes, numbers: Sequence[str]) -> Reply:
        reply = send(body, numbers)
        if self.defect is not None:
            error, self.defect = self.defect, None
            raise error
        return reply

    def correct(self, shift: dict[str, Decimal]) -> None:
        """The exchange corrects its records; the next run fetches them again."""
        self.version += 1
        corrected = a_book(self.seed, shift, records=self.records, days=self.days)
        self.book_before = Book("before", list(self.book.snapshots.values()), list(self.book.records))
        self.book.snapshots, self.book.records = corrected.snapshots, corrected.records
        self.hung, self.due = self.due, {}
        self.hung_id = f"run-{self.run}"

    def change(self, settings: Settings) -> None:
        """Somebody changes the accounts file, and what depends on it is worked out again."""
        self.settings_before.append(self.settings)
        self.settings = settings
        self.hung, self.due = {}, {}

    def next_run(self, *, redeliver: bool = False) -> Run:
        """The next run, with an id of its own."""
        return Run(f"run-{self.run + 1}", redeliver)

    def hung_run(self) -> Run:
        """A run from before the last correction."""
        return Run(self.hung_id, hung=True)

    def a_run(self, run: Run, order: Sequence[str], day: date) -> Iterator[Ended]:
        """One run of a day's tasks, or a retry of some of them, one after the other; how each ended.

        Args:
            run: What it is started with.
            order: The destinations.
            day: The day.
        """
        if not run.hung and day not in self.due:
            ended = self._tried(partial(self._work_out, day), "extract", day, run)
            yield ended
            if ended.error is not None:
                return
        due = self.hung[day] if run.hung else self.due[day]
        for name in order:
            yield self._tried(partial(self._load, name, day, due[name], run), name, day, run)

    def _tried(self, task: Callable[[], DeliverySummary | None], name: str, day: date, run: Run) -> Ended:
        try:
            return Ended(name, day, None, task(), run)
        except BalanceBridgeError as error:
            self.logged += texts_of(error)
            return Ended(name, day, error, getattr(error, "summary", None), run)
        except Killed as death:
            return Ended(name, day, death, None, run)

    def _work_out(self, day: date) -> None:
        if self.fetched:
            self.due[day] = self._extract(day)
            return
        self.due[day] = {}
        for name in DESTINATIONS:
            found = [(one.asset, one.at_ms, str(one.balance), one.points) for one in self.wanted(name, day)]
            data = json.dumps(found).encode()
            self.due[day][name] = self.store.append(f"balances/{ACCOUNT}/{day}/{name}", ".json", data)

    def wanted(
        self, name: str, day: date, book: Book | None = None, settings: Settings | None = None
    ) -> list[Expected]:
        """What a day has to deliver, by the books."""
        zone = (settings or self.settings).zone
        asked = Asked(POINTS, zone, "local_second", DAY) if name == "elven" else Asked(POINTS, "UTC", "instant", DAY)
        return expected(book or self.book, day, day, asked)[0]

    def _extract(self, day: date) -> dict[str, str]:
        client = AscendexClient(
            self.transport(),
            Credentials("http://exchange.example", EXCHANGE_KEY, EXCHANGE_SECRET),
            budget=Budget(self.clock),  # type: ignore[arg-type]
            clock=self.time,
            log=self.logged.append,
        )
        source = AscendexAccount(client, Category.CASH, retention_days=7, clock=self.time)
        job = daily.Job(source, self.store, ACCOUNT, day, f"run-{self.version}", self.version > 0, self.logged.append)
        wanted = [
            BalanceRequest("elven", POINTS, self.settings.zone, "local_second", DAY),
            BalanceRequest("amlyze", POINTS, "UTC", "instant", DAY),
        ]
        history = daily.fetch_history(job, {})
        found = daily.reconcile(job, history, tolerance={}, on_break="hold", destinations=wanted)
        keys: dict[str, str] = found["balances"]
        return keys

    def _load(self, name: str, day: date, generation: str, run: Run) -> DeliverySummary:
        options = {"day": day, "generation": generation, "run_id": run.run_id, "redeliver": run.redeliver}
        destination, due = self.destination(name, run.address), self._balances(generation)
        return kit.run(destination, self.store, due, clock=self.time, log=self.logged.append, **options)

    def _balances(self, generation: str) -> list[Balance]:
        data = self.store.read(generation)
        if generation.endswith(".parquet"):
            return balances_from_table(from_parquet(data))
        return [Balance(asset, at, Decimal(amount), ",".join(points)) for asset, at, amount, points in json.loads(data)]

    def make_known(self) -> None:
        """A person makes known to the destinations what they did not know."""
        self.elven.symbols |= {UNKNOWN}
        self.amlyze.accounts = _account_ids()

    def resolve(self, log: DayLog, numbers: dict[str, bool]) -> None:
        """A person writes down which numbers a destination says that it took, of the log as it was read."""
        words = {
            number: Word(Said.ACCEPTED if taken else Said.REJECTED, "", "asked") for number, taken in numbers.items()
        }
        resolution = Resolution("kim", "asked", time_text(self.clock.now), words)
        log.put_resolution(resolution)

    def adopt(self, name: str) -> None:
        """A person writes down that a destination only changed its address."""
        Places(self.store, ACCOUNT, self.destination(name)).adopt("kim", "a new address")


def _account_ids(*without: str) -> frozenset[str]:
    return frozenset(f"{kind}-{asset}" for kind in ("CASH", "SPOT") for asset in HELD if asset not in without)


def texts_of(error: BaseException) -> list[str]:
    """An error's text and those of what it came from."""
    found, each = [], error
    while each is not None and len(found) < 10:
        found.append(f"{type(each).__name__}: {each}")
        each = each.__cause__  # type: ignore[assignment]
    return found
