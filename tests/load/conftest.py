from __future__ import annotations

import json
import random
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest

import doubles
from balance_bridge.accounts import AmlyzeDestination, ElvenDestination
from balance_bridge.clock import SYSTEM_CLOCK, Clock
from balance_bridge.load.amlyze import Amlyze
from balance_bridge.load.delivery import Delivery, deliver
from balance_bridge.load.destination import Balance, Credentials
from balance_bridge.load.elven import Elven
from balance_bridge.load.fold import Folded, fold, outcomes
from balance_bridge.load.log import DayLog
from balance_bridge.store import Store
from balance_bridge.transport import Response, credentials

DAY = date(2026, 11, 20)
CLOSE_MS = int(datetime(2026, 11, 21, tzinfo=UTC).timestamp() * 1000)
TOKEN = "amlyze-token-not-real"
SECRET = "elven-secret-not-real"


MemoryStore = doubles.MemoryStore


class FakeClock(doubles.FakeClock):
    def __init__(self) -> None:
        super().__init__(1_795_219_200.0)


def answer(document: Any = None, status: int = 200, *, body: bytes | None = None, **headers: str) -> Response:
    content = json.dumps(document).encode() if body is None else body
    named = {"content-type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return Response("POST https://api.test/import", status, named, content, 1.0, 2.0)


class FakeTransport:
    """Answers by script, the last entry for ever: an answer, an error to raise, or a function of the body."""

    def __init__(self, *script: Any) -> None:
        self.script = list(script)
        self.requests: list[SimpleNamespace] = []

    def send(self, method, url, *, headers, body=None, **options) -> Response:
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
        return answer({"results": results, "timeElapsedMs": 9})

    def delivered(self) -> list[tuple[str, str]]:
        return [(record["accountExtId"], record["balanceAt"]) for record in self.accepted]


def elven(transport: Any, *, url: str = "https://elven.test", clock: Clock = SYSTEM_CLOCK, **options: Any) -> Elven:
    given = {
        "name": "elven",
        "conn_id": "elven_default",
        "entity_account_id": "ENTITY",
        "source_id": "SOURCE",
        "timezone": "Asia/Shanghai",
    }
    credentials = Credentials(url, "elven-key-not-real", SECRET)
    return Elven(ElvenDestination(**(given | options)), credentials, transport, clock=clock)


def amlyze(transport: Any, *, url: str = "https://amlyze.test", **options: Any) -> Amlyze:
    given = {
        "name": "amlyze",
        "conn_id": "amlyze_default",
        "requester": "treasury",
        "account_ext_id": "CASH-{asset}",
    }
    return Amlyze(AmlyzeDestination(**(given | options)), Credentials(url, "", TOKEN), transport)


def balance(asset: str = "BTC", amount: str = "1.5", at_ms: int = CLOSE_MS, points: str = "close") -> Balance:
    return Balance(asset, at_ms, Decimal(amount), tuple(points.split(",")))


RUNS = count(1)


def run(destination: Any, store: Store, balances: Any, **options: Any) -> Any:
    given: dict[str, Any] = {
        "account": "main_cash",
        "day": DAY,
        "namespace": "bb",
        "generation": "balances/main_cash/2026-11-20/0001.parquet",
        # Each a run of its own, as if somebody had cleared the task; a retry by Airflow has the same id.
        "run_id": f"run-{next(RUNS)}",
        "clock": FakeClock().clock,
    }
    return deliver(Delivery(destination=destination, store=store, **(given | options)), balances)


def folded(store: Store, destination: str = "amlyze", day: date = DAY) -> Folded:
    return fold(DayLog(store, "main_cash", day, destination).read())


def told(store: Store, destination: str = "amlyze", day: date = DAY) -> dict[str, str]:
    return {each.row.asset: str(each.outcome.status) for each in outcomes(folded(store, destination, day))}


@pytest.fixture(scope="session")
def kit() -> SimpleNamespace:
    return SimpleNamespace(
        DAY=DAY,
        CLOSE_MS=CLOSE_MS,
        TOKEN=TOKEN,
        SECRET=SECRET,
        FakeClock=FakeClock,
        MemoryStore=MemoryStore,
        FakeTransport=FakeTransport,
        FakeAmlyzeServer=FakeAmlyzeServer,
        answer=answer,
        elven=elven,
        amlyze=amlyze,
        balance=balance,
        run=run,
        told=told,
        folded=folded,
    )
