from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import pytest

from balance_bridge.clock import Clock
from balance_bridge.sandbox.amlyze import PATH, Amlyze
from balance_bridge.sandbox.elven import IMPORT, Elven
from balance_bridge.sandbox.exchange import Exchange, ExchangeOptions
from balance_bridge.sandbox.fixtures import CREDENTIALS
from balance_bridge.sandbox.server import Sandbox
from balance_bridge.sandbox.wire import Call, Journal, Reply, signature
from balance_bridge.sandbox.world import World

TODAY = date(2026, 11, 20)
CASH_KEY = "sandbox-cash-key"


class Hand:
    """A clock that is moved by hand; it starts at 2026-11-20T12:00:00Z."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp()
        self.clock = Clock(wall=lambda: self.now, monotonic=lambda: self.now, sleep=self.wait)

    def wait(self, seconds: float) -> None:
        self.now += seconds

    @property
    def ms(self) -> int:
        return int(self.now * 1000)


@dataclass
class ExchangeClient:
    """Asks the exchange as a correct client does, unless told otherwise."""

    api: Exchange
    hand: Hand
    key: str = CASH_KEY

    def get(self, api_path: str, query: str = "", **headers: str | None) -> Reply:
        stamp = headers.get("timestamp") or str(self.hand.ms)
        right: dict[str, str | None] = {
            "key": self.key,
            "timestamp": stamp,
            "signature": signature(CREDENTIALS.exchange[self.key], f"{stamp}+{api_path}"),
        }
        sent = {f"x-auth-{name}": text for name, text in (right | headers).items() if text is not None}
        return self.api.answer(Call("GET", f"/api/pro/{'v1/' * (api_path == 'info')}{api_path}", query, sent))

    def snapshot(self, day: object, category: str = "cash") -> Reply:
        return self.get(f"data/v1/{category}/balance/snapshot", f"date={day}")

    def history(self, query: str, category: str = "cash") -> Reply:
        return self.get(f"data/v1/{category}/balance/history", query)


@dataclass
class ElvenClient:
    api: Elven
    hand: Hand

    def call(self, method: str, path: str, query: str = "", body: bytes = b"", **headers: str | None) -> Reply:
        stamp = headers.get("timestamp") or str(self.hand.ms)
        target = f"{path}?{query}" if query else path
        right: dict[str, str | None] = {
            "key": "sandbox-elven-key",
            "timestamp": stamp,
            "sign": signature(CREDENTIALS.elven["sandbox-elven-key"], f"{stamp}{method}{target}"),
        }
        sent = {f"elven-api-{name}": text for name, text in (right | headers).items() if text is not None}
        return self.api.answer(Call(method, path, query, sent, body))

    def send(self, rows: Any) -> Reply:
        return self.call("POST", IMPORT, body=rows if isinstance(rows, bytes) else json.dumps(rows).encode())


@dataclass
class AmlyzeClient:
    api: Amlyze

    def post(self, body: Any, path: str = PATH, method: str = "POST", **headers: str) -> Reply:
        right = {"authorization": f"Bearer {CREDENTIALS.amlyze}", "content-type": "application/json"}
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.api.answer(Call(method, path, "", right | headers, raw))

    def send(self, *rows: dict[str, Any]) -> dict[str, dict[str, Any]]:
        reply = self.post({"accountBalances": list(rows)})
        assert reply.status == 200
        return {result["communicationNumber"]: result for result in reply.document["results"]}


@pytest.fixture
def hand() -> Hand:
    return Hand()


@pytest.fixture
def apis(hand: Hand) -> Sandbox:
    return Sandbox(today=TODAY, clock=hand.clock)


@pytest.fixture
def journal(apis: Sandbox) -> Journal:
    return apis.journal


@pytest.fixture
def make_exchange(hand: Hand, journal: Journal) -> Any:
    def make(seed: int = 7, key: str = CASH_KEY, world: World | None = None, **options: Any) -> ExchangeClient:
        api = Exchange(
            CREDENTIALS.exchange, world or World(seed, TODAY), hand.clock, journal, ExchangeOptions(**options)
        )
        return ExchangeClient(api, hand, key)

    return make


@pytest.fixture
def elven(hand: Hand, apis: Sandbox) -> ElvenClient:
    return ElvenClient(apis.elven, hand)


@pytest.fixture
def amlyze(apis: Sandbox) -> AmlyzeClient:
    return AmlyzeClient(apis.amlyze)
