"""Whole days, fetched, proven and delivered through every fault, death and second copy, until all is delivered."""

from __future__ import annotations

import random
from decimal import Decimal
from itertools import count

import pytest

from simulation.delivery_checks import Watch
from simulation.delivery_lives import a_life, failure_of, one_run, quiet
from simulation.delivery_model import DAY, Simulation, Turns
from simulation.delivery_wire import FAULTS

SHARES = 8
SEEDS_IN_A_SHARE = 25


# Slow: 25 lives of several runs each.
@pytest.mark.slow
@pytest.mark.parametrize("share", range(SHARES))
def test_whatever_happens_all_is_delivered_once_and_told_as_it_is(share: int) -> None:
    seeds = range(share * SEEDS_IN_A_SHARE, (share + 1) * SEEDS_IN_A_SHARE)
    failures = [failure for failure in map(failure_of, seeds) if failure]
    assert not failures, "\n".join(failures)


def test_a_seed_is_lived_again_exactly() -> None:
    first, again = a_life(168), a_life(168)
    assert first.store.objects == again.store.objects
    assert first.told == again.told
    assert first.sent == again.sent


def strike(fault: str, index: int, *, dying: bool = False, in_flight: int = 1) -> bool:
    """A small day whose request of this index meets a fault, or whose step of this index is the last.

    Returns:
        Whether there was one of that index.
    """
    simulation = Simulation("small", records=1, in_flight=in_flight)
    simulation.mend()
    watch, requests = Watch(simulation), count(1)
    if dying:
        simulation.die_at = {0: index}
    else:
        simulation.fault = lambda _: fault if next(requests) == index else ""
    _, papers = one_run(simulation, watch)
    reached = simulation.steps[0] >= index if dying else next(requests) > index
    quiet(simulation, watch, papers)
    return reached


# Slow: some twelve whole days for each fault.
@pytest.mark.slow
@pytest.mark.parametrize("in_flight", [1, 3])
@pytest.mark.parametrize("fault", FAULTS)
def test_one_fault_at_any_request_loses_nothing_and_doubles_nothing(fault: str, in_flight: int) -> None:
    indexes = next(index for index in count(1) if not strike(fault, index, in_flight=in_flight))
    assert indexes > 6


# Slow: a hundred whole days.
@pytest.mark.slow
@pytest.mark.parametrize("in_flight", [1, 3])
def test_one_death_at_any_write_or_request_loses_nothing_and_doubles_nothing(in_flight: int) -> None:
    steps = next(index for index in count(1) if not strike("", index, dying=True, in_flight=in_flight))
    assert steps > 40


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_lasts_keeps_the_run_red_and_once_it_is_lifted_all_is_delivered(fault: str) -> None:
    simulation = Simulation("lasting", records=1)
    simulation.mend()
    watch = Watch(simulation)
    simulation.fault = lambda api: "" if api == "exchange" else fault
    for _ in range(3):
        well, papers = one_run(simulation, watch)
        # Elven has no results: what can only strike Amlyze's is a server's fault there, so that this holds for all.
        assert not well
    quiet(simulation, watch, papers)


class Once(random.Random):
    """Draws so that something with a chance happens the one time that it is asked for."""

    def __init__(self, index: int) -> None:
        super().__init__(0)
        self._left = index

    def random(self) -> float:
        self._left -= 1
        return 1.0 if self._left else 0.0


def hang(index: int, before: str, *, back: bool) -> bool:
    """A run that hangs at its step of this index; the day is corrected and delivered, and it goes on.

    Args:
        index: Of the step.
        before: The fault that all requests of a run before it met.
        back: Whether the correction is taken back in the end, so that what the late run has sent is right again.

    Returns:
        Whether there was a step of that index.
    """
    simulation = Simulation("hung", records=1)
    simulation.mend()
    watch = Watch(simulation)
    simulation.fault = lambda api: "" if api == "exchange" else before
    one_run(simulation, watch)
    simulation.fault = lambda _: ""
    simulation.correct({"BTC": Decimal("1.25")})
    turns = Turns(Once(index), 0.5)
    _, papers = one_run(simulation, watch, (DAY, DAY), woken=True, turns=turns)
    reached = simulation.steps[0] >= index
    if back:
        simulation.correct({})
    quiet(simulation, watch, papers)
    return reached


# Slow: some fifty times a day that is run four times.
@pytest.mark.slow
@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize("before", ["connection refused", "401", "reset after", "500 burnt"])
def test_a_run_that_hung_at_any_step_while_the_day_was_corrected_has_not_the_last_word(before: str, back: bool) -> None:
    steps = next(index for index in count(1) if not hang(index, before, back=back))
    assert steps > 20


@pytest.mark.parametrize("ours", ["", "401", "404"])
def test_what_another_live_copy_lost_the_answer_to_is_not_taken_for_refused(ours: str) -> None:
    simulation = Simulation("two copies", records=1)
    simulation.mend()
    watch, begun = Watch(simulation), list[str]()
    looked_on = simulation.store.after_put

    def other_copy(key: str) -> None:
        looked_on(key)
        # Between our receipt and our request the other copy finds the receipt, sends the rows and loses the answer.
        if "/amlyze/" in key and key.endswith("planned.json") and not begun:
            begun.append(key)
            simulation.fault = lambda _: "reset after"
            simulation.a_run(["amlyze"])
            simulation.fault = lambda _: ours

    simulation.store.after_put = other_copy
    _, papers = one_run(simulation, watch)
    assert begun
    assert "rejected" not in {planned.outcome for planned in papers["amlyze"].rows}
    quiet(simulation, watch, papers)
