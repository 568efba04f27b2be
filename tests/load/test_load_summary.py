"""How a delivery ended: counts, and rejections in groups, in the task's error and in ``balance-bridge receipts``."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict

import pytest

import delivery_kit as kit
from balance_bridge.commands import receipts as command
from balance_bridge.errors import OutcomeUnknown, RecordsRejected
from balance_bridge.load.audit import entries
from doubles import FakeClock, MemoryStore

# Of 60 balances of one batch 40 are refused: 24 with one code, 12 with another, 4 with the third.
CODES = {"404": range(24), "O009": range(24, 36), "O011": range(36, 40)}


COUNTS = ("accepted_now", "accepted_before", "seen", "rejected", "rejected_locally", "unknown", "ignored")


def asset(index):
    return f"A{index:03d}"


def refusing():
    server = kit.FakeAmlyzeServer()
    server.refuse = {f"CASH-{asset(index)}": code for code, indexes in CODES.items() for index in indexes}
    return server


def rejected(store, **options):
    target = kit.amlyze(kit.FakeTransport(refusing()), **options)
    with pytest.raises(RecordsRejected) as caught:
        kit.run(target, store, [kit.balance(asset(index)) for index in range(60)])
    return caught.value


def summed_up(store, destination="amlyze"):
    found = [entry for entry in entries(kit.folded(store, destination), destination) if entry.current]
    return list(command._reasons([asdict(entry) for entry in found]))


def test_error_and_receipts_have_a_line_per_code_with_count_text_and_a_few_assets_the_most_frequent_first():
    store = MemoryStore()
    error = rejected(store)
    assert str(error).startswith(
        "main_cash 2026-11-20 to amlyze: 40 of 60 balances were rejected. "
        "404 x24 (A000, A001, A002, A003, A004): because 404; "
        "O009 x12 (A024, A025, A026, A027, A028): because O009; "
        "O011 x4 (A036, A037, A038, A039): because O011. "
    )
    assert len(str(error)) < 800
    assert summed_up(store) == [
        "amlyze: 24 rejected, 404 (A000, A001, A002, A003, A004 and 19 more): because 404",
        "amlyze: 12 rejected, O009 (A024, A025, A026, A027, A028 and 7 more): because O009",
        "amlyze: 4 rejected, O011 (A036, A037, A038, A039): because O011",
    ]


def test_the_counts_of_the_groups_are_those_of_the_receipts():
    store = MemoryStore()
    summary = rejected(store).summary
    assert {code: reason.count for code, reason in summary.reasons.items()} == {"404": 24, "O009": 12, "O011": 4}
    assert summary.rejected == sum(reason.count for reason in summary.reasons.values()) == 40
    found = Counter(entry.code for entry in entries(kit.folded(store), "amlyze") if entry.outcome == "rejected")
    assert found == {"404": 24, "O009": 12, "O011": 4}
    # What Airflow's asset event and XCom hold.
    assert json.loads(json.dumps(summary.as_dict()))["reasons"]["O011"]["count"] == 4


def test_rejections_that_are_tolerated_are_named_in_the_same_groups():
    lines = []
    target = kit.amlyze(kit.FakeTransport(refusing()), max_rejected=40)
    kit.run(target, MemoryStore(), [kit.balance(asset(index)) for index in range(60)], log=lines.append)
    assert "40 balances were rejected (40 are tolerated): 404 x24 (A000, " in lines[-1]
    assert "; O009 x12 (" in lines[-1]
    assert "; O011 x4 (A036, A037, A038, A039): because O011" in lines[-1]


def test_an_asset_that_is_refused_at_many_instants_is_one_example():
    server, store = kit.FakeAmlyzeServer(), MemoryStore()
    server.refuse = {"CASH-BTC": "404"}
    balances = [kit.balance("BTC", at_ms=kit.CLOSE_MS - hour * 3_600_000) for hour in range(20)]
    with pytest.raises(RecordsRejected, match=r"404 x20 \(BTC\): because 404\."):
        kit.run(kit.amlyze(kit.FakeTransport(server)), store, balances)
    assert summed_up(store) == ["amlyze: 20 rejected, 404 (BTC): because 404"]


def test_an_error_names_ten_codes_and_counts_the_others():
    server = kit.FakeAmlyzeServer()
    server.refuse = {f"CASH-{asset(index)}": f"E{index:03d}" for index in range(30)}
    with pytest.raises(RecordsRejected, match=r"30 of 30 .*; 20 more codes") as caught:
        kit.run(
            kit.amlyze(kit.FakeTransport(server)),
            MemoryStore(),
            [kit.balance(asset(index)) for index in range(30)],
        )
    assert str(caught.value).count(" x1 (") == 10


def test_texts_that_differ_from_record_to_record_under_one_code_are_one_group():
    def refuse_by_name(body):
        records = json.loads(body)["accountBalances"]
        return kit.response(
            {
                "results": [
                    {
                        "communicationNumber": record["communicationNumber"],
                        "resultType": "REQUEST_REJECTED",
                        "errorCode": "404",
                        "errorDescription": f"{record['accountExtId']} does not exist",
                    }
                    for record in records
                ]
            }
        )

    store = MemoryStore()
    with pytest.raises(RecordsRejected, match=r"404 x3 \(A000, A001, A002\): CASH-A000 does not exist\. "):
        kit.run(kit.amlyze(kit.FakeTransport(refuse_by_name)), store, [kit.balance(asset(index)) for index in range(3)])
    assert summed_up(store) == ["amlyze: 3 rejected, 404 (A000, A001, A002): CASH-A000 does not exist"]


def test_checks_of_ours_are_grouped_by_text():
    # No account for two, an amount that is too long for another one: two checks.
    target = kit.amlyze(
        kit.FakeTransport(kit.FakeAmlyzeServer()), account_ext_id={"OK": "CASH-OK", "LONG": "CASH-LONG"}
    )
    due, store = [kit.balance(name) for name in ("OK", "NONE", "NEITHER")], MemoryStore()
    with pytest.raises(RecordsRejected) as caught:
        kit.run(target, store, [*due, kit.balance("LONG", "1E+20")])
    message = str(caught.value)
    assert "3 of 4 balances were rejected (3 before sending). " in message
    assert "LOCAL x2 (NEITHER, NONE): account_ext_id has no entry for this asset" in message
    assert "LOCAL x1 (LONG): " in message
    lines = sorted(summed_up(store))
    assert len(lines) == 2
    assert lines[0].startswith("amlyze: 1 rejected, LOCAL (LONG): ")
    assert lines[1].startswith("amlyze: 2 rejected, LOCAL (NEITHER, NONE): account_ext_id has no entry")


def test_of_a_divided_request_the_bad_record_alone_is_named():
    def refuse_whole(body):
        if any(row["symbol"] == asset(17) for row in json.loads(body)):
            return kit.response({"status": "failed", "data": {"code": 19734, "message": "bad row"}}, 400)
        return kit.response({"status": "success", "data": {"success": True}})

    store = MemoryStore()
    with pytest.raises(RecordsRejected, match=r": 1 of 40 balances were rejected\. 19734 x1 \(A017\): bad row\. "):
        kit.run(kit.elven(kit.FakeTransport(refuse_whole)), store, [kit.balance(asset(index)) for index in range(40)])
    assert summed_up(store, "elven") == ["elven: 1 rejected, 19734 (A017): bad row"]


def test_what_was_rejected_and_has_been_accepted_since_is_not_summed_up_as_rejected():
    store = MemoryStore()
    rejected(store)
    kit.run(
        kit.amlyze(kit.FakeTransport(kit.FakeAmlyzeServer())), store, [kit.balance(asset(index)) for index in range(60)]
    )
    assert summed_up(store) == []


def test_the_counts_of_a_delivery_add_up_to_the_balances_that_it_was_given():
    server, clock = kit.FakeAmlyzeServer(), FakeClock().clock
    store, mapped = MemoryStore(), {name: f"CASH-{name}" for name in ("OLD", "SEEN", "BAD", "LOST", "NEW")}
    options = {"account_ext_id": mapped, "assets": {"SPAM": "ignore"}, "max_rows": 1}

    def at_first(body):
        if b"CASH-SEEN" in body:
            server(body)
            return kit.response({"results": []})
        return server(body)

    with pytest.raises(OutcomeUnknown):
        kit.run(kit.amlyze(kit.FakeTransport(at_first), **options), store, [kit.balance("OLD"), kit.balance("SEEN")])
    server.refuse["CASH-BAD"] = "404"

    def now(body):
        return kit.response({"results": []}) if b"CASH-LOST" in body else server(body)

    names = ("OLD", "SEEN", "BAD", "LOST", "NEW", "NONE", "SPAM")
    with pytest.raises(RecordsRejected) as caught:
        kit.run(kit.amlyze(kit.FakeTransport(now), **options), store, list(map(kit.balance, names)), clock=clock)
    summary = caught.value.summary
    found = {name: value for name, value in summary.as_dict().items() if value == 1 and name in COUNTS}
    assert set(found) == set(COUNTS)
    assert summary.rows == len(names) == sum(getattr(summary, name) for name in COUNTS)
