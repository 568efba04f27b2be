"""Dividing what was refused as a whole, several requests at a time, and what the accounts file lets pass."""

from __future__ import annotations

import json
import math
import threading
from contextlib import contextmanager, suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balance_bridge.errors import CredentialsRefused, NotReached, OutcomeUnknown, RecordsRejected, Unconfirmed
from balance_bridge.load import sending
from balance_bridge.load.audit import outcomes
from balance_bridge.load.outcomes import Status
from balance_bridge.load.policy import Policy
from balance_bridge.load.receipts import Receipts

OK = {"status": "success", "data": True}


def failed(code=19734, message="a symbol is unknown"):
    return {"status": "failed", "data": {"code": code, "message": message}}


class Picky:
    """An Elven that refuses a whole request for one bad record, and remembers what it took."""

    def __init__(self, kit, bad, *, status=400, code=19734):
        self.kit, self.bad, self.status, self.code = kit, set(bad), status, code
        self.taken = []
        self.sizes = []
        self.requests = 0
        self.lock = threading.Lock()

    def __call__(self, body):
        with self.lock:
            self.requests += 1
            rows = json.loads(body)
            self.sizes.append(len(rows))
            if any(row["symbol"] in self.bad for row in rows):
                return self.kit.answer(failed(self.code), self.status)
            self.taken += [row["symbol"] for row in rows]
            return self.kit.answer(OK)


def balances(kit, count):
    return [kit.balance(f"A{index:03d}") for index in range(count)]


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(1, 70), st.integers(1, 40), st.integers(1, 4))
def test_every_good_balance_goes_through_and_every_bad_one_is_alone(kit, data, count, max_rows, in_flight):
    bad = data.draw(st.sets(st.sampled_from([f"A{index:03d}" for index in range(count)]), max_size=4))
    server, store = Picky(kit, bad), kit.MemoryStore()
    policy = Policy(bisect_codes=frozenset({"19734"}), max_in_flight=in_flight)
    target = kit.elven(kit.FakeTransport(server), max_rows=max_rows, policy=policy)
    if bad:
        with pytest.raises(RecordsRejected, match=f"{len(bad)} of {count} balances were rejected") as caught:
            kit.run(target, store, balances(kit, count))
        summary = caught.value.summary
    else:
        summary = kit.run(target, store, balances(kit, count))
    assert sorted(server.taken) == sorted({f"A{index:03d}" for index in range(count)} - bad)
    found = {row.asset: row.outcome for row in outcomes(store, "main_cash", kit.DAY, "elven")}
    assert found == {f"A{index:03d}": "rejected" if f"A{index:03d}" in bad else "accepted" for index in range(count)}
    assert (summary.accepted_now, summary.rejected, summary.pending) == (count - len(bad), len(bad), 0)
    # The bound that the documentation states.
    batches = math.ceil(count / max_rows)
    deepest = math.ceil(math.log2(min(max_rows, count)))
    assert server.requests == summary.requests <= batches + 2 * len(bad) * deepest
    assert server.requests == batches + 2 * summary.divided


def test_what_is_divided_goes_out_under_new_numbers_that_name_the_old(kit):
    store = kit.MemoryStore()
    with pytest.raises(RecordsRejected):
        kit.run(kit.elven(kit.FakeTransport(Picky(kit, {"A001"}))), store, balances(kit, 4))
    found = {row.asset: (row.number[-1], row.replaces[-1:]) for row in outcomes(store, "main_cash", kit.DAY, "elven")}
    assert found == {"A000": ("3", "2"), "A001": ("3", "2"), "A002": ("2", "1"), "A003": ("2", "1")}


def test_a_repeated_run_sends_only_what_was_bad_under_the_next_number(kit):
    store, server = kit.MemoryStore(), Picky(kit, {"A001"})
    with pytest.raises(RecordsRejected):
        kit.run(kit.elven(kit.FakeTransport(server)), store, balances(kit, 4))
    server.bad.clear()
    server.taken.clear()
    summary = kit.run(kit.elven(kit.FakeTransport(server)), store, balances(kit, 4))
    assert server.taken == ["A001"]
    assert (summary.accepted_now, summary.accepted_before) == (1, 3)


@pytest.mark.parametrize("status", [200, 400, 422, 413])
def test_whatever_the_status_of_a_refusal_with_a_record_s_code_it_divides(kit, status):
    server = Picky(kit, {"A001"}, status=status)
    with pytest.raises(RecordsRejected, match="1 of 4"):
        kit.run(kit.elven(kit.FakeTransport(server)), kit.MemoryStore(), balances(kit, 4))
    assert sorted(server.taken) == ["A000", "A002", "A003"]


