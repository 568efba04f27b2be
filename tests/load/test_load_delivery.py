from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balance_bridge.errors import (
    AnswerLost,
    BadAnswer,
    CredentialsRefused,
    FinalError,
    NotReached,
    NumberReused,
    OutcomeUnknown,
    Overtaken,
    RecordsRejected,
    RequestRefused,
    ServerFault,
    StoreDamaged,
    WindowFull,
)
from balance_bridge.load import preview
from balance_bridge.load.audit import outcomes
from balance_bridge.load.batches import Batch, Row
from balance_bridge.load.history import History
from balance_bridge.load.outcomes import PLANNED
from balance_bridge.load.plan import guard_numbers

OK = {"status": "success", "data": True}
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


def numbers(transport, index=-1):
    return [row["communicationNumber"].rpartition("-")[2] for row in transport.rows(index)]


def test_every_balance_is_counted_once_and_planned_before_it_is_sent(kit):
    store = kit.MemoryStore()
    seen = []

    def serve(body):
        seen.append([key.rpartition("/")[2] for key in store.objects])
        return kit.answer(OK)

    lines: list[str] = []
    balances = [kit.balance(f"A{index}") for index in range(5)]
    summary = kit.run(kit.elven(kit.FakeTransport(serve), max_rows=2), store, balances, log=lines.append)
    assert (summary.rows, summary.accepted_now, summary.requests, summary.batches, summary.pending) == (5, 5, 3, 3, 0)
    assert seen[0] == ["0001.json", "planned.json"]
    assert seen[1].count("planned.json") == 2
    assert lines[1:] == [
        "elven: batch 1 of 3: 2 accepted",
        "elven: batch 2 of 3: 2 accepted",
        "elven: batch 3 of 3: 1 accepted",
    ]
    planned = store.documents("planned")[0]
    assert (planned["version"], planned["account"], planned["run_id"]) == (1, "main_cash", "run-1")
    assert planned["rows"][0]["amount"] == "1.5"
    assert planned["rows"][0]["wire"]["balance"] == "1.5"
    assert planned["created_at"].endswith("Z")


def test_a_repeated_run_sends_nothing(kit):
    store, transport = kit.MemoryStore(), kit.FakeTransport(kit.answer(OK))
    kit.run(kit.elven(transport), store, [kit.balance()])
    before = dict(store.objects)
    summary = kit.run(kit.elven(transport), store, [kit.balance(amount="1.50")])
    assert (summary.accepted_before, summary.requests) == (1, 0)
    assert store.objects == before


def test_a_dry_run_sends_nothing_writes_no_receipt_and_keeps_what_it_would_do(kit):
    store, transport = kit.MemoryStore(), kit.FakeTransport(None)
    lines: list[str] = []
    balances = [kit.balance(f"A{index}") for index in range(5)]
    summary = kit.run(kit.elven(transport, max_rows=2), store, balances, dry_run=True, log=lines.append)
    assert (summary.pending, summary.batches, summary.requests, summary.dry_run) == (5, 3, 0, True)
    assert "5 would be sent in 3 batches" in lines[0]
    assert not transport.requests
    assert list(store.objects) == [summary.preview]
    kept = preview.read(store, summary.preview)
    assert [len(rows) for rows in kept.batches] == [2, 2, 1]
    assert [row.number for rows in kept.batches for row in rows] == sorted(
        f"bb-main_cash.elven-A{index}-20261121T000000000Z-1" for index in range(5)
    )
    assert summary.as_dict()["pending"] == 5
    # The same once more says the very same; the real run is not disturbed by it.
    assert kit.run(kit.elven(transport, max_rows=2), store, balances, dry_run=True).preview == summary.preview
    assert kit.run(kit.elven(kit.FakeTransport(kit.answer(OK))), store, balances).accepted_now == 5


