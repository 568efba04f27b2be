"""What a log comes to: a pure function of its facts."""

from __future__ import annotations

import copy
import random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balance_bridge.errors import NumberReused
from balance_bridge.load.documents import Action, Plan, Resolution, Result, Row, Said, Try, Word
from balance_bridge.load.fold import LATE, LOCAL, RESOLVED, Status, fold, outcomes
from balance_bridge.load.log import Events
from doubles import examples

SOME = settings(max_examples=examples(30), deadline=None)
ASSETS = ("A", "B")
SAID = st.builds(Word, st.sampled_from(Said), st.sampled_from(["", "X1"]), st.just("why"))
WHOLE_REFUSALS = (400, 405, 406, 407, 409, 413, 421, 423, 425, 426, 431, 451)


def amount_of(number: str) -> str:
    """A number has one content: every other one has another amount."""
    return "12"[int(number[-1]) % 2]


def row(number: str, action: Action = Action.SEND, batch: int = 1, key: str = "") -> Row:
    wire = {"value": amount_of(number)} if action is Action.SEND else {}
    batch = batch if action is Action.SEND else 0
    return Row(number[0], 0, amount_of(number), "close", action, number, key or number[0], wire, batch=batch)


def plan(*rows: Row, read: dict[str, int] | None = None) -> Plan:
    return Plan("a", "2026-11-20", "d", "amlyze", "run", "now", "g", False, read or {}, list(rows))


def result(whole: Word | None = None, *, sent: bool = True, newest: int | None = 1, **records: Word) -> Result:
    named = {name.replace("_", "-"): word for name, word in records.items()}
    return Result(sent, newest, 0.0, whole, named)


@st.composite
def logs(draw: Any) -> Events:
    """Any log: whatever runs, copies, servers and people may have left, in order or not."""
    events, sent = Events(), dict[str, list[str]]()
    for number in range(1, draw(st.integers(0, 4)) + 1):
        rows = []
        for asset in ASSETS:
            action = draw(st.sampled_from(Action))
            if action is Action.KEEP and asset not in sent:
                action = Action.SEND
            if action is Action.SEND:
                name = f"{asset}-{draw(st.integers(1, 3))}"
                sent.setdefault(asset, []).append(name)
                rows.append(row(name, action, draw(st.integers(1, 2)), draw(st.sampled_from(["", "shared"]))))
            elif action is Action.KEEP:
                rows.append(row(draw(st.sampled_from(sent[asset])), action))
            else:
                rows.append(Row(asset, 0, "1", "close", action, text="no"))
        read = {f"{of:04}": draw(st.integers(0, 2)) for of in range(1, number)}
        events.plans[number] = plan(*rows, read=read)
        for at in range(1, draw(st.integers(0, 3)) + 1):
            events.tries[number, at] = Try(draw(st.integers(1, 2)), 0.0, 60.0, "")
            if draw(st.booleans()):
                events.results[number, at] = draw(results(number))
    numbers = sorted({name for names in sent.values() for name in names})
    for _ in range(draw(st.integers(0, 2)) if numbers else 0):
        words = draw(st.dictionaries(st.sampled_from(numbers), SAID, max_size=2))
        read = {f"{of:04}": draw(st.integers(0, 3)) for of in events.plans}
        events.resolutions.append(Resolution("Ada", "asked", "now", words, read))
    return events


def results(plan: int) -> Any:
    named = st.sampled_from([f"{asset}-{count}" for asset in ASSETS for count in (1, 2, 3)])
    return st.builds(
        Result,
        st.booleans(),
        st.none() | st.integers(plan, 4),
        st.just(0.0),
        st.none() | SAID,
        st.dictionaries(named, SAID, max_size=3),
    )


def found(events: Events) -> dict[str, Any]:
    """All that the fold says, as plain values."""
    folded = fold(events)
    return {
        "outcomes": [(each.row.asset, each.outcome) for each in outcomes(folded)],
        "numbers": {number: (each.outcome, each.tries) for number, each in folded.numbers.items()},
        "held": {key: each.row.number for key, each in folded.held.items()},
        "late": {key: each.row.number for key, each in folded.late.items()},
    }


