"""The request budget: at most so many requests in any window, over all tasks and processes that share a key.

What a server counts is when requests *reach* it, and that lies anywhere between a request's start and its end. So a
place is taken before a request starts and is free again one window after the request *ended*: then no two requests
whose arrivals count into one window can ever be more than the limit, whatever the latency. A process that dies with a
place in hand leaves it taken until its lease runs out.

Libraries count starts, not ends, and the one that comes near admits more than its limit on SQLite unless its lock is
driven by hand; this needs one short transaction, so it is written here.
"""

from __future__ import annotations

import hashlib
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from balance_bridge.clock import SYSTEM_CLOCK, Clock
from balance_bridge.errors import ConfigurationError, NotReached

REQUESTS_PER_WINDOW = 8
WINDOW_S = 60.0
# Longer than a request can take, its connection and its silent stretches included.
LEASE_S = 120.0
# A server that counts a closed interval, and clocks that tick in milliseconds.
MARGIN_S = 0.05
_RECHECK_S = 5.0


def budget_key(api_key: str) -> str:
    """The name under which a key's requests are counted; the key itself cannot be read from it."""
    return hashlib.sha256(api_key.encode()).hexdigest()[:24]


class Budget(ABC):
    """Places in a rolling window for one API key.

    Args:
        clock: Where instants and sleep come from.
        log: Told when a wait begins.
    """

    def __init__(self, clock: Clock = SYSTEM_CLOCK, log: Callable[[str], None] = lambda _: None) -> None:
        self._clock = clock
        self._log = log

    @abstractmethod
    def try_take(self) -> tuple[int | None, float]:
        """Take a place without waiting.

        Returns:
            The place and 0, or None and the seconds after which it is worth asking again.
        """

    @abstractmethod
    def give_back(self, place: int) -> None:
        """Say that the request which held the place has ended; the place is free one window from now."""

    @abstractmethod
    def fill(self, for_s: float = WINDOW_S) -> None:
        """Count the window as full from now on, as the server said that it is.

        Args:
            for_s: Seconds for which the server asked not to be asked, at least a window and at most a lease and one.
        """

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place for one request; waits until there is one."""
        place = self._take()
        try:
            yield
        finally:
            self.give_back(place)

    def _take(self) -> int:
        told = False
        while True:
            place, wait_s = self.try_take()
            if place is not None:
                return place
            if not told:
                self._log(f"the request budget is used up: waiting {wait_s:.0f} s for a place")
                told = True
            # Places held by requests under way come free earlier than their lease says.
            self._clock.sleep(min(wait_s, _RECHECK_S))


class SqliteBudget(Budget):
    """A budget for all processes of one machine, in an SQLite file.

    Args:
        path: The file; made if it is missing. It must lie on a local disk.
        key: As :func:`budget_key` makes it.
        limit: Requests in any window.
        clock: Where instants and sleep come from.
        log: Told when a wait begins.
    """

    def __init__(
        self,
        path: Path,
        key: str,
        *,
        limit: int = REQUESTS_PER_WINDOW,
        clock: Clock = SYSTEM_CLOCK,
        log: Callable[[str], None] = lambda _: None,
    ) -> None:
        super().__init__(clock, log)
        self._path = path
        self._key = key
        self._limit = limit

    def try_take(self) -> tuple[int | None, float]:
        """See :meth:`Budget.try_take`."""
        with self._transaction() as db:
            now = self._now(db)
            db.execute("DELETE FROM places WHERE key = ? AND free_at <= ?", (self._key, now))
            taken, first_free = db.execute(
                "SELECT count(*), min(free_at) FROM places WHERE key = ?", (self._key,)
            ).fetchone()
            if taken >= self._limit:
                return None, max(first_free - now, 0.01)
            free_at = now + LEASE_S + WINDOW_S
            cursor = db.execute("INSERT INTO places (key, free_at) VALUES (?, ?)", (self._key, free_at))
            return cursor.lastrowid, 0.0

    def give_back(self, place: int) -> None:
        """See :meth:`Budget.give_back`."""
        with self._transaction() as db:
            free_at = self._now(db) + WINDOW_S + MARGIN_S
            # A request that outlived its lease has lost its row, and may have arrived only now.
            db.execute("INSERT OR REPLACE INTO places (id, key, free_at) VALUES (?, ?, ?)", (place, self._key, free_at))

    def fill(self, for_s: float = WINDOW_S) -> None:
        """See :meth:`Budget.fill`."""
        with self._transaction() as db:
            free_at = self._now(db) + min(max(for_s, WINDOW_S), LEASE_S + WINDOW_S) + MARGIN_S
            # Requests under way keep their places: they may arrive after this window.
            db.execute("UPDATE places SET free_at = max(free_at, ?) WHERE key = ?", (free_at, self._key))
            (taken,) = db.execute("SELECT count(*) FROM places WHERE key = ?", (self._key,)).fetchone()
            rows = [(self._key, free_at)] * (self._limit - taken)
            db.executemany("INSERT INTO places (key, free_at) VALUES (?, ?)", rows)

    def _now(self, db: sqlite3.Connection) -> float:
        now = self._clock.wall()
        # Nothing lies further ahead than a lease and a window, unless the machine's clock was set back meanwhile.
        latest = now + LEASE_S + WINDOW_S + MARGIN_S
        db.execute("UPDATE places SET free_at = ? WHERE key = ? AND free_at > ?", (latest, self._key, latest))
        return now

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        # A connection per transaction: tasks fork, and SQLite connections must not cross a fork.
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self._path, timeout=30, isolation_level=None)) as db:
                db.execute("BEGIN IMMEDIATE")
                db.execute("CREATE TABLE IF NOT EXISTS places (id INTEGER PRIMARY KEY AUTOINCREMENT, key, free_at)")
                try:
                    yield db
                except BaseException:
                    db.execute("ROLLBACK")
                    raise
                db.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            raise NotReached(
                f"the request budget in {self._path} cannot be reached ({error}); "
                "without it no request is made: see that the folder can be written, or set another one with the "
                "option [balance_bridge] budget"
            ) from error


def open_budget(
    url: str,
    key: str,
    *,
    clock: Clock = SYSTEM_CLOCK,
    log: Callable[[str], None] = lambda _: None,
) -> Budget:
    """The budget that a URL names.

    Args:
        url: ``sqlite:////absolute/path/to/file.db``.
        key: As :func:`budget_key` makes it.
        clock: Where instants and sleep come from.
        log: Told when a wait begins.

    Raises:
        ConfigurationError: If the URL is of another kind.
    """
    # Taken as it is: a folder's name may hold what has a meaning in a URL.
    path = url.removeprefix("sqlite:///")
    if path == url or not path.startswith("/"):
        raise ConfigurationError(
            f"[balance_bridge] budget = {url}: this backend is not known; allowed: sqlite:////absolute/path/to/file.db"
        )
    return SqliteBudget(Path(path), key, clock=clock, log=log)
