"""What Amlyze is sent, and how its sandbox responds, against the vendor's description, by an independent validator.

The schema in ``schemas/amlyze.json`` restates that description.
"""

from __future__ import annotations

import json
import re
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from destination_conformance import BAD, FAULTS, RESULT_FAULTS, Run, balances
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend
from test_destination_conformance import AmlyzeHarness

from balance_bridge.load.destination import Balance
from balance_bridge.sandbox.wire import Call, Reply
from delivery_kit import balance
from doubles import examples

SCHEMA = json.loads((Path(__file__).parent / "schemas" / "amlyze.json").read_text())
DATE_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")
FORMATS = FormatChecker(formats=())
ASSET = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S")), min_size=1, max_size=12)
AMOUNT = st.decimals(Decimal("-1e19"), Decimal("1e19"), places=18, allow_nan=False, allow_infinity=False)
TEXT = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1, max_size=40)


@FORMATS.checks("date-time", raises=ValueError)
def _is_date_time(value: object) -> bool:
    if not isinstance(value, str):
        return True
    if not DATE_TIME.fullmatch(value):
        return False
    datetime.fromisoformat(value.upper())
    return True


def _is_number(_: Any, instance: object) -> bool:
    # Read by their digits, so that no float takes part in the check.
    return isinstance(instance, int | Decimal) and not isinstance(instance, bool)


Exact: Any = extend(Draft202012Validator, type_checker=Draft202012Validator.TYPE_CHECKER.redefine("number", _is_number))


def faults(name: str, document: Any) -> list[ValidationError]:
    """What is wrong with a document, by one definition of the schema."""
    schema = {"$ref": f"#/$defs/{name}", "$defs": SCHEMA["$defs"]}
    return list(Exact(schema, format_checker=FORMATS).iter_errors(document))


def read(body: bytes) -> Any:
    return json.loads(body, parse_float=Decimal)


def test_the_schema_is_one_and_knows_every_format_that_it_names() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert set(re.findall(r'"format": "([^"]+)"', json.dumps(SCHEMA))) == set(FORMATS.checkers)


@settings(max_examples=examples(20), deadline=None)
@given(
    st.lists(st.tuples(ASSET, AMOUNT, st.none() | AMOUNT), min_size=1, max_size=8, unique_by=lambda row: row[0]),
    st.integers(0, 4_000_000_000_000),
    TEXT,
    st.none() | TEXT,
    st.none() | TEXT,
)
def test_every_request_of_the_destination_is_valid_by_the_vendors_description(
    rows: list[tuple[str, Decimal, Decimal | None]], at_ms: int, requester: str, kind: str | None, unit: str | None
) -> None:
    harness = AmlyzeHarness()
    run = Run(harness)
    due = [Balance(asset, at_ms, amount, "close", worth) for asset, amount, worth in rows]
    run.until_green(due, requester=requester, balance_type=kind, business_unit=unit, max_rows=3)
    sent = [row for body in harness.line.bodies for row in read(body)["accountBalances"]]
    assert len(sent) == len(due)
    for body in harness.line.bodies:
        assert faults("request", read(body)) == []
    assert harness.destination().check()[0]
    assert faults("request", read(harness.line.bodies[-1])) == []


class Listening(AmlyzeHarness):
    """Keeps what the sandbox responds, before anything happens to it on its way."""

    def __init__(self) -> None:
        super().__init__()
        self.replies: list[Reply] = []

    def respond(self, call: Call) -> Reply:
        self.replies.append(super().respond(call))
        return self.replies[-1]


def test_a_request_at_every_limit_is_valid_and_keeps_its_digits() -> None:
    harness = AmlyzeHarness()
    amounts = [Decimal(sign + "9" * 20 + "." + "9" * 18) for sign in ("", "-")] + [Decimal("1e-18"), Decimal("-0")]
    due = [Balance(f"A{index}", 0, amount, "close", amount.copy_negate()) for index, amount in enumerate(amounts)]
    ids = {row.asset: row.asset + "\N{GRINNING FACE}" * 253 for row in due}
    Run(harness).until_green(
        due, requester="x" * 100, account_ext_id=ids, balance_type="x" * 255, business_unit="x" * 255
    )
    (document,) = map(read, harness.line.bodies)
    assert faults("request", document) == []
    assert {(row["accountExtId"], Decimal(row["value"])) for row in document["accountBalances"]} == {
        (ids[row.asset], row.amount) for row in due
    }


