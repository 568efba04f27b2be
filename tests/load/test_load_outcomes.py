from __future__ import annotations

from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from balance_bridge.load.batches import Row
from balance_bridge.load.history import History, standing
from balance_bridge.load.outcomes import PLANNED, Outcome, Status, fold

REPORTS = st.builds(Outcome, st.sampled_from(Status), st.sampled_from(["", "A", "B"]), st.sampled_from(["", "x"]))


@given(st.lists(REPORTS, max_size=4))
def test_the_fold_does_not_depend_on_the_order_of_reports(reports):
    assert len({fold(order) for order in permutations(reports)}) == 1


@given(st.lists(REPORTS, max_size=4), st.lists(REPORTS, max_size=4))
def test_folding_in_parts_is_folding_at_once(first, second):
    assert fold((fold(first), fold(second), PLANNED)) == fold([*first, *second, PLANNED])


def test_the_strongest_report_counts():
    order = [Status.ACCEPTED, Status.REJECTED, Status.SEEN, Status.UNKNOWN, Status.PLANNED]
    for index, status in enumerate(order):
        assert fold(map(Outcome, order[index:])).status == status


def attempts(*told: tuple[str, Status]):
    history = History()
    for index, (amount, status) in enumerate(told, 1):
        row = Row(f"s-{index}", "k", "BTC", 0, amount, "2026-11-20", "close", {"value": amount})
        history.add(row, "batch", Outcome(status))
    history.close()
    return history.keys["k"]


def test_an_acceptance_under_any_number_stands_unless_another_amount_went_out_later():
    accepted, rejected, unknown = Status.ACCEPTED, Status.REJECTED, Status.UNKNOWN
    assert standing(attempts(("1", rejected), ("2", rejected))) is None
    assert standing(attempts(("1", accepted), ("2", rejected)), "1").row.number == "s-1"
    assert standing(attempts(("1", accepted), ("1", unknown)), "1").row.number == "s-1"
    assert standing(attempts(("1", accepted), ("2", accepted)), "1").row.number == "s-2"
    assert standing(attempts(("1", accepted), ("2", unknown)), "1").row.number == "s-2"
    assert standing(attempts(("1", accepted), ("2", accepted), ("1", unknown)), "1").row.number == "s-3"
    assert standing(attempts(("1", unknown), ("1", unknown)), "1").row.number == "s-2"
    assert standing(attempts(("1", accepted), ("1", Status.SEEN)), "1").row.number == "s-1"


def test_attempts_are_ordered_by_their_count_not_by_their_text():
    rows = attempts(*[("1", Status.REJECTED)] * 9, ("2", Status.ACCEPTED), ("3", Status.ACCEPTED))
    assert [each.row.number for each in rows[-2:]] == ["s-10", "s-11"]


def test_a_number_with_two_contents_counts_only_for_what_was_accepted():
    history = History()
    for amount, status in (("1", Status.ACCEPTED), ("2", Status.SEEN)):
        row = Row("s-1", "k", "BTC", 0, amount, "2026-11-20", "close", {"value": amount})
        history.add(row, f"batch {amount}", Outcome(status))
    history.close()
    told = {each.row.amount: each.outcome.status for each in history.keys["k"]}
    assert told == {"1": Status.ACCEPTED, "2": Status.REJECTED}
    assert history.next_attempt("k", "s") == 2
