"""The promises of a delivery, as they show from outside: what is sent, what is written, and how it ends."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest

import delivery_kit as kit
from balance_bridge.errors import (
    BalanceBridgeError,
    ConnectionFailed,
    CredentialsRefused,
    InvalidResponse,
    OutcomeUnknown,
    PermanentError,
    RateLimited,
    RecordsRejected,
    RequestRefused,
    ResponseLost,
    ServerFault,
    StoreUnwritable,
    SupersededRun,
    Unconfirmed,
)
from balance_bridge.load.delivery import MAX_DIVISIONS
from balance_bridge.load.documents import Plan, Resolution, Said, Word, decode
from balance_bridge.load.fold import fold
from balance_bridge.load.log import DayLog
from doubles import FakeClock, Killed, MemoryStore

OK = {"status": "success", "data": True}
FOLDER = "receipts/main_cash/2026-11-20"


def numbers(transport, index=-1):
    return [row["communicationNumber"].rpartition("-")[2] for row in transport.rows(index)]


def balances(count):
    return [kit.balance(f"A{index:03d}") for index in range(count)]


def lose(server):
    """The server acts, and its response is lost."""

    def act(body):
        server(body)
        return ResponseLost("the connection was reset")

    return act


def test_every_balance_is_counted_once_and_planned_before_it_is_sent():
    store, there, lines = MemoryStore(), [], []

    def serve(body):
        there.append(sorted(key.removeprefix(f"{FOLDER}/elven/") for key in store.objects if key.startswith(FOLDER)))
        return kit.response(OK)

    target = kit.elven(kit.FakeTransport(serve), max_rows=2)
    summary = kit.run(target, store, balances(5), log=lines.append, run_id="run-1")
    assert (summary.rows, summary.accepted_now, summary.requests, summary.batches, summary.pending) == (5, 5, 3, 3, 0)
    first = ["plan-0001.jsonl.gz", "plan-0001/0001.try.jsonl"]
    second = ["plan-0001/0001.res.jsonl", "plan-0001/0002.try.jsonl"]
    assert there[:2] == [first, sorted([*first, *second])]
    assert lines[1:] == [
        "elven: request 1 of 3: 2 accepted",
        "elven: request 2 of 3: 2 accepted",
        "elven: request 3 of 3: 1 accepted",
    ]
    plan = decode(store.objects[f"{FOLDER}/elven/plan-0001.jsonl.gz"], Plan, "")
    assert (plan.account, plan.day, plan.run_id, plan.kind) == ("main_cash", "2026-11-20", "run-1", "elven")
    assert (plan.rows[0].amount, plan.rows[0].wire["balance"]) == ("1.5", "1.5")
    assert plan.created_at.endswith("Z")


def test_a_repeated_run_sends_and_writes_nothing():
    store, transport = MemoryStore(), kit.FakeTransport(kit.response(OK))
    kit.run(kit.elven(transport), store, [kit.balance()])
    before = dict(store.objects)
    summary = kit.run(kit.elven(transport), store, [kit.balance(amount="1.50")], run_id="run-2")
    assert (summary.accepted_before, summary.requests) == (1, 0)
    assert store.objects == before


def test_a_dry_run_sends_nothing_leaves_no_receipt_and_keeps_what_it_would_do():
    store, transport, lines = MemoryStore(), kit.FakeTransport(None), []
    due = balances(5)
    summary = kit.run(kit.elven(transport, max_rows=2), store, due, dry_run=True, log=lines.append)
    assert (summary.pending, summary.requests, summary.dry_run) == (5, 0, True)
    assert "5 would be sent in 3 requests" in lines[0]
    assert transport.requests == []
    assert list(store.objects) == [summary.preview]
    kept = decode(store.objects[summary.preview], Plan, "")
    assert [len(rows) for rows in kept.batches().values()] == [2, 2, 1]
    assert [row.number for row in kept.rows] == [
        f"bb-main_cash.elven-A{index:03d}-20261121T000000000Z-1" for index in range(5)
    ]
    assert summary.as_dict()["pending"] == 5
    # The same once more leaves the same bytes; the real run is not disturbed by it.
    assert kit.run(kit.elven(transport, max_rows=2), store, due, dry_run=True).preview == summary.preview
    assert kit.run(kit.elven(kit.FakeTransport(kit.response(OK))), store, due).accepted_now == 5


def test_a_dry_run_counts_what_is_there_already_and_what_would_go_again():
    store, server = MemoryStore(), kit.FakeAmlyzeServer()
    kit.run(kit.amlyze(kit.FakeTransport(server)), store, [kit.balance("A"), kit.balance("B", "1")])
    with pytest.raises(OutcomeUnknown):
        kit.run(kit.amlyze(kit.FakeTransport(ResponseLost("gone"))), store, [kit.balance("A"), kit.balance("C")])
    due = [kit.balance("A"), kit.balance("B", "2"), kit.balance("C"), kit.balance("D")]
    summary = kit.run(kit.amlyze(kit.FakeTransport(None)), store, due, dry_run=True)
    assert (summary.rows, summary.accepted_before, summary.pending) == (4, 1, 3)
    assert (summary.resent, summary.superseded) == (1, 1)


# --- repeated within seconds, or left to the next run ---


def test_no_connection_is_tried_three_times_within_seconds_and_then_left_to_the_next_run():
    store, clock = MemoryStore(), FakeClock()
    transport = kit.FakeTransport(ConnectionFailed("nobody there"))
    with pytest.raises(ConnectionFailed, match=r"^amlyze: nobody there.*Nothing was sent") as caught:
        kit.run(kit.amlyze(transport), store, [kit.balance()], clock=clock.clock)
    assert clock.slept == [1, 2]
    assert (caught.value.summary.requests, caught.value.summary.pending) == (3, 1)
    assert kit.statuses(store) == {"BTC": "planned"}
    second = kit.FakeTransport(kit.FakeAmlyzeServer())
    summary = kit.run(kit.amlyze(second), store, [kit.balance()], clock=clock.clock)
    assert second.requests[0].body == transport.requests[0].body
    assert summary.accepted_now == 1


def test_too_many_requests_are_repeated_as_the_server_asks_under_the_same_numbers():
    clock = FakeClock()
    transport = kit.FakeTransport(
        kit.response({}, 429, retry_after="40"),
        kit.response({}, 429),
        kit.response({}, 429, retry_after="0"),
        kit.FakeAmlyzeServer(),
    )
    summary = kit.run(kit.amlyze(transport), MemoryStore(), [kit.balance()], clock=clock.clock)
    assert clock.slept == [40, 2, 1]
    assert (summary.accepted_now, summary.requests) == (1, 4)
    assert len({request.body for request in transport.requests}) == 1


@pytest.mark.parametrize("headers", [{}, {"retry_after": "0"}, {"retry_after": "50"}, {"retry_after": "3600"}])
def test_waiting_for_a_server_that_is_too_busy_is_bounded(headers):
    clock, store = FakeClock(), MemoryStore()
    transport = kit.FakeTransport(kit.response({}, 429, **headers))
    with pytest.raises(RateLimited):
        kit.run(kit.amlyze(transport), store, [kit.balance()], clock=clock.clock)
    assert sum(clock.slept) <= 120
    assert len(transport.requests) <= 10
    assert kit.statuses(store) == {"BTC": "planned"}


# --- a response that says nothing ---


def test_a_lost_response_is_unknown_and_the_very_same_rows_go_out_first():
    store = MemoryStore()
    lost = kit.FakeTransport(ResponseLost("no response within 30 s"))
    with pytest.raises(OutcomeUnknown, match="no response within 30 s"):
        kit.run(kit.elven(lost, max_rows=2), store, [kit.balance("B"), kit.balance("C"), kit.balance("D")])
    assert len(lost.requests) == 1
    assert kit.statuses(store, "elven") == {"B": "unknown", "C": "unknown", "D": "planned"}
    second = kit.FakeTransport(kit.response(OK))
    due = [kit.balance(asset) for asset in ("D", "A", "C", "B")]
    summary = kit.run(kit.elven(second, max_rows=2), store, due, run_id="run-2")
    assert second.requests[0].body == lost.requests[0].body
    assert (summary.accepted_now, summary.resent) == (4, 2)
    assert set(kit.statuses(store, "elven").values()) == {"accepted"}


@pytest.mark.parametrize("acted", [True, False])
@pytest.mark.parametrize(
    "error",
    [ResponseLost("the proxy closed the connection"), ResponseLost("reset"), ValueError("port"), RecursionError()],
)
def test_a_response_lost_in_whatever_way_after_the_request_was_carried_out_accepts_nothing_twice(acted, error):
    """A reset by a proxy, or an exception that nobody expected, once a byte has left: all are a lost response."""
    store, server, clock = MemoryStore(), kit.FakeAmlyzeServer(), FakeClock().clock

    def fail(body):
        if acted:
            server(body)
        return error

    transport = kit.FakeTransport(fail)
    with pytest.raises(OutcomeUnknown):
        kit.run(kit.amlyze(transport, max_rows=1), store, [kit.balance("A"), kit.balance("B")], clock=clock)
    # Neither is it repeated within the run, nor is there no trace of it.
    assert len(transport.requests) == 1
    assert kit.statuses(store) == {"A": "unknown", "B": "planned"}
    assert f"{FOLDER}/amlyze/plan-0001/0001.res.jsonl" in store.objects
    summary = kit.run(kit.amlyze(kit.FakeTransport(server)), store, [kit.balance("A"), kit.balance("B")], clock=clock)
    assert sorted(server.delivered()) == sorted(set(server.delivered()))
    assert (len(server.accepted), summary.seen) == (2, int(acted))


def test_an_exception_that_nobody_expected_is_named_by_its_kind_alone():
    store = MemoryStore()
    transport = kit.FakeTransport(ValueError(f"cannot read {kit.TOKEN}"))
    with pytest.raises(OutcomeUnknown, match=r"could not be read \(ValueError\)") as caught:
        kit.run(kit.amlyze(transport), store, [kit.balance()])
    written = store.objects[f"{FOLDER}/amlyze/plan-0001/0001.res.jsonl"].decode() + str(caught.value)
    assert kit.TOKEN not in written


def test_one_request_that_is_lost_does_not_discard_the_results_of_the_others():
    store, server = MemoryStore(), kit.FakeAmlyzeServer()
    transport = kit.FakeTransport(server, lambda body: ValueError("what is this?"))
    with pytest.raises(OutcomeUnknown):
        kit.run(kit.amlyze(transport, max_rows=1), store, [kit.balance(asset) for asset in "ABC"])
    assert kit.statuses(store) == {"A": "accepted", "B": "unknown", "C": "planned"}


@pytest.mark.parametrize("status", [500, 502, 503, 408])
def test_a_servers_own_fault_leaves_the_outcome_unknown(status):
    store = MemoryStore()
    with pytest.raises(ServerFault, match=str(status)):
        kit.run(kit.amlyze(kit.FakeTransport(kit.response({"error": "x"}, status))), store, [kit.balance()])
    assert kit.statuses(store) == {"BTC": "unknown"}


def test_a_response_too_large_to_read_leaves_the_outcome_unknown():
    store = MemoryStore()
    with pytest.raises(InvalidResponse, match="larger"):
        kit.run(kit.amlyze(kit.FakeTransport(InvalidResponse("the response is larger"))), store, [kit.balance()])
    assert kit.statuses(store) == {"BTC": "unknown"}


def test_an_untrusted_certificate_ends_it_with_nothing_sent():
    store = MemoryStore()
    with pytest.raises(PermanentError, match="certificate"):
        kit.run(kit.amlyze(kit.FakeTransport(PermanentError("certificate"))), store, [kit.balance()])
    assert kit.statuses(store) == {"BTC": "planned"}


def test_a_failed_connection_leaves_what_an_earlier_response_said():
    store = MemoryStore()
    with pytest.raises(ServerFault):
        kit.run(kit.amlyze(kit.FakeTransport(kit.response({"error": "broken"}, 500))), store, [kit.balance()])
    with pytest.raises(ConnectionFailed):
        kit.run(kit.amlyze(kit.FakeTransport(ConnectionFailed("refused"))), store, [kit.balance()])
    (attempt,) = kit.folded(store).numbers.values()
    assert (attempt.outcome.status, attempt.outcome.code) == ("unknown", "HTTP 500")


# --- refused ---


@pytest.mark.parametrize(
    ("status", "error", "part"),
    [
        (401, CredentialsRefused, "Check the connection's key"),
        (403, CredentialsRefused, "permitted"),
        (404, RequestRefused, "base URL"),
    ],
)
def test_a_refused_access_stops_at_once_and_uses_the_numbers_up(status, error, part):
    store = MemoryStore()
    transport = kit.FakeTransport(kit.response({}, status))
    with pytest.raises(error, match=part):
        kit.run(kit.amlyze(transport, max_rows=1), store, [kit.balance(), kit.balance("ETH")])
    assert len(transport.requests) == 1
    assert kit.statuses(store) == {"BTC": "rejected", "ETH": "planned"}
    second = kit.FakeTransport(kit.FakeAmlyzeServer())
    kit.run(kit.amlyze(second, max_rows=2), store, [kit.balance(), kit.balance("ETH")])
    last = {asset: attempts[-1].row.number[-1] for (asset, _), attempts in kit.folded(store).balances.items()}
    assert last == {"BTC": "2", "ETH": "1"}


def test_a_redirect_is_unknown_stops_at_once_and_names_the_host_without_its_secrets():
    store = MemoryStore()
    transport = kit.FakeTransport(kit.response({}, 302, location="https://u:p@other.test/login?token=abc"))
    with pytest.raises(RequestRefused, match=r"https://other\.test/login") as caught:
        kit.run(kit.amlyze(transport), store, [kit.balance()])
    assert "abc" not in str(caught.value)
    assert kit.statuses(store) == {"BTC": "unknown"}


WHOLE_REFUSALS = (400, 407, 409, 413, 425, 451)
BODIES: dict[str, Any] = {
    "a page": {"body": b"<html>nginx</html>", "content_type": "text/html"},
    "its own document": {"document": {"resultType": "REQUEST_REJECTED", "errorCode": "O001", "errorDescription": "no"}},
    "a code that divides": {"document": {"status": "failed", "data": {"code": 19734, "message": "no"}}},
    "nothing": {"body": b""},
}


@pytest.mark.parametrize("status", [*WHOLE_REFUSALS, 401, 403, 404])
@pytest.mark.parametrize("body", BODIES)
def test_a_refusal_as_a_whole_says_nothing_about_an_earlier_request_without_a_response(status, body):
    store, server, clock = MemoryStore(), kit.FakeAmlyzeServer(), FakeClock().clock
    due = [kit.balance(asset) for asset in "ABCD"]
    with pytest.raises(OutcomeUnknown):
        kit.run(kit.amlyze(kit.FakeTransport(lose(server))), store, due, clock=clock)
    options = dict(BODIES[body])
    refused = kit.FakeTransport(kit.response(options.pop("document", None), status, **options))
    with pytest.raises((OutcomeUnknown, CredentialsRefused, RequestRefused)):
        kit.run(kit.amlyze(refused), store, due, clock=clock)
    # Unknown stays unknown; and whatever is divided keeps its numbers.
    assert set(kit.statuses(store).values()) == {"unknown"}
    assert {number for index in range(len(refused.requests)) for number in numbers(refused, index)} == {"1"}
    summary = kit.run(kit.amlyze(kit.FakeTransport(server)), store, due, clock=clock)
    assert summary.seen == 4
    assert len(server.accepted) == 4


def test_a_request_divided_after_a_lost_response_keeps_its_numbers():
    """The lost request was carried out; the resend meets a refusal that divides, until its halves get through."""
    store, server, clock = MemoryStore(), kit.FakeAmlyzeServer(), FakeClock().clock
    due = balances(8)

    def gateway(body):
        if len(json.loads(body)["accountBalances"]) > 2:
            return kit.response({"resultType": "REQUEST_REJECTED", "errorCode": "O001"}, 413)
        return server(body)

    with pytest.raises(OutcomeUnknown):
        kit.run(kit.amlyze(kit.FakeTransport(lose(server))), store, due, clock=clock)
    transport = kit.FakeTransport(gateway)
    summary = kit.run(kit.amlyze(transport), store, due, clock=clock)
    assert {number for index in range(len(transport.requests)) for number in numbers(transport, index)} == {"1"}
    assert (summary.seen, summary.divided, summary.requests) == (8, 3, 7)
    assert len(server.accepted) == 8


def test_a_clock_that_is_off_is_named_when_credentials_are_refused():
    refused = kit.response({}, 401, date="Thu, 01 Jan 1970 00:10:00 GMT")
    with pytest.raises(CredentialsRefused, match="clock differs from ours by 599 s"):
        kit.run(kit.elven(kit.FakeTransport(refused)), MemoryStore(), [kit.balance()])


def test_rejected_balances_go_again_when_repeated_under_numbers_that_name_the_old():
    store, server = MemoryStore(), kit.FakeAmlyzeServer()
    server.refuse = {"CASH-BTC": "404"}
    transport = kit.FakeTransport(server)
    for count in (1, 2):
        with pytest.raises(RecordsRejected, match="404 x1"):
            kit.run(kit.amlyze(transport), store, [kit.balance(), kit.balance("ETH")])
        assert numbers(transport)[0] == str(count)
    server.refuse = {}
    summary = kit.run(kit.amlyze(transport), store, [kit.balance(), kit.balance("ETH")])
    assert (summary.accepted_now, summary.accepted_before) == (1, 1)
    last = kit.folded(store).balances["BTC", kit.CLOSE_MS][-1]
    assert (last.row.number[-2:], last.row.replaces[-2:], last.outcome.status) == ("-3", "-2", "accepted")


def test_what_a_run_had_rejected_stays_rejected_when_airflow_tries_the_same_run_again():
    store, server = MemoryStore(), kit.FakeAmlyzeServer()
    server.refuse = {"CASH-BAD": "404"}

    def silent(body):
        found = json.loads(server(body).body)
        found["results"] = [each for each in found["results"] if "LOST" not in each["communicationNumber"]]
        return kit.response(found)

    transport, due = kit.FakeTransport(silent), [kit.balance("BAD"), kit.balance("LOST")]
    for _ in range(3):
        with pytest.raises(OutcomeUnknown):
            kit.run(kit.amlyze(transport, max_rejected=1), store, due, run_id="one")
        assert kit.statuses(store) == {"BAD": "rejected", "LOST": "unknown"}
    sent = [[row["accountExtId"] for row in transport.rows(index)] for index in range(len(transport.requests))]
    assert sent == [["CASH-BAD", "CASH-LOST"], ["CASH-LOST"], ["CASH-LOST"]]
    # Repeated by a person, it goes under its next number.
    assert kit.run(kit.amlyze(kit.FakeTransport(server), max_rejected=1), store, due, run_id="two").seen == 1
    assert kit.folded(store).balances["BAD", kit.CLOSE_MS][-1].row.number.endswith("-2")


def test_after_a_repaired_rejection_the_day_counts_each_balance_once():
    store, far = MemoryStore(), []

    def serve(body):
        rows = json.loads(body)
        if any(row["symbol"] == "A005" for row in rows):
            return kit.response({"status": "failed", "data": {"code": 19734, "message": "no such symbol"}}, 400)
        far.extend(row["symbol"] for row in rows)
        return kit.response(OK)

    due = balances(12)
    with pytest.raises(RecordsRejected, match="1 of 12"):
        kit.run(kit.elven(kit.FakeTransport(serve)), store, due)
    # The symbol is put right, and the task cleared.
    mapped = {"assets": {"A005": {"symbol": "RIGHT"}}}
    summary = kit.run(kit.elven(kit.FakeTransport(serve), **mapped), store, due)
    assert (summary.rows, summary.accepted_now, summary.accepted_before, summary.rejected) == (12, 1, 11, 0)
    assert (summary.ignored, summary.other_keys, summary.superseded) == (0, 0, 0)
    again = kit.run(kit.elven(kit.FakeTransport(None), **mapped), store, due)
    assert (again.rows, again.accepted_before, again.requests) == (12, 12, 0)
    assert set(kit.statuses(store, "elven").values()) == {"accepted"}
    assert sorted(far) == sorted({each.asset for each in due} - {"A005"} | {"RIGHT"})


def test_what_was_refused_and_is_ignored_since_is_shown_as_ignored():
    store, server = MemoryStore(), kit.FakeAmlyzeServer()
    server.refuse["CASH-SPAM"] = "404"
    due = [kit.balance("BTC"), kit.balance("SPAM")]
    with pytest.raises(RecordsRejected):
        kit.run(kit.amlyze(kit.FakeTransport(server)), store, due)
    assert kit.statuses(store) == {"BTC": "accepted", "SPAM": "rejected"}
    summary = kit.run(kit.amlyze(kit.FakeTransport(server), assets={"SPAM": "ignore", "BTC": "ignore"}), store, due)
    assert kit.statuses(store) == {"BTC": "ignored", "SPAM": "ignored"}
    # What was delivered before it was left out is said.
    assert (summary.ignored, summary.other_keys, summary.example[:3]) == (2, 1, "BTC")


@pytest.mark.parametrize("amount", ["1.5", "9"])
def test_a_midnight_that_two_days_ask_for_is_accepted_once_until_a_person_resolves_it(amount):
    """Points changed from close to open: the next day's log knows nothing of this day's."""
    store, server = MemoryStore(), kit.FakeAmlyzeServer()
    transport, following = kit.FakeTransport(server), kit.DAY + timedelta(days=1)
    kit.run(kit.amlyze(transport), store, [kit.balance()])
    due = [kit.balance(amount=amount, points="open")]
    for _ in range(2):
        with pytest.raises(OutcomeUnknown, match="points or start_date"):
            kit.run(kit.amlyze(transport), store, due, day=following)
    assert kit.statuses(store, day=following) == {"BTC": "unknown"}
    assert [str(record["value"]) for record in server.accepted] == ["1.5"]


def test_a_midnight_that_an_earlier_start_date_asks_for_again_is_accepted_once_and_the_others_go():
    store, server = MemoryStore(), kit.FakeAmlyzeServer()
    transport, following, day_ms = kit.FakeTransport(server), kit.DAY + timedelta(days=1), 86_400_000
    kit.run(
        kit.amlyze(transport),
        store,
        [kit.balance(points="open"), kit.balance(at_ms=kit.CLOSE_MS + day_ms)],
        day=following,
    )
    due = [kit.balance(at_ms=kit.CLOSE_MS - day_ms, points="open"), kit.balance()]
    for _ in range(2):
        with pytest.raises(OutcomeUnknown, match="1 of 2 balances are unknown"):
            kit.run(kit.amlyze(transport), store, due)
    assert len(server.accepted) == len(set(server.delivered())) == 3


def test_one_request_that_a_gateway_repeats_is_accepted_once():
    """The response that comes back is the one to the repeated request: already used."""
    store, server = MemoryStore(), kit.FakeAmlyzeServer()

    def gateway(body):
        server(body)
        return server(body)

    for max_rejected in (0, 5):
        with pytest.raises(OutcomeUnknown):
            kit.run(kit.amlyze(kit.FakeTransport(gateway), max_rejected=max_rejected), store, [kit.balance()])
        with pytest.raises(OutcomeUnknown):
            kit.run(kit.amlyze(kit.FakeTransport(server), max_rejected=max_rejected), store, [kit.balance()])
    assert len(server.accepted) == 1


def test_a_transient_error_after_rejections_is_raised_as_permanent_so_that_no_retry_sends_them_again():
    transport = kit.FakeTransport(kit.response({"errorCode": "X9"}, 400), ResponseLost("gone"))
    with pytest.raises(RecordsRejected, match=r"X9 x1.*stopped early.*gone") as caught:
        kit.run(kit.amlyze(transport, max_rows=1), MemoryStore(), [kit.balance("A"), kit.balance("B")])
    assert (caught.value.summary.rejected, caught.value.summary.unknown) == (1, 1)


def test_an_instant_that_no_text_can_hold_is_rejected_before_sending():
    with pytest.raises(RecordsRejected, match="years 1 to 9999"):
        kit.run(kit.elven(kit.FakeTransport(kit.response(OK))), MemoryStore(), [kit.balance(at_ms=10**17)])


# --- corrections ---


def test_a_corrected_balance_supersedes_visibly_and_then_back():
    store, server = MemoryStore(), kit.FakeAmlyzeServer()
    transport = kit.FakeTransport(server)
    kit.run(kit.amlyze(transport), store, [kit.balance(amount="1")])
    for amount, old in (("2", "1"), ("1", "2")):
        summary = kit.run(kit.amlyze(transport), store, [kit.balance(amount=amount)])
        assert (summary.accepted_now, summary.superseded) == (1, 1)
        last = kit.folded(store).balances["BTC", kit.CLOSE_MS][-1]
        assert (last.row.amount, last.row.supersedes) == (amount, old)
    assert [str(record["value"]) for record in server.accepted] == ["1", "2", "1"]


def test_an_unresolved_number_never_goes_out_with_another_amount():
    store, server, clock = MemoryStore(), kit.FakeAmlyzeServer(), FakeClock().clock
    with pytest.raises(OutcomeUnknown):
        kit.run(kit.amlyze(kit.FakeTransport(ResponseLost("gone"))), store, [kit.balance(amount="1")], clock=clock)
    transport = kit.FakeTransport(server)
    summary = kit.run(kit.amlyze(transport), store, [kit.balance(amount="2")], clock=clock)
    assert numbers(transport) == ["2"]
    assert (summary.accepted_now, summary.superseded, summary.resent) == (1, 0, 0)
    assert kit.folded(store).balances["BTC", kit.CLOSE_MS][-1].row.replaces.endswith("-1")


def test_a_rejected_correction_shows_until_the_old_balance_is_right_again():
    store, server = MemoryStore(), kit.FakeAmlyzeServer()
    transport = kit.FakeTransport(server)
    kit.run(kit.amlyze(transport), store, [kit.balance(amount="1")])
    server.refuse = {"CASH-BTC": "500"}
    with pytest.raises(RecordsRejected):
        kit.run(kit.amlyze(transport), store, [kit.balance(amount="2")])
    assert kit.statuses(store) == {"BTC": "rejected"}
    assert kit.run(kit.amlyze(transport), store, [kit.balance(amount="1")]).accepted_before == 1
    assert kit.statuses(store) == {"BTC": "accepted"}
    with pytest.raises(RecordsRejected):
        kit.run(kit.amlyze(transport), store, [kit.balance(amount="2")])
    assert kit.statuses(store) == {"BTC": "rejected"}


def test_two_destinations_of_an_account_know_nothing_of_each_other():
    store, server = MemoryStore(), kit.FakeAmlyzeServer()
    for name in ("amlyze", "second"):
        kit.run(
            kit.amlyze(kit.FakeTransport(server), name=name, account_ext_id=f"{name}-{{asset}}"), store, [kit.balance()]
        )
    assert len({record["communicationNumber"] for record in server.accepted}) == 2


# --- dividing ---


def failed(code=19734, message="a symbol is unknown"):
    return {"status": "failed", "data": {"code": code, "message": message}}


class Picky:
    """An Elven that refuses a whole request for one bad record, and remembers what it took."""

    def __init__(self, bad, *, status=400, code=19734):
        self.bad, self.status, self.code = set(bad), status, code
        self.taken = []
        self.sizes = []

    def __call__(self, body):
        rows = json.loads(body)
        self.sizes.append(len(rows))
        if any(row["symbol"] in self.bad for row in rows):
            return kit.response(failed(self.code), self.status)
        self.taken += [row["symbol"] for row in rows]
        return kit.response(OK)


def test_what_is_divided_goes_out_under_new_numbers_that_name_the_old():
    store = MemoryStore()
    with pytest.raises(RecordsRejected):
        kit.run(kit.elven(kit.FakeTransport(Picky({"A001"}))), store, balances(4))
    last = {asset: attempts[-1].row for (asset, _), attempts in kit.folded(store, "elven").balances.items()}
    found = {asset: (row.number[-1], row.replaces[-1:]) for asset, row in last.items()}
    assert found == {"A000": ("3", "2"), "A001": ("3", "2"), "A002": ("2", "1"), "A003": ("2", "1")}


def test_a_repeated_run_sends_only_what_was_bad_under_the_next_number():
    store, server = MemoryStore(), Picky({"A001"})
    with pytest.raises(RecordsRejected):
        kit.run(kit.elven(kit.FakeTransport(server)), store, balances(4))
    server.bad.clear()
    server.taken.clear()
    summary = kit.run(kit.elven(kit.FakeTransport(server)), store, balances(4))
    assert server.taken == ["A001"]
    assert (summary.accepted_now, summary.accepted_before) == (1, 3)


@pytest.mark.parametrize("status", [200, 400, 422, 413])
def test_a_refusal_with_a_code_for_a_bad_record_divides_whatever_its_status(status):
    server = Picky({"A001"}, status=status)
    with pytest.raises(RecordsRejected, match="1 of 4"):
        kit.run(kit.elven(kit.FakeTransport(server)), MemoryStore(), balances(4))
    assert sorted(server.taken) == ["A000", "A002", "A003"]


@pytest.mark.parametrize(("status", "code"), [(400, 33333), (422, 1), (413, 19735), (200, 5)])
def test_a_request_refused_with_another_code_is_not_divided(status, code):
    server = Picky({"A001"}, status=status, code=code)
    with pytest.raises(RecordsRejected, match="4 of 4"):
        kit.run(kit.elven(kit.FakeTransport(server)), MemoryStore(), balances(4))
    assert server.sizes == [4]


def test_only_the_codes_in_bisect_codes_divide_a_request():
    for codes, rejected in ((("33333",), "1 of 4"), ((), "4 of 4")):
        server = Picky({"A001"}, code=33333)
        with pytest.raises(RecordsRejected, match=rejected):
            kit.run(kit.elven(kit.FakeTransport(server), bisect_codes=codes), MemoryStore(), balances(4))


@pytest.mark.parametrize("status", [401, 403, 404, 408, 429, 500, 503])
def test_a_refusal_that_is_not_about_a_record_never_divides_whatever_its_code(status):
    server = Picky({"A001"}, status=status)
    with pytest.raises(BalanceBridgeError):
        kit.run(kit.elven(kit.FakeTransport(server)), MemoryStore(), balances(4))
    assert set(server.sizes) == {4}
    assert server.taken == []


def test_where_everything_is_bad_the_number_of_requests_is_bounded():
    server, lines = Picky({f"A{index:03d}" for index in range(600)}), []
    with pytest.raises(RecordsRejected, match="600 of 600"):
        kit.run(kit.elven(kit.FakeTransport(server)), MemoryStore(), balances(600), log=lines.append)
    assert len(server.sizes) == 1 + 2 * MAX_DIVISIONS
    assert any("200 requests went into finding bad records" in line for line in lines)


@pytest.mark.parametrize("lost", [False, True])
def test_a_further_run_goes_on_dividing_where_the_last_one_stopped(monkeypatch, lost):
    monkeypatch.setattr("balance_bridge.load.delivery.MAX_DIVISIONS", 2)
    bad = {"A003", "A004", "A011"}
    store, server, clock, due = MemoryStore(), Picky(bad), FakeClock().clock, balances(16)
    if lost:
        with pytest.raises(OutcomeUnknown):
            kit.run(kit.elven(kit.FakeTransport(ResponseLost("gone"))), store, due, clock=clock)
    for sizes in ([16, 8, 8, 4, 4], [4, 4, 2, 2, 2, 2, 2, 2, 1, 1], [1, 1, 1, 1, 1]):
        with pytest.raises((RecordsRejected, OutcomeUnknown)):
            kit.run(kit.elven(kit.FakeTransport(server)), store, due, clock=clock)
        assert server.sizes == sizes
        server.sizes.clear()
    # Every good record is there, once.
    assert sorted(server.taken) == [each.asset for each in due if each.asset not in bad]


def test_the_error_of_a_division_that_stopped_names_only_what_was_refused_alone(monkeypatch):
    monkeypatch.setattr("balance_bridge.load.delivery.MAX_DIVISIONS", 2)
    store, target = MemoryStore(), kit.elven(kit.FakeTransport(Picky({"A002", "A005"})))
    with pytest.raises(RecordsRejected, match=r"4 of 6 .*19734 x4 \(A002; 3 refused together with others\): a symbol"):
        kit.run(target, store, balances(6))
    with pytest.raises(RecordsRejected, match=r"2 of 6 .*19734 x2 \(A002, A005\): a symbol"):
        kit.run(target, store, balances(6))
    # Where nothing was divided, nobody knows of any.
    refusing = kit.elven(kit.FakeTransport(Picky({"A001"}, code=33333)))
    with pytest.raises(RecordsRejected, match=r"33333 x4 \(4 refused together with others\): a symbol"):
        kit.run(refusing, MemoryStore(), balances(4))


@pytest.mark.parametrize("after", range(1, 6))
def test_killed_while_dividing_a_repeated_run_delivers_the_rest(after):
    store, server, clock = MemoryStore(), Picky({"A001"}), FakeClock().clock

    def kill(body):
        if len(server.sizes) == after:
            raise Killed
        return server(body)

    with suppress(Killed, RecordsRejected):
        kit.run(kit.elven(kit.FakeTransport(kill)), store, balances(8), clock=clock)
    # What was cut off may have arrived: if it holds the bad record, nobody can say that of it.
    with pytest.raises((RecordsRejected, OutcomeUnknown), match="1 of 8"):
        kit.run(kit.elven(kit.FakeTransport(server)), store, balances(8), clock=clock)
    assert sorted(server.taken) == [f"A{index:03d}" for index in range(8) if index != 1]


# --- what the accounts file tolerates, and what people find out ---


def test_rejections_up_to_max_rejected_are_tolerated_and_reported():
    lines, server = [], Picky({"A001", "A003"})
    target = kit.elven(kit.FakeTransport(server), max_rejected=2)
    summary = kit.run(target, MemoryStore(), balances(5), log=lines.append)
    assert (summary.accepted_now, summary.rejected) == (3, 2)
    assert "2 balances were rejected (2 are tolerated): 19734 x2 (A001, A003)" in lines[-1]
    server.bad.add("A004")
    with pytest.raises(RecordsRejected, match="3 of 6"):
        kit.run(kit.elven(kit.FakeTransport(server), max_rejected=2), MemoryStore(), balances(6))


@pytest.mark.parametrize("on_unconfirmed", ["warn", "fail"])
def test_what_was_seen_and_not_confirmed_is_reported_or_fails_as_configured(on_unconfirmed):
    server, store, lines, clock = kit.FakeAmlyzeServer(), MemoryStore(), [], FakeClock().clock
    with pytest.raises(OutcomeUnknown):
        kit.run(kit.amlyze(kit.FakeTransport(lose(server))), store, [kit.balance()], clock=clock)
    target = kit.amlyze(kit.FakeTransport(server), on_unconfirmed=on_unconfirmed)
    if on_unconfirmed == "warn":
        assert kit.run(target, store, [kit.balance()], log=lines.append, clock=clock).seen == 1
        assert "1 balances were seen and not confirmed" in lines[-1]
        return
    for _ in range(2):
        with pytest.raises(Unconfirmed, match=r"1 of 1 .*receipts resolve main_cash 2026-11-20"):
            kit.run(target, store, [kit.balance()], clock=clock)


def test_a_delivery_reports_how_many_balances_go_again():
    store, lines, clock = MemoryStore(), [], FakeClock().clock
    due = [kit.balance("A"), kit.balance("B")]
    with pytest.raises(OutcomeUnknown):
        kit.run(kit.amlyze(kit.FakeTransport(ResponseLost("gone"))), store, due, clock=clock)
    target = kit.amlyze(kit.FakeTransport(kit.FakeAmlyzeServer()))
    kit.run(target, store, [*due, kit.balance("C")], log=lines.append, clock=clock)
    assert lines[0].endswith("3 to send in 2 requests, 2 of them again under the same numbers")


def resolve(store, said: Said) -> None:
    (number,) = kit.folded(store).numbers
    log = DayLog(store, "main_cash", kit.DAY, "amlyze")
    log.read()
    log.put_resolution(Resolution("Ada", "asked", "now", {number: Word(said, text="Ada: asked")}))


@pytest.mark.parametrize(("said", "sent"), [(Said.ACCEPTED, []), (Said.REJECTED, ["2"])])
def test_what_a_person_found_out_settles_what_was_unknown(said, sent):
    server, store = kit.FakeAmlyzeServer(), MemoryStore()
    with pytest.raises(OutcomeUnknown):
        kit.run(kit.amlyze(kit.FakeTransport(kit.response({"results": []}))), store, [kit.balance()])
    resolve(store, said)
    assert kit.statuses(store) == {"BTC": str(said)}
    kit.run(kit.amlyze(kit.FakeTransport(server)), store, [kit.balance()])
    assert [record["communicationNumber"][-1] for record in server.accepted] == sent
    assert kit.statuses(store) == {"BTC": "accepted"}


def test_a_resolution_says_nothing_about_a_request_that_was_under_way_when_it_was_written():
    """Ada has asked the destination before the second request arrived there."""
    store, server, clock = MemoryStore(), kit.FakeAmlyzeServer(), FakeClock().clock
    with pytest.raises(OutcomeUnknown):
        kit.run(kit.amlyze(kit.FakeTransport(ResponseLost("never arrived"))), store, [kit.balance()], clock=clock)
    log = DayLog(store, "main_cash", kit.DAY, "amlyze")
    (number,) = fold(log.read()).numbers

    def second(body):
        log.put_resolution(Resolution("Ada", "asked", "now", {number: Word(Said.REJECTED, text="not there")}))
        server(body)
        return ResponseLost("gone")

    with pytest.raises(OutcomeUnknown):
        kit.run(kit.amlyze(kit.FakeTransport(second)), store, [kit.balance()], clock=clock)
    assert kit.statuses(store) == {"BTC": "unknown"}
    assert kit.run(kit.amlyze(kit.FakeTransport(server)), store, [kit.balance()], clock=clock).seen == 1
    assert len(server.accepted) == 1


def test_what_a_response_said_outweighs_a_person():
    store = MemoryStore()
    kit.run(kit.amlyze(kit.FakeTransport(kit.FakeAmlyzeServer())), store, [kit.balance()])
    resolve(store, Said.REJECTED)
    assert kit.statuses(store) == {"BTC": "accepted"}


# --- the store ---


def test_a_response_whose_receipt_cannot_be_written_may_have_arrived():
    store, server, clock = MemoryStore(), kit.FakeAmlyzeServer(), FakeClock().clock

    def full(key):
        if key.endswith(".res.jsonl"):
            raise StoreUnwritable("the disk is full")

    store.before_put = full
    with pytest.raises(StoreUnwritable):
        kit.run(kit.amlyze(kit.FakeTransport(server)), store, [kit.balance()], clock=clock)
    assert kit.statuses(store) == {"BTC": "unknown"}
    store.before_put = lambda _: None
    assert kit.run(kit.amlyze(kit.FakeTransport(server)), store, [kit.balance()], clock=clock).seen == 1
    assert len(server.accepted) == 1


def test_every_error_once_sending_has_begun_carries_the_counts():
    for reply in (
        ResponseLost("gone"),
        ConnectionFailed("down"),
        ValueError("?"),
        kit.response({}, 401),
        kit.response({}, 500),
    ):
        with pytest.raises(BalanceBridgeError) as caught:
            kit.run(kit.amlyze(kit.FakeTransport(reply)), MemoryStore(), balances(3))
        summary = caught.value.summary
        assert summary.rows == 3 == summary.unknown + summary.pending + summary.rejected


# --- the day so far, and older balances ---


def test_runs_of_the_day_so_far_follow_each_other_and_the_whole_day_follows_them():
    store, transport = MemoryStore(), kit.FakeTransport(kit.FakeAmlyzeServer())
    for count in (1, 2, 3):
        due = [kit.balance(asset) for asset in ("BTC", "ETH", "USDT")[:count]]
        options = {"so_far": True, "generation": f"intraday/main_cash/2026-11-20/{count:04}.parquet"}
        assert kit.run(kit.amlyze(transport), store, due, **options).accepted_now == 1
    assert kit.run(kit.amlyze(transport), store, [*due, kit.balance("XRP")]).accepted_now == 1


def test_balances_older_than_the_delivered_ones_are_not_sent():
    store, transport = MemoryStore(), kit.FakeTransport(kit.FakeAmlyzeServer())
    older, newer = (f"balances/main_cash/2026-11-20/{number}.parquet" for number in ("0001", "0002"))
    for key in (older, newer):
        store.objects[key] = b""
    kit.run(kit.amlyze(transport), store, [kit.balance(amount="2")], generation=newer)
    with pytest.raises(SupersededRun, match="Newer balances"):
        kit.run(kit.amlyze(transport), store, [kit.balance(amount="1")], generation=older)
    assert len(transport.requests) == 1
    # Once the newer ones were pruned, their numbers begin again, and nothing can be said.
    del store.objects[newer]
    assert kit.run(kit.amlyze(transport), store, [kit.balance(amount="1")], generation=older).superseded == 1
