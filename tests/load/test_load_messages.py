"""A delivery that ends red says what happened, why, and what to do, in lines that a log shows in one piece."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import delivery_kit as kit
from balance_bridge.errors import MAX_LOG_LINE, BalanceBridgeError, ConnectionFailed, ResponseLost
from balance_bridge.store import Store
from doubles import FakeClock, MemoryStore

REFUSED = {"resultType": "REQUEST_REJECTED", "errorCode": "O011", "errorDescription": "the account does not exist"}
OK = {"status": "success", "data": True}


def amlyze(store: Store, *script: Any, **options: Any) -> None:
    kit.run(kit.amlyze(kit.FakeTransport(*script), **options), store, [kit.balance()])


def delivered_before(store: Store, **changed: Any) -> None:
    kit.run(kit.elven(kit.FakeTransport(kit.response(OK))), store, [kit.balance()])
    kit.run(kit.elven(kit.FakeTransport(None), **changed), store, [kit.balance()])


def not_confirmed(store: Store) -> None:
    clock = FakeClock().clock
    server = kit.FakeAmlyzeServer()
    for script in (lambda body: (server(body), ResponseLost("reset"))[1], server):
        try:
            destination = kit.amlyze(kit.FakeTransport(script), on_unconfirmed="fail")
            kit.run(destination, store, [kit.balance()], clock=clock)
        except BalanceBridgeError as error:
            failure = error
    raise failure


def damaged(store: MemoryStore) -> None:
    amlyze(store, kit.FakeAmlyzeServer())
    key = next(key for key in store.objects if key.endswith(".try.jsonl"))
    store.objects[key] = store.objects[key][:20]
    amlyze(store, None)


RED: dict[str, Callable[[MemoryStore], None]] = {
    "rejected": lambda store: amlyze(store, kit.response(REFUSED, 400)),
    "rejected before sending": lambda store: amlyze(store, None, account_ext_id={"ETH": "1"}),
    "response lost": lambda store: amlyze(store, ResponseLost("POST https://amlyze.test: no response within 30 s")),
    "no result": lambda store: amlyze(store, kit.response({"results": []})),
    "not confirmed": not_confirmed,
    "no connection": lambda store: amlyze(store, ConnectionFailed("POST https://amlyze.test: connection refused")),
    "wrong token": lambda store: amlyze(store, kit.response({"error": {"code": "unauthorized"}}, 401)),
    "wrong host": lambda store: amlyze(store, kit.response({"error": "Not Found"}, 404)),
    "redirect": lambda store: amlyze(store, kit.response({"error": "moved"}, 302, location="https://login.test/")),
    "a page": lambda store: amlyze(store, kit.response(body=b"<html>", content_type="text/html")),
    "another address": lambda store: delivered_before(store, url="https://other.test"),
    "another account": lambda store: delivered_before(store, entity_account_id="OTHER"),
    "another zone": lambda store: delivered_before(store, timezone="UTC"),
    "damaged": damaged,
    "one key for two assets": lambda store: kit.run(
        kit.elven(None, assets={"ETH": {"symbol": "BTC"}}), store, [kit.balance(), kit.balance("ETH")]
    ),
}


@pytest.mark.parametrize("how", RED)
def test_a_red_delivery_says_what_why_and_what_to_do_in_lines_that_fit(how: str) -> None:
    with pytest.raises(BalanceBridgeError) as caught:
        RED[how](MemoryStore())
    error = caught.value
    lines = {"what": str(error.args[0]), "why": error.why, "do": error.do}
    assert all(lines.values()), lines
    assert {label: text for label, text in lines.items() if len(f"{label}: {text}") > MAX_LOG_LINE} == {}
