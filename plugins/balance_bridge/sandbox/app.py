"""The three APIs, a webhook's receiver and the sandbox's own pages behind one HTTP application."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from email.utils import formatdate
from threading import Lock
from typing import Any, get_args
from zoneinfo import ZoneInfo

from fastapi import FastAPI, Request, Response

from balance_bridge.clock import Clock
from balance_bridge.sandbox.amlyze import Amlyze
from balance_bridge.sandbox.books import KeyKind, expected
from balance_bridge.sandbox.elven import Elven
from balance_bridge.sandbox.exchange import CATEGORIES, Exchange
from balance_bridge.sandbox.webhook import Webhook
from balance_bridge.sandbox.wire import Call, Journal, Reply
from balance_bridge.sandbox.world import utc_day

MOST_BOOK_DAYS = 31


@dataclass(frozen=True)
class Delivered:
    """What became of the balances of one account and one day at one destination."""

    destination: str
    account: str
    day: str
    counts: dict[str, int]


@dataclass
class Apis:
    """The APIs, their journal, and what can be asked about them."""

    exchange: Exchange
    elven: Elven
    amlyze: Amlyze
    webhook: Webhook
    journal: Journal
    clock: Clock
    lock: Lock = field(default_factory=Lock)

    def delivered_counts(self) -> list[Delivered]:
        """Counts of new, repeated and overwritten balances by destination, account and day of their datetime.

        The day is that of the text as sent: local for Elven, as written for the others.
        """
        counts: dict[tuple[str, str, str], Counter[str]] = {}
        for row in self.elven.document():
            counts.setdefault(("elven", row["account"], row["datetime"][:10]), Counter())[row["state"]] += 1
        for row in self.amlyze.document():
            counts.setdefault(("amlyze", row["account"], row["balanceAt"][:10]), Counter())[row["state"]] += 1
        for row in self.webhook.document():
            counts.setdefault(("webhook", row["account"], row["at"][:10]), Counter())[row["state"]] += 1
        return [Delivered(*key, counts=dict(sorted(count.items()))) for key, count in sorted(counts.items())]

    def status(self) -> dict[str, Any]:
        """Requests, refusals and what was delivered, as JSON."""
        delivered: dict[str, Any] = {}
        for one in self.delivered_counts():
            delivered.setdefault(one.destination, {}).setdefault(one.account, {})[one.day] = one.counts
        return {
            **self.journal.document(),
            "delivered": delivered,
            "elven": {
                "imports": len(self.elven.imports),
                "states": dict(Counter(kept.state for kept in self.elven.imports)),
                "stray sources": [source.document() for source in self.elven.stray_sources()],
                "oddities": dict(self.elven.oddities),
            },
            "amlyze": {
                "registered": len(self.amlyze.registered),
                "states": dict(Counter(kept.state for kept in self.amlyze.registered)),
                "rejected": dict(Counter(row["errorCode"] for row in self.amlyze.rejected)),
                "numbers used": len(self.amlyze.used),
                "oddities": dict(self.amlyze.oddities),
            },
            "webhook": {
                "held": len(self.webhook.held),
                "states": dict(Counter(kept.state for kept in self.webhook.held)),
                "oddities": dict(self.webhook.oddities),
            },
        }

    def delivered(self) -> dict[str, Any]:
        """Every delivered balance with its exact digits, and every rejected one with the reason."""
        return {
            "elven": self.elven.document(),
            "amlyze": self.amlyze.document(),
            "amlyze rejected": list(self.amlyze.rejected),
            "webhook": self.webhook.document(),
        }

    def books(self, params: dict[str, str]) -> dict[str, Any]:
        """What should be delivered, by the world's own books.

        Raises:
            ValueError: A parameter is missing or wrong.
        """
        key, category, kind = params.get("key", ""), params.get("category", ""), params.get("key_kind", "instant")
        if key not in self.exchange.users or category not in CATEGORIES or kind not in get_args(KeyKind):
            raise ValueError("key is a known API key, category is cash or margin, key_kind is instant or local_second")
        first, last = date.fromisoformat(params.get("from", "")), date.fromisoformat(params.get("to", ""))
        today = utc_day(self.clock.now_ms())
        if not (first <= last < today and (last - first).days < MOST_BOOK_DAYS):
            raise ValueError(f"from and to are days before {today}, at most {MOST_BOOK_DAYS}, in order")
        zone = params.get("zone", "UTC")
        try:
            ZoneInfo(zone)
        except (KeyError, ValueError, OSError):
            raise ValueError(f"{zone!r} is no IANA zone") from None
        points = [point.strip() for point in params.get("points", "close").split(",")]
        start = date.fromisoformat(params.get("start", first.isoformat()))
        book = self.exchange.world.book(key, category, today)
        found, collisions = expected(
            book, first, last, points, zone, "instant" if kind == "instant" else "local_second", start
        )
        return {"collisions": collisions, "deliveries": [one.document() for one in found]}

    def release(self) -> None:
        """Let the exchange show all its records again."""
        self.exchange.withheld.clear()

    def reset(self) -> None:
        """Forget what was delivered. The journal and the exchange's request window stay."""
        self.elven.reset()
        self.amlyze.reset()
        self.webhook.reset()


def build_app(apis: Apis) -> FastAPI:
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
        with apis.lock:
            reply = _route(apis, call)
        # The server's clock is the one that was handed in, and clients may go by it.
        headers = {"date": formatdate(apis.clock.wall(), usegmt=True)}
        return Response(reply.body(), reply.status, headers, media_type="application/json")

    app.add_api_route("/{path:path}", handle, methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
    return app


def _route(apis: Apis, call: Call) -> Reply:
    for prefix, answer in (
        ("/api/pro/", apis.exchange.answer),
        ("/open/", apis.elven.answer),
        ("/amlyze-ws-rest/", apis.amlyze.answer),
        ("/webhook/", apis.webhook.answer),
    ):
        if call.path.startswith(prefix):
            return answer(call)
    pages: dict[tuple[str, str], Callable[[], Any]] = {
        ("GET", "/sandbox/status"): apis.status,
        ("GET", "/sandbox/delivered"): apis.delivered,
        ("GET", "/sandbox/books"): lambda: apis.books(call.params()),
        ("POST", "/sandbox/release"): apis.release,
        ("POST", "/sandbox/reset"): apis.reset,
    }
    page = pages.get((call.method, call.path))
    if page is None:
        known = ", ".join(f"{method} {path}" for method, path in pages)
        return Reply(404, {"error": f"no {call.method} {call.path} here; the sandbox's own pages are {known}"})
    try:
        return Reply(200, page())
    except ValueError as error:
        return Reply(400, {"error": str(error)})
