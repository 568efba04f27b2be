"""A budget for all processes of one machine, in an SQLite file.

Instants are those of the monotonic clock, which is one for all processes of a machine and which nobody can set: a wall
clock that is put forward by a minute would free all places at once. After a start of the machine it begins anew at
zero. What lies further ahead then than any place can is cut down to that; and what lies behind is over indeed, since
the machine has been up for longer than that.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Unpack

from balance_bridge import private
from balance_bridge.errors import ConnectionFailed
from balance_bridge.extract.budget.base import WINDOW_S, Budget, Full, Options, Usage

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS budget_places (id INTEGER PRIMARY KEY AUTOINCREMENT, key, free_at, held)",
    "CREATE TABLE IF NOT EXISTS budget_tallies (key PRIMARY KEY, requests, refusals)",
)


class SqliteBudget(Budget):
    """A budget in an SQLite file.

    Args:
        path: The file; made if it is missing. It must lie on a local disk.
        key: As :func:`budget_key` makes it.
        options: As :class:`Budget` takes them.
    """

    def __init__(
        self,
        path: Path,
        key: str,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(**options)
        self._path = path
        self._key = key

    def _take(self) -> int | Full:
        """See :meth:`Budget._take`."""
        with self._transaction() as (db, now):
            (taken,) = db.execute("SELECT count(*) FROM budget_places WHERE key = ?", (self._key,)).fetchone()
            if taken >= self._limit:
                # With a smaller limit than before, several must come free.
                (first_free, held) = db.execute(
                    "SELECT free_at, held FROM budget_places WHERE key = ? ORDER BY free_at LIMIT 1 OFFSET ?",
                    (self._key, taken - self._limit),
                ).fetchone()
                return Full(max(first_free - now, 0.001), bool(held))
            cursor = db.execute(
                "INSERT INTO budget_places (key, free_at, held) VALUES (?, ?, 1)",
                (self._key, now + self._held_s),
            )
            self._tally(db, "requests")
            return int(cursor.lastrowid or 0)

    def give_back(self, place: int) -> None:
        """See :meth:`Budget.give_back`."""
        with self._transaction() as (db, now):
            # A request that outlived its lease has lost its row, and may have arrived only now.
            db.execute(
                "INSERT INTO budget_places (id, key, free_at, held) VALUES (?, ?, ?, 0) ON CONFLICT (id) DO UPDATE "
                "SET held = 0, free_at = CASE WHEN held THEN excluded.free_at ELSE max(free_at, excluded.free_at) END",
                (place, self._key, now + self._freed_s),
            )

    def fill(self, for_s: float = WINDOW_S) -> None:
        """See :meth:`Budget.fill`."""
        with self._transaction() as (db, now):
            free_at = now + self._filled_s(for_s)
            # Places of its own, a whole window of them: whoever gives a place back does not shorten what the server
            # asked for. They stand for those that would be free before; requests under way may arrive after them.
            db.execute("DELETE FROM budget_places WHERE key = ? AND NOT held AND free_at <= ?", (self._key, free_at))
            rows = [(self._key, free_at)] * self._limit
            db.executemany("INSERT INTO budget_places (key, free_at, held) VALUES (?, ?, 0)", rows)
            self._tally(db, "refusals")

    def usage(self) -> Usage:
        """See :meth:`Budget.usage`."""
        with self._transaction() as (db, _):
            (taken,) = db.execute("SELECT count(*) FROM budget_places WHERE key = ?", (self._key,)).fetchone()
            tally = db.execute("SELECT requests, refusals FROM budget_tallies WHERE key = ?", (self._key,)).fetchone()
            return Usage(self._limit, min(int(taken), self._limit), *(tally or (0, 0)))

    def _tally(self, db: sqlite3.Connection, name: str) -> None:
        db.execute("INSERT OR IGNORE INTO budget_tallies (key, requests, refusals) VALUES (?, 0, 0)", (self._key,))
        statements = {
            "requests": "UPDATE budget_tallies SET requests = requests + 1 WHERE key = ?",
            "refusals": "UPDATE budget_tallies SET refusals = refusals + 1 WHERE key = ?",
        }
        db.execute(statements[name], (self._key,))

    @contextmanager
    def _transaction(self) -> Iterator[tuple[sqlite3.Connection, float]]:
        # A connection per transaction: tasks fork, and SQLite connections must not cross a fork.
        try:
            # SQLite gives the files that it puts beside this one the same permissions.
            private.make_file(self._path)
            with closing(sqlite3.connect(self._path, timeout=30, isolation_level=None)) as db:
                db.execute("BEGIN IMMEDIATE")
                try:
                    for statement in _SCHEMA:
                        db.execute(statement)
                    # Read once the lock is held: before that, time passes.
                    now = self._clock.monotonic()
                    latest = now + self._furthest_s
                    db.execute(
                        "UPDATE budget_places SET free_at = ? WHERE key = ? AND free_at > ?",
                        (latest, self._key, latest),
                    )
                    db.execute("DELETE FROM budget_places WHERE key = ? AND free_at <= ?", (self._key, now))
                    yield db, now
                except BaseException:
                    db.execute("ROLLBACK")
                    raise
                db.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            raise ConnectionFailed(
                f"the request budget in {self._path} cannot be reached ({error}); "
                "without it no request is made: see that the folder can be written, or set another one with the "
                "option [balance_bridge] budget"
            ) from error