def test_no_connection_is_tried_three_times_within_seconds_and_then_left_to_the_next_run(kit):
    store, clock = kit.MemoryStore(), kit.FakeClock()
    transport = kit.FakeTransport(NotReached("nobody there"))
    with pytest.raises(NotReached) as caught:
        kit.run(kit.amlyze(transport), store, [kit.balance()], clock=clock.clock)
    assert clock.slept == [1, 2]
    assert (caught.value.summary.requests, caught.value.summary.pending) == (3, 1)
    assert kit.told(store) == {"BTC": "planned"}
    second = kit.FakeTransport(kit.FakeAmlyzeServer())
    summary = kit.run(kit.amlyze(second), store, [kit.balance()])
    assert second.requests[0].body == transport.requests[0].body
    assert summary.accepted_now == 1


def test_too_many_requests_are_repeated_as_the_server_asks_under_the_same_numbers(kit):
    clock = kit.FakeClock()
    transport = kit.FakeTransport(
        kit.answer({}, 429, retry_after="40"),
        kit.answer({}, 429),
        kit.answer({}, 429, retry_after="0"),
        kit.FakeAmlyzeServer(),
    )
    summary = kit.run(kit.amlyze(transport), kit.MemoryStore(), [kit.balance()], clock=clock.clock)
    assert clock.slept == [40, 2, 1]
    assert (summary.accepted_now, summary.requests) == (1, 4)
    assert len({request.body for request in transport.requests}) == 1


@pytest.mark.parametrize("headers", [{}, {"retry_after": "0"}, {"retry_after": "50"}, {"retry_after": "3600"}])
def test_waiting_for_a_place_is_bounded(kit, headers):
    clock, store = kit.FakeClock(), kit.MemoryStore()
    transport = kit.FakeTransport(kit.answer({}, 429, **headers))
    with pytest.raises(WindowFull):
        kit.run(kit.amlyze(transport), store, [kit.balance()], clock=clock.clock)
    assert sum(clock.slept) <= 120
    assert len(transport.requests) <= 10
    assert kit.told(store) == {"BTC": "planned"}


def test_a_lost_answer_is_unknown_and_the_very_same_rows_go_out_first(kit):
    store = kit.MemoryStore()
    lost = kit.FakeTransport(AnswerLost("no answer within 30 s"))
    with pytest.raises(OutcomeUnknown, match="no answer within 30 s"):
        kit.run(kit.elven(lost, max_rows=2), store, [kit.balance("B"), kit.balance("C"), kit.balance("D")])
    assert len(lost.requests) == 1
    assert kit.told(store, "elven") == {"B": "unknown", "C": "unknown"}
    second = kit.FakeTransport(kit.answer(OK))
    summary = kit.run(
        kit.elven(second, max_rows=2), store, [kit.balance(asset) for asset in ("D", "A", "C", "B")], run_id="run-2"
    )
    assert second.requests[0].body == lost.requests[0].body
    assert (summary.accepted_now, summary.resent) == (4, 2)
    # The same rows are the same batch: one plan, two reports.
    folders = {key.split("/")[4] for key in store.objects} - {"begun", "local", "agreed"}
    assert len(folders) == 2
    assert len(store.documents("answered/0002.json")) == 1


@pytest.mark.parametrize("status", [500, 502, 503, 408])
def test_a_servers_own_fault_leaves_the_outcome_unknown(kit, status):
    store = kit.MemoryStore()
    with pytest.raises(ServerFault, match=str(status)):
        kit.run(kit.amlyze(kit.FakeTransport(kit.answer({"error": "x"}, status))), store, [kit.balance()])
    assert kit.told(store) == {"BTC": "unknown"}


def test_an_answer_too_large_to_read_leaves_the_outcome_unknown(kit):
    store = kit.MemoryStore()
    with pytest.raises(BadAnswer, match="larger"):
        kit.run(kit.amlyze(kit.FakeTransport(BadAnswer("the answer is larger"))), store, [kit.balance()])
    assert kit.told(store) == {"BTC": "unknown"}


def test_an_untrusted_certificate_ends_it_with_nothing_sent(kit):
    store = kit.MemoryStore()
    with pytest.raises(FinalError, match="certificate"):
        kit.run(kit.amlyze(kit.FakeTransport(FinalError("certificate"))), store, [kit.balance()])
    assert kit.told(store) == {"BTC": "planned"}


