"""The request budget: at most so many requests in any window, over all tasks and processes that share an API key.

A server counts a request when it *arrives*: somewhere between the request's start and its end. So a slot is taken
before a request starts and is free again one window after the request *ended*. Then no window that the server looks at
holds more than the limit, whatever the latency. A process that dies with a slot leaves it taken until its lease and a
window are over. (Rate limiting libraries count starts, not ends.)

Every step is one transaction: lock the key, read its slots, change them, write them back. The slots lie in an SQLite
file for the processes of one machine, or in PostgreSQL for workers on several. What differs is the clock:

- SQLite: the monotonic clock, which all processes of a machine share and which nobody can set. It starts anew at each
  boot, so the boot is noted as well. No request outlives a boot: slots of another boot count as ended when they are
  first seen, and are free a window later.
- PostgreSQL: the server's clock. If it is set back, slots that seem to begin in the future count as begun now. It must
  not be set forward while requests are made (NTP slews it).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import (
    JSON,
    URL,
    BigInteger,
    Column,
    Connection,
    Engine,
    MetaData,
    NullPool,
    String,
    Table,
    create_engine,
    func,
    insert,
    inspect,
    make_url,
    select,
    text,
    update,
)
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.schema import CreateTable

from balance_bridge import private
from balance_bridge.clock import SYSTEM_CLOCK, Clock
from balance_bridge.errors import BudgetExhausted, ConfigurationError, ConnectionFailed
from balance_bridge.transport import Redactor, url_secrets

REQUESTS_PER_WINDOW = 8
WINDOW_S = 60.0
# Longer than a request can take, its connection included: the transport ends it before.
LEASE_S = 120.0
# For a server that counts a closed interval, and clocks that tick in milliseconds.
MARGIN_S = 0.05
# A server that asks for a longer pause is not believed.
MAX_BLOCK_S = 900.0
_RECHECK_S = 1.0
_SQLITE_TIMEOUT_S = 30
_POSTGRESQL_TIMEOUT_S = 10
_TABLE = Table(
    "balance_bridge_budget",
    MetaData(),
    Column("key", String, primary_key=True),
    Column("boot", String, nullable=False),
    Column("slots", JSON, nullable=False),
    Column("requests", BigInteger, nullable=False),
    Column("refusals", BigInteger, nullable=False),
)
_OPTION = "[balance_bridge] budget"
_ALLOWED = "allowed: sqlite:////absolute/path/to/file.db, postgresql://user:password@host/database"


def budget_key(api_key: str) -> str:
    """The name under which a key's requests are counted; the key itself cannot be read from it."""
    return hashlib.sha256(api_key.encode()).hexdigest()[:24]


@dataclass(frozen=True)
class Limits:
    """How many requests are allowed.

    Attributes:
        requests: Requests in any window.
        window_s: Length of the window in seconds.
        lease_s: Seconds after which a request that has not ended counts as that of a dead process.
    """

    requests: int = REQUESTS_PER_WINDOW
    window_s: float = WINDOW_S
    lease_s: float = LEASE_S

    @property
    def held_s(self) -> float:
        """Seconds for which a slot stays taken that nobody releases."""
        return self.lease_s + self.window_s + MARGIN_S


_LIMITS = Limits()


@dataclass(frozen=True)
class Usage:
    """The state of a budget.

    Attributes:
        limit: Requests in any window.
        taken: Slots that are taken now.
        requests: Slots that were ever taken.
        refusals: How often the server has refused a request all the same.
    """

    limit: int
    taken: int
    requests: int
    refusals: int


@dataclass(frozen=True)
class NoSlot:
    """All slots are taken.

    Attributes:
        wait_s: Seconds after which a slot is free for sure, even if nobody releases one before.
        held: Whether the first slot to come free is that of a request under way: that may be sooner, but not before a
            window has passed.
    """

    wait_s: float
    held: bool


class _Slot(NamedTuple):
    """One slot that is taken, as it is written.

    Attributes:
        number: Which request has it; 0 if the server's own refusal has.
        since_s: When it was taken, or its request ended; by the backend's clock.
        lasts_s: Seconds from then on for which it is taken.
        held: Whether its request is under way.
    """

    number: int
    since_s: float
    lasts_s: float
    held: bool

    @property
    def free_at_s(self) -> float:
        return self.since_s + self.lasts_s


