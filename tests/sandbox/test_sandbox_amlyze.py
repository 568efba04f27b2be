from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balance_bridge.sandbox.wire import Journal, Number, instant_ms, plain, read_json


def row(number: str = "n1", **changes: Any) -> dict[str, Any]:
    right = {
        "accountExtId": "ASCENDEX-CASH-BTC",
        "balanceAt": "2026-11-20T00:00:00.000Z",
        "communicationNumber": number,
        "requester": "treasury",
        "value": 10,
    }
    return right | changes


def test_a_balance_is_registered_with_its_exact_digits(amlyze: Any) -> None:
    body = json.dumps({"accountBalances": [row(value="@", balanceType="STATEMENT_BALANCE")]}).replace(
        '"@"', "-0.000000007"
    )
    reply = amlyze.post(body.encode())
    assert reply.status == 200
    assert reply.document["results"][0]["resultType"] == "REQUEST_ACCEPTED"
    kept = amlyze.api.delivered[0]
    assert (kept.balance, kept.at_ms, kept.state) == (Decimal("-0.000000007"), 1_795_132_800_000, "new")
    assert kept.document()["balance"] == "-0.000000007"


def test_an_empty_list_is_answered_with_no_results(amlyze: Any) -> None:
    reply = amlyze.post({"accountBalances": []})
    assert (reply.status, reply.document["results"]) == (200, [])


def test_every_record_has_a_result_in_no_promised_order(amlyze: Any) -> None:
    numbers = [f"n{index}" for index in range(50)]
    reply = amlyze.post({"accountBalances": [row(number, businessUnit="sandbox") for number in numbers]})
    answered = [result["communicationNumber"] for result in reply.document["results"]]
    assert sorted(answered) == sorted(numbers)
    assert answered != numbers
    assert all(result["businessUnit"] == "sandbox" for result in reply.document["results"])


def test_the_business_unit_is_echoed_only_if_sent(amlyze: Any) -> None:
    assert "businessUnit" not in amlyze.send(row())["n1"]


def test_a_number_is_good_once_also_within_a_batch(amlyze: Any) -> None:
    reply = amlyze.post({"accountBalances": [row("a"), row("a"), row("b")]})
    codes = sorted(result.get("errorCode", "") for result in reply.document["results"])
    assert codes == ["", "", "O005"]
    assert amlyze.send(row("b"))["b"]["errorCode"] == "O005"
    assert len(amlyze.api.delivered) == 2


def test_a_rejected_record_uses_up_its_number(amlyze: Any) -> None:
    assert amlyze.send(row(value="text"))["n1"]["errorCode"] == "500"
    assert amlyze.send(row())["n1"]["errorCode"] == "O005"
    assert amlyze.send(row("n2"))["n2"]["resultType"] == "REQUEST_ACCEPTED"


@pytest.mark.parametrize(
    "changes",
    [
        {"accountExtId": "x" * 256},
        {"accountExtId": 7},
        {"communicationNumber": "x" * 256},
        {"requester": "x" * 101},
        {"balanceType": "x" * 256},
        {"businessUnit": "x" * 256},
        {"value": "10"},
        {"value": True},
        {"equivalentValue": "10"},
        {"balanceAt": "2026-11-20 00:00:00"},
        {"balanceAt": "2026-11-20T00:00:00"},
        {"balanceAt": "2026-11-31T00:00:00Z"},
        {"balanceAt": 1_795_132_800_000},
    ],
)
def test_a_record_with_bad_content_is_rejected_and_the_others_go(amlyze: Any, changes: dict[str, Any]) -> None:
    results = amlyze.send(row("bad") | changes, row("good"))
    assert results.pop("good")["resultType"] == "REQUEST_ACCEPTED"
    (bad,) = results.values()
    assert (bad["resultType"], bad["errorCode"]) == ("REQUEST_REJECTED", "500")
    assert [kept.number for kept in amlyze.api.delivered] == ["good"]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("accountExtId", "O001"),
        ("communicationNumber", "001"),
        ("requester", "001"),
        ("balanceAt", "001"),
        ("value", "001"),
    ],
)
@pytest.mark.parametrize("empty", [None, ""])
def test_a_missing_field_refuses_the_batch_and_registers_nothing(amlyze: Any, name: str, code: str, empty: Any) -> None:
    reply = amlyze.post({"accountBalances": [row("first"), row() | {name: empty}]})
    assert (reply.status, reply.document["resultType"], reply.document["errorCode"]) == (400, "REQUEST_REJECTED", code)
    assert amlyze.api.delivered == []
    assert amlyze.api.used == set()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b"nonsense",
        b'{"accountBalances": {}}',
        b'{"accountBalances": [1]}',
        b'{"accountBalances": [{"x": 1}]}',
    ],
)
def test_a_malformed_body_is_refused(amlyze: Any, body: bytes) -> None:
    assert amlyze.post(body).status == 400


def test_without_the_token_nothing_is_taken(amlyze: Any, journal: Journal) -> None:
    reply = amlyze.post({"accountBalances": [row()]}, authorization="Bearer sandbox-wrong")
    assert (reply.status, reply.document) == (401, {"error": {"code": "unauthorized"}})
    assert amlyze.api.delivered == []
    assert "sandbox-wrong" not in json.dumps(journal.document())


def test_other_paths_methods_and_content_types_are_refused_in_springs_form(amlyze: Any) -> None:
    for changes, status in (
        ({"path": "/amlyze-ws-rest/other"}, 404),
        ({"method": "GET"}, 405),
        ({"content-type": "text/plain"}, 415),
    ):
        reply = amlyze.post({"accountBalances": []}, **changes)
        assert reply.status == reply.document["status"] == status
        assert set(reply.document) == {"timestamp", "status", "error", "path"}


def test_an_unknown_account_is_rejected_where_accounts_are_configured(amlyze: Any) -> None:
    amlyze.api.accounts = frozenset({"ASCENDEX-CASH-BTC"})
    results = amlyze.send(row("a"), row("b", accountExtId="ASCENDEX-CASH-NO"))
    assert results["a"]["resultType"] == "REQUEST_ACCEPTED"
    assert results["b"]["errorCode"] == "404"


def test_a_second_balance_of_an_instant_is_marked(amlyze: Any) -> None:
    amlyze.send(row("a"))
    amlyze.send(row("b", balanceAt="2026-11-20T02:00:00.000+02:00"))
    amlyze.send(row("c", value=11))
    assert [kept.state for kept in amlyze.api.delivered] == ["new", "repeated", "overwritten"]


def test_instants_are_read_to_the_millisecond() -> None:
    assert instant_ms("2023-09-05T08:07:34.605Z") == 1_693_901_254_605
    assert instant_ms("1970-01-01T02:00:00+02:00") == 0


@given(st.decimals(allow_nan=False, allow_infinity=False, places=18, min_value=-(10**12), max_value=10**12))
def test_a_number_keeps_its_digits_and_is_written_plainly(amount: Decimal) -> None:
    number = read_json(format(amount, "f").encode())
    assert isinstance(number, Number)
    assert number == amount
    assert number.text == format(amount, "f")
    text = plain(amount)
    assert Decimal(text) == amount
    assert "E" not in text
    assert text != "-0"
    assert not (("." in text) and text.endswith("0"))
