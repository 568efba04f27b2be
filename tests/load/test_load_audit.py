from __future__ import annotations

import pytest

from balance_bridge.errors import OutcomeUnknown, RecordsRejected, StoreDamaged
from balance_bridge.load.audit import entries, unresolved
from balance_bridge.load.outcomes import Status
from balance_bridge.load.receipts import Receipts


def audit(kit, store):
    return entries(store, "main_cash", kit.DAY, "amlyze")


def test_an_attempt_shows_what_was_sent_when_by_whom_and_how_it_ended(kit):
    store, server = kit.MemoryStore(), kit.FakeAmlyzeServer()
    kit.run(kit.amlyze(kit.FakeTransport(server)), store, [kit.balance()])
    (entry,) = audit(kit, store)
    assert (entry.asset, entry.at, str(entry.amount)) == ("BTC", "2026-11-21T00:00:00.000Z", "1.5")
    assert (entry.outcome, entry.number) == ("accepted", "bb-main_cash.amlyze-BTC-20261121T000000000Z-1")
    assert (entry.key, entry.points, entry.run_id) == ("CASH-BTC 2026-11-21T00:00:00.000Z", "close", "run-1")
    assert (entry.http_status, entry.requests, len(entry.answer_sha256)) == (200, 1, 64)
    assert entry.planned_at.endswith("Z")
    assert entry.sent_at == "1970-01-01T00:00:01.000Z"


def test_a_correction_shows_both_values_and_that_the_first_is_superseded(kit):
    store, server = kit.MemoryStore(), kit.FakeAmlyzeServer()
    for amount in ("1.5", "2.5", "3.5"):
        kit.run(kit.amlyze(kit.FakeTransport(server)), store, [kit.balance(amount=amount)])
    told = [(str(entry.amount), entry.outcome, entry.supersedes) for entry in audit(kit, store)]
    assert sorted(told) == [("1.5", "superseded", ""), ("2.5", "superseded", "1.5"), ("3.5", "accepted", "2.5")]


def test_rejections_of_the_server_and_of_ours_show_their_reasons(kit):
    store, server = kit.MemoryStore(), kit.FakeAmlyzeServer()
    server.refuse["CASH-ETH"] = "404"
    mapped = {asset: f"CASH-{asset}" for asset in ("BTC", "ETH")}
    target = kit.amlyze(kit.FakeTransport(server), account_ext_id=mapped)
    with pytest.raises(RecordsRejected):
        kit.run(target, store, [kit.balance(asset) for asset in ("BTC", "ETH", "XRP")])
    told = {entry.asset: (entry.outcome, entry.code, entry.number[-1:]) for entry in audit(kit, store)}
    assert told == {"BTC": ("accepted", "", "1"), "ETH": ("rejected", "404", "1"), "XRP": ("rejected", "LOCAL", "")}


def test_a_number_in_two_batches_has_one_outcome(kit):
    store, server = kit.MemoryStore(), kit.FakeAmlyzeServer()
    silent = kit.FakeTransport(kit.answer({"results": []}))
    with pytest.raises(OutcomeUnknown):
        kit.run(kit.amlyze(silent), store, [kit.balance("A"), kit.balance("B")])
    assert len(unresolved(store, "main_cash", kit.DAY, "amlyze")) == 2
    # Divided otherwise, the same numbers go out again.
    kit.run(kit.amlyze(kit.FakeTransport(server), max_rows=1), store, [kit.balance("A"), kit.balance("B")])
    assert {(entry.asset, entry.outcome) for entry in audit(kit, store)} == {("A", "accepted"), ("B", "accepted")}
    assert unresolved(store, "main_cash", kit.DAY, "amlyze") == []


def test_what_a_person_found_out_shows_who_it_was(kit):
    store = kit.MemoryStore()
    with pytest.raises(OutcomeUnknown):
        kit.run(kit.amlyze(kit.FakeTransport(kit.answer({"results": []}))), store, [kit.balance()])
    ((batch, number),) = unresolved(store, "main_cash", kit.DAY, "amlyze")
    receipts = Receipts(store, "main_cash", "amlyze")
    receipts.resolve(kit.DAY, batch, [number], Status.ACCEPTED, by="Ada", reason="ticket 4711", now_ms=0)
    (entry,) = audit(kit, store)
    assert (entry.outcome, entry.resolved_by, entry.text) == ("accepted", "Ada", "Ada: ticket 4711")


def test_a_receipt_changed_by_hand_is_refused_by_name(kit):
    store = kit.MemoryStore()
    kit.run(kit.amlyze(kit.FakeTransport(kit.FakeAmlyzeServer())), store, [kit.balance()])
    (key,) = [key for key in store.objects if key.endswith("/answered/0001.json")]
    store.objects[key] = store.objects[key].replace(b"accepted", b"rejected")
    with pytest.raises(StoreDamaged, match=r"answered/0001.json is not the receipt that was written: its digest"):
        audit(kit, store)
