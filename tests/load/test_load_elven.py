from __future__ import annotations

from contextlib import nullcontext

import pytest

import delivery_kit as kit
from balance_bridge.errors import ConfigurationError, InvalidResponse, RecordsRejected
from balance_bridge.load.elven import sign
from balance_bridge.transport import Credentials
from doubles import FakeClock, MemoryStore

VENDOR_SECRET = "BjGiqCWfHGCrl065dlEBWFO5vLj7Hqie"


@pytest.mark.parametrize(
    ("timestamp", "path", "signature"),
    [
        ("1721209655047", "/open/v3/businessData", "LVT5aXA9064gpgZrPXPLJB/Aq9r45yMF10sTZQTteyE="),
        ("1721209655047", "/open/v4/account/treasuryBalance", "6yPwKGH8x5CVvITmyxsGlC7/PhEIb0LMIspiiHVktrI="),
    ],
)
def test_signatures_match_the_known_vectors(timestamp, path, signature):
    assert sign(VENDOR_SECRET, timestamp, "POST", path) == signature


def test_a_row_carries_local_time_exact_digits_and_one_asset_identity():
    transport = kit.FakeTransport(kit.response({"status": "success", "data": True, "requestId": "r-1"}))
    assets = {"BTMX-S": {"symbol": "BTMX"}, "BTC": {"asset_id": "BTC-1"}, "SPAM": "ignore"}
    balances = [kit.balance("BTMX-S", "0.000000007"), kit.balance("BTC", "1E+3"), kit.balance("ETH", "-0.0")]
    store = MemoryStore()
    summary = kit.run(kit.elven(transport, assets=assets), store, [*balances, kit.balance("SPAM")])
    common = {"entityAccountId": "ENTITY", "sourceId": "SOURCE", "datetime": "2026-11-21 08:00:00"}
    request = transport.requests[0]
    assert request.url == "https://elven.test/open/v4/account/treasuryBalance"
    rows = {row.get("symbol") or row["assetID"]: row for row in transport.rows()}
    assert rows == {
        "BTMX": common | {"symbol": "BTMX", "balance": rows["BTMX"]["balance"]},
        "BTC-1": common | {"assetID": "BTC-1", "balance": 1000},
        "ETH": common | {"symbol": "ETH", "balance": 0},
    }
    assert b'"balance":0.000000007}' in request.body
    assert b'"balance":1000}' in request.body
    assert (summary.accepted_now, summary.ignored) == (3, 1)
    (result,) = kit.folded(store, "elven").events.results.values()
    assert result.request_id == "r-1"


def test_each_attempt_is_signed_with_its_own_time():
    limit = kit.response({}, 429, retry_after="7")
    transport = kit.FakeTransport(limit, kit.response({"success": True}))
    clock = FakeClock()
    kit.run(kit.elven(transport, clock=clock.clock), MemoryStore(), [kit.balance()], clock=clock.clock)
    first, second = (request.headers for request in transport.requests)
    assert int(second["elven-api-timestamp"]) - int(first["elven-api-timestamp"]) == 7000
    for headers in (first, second):
        path = "/open/v4/account/treasuryBalance"
        assert headers["elven-api-sign"] == sign(kit.SECRET, headers["elven-api-timestamp"], "POST", path)
        assert headers["elven-api-key"] == "elven-key-not-real"


