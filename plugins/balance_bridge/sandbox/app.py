"""The three APIs, a webhook's receiver and the sandbox's own pages behind one HTTP application."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from datetime import date, timedelta
from email.utils import formatdate
from threading import Lock
from typing import Any

from fastapi import FastAPI, Request, Response

from balance_bridge.clock import SYSTEM_CLOCK, Clock
from balance_bridge.sandbox.amlyze import Amlyze
from balance_bridge.sandbox.books import KEY_KINDS, Asked, expected
from balance_bridge.sandbox.elven import BALANCE_SOURCE, Elven, Source
from balance_bridge.sandbox.exchange import CATEGORIES, Exchange, ExchangeOptions
from balance_bridge.sandbox.fixtures import CREDENTIALS, SYMBOLS
from balance_bridge.sandbox.webhook import Webhook
from balance_bridge.sandbox.wire import Call, Journal, Reply
from balance_bridge.sandbox.world import Book, Record, World, utc_day

MOST_BOOK_DAYS = 31


class Apis:
    """The APIs as the fixtures set them up, their journal, and what can be asked about them.

    Args:
        seed: Determines the world.
        today: The UTC day around which the world is built; the clock's day by default. What is served at any
            moment depends on the clock.
        clock: The servers' clock.
        options: Where the exchange's behaviour is open.
        books: Books written by hand, by (API key, category), in place of generated ones.
    """

    def __init__(
        self,
        seed: int = 7,
        today: date | None = None,
        *,
        clock: Clock = SYSTEM_CLOCK,
        options: ExchangeOptions | None = None,
        books: Mapping[tuple[str, str], Book] | None = None,
    ) -> None:
        self.lock = Lock()
        self.journal = Journal()
        self._clock = clock
        self._seed = seed
        world = World(seed, today or utc_day(clock.now_ms()), books)
        self.exchange = Exchange(CREDENTIALS.exchange, world, clock, self.journal, options)
        self.reset()

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

    def application(self) -> FastAPI:
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