@pytest.mark.parametrize(("status", "code"), [(400, 20001), (422, 1), (413, 19735), (200, 5)])
def test_another_code_does_not_divide(kit, status, code):
    server = Picky(kit, {"A001"}, status=status, code=code)
    with pytest.raises(RecordsRejected, match="4 of 4"):
        kit.run(kit.elven(kit.FakeTransport(server)), kit.MemoryStore(), balances(kit, 4))
    assert server.requests == 1


@pytest.mark.parametrize("status", [401, 403, 404, 408, 429, 500, 503])
def test_what_judges_no_record_never_divides_whatever_its_code(kit, status):
    server = Picky(kit, {"A001"}, status=status)
    clock = kit.FakeClock()
    with pytest.raises(Exception, match=r"."):
        kit.run(kit.elven(kit.FakeTransport(server)), kit.MemoryStore(), balances(kit, 4), clock=clock.clock)
    assert set(server.sizes) == {4}
    assert server.taken == []


def test_where_everything_is_bad_the_number_of_requests_is_bounded(kit):
    server, lines = Picky(kit, {f"A{index:03d}" for index in range(600)}), []
    with pytest.raises(RecordsRejected, match="600 of 600"):
        kit.run(kit.elven(kit.FakeTransport(server)), kit.MemoryStore(), balances(kit, 600), log=lines.append)
    assert server.requests == 1 + 2 * sending.MAX_DIVISIONS
    assert any("200 requests went into finding bad records" in line for line in lines)


class Killed(BaseException):
    """Nothing in the package may catch this."""


@pytest.mark.parametrize("after", range(1, 6))
def test_killed_while_dividing_a_repeated_run_delivers_the_rest(kit, after):
    store, server = kit.MemoryStore(), Picky(kit, {"A001"})

    def kill(body):
        if server.requests == after:
            raise Killed
        return server(body)

    with suppress(Killed, RecordsRejected):
        kit.run(kit.elven(kit.FakeTransport(kill)), store, balances(kit, 8))
    with pytest.raises(RecordsRejected, match="1 of 8"):
        kit.run(kit.elven(kit.FakeTransport(server)), store, balances(kit, 8))
    assert sorted(server.taken) == [f"A{index:03d}" for index in range(8) if index != 1]


def test_amlyze_is_divided_under_new_communication_numbers(kit):
    server = kit.FakeAmlyzeServer()

    def refuse_whole(body):
        records = json.loads(body)["accountBalances"]
        if any(record["accountExtId"] == "CASH-A001" for record in records):
            server.used |= {record["communicationNumber"] for record in records}
            return kit.answer({"resultType": "REQUEST_REJECTED", "errorCode": "O001", "errorDescription": "no"}, 400)
        return server(body)

    store = kit.MemoryStore()
    with pytest.raises(RecordsRejected, match="1 of 4"):
        kit.run(kit.amlyze(kit.FakeTransport(refuse_whole)), store, balances(kit, 4))
    assert sorted(account for account, _ in server.delivered()) == ["CASH-A000", "CASH-A002", "CASH-A003"]


def test_requests_at_the_same_time_are_no_more_than_allowed(kit):
    at_once, most, lock = 0, 0, threading.Lock()
    meet = threading.Barrier(3, timeout=5)

    def slow(body):
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        meet.wait()
        with lock:
            at_once -= 1
        return kit.answer(OK)

    policy = Policy(max_in_flight=3)
    target = kit.elven(kit.FakeTransport(slow), max_rows=1, policy=policy)
    summary = kit.run(target, kit.MemoryStore(), balances(kit, 9))
    assert (summary.accepted_now, summary.requests, most) == (9, 9, 3)


def test_what_stops_one_of_several_requests_leaves_the_others_on_receipts(kit):
    def by_symbol(body):
        if "A001" in body.decode():
            raise NotReached("nobody there")
        return kit.answer({"error": "no"}, 401) if "A002" in body.decode() else kit.answer(OK)

    store = kit.MemoryStore()
    target = kit.elven(kit.FakeTransport(by_symbol), max_rows=1, policy=Policy(max_in_flight=4))
    with pytest.raises(CredentialsRefused):
        kit.run(target, store, balances(kit, 6))
    found = {row.asset: row.outcome for row in outcomes(store, "main_cash", kit.DAY, "elven")}
    assert found == {"A000": "accepted", "A001": "planned", "A002": "rejected", "A003": "accepted"}


