from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from balance_bridge.sandbox.elven import ENTITY_ACCOUNT, IMPORT, SOURCE
from balance_bridge.sandbox.fixtures import CREDENTIALS
from balance_bridge.sandbox.wire import signature

VENDORS_SECRET = "BjGiqCWfHGCrl065dlEBWFO5vLj7Hqie"
CASH = CREDENTIALS.entity_accounts["main_cash"]
CASH_SOURCE = CREDENTIALS.sources["main_cash"]


def row(**changes: Any) -> dict[str, Any]:
    right = {
        "entityAccountId": CASH,
        "sourceId": CASH_SOURCE,
        "symbol": "BTC",
        "datetime": "2026-11-20 08:00:00",
        "balance": 10,
    }
    return {name: value for name, value in (right | changes).items() if value is not None}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1721209655047POST/open/v3/businessData", "LVT5aXA9064gpgZrPXPLJB/Aq9r45yMF10sTZQTteyE="),
        ("1721209655047POST/open/v4/account/treasuryBalance", "6yPwKGH8x5CVvITmyxsGlC7/PhEIb0LMIspiiHVktrI="),
    ],
)
def test_signatures_are_the_vendors(text: str, expected: str) -> None:
    assert signature(VENDORS_SECRET, text) == expected


def test_a_batch_is_taken_with_its_exact_digits(elven: Any) -> None:
    body = json.dumps([row(balance="@"), row(symbol="NO", balance=1)]).replace(
        '"@"', "-12345678901234567.000000000000000001"
    )
    reply = elven.send(body.encode())
    assert (reply.status, reply.document["status"], reply.document["data"]) == (200, "success", True)
    assert reply.document["requestId"]
    kept = elven.api.delivered[0]
    assert kept.balance == Decimal("-12345678901234567.000000000000000001")
    assert (kept.identity, kept.datetime, kept.state) == ("symbol:BTC", "2026-11-20 08:00:00", "new")
    assert kept.document()["balance"] == "-12345678901234567.000000000000000001"
    assert len(elven.api.delivered) == 2


def test_an_asset_id_counts_before_a_symbol_and_empty_text_is_not_sent(elven: Any) -> None:
    elven.send([row(assetID="ETH"), row(assetID="", symbol="SOL"), row(assetID="BTC", symbol="")])
    assert [kept.identity for kept in elven.api.delivered] == ["assetID:ETH", "symbol:SOL", "assetID:BTC"]


@pytest.mark.parametrize(
    "changes",
    [
        {"entityAccountId": None},
        {"entityAccountId": "nobody"},
        {"entityAccountId": 5},
        {"sourceId": "nothing"},
        {"sourceId": CREDENTIALS.sources["main_margin"]},
        {"symbol": None},
        {"symbol": "btc"},
        {"symbol": "BTMX-S"},
        {"symbol": "SPAM"},
        {"assetID": "UNKNOWN"},
        {"datetime": None},
        {"datetime": "2026-11-20T08:00:00"},
        {"datetime": "2026-11-20 08:00:00.000"},
        {"datetime": "2026-11-20 08:00"},
        {"datetime": "2026-11-31 08:00:00"},
        {"datetime": "2026-11-20 08:00:00\n"},
        {"datetime": "2026-11-20 8:00:00"},
        {"balance": None},
        {"balance": "10"},
        {"balance": True},
        {"balance": [1]},
        {"assetId": "BTC"},
    ],
)
def test_one_bad_record_refuses_the_whole_batch(elven: Any, changes: dict[str, Any]) -> None:
    reply = elven.send([row(), row() | changes if None not in changes.values() else row(**changes)])
    assert reply.status == 400
    assert reply.document["status"] == "failed"
    assert reply.document["data"]["code"] == 19734
    assert elven.api.delivered == []


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"[]", b"[1]", b"nonsense", b'[{"balance": NaN}]', b'[{"symbol": "A", "symbol": "B"}]', b"\xff"],
)
def test_what_is_no_array_of_records_is_refused(elven: Any, body: bytes) -> None:
    assert elven.send(body).status == 400
    assert elven.api.delivered == []


