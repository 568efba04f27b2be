"""Whole days, delivered through every fault, death, freeze and second copy, until all is delivered."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace
from decimal import Decimal
from functools import cache, partial
from itertools import count

import pytest

from balance_bridge.errors import PlaceChanged
from doubles import THOROUGH
from simulation.delivery_checks import Watch
from simulation.delivery_lives import a_life, failure_of, look_up, move, one_run, quiet
from simulation.delivery_model import DAY, DESTINATIONS, Run, Simulation
from simulation.delivery_settings import CHANGES, KEY_CHANGES
from simulation.delivery_wire import COMMON, FAULTS, GATEWAY

# Of the gateways' refusals, which are all alike, some; ``make simulate`` has all of them.
SOME_GATEWAY = GATEWAY if THOROUGH else ("gateway 400 code", "gateway 409 json", "gateway 413 html", "gateway 451 code")
SOME_FAULTS = [fault for fault in FAULTS if fault not in GATEWAY or fault in SOME_GATEWAY]
SEEDS = range(80 if THOROUGH else 24)
# Before a gateway's refusal: with and without something that may have arrived.
BEFORE = ("reset after", "proxy reset before", "500 burnt")
# Beyond the last request and the last step of any run.
NEVER = 10**6


def sampled(length: int, few: int, *of: object) -> Iterable[int]:
    """Some of the numbers from 1 to ``length``, others for each kind of test; all of them in ``make simulate``."""
    if THOROUGH:
        # What is disturbed may take more steps than what is not.
        return range(1, length * 5 // 4)
    return random.Random(repr(of)).sample(range(1, length + 1), few)


def a_small_day(name: str, *, all_known: bool = True) -> tuple[Simulation, Watch]:
    simulation = Simulation(name, records=1)
    if all_known:
        simulation.make_known()
    return simulation, Watch(simulation)


def at_request(index: int, *faults: str) -> tuple[count[int], partial[str]]:
    """Faults that strike from the request of this index on, one each; and how many requests there were."""
    requests = count(1)

    def fault(_: str) -> str:
        number = next(requests) - index
        return faults[number] if 0 <= number < len(faults) else ""

    return requests, partial(fault)


# Slow: whole lives of several runs each.
@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_happens_all_is_delivered_once_and_reported_as_it_is(seed: int) -> None:
    assert not (failure := failure_of(seed)), failure


def test_the_same_seed_leads_to_the_same_life() -> None:
    first, again = a_life(168), a_life(168)
    assert first.store.objects == again.store.objects
    assert first.logged == again.logged
    assert first.sent == again.sent


def strike(fault: str, index: int, *, all_known: bool = True) -> int:
    """A small day whose request of this index meets a fault; how many requests its first run made."""
    simulation, watch = a_small_day("small", all_known=all_known)
    requests, simulation.fault = at_request(index, fault)
    one_run(simulation, watch)
    made = next(requests) - 1
    quiet(simulation, watch)
    return made


@cache
def requests_of_a_run(*, all_known: bool) -> int:
    return strike("", NEVER, all_known=all_known)


@pytest.mark.parametrize("fault", SOME_FAULTS)
def test_one_fault_at_any_request_loses_nothing_and_doubles_nothing(fault: str) -> None:
    for all_known in (True, False):
        requests = requests_of_a_run(all_known=all_known)
        assert requests > 4
        for index in sampled(requests, 1, fault, all_known):
            strike(fault, index, all_known=all_known)


@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("fault", SOME_GATEWAY)
def test_a_refusal_in_between_says_nothing_about_an_earlier_request(before: str, fault: str) -> None:
    for index in sampled(requests_of_a_run(all_known=True), 1, before, fault):
        simulation, watch = a_small_day("gateway")
        _, simulation.fault = at_request(index, before)
        one_run(simulation, watch)
        # What was lost goes first, and is refused now, as a whole and divided.
        simulation.fault = lambda api: "" if api == "exchange" else fault
        one_run(simulation, watch)
        quiet(simulation, watch)


def die(index: int, how: str, fault: str) -> int:
    """A day whose run dies, or finds the disk full, at its step of this index; how many steps it took."""
    simulation, watch = a_small_day("small", all_known=False)
    _, simulation.fault = at_request(3, fault)
    setattr(simulation, how, {0: index})
    one_run(simulation, watch)
    steps = simulation.steps[0]
    quiet(simulation, watch)
    return steps


@pytest.mark.parametrize("fault", ["", "reset after", "gateway 400 code"])
@pytest.mark.parametrize("how", ["die_at", "store_fails_at"])
def test_one_death_or_full_disk_at_any_step_loses_nothing_and_doubles_nothing(how: str, fault: str) -> None:
    steps = die(NEVER, how, fault)
    assert steps > 60
    for index in sampled(steps, 8, how, fault):
        die(index, how, fault)


@pytest.mark.parametrize("fault", [*COMMON, *SOME_GATEWAY])
def test_a_fault_that_lasts_keeps_the_run_red_and_once_it_is_lifted_all_is_delivered(fault: str) -> None:
    simulation, watch = a_small_day("lasting")
    simulation.fault = lambda api: "" if api == "exchange" else fault
    for _ in range(3):
        ended = one_run(simulation, watch)
        assert all(each.error for each in ended if each.task != "extract")
    quiet(simulation, watch)


def hang(index: int, before: str, *, back: bool) -> int:
    """A run that freezes at its step of this index; the day is corrected and delivered, and it goes on.

    Args:
        index: Of the step.
        before: The fault that all requests of a run before it met.
        back: Whether the correction is taken back in the end, so that what the late run has sent is right again.

    Returns:
        How many steps the first run took.
    """
    simulation, watch = a_small_day("hung")
    simulation.fault = lambda api: "" if api == "exchange" else before
    one_run(simulation, watch)
    simulation.fault = lambda _: ""
    simulation.correct({"BTC": Decimal("1.25")})
    runs = simulation.hung_run(), simulation.next_run()
    one_run(simulation, watch, (DAY, DAY), runs=runs, changes=lambda *_: False, freeze_at=index)
    steps = simulation.steps[0]
    if back:
        simulation.correct({})
    quiet(simulation, watch)
    return steps


@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize("before", ["connection refused", "401", "reset after", "500 burnt"])
def test_a_run_that_froze_at_any_step_while_the_day_was_corrected_has_not_the_last_word(
    before: str, back: bool
) -> None:
    steps = hang(NEVER, before, back=back)
    assert steps > 20
    for index in sampled(steps, 4, before, back):
        hang(index, before, back=back)


def race(index: int, length: int, *, all_known: bool = True, corrected: bool = False) -> int:
    """Two copies: the first one up to a step, then the other one for so many steps, then the first one to its end.

    Args:
        index: Of the step.
        length: How many steps.
        all_known: Whether nothing is rejected.
        corrected: Whether the first copy is one from before a correction.

    Returns:
        How many steps the first run took.
    """
    simulation, watch = a_small_day("race", all_known=all_known)
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
    steps = simulation.steps[0]
    quiet(simulation, watch)
    return steps


@pytest.mark.parametrize("kind", [{}, {"all_known": False}, {"corrected": True}])
@pytest.mark.parametrize("length", [1, 3, 8, 20, 1000])
def test_two_copies_that_take_turns_at_any_step_deliver_once(length: int, kind: dict[str, bool]) -> None:
    steps = race(NEVER, length, **kind)
    assert steps > 40
    for index in sampled(steps, 4, length, kind):
        race(index, length, **kind)


@pytest.mark.parametrize("before", ["", "reset after", "500 burnt", "gateway 413 html"])
@pytest.mark.parametrize("change", CHANGES)
def test_after_a_change_of_settings_nothing_goes_again_but_with_redeliver(change: str, before: str) -> None:
    simulation, watch = a_small_day("changed")
    _, simulation.fault = at_request(2, before)
    one_run(simulation, watch)
    simulation.fault = lambda _: ""
    simulation.change(CHANGES[change](simulation.settings))
    ended = one_run(simulation, watch)
    refused = [each.task for each in ended if isinstance(each.error, PlaceChanged)]
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


def disagree(index: int, *, known: bool, old_first: bool) -> int:
    """Two runs that have read different addresses, of which the first freezes at its step of this index.

    Args:
        index: Of the step.
        known: Whether a run has written down the old address before, and delivered nothing.
        old_first: Whether the one with the old address freezes, or the other one.

    Returns:
        How many steps the first run took.
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
    steps = simulation.steps[0]
    for name in DESTINATIONS:
        hosts = {sent.host for sent in simulation.sent if sent.api == name}
        assert len(hosts) <= 1, f"delivered to {hosts}"
        if hosts == {f"{name}.{old.address}"}:
            simulation.adopt(name)
    quiet(simulation, watch)
    return steps