def test_each_request_holds_a_place_and_gives_it_back(kit):
    held, most = [], []

    class Places:
        @contextmanager
        def place(self):
            held.append(1)
            most.append(len(held))
            yield
            held.pop()

    target = kit.elven(kit.FakeTransport(kit.answer(OK)), max_rows=1, places=Places())
    kit.run(target, kit.MemoryStore(), balances(kit, 3))
    assert (held, most) == ([], [1, 1, 1])


def test_so_many_rejected_balances_are_let_pass_and_told(kit):
    lines, store = [], kit.MemoryStore()
    policy = Policy(max_rejected=2, bisect_codes=frozenset({"19734"}))
    server = Picky(kit, {"A001", "A003"})
    summary = kit.run(kit.elven(kit.FakeTransport(server), policy=policy), store, balances(kit, 5), log=lines.append)
    assert (summary.accepted_now, summary.rejected) == (3, 2)
    assert "2 balances were rejected (2 are let pass): 19734 x2 (A001, A003)" in lines[-1]
    server.bad.add("A004")
    with pytest.raises(RecordsRejected, match="3 of 6"):
        kit.run(kit.elven(kit.FakeTransport(server), policy=policy), kit.MemoryStore(), balances(kit, 6))


def test_what_was_seen_and_not_confirmed_is_told_or_fails_as_configured(kit):
    def lose(server):
        def act(body):
            server(body)
            raise_lost()

        return act

    def raise_lost():
        from balance_bridge.errors import AnswerLost

        raise AnswerLost("cut")

    for on_unconfirmed in ("warn", "fail"):
        server, store, lines = kit.FakeAmlyzeServer(), kit.MemoryStore(), []
        with pytest.raises(OutcomeUnknown):
            kit.run(kit.amlyze(kit.FakeTransport(lose(server))), store, [kit.balance()])
        target = kit.amlyze(kit.FakeTransport(server), policy=Policy(on_unconfirmed=on_unconfirmed))
        if on_unconfirmed == "warn":
            assert kit.run(target, store, [kit.balance()], log=lines.append).seen == 1
            assert "1 balances were seen and not confirmed" in lines[-1]
        else:
            for _ in range(2):
                with pytest.raises(Unconfirmed, match=r"1 of 1 .*receipts resolve main_cash 2026-11-20"):
                    kit.run(target, store, [kit.balance()])


@pytest.mark.parametrize(
    ("status", "sent", "left"), [(Status.ACCEPTED, 0, "accepted"), (Status.REJECTED, 1, "accepted")]
)
def test_what_a_person_found_out_settles_what_was_unknown(kit, status, sent, left):
    server, store = kit.FakeAmlyzeServer(), kit.MemoryStore()
    with pytest.raises(OutcomeUnknown):
        kit.run(kit.amlyze(kit.FakeTransport(kit.answer({"results": []}))), store, [kit.balance()])
    ((batch, number),) = [
        (key.split("/")[4], row["number"])
        for key, data in store.objects.items()
        if key.endswith("planned.json")
        for row in json.loads(data)["rows"]
    ]
    receipts = Receipts(store, "main_cash", "amlyze")
    key = receipts.resolve(kit.DAY, batch, [number], status, by="Ada", reason="asked their support", now_ms=0)
    assert key.endswith("/resolved/0001.json")
    (found,) = outcomes(store, "main_cash", kit.DAY, "amlyze")
    assert (found.outcome, found.code, found.text) == (status, "RESOLVED", "Ada: asked their support")
    summary = kit.run(kit.amlyze(kit.FakeTransport(server)), store, [kit.balance()])
    assert (summary.requests, kit.told(store)) == (sent, {"BTC": "accepted"})
    if sent:
        assert [record["communicationNumber"][-1] for record in server.accepted] == ["2"]


def test_what_an_answer_said_outweighs_a_person(kit):
    store = kit.MemoryStore()
    kit.run(kit.amlyze(kit.FakeTransport(kit.FakeAmlyzeServer())), store, [kit.balance()])
    ((batch, number),) = [
        (key.split("/")[4], row["number"])
        for key, data in store.objects.items()
        if key.endswith("planned.json")
        for row in json.loads(data)["rows"]
    ]
    receipts = Receipts(store, "main_cash", "amlyze")
    receipts.resolve(kit.DAY, batch, [number], Status.REJECTED, by="Ada", reason="a guess", now_ms=0)
    assert kit.told(store) == {"BTC": "accepted"}
