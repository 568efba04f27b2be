from __future__ import annotations

from contextlib import suppress

import pytest

import delivery_kit as kit
from balance_bridge.errors import ConnectionFailed, InvalidResponse, OutcomeUnknown, RecordsRejected, ResponseLost
from balance_bridge.load.documents import Resolution, Said, Word
from balance_bridge.load.log import DayLog
from doubles import MemoryStore


def result(number: str, kind: str = "REQUEST_ACCEPTED", code: str | None = None) -> dict:
    return {"communicationNumber": number, "resultType": kind, "errorCode": code, "errorDescription": "because"}


def results(*rows, status=200):
    return kit.response({"results": list(rows), "timeElapsedMs": 3}, status)


NUMBER = "bb-main_cash.amlyze-BTC-20261121T000000000Z-1"


def test_a_record_carries_what_is_documented_and_only_that():
    transport = kit.FakeTransport(kit.FakeAmlyzeServer())
    kit.run(kit.amlyze(transport), MemoryStore(), [kit.balance(amount="-0.000000007")])
    assert transport.rows() == [
        {
            "accountExtId": "CASH-BTC",
            "balanceAt": "2026-11-21T00:00:00.000Z",
            "requester": "treasury",
            "value": transport.rows()[0]["value"],
            "communicationNumber": NUMBER,
        }
    ]
    assert b'"value":-0.000000007,' in transport.requests[0].body
    assert transport.requests[0].headers["authorization"] == f"Bearer {kit.TOKEN}"
    assert transport.requests[0].url == "https://amlyze.test/amlyze-ws-rest/batch-account-balances"
    assert transport.requests[0].timeout_s == 30.5


def test_optional_fields_go_out_when_configured():
    transport = kit.FakeTransport(kit.FakeAmlyzeServer())
    options = {"balance_type": "DAILY_BALANCE", "business_unit": "sandbox", "assets": {"SPAM": "ignore"}}
    summary = kit.run(kit.amlyze(transport, **options), MemoryStore(), [kit.balance(), kit.balance("SPAM")])
    assert transport.rows()[0]["balanceType"] == "DAILY_BALANCE"
    assert transport.rows()[0]["businessUnit"] == "sandbox"
    assert summary.ignored == 1


def test_an_asset_without_account_is_rejected_by_name_and_the_others_go():
    transport, store = kit.FakeTransport(kit.FakeAmlyzeServer()), MemoryStore()
    destination = kit.amlyze(transport, account_ext_id={"BTC": "acc-1"})
    with pytest.raises(RecordsRejected, match=r"LOCAL x1 \(NO\): account_ext_id has no entry for this asset") as caught:
        kit.run(destination, store, [kit.balance("NO"), kit.balance()])
    assert caught.value.summary.accepted_now == 1
    assert caught.value.summary.rejected_locally == 1
    assert kit.statuses(store) == {"BTC": "accepted", "NO": "rejected"}
    # Repeated and corrected: nothing of the old rejection remains.
    corrected = kit.amlyze(transport, account_ext_id={"BTC": "acc-1", "NO": "acc-2"})
    kit.run(corrected, store, [kit.balance("NO"), kit.balance()])
    assert kit.statuses(store) == {"BTC": "accepted", "NO": "accepted"}


def test_an_account_id_that_is_too_long_is_rejected_before_sending():
    transport = kit.FakeTransport(kit.FakeAmlyzeServer())
    with pytest.raises(RecordsRejected, match="255 are allowed") as caught:
        kit.run(kit.amlyze(transport), MemoryStore(), [kit.balance("X" * 251), kit.balance("Y" * 200)])
    assert caught.value.summary.accepted_now == 1