@dataclass
class _Window:
    """The slots of one key at one instant, and what is done with them. Knows no database."""

    limits: Limits
    now_s: float
    slots: list[_Slot] = field(default_factory=list)
    requests: int = 0
    refusals: int = 0

    def read(self, slots: list[list[Any]], *, same_boot: bool) -> None:
        """Take over what an earlier transaction wrote, by this clock."""
        found = [_Slot(*slot) for slot in slots]
        if same_boot:
            found = [slot._replace(since_s=min(slot.since_s, self.now_s)) for slot in found]
        else:
            found = [self._ended(slot.number) for slot in found]
        self.slots = [slot for slot in found if slot.free_at_s > self.now_s]

    def take(self) -> int | NoSlot:
        taken, limit = len(self.slots), self.limits.requests
        if taken >= limit:
            # Several must come free where the limit is smaller than before.
            first = sorted(self.slots, key=lambda slot: slot.free_at_s)[taken - limit]
            return NoSlot(max(first.free_at_s - self.now_s, 0.001), first.held)
        self.requests += 1
        self.slots.append(_Slot(self.requests, self.now_s, self.limits.held_s, held=True))
        return self.requests

    def release(self, number: int) -> None:
        # Added even if it is gone: a request that outlived its lease may have arrived only now.
        self.slots = [slot for slot in self.slots if slot.number != number] + [self._ended(number)]

    def block_for(self, seconds: float) -> None:
        lasts_s = min(max(seconds, self.limits.window_s), MAX_BLOCK_S) + MARGIN_S
        block = _Slot(0, self.now_s, lasts_s, held=False)
        # A whole window of slots, in place of those that would be free before. Requests under way do not shorten it
        # when they end, and may outlast it.
        self.slots = [slot for slot in self.slots if slot.free_at_s > block.free_at_s]
        self.slots += [block] * self.limits.requests
        self.refusals += 1

    def _ended(self, number: int) -> _Slot:
        return _Slot(number, self.now_s, self.limits.window_s + MARGIN_S, held=False)


class Budget:
    """The slots of one API key. Connects for each step anew: tasks fork, and a connection must not cross a fork.

    Args:
        url: ``sqlite:////absolute/path/to/file.db`` on a local disk, or ``postgresql://...`` as SQLAlchemy reads it; a
            password in it is in no message.
        key: As :func:`budget_key` makes it.
        limits: How many requests are allowed.
        patience_s: For how long :meth:`slot` waits in all; where it must wait for longer it raises.
        clock: Where sleep comes from, and the instants of a budget in SQLite.
        log: Called with a message when a wait begins.

    Attributes:
        where: The file, or the URL without credentials.

    Raises:
        ConfigurationError: If the URL cannot be used, or its driver is not installed.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        limits: Limits = _LIMITS,
        patience_s: float = math.inf,
        clock: Clock = SYSTEM_CLOCK,
        log: Callable[[str], None] = lambda _: None,
    ) -> None:
        database = _database(url)
        self._file = Path(database.database or "") if database.drivername == "sqlite" else None
        self._engine = _engine(database)
        self._redactor = Redactor(url_secrets(url))
        self._key = key
        self._limits = limits
        self._patience_s = patience_s
        self._clock = clock
        self._log = log
        shown = URL.create("postgresql", host=database.host, port=database.port, database=database.database)
        self.where = str(self._file or shown)

    def try_take(self) -> int | NoSlot:
        """Take a slot without waiting; :meth:`release` it when its request has ended.

        Raises:
            ConnectionFailed: If the database cannot be used. Without it no request is made.
        """
        with self._transaction() as window:
            return window.take()

    def release(self, slot: int) -> None:
        """Report that the request of a slot has ended; the slot is free one window from now."""
        with self._transaction() as window:
            window.release(slot)

    def block_for(self, seconds: float = WINDOW_S) -> None:
        """Let no request start for a while, because the server refused one; at least for a window.

        Args:
            seconds: How long the server asked to wait; at most 15 minutes count.
        """
        with self._transaction() as window:
            window.block_for(seconds)

    def usage(self) -> Usage:
        """The state of the budget."""
        limit = self._limits.requests
        with self._transaction() as window:
            return Usage(limit, min(len(window.slots), limit), window.requests, window.refusals)

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Hold a slot for one request; wait until there is one.

        Raises:
            BudgetExhausted: As soon as the whole wait turns out to be longer than the budget's patience.
            ConnectionFailed: If the database cannot be used.
        """
        slot = self._wait()
        try:
            yield
        finally:
            try:
                self.release(slot)
            except ConnectionFailed as error:
                # The request was made and its response counts. The slot stays taken until its lease is over.
                self._log(f"{error}. One slot stays taken for {self._limits.held_s:.0f} s")

    def _wait(self) -> int:
        waited_s = 0.0
        while isinstance(found := self.try_take(), NoSlot):
            # A request under way ends within seconds; then one window remains to be waited for.
            expected_s = min(found.wait_s, self._limits.window_s) if found.held else found.wait_s
            if waited_s + expected_s > self._patience_s:
                raise BudgetExhausted(
                    f"the request budget is used up for {expected_s:.0f} s",
                    why=f"{self._limits.requests} requests are allowed in any {self._limits.window_s:g} s",
                    wait_s=expected_s,
                )
            if not waited_s:
                self._log(f"the request budget is used up: waiting {expected_s:.0f} s for a slot")
            pause_s = min(found.wait_s, _RECHECK_S) if found.held else found.wait_s
            self._clock.sleep(pause_s)
            waited_s += pause_s
        return found

    @contextmanager
    def _transaction(self) -> Iterator[_Window]:
        try:
            if self._file is not None:
                # SQLite gives the files that it puts beside this one the same permissions.
                private.make_file(self._file)
            with self._engine.begin() as db:
                self._lock(db)
                row = db.execute(select(_TABLE).where(_TABLE.c.key == self._key)).one_or_none()
                # Read once the lock is held: before that, time passes.
                boot, now_s = self._now_s(db)
                window = _Window(self._limits, now_s)
                if row is not None:
                    window.requests, window.refusals = row.requests, row.refusals
                    window.read(row.slots, same_boot=row.boot == boot)
                yield window
                write = insert(_TABLE) if row is None else update(_TABLE).where(_TABLE.c.key == self._key)
                state = {"slots": window.slots, "requests": window.requests, "refusals": window.refusals}
                db.execute(write.values(key=self._key, boot=boot, **state))
        except (SQLAlchemyError, OSError) as error:
            why = str(error.orig if isinstance(error, DBAPIError) else error)
            raise ConnectionFailed(
                f"the request budget in {self.where} cannot be reached",
                why=self._redactor.clean(why).strip(),
                do=f"No request is made without it. See that it can be reached and written, or change {_OPTION}",
            ) from None

    def _lock(self, db: Connection) -> None:
        """Keep other transactions of the key out until this one ends, and see that the table is there."""
        if self._file is not None:
            db.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            # Not as an option of the connection: a pooler between would refuse it.
            db.exec_driver_sql(f"SET LOCAL statement_timeout = '{_POSTGRESQL_TIMEOUT_S}s'")
        if not inspect(db).has_table(_TABLE.name):
            # Two that make a table at once can collide in PostgreSQL, even where it says "if not exists".
            self._postgresql_lock(db, _TABLE.name)
            db.execute(CreateTable(_TABLE, if_not_exists=True))
        self._postgresql_lock(db, f"{_TABLE.name} {self._key}")

    def _postgresql_lock(self, db: Connection, name: str) -> None:
        if self._file is None:
            db.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(name, 0))))

    def _now_s(self, db: Connection) -> tuple[str, float]:
        """Which boot the clock counts from, and its seconds."""
        if self._file is not None:
            return self._clock.boot(), self._clock.monotonic()
        return "", float(db.execute(text("SELECT extract(epoch FROM clock_timestamp()) AS now_s")).scalar_one())