@pytest.mark.parametrize(
    ("status", "error", "part"),
    [
        (401, CredentialsRefused, "check the connection's key"),
        (403, CredentialsRefused, "permitted"),
        (404, RequestRefused, "base URL"),
        (302, RequestRefused, "https://other.test/login"),
    ],
)
def test_a_refused_access_stops_at_once_and_uses_the_numbers_up(kit, status, error, part):
    store = kit.MemoryStore()
    transport = kit.FakeTransport(kit.answer({}, status, location="https://u:p@other.test/login?token=abc"))
    with pytest.raises(error, match=part) as caught:
        kit.run(kit.amlyze(transport, max_rows=1), store, [kit.balance(), kit.balance("ETH")])
    assert "abc" not in str(caught.value)
    assert len(transport.requests) == 1
    assert kit.told(store) == {"BTC": "rejected"}
    second = kit.FakeTransport(kit.FakeAmlyzeServer())
    kit.run(kit.amlyze(second, max_rows=2), store, [kit.balance(), kit.balance("ETH")])
    assert numbers(second) == ["2", "1"]


def test_a_refused_access_says_nothing_about_an_earlier_unanswered_request(kit):
    store, server = kit.MemoryStore(), kit.FakeAmlyzeServer()

    def lose(body):
        server(body)
        return AnswerLost("gone")

    with pytest.raises(OutcomeUnknown):
        kit.run(kit.amlyze(kit.FakeTransport(lose)), store, [kit.balance()])
    with pytest.raises(CredentialsRefused):
        kit.run(kit.amlyze(kit.FakeTransport(kit.answer({}, 401))), store, [kit.balance()])
    assert kit.told(store) == {"BTC": "unknown"}
    summary = kit.run(kit.amlyze(kit.FakeTransport(server)), store, [kit.balance()])
    assert summary.seen == 1
    assert len(server.accepted) == 1


def test_a_clock_that_is_off_is_named_when_credentials_are_refused(kit):
    refused = kit.answer({}, 401, date="Thu, 01 Jan 1970 00:10:00 GMT")
    with pytest.raises(CredentialsRefused, match="clock differs from ours by 599 s"):
        kit.run(kit.elven(kit.FakeTransport(refused)), kit.MemoryStore(), [kit.balance()])


def test_rejected_balances_go_again_when_repeated_under_numbers_that_name_the_old(kit):
    store, server = kit.MemoryStore(), kit.FakeAmlyzeServer()
    server.refuse = {"CASH-BTC": "404"}
    transport = kit.FakeTransport(server)
    for count in (1, 2):
        with pytest.raises(RecordsRejected, match="404 x1"):
            kit.run(kit.amlyze(transport), store, [kit.balance(), kit.balance("ETH")])
        assert numbers(transport)[0] == str(count)
    server.refuse = {}
    summary = kit.run(kit.amlyze(transport), store, [kit.balance(), kit.balance("ETH")])
    assert (summary.accepted_now, summary.accepted_before) == (1, 1)
    row = next(row for row in outcomes(store, "main_cash", kit.DAY, "amlyze") if row.asset == "BTC")
    assert (row.number[-2:], row.replaces[-2:], row.outcome) == ("-3", "-2", "accepted")


def test_a_corrected_balance_supersedes_visibly_and_then_back(kit):
    store, server = kit.MemoryStore(), kit.FakeAmlyzeServer()
    transport = kit.FakeTransport(server)
    kit.run(kit.amlyze(transport), store, [kit.balance(amount="1")])
    for amount, old in (("2", "1"), ("1", "2")):
        summary = kit.run(kit.amlyze(transport), store, [kit.balance(amount=amount)])
        assert (summary.accepted_now, summary.superseded) == (1, 1)
        (row,) = outcomes(store, "main_cash", kit.DAY, "amlyze")
        assert (str(row.amount), str(row.supersedes)) == (amount, old)
    assert [str(record["value"]) for record in server.accepted] == ["1", "2", "1"]


