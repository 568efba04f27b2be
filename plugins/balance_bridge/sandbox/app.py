"""The three APIs, a webhook's receiver and the sandbox's own pages behind one HTTP application."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from email.utils import formatdate
from threading import Lock
from typing import Any

from fastapi import FastAPI, Request, Response

from balance_bridge.clock import Clock
from balance_bridge.sandbox.amlyze import Amlyze
from balance_bridge.sandbox.books import KEY_KINDS, expected
from balance_bridge.sandbox.elven import Elven
from balance_bridge.sandbox.exchange import CATEGORIES, Exchange
from balance_bridge.sandbox.webhook import Webhook
from balance_bridge.sandbox.wire import Call, Journal, Reply, document
from balance_bridge.sandbox.world import utc_day

MOST_BOOK_DAYS = 31


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
            "stray sources": [source.document() for source in self.elven.stray_sources()],
            "oddities": {api.name: dict(api.oddities) for api in (self.elven, self.amlyze, self.webhook)},
        }

    def delivered(self) -> dict[str, list[dict[str, Any]]]:
        """Every delivered balance with its exact digits, and every rejected one with the reason."""
        names = self.elven.accounts
        return {
            "elven": [document(kept, account=names[kept.entity_account_id]) for kept in self.elven.imports],
            "amlyze": [
                document(kept, account=self.amlyze.account(kept.account_ext_id)) for kept in self.amlyze.registered
            ],
            "amlyze rejected": list(self.amlyze.rejected),
            "webhook": [document(kept) for kept in self.webhook.held],
        }

    def books(self, params: dict[str, str]) -> dict[str, Any]:
        """What should be delivered, by the world's own books.

        Raises:
            ValueError: A parameter is missing or wrong.
        """
        key, category, kind = params.get("key", ""), params.get("category", ""), params.get("key_kind", "instant")
        if key not in self.exchange.users or category not in CATEGORIES or kind not in KEY_KINDS:
            raise ValueError("key is a known API key, category is cash or margin, key_kind is instant or local_second")
        first, last = date.fromisoformat(params.get("from", "")), date.fromisoformat(params.get("to", ""))
        today = utc_day(self.clock.now_ms())
        if not (first <= last < today and (last - first).days < MOST_BOOK_DAYS):
            raise ValueError(f"from and to are days before {today}, at most {MOST_BOOK_DAYS}, in order")
        found, collisions = expected(
            self.exchange.world.book(key, category, today),
            first,
            last,
            params.get("points", "close").split(","),
            params.get("zone", "UTC"),
            "instant" if kind == "instant" else "local_second",
            date.fromisoformat(params.get("start", first.isoformat())),
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
    except (ValueError, KeyError) as error:  # KeyError: no such time zone
        return Reply(400, {"error": str(error)})