@SOME
@given(logs())
def test_every_balance_of_the_newest_plan_has_exactly_one_outcome_whatever_the_log_holds(events):
    newest = events.newest_plan
    reported = [each.row for each in outcomes(fold(events))]
    assert reported == (newest.rows if newest is not None else [])


@SOME
@given(logs(), st.randoms(use_true_random=False))
def test_outcomes_do_not_depend_on_the_order_of_reading(events, shuffled: random.Random):
    other, first = copy.deepcopy(events), found(events)
    for facts in (other.tries, other.results):
        items = list(facts.items())
        shuffled.shuffle(items)
        facts.clear()
        facts.update(items)
    # Once more: the log itself is left as it was.
    assert found(other) == found(events) == first


@SOME
@given(logs(), st.data())
def test_an_acceptance_is_never_undone_by_more_facts(events, data):
    accepted = {name for name, each in fold(events).numbers.items() if each.outcome.status is Status.ACCEPTED}
    by_response = accepted - {name for each in events.resolutions for name in each.words}
    for number in events.plans:
        last = max((at for of, at in events.tries if of == number), default=0)
        events.tries[number, last + 1] = Try(data.draw(st.integers(1, 2)), 0.0, 60.0, "")
        if data.draw(st.booleans()):
            events.results[number, last + 1] = data.draw(results(number))
    events.resolutions.append(Resolution("Ada", "a guess", "now", dict.fromkeys(by_response, Word(Said.REJECTED))))
    after = fold(events)
    assert {after.numbers[name].outcome.status for name in by_response} <= {Status.ACCEPTED}


LOST = [None, result(Word(Said.NOTHING, "HTTP 503", "broken")), result(A_1=Word(Said.NOTHING, "NO RESULT")), result()]


@SOME
@given(st.sampled_from(LOST), st.lists(st.sampled_from(WHOLE_REFUSALS), max_size=4), st.integers(0, 4))
def test_what_may_have_arrived_stays_unknown_whatever_refusals_as_a_whole_follow(lost, statuses, position):
    refused: list[Result | None] = [result(Word(Said.REJECTED, f"HTTP {status}", "gateway")) for status in statuses]
    refused.insert(min(position, len(refused)), lost)
    events = Events({1: plan(row("A-1"))})
    for number, each in enumerate(refused, 1):
        events.tries[1, number] = Try(1, 0.0, 60.0, "")
        if each is not None:
            events.results[1, number] = each
    (each,) = outcomes(fold(events))
    assert each.outcome.status is Status.UNKNOWN
    assert fold(events).held["A"].row.number == "A-1"


def one(*results: Result | None, resolved: Word | None = None, read: int | None = None) -> Any:
    """The outcome of a number that went out in so many requests, of which a person has read so many."""
    events = Events({1: plan(row("A-1"))})
    for number, each in enumerate(results, 1):
        events.tries[1, number] = Try(1, 0.0, 60.0, "")
        if each is not None:
            events.results[1, number] = each
    if resolved is not None:
        read = {"0001": len(results) if read is None else read}
        events.resolutions.append(Resolution("Ada", "asked", "now", {"A-1": resolved}, read))
    (found,) = outcomes(fold(events))
    return found.outcome


ACCEPTED, REJECTED = Word(Said.ACCEPTED), Word(Said.REJECTED, "404", "no such account")
USED, NOTHING = Word(Said.USED, "O005", "used"), Word(Said.NOTHING, "HTTP 500", "broken")