def test_an_unresolved_number_never_goes_out_with_another_amount(kit):
    store, server = kit.MemoryStore(), kit.FakeAmlyzeServer()
    with pytest.raises(OutcomeUnknown):
        kit.run(kit.amlyze(kit.FakeTransport(AnswerLost("gone"))), store, [kit.balance(amount="1")])
    transport = kit.FakeTransport(server)
    summary = kit.run(kit.amlyze(transport), store, [kit.balance(amount="2")])
    assert numbers(transport) == ["2"]
    assert (summary.accepted_now, summary.superseded, summary.resent) == (1, 0, 0)
    (row,) = outcomes(store, "main_cash", kit.DAY, "amlyze")
    assert row.replaces.endswith("-1")


def test_another_account_id_does_not_use_an_instants_numbers_again(kit):
    store, server = kit.MemoryStore(), kit.FakeAmlyzeServer()
    transport = kit.FakeTransport(server)
    kit.run(kit.amlyze(transport), store, [kit.balance()])
    kit.run(kit.amlyze(transport, account_ext_id="NEW-{asset}"), store, [kit.balance()])
    assert numbers(transport) == ["2"]
    assert len(server.accepted) == 2


def test_a_number_about_to_go_out_with_other_content_stops_everything(kit):
    row = Row("s-1", "k", "BTC", 0, "1", "2026-11-20", "close", {"value": "1"})
    other = Row("s-1", "k", "BTC", 0, "2", "2026-11-20", "close", {"value": "2"})
    history = History()
    history.add(row, "b", PLANNED)
    guard_numbers([Batch("b", (row,), b"", True)], history)
    for batches in ([Batch("b", (other,), b"", True)], [Batch("b", (row, other), b"", False)]):
        with pytest.raises(NumberReused, match="s-1"):
            guard_numbers(batches, history)


def test_a_row_larger_than_a_request_is_rejected_before_sending(kit):
    transport = kit.FakeTransport(kit.answer(OK))
    with pytest.raises(RecordsRejected, match="max_bytes") as caught:
        kit.run(kit.elven(transport, max_bytes=140), kit.MemoryStore(), [kit.balance(), kit.balance("X" * 60)])
    assert caught.value.summary.accepted_now == 1


def test_an_instant_that_no_text_can_hold_is_rejected_before_sending(kit):
    with pytest.raises(RecordsRejected, match="years 1 to 9999"):
        kit.run(kit.elven(kit.FakeTransport(kit.answer(OK))), kit.MemoryStore(), [kit.balance(at_ms=10**17)])


def test_a_passing_error_after_rejections_is_final_so_that_nothing_rejected_goes_out_by_itself(kit):
    transport = kit.FakeTransport(kit.answer({"errorCode": "O001"}, 400), AnswerLost("gone"))
    with pytest.raises(RecordsRejected, match=r"O001 x1.*stopped early.*gone") as caught:
        kit.run(kit.amlyze(transport, max_rows=1), kit.MemoryStore(), [kit.balance("A"), kit.balance("B")])
    assert (caught.value.summary.rejected, caught.value.summary.unknown) == (1, 1)


def test_a_live_copys_answer_to_the_same_batch_is_taken_as_ours(kit):
    store, server = kit.MemoryStore(), kit.FakeAmlyzeServer()
    copied = []

    def other_copy(key):
        # Between our reading of the receipts and our first plan, the other copy does all of its work.
        store.before_put = lambda _: None
        copied.append(kit.run(kit.amlyze(kit.FakeTransport(server)), store, [kit.balance()]))

    store.before_put = other_copy
    transport = kit.FakeTransport(server)
    summary = kit.run(kit.amlyze(transport), store, [kit.balance()])
    assert copied[0].accepted_now == 1
    assert (summary.accepted_before, summary.requests) == (1, 0)


def test_two_copies_that_send_at_the_same_time_end_accepted_once(kit):
    store, server = kit.MemoryStore(), kit.FakeAmlyzeServer()
    balances = [kit.balance("A"), kit.balance("B")]

    def other_copy_first(body):
        kit.run(kit.amlyze(kit.FakeTransport(server)), store, balances)
        return server(body)

    transport = kit.FakeTransport(other_copy_first)
    summary = kit.run(kit.amlyze(transport), store, balances)
    assert (summary.accepted_now, summary.seen) == (2, 0)
    assert len(server.accepted) == 2
    assert set(kit.told(store).values()) == {"accepted"}


