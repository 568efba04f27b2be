"""Whole days, delivered through every fault, death, freeze and second copy, until all is delivered."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from functools import partial
from itertools import chain, count
from zlib import crc32

import pytest

from simulation.delivery_checks import Watch
from simulation.delivery_lives import a_life, failure_of, look_up, move, one_run, quiet
from simulation.delivery_model import DAY, DESTINATIONS, Run, Simulation
from simulation.delivery_settings import CHANGES, KEY_CHANGES
from simulation.delivery_wire import COMMON, FAULTS, GATEWAY

# Each request and each step, instead of some: as ``make simulate`` does it.
THOROUGH = bool(os.environ.get("THOROUGH"))
SHARES = 8
SEEDS_IN_A_SHARE = 10
# Before a gateway's refusal: with and without something that may have arrived.
BEFORE = ("reset after", "proxy reset before", "500 burnt")


def some_requests(*of: object) -> Iterator[int]:
    """Every fourth request, beginning elsewhere for each kind of test."""
    return count(1) if THOROUGH else count(1 + crc32(repr(of).encode()) % 4, 4)


def some_steps(*of: object) -> Iterator[int]:
    """The first steps, which come once, and then some: a request has twelve, so each of them comes up."""
    return count(1) if THOROUGH else chain(range(1, 9), count(9 + crc32(repr(of).encode()) % 7, 7))


def a_small_day(name: str, *, mended: bool = True) -> tuple[Simulation, Watch]:
    simulation = Simulation(name, records=1)
    if mended:
        simulation.mend()
    return simulation, Watch(simulation)


def at_request(index: int, *faults: str) -> tuple[count[int], partial[str]]:
    """Faults that strike from the request of this index on, one each; and how many requests there were."""
    requests = count(1)

    def fault(_: str) -> str:
        number = next(requests) - index
        return faults[number] if 0 <= number < len(faults) else ""

    return requests, partial(fault)


# Slow: 25 lives of several runs each.
@pytest.mark.slow
@pytest.mark.parametrize("share", range(SHARES))
def test_whatever_happens_all_is_delivered_once_and_reported_as_it_is(share: int) -> None:
    seeds = range(share * SEEDS_IN_A_SHARE, (share + 1) * SEEDS_IN_A_SHARE)
    failures = [failure for failure in map(failure_of, seeds) if failure]
    assert not failures, "\n".join(failures)


def test_a_seed_is_lived_again_exactly() -> None:
    first, again = a_life(168), a_life(168)
    assert first.store.objects == again.store.objects
    assert first.told == again.told
    assert first.sent == again.sent


def strike(faults: Sequence[str], index: int, *, mended: bool = True) -> bool:
    """A small day whose request of this index, and those after it, meet faults; whether there was one of that index."""
    simulation, watch = a_small_day("small", mended=mended)
    requests, simulation.fault = at_request(index, *faults)
    one_run(simulation, watch)
    reached = next(requests) > index
    quiet(simulation, watch)
    return reached


# Slow: some ten whole days for each fault.
@pytest.mark.slow
@pytest.mark.parametrize("mended", [True, False])
@pytest.mark.parametrize("fault", FAULTS)
def test_one_fault_at_any_request_loses_nothing_and_doubles_nothing(fault: str, mended: bool) -> None:
    indexes = next(index for index in some_requests(fault, mended) if not strike([fault], index, mended=mended))
    assert indexes > 6


# Slow: some ten whole days for each pair of faults.
@pytest.mark.slow
@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("fault", GATEWAY)
def test_a_refusal_in_between_says_nothing_about_an_earlier_request(before: str, fault: str) -> None:
    for index in some_requests(before, fault):
        simulation, watch = a_small_day("gateway")
        requests, simulation.fault = at_request(index, before)
        one_run(simulation, watch)
        if next(requests) <= index:
            return
        # What was lost goes first, and is refused now, as a whole and divided.
        simulation.fault = lambda api: "" if api == "exchange" else fault
        one_run(simulation, watch)
        quiet(simulation, watch)


# Slow: a hundred whole days.
@pytest.mark.slow
@pytest.mark.parametrize("fault", ["", "reset after", "gateway 400 code"])
@pytest.mark.parametrize("how", ["die_at", "store_fails_at"])
def test_one_death_or_full_disk_at_any_step_loses_nothing_and_doubles_nothing(how: str, fault: str) -> None:
    def die(index: int) -> bool:
        simulation, watch = a_small_day("small", mended=False)
        _, simulation.fault = at_request(3, fault)
        setattr(simulation, how, {0: index})
        one_run(simulation, watch)
        reached = simulation.steps[0] >= index
        quiet(simulation, watch)
        return reached

    assert next(index for index in some_steps(how, fault) if not die(index)) > 60


@pytest.mark.parametrize("fault", [*COMMON, *GATEWAY])
def test_a_fault_that_lasts_keeps_the_run_red_and_once_it_is_lifted_all_is_delivered(fault: str) -> None:
    simulation, watch = a_small_day("lasting")
    simulation.fault = lambda api: "" if api == "exchange" else fault
    for _ in range(3):
        ended = one_run(simulation, watch)
        assert all(each.error for each in ended if each.task != "extract")
    quiet(simulation, watch)


def hang(index: int, before: str, *, back: bool) -> bool:
    """A run that freezes at its step of this index; the day is corrected and delivered, and it goes on.

    Args:
        index: Of the step.
        before: The fault that all requests of a run before it met.
        back: Whether the correction is taken back in the end, so that what the late run has sent is right again.

    Returns:
        Whether there was a step of that index.
    """
    simulation, watch = a_small_day("hung")
    simulation.fault = lambda api: "" if api == "exchange" else before
    one_run(simulation, watch)
    simulation.fault = lambda _: ""
    simulation.correct({"BTC": Decimal("1.25")})
    runs = simulation.hung_run(), simulation.next_run()
    one_run(simulation, watch, (DAY, DAY), runs=runs, changes=lambda *_: False, freeze_at=index)
    reached = simulation.steps[0] >= index
    if back:
        simulation.correct({})
    quiet(simulation, watch)
    return reached


# Slow: some eighty times a day that is run four times.
@pytest.mark.slow
@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize("before", ["connection refused", "401", "reset after", "500 burnt"])
def test_a_run_that_froze_at_any_step_while_the_day_was_corrected_has_not_the_last_word(
    before: str, back: bool
) -> None:
    steps = next(index for index in some_steps(before, back) if not hang(index, before, back=back))
    assert steps > 20


def race(index: int, length: int, *, mended: bool = True, corrected: bool = False) -> bool:
    """Two copies: the first one up to a step, then the other one for so many steps, then the first one to its end.

    Args:
        index: Of the step.
        length: How many steps.
        mended: Whether nothing is rejected.
        corrected: Whether the first copy is one from before a correction.

    Returns:
        Whether there was a step of that index.
    """
    simulation, watch = a_small_day("race", mended=mended)
    if corrected:
        simulation.fault = lambda api: "" if api == "exchange" else "connection refused"
        one_run(simulation, watch)
        simulation.fault = lambda _: ""
        simulation.correct({"BTC": Decimal("1.25")})
    turns = {(0, index), (1, length)}
    run = simulation.next_run()
    # A second copy is one that Airflow has given up, or another run.
    first = simulation.hung_run() if corrected else replace(run, run_id="other") if index % 2 else run
    one_run(simulation, watch, (DAY, DAY), runs=(first, run), changes=lambda copy, step: (copy, step) in turns)
    reached = simulation.steps[0] >= index
    quiet(simulation, watch)
    return reached


# Slow: some eighty times a day.
@pytest.mark.slow
@pytest.mark.parametrize("kind", [{}, {"mended": False}, {"corrected": True}])
@pytest.mark.parametrize("length", [1, 3, 8, 20, 1000])
def test_two_copies_that_take_turns_at_any_step_deliver_once(length: int, kind: dict[str, bool]) -> None:
    assert next(index for index in some_steps(length, kind) if not race(index, length, **kind)) > 40


@pytest.mark.parametrize("before", ["", "reset after", "500 burnt", "gateway 413 html"])
@pytest.mark.parametrize("change", CHANGES)
def test_after_a_change_of_settings_nothing_goes_again_but_with_redeliver(change: str, before: str) -> None:
    simulation, watch = a_small_day("changed")
    _, simulation.fault = at_request(2, before)
    one_run(simulation, watch)
    simulation.fault = lambda _: ""
    simulation.change(CHANGES[change](simulation.settings))
    ended = one_run(simulation, watch)
    refused = [each.task for each in ended if each.error is not None and "has changed" in str(each.error)]
    assert refused == (["elven"] if change in KEY_CHANGES else [])
    if not before and not refused:
        named = sum(each.summary.other_keys for each in ended if each.summary)
        assert named > 0
    quiet(simulation, watch)


@pytest.mark.parametrize("change", sorted(set(CHANGES) - KEY_CHANGES))
@pytest.mark.parametrize("before", ["reset after", "timeout before", "500 burnt"])
def test_after_a_change_of_settings_a_run_without_redeliver_becomes_green(change: str, before: str) -> None:
    simulation, watch = a_small_day("changed")
    _, simulation.fault = at_request(2, before)
    one_run(simulation, watch)
    simulation.fault = lambda _: ""
    simulation.change(CHANGES[change](simulation.settings))
    one_run(simulation, watch)
    look_up(simulation)
    ended = one_run(simulation, watch)
    assert all(each.error is None for each in ended), ended
    quiet(simulation, watch)


@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize("before", ["", "reset after", "401", "connection refused"])
def test_a_destination_that_leads_elsewhere_gets_nothing_before_somebody_decides(before: str, back: bool) -> None:
    simulation, watch = a_small_day("moved")
    _, simulation.fault = at_request(2, before)
    one_run(simulation, watch)
    simulation.fault = lambda _: ""
    move(simulation, watch, back=back)
    quiet(simulation, watch)


def disagree(index: int, *, known: bool, old_first: bool) -> bool:
    """Two runs that have read different addresses, of which the first freezes at its step of this index.

    Args:
        index: Of the step.
        known: Whether a run has written down the old address before, and delivered nothing.
        old_first: Whether the one with the old address freezes, or the other one.

    Returns:
        Whether there was a step of that index.
    """
    simulation, watch = a_small_day("disagree")
    if known:
        simulation.fault = lambda _: "connection refused"
        one_run(simulation, watch)
        simulation.fault = lambda _: ""
        simulation.sent.clear()
    old, new = Run("old", address=simulation.settings.address), Run("new", address="elsewhere.example")
    simulation.settings = replace(simulation.settings, address=new.address)
    runs = (old, new) if old_first else (new, old)
    one_run(simulation, watch, (DAY, DAY), runs=runs, changes=lambda *_: False, freeze_at=index)
    reached = simulation.steps[0] >= index
    for name in DESTINATIONS:
        hosts = {sent.host for sent in simulation.sent if sent.api == name}
        assert len(hosts) <= 1, f"delivered to {hosts}"
        if hosts == {f"{name}.{old.address}"}:
            simulation.adopt(name)
    quiet(simulation, watch)
    return reached


# Slow: some fifty times a day that is run three times.
@pytest.mark.slow
@pytest.mark.parametrize("old_first", [False, True])
@pytest.mark.parametrize("known", [False, True])
def test_two_runs_that_have_read_different_addresses_deliver_to_one_of_them(known: bool, old_first: bool) -> None:
    steps = next(
        index for index in some_steps(known, old_first) if not disagree(index, known=known, old_first=old_first)
    )
    assert steps > 40


@pytest.mark.parametrize("change", sorted(set(CHANGES) - KEY_CHANGES))
def test_what_came_late_is_put_right_without_redeliver_though_settings_have_changed(change: str) -> None:
    late = 0
    for index in some_steps(change):
        simulation, watch = a_small_day("late")
        simulation.fault = lambda api: "" if api == "exchange" else "connection refused"
        one_run(simulation, watch)
        simulation.fault = lambda _: ""
        simulation.correct({"BTC": Decimal("1.25")})
        runs = simulation.hung_run(), simulation.next_run()
        ended = one_run(simulation, watch, (DAY, DAY), runs=runs, changes=lambda *_: False, freeze_at=index)
        if simulation.steps[0] < index:
            break
        if not any(getattr(each.error, "late", 0) for each in ended):
            continue
        late += 1
        simulation.change(CHANGES[change](simulation.settings))
        again = one_run(simulation, watch)
        assert all(each.error is None for each in again), again
        quiet(simulation, watch)
    assert late > 0
