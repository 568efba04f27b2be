"""What the webhook has that other destinations have not; the rest is in the conformance suite."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from pathlib import Path
from typing import Any

import pytest
from destination_conformance import Line, Run, balances, lost_after
from test_destination_conformance import WebhookHarness

from balance_bridge.errors import InvalidResponse, OutcomeUnknown
from balance_bridge.load.webhook import Webhook
from balance_bridge.sandbox.wire import Reply
from delivery_kit import balance, response

NUMBER = "bb-main_cash.webhook-A0-20261121T000000000Z-1"
DOCS = Path(__file__).parents[2] / "docs" / "destinations.md"


@pytest.fixture
def harness() -> WebhookHarness:
    return WebhookHarness()


def body_of(line: Line, index: int = -1) -> Any:
    return json.loads(line.bodies[index], parse_float=str, parse_int=str)


def test_a_request_has_the_documented_form(harness: WebhookHarness) -> None:
    run = Run(harness)
    run.until_green([balance("BTC", "1.25")])
    run.until_green([balance("BTC", "1.5")])
    number = "bb-main_cash.webhook-BTC-20261121T000000000Z"
    assert body_of(harness.line) == {
        "schema": "balance-bridge/balances/1",
        "account": "main_cash",
        "destination": "webhook",
        "balances": [
            {
                "number": f"{number}-2",
                "asset": "BTC",
                "at": "2026-11-21T00:00:00.000Z",
                "balance": "1.5",
                "points": ["close"],
                "replaces": f"{number}-1",
                "supersedes": "1.25",
            }
        ],
    }
    assert {"replaces", "supersedes"}.isdisjoint(body_of(harness.line, 0)["balances"][0])


def test_the_signature_covers_timestamp_and_body(harness: WebhookHarness) -> None:
    Run(harness).until_green(balances(1))
    (headers,), (body,) = harness.line.headers, harness.line.bodies
    stamp = headers["x-balance-bridge-timestamp"]
    assert stamp == str(int(harness.clock.now * 1000))
    expected = hmac.new(b"webhook-secret-not-real", stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    assert headers["x-balance-bridge-signature"] == expected


def test_the_same_rows_have_the_same_key_and_other_rows_another(harness: WebhookHarness) -> None:
    harness.line.faults[0] = lost_after
    run = Run(harness)
    run.once(balances(2))
    run.until_green(balances(2))
    run.until_green(balances(3))
    first, again, other = (headers["idempotency-key"] for headers in harness.line.headers)
    assert first == again != other


@pytest.mark.parametrize(
    ("header", "change"),
    [
        ("x-balance-bridge-signature", lambda value: "0" * 64),
        ("x-balance-bridge-timestamp", lambda value: str(int(value) + 1)),
        ("x-balance-bridge-timestamp", lambda value: str(int(value) - 301_000)),
        ("idempotency-key", lambda value: ""),
    ],
)
def test_the_sandbox_s_receiver_takes_no_request_that_was_tampered_with(
    harness: WebhookHarness, header: str, change: Any
) -> None:
    send = harness.line.send

    def tampered(*args: Any, headers: dict[str, str], **options: Any) -> Any:
        return send(*args, headers=headers | {header: change(headers[header])}, **options)

    harness.line.send = tampered  # type: ignore[method-assign]
    assert Run(harness).once(balances(1)) is not None
    assert harness.books() == []


def test_the_status_accepted_without_results_accepts_all_balances() -> None:
    harness = WebhookHarness(brief=True)
    run = Run(harness)
    run.until_green(balances(4))
    assert set(run.outcomes().values()) == {"accepted"}
    assert len(harness.books()) == 4


@pytest.mark.parametrize(
    "document",
    [
        {},
        None,
        [],
        "accepted",
        {"status": "ok"},
        {"status": "rejected"},
        {"status": ["accepted"]},
        {"results": {}},
        {"results": "all", "status": "accepted"},
        {"status": "accepted", "code": "BAD_RECORD"},
        {"status": "accepted", "results": [{"number": NUMBER, "status": "rejected", "code": "X"}]},
        {"status": "accepted", "results": [{"number": NUMBER, "status": "later"}]},
        {"status": "rejected", "results": [{"number": NUMBER, "status": "accepted"}]},
    ],
)
def test_a_response_without_a_documented_word_accepts_nothing(harness: WebhookHarness, document: Any) -> None:
    harness.line.faults[0] = lambda harness, act: response(document)
    run = Run(harness)
    assert isinstance(run.once(balances(2)), InvalidResponse)
    assert set(run.outcomes().values()) == {"unknown"}


def test_a_page_s_empty_200_accepts_nothing(harness: WebhookHarness) -> None:
    harness.line.faults[0] = lambda harness, act: response(None, body=b"")
    run = Run(harness)
    assert isinstance(run.once(balances(2)), InvalidResponse)
    assert set(run.outcomes().values()) == {"unknown"}


@pytest.mark.parametrize(
    ("results", "outcome"),
    [
        ([{"status": "accepted"}], "accepted"),
        ([{"status": "rejected", "code": "X", "text": "no"}], "rejected"),
        ([{"status": "taken"}], "unknown"),
        ([{}], "unknown"),
        ([{"status": "accepted"}, {"status": "rejected"}], "unknown"),
        ([{"status": "accepted", "code": "X"}], "unknown"),
        ([{"status": "accepted", "text": "thank you"}], "accepted"),
        ([{"status": "rejected"}, {"status": "later"}], "unknown"),
    ],
)
def test_a_result_says_what_became_of_its_number(harness: WebhookHarness, results: list[Any], outcome: str) -> None:
    def reported(harness: Any, act: Any) -> Any:
        number = json.loads(harness.line.bodies[-1])["balances"][0]["number"]
        return response({"results": [{"number": number, **result} for result in results]})

    harness.line.faults[0] = reported
    run = Run(harness)
    run.once(balances(1))
    assert run.outcomes() == {"A0": outcome}


def test_409_after_a_lost_response_is_seen_and_green_but_marked() -> None:
    harness = WebhookHarness(conflicts=True)
    harness.line.faults[0] = lost_after
    run = Run(harness)
    assert isinstance(run.once(balances(2)), OutcomeUnknown)
    assert run.once(balances(2)) is None
    assert run.summary.seen == 2
    assert set(run.outcomes().values()) == {"seen"}


def test_409_to_numbers_that_were_never_sent_is_no_delivery(harness: WebhookHarness) -> None:
    harness.line.faults[0] = lambda harness, act: response({"code": "SEEN", "text": "had it"}, 409)
    run = Run(harness)
    error = run.once(balances(2))
    assert isinstance(error, OutcomeUnknown)
    assert "another deployment" in str(error)
    assert set(run.outcomes().values()) == {"unknown"}


def test_the_url_is_posted_to_as_it_was_given() -> None:
    harness = WebhookHarness()
    asked = []
    send = harness.line.send

    def noted(method: str, url: str, **options: Any) -> Any:
        asked.append(url)
        return send(method, url, **options)

    harness.line.send = noted  # type: ignore[method-assign]
    for url in ("https://ledger.test/in/", "https://ledger.test/in", "https://ledger.test:8443"):
        harness.destination(url=url).check()
    assert asked == ["https://ledger.test/in/", "https://ledger.test/in", "https://ledger.test:8443"]


def test_a_place_keeps_a_slash_at_the_end_only_where_it_makes_a_difference(harness: WebhookHarness) -> None:
    places = [harness.destination(url=f"https://ledger.test{path}").place()["url"] for path in ("", "/", "/in", "/in/")]
    assert places == ["https://ledger.test", "https://ledger.test", "https://ledger.test/in", "https://ledger.test/in/"]


def test_the_connection_test_finds_a_wrong_secret(harness: WebhookHarness) -> None:
    assert harness.destination().check()[0]
    right, reported = harness.destination(secret="another-not-real").check()
    assert not right
    assert "shared secret" in reported
    assert "another-not-real" not in reported


def test_the_connection_test_passes_again_and_again() -> None:
    for harness in (WebhookHarness(conflicts=True), WebhookHarness(), WebhookHarness(brief=True)):
        assert [harness.destination().check()[0] for _ in range(3)] == [True, True, True]


def test_the_receiver_in_the_docs_takes_every_balance_once_and_no_forged_request(
    harness: WebhookHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = next(block for block in re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.S) if "def receive" in block)
    there: dict[str, Any] = {}
    monkeypatch.setenv("BALANCES_SECRET", harness.secrets[0])
    exec(compile(code, str(DOCS), "exec"), there)  # the documentation's own words, run as they stand

    def received(call: Any) -> Any:
        status, document = there["receive"](call.headers, call.body, int(harness.clock.now * 1000))
        return Reply(status, document)

    harness.respond = received  # type: ignore[method-assign]
    harness.line.faults[0] = lost_after
    run = Run(harness)
    assert run.once(balances(3)) is not None
    run.until_green(balances(3))
    assert run.outcomes() == {"A0": "accepted", "A1": "accepted", "A2": "accepted"}
    assert {asset: amount for (_, asset, _), amount in there["ledger"].items()} == {
        each.asset: each.amount for each in balances(3)
    }
    taken = dict(there["ledger"])
    assert Run(harness).once([balance("A0", "9")], secret="another-not-real") is not None
    assert there["ledger"] == taken


def test_a_webhook_s_repr_and_class_say_nothing_secret(harness: WebhookHarness) -> None:
    made = harness.destination()
    assert isinstance(made, Webhook)
    assert harness.secrets[0] not in repr(made)
