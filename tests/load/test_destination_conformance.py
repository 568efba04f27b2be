from __future__ import annotations

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from destination_conformance import (
    ASSETS,
    BAD,
    Books,
    DestinationConformance,
    Harness,
    PerRecordConformance,
    PerRecordFaultConformance,
)

import delivery_kit as kit
from balance_bridge.load.amlyze import Amlyze
from balance_bridge.load.destination import Balance, Destination
from balance_bridge.load.numbers import rfc3339
from balance_bridge.sandbox import amlyze as tenant
from balance_bridge.sandbox import elven as books
from balance_bridge.sandbox import webhook as receiver
from balance_bridge.sandbox.wire import Call, Journal, Reply

SHANGHAI = ZoneInfo("Asia/Shanghai")
KNOWN = frozenset({*ASSETS, BAD, *(f"{BAD}{index}" for index in range(3))})


class ElvenHarness(Harness):
    at_most_once = False
    record_code = "19734"
    secrets = (kit.KEY, kit.SECRET)

    def __init__(self) -> None:
        super().__init__()
        self.there = books.Elven(
            users={self.secrets[0]: self.secrets[1]},
            accounts={"ENTITY": "main_cash"},
            sources=[books.Source("SOURCE", "ENTITY", "balances", books.BALANCE_SOURCE)],
            symbols=KNOWN,
            clock=self.clock.clock,
            journal=Journal(),
        )

    def destination(self, **options: Any) -> Destination:
        return kit.elven(self.line, clock=self.clock.clock, **options)

    def respond(self, call: Call) -> Reply:
        return self.there.answer(call)

    def books(self) -> Books:
        return [(kept.identity, kept.datetime, kept.balance) for kept in self.there.delivered]

    def place(self, balance: Balance) -> tuple[str, str]:
        return f"symbol:{balance.asset}", f"{datetime.fromtimestamp(balance.at_ms // 1000, SHANGHAI):%Y-%m-%d %H:%M:%S}"

    def refuse_bad(self) -> None:
        self.there.symbols -= {BAD}

    def whole_refusal(self, code: str) -> Any:
        return {"status": "failed", "data": {"code": code, "message": "no such symbol"}}

    def unauthorized(self, text: str) -> Any:
        return {"status": "failed", "data": {"code": 401, "message": text}}


class AmlyzeHarness(Harness):
    at_most_once = True
    record_code = "O001"
    secrets = (kit.TOKEN,)

    def __init__(self) -> None:
        super().__init__()
        self.there = tenant.Amlyze(token=self.secrets[0], clock=self.clock.clock, journal=Journal())

    def destination(self, **options: Any) -> Destination:
        max_bytes = options.pop("max_bytes", Amlyze.max_bytes)
        made = kit.amlyze(self.line, **options)
        made.max_bytes = max_bytes
        return made

    def respond(self, call: Call) -> Reply:
        return self.there.answer(call)

    def books(self) -> Books:
        return [(kept.account_ext_id, rfc3339(kept.at_ms), kept.balance) for kept in self.there.delivered]

    def place(self, balance: Balance) -> tuple[str, str]:
        return f"CASH-{balance.asset}", rfc3339(balance.at_ms)

    def refuse_bad(self) -> None:
        self.there.accounts = frozenset(f"CASH-{asset}" for asset in KNOWN - {BAD})

    def whole_refusal(self, code: str) -> Any:
        return {"resultType": "REQUEST_REJECTED", "errorCode": code, "errorDescription": "a field is missing"}

    def unauthorized(self, text: str) -> Any:
        return {"error": {"code": "unauthorized", "message": text}}


class WebhookHarness(Harness):
    at_most_once = True
    record_code = "BAD_RECORD"
    secrets = (kit.SHARED_SECRET,)

    def __init__(self, **behaviour: bool) -> None:
        super().__init__()
        self.there = receiver.Webhook(secret=self.secrets[0], clock=self.clock.clock, journal=Journal())
        vars(self.there).update(behaviour)

    def destination(self, **options: Any) -> Destination:
        return kit.webhook(
            self.line, clock=self.clock.clock, **{"url": f"https://ledger.test{receiver.PATH}"} | options
        )

    def respond(self, call: Call) -> Reply:
        return self.there.answer(call)

    def books(self) -> Books:
        return [(kept.asset, rfc3339(kept.at_ms), kept.balance) for kept in self.there.delivered]

    def place(self, balance: Balance) -> tuple[str, str]:
        return balance.asset, rfc3339(balance.at_ms)

    def refuse_bad(self) -> None:
        self.there.refused = frozenset({BAD})

    def whole_refusal(self, code: str) -> Any:
        return {"code": code, "text": "that is no asset of ours"}

    def unauthorized(self, text: str) -> Any:
        return {"code": "UNAUTHORIZED", "text": text}


class TestElven(DestinationConformance):
    def make_harness(self) -> Harness:
        return ElvenHarness()


class TestAmlyze(PerRecordConformance):
    def make_harness(self) -> Harness:
        return AmlyzeHarness()


class TestWebhook(PerRecordConformance):
    def make_harness(self) -> Harness:
        return WebhookHarness()


class TestWebhookThatRefusesAsAWhole(PerRecordFaultConformance):
    """Its receiver refuses a request for one bad balance."""

    def make_harness(self) -> Harness:
        return WebhookHarness(whole=True)


class TestWebhookThatKnowsItsKeys(PerRecordFaultConformance):
    """Its receiver returns 409 to a key that came before."""

    def make_harness(self) -> Harness:
        return WebhookHarness(conflicts=True)


def test_the_suite_finds_a_destination_that_promises_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were the suite blind, it would be green for this one as well."""

    class Careless(AmlyzeHarness):
        def destination(self, **options: Any) -> Destination:
            made = super().destination(**options)
            # Rounds, and takes every response for an acceptance.
            encode = made.encode_row
            made.encode_row = lambda wire: encode({**wire, "value": wire["value"][:6]})  # type: ignore[method-assign]
            return made

    class Suite(DestinationConformance):
        def make_harness(self) -> Harness:
            return Careless()

    with pytest.raises(AssertionError):
        Suite().test_every_balance_arrives_once_exactly_and_is_on_a_receipt(Careless())
