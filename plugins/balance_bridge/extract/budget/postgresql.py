"""A budget for workers on several machines, in PostgreSQL.

Each step is one transaction under a lock of its key's own, by the server's clock. The two tables are made where they
are missing; a user that may not make them can use them once somebody else has.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Unpack

import psycopg

from balance_bridge.errors import ConnectionFailed
from balance_bridge.extract.budget.base import WINDOW_S, Budget, Full, Options, Usage
from balance_bridge.transport import Redactor, url_secrets

_TIMEOUT_S = 10
_LOCK = 7_240_815_002
_TABLES = """
CREATE TABLE IF NOT EXISTS balance_bridge_budget_places (
    id bigserial PRIMARY KEY, key text NOT NULL, free_at timestamptz NOT NULL, held boolean NOT NULL);
CREATE INDEX IF NOT EXISTS balance_bridge_budget_places_key ON balance_bridge_budget_places (key, free_at);
CREATE TABLE IF NOT EXISTS balance_bridge_budget_tallies (
    key text PRIMARY KEY, requests bigint NOT NULL DEFAULT 0, refusals bigint NOT NULL DEFAULT 0);
"""


class PostgresBudget(Budget):
    """A budget in PostgreSQL.

    Args:
        url: ``postgresql://``; it may hold a password, which no message shows.
        key: As :func:`budget_key` makes it.
        options: As :class:`Budget` takes them.
    """

    def __init__(
        self,
        url: str,
        key: str,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(**options)
        self._url = url
        self._key = key

    def _take(self) -> int | Full:
        """See :meth:`Budget._take`."""
        with self._transaction() as db:
            taken = _count(db, self._key)
            if taken >= self._limit:
                # With a smaller limit than before, several must come free.
                wait_s, held = _one(
                    db,
                    "SELECT extract(epoch FROM free_at - clock_timestamp())::float8, held "
                    "FROM balance_bridge_budget_places WHERE key = %s ORDER BY free_at LIMIT 1 OFFSET %s",
                    (self._key, taken - self._limit),
                )
                return Full(max(wait_s, 0.001), held)
            (place,) = _one(
                db,
                "INSERT INTO balance_bridge_budget_places (key, free_at, held) "
                "VALUES (%s, clock_timestamp() + %s * interval '1 second', true) RETURNING id",
                (self._key, self._held_s),
            )
            db.execute(
                "INSERT INTO balance_bridge_budget_tallies (key, requests) VALUES (%s, 1) "
                "ON CONFLICT (key) DO UPDATE SET requests = balance_bridge_budget_tallies.requests + 1",
                (self._key,),
            )
            return int(place)

    def give_back(self, place: int) -> None:
        """See :meth:`Budget.give_back`."""
        with self._transaction() as db:
            # A request that outlived its lease has lost its row, and may have arrived only now.
            db.execute(
                "INSERT INTO balance_bridge_budget_places AS known (id, key, free_at, held) "
                "VALUES (%s, %s, clock_timestamp() + %s * interval '1 second', false) ON CONFLICT (id) DO UPDATE "
                "SET held = false, free_at = CASE WHEN known.held THEN excluded.free_at "
                "ELSE greatest(known.free_at, excluded.free_at) END",
                (place, self._key, self._freed_s),
            )

    def fill(self, for_s: float = WINDOW_S) -> None:
        """See :meth:`Budget.fill`."""
        filled_s = self._filled_s(for_s)
        with self._transaction() as db:
            # Places of its own, a whole window of them: whoever gives a place back does not shorten what the server
            # asked for. They stand for those that would be free before; requests under way may arrive after them.
            db.execute(
                "DELETE FROM balance_bridge_budget_places "
                "WHERE key = %s AND NOT held AND free_at <= clock_timestamp() + %s * interval '1 second'",
                (self._key, filled_s),
            )
            db.execute(
                "INSERT INTO balance_bridge_budget_places (key, free_at, held) "
                "SELECT %s, clock_timestamp() + %s * interval '1 second', false FROM generate_series(1, %s)",
                (self._key, filled_s, self._limit),
            )
            db.execute(
                "INSERT INTO balance_bridge_budget_tallies (key, refusals) VALUES (%s, 1) "
                "ON CONFLICT (key) DO UPDATE SET refusals = balance_bridge_budget_tallies.refusals + 1",
                (self._key,),
            )

    def usage(self) -> Usage:
        """See :meth:`Budget.usage`."""
        with self._transaction() as db:
            tally = db.execute(
                "SELECT requests, refusals FROM balance_bridge_budget_tallies WHERE key = %s", (self._key,)
            ).fetchone()
            return Usage(self._limit, min(_count(db, self._key), self._limit), *(tally or (0, 0)))

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        # A connection per transaction: tasks fork, and a connection must not be shared by two processes.
        try:
            with psycopg.connect(
                self._url, connect_timeout=_TIMEOUT_S, options=f"-c statement_timeout={_TIMEOUT_S * 1000}"
            ) as db:
                # Whatever the database's default: the lock alone keeps transactions apart.
                db.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
                _make_tables(db)
                db.execute("SELECT pg_advisory_xact_lock(%s, hashtext(%s))", (_LOCK % (1 << 31), self._key))
                db.execute(
                    "UPDATE balance_bridge_budget_places SET free_at = clock_timestamp() + %s * interval '1 second' "
                    "WHERE key = %s AND free_at > clock_timestamp() + %s * interval '1 second'",
                    (self._furthest_s, self._key, self._furthest_s),
                )
                db.execute(
                    "DELETE FROM balance_bridge_budget_places WHERE key = %s AND free_at <= clock_timestamp()",
                    (self._key,),
                )
                yield db
        except psycopg.Error as error:
            why = Redactor(url_secrets(self._url)).clean(f"{type(error).__name__}: {error}").strip()
            raise ConnectionFailed(
                f"the request budget in PostgreSQL cannot be reached ({why}); without it no request is made: see that "
                "the server is up and that the user may use it, or set another one with the option [balance_bridge] "
                "budget"
            ) from None


def _make_tables(db: Any) -> None:
    if _one(db, "SELECT to_regclass('balance_bridge_budget_tallies') IS NOT NULL", ()) == (True,):
        return
    # Two that make a table at once can collide, even where it says "if not exists".
    db.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
    db.execute(_TABLES)


def _count(db: Any, key: str) -> int:
    (taken,) = _one(db, "SELECT count(*) FROM balance_bridge_budget_places WHERE key = %s", (key,))
    return int(taken)


def _one(db: Any, statement: str, parameters: tuple[Any, ...]) -> Any:
    return db.execute(statement, parameters).fetchone()
