"""What a day's facts mean, by the accounts file."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from balance_bridge.accounts import Account, AmlyzeDestination, AscendexSource, FilesSource
from balance_bridge.facts import Day, Delivered
from balance_bridge.states import Kind, State, judge, worst

TODAY, DAY = date(2026, 11, 22), date(2026, 11, 20)
DONE = {"counts": {"accepted": 12}, "planned": True, "due": True}


def account(*, source: Any = None, **options: Any) -> Account:
    destination = {"max_rejected": options.pop("max_rejected", 0), "on_unconfirmed": options.pop("unconfirmed", "warn")}
    amlyze = AmlyzeDestination(
        **{"name": "amlyze", "conn_id": "a", "requester": "t", "account_ext_id": "X-{asset}", **destination}
    )
    source = source or AscendexSource(conn_id="x", category="cash")
    return Account(name="main", source=source, start_date=date(2026, 11, 1), destinations={"amlyze": amlyze}, **options)


def state(facts: Day, day: date = DAY, **options: Any) -> State:
    return judge(account(**options), day, facts, TODAY)["amlyze"]


def facts(proof: str = "proven", *, approved_by: str = "", breaks: int = 0, **delivered: Any) -> Day:
    destinations = {"amlyze": Delivered(**delivered)} if delivered else {}
    return Day(stored=True, proof=proof, approved_by=approved_by, breaks=breaks, destinations=destinations)


KINDS = {
    "all accepted": (facts(**DONE), {}, Kind.DELIVERED),
    "no balances at all": (facts(planned=True, due=True), {}, Kind.DELIVERED),
    "one rejected": (facts(**{**DONE, "counts": {"accepted": 11, "rejected": 1}}), {}, Kind.REJECTED),
    "as many rejected as are let pass": (
        facts(**{**DONE, "counts": {"accepted": 11, "rejected": 1}}),
        {"max_rejected": 1},
        Kind.DELIVERED,
    ),
    "one unknown": (facts(**{**DONE, "counts": {"accepted": 11, "unknown": 1}}), {}, Kind.UNKNOWN),
    "one seen": (facts(**{**DONE, "counts": {"accepted": 11, "seen": 1}}), {}, Kind.DELIVERED),
    "one seen, which is not let pass": (
        facts(**{**DONE, "counts": {"accepted": 11, "seen": 1}}),
        {"unconfirmed": "fail"},
        Kind.UNKNOWN,
    ),
    "one never sent": (facts(**{**DONE, "never_sent": 1}), {}, Kind.NOT_DELIVERED),
    "one planned": (facts(**{**DONE, "counts": {"accepted": 11, "planned": 1}}), {}, Kind.NOT_DELIVERED),
    "fetched only": (Day(stored=True), {}, Kind.NOT_DELIVERED),
    "proven only": (facts(), {}, Kind.NOT_DELIVERED),
    "broken": (facts("broken", breaks=1), {}, Kind.HELD),
    "delivered, and broken since": (facts("broken", breaks=1, **DONE), {}, Kind.HELD),
    "broken, and somebody is asked": (facts("broken", breaks=1), {"on_break": "ask"}, Kind.HELD),
    "broken, approved and delivered": (
        facts("broken", approved_by="alice", **DONE),
        {"on_break": "ask"},
        Kind.DELIVERED,
    ),
    "broken, approved and not delivered": (
        facts("broken", approved_by="alice"),
        {"on_break": "ask"},
        Kind.NOT_DELIVERED,
    ),
    "broken and delivered anyway": (facts("broken", **DONE), {"on_break": "load"}, Kind.DELIVERED),
    "delivered and pruned": (Day(destinations={"amlyze": Delivered(**DONE)}), {}, Kind.DELIVERED),
    "unreadable": (Day(stored=True, proof="proven", unreadable="x is damaged"), {}, Kind.UNREADABLE),
    "one log is unreadable": (facts(unreadable="x is damaged"), {}, Kind.UNREADABLE),
    "nothing": (Day(), {}, Kind.MISSING),
    "nothing, and the exchange has said that it has not either": (Day(unavailable=True), {}, Kind.GONE),
    "nothing, of a source that forgets nothing": (Day(), {"source": FilesSource(type="files", path="x")}, Kind.MISSING),
}


@pytest.mark.parametrize("name", KINDS)
def test_each_state_of_a_day_has_its_kind(name: str) -> None:
    known, options, kind = KINDS[name]
    found = state(known, **options)
    assert found.kind == kind
    assert found.text
    assert found.is_wrong == (kind is not Kind.DELIVERED)


def test_what_is_not_as_usual_is_said_of_a_delivered_day() -> None:
    assert state(facts("tolerated", **DONE)).remark == "the drift is within the tolerance"
    assert "alice" in state(facts("broken", approved_by="alice", **DONE), on_break="ask").remark
    assert "anyway" in state(facts("broken", **DONE), on_break="load").remark
    assert "3 balances are held under keys" in state(facts(**DONE, other_keys=3)).remark
    assert state(facts(**DONE)).remark == ""
    assert state(facts("broken", breaks=1)).remark == "", "what is held is not delivered anyway"


def test_a_missing_day_says_how_long_the_exchange_still_has_it() -> None:
    for back, left in ((1, 7), (6, 2), (7, 1), (8, 0), (30, 0)):
        found = state(Day(), date(2026, 11, 22 - back) if back < 22 else date(2026, 10, 23))
        assert (found.days_left, found.kind) == (left, Kind.MISSING if left else Kind.GONE)


def test_the_worst_destination_counts_for_the_day() -> None:
    states = {
        name: State(kind, "") for name, kind in (("a", Kind.DELIVERED), ("b", Kind.REJECTED), ("c", Kind.UNKNOWN))
    }
    assert worst(states).kind is Kind.REJECTED