@pytest.mark.parametrize(
    ("results", "status", "code"),
    [
        ([], "planned", ""),
        ([result(NOTHING, sent=False)], "planned", ""),
        ([None], "unknown", "NO RESPONSE"),
        ([result(NOTHING)], "unknown", "HTTP 500"),
        ([result(ACCEPTED)], "accepted", ""),
        ([result(A_1=ACCEPTED)], "accepted", ""),
        ([result(REJECTED)], "rejected", "404"),
        ([result(A_1=REJECTED)], "rejected", "404"),
        ([result(REJECTED, A_1=ACCEPTED)], "accepted", ""),
        ([result(ACCEPTED, A_1=REJECTED)], "rejected", "404"),
        ([result(B_1=ACCEPTED)], "unknown", "NO RESULT"),
        # A refusal of the very record speaks of it, one of the request does not.
        ([None, result(A_1=REJECTED)], "rejected", "404"),
        ([None, result(REJECTED)], "unknown", "404"),
        ([result(REJECTED), None], "unknown", "404"),
        # Used: by an earlier request of ours if there was one that may have arrived, else by somebody else.
        ([None, result(A_1=USED)], "seen", "O005"),
        ([result(NOTHING), result(USED)], "seen", "O005"),
        ([result(A_1=USED)], "unknown", "O005"),
        ([result(NOTHING, sent=False), result(A_1=USED)], "unknown", "O005"),
        ([result(REJECTED), result(A_1=USED)], "unknown", "O005"),
        ([None, result(REJECTED), result(A_1=USED)], "seen", "O005"),
        ([result(A_1=USED), None], "seen", "O005"),
        # However often it says so.
        ([result(A_1=USED), result(A_1=USED)], "unknown", "O005"),
        # The strongest counts.
        ([result(A_1=REJECTED), result(A_1=ACCEPTED)], "accepted", ""),
        ([None, result(A_1=USED), result(ACCEPTED)], "accepted", ""),
    ],
)
def test_the_strongest_word_about_a_number_is_its_outcome(results, status, code):
    assert (one(*results).status, one(*results).code) == (status, code)


@pytest.mark.parametrize("results", [[None], [result(NOTHING)], [None, result(A_1=USED)], [None, result(REJECTED)]])
@pytest.mark.parametrize("said", [Said.ACCEPTED, Said.REJECTED])
def test_what_a_person_found_out_settles_what_no_response_did(results, said):
    reported = one(*results, resolved=Word(said, text="Ada: asked"))
    assert (reported.status, reported.code, reported.text) == (str(said), RESOLVED, "Ada: asked")


@pytest.mark.parametrize(
    ("later", "status"),
    [
        ([], "rejected"),
        ([result(REJECTED)], "rejected"),
        ([result(A_1=REJECTED)], "rejected"),
        ([None], "unknown"),
        ([result(NOTHING)], "unknown"),
        ([result(A_1=USED)], "unknown"),
        ([result(A_1=ACCEPTED)], "accepted"),
    ],
)
def test_a_person_s_not_there_says_nothing_about_a_later_request(later, status):
    assert one(None, *later, resolved=Word(Said.REJECTED), read=1).status == status
    # Accepted is accepted, whatever came later.
    assert one(None, *later, resolved=Word(Said.ACCEPTED), read=1).status == "accepted"


def test_what_a_response_accepted_outweighs_a_person():
    assert one(result(A_1=ACCEPTED), resolved=REJECTED).status is Status.ACCEPTED


def test_a_number_that_somebody_else_used_says_what_to_look_for():
    assert "namespace" in one(result(A_1=USED)).text


@pytest.mark.parametrize(
    ("reply", "alone", "together"),
    [
        (result(REJECTED), False, True),
        (result(REJECTED), True, False),
        (result(REJECTED, A_1=REJECTED), False, False),
        (result(A_1=REJECTED, B_1=REJECTED), False, False),
    ],
)
def test_what_was_only_refused_in_a_request_with_others_is_marked(reply, alone, together):
    events = Events({1: plan(row("A-1"), row("B-1", batch=2 if alone else 1))})
    events.tries[1, 1], events.results[1, 1] = Try(1, 0.0, 60.0, ""), reply
    first = next(outcomes(fold(events))).outcome
    assert (first.status, first.together) == (Status.REJECTED, together)