@pytest.mark.parametrize(
    ("document", "outcome"),
    [
        ({"status": "success", "data": True}, "accepted"),
        ({"success": True}, "accepted"),
        ({"status": "success", "data": {"success": True}}, "accepted"),
        ({"status": "failed", "data": {"code": 19734, "message": "no"}}, "rejected"),
        ({"status": "success", "data": False}, "rejected"),
        ({"success": False}, "rejected"),
        ({"success": False, "code": 19734, "message": "no"}, "rejected"),
        ({"success": True, "code": None, "requestId": "r"}, "accepted"),
        ({"status": "failed", "success": True}, "unknown"),
        ({"status": "failed", "data": True}, "unknown"),
        ({"status": "success", "success": False}, "unknown"),
        ({"success": True, "data": False}, "unknown"),
        ({"success": True, "code": 19734}, "unknown"),
        ({"success": True, "error": "no such symbol"}, "unknown"),
        ({"success": True, "data": {"code": 19734}}, "unknown"),
        ({"status": "success", "data": {"code": 19734, "message": "no"}}, "unknown"),
        ({"status": "success", "data": {"success": True, "code": 19734}}, "unknown"),
        ({"status": "success", "data": {"failed": 3}}, "unknown"),
        ({"success": "false"}, "unknown"),
        ({"success": "false", "data": True}, "unknown"),
        ({"success": "true"}, "unknown"),
        ({"success": 1}, "unknown"),
        ({"success": 0}, "unknown"),
        ({"success": True, "data": 1}, "unknown"),
        ({"success": True, "data": "no"}, "unknown"),
        ({"success": True, "data": [False]}, "unknown"),
        ({"success": True, "status": "pending"}, "unknown"),
        ({"success": True, "status": True}, "unknown"),
        ({"status": "success"}, "unknown"),
        ({"code": 19734, "message": "no"}, "unknown"),
        ({"data": "true"}, "unknown"),
        ({"data": 1}, "unknown"),
        ([], "unknown"),
        (None, "unknown"),
    ],
)
def test_a_200_is_believed_only_in_its_documented_forms(document, outcome):
    store = MemoryStore()
    endings = {
        "accepted": nullcontext(),
        "rejected": pytest.raises(RecordsRejected),
        "unknown": pytest.raises(InvalidResponse),
    }
    with endings[outcome]:
        kit.run(kit.elven(kit.FakeTransport(kit.response(document))), store, [kit.balance()])
    assert kit.statuses(store, "elven") == {"BTC": outcome}


def test_the_error_of_a_refused_batch_names_code_message_and_assets():
    transport = kit.FakeTransport(
        kit.response({"status": "failed", "data": {"code": 19734, "message": "symbol not found"}}, 400)
    )
    with pytest.raises(Exception, match=r"19734 x2 \(BTC, ETH\): symbol not found") as caught:
        kit.run(kit.elven(transport), MemoryStore(), [kit.balance(), kit.balance("ETH")])
    assert type(caught.value).__name__ == "RecordsRejected"


def test_two_assets_with_one_symbol_are_refused_by_name_before_anything_happens():
    transport, store = kit.FakeTransport(None), MemoryStore()
    destination = kit.elven(transport, assets={"BTMX-S": {"symbol": "BTMX"}})
    with pytest.raises(ConfigurationError, match=r"BTMX at .* and BTMX-S at .*|BTMX-S at .* and BTMX at"):
        kit.run(destination, store, [kit.balance("BTMX"), kit.balance("BTMX-S")])
    assert not transport.requests
    assert not store.objects


def test_the_connection_test_signs_path_and_query_and_says_what_it_did_not_check():
    for document in ({"total": 3, "list": [{}]}, {"status": "success", "data": {"total": 3, "list": [{}]}}):
        transport = kit.FakeTransport(kit.response(document))
        ok, message = kit.elven(transport).check()
        assert ok
        assert "3 entity account" in message
        assert "Not checked" in message
    request = transport.requests[0]
    assert (request.method, request.url) == ("GET", "https://elven.test/open/v3/entityAccount")
    assert request.params == {"page": "1", "limit": "1"}
    signed = sign(kit.SECRET, request.headers["elven-api-timestamp"], "GET", "/open/v3/entityAccount?page=1&limit=1")
    assert request.headers["elven-api-sign"] == signed


def test_a_place_is_the_entity_account_and_keys_depend_on_source_and_zone():
    destination = kit.elven(kit.FakeTransport(None), url="https://Elven.test:443/eu")
    assert destination.place() == {"kind": "elven", "url": "https://elven.test/eu", "entity_account_id": "ENTITY"}
    assert destination.key_settings() == {"source_id": "SOURCE", "timezone": "Asia/Shanghai"}


def test_credentials_show_neither_key_nor_secret():
    assert (
        repr(Credentials("https://elven.test", "some-key", "some-secret"))
        == "Credentials(url='https://elven.test', name='')"
    )


@pytest.mark.parametrize(
    ("document", "status", "reason"),
    [({"status": "failed", "data": {"code": 1, "message": "bad"}}, 401, "401"), ({"a": 1}, 200, "not Elven's list")],
)
def test_the_connection_test_fails_with_the_reason(document, status, reason):
    ok, message = kit.elven(kit.FakeTransport(kit.response(document, status))).check()
    assert not ok
    assert reason in message