@pytest.mark.parametrize("old_first", [False, True])
@pytest.mark.parametrize("known", [False, True])
def test_two_runs_that_have_read_different_addresses_deliver_to_one_of_them(known: bool, old_first: bool) -> None:
    steps = disagree(NEVER, known=known, old_first=old_first)
    assert steps > 40
    for index in sampled(steps, 5, known, old_first):
        disagree(index, known=known, old_first=old_first)


@pytest.mark.parametrize("change", sorted(set(CHANGES) - KEY_CHANGES))
def test_what_came_late_is_put_right_without_redeliver_though_settings_have_changed(change: str) -> None:
    late = 0
    for index in sampled(hang(NEVER, "connection refused", back=False), 24, change):
        simulation, watch = a_small_day("late")
        simulation.fault = lambda api: "" if api == "exchange" else "connection refused"
        one_run(simulation, watch)
        simulation.fault = lambda _: ""
        simulation.correct({"BTC": Decimal("1.25")})
        runs = simulation.hung_run(), simulation.next_run()
        ended = one_run(simulation, watch, (DAY, DAY), runs=runs, changes=lambda *_: False, freeze_at=index)
        if not any(getattr(each.error, "late", 0) for each in ended):
            continue
        late += 1
        simulation.change(CHANGES[change](simulation.settings))
        again = one_run(simulation, watch)
        assert all(each.error is None for each in again), again
        quiet(simulation, watch)
        if late == 2 and not THOROUGH:
            break
    assert late > 0
