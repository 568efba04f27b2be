"""Every attempt to deliver a balance, with its evidence."""

from __future__ import annotations

import pytest

import delivery_kit as kit
from balance_bridge.errors import ConnectionFailed, OutcomeUnknown, RecordsRejected
from balance_bridge.load.audit import entries, unconfirmed
from balance_bridge.load.documents import Resolution, Said, Word
from balance_bridge.load.log import DayLog
from doubles import MemoryStore


def audit(store):
    return list(entries(kit.folded(store), "amlyze"))


def test_an_attempt_shows_what_was_sent_when_by_whom_and_how_it_ended():
    store, server = MemoryStore(), kit.FakeAmlyzeServer()
    kit.run(kit.amlyze(kit.FakeTransport(server)), store, [kit.balance()], run_id="run-1")
    (entry,) = audit(store)
    assert (entry.asset, entry.at, str(entry.amount)) == ("BTC", "2026-11-21T00:00:00.000Z", "1.5")
    assert (entry.outcome, entry.number) == ("accepted", "bb-main_cash.amlyze-BTC-20261121T000000000Z-1")
    assert (entry.key, entry.points, entry.run_id) == ("CASH-BTC 2026-11-21T00:00:00.000Z", "close", "run-1")
    assert (entry.http_status, entry.requests, len(entry.response_sha256)) == (200, 1, 64)
    assert (entry.batch, entry.current) == ("1.1", True)
    assert entry.planned_at == entry.sent_at == "2026-11-21T00:00:00.000Z"
    assert entry.ended_at == "1970-01-01T00:00:02.000Z"


def test_a_correction_shows_both_values_and_that_the_first_is_superseded():
    store, server = MemoryStore(), kit.FakeAmlyzeServer()
    for amount in ("1.5", "2.5", "3.5"):
        kit.run(kit.amlyze(kit.FakeTransport(server)), store, [kit.balance(amount=amount)])
    found = [(str(entry.amount), entry.outcome, entry.supersedes, entry.current) for entry in audit(store)]
    assert sorted(found) == [
        ("1.5", "superseded", "", False),
        ("2.5", "superseded", "1.5", False),
        ("3.5", "accepted", "2.5", True),
    ]
    by_amount = {str(entry.amount): entry for entry in audit(store)}
    assert by_amount["1.5"].replaced_by == by_amount["2.5"].number == by_amount["3.5"].replaces


def test_rejections_of_the_server_and_of_ours_show_their_reasons():
    store, server = MemoryStore(), kit.FakeAmlyzeServer()
    server.refuse["CASH-ETH"] = "404"
    mapped = {asset: f"CASH-{asset}" for asset in ("BTC", "ETH")}
    target = kit.amlyze(kit.FakeTransport(server), account_ext_id=mapped)
    with pytest.raises(RecordsRejected):
        kit.run(target, store, [kit.balance(asset) for asset in ("BTC", "ETH", "XRP")])
    found = {entry.asset: (entry.outcome, entry.code, entry.number[-1:]) for entry in audit(store)}
    assert found == {"BTC": ("accepted", "", "1"), "ETH": ("rejected", "404", "1"), "XRP": ("rejected", "LOCAL", "")}


def test_after_a_repaired_rejection_the_current_entries_count_each_balance_once():
    store, server = MemoryStore(), kit.FakeAmlyzeServer()
    server.refuse["CASH-ETH"] = "404"
    due = [kit.balance("BTC"), kit.balance("ETH")]
    with pytest.raises(RecordsRejected):
        kit.run(kit.amlyze(kit.FakeTransport(server)), store, due)
    server.refuse.clear()
    kit.run(kit.amlyze(kit.FakeTransport(server)), store, due)
    found = [(entry.asset, entry.outcome, entry.current) for entry in audit(store)]
    assert found == [("BTC", "accepted", True), ("ETH", "accepted", True), ("ETH", "rejected", False)]


def test_a_number_in_two_requests_has_one_outcome():
    store, server = MemoryStore(), kit.FakeAmlyzeServer()
    silent = kit.FakeTransport(kit.response({"results": []}))
    with pytest.raises(OutcomeUnknown):
        kit.run(kit.amlyze(silent), store, [kit.balance("A"), kit.balance("B")])
    assert len(unconfirmed(kit.folded(store))) == 2
    # Divided otherwise, the same numbers go out again.
    kit.run(kit.amlyze(kit.FakeTransport(server), max_rows=1), store, [kit.balance("A"), kit.balance("B")])
    assert [(entry.asset, entry.outcome, entry.requests) for entry in audit(store)] == [
        ("A", "accepted", 2),
        ("B", "accepted", 2),
    ]
    assert unconfirmed(kit.folded(store)) == []


def test_what_was_never_sent_has_no_request():
    store = MemoryStore()
    with pytest.raises(ConnectionFailed):
        kit.run(kit.amlyze(kit.FakeTransport(ConnectionFailed("down"))), store, [kit.balance()])
    (entry,) = audit(store)
    assert (entry.outcome, entry.requests, entry.sent_at, entry.http_status) == ("planned", 0, "", None)
    assert unconfirmed(kit.folded(store)) == []


def test_a_resolution_shows_who_wrote_it():
    store = MemoryStore()
    with pytest.raises(OutcomeUnknown):
        kit.run(kit.amlyze(kit.FakeTransport(kit.response({"results": []}))), store, [kit.balance()])
    words = {number: Word(Said.ACCEPTED, text="Ada: ticket 4711") for number in unconfirmed(kit.folded(store))}
    log = DayLog(store, "main_cash", kit.DAY, "amlyze")
    log.put_resolution(Resolution("Ada", "ticket 4711", "2026-11-22T00:00:00.000Z", words))
    (entry,) = audit(store)
    assert (entry.outcome, entry.resolved_by, entry.text) == ("accepted", "Ada", "Ada: ticket 4711")