@pytest.mark.parametrize("fault", [*FAULTS, *RESULT_FAULTS])
def test_what_is_sent_again_or_in_parts_or_corrected_is_valid_as_well(fault: str) -> None:
    harness = Listening()
    harness.line.faults[0] = {**FAULTS, **RESULT_FAULTS}[fault]
    harness.refuse_bad()
    run = Run(harness)
    for _ in range(4):
        run.once([*balances(5), balance(BAD)], max_rows=4)
    run.once([balance("A0", "-7.25")])
    assert len(harness.line.bodies) > 3
    for body in harness.line.bodies:
        assert faults("request", read(body)) == []
    assert harness.replies
    for reply in harness.replies:
        assert faults("response" if reply.status == 200 else "error", read(reply.body())) == []


@given(st.data())
def test_a_request_of_the_destination_with_one_flaw_is_found(data: st.DataObject) -> None:
    harness = AmlyzeHarness()
    Run(harness).until_green(
        [Balance("A0", 0, Decimal("-7.5"), "close", Decimal(3))], balance_type="CLOSE", business_unit="sandbox"
    )
    document = read(harness.line.bodies[0])
    (record,) = document["accountBalances"]
    assert set(record) == set(SCHEMA["$defs"]["balance"]["properties"])
    name = data.draw(st.sampled_from(sorted(record)))
    value = record.pop(name)
    kind = data.draw(st.sampled_from(["renamed", "of another type", "null", "too long", "missing"]))
    if kind == "renamed":
        record[name + "s"] = value
    elif kind == "of another type":
        record[name] = 7 if isinstance(value, str) else str(value)
    elif kind == "null":
        record[name] = None
    elif kind == "too long":
        # No number is too long, but a list of them is no number.
        record[name] = value * 256 if isinstance(value, str) else [value]
    elif name not in SCHEMA["$defs"]["balance"]["required"]:
        # What is optional may be missing; its list may not.
        document = {}
    assert faults("request", document)


def changed(**fields: Any) -> dict[str, Any]:
    record = {
        "accountExtId": "CASH-BTC",
        "balanceAt": "2026-11-21T00:00:00.000Z",
        "communicationNumber": "bb-1",
        "requester": "treasury",
        "value": Decimal("1.5"),
        **fields,
    }
    return {"accountBalances": [{name: value for name, value in record.items() if value is not ...}]}


@pytest.mark.parametrize(
    "fields",
    [
        {"value": "1.5"},
        {"value": None},
        {"value": True},
        {"value": ...},
        {"accountExtId": ...},
        {"balanceAt": ...},
        {"communicationNumber": ...},
        {"requester": ...},
        {"balanceAt": "2026-11-21 00:00:00"},
        {"balanceAt": "2026-11-21T00:00:00.000"},
        {"balanceAt": "2026-13-21T00:00:00.000Z"},
        {"balanceAt": 1795219200000},
        {"requester": "x" * 101},
        {"accountExtId": "x" * 256},
        {"accountExtId": ""},
        {"communicationNumber": 7},
        {"equivalentValue": "3.00"},
        {"balancetype": "STATEMENT_BALANCE"},
        {"currency": "BTC"},
    ],
    ids=str,
)
def test_a_request_that_the_vendor_does_not_describe_is_found(fields: dict[str, Any]) -> None:
    assert faults("request", changed()) == []
    assert faults("request", changed(**fields))


def asked(
    harness: AmlyzeHarness, body: Any, *, path: str = "/amlyze-ws-rest/batch-account-balances", **headers: str
) -> Any:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    given = {"authorization": f"Bearer {harness.secrets[0]}", "content-type": "application/json", **headers}
    reply = harness.respond(Call("POST", path, "", given, content))
    return reply.status, json.loads(reply.body(), parse_float=Decimal)


def records(*numbers: str, **fields: Any) -> dict[str, Any]:
    rows = [changed(**{"communicationNumber": number, "value": 7, **fields}) for number in numbers]
    return {"accountBalances": [row for document in rows for row in document["accountBalances"]]}


