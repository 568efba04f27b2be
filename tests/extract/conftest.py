"""An exchange in memory: AscendEX-shaped answers about a seeded history, and the stand-ins around it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest

import doubles
import servers
from balance_bridge.errors import NotYetAvailable
from balance_bridge.extract import ascendex_responses as responses
from balance_bridge.extract import raw
from balance_bridge.extract.day import DayExtraction, StoredHistory
from balance_bridge.extract.source import Page, SnapshotResponse, Source
from balance_bridge.store import Store, to_json
from balance_bridge.transport import Response

DAY = date(2026, 11, 20)
DAY_MS = 86_400_000
ACCOUNT = "main_cash"


def midnight_ms(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1000


def after(day: date, days: int) -> date:
    return day + timedelta(days=days)


MemoryStore = doubles.MemoryStore


class FakeClock(doubles.FakeClock):
    """Starts at noon of the day after DAY."""

    def __init__(self) -> None:
        super().__init__(midnight_ms(DAY) / 1000 + 1.5 * 86_400)


def leg(asset: str, delta: Any, balance: Any, kind: str | None = None) -> dict[str, Any]:
    made = {"asset": asset, "curBalance": str(balance), "deltaQty": str(delta)}
    return made | {"dataType": kind} if kind else made


def order(sn: int, at_ms: int, *legs: dict[str, Any]) -> dict[str, Any]:
    named = {"liquidityInd": "RemovedLiquidity", "orderId": f"r{sn}", "orderType": "Limit", "side": "Buy"}
    return {"data": list(legs), **named, "sn": sn, "transactTime": at_ms}


def change(sn: int, at_ms: int, *legs: dict[str, Any], event: str = "Deposit") -> dict[str, Any]:
    return {"data": list(legs), "eventType": event, "sn": sn, "transactTime": at_ms}


def snapshot_document(sn: int, at_ms: int, balances: dict[str, Any], account: str = "cshA") -> dict[str, Any]:
    rows = [{"asset": asset, "totalBalance": str(amount)} for asset, amount in balances.items()]
    return {"meta": {"ac": "cash", "accountId": account, "sn": sn, "snapshotTime": at_ms}, "snapshot": rows}


def page_document(orders: Sequence[Any], changes: Sequence[Any], account: str = "MPXA") -> dict[str, Any]:
    return {"meta": {"ac": "cash", "accountId": account}, "order": list(orders), "balance": list(changes)}


class World:
    """What happened at the exchange: records with gaps between their numbers, and a snapshot at each midnight.

    Attributes:
        records: (number, whether by an order, document), oldest first.
        snapshots: Number and balances by day.
    """

    def __init__(self, seed: int = 1, *, days: int = 4, per_day: int = 12) -> None:
        chance = random.Random(seed)
        self.records: list[tuple[int, bool, dict[str, Any]]] = []
        self.snapshots: dict[date, tuple[int, dict[str, Decimal]]] = {}
        balances = {"BTC": Decimal("0.5"), "USDT": Decimal("-12.00000001"), "BTMX-S": Decimal("40000.112249285")}
        sn = 10_000
        for number in range(days + 1):
            day = after(DAY, number)
            self.snapshots[day] = (sn, dict(balances))
            for place in range(per_day if number < days else 0):
                sn += chance.randint(1, 9)
                at_ms = midnight_ms(day) + (place + 1) * 1000 + chance.randint(-500, 500)
                self.records.append(self._happen(chance, balances, sn, at_ms))

    def _happen(
        self, chance: random.Random, balances: dict[str, Decimal], sn: int, at_ms: int
    ) -> tuple[int, bool, dict[str, Any]]:
        if chance.random() < 0.4:
            got = Decimal(chance.randint(1, 10**9)).scaleb(-9)
            balances["BTMX-S"] += got
            return sn, False, change(sn, at_ms, leg("BTMX-S", got, balances["BTMX-S"]), event="Btmxmining")
        bought, paid, fee = (Decimal(chance.randint(1, 10**8)).scaleb(-8) for _ in range(3))
        balances["BTC"] += bought
        balances["USDT"] -= paid + fee
        legs = [
            leg("BTC", bought, balances["BTC"], "trade"),
            leg("USDT", -paid, balances["USDT"], "trade"),
            leg("USDT", -fee, balances["USDT"], "fee"),
        ]
        return sn, True, order(sn, at_ms, *legs)

    def between(self, opening_sn: int, closing_sn: int) -> list[int]:
        return [sn for sn, _, _ in self.records if opening_sn < sn <= closing_sn]


class FakeExchange(Source):
    """Answers about a world, through the very code that reads AscendEX's answers.

    Attributes:
        asked: Each request: ``snapshot <day>`` or ``changes <from sn>``.
        before_ask: Called with each request before it is answered.
        alter: Called with each request and the document that is about to be its answer; returns what is.
        server_date: Gives the Date header of each response; None for no such header.
    """

    def __init__(self, world: World, clock: FakeClock, *, page_limit: int = 5) -> None:
        self.world = world
        self.clock = clock
        self.page_limit = page_limit
        self.who = "the exchange"
        self.retention_days = 7
        self.asked: list[str] = []
        self.server_date: Callable[[], str] | None = None
        self.before_ask: Callable[[str], None] = lambda _: None
        self.alter: Callable[[str, Any], Any] = lambda _, document: document

    def now(self) -> float:
        return self.clock.now

    def oldest(self) -> date:
        return after(self.today(), -self.retention_days)

    def fetch_snapshot(self, day: date) -> Response:
        request = f"snapshot {day}"
        self._begin(request)
        if day > self.today() or day not in self.world.snapshots:
            raise NotYetAvailable(f"no snapshot of {day} yet")
        sn, balances = self.world.snapshots[day]
        return self._answer(request, snapshot_document(sn, midnight_ms(day), balances))

    def fetch_changes(self, from_sn: int, day: date, closing_sn: int | None) -> Response:
        request = f"changes {from_sn}"
        self._begin(request)
        booked = [record for record in self.world.records if record[2]["transactTime"] <= self.clock.now * 1000]
        page = [record for record in booked if record[0] >= from_sn][: self.page_limit]
        page.reverse()
        orders = [document for _, by_order, document in page if by_order]
        return self._answer(request, page_document(orders, [document for _, by, document in page if not by]))

    def read_snapshot(self, body: bytes, day: date) -> SnapshotResponse:
        return responses.read_snapshot(body, category="cash", day=day)

    def read_page(self, body: bytes) -> Page:
        return responses.read_page(body, category="cash")

    def _begin(self, request: str) -> None:
        self.before_ask(request)
        self.asked.append(request)

    def _answer(self, request: str, document: Any) -> Response:
        headers = {} if self.server_date is None else {"date": self.server_date()}
        document = self.alter(request, json.loads(json.dumps(document)))
        return answer(document, request=request, at_s=self.clock.now, **headers)


def answer(
    document: Any = None, status: int = 200, *, request: str = "GET x", at_s: float = 1.0, **headers: str
) -> Response:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(request, status, named, body, at_s, at_s + 0.25)


def extraction(exchange: FakeExchange, store: Store, run_id: str = "run-1", **options: Any) -> DayExtraction:
    return DayExtraction(exchange, store, ACCOUNT, **({"asked_by": run_id} | options))


def fetch(
    exchange: FakeExchange,
    store: Store,
    day: date = DAY,
    run_id: str = "run-1",
    *,
    to_empty: bool = False,
    **options: Any,
) -> StoredHistory:
    """A whole day: both snapshots and the changes between them."""
    of_day = extraction(exchange, store, run_id, **options)
    opening, closing = of_day.snapshot(day), of_day.snapshot(after(day, 1))
    found = of_day.history(day, opening, closing, to_empty=to_empty)
    # As the day's stage notes it once the day is whole.
    if found.pages:
        store.append(raw.manifests(ACCOUNT, day), ".json", to_json({"history": found.generation}))
    return found


@pytest.fixture(scope="session")
def kit() -> SimpleNamespace:
    """The module's own names; test modules cannot import each other."""
    return SimpleNamespace(**{name: value for name, value in globals().items() if not name.startswith("_")})


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    """A database of a server that is started once."""
    with servers.postgresql_server() as url:
        yield url