def test_a_record_without_result_is_unknown_and_goes_out_again_unchanged():
    store, server = MemoryStore(), kit.FakeAmlyzeServer()
    transport = kit.FakeTransport(results(result("foreign-1"), {"a": 1}, "text"))
    with pytest.raises(OutcomeUnknown) as caught:
        kit.run(kit.amlyze(transport), store, [kit.balance()])
    assert (caught.value.summary.unknown, caught.value.summary.foreign) == (1, 3)
    second = kit.FakeTransport(server)
    summary = kit.run(kit.amlyze(second), store, [kit.balance()])
    assert second.requests[0].body == transport.requests[0].body
    assert (summary.accepted_now, summary.resent) == (1, 1)


@pytest.mark.parametrize(
    ("rows", "outcome"),
    [
        ([("REQUEST_ACCEPTED", None), ("REQUEST_ACCEPTED", None)], "accepted"),
        ([("REQUEST_ACCEPTED", None), ("REQUEST_REJECTED", "1")], "unknown"),
        ([("REQUEST_REJECTED", "1"), ("REQUEST_ACCEPTED", None)], "unknown"),
        ([("REQUEST_ACCEPTED", None), ("REQUEST_REJECTED", "1"), ("REQUEST_ACCEPTED", None)], "unknown"),
        ([("REQUEST_ACCEPTED", None), ("REQUEST_REJECTED", "O005")], "unknown"),
        *(([("REQUEST_ACCEPTED", code)], "unknown") for code in ("1", 0, 1.5, True, ["O001"], {"code": "O001"})),
        ([("REQUEST_ACCEPTED", "")], "accepted"),
        ([("REQUEST_REJECTED", "1"), ("REQUEST_REJECTED", "O005")], "unknown"),
        ([("REQUEST_REJECTED", "1"), ("REQUEST_REJECTED", "1")], "rejected"),
        ([("REQUEST_REJECTED", "O005")], "unknown"),
        ([("REQUEST_PARKED", None)], "unknown"),
        ([(None, None)], "unknown"),
        ([("REQUEST_REJECTED", None)], "rejected"),
    ],
)
def test_results_that_contradict_each_other_say_nothing(rows, outcome):
    store = MemoryStore()
    transport = kit.FakeTransport(results(*[result(NUMBER, *row) for row in rows]))
    with suppress(OutcomeUnknown, RecordsRejected):
        kit.run(kit.amlyze(transport), store, [kit.balance()])
    assert kit.statuses(store) == {"BTC": outcome}


def test_already_used_settles_a_lost_response_as_seen_and_is_never_sent_again():
    store, server = MemoryStore(), kit.FakeAmlyzeServer()
    with pytest.raises(OutcomeUnknown):
        kit.run(kit.amlyze(kit.FakeTransport(ResponseLost("cut"))), store, [kit.balance()])
    server.used.add(NUMBER)
    transport = kit.FakeTransport(server)
    first = kit.run(kit.amlyze(transport), store, [kit.balance()])
    second = kit.run(kit.amlyze(transport), store, [kit.balance()])
    assert (first.seen, second.seen, second.requests) == (1, 1, 0)
    assert kit.statuses(store) == {"BTC": "seen"}
    # Another amount for the same key goes out under a new number.
    third = kit.run(kit.amlyze(transport), store, [kit.balance(amount="2")])
    assert (third.accepted_now, third.superseded) == (1, 1)