def test_every_balance_that_is_not_sent_has_a_reason():
    rows = [Row("A", 0, "1", "close", Action.REJECT, text="no account"), Row("B", 0, "1", "close", Action.IGNORE)]
    first, second = (each.outcome for each in outcomes(fold(Events({1: plan(*rows)}))))
    assert (first.status, first.code, first.text) == (Status.REJECTED, LOCAL, "no account")
    assert second.status is Status.IGNORED


def test_a_number_about_to_go_out_with_other_content_stops_everything():
    first, other = row("A-1"), msgspec.structs.replace(row("A-1"), wire={"value": "7"})
    assert fold(Events({1: plan(first), 2: plan(first)})).numbers["A-1"].row == first
    with pytest.raises(NumberReused, match="A-1"):
        fold(Events({1: plan(first), 2: plan(other)}))


# --- what a destination holds, and what may have come after it ---


def corrected(*, read: int, newest: int | None, responded: bool = True, third: bool = False) -> Events:
    """Plan 1 sends 2 of A; plan 2 corrects it to 1. Plan 1's run may have been frozen meanwhile."""
    events = Events({1: plan(row("A-1")), 2: plan(row("A-2"), read={"0001": read})})
    for number in (1, 2):
        events.tries[number, 1] = Try(1, 0.0, 60.0, "")
        events.results[number, 1] = result(ACCEPTED, newest=newest if number == 1 else 2)
    if not responded:
        del events.results[1, 1]
    if third:
        events.plans[3] = plan(row("A-3"), read={"0001": 1, "0002": 1})
        events.tries[3, 1], events.results[3, 1] = Try(1, 0.0, 60.0, ""), result(ACCEPTED, newest=3)
    return events


def test_the_last_plan_that_may_have_arrived_is_what_a_destination_holds():
    folded = fold(corrected(read=1, newest=1))
    assert (folded.held["A"].row.number, folded.late) == ("A-2", {})


@pytest.mark.parametrize("newest", [2, 3, None])
def test_a_result_that_was_written_after_a_newer_plan_makes_the_balance_unknown(newest):
    (each,) = outcomes(fold(corrected(read=0, newest=newest)))
    assert (each.outcome.status, each.outcome.code) == (Status.UNKNOWN, LATE)


@pytest.mark.parametrize(("read", "newest"), [(1, 1), (1, None), (0, 1)])
def test_a_result_that_was_there_before_the_newer_plan_or_saw_none_is_not_late(read, newest):
    (each,) = outcomes(fold(corrected(read=read, newest=newest)))
    assert each.outcome.status is Status.ACCEPTED


def test_a_request_without_a_result_that_a_newer_run_waited_for_is_not_late():
    (each,) = outcomes(fold(corrected(read=0, newest=None, responded=False)))
    assert each.outcome.status is Status.ACCEPTED


@pytest.mark.parametrize("newest", [2, None])
def test_running_the_day_again_ends_the_doubt_about_a_late_request(newest):
    events = corrected(read=0, newest=newest, third=True)
    events.plans[3].rows[0] = msgspec.structs.replace(events.plans[3].rows[0], amount="1", wire={"value": "1"})
    (each,) = outcomes(fold(events))
    assert each.outcome.status is Status.ACCEPTED


def test_a_late_request_with_the_very_amount_that_is_held_leaves_no_doubt():
    events = corrected(read=0, newest=2)
    again = row("A-1")
    events.plans[2].rows[0] = msgspec.structs.replace(events.plans[2].rows[0], amount=again.amount, wire=again.wire)
    (each,) = outcomes(fold(events))
    assert each.outcome.status is Status.ACCEPTED


def test_a_rejected_correction_leaves_what_was_held():
    events = corrected(read=1, newest=1)
    events.results[2, 1] = result(A_2=REJECTED)
    folded = fold(events)
    assert folded.held["A"].row.number == "A-1"
    assert [each.outcome.status for each in outcomes(folded)] == [Status.REJECTED]
