"""Whole days, fetched, proven and delivered through every fault, death and second copy, until all is delivered."""

from __future__ import annotations

from itertools import count

import pytest

from simulation.delivery_checks import Watch
from simulation.delivery_lives import a_life, failure_of, one_run, quiet
from simulation.delivery_model import Simulation
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


def strike(fault: str, index: int, *, dying: bool = False) -> bool:
    """A small day whose request of this index meets a fault, or whose step of this index is the last.

    Returns:
        Whether there was one of that index.
    """
    simulation = Simulation("small", records=1)
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
@pytest.mark.parametrize("fault", FAULTS)
def test_one_fault_at_any_request_loses_nothing_and_doubles_nothing(fault: str) -> None:
    indexes = next(index for index in count(1) if not strike(fault, index))
    assert indexes > 6


# Slow: a hundred whole days.
@pytest.mark.slow
def test_one_death_at_any_write_or_request_loses_nothing_and_doubles_nothing() -> None:
    steps = next(index for index in count(1) if not strike("", index, dying=True))
    assert steps > 40


@pytest.mark.parametrize("ours", ["", "401", "404"])
def test_what_another_live_copy_lost_the_answer_to_is_not_taken_for_refused(ours: str) -> None:
    simulation = Simulation("two copies", records=1)
    simulation.mend()
    watch, begun = Watch(simulation), list[str]()

    def other_copy(key: str) -> None:
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