def test_at_most_1000_records_and_102400_bytes_are_taken(elven: Any) -> None:
    fitting = json.dumps([row()] * 500).encode()
    assert len(fitting) <= 102_400
    assert elven.send(fitting).status == 200
    assert elven.send(fitting + b" " * (102_400 - len(fitting))).status == 200
    assert elven.send(fitting + b" " * (102_401 - len(fitting))).status == 413
    assert elven.send([1] * 1001).status == 400
    assert len(elven.api.delivered) == 1000


def test_what_comes_again_is_kept_and_marked(elven: Any) -> None:
    for balance in (10, 10, 11):
        elven.send([row(balance=balance)])
    elven.send([row(balance=11), row(symbol="ETH")])
    assert [kept.state for kept in elven.api.delivered] == ["new", "repeated", "overwritten", "repeated", "new"]


def test_an_import_without_source_makes_a_stray_one(elven: Any) -> None:
    elven.send([row(sourceId=None), row(sourceId="", symbol="ETH")])
    elven.send([row(sourceId=None)])
    assert elven.api.oddities == {"source made by an import": 2}
    assert len({kept.source_id for kept in elven.api.delivered}) == 2
    assert [kept.state for kept in elven.api.delivered] == ["new", "new", "new"]


def test_suspicious_digits_are_counted(elven: Any) -> None:
    body = json.dumps([row(balance="@"), row(symbol="ETH", balance="%")]).replace('"@"', "1E-9").replace('"%"', "-0.0")
    assert elven.send(body.encode()).status == 200
    assert elven.api.oddities == {"exponent": 1, "negative zero": 1}


@pytest.mark.parametrize(
    "headers", [{"key": None}, {"key": "nobody"}, {"sign": None}, {"sign": "AAAA"}, {"timestamp": "5"}]
)
def test_wrong_credentials_are_refused(elven: Any, headers: dict[str, Any]) -> None:
    reply = elven.call("POST", IMPORT, body=json.dumps([row()]).encode(), **headers)
    assert (reply.status, reply.document["status"]) == (401, "failed")
    assert elven.api.delivered == []


@pytest.mark.parametrize(("skew_ms", "status"), [(-30_000, 200), (30_000, 200), (-30_001, 401), (30_001, 401)])
def test_a_signature_is_good_for_30_seconds(elven: Any, hand: Any, skew_ms: int, status: int) -> None:
    assert elven.call("GET", ENTITY_ACCOUNT, timestamp=str(hand.ms + skew_ms)).status == status


def test_entity_accounts_are_listed_in_pages_and_the_query_is_signed(elven: Any, hand: Any) -> None:
    reply = elven.call("GET", ENTITY_ACCOUNT, "page=2&limit=1")
    assert reply.document["total"] == 2
    assert [account["name"] for account in reply.document["list"]] == ["main_margin"]
    unsigned = signature(CREDENTIALS.elven["sandbox-elven-key"], f"{hand.ms}GET{ENTITY_ACCOUNT}")
    assert elven.call("GET", ENTITY_ACCOUNT, "page=2&limit=1", sign=unsigned).status == 401
    assert elven.call("GET", ENTITY_ACCOUNT, "page=0").status == 400


def test_a_source_can_be_made_listed_and_used(elven: Any) -> None:
    wanted = {"name": "more", "entityAccountId": CASH, "type": "OPENAPI_BALANCE"}
    made = elven.call("POST", SOURCE, body=json.dumps(wanted).encode()).document["data"]
    assert elven.call("POST", SOURCE, body=json.dumps(wanted).encode()).status == 400
    listed = elven.call("GET", SOURCE, "page=1&limit=50&type=OPENAPI_BALANCE").document["list"]
    assert made in listed
    assert elven.send([row(sourceId=made["sourceId"])]).status == 200
    other = elven.call("POST", SOURCE, body=json.dumps(wanted | {"name": "trades", "type": ""}).encode()).document
    assert other["data"]["type"] == "TRANSACTION"
    assert elven.send([row(sourceId=other["data"]["sourceId"])]).status == 400
    assert not elven.api.oddities


def test_unknown_paths_and_methods_are_refused(elven: Any) -> None:
    assert elven.call("GET", IMPORT).status == 404
    assert elven.call("POST", "/open/v3/account/treasuryBalance").status == 404
