"""The sandbox as a running server: in a thread for tests and the demo, in the foreground for the command line."""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import date, timedelta
from threading import Thread
from types import TracebackType

import uvicorn

from balance_bridge.clock import SYSTEM_CLOCK, Clock
from balance_bridge.sandbox.amlyze import Amlyze
from balance_bridge.sandbox.app import Apis, build_app
from balance_bridge.sandbox.elven import Elven
from balance_bridge.sandbox.exchange import Exchange, ExchangeOptions
from balance_bridge.sandbox.fixtures import CREDENTIALS, SYMBOLS, accounts_yaml, connections
from balance_bridge.sandbox.webhook import Webhook
from balance_bridge.sandbox.wire import Journal
from balance_bridge.sandbox.world import Book, Record, World, utc_day

__all__ = ["CREDENTIALS", "Sandbox", "accounts_yaml", "connections", "serve"]

START_LIMIT_S = 15.0
STOP_LIMIT_S = 15.0
REFRESH_S = 0.5


class Sandbox:
    """The three APIs on a local port, served by a thread. A context manager.

    Args:
        port: TCP port on 127.0.0.1; 0 takes a free one.
        seed: Determines the world.
        today: The UTC day around which the world is built; the clock's day by default. What is served at any
            moment depends on the clock.
        clock: The servers' clock.
        options: Where the exchange's behaviour is open.
        books: Books written by hand, by (API key, category), in place of generated ones.

    Raises:
        OSError: The port is taken.
        RuntimeError: The server did not start.
    """

    def __init__(
        self,
        port: int = 0,
        seed: int = 7,
        today: date | None = None,
        *,
        clock: Clock = SYSTEM_CLOCK,
        options: ExchangeOptions | None = None,
        books: Mapping[tuple[str, str], Book] | None = None,
    ) -> None:
        now_day = utc_day(clock.now_ms())
        world = World(seed, today or now_day, books)
        self.journal = Journal()
        self.exchange = Exchange(CREDENTIALS.exchange, world, clock, self.journal, options)
        self.elven = Elven(
            users=CREDENTIALS.elven,
            accounts={key: name for name, key in CREDENTIALS.entity_accounts.items()},
            sources=CREDENTIALS.elven_sources(),
            symbols=SYMBOLS,
            clock=clock,
            journal=self.journal,
        )
        self.amlyze = Amlyze(
            token=CREDENTIALS.amlyze,
            clock=clock,
            journal=self.journal,
            groups=CREDENTIALS.amlyze_groups(),
            seed=seed,
        )
        self.webhook = Webhook(secret=CREDENTIALS.webhook, clock=clock, journal=self.journal)
        self.apis = Apis(self.exchange, self.elven, self.amlyze, self.webhook, self.journal, clock)
        self._socket = socket.create_server(("127.0.0.1", port))
        # Each answer goes out in two pieces; the second would wait 40 ms for the acknowledgement of the first.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._server = uvicorn.Server(
            uvicorn.Config(
                build_app(self.apis),
                loop="asyncio",
                lifespan="off",
                ws="none",
                log_config=None,
                access_log=False,
                date_header=False,
                server_header=False,
                timeout_graceful_shutdown=2,
            )
        )
        self._thread = Thread(target=self._server.run, args=([self._socket],), name="sandbox", daemon=True)
        self._thread.start()
        end = time.monotonic() + START_LIMIT_S
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > end:
                self.stop()
                raise RuntimeError(f"the sandbox did not start at {self.url} within {START_LIMIT_S:g} s")
            time.sleep(0.005)

    def stop(self) -> None:
        """Stop serving, and wait until every socket is closed. Can be called again.

        Raises:
            RuntimeError: The server's thread did not end.
        """
        self._server.should_exit = True
        self._thread.join(STOP_LIMIT_S)
        self._socket.close()
        if self._thread.is_alive():
            raise RuntimeError(f"the sandbox at {self.url} did not stop within {STOP_LIMIT_S:g} s")

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def withhold(self, key: str, category: str, day: date) -> Record:
        """Let the exchange leave out one record of a UTC day: one from the middle of it that moves a single asset."""
        book = self.exchange.world.book(key, category, day)
        records = book.between(book.snapshots[day], book.snapshots[day + timedelta(days=1)])
        record = next(each for each in records[len(records) // 2 :] if len(each.legs) == 1)
        self.exchange.withheld.add(record.sn)
        return record

    def release(self) -> None:
        """Let the exchange show all its records again."""
        self.apis.release()

    def lines(self) -> list[str]:
        """What was delivered so far, one line per destination, account and day."""
        with self.apis.lock:
            counts = self.apis.counts()
        return [
            f"{key}: " + ", ".join(f"{count} {state}" for state, count in states.items())
            for key, states in counts.items()
        ]


def serve(port: int, seed: int, show: bool) -> int:
    """Run the sandbox in the foreground until Ctrl-C.

    Args:
        port: TCP port on 127.0.0.1; 0 takes a free one.
        seed: Determines the world.
        show: Whether to print a line whenever something is delivered.

    Returns:
        The exit code: 0 when stopped, 1 if the port is not available.
    """
    try:
        sandbox = Sandbox(port, seed)
    except OSError as error:
        print(f"port {port} is not available ({error.strerror}): choose another one", file=sys.stderr)
        return 1
    with sandbox, suppress(KeyboardInterrupt):
        print("\n".join(_instructions(sandbox.url)), flush=True)
        shown: list[str] = []
        while True:
            time.sleep(REFRESH_S)
            lines = sandbox.lines() if show else []
            for line in lines:
                if line not in shown:
                    print(line, flush=True)
            shown = lines
    print("sandbox stopped", flush=True)
    return 0


def _instructions(url: str) -> Iterator[str]:
    yield f"sandbox of AscendEX, Elven and Amlyze at {url} (all credentials are fakes)"
    for conn_id, fields in connections(url).items():
        yield f"AIRFLOW_CONN_{conn_id.upper()}='{json.dumps(fields)}'"
    yield f"status: {url}/sandbox/status"
    yield "stop with Ctrl-C"
