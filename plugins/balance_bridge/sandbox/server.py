"""The sandbox: the three APIs, a webhook's receiver and its own pages, served from one local port."""

from __future__ import annotations

import json
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import date, timedelta
from email.utils import formatdate
from threading import Lock, Thread
from typing import Any, Self

import uvicorn
from fastapi import FastAPI, Request, Response

from balance_bridge.clock import SYSTEM_CLOCK, Clock
from balance_bridge.sandbox.amlyze import Amlyze
from balance_bridge.sandbox.books import KEY_KINDS, Asked, expected
from balance_bridge.sandbox.elven import BALANCE_SOURCE, Elven, Source
from balance_bridge.sandbox.exchange import CATEGORIES, Exchange, ExchangeOptions
from balance_bridge.sandbox.fixtures import CREDENTIALS, SYMBOLS, accounts_yaml, connections
from balance_bridge.sandbox.webhook import Webhook
from balance_bridge.sandbox.wire import Call, Journal, Reply
from balance_bridge.sandbox.world import Book, Record, World, utc_day

__all__ = ["CREDENTIALS", "Sandbox", "accounts_yaml", "connections", "serve"]

MOST_BOOK_DAYS = 31
START_LIMIT_S = 15.0
STOP_LIMIT_S = 15.0
REFRESH_S = 0.5