def test_two_copies_with_different_balances_leave_nothing_undelivered(kit):
    store, server = kit.MemoryStore(), kit.FakeAmlyzeServer()

    def other_copy(key):
        if key.endswith("planned.json"):
            store.before_put = lambda _: None
            kit.run(kit.amlyze(kit.FakeTransport(server)), store, [kit.balance(amount="1")])

    store.before_put = other_copy
    with pytest.raises(Overtaken, match="another run of this day"):
        kit.run(kit.amlyze(kit.FakeTransport(server)), store, [kit.balance(amount="2")])
    again = kit.run(kit.amlyze(kit.FakeTransport(server)), store, [kit.balance(amount="2")])
    assert again.accepted_now == 1
    assert [str(record["value"]) for record in server.accepted] == ["1", "2"]


# --- several days ---


def test_a_days_close_is_not_delivered_again_as_the_next_ones_open(kit):
    store, server = kit.MemoryStore(), kit.FakeAmlyzeServer()
    next_day = kit.DAY + timedelta(days=1)
    for order in ((kit.DAY, next_day), (next_day, kit.DAY)):
        store, server = kit.MemoryStore(), kit.FakeAmlyzeServer()
        transport = kit.FakeTransport(server)
        for day in order:
            kit.run(kit.amlyze(transport), store, [kit.balance(points="close" if day == kit.DAY else "open")], day=day)
        assert len(server.accepted) == 1
        assert kit.told(store) == {"BTC": "accepted"}


def test_which_day_wins_a_shared_key_does_not_depend_on_the_order_of_runs(kit):
    late = kit.CLOSE_MS - 700
    earlier = kit.balance(amount="1", at_ms=late - 200, points="changes")
    later = kit.balance(amount="2", at_ms=late, points="changes")
    next_day = kit.DAY + timedelta(days=1)
    for order in ([(kit.DAY, earlier), (next_day, later)], [(next_day, later), (kit.DAY, earlier)]):
        store, transport = kit.MemoryStore(), kit.FakeTransport(kit.answer(OK))
        runs = [kit.run(kit.elven(transport), store, [row], day=day) for day, row in order]
        assert transport.rows()[0]["balance"] == 2
        assert [each.covered for each in runs] == [0, order[0][0] == next_day]
        again = [kit.run(kit.elven(transport), store, [row], day=day) for day, row in order]
        assert not any(each.requests for each in again)


def test_a_snapshots_balance_wins_over_another_days_record(kit):
    record = kit.balance(amount="1", at_ms=kit.CLOSE_MS + 900, points="changes")
    close = kit.balance(amount="2", points="close")
    next_day = kit.DAY + timedelta(days=1)
    store, transport = kit.MemoryStore(), kit.FakeTransport(kit.answer(OK))
    kit.run(kit.elven(transport), store, [record], day=next_day)
    summary = kit.run(kit.elven(transport), store, [close])
    assert summary.superseded == 1
    assert kit.run(kit.elven(transport), store, [record], day=next_day).covered == 1


def test_a_correction_by_a_lower_day_does_not_undo_what_a_higher_day_stands_for(kit):
    store, transport = kit.MemoryStore(), kit.FakeTransport(kit.FakeAmlyzeServer())
    next_day = kit.DAY + timedelta(days=1)
    kit.run(kit.amlyze(transport), store, [kit.balance(amount="1", points="open")], day=next_day)
    # The day's own close finds its amount delivered already: nothing to send, but it stands for it.
    assert kit.run(kit.amlyze(transport), store, [kit.balance(amount="1")]).requests == 0
    corrected = kit.run(kit.amlyze(transport), store, [kit.balance(amount="2", points="open")], day=next_day)
    assert (corrected.covered, corrected.requests) == (1, 0)
    # Once the day itself is corrected, so is the key.
    assert kit.run(kit.amlyze(transport), store, [kit.balance(amount="2")]).superseded == 1