def test_already_used_before_it_was_ever_sent_stays_unknown_and_says_why_until_a_person_resolves_it():
    store, server = MemoryStore(), kit.FakeAmlyzeServer()
    server.used.add(NUMBER)
    transport = kit.FakeTransport(server)
    for options in ({}, {"redeliver": True}, {}):
        with pytest.raises(OutcomeUnknown, match=r"BTC \(the number was used before, but not by this day's delivery"):
            kit.run(kit.amlyze(transport), store, [kit.balance()], **options)
        assert kit.statuses(store) == {"BTC": "unknown"}
    assert {row["communicationNumber"] for index in range(3) for row in transport.rows(index)} == {NUMBER}
    log = DayLog(store, "main_cash", kit.DAY, "amlyze")
    log.read()
    log.put_resolution(Resolution("Ada", "asked", "now", {NUMBER: Word(Said.REJECTED, text="not there")}))
    assert kit.run(kit.amlyze(transport), store, [kit.balance()]).accepted_now == 1
    assert len(server.accepted) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>login</html>",
        b"[]",
        b"{}",
        b'{"results": {}}',
        b"[" * 300,
        b"[" * 100_000,
        b'{"results": NaN}',
        b'{"results": 1e99999999999999999999}',
        b'{"results": %s}' % (b"9" * 5000),
        b'{"results": [], "results": []}',
        b"\xff",
    ],
)
def test_a_200_that_is_not_the_apis_response_leaves_the_outcome_unknown_and_stops(body):
    store, transport = MemoryStore(), kit.FakeTransport(kit.response(body=body))
    with pytest.raises(InvalidResponse, match="unknown"):
        kit.run(kit.amlyze(transport, max_rows=1), store, [kit.balance(), kit.balance("ETH")])
    assert len(transport.requests) == 1
    assert kit.statuses(store) == {"BTC": "unknown", "ETH": "planned"}


@pytest.mark.parametrize(
    ("document", "code", "text"),
    [
        (
            {"resultType": "REQUEST_REJECTED", "errorCode": "O001", "errorDescription": "extId is mandatory"},
            "O001",
            "extId",
        ),
        ({"timestamp": "t", "status": 400, "error": "Bad Request", "path": "/p"}, "HTTP 400", "Bad Request"),
        ({"errors": ["a is missing", "b too"]}, "HTTP 400", "a is missing; b too"),
        ({"error": {"code": "broken"}}, "broken", "broken"),
        (["?"], "HTTP 400", "bytes"),
    ],
)
def test_a_refused_batch_rejects_its_rows_with_the_reason_and_the_others_go_on(document, code, text):
    transport = kit.FakeTransport(kit.response(document, 400), kit.FakeAmlyzeServer())
    store = MemoryStore()
    with pytest.raises(RecordsRejected) as caught:
        kit.run(kit.amlyze(transport, max_rows=1), store, [kit.balance("A"), kit.balance("B")])
    assert caught.value.summary.accepted_now == 1
    assert text in caught.value.summary.reasons[code].text
    assert kit.statuses(store) == {"A": "rejected", "B": "accepted"}


@pytest.mark.parametrize(
    ("reply", "passed", "part"),
    [
        (({"results": []}, 200), True, "no balance was registered"),
        (({"resultType": "REQUEST_REJECTED", "errorCode": "001", "errorDescription": "empty"}, 400), True, "own form"),
        (({"error": {"code": "unauthorized"}}, 401), False, "token is not accepted"),
        (({"timestamp": "t", "status": 404, "error": "Not Found", "path": "/x"}, 404), False, "not how Amlyze"),
        (({"ok": True}, 200), False, "not how Amlyze"),
        (({}, 503), False, "503"),
    ],
)
def test_the_connection_test_passes_only_if_the_token_is_accepted(reply, passed, part):
    transport = kit.FakeTransport(kit.response(*reply))
    ok, message = kit.amlyze(transport).check()
    assert (ok, part in message) == (passed, True)
    assert transport.requests[0].body == b'{"accountBalances":[]}'
    assert ("Not checked" in message) == passed


def test_a_place_is_the_tenant():
    destination = kit.amlyze(kit.FakeTransport(None))
    assert destination.place() == {"kind": "amlyze", "url": "https://amlyze.test"}
    assert destination.key_settings() == {}


def test_the_connection_test_reports_that_nobody_was_reached():
    ok, message = kit.amlyze(kit.FakeTransport(ConnectionFailed("POST https://amlyze.test: no connection"))).check()
    assert not ok
    assert "no connection" in message