@pytest.mark.parametrize(
    ("what", "status", "form"),
    [
        ("accepted", 200, "response"),
        ("rejected", 200, "response"),
        ("used", 200, "response"),
        ("empty", 200, "response"),
        ("lacking", 400, "error"),
        ("no json", 400, "error"),
        ("no token", 401, "unauthorized"),
        ("no such path", 404, "error"),
        ("no such type", 415, "error"),
    ],
)
def test_the_sandbox_responds_as_the_vendor_describes(what: str, status: int, form: str) -> None:
    harness = AmlyzeHarness()
    harness.refuse_bad()
    said = {
        "accepted": lambda: asked(harness, records("n1", "n2", accountExtId="CASH-A0", businessUnit="sandbox")),
        "rejected": lambda: asked(harness, records("n1", accountExtId="CASH-NOBODY")),
        "used": lambda: [asked(harness, records("n1", accountExtId="CASH-A0")) for _ in range(2)][1],
        "empty": lambda: asked(harness, {"accountBalances": []}),
        "lacking": lambda: asked(harness, records("n1", accountExtId=...)),
        "no json": lambda: asked(harness, b"{"),
        "no token": lambda: asked(harness, records("n1"), authorization="Bearer wrong"),
        "no such path": lambda: asked(harness, records("n1"), path="/amlyze-ws-rest/balances"),
        "no such type": lambda: asked(harness, records("n1"), **{"content-type": "text/plain"}),
    }[what]()
    assert said[0] == status
    assert faults(form, said[1]) == []
    # The forms exclude one another, but for a document that says nothing.
    assert not said[1] or all(faults(other, said[1]) for other in {"response", "error", "unauthorized"} - {form})


@pytest.mark.parametrize(
    "document",
    [
        {"results": [{"resultType": "ACCEPTED"}]},
        {"results": [{"resultType": "REQUEST_ACCEPTED", "number": "n1"}]},
        {"results": {}},
        {"results": [{"communicationNumber": "x" * 256}]},
        {"results": [], "timeElapsedMs": "7"},
    ],
    ids=str,
)
def test_a_response_that_the_vendor_does_not_describe_is_found(document: Any) -> None:
    assert faults("response", document)


@pytest.mark.parametrize(
    ("form", "document"),
    [
        ("error", {"error": {"code": "unauthorized"}}),
        ("error", {"errorCode": 1}),
        ("error", {"errors": "O001"}),
        ("error", {"status": "400"}),
        ("error", {"code": "O001"}),
        ("unauthorized", {}),
        ("unauthorized", {"error": "unauthorized"}),
        ("unauthorized", {"error": {"code": 401}}),
    ],
    ids=str,
)
def test_a_refusal_that_the_vendor_does_not_describe_is_found(form: str, document: Any) -> None:
    assert faults(form, document)


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"accountExtId": 7}, 200, "500"),
        ({"accountExtId": ["x"]}, 200, "500"),
        ({"accountExtId": "x" * 256}, 200, "500"),
        ({"communicationNumber": "x" * 256}, 200, "500"),
        ({"requester": "x" * 101}, 200, "500"),
        ({"businessUnit": 7}, 200, "500"),
        ({"balanceType": "x" * 256}, 200, "500"),
        ({"value": "7"}, 200, "500"),
        ({"equivalentValue": True}, 200, "500"),
        ({"balanceAt": "yesterday"}, 200, "500"),
        ({"accountExtId": "CASH-NOBODY"}, 200, "404"),
        ({"accountExtId": ...}, 400, "O001"),
        ({"balanceAt": ...}, 400, "001"),
        ({"communicationNumber": ...}, 400, "001"),
        ({"communicationNumber": 7}, 400, "001"),
        ({"requester": ...}, 400, "001"),
        ({"value": ...}, 400, "001"),
        ({"currency": "BTC"}, 400, "400"),
    ],
    ids=str,
)
def test_the_sandboxs_refusals_are_as_the_vendor_describes(fields: dict[str, Any], status: int, code: str) -> None:
    harness = AmlyzeHarness()
    harness.refuse_bad()
    reported, said = asked(harness, records("n1", **{"accountExtId": "CASH-A0", **fields}))
    refusal = said["results"][0] if status == 200 else said
    assert (reported, refusal["resultType"], refusal["errorCode"]) == (status, "REQUEST_REJECTED", code)
    assert faults("response" if status == 200 else "error", said) == []


def test_the_sandbox_refuses_what_the_description_refuses() -> None:
    for fields in (
        {"value": "1.5"},
        {"requester": "x" * 101},
        {"balanceAt": "2026-11-21 00:00:00"},
        {"currency": "BTC"},
    ):
        harness = AmlyzeHarness()
        document = records("n1", **{"accountExtId": "CASH-A0", **fields})
        assert faults("request", document)
        status, said = asked(harness, document)
        assert status == 400 or said["results"][0]["resultType"] == "REQUEST_REJECTED"
        assert harness.books() == []