def test_a_rejected_correction_shows_until_the_old_balance_is_right_again(kit):
    store, server = kit.MemoryStore(), kit.FakeAmlyzeServer()
    transport = kit.FakeTransport(server)
    kit.run(kit.amlyze(transport), store, [kit.balance(amount="1")])
    server.refuse = {"CASH-BTC": "500"}
    with pytest.raises(RecordsRejected):
        kit.run(kit.amlyze(transport), store, [kit.balance(amount="2")])
    assert kit.told(store) == {"BTC": "rejected"}
    assert kit.run(kit.amlyze(transport), store, [kit.balance(amount="1")]).accepted_before == 1
    assert kit.told(store) == {"BTC": "accepted"}
    with pytest.raises(RecordsRejected):
        kit.run(kit.amlyze(transport), store, [kit.balance(amount="2")])
    assert kit.told(store) == {"BTC": "rejected"}


@given(st.lists(st.tuples(st.integers(-6, 6), st.integers(-6, 6)), min_size=1, max_size=5))
def test_an_instant_is_found_again_however_far_from_its_day_it_was_delivered(kit, runs):
    store, server = kit.MemoryStore(), kit.FakeAmlyzeServer()
    transport = kit.FakeTransport(server)
    for day, instant in runs:
        row = kit.balance(at_ms=kit.CLOSE_MS + instant * DAY_MS + HOUR_MS, points="changes")
        kit.run(kit.amlyze(transport), store, [row], day=kit.DAY + timedelta(days=day))
    assert len(server.accepted) == len({instant for _, instant in runs})


def test_only_a_row_that_lies_on_another_day_leaves_a_pointer(kit):
    store, transport = kit.MemoryStore(), kit.FakeTransport(kit.FakeAmlyzeServer())
    rows = [kit.balance("A"), kit.balance("B", at_ms=kit.CLOSE_MS - DAY_MS - 1, points="changes")]
    kit.run(kit.amlyze(transport), store, rows)
    pointers = [key for key in store.objects if "/see-" in key]
    assert pointers == ["receipts/main_cash/2026-11-19/amlyze/see-2026-11-20.json"]
    assert kit.told(store) == {"A": "accepted", "B": "accepted"}
    assert kit.told(store, day=date(2026, 11, 19)) == {"B": "accepted"}


def test_two_destinations_of_an_account_know_nothing_of_each_other(kit):
    store, server = kit.MemoryStore(), kit.FakeAmlyzeServer()
    for name in ("amlyze", "second"):
        kit.run(kit.amlyze(kit.FakeTransport(server), name=name), store, [kit.balance()])
    assert len({record["communicationNumber"] for record in server.accepted}) == 2


# --- damage ---


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("planned.json", b"{"),
        ("planned.json", b'{"version": 2}'),
        ("planned.json", b'{"version": 1}'),
        ("answered/0001.json", b'{"version": 1, "outcomes": {"a": {"status": "perhaps"}}}'),
        ("answered/0001.json", b"\xff"),
        ("planned.json", None),
    ],
)
def test_a_damaged_receipt_stops_before_anything_is_sent(kit, name, content):
    store, transport = kit.MemoryStore(), kit.FakeTransport(kit.FakeAmlyzeServer())
    kit.run(kit.amlyze(transport), store, [kit.balance()])
    key = next(key for key in store.objects if key.endswith(name))
    store.objects.pop(key)
    if content is not None:
        store.objects[key] = content
    with pytest.raises(StoreDamaged, match="receipts/main_cash/2026-11-20/amlyze/"):
        kit.run(kit.amlyze(transport), store, [kit.balance("ETH")])
    assert len(transport.requests) == 1


# --- while the day goes on, beside the run of the whole day ---


def test_a_delivery_of_the_day_so_far_never_stops_the_whole_day_s_and_ends_once_that_has_begun(kit):
    store, server = kit.MemoryStore(), kit.FakeAmlyzeServer()
    so_far = kit.FakeTransport(server)

    def meanwhile(body):
        with pytest.raises(Overtaken) as told:
            kit.run(kit.amlyze(so_far), store, [kit.balance("BTC", "1")], so_far=True)
        assert told.value.late == 0
        return server(body)

    whole = [kit.balance("BTC", "2"), kit.balance("ETH")]
    summary = kit.run(kit.amlyze(kit.FakeTransport(meanwhile)), store, whole)
    assert (summary.accepted_now, so_far.requests) == (2, [])
    # A late one, such as an old run that is cleared, would put an old amount in the place of the proven one.
    with pytest.raises(Overtaken):
        kit.run(kit.amlyze(so_far), store, [kit.balance("BTC", "1")], so_far=True)
    assert so_far.requests == []
    assert kit.run(kit.amlyze(so_far), store, whole).accepted_before == 2


