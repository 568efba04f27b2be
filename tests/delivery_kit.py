"""What the tests of deliveries are made of: balances, destinations, far sides, and the delivery itself."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import count
from types import SimpleNamespace
from typing import Any

from balance_bridge.accounts import AmlyzeDestination, ElvenDestination, WebhookDestination
from balance_bridge.clock import SYSTEM_CLOCK, Clock
from balance_bridge.load.amlyze import Amlyze
from balance_bridge.load.delivery import Delivery, deliver
from balance_bridge.load.destination import Balance
from balance_bridge.load.elven import Elven
from balance_bridge.load.fold import Folded, fold, outcomes
from balance_bridge.load.log import DayLog
from balance_bridge.load.summary import DeliverySummary
from balance_bridge.load.webhook import Webhook
from balance_bridge.store import Store
from balance_bridge.transport import Credentials, Response, credentials
from doubles import FakeClock

ACCOUNT = "main_cash"
DAY = date(2026, 11, 20)
CLOSE_MS = int(datetime(2026, 11, 21, tzinfo=UTC).timestamp() * 1000)
KEY, SECRET = "elven-key-not-real", "elven-secret-not-real"
TOKEN = "amlyze-token-not-real"
SHARED_SECRET = "webhook-secret-not-real"


def balance(asset: str = "BTC", amount: str | Decimal = "1.5", at_ms: int = CLOSE_MS, points: str = "close") -> Balance:
    return Balance(asset, at_ms, Decimal(amount), points)


# --- destinations, with options of the accounts file; ``url``, ``key`` and ``secret`` are the connection's


def elven(transport: Any, *, clock: Clock = SYSTEM_CLOCK, **options: Any) -> Elven:
    url, key = options.pop("url", "https://elven.test"), options.pop("key", KEY)
    secret = options.pop("secret", SECRET)
    given = {"entity_account_id": "ENTITY", "source_id": "SOURCE", "timezone": "Asia/Shanghai"}
    config = ElvenDestination(**{"name": "elven", "conn_id": "elven_default", **given, **options})
    return Elven(config, Credentials(url, key, secret), transport, clock=clock)


def amlyze(transport: Any, **options: Any) -> Amlyze:
    credentials = Credentials(options.pop("url", "https://amlyze.test"), "", options.pop("secret", TOKEN))
    given = {"requester": "treasury", "account_ext_id": "CASH-{asset}"}
    config = AmlyzeDestination(**{"name": "amlyze", "conn_id": "amlyze_default", **given, **options})
    return Amlyze(config, credentials, transport)


def webhook(transport: Any, *, clock: Clock = SYSTEM_CLOCK, **options: Any) -> Webhook:
    credentials = Credentials(options.pop("url", "https://ledger.test"), "", options.pop("secret", SHARED_SECRET))
    config = WebhookDestination(**{"name": "webhook", "conn_id": "webhook_default", **options})
    return Webhook(config, credentials, transport, account=ACCOUNT, clock=clock)


# --- far sides


def response(document: Any = None, status: int = 200, *, body: bytes | None = None, **headers: str) -> Response:
    content = json.dumps(document).encode() if body is None else body
    named = {"content-type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return Response("POST https://api.test/import", status, named, content, 1.0, 2.0)


class FakeTransport:
    """Follows a script, its last entry again and again: a response, an error to raise, or a function of the body."""

    def __init__(self, *script: Any) -> None:
        self.script = list(script)
        self.requests: list[SimpleNamespace] = []

    def send(self, method: str, url: str, *, headers: Any, body: Any = None, **options: Any) -> Response:
        self.requests.append(SimpleNamespace(method=method, url=url, headers=headers, body=body, **options))
        entry = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if callable(entry):
            entry = entry(body)
        if isinstance(entry, BaseException):
            raise entry
        # As the real transport does.
        return replace(entry, secrets=(*options["secrets"], *credentials(headers)))

    def rows(self, index: int = -1) -> list[dict[str, Any]]:
        document = json.loads(self.requests[index].body, parse_float=Decimal, parse_int=Decimal)
        return document if isinstance(document, list) else document["accountBalances"]


class FakeAmlyzeServer:
    """A tenant that remembers every number, and every balance that it took."""

    def __init__(self, seed: int = 7) -> None:
        self.used: set[str] = set()
        self.accepted: list[dict[str, Any]] = []
        self.refuse: dict[str, str] = {}
        self.random = random.Random(seed)

    def __call__(self, body: bytes) -> Response:
        results = []
        for record in json.loads(body, parse_float=Decimal, parse_int=Decimal)["accountBalances"]:
            number = record["communicationNumber"]
            code = "O005" if number in self.used else self.refuse.get(record["accountExtId"])
            self.used.add(number)
            result = {"communicationNumber": number, "accountExtId": record["accountExtId"], "timeElapsedMs": 3}
            if code is None:
                self.accepted.append(record)
                result["resultType"] = "REQUEST_ACCEPTED"
            else:
                result |= {"resultType": "REQUEST_REJECTED", "errorCode": code, "errorDescription": f"because {code}"}
            results.append(result)
        self.random.shuffle(results)
        return response({"results": results, "timeElapsedMs": 9})

    def delivered(self) -> list[tuple[str, str]]:
        return [(record["accountExtId"], record["balanceAt"]) for record in self.accepted]


# --- deliveries

_RUNS = count(1)


def delivery(destination: Any, store: Store, **options: Any) -> Delivery:
    """A delivery of the day, as a run of its own; a retry by Airflow would have the same ``run_id``."""
    given: dict[str, Any] = {
        "account": ACCOUNT,
        "day": DAY,
        "namespace": "bb",
        "generation": f"balances/{ACCOUNT}/{DAY}/0001.parquet",
        "run_id": f"run-{next(_RUNS)}",
        "clock": FakeClock().clock,
    }
    return Delivery(destination=destination, store=store, **(given | options))


def run(destination: Any, store: Store, balances: Any, **options: Any) -> DeliverySummary:
    return deliver(delivery(destination, store, **options), balances)


def folded(store: Store, destination: str = "amlyze", day: date = DAY) -> Folded:
    return fold(DayLog(store, ACCOUNT, day, destination).read())


def statuses(store: Store, destination: str = "amlyze", day: date = DAY) -> dict[str, str]:
    """The outcome by asset."""
    return {each.row.asset: str(each.outcome.status) for each in outcomes(folded(store, destination, day))}