class Sandbox:
    """The APIs as the fixtures set them up, their journal, and what can be asked about them.

    A context manager: inside it, a thread serves them at ``url``.

    Args:
        port: TCP port on 127.0.0.1; 0 takes a free one.
        seed: Determines the world.
        today: The UTC day around which the world is built; the clock's day by default. What is served at any
            moment depends on the clock.
        clock: The servers' clock.
        options: Where the exchange's behaviour is open.
        books: Books written by hand, by (API key, category), in place of generated ones.
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
        self.lock = Lock()
        self.journal = Journal()
        self._port = port
        self._clock = clock
        self._seed = seed
        world = World(seed, today or utc_day(clock.now_ms()), books)
        self.exchange = Exchange(CREDENTIALS.exchange, world, clock, self.journal, options)
        self.reset()

    def start(self) -> Self:
        """Serve.

        Raises:
            OSError: The port is taken.
            RuntimeError: The server did not start.
        """
        self._socket = socket.create_server(("127.0.0.1", self._port))
        # Each answer goes out in two pieces; the second would wait 40 ms for the acknowledgement of the first.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._server = uvicorn.Server(
            uvicorn.Config(
                self._application(),
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
        return self

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

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def reset(self) -> None:
        """Forget what was delivered. The journal and the exchange's request window stay."""
        clock, journal = self._clock, self.journal
        self.elven = Elven(
            users=CREDENTIALS.elven,
            accounts={key: name for name, key in CREDENTIALS.entity_accounts.items()},
            sources=[
                Source(source_id, CREDENTIALS.entity_accounts[name], f"balances of {name}", BALANCE_SOURCE)
                for name, source_id in CREDENTIALS.sources.items()
            ],
            symbols=SYMBOLS,
            clock=clock,
            journal=journal,
        )
        self.amlyze = Amlyze(token=CREDENTIALS.amlyze, clock=clock, journal=journal, seed=self._seed)
        self.webhook = Webhook(secret=CREDENTIALS.webhook, clock=clock, journal=journal)

    def withhold(self, key: str, category: str, day: date) -> Record:
        """Let the exchange leave out one record of a UTC day: one from the middle of it that moves a single asset."""
        book = self.exchange.world.book(key, category, day)
        records = book.between(book.snapshots[day], book.snapshots[day + timedelta(days=1)])
        record = next(each for each in records[len(records) // 2 :] if len(each.legs) == 1)
        self.exchange.withheld.add(record.sn)
        return record

    def release(self) -> None:
        """Let the exchange show all its records again."""
        self.exchange.withheld.clear()

    def counts(self) -> dict[str, dict[str, int]]:
        """How many balances are new, repeated or overwritten, by destination, account and day of their time as sent."""
        counts: dict[str, Counter[str]] = {}
        for name, times in (("elven", "datetime"), ("amlyze", "balance_at"), ("webhook", "at")):
            for row in self.delivered()[name]:
                counts.setdefault(f"{name}: {row['account']} {row[times][:10]}", Counter())[row["state"]] += 1
        return {key: dict(sorted(count.items())) for key, count in sorted(counts.items())}

    def status(self) -> dict[str, Any]:
        """Requests, refusals and what was delivered, as JSON."""
        return {
            **self.journal.document(),
            "delivered": self.counts(),
            "rejected by Amlyze": dict(Counter(row["errorCode"] for row in self.amlyze.rejected)),
            "oddities": {api.name: dict(api.oddities) for api in (self.elven, self.amlyze, self.webhook)},
        }

    def delivered(self) -> dict[str, list[dict[str, Any]]]:
        """Every delivered balance with its exact digits, and every rejected one with the reason."""
        names = self.elven.accounts
        return {
            "elven": [row.document() | {"account": names[row.entity_account_id]} for row in self.elven.delivered],
            "amlyze": [row.document() | {"account": _account(row.account_ext_id)} for row in self.amlyze.delivered],
            "amlyze rejected": list(self.amlyze.rejected),
            "webhook": [row.document() for row in self.webhook.delivered],
        }

    def books(self, params: Mapping[str, str]) -> dict[str, Any]:
        """What should be delivered, by the world's own books.

        Raises:
            ValueError: A parameter is missing or wrong.
        """
        key, category, kind = params.get("key", ""), params.get("category", ""), params.get("key_kind", "instant")
        if key not in self.exchange.users or category not in CATEGORIES or kind not in KEY_KINDS:
            raise ValueError("key is a known API key, category is cash or margin, key_kind is instant or local_second")
        first, last = date.fromisoformat(params.get("from", "")), date.fromisoformat(params.get("to", ""))
        today = utc_day(self._clock.now_ms())
        if not (first <= last < today and (last - first).days < MOST_BOOK_DAYS):
            raise ValueError(f"from and to are days before {today}, at most {MOST_BOOK_DAYS}, in order")
        asked = Asked(
            points=params.get("points", "close").split(","),
            zone=params.get("zone", "UTC"),
            kind="instant" if kind == "instant" else "local_second",
            start=date.fromisoformat(params.get("start", first.isoformat())),
        )
        found, collisions = expected(self.exchange.world.book(key, category, today), first, last, asked)
        return {"collisions": collisions, "deliveries": [one.document() for one in found]}

    def lines(self) -> list[str]:
        """What was delivered so far, one line per destination, account and day."""
        with self.lock:
            counts = self.counts()
        return [
            f"{key}: " + ", ".join(f"{count} {state}" for state, count in states.items())
            for key, states in counts.items()
        ]

    def _application(self) -> FastAPI:
        """The HTTP application: one thin handler for everything, since each API judges its requests itself."""
        app = FastAPI(title="balance-bridge sandbox", openapi_url=None, docs_url=None, redoc_url=None)

        async def handle(request: Request) -> Response:
            call = Call(
                method=request.method,
                path=request.url.path,
                query=request.url.query,
                headers={name.lower(): value for name, value in request.headers.items()},
                body=await request.body(),
            )
            with self.lock:
                reply = self._answer(call)
            # The server's clock is the one that was handed in, and clients may go by it.
            headers = {"date": formatdate(self._clock.wall(), usegmt=True)}
            return Response(reply.body(), reply.status, headers, media_type="application/json")

        app.add_api_route("/{path:path}", handle, methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
        return app

    def _answer(self, call: Call) -> Reply:
        for prefix, answer in (
            ("/api/pro/", self.exchange.answer),
            ("/open/", self.elven.answer),
            ("/amlyze-ws-rest/", self.amlyze.answer),
            ("/webhook/", self.webhook.answer),
        ):
            if call.path.startswith(prefix):
                return answer(call)
        pages: dict[tuple[str, str], Callable[[], Any]] = {
            ("GET", "/sandbox/status"): self.status,
            ("GET", "/sandbox/delivered"): self.delivered,
            ("GET", "/sandbox/books"): lambda: self.books(call.params()),
            ("POST", "/sandbox/release"): self.release,
            ("POST", "/sandbox/reset"): self.reset,
        }
        page = pages.get((call.method, call.path))
        if page is None:
            known = ", ".join(f"{method} {path}" for method, path in pages)
            return Reply(404, {"error": f"no {call.method} {call.path} here; the sandbox's own pages are {known}"})
        try:
            return Reply(200, page())
        except (ValueError, KeyError) as error:  # KeyError: no such time zone
            return Reply(400, {"error": str(error)})


def _account(account_ext_id: str) -> str:
    """The account that an Amlyze id belongs to; the id itself if it is of none."""
    prefixes = {name: pattern.partition("{")[0] for name, pattern in CREDENTIALS.account_ext_ids.items()}
    return next((name for name, prefix in prefixes.items() if account_ext_id.startswith(prefix)), account_ext_id)


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
        sandbox = Sandbox(port, seed).start()
    except OSError as error:
        print(f"port {port} is not available ({error.strerror}): choose another one", file=sys.stderr)
        return 1
    try:
        print("\n".join(_instructions(sandbox.url)), flush=True)
        shown: list[str] = []
        while True:
            time.sleep(REFRESH_S)
            lines = sandbox.lines() if show else []
            for line in lines:
                if line not in shown:
                    print(line, flush=True)
            shown = lines
    except KeyboardInterrupt:
        sandbox.stop()
    print("sandbox stopped", flush=True)
    return 0


def _instructions(url: str) -> Iterator[str]:
    yield f"sandbox of AscendEX, Elven and Amlyze at {url} (all credentials are fakes)"
    for conn_id, fields in connections(url).items():
        yield f"AIRFLOW_CONN_{conn_id.upper()}='{json.dumps(fields)}'"
    yield f"status: {url}/sandbox/status"
    yield "stop with Ctrl-C"