def _database(url: str) -> URL:
    path = url.removeprefix("sqlite:///")
    if path != url and path.startswith("/"):
        # Taken as it is: a folder's name may hold what has a meaning in a URL.
        return URL.create("sqlite", database=path)
    try:
        database = make_url(url)
    except (ArgumentError, ValueError):
        # Without the value: in a URL that cannot be read, nobody can tell the password from the rest.
        raise _unusable("cannot be read as a URL") from None
    if "@" in f"{database.host}{database.database}":
        # What follows a password's own @ would be taken for the host, and shown.
        raise _unusable("has an @ in its host or database: in a password, write it %40")
    if database.drivername in ("postgresql", "postgres"):
        return database.set(drivername="postgresql+psycopg")
    if not database.drivername.startswith("postgresql+"):
        raise _unusable("names no database that can hold it")
    return database


@lru_cache(maxsize=8)
def _engine(database: URL) -> Engine:
    """Connects anew for each transaction, so that it can be shared, also by processes that fork."""
    options: dict[str, Any] = {"connect_args": {"timeout": _SQLITE_TIMEOUT_S, "isolation_level": None}}
    if database.drivername != "sqlite":
        # Whatever the database's default is: a statement must see what was written before the lock was granted.
        options = {"connect_args": {"connect_timeout": _POSTGRESQL_TIMEOUT_S}, "isolation_level": "READ COMMITTED"}
    try:
        engine = create_engine(database, poolclass=NullPool, **options)
    except (ImportError, SQLAlchemyError):
        raise _unusable("needs a driver: pip install 'balance-bridge[postgresql]'") from None
    if engine.dialect.is_async:
        raise _unusable("names a driver for asyncio")
    return engine


def _unusable(why: str) -> ConfigurationError:
    return ConfigurationError(f"{_OPTION}: the URL {why}", do=_ALLOWED)