def test_what_was_under_way_of_the_day_so_far_when_the_whole_day_began_is_put_right(kit):
    store, server = kit.MemoryStore(), kit.FakeAmlyzeServer()
    whole = [kit.balance("BTC", "2"), kit.balance("ETH")]

    def slowly(body):
        # Our own rows are planned and not answered: the whole day's delivery takes the next number.
        kit.run(kit.amlyze(kit.FakeTransport(server)), store, whole)
        return server(body)

    with pytest.raises(Overtaken, match="1 of its balances may have arrived after other amounts") as told:
        kit.run(kit.amlyze(kit.FakeTransport(slowly)), store, [kit.balance("BTC", "1")], so_far=True)
    assert told.value.late == 1
    assert server.accepted[-1]["value"] == Decimal("1")
    kit.run(kit.amlyze(kit.FakeTransport(server)), store, whole)
    assert (server.accepted[-1]["accountExtId"], server.accepted[-1]["value"]) == ("CASH-BTC", Decimal("2"))
    assert kit.told(store) == {"BTC": "accepted", "ETH": "accepted"}


def test_runs_of_the_day_so_far_follow_each_other(kit):
    store, transport = kit.MemoryStore(), kit.FakeTransport(kit.FakeAmlyzeServer())
    for count in (1, 2, 3):
        balances = [kit.balance(asset) for asset in ("BTC", "ETH", "USDT")[:count]]
        assert kit.run(kit.amlyze(transport), store, balances, so_far=True).accepted_now == 1


# --- what is told of it ---


def test_what_was_refused_and_is_ignored_since_is_shown_as_ignored(kit):
    store, server = kit.MemoryStore(), kit.FakeAmlyzeServer()
    server.refuse["CASH-SPAM"] = "404"
    balances = [kit.balance("BTC"), kit.balance("SPAM")]
    with pytest.raises(RecordsRejected):
        kit.run(kit.amlyze(kit.FakeTransport(server)), store, balances)
    assert kit.told(store) == {"BTC": "accepted", "SPAM": "rejected"}
    kit.run(kit.amlyze(kit.FakeTransport(server), assets={"SPAM": "ignore", "BTC": "ignore"}), store, balances)
    assert kit.told(store) == {"BTC": "accepted", "SPAM": "ignored"}


def test_a_delivery_says_how_many_balances_go_again(kit):
    store, lines = kit.MemoryStore(), []
    with pytest.raises(OutcomeUnknown):
        kit.run(kit.amlyze(kit.FakeTransport(AnswerLost("gone"))), store, [kit.balance("A"), kit.balance("B")])
    balances = [kit.balance("A"), kit.balance("B"), kit.balance("C")]
    kit.run(kit.amlyze(kit.FakeTransport(kit.FakeAmlyzeServer())), store, balances, log=lines.append)
    assert lines[0].endswith("3 to send in 2 batches, 2 of them again under the same numbers")


def test_where_nobody_is_reached_the_destination_is_named_and_the_last_answer_s_reason_stays(kit):
    store = kit.MemoryStore()
    with pytest.raises(ServerFault):
        kit.run(kit.amlyze(kit.FakeTransport(kit.answer({"error": "broken"}, 500))), store, [kit.balance()])
    with pytest.raises(NotReached, match=r"^amlyze: refused\. Nothing was sent; it is tried again by itself"):
        kit.run(kit.amlyze(kit.FakeTransport(NotReached("refused"))), store, [kit.balance()])
    (row,) = outcomes(store, "main_cash", kit.DAY, "amlyze")
    assert (row.outcome, row.code) == ("unknown", "HTTP 500")
