"""Lives of a day: seeded runs among faults, deaths, second copies and changes, until all is delivered.

Run as a program it leads many of them, on all cores: see ``make simulate``.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date
from decimal import Decimal
from functools import partial
from unittest import mock

from balance_bridge.errors import PlaceChanged, TransientError
from balance_bridge.load.fold import LATE, UNCONFIRMED, fold, outcomes
from balance_bridge.load.log import DayLog
from balance_bridge.transport import sending
from doubles import Killed
from simulation.delivery_checks import Watch, entries, key_of
from simulation.delivery_model import ACCOUNT, DAY, DESTINATIONS, HELD, Ended, Run, Simulation
from simulation.delivery_settings import CHANGES
from simulation.delivery_turns import Changes, Turns
from simulation.delivery_wire import AT_AMLYZE, COMMON, FAULTS, GATEWAY, Untimed

# Looked up, corrected, sent under a new number: what can be left to do once nothing errs any more.
QUIET_RUNS = 8
REPORT_EVERY_S = 10.0


def one_run(
    simulation: Simulation,
    watch: Watch,
    days: Sequence[date] = (DAY,),
    *,
    runs: Sequence[Run] = (),
    tasks: Sequence[str] = DESTINATIONS,
    changes: Changes | None = None,
    freeze_at: int = 0,
) -> list[Ended]:
    """A run of a day; or of several days at once, or of one beside a second copy of it.

    Args:
        simulation: The world.
        watch: Judges what happens.
        days: One for each copy.
        runs: What each copy is started with; one run of its own for all of them if left out.
        tasks: The destinations.
        changes: Decides who of several copies goes on when; drawn if None.
        freeze_at: The first copy's step at which it stands still until the others have ended; 0 for none.

    Returns:
        How its tasks ended.
    """
    watch.before()
    simulation.steps.clear()
    runs = runs or [simulation.next_run()] * len(days)
    simulation.run += 1
    ended: list[Ended] = []

    def copy(run: Run, day: date) -> None:
        order = list(tasks)
        simulation.chance.shuffle(order)
        for each in simulation.a_run(run, order, day):
            ended.append(each)
            if isinstance(each.error, Killed):
                return

    with mock.patch.object(sending, "Watch", Untimed):
        if len(days) == 1:
            copy(runs[0], days[0])
        else:
            freezes = {0: freeze_at} if freeze_at else {}
            simulation.turns = Turns(simulation.clock, changes or at_chance(simulation.chance), freezes)
            simulation.turns.run([partial(copy, run, day) for run, day in zip(runs, days, strict=True)])
            simulation.turns = None
    simulation.die_at, simulation.store_fails_at, simulation.defect = {}, {}, None
    watch.after(ended, frozen=freeze_at > 0)
    return ended


def retried(simulation: Simulation, watch: Watch, ended: Sequence[Ended]) -> list[Ended]:
    """Airflow starts again, under the same run's id, what ended with a transient error or was killed."""
    found: list[Ended] = []
    unfinished = [each for each in ended if isinstance(each.error, (TransientError, Killed))]
    for run, day in dict.fromkeys((each.by, each.day) for each in unfinished):
        tasks = {each.task for each in unfinished if (each.by, each.day) == (run, day)}
        endanger(simulation, often=0.2)
        found += one_run(simulation, watch, [day], runs=[run], tasks=sorted(tasks - {"extract"}) or DESTINATIONS)
    return found


def at_chance(chance: random.Random) -> Changes:
    """Another copy goes on at any step, rarely or often."""
    often = chance.choice((0.02, 0.1, 0.5))
    return lambda *_: chance.random() < often


def look_up(simulation: Simulation) -> None:
    """A person asks the destinations about what nobody has confirmed, and writes down what is there."""
    for write_down in look(simulation):
        write_down()


def look(simulation: Simulation) -> list[Callable[[], None]]:
    """A person asks the destinations about what nobody has confirmed; to be called to write down what was there."""
    looked: list[Callable[[], None]] = []
    for name in DESTINATIONS:
        there = {each.number or each.key: each.text for each in entries(simulation, name)}
        for day in simulation.all_days:
            log = DayLog(simulation.store, ACCOUNT, day, name)
            folded = fold(log.read())
            found = {}
            for each in outcomes(folded):
                if each.attempt is None or each.outcome.status not in UNCONFIRMED or each.outcome.code == LATE:
                    continue
                row = each.attempt.row
                known = there.get(row.number if name == "amlyze" else key_of(name, row.wire))
                found[row.number] = known == row.amount
            if found:
                looked.append(partial(simulation.resolve, log, found))
    return looked


def move(simulation: Simulation, watch: Watch, *, back: bool) -> None:
    """The destinations get another address: a run refuses until that is changed back, or somebody adopts it."""
    before = simulation.settings
    simulation.settings = replace(before, address="elsewhere.example" if before.address == "example" else "example")
    ended = one_run(simulation, watch)
    refused = [each.task for each in ended if isinstance(each.error, PlaceChanged)]
    if back and len(refused) == len(DESTINATIONS):
        simulation.settings = before
        return
    for name in refused:
        simulation.adopt(name)


def quiet(simulation: Simulation, watch: Watch) -> None:
    """Nothing errs any more: the run is repeated until it is green, and once more, which sends nothing."""
    simulation.fault = lambda _: ""
    simulation.make_known()
    for _ in range(QUIET_RUNS):
        look_up(simulation)
        ended: list[Ended] = []
        for day in simulation.all_days:
            run = simulation.next_run(redeliver=bool(simulation.settings_before))
            ended += one_run(simulation, watch, [day], runs=[run])
        if all(each.error is None for each in ended):
            break
    else:
        raise AssertionError(f"not green after {QUIET_RUNS} runs without a fault: {simulation.logged[-3:]}")
    requests = len(simulation.sent)
    for day in simulation.all_days:
        again = one_run(simulation, watch, [day])
        assert all(each.error is None for each in again), again
        watch.counts_other_keys(again)
    assert len(simulation.sent) == requests, "sent again, though all was green"
    watch.ended_well()


def faults_of(chance: random.Random) -> Callable[[str], str]:
    """How a run's requests fare: at chance, or from some request on always."""
    how = chance.random()
    often = chance.choice((0.05, 0.2, 0.5))
    lasting = chance.choice(FAULTS)
    first = chance.randrange(16)
    seen = 0

    def fault(api: str) -> str:
        nonlocal seen
        seen += 1
        if how < 0.2:
            return lasting if seen > first else ""
        # The exchange errs more rarely, or hardly any run would come to deliver.
        if chance.random() >= often / (5 if api == "exchange" else 1):
            return ""
        kinds = chance.choice((AT_AMLYZE if api == "amlyze" else COMMON, COMMON, COMMON, GATEWAY))
        return chance.choice(kinds)

    return fault


def a_life(seed: int) -> Simulation:
    """One seed: runs among faults, deaths, second copies and changes, then quiet ones to the end."""
    drawn = random.Random(f"{seed}/kind")
    # Through the whole pipeline now and then; it is slow, and has simulations of its own.
    simulation = Simulation(seed, days=drawn.choice((1, 1, 2)), fetched=drawn.random() < 0.05)
    chance, watch = simulation.chance, Watch(simulation)
    for _ in range(chance.randint(1, 4)):
        ended = live_a_run(simulation, watch)
        # What a person has found is written down at once, or after further runs.
        looked = look(simulation) if chance.random() < 0.4 else []
        if chance.random() < 0.6:
            write_down_all(looked)
        if chance.random() < 0.3:
            simulation.make_known()
        while chance.random() < 0.5:
            ended = retried(simulation, watch, ended)
        write_down_all(looked)
        if chance.random() < 0.3:
            simulation.correct({chance.choice(sorted(HELD)): chance.choice((Decimal("1.25"), Decimal(0)))})
        elif simulation.days == 1 and chance.random() < 0.2:
            # Of several days, one may have got the other's keys at Elven meanwhile: no day's log knows of another's.
            simulation.change(CHANGES[chance.choice(sorted(CHANGES))](simulation.settings))
        elif chance.random() < 0.1:
            simulation.fault = lambda _: ""
            move(simulation, watch, back=chance.random() < 0.5)
    quiet(simulation, watch)
    return simulation


def write_down_all(looked: list[Callable[[], None]]) -> None:
    """A person writes down what was found, once."""
    while looked:
        looked.pop()()


def endanger(simulation: Simulation, *, often: float) -> None:
    """The next run meets faults, and so often death."""
    chance = simulation.chance
    simulation.fault = faults_of(chance)
    simulation.die_at = {copy: chance.randint(1, 80) for copy in (0, 1) if chance.random() < often}
    simulation.store_fails_at = {copy: chance.randint(1, 80) for copy in (0, 1) if chance.random() < often / 4}


def live_a_run(simulation: Simulation, watch: Watch) -> list[Ended]:
    """A day by itself; or beside a second copy of it, one that hung before a correction, or another day."""
    chance = simulation.chance
    endanger(simulation, often=0.4)
    often = 0.5 if simulation.hung else 0.25
    days = [chance.choice(simulation.all_days) for _ in range(2 if chance.random() < often else 1)]
    woken = len(days) == 2 and simulation.days == 1 and DAY in simulation.hung
    if woken:
        # Killed in the moment in which it sends, or without a store, it could tell nobody that it was late.
        simulation.die_at.pop(0, None)
        simulation.store_fails_at.pop(0, None)
    freeze_at = chance.randint(1, 60) if len(days) == 2 and chance.random() < 0.5 else 0
    run = simulation.next_run(redeliver=bool(simulation.settings_before) and chance.random() < 0.5)
    first = simulation.hung_run() if woken else run
    # A second copy is one that Airflow has given up, or another run.
    if not woken and chance.random() < 0.5:
        first = replace(run, run_id=f"{run.run_id}, triggered besides")
    return one_run(simulation, watch, days, runs=[first, run][: len(days)], freeze_at=freeze_at)


def failure_of(seed: int) -> str:
    """Lead one life; why it failed and how to see it again, or an empty text."""
    try:
        a_life(seed)
    except Exception as error:
        return f"seed {seed} failed (again: make simulate FIRST={seed} SEEDS=1)\n{type(error).__name__}: {error}"
    return ""


def main(arguments: Sequence[str]) -> int:
    """Lead many lives on all cores, reporting progress; 0 if none failed."""
    parser = argparse.ArgumentParser(prog="simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0)
    asked = parser.parse_args(arguments)
    seeds = range(asked.first, asked.first + asked.seeds)
    began, reported, failures = time.monotonic(), time.monotonic(), []
    # Spawned: pyarrow's threads do not survive a fork.
    with multiprocessing.get_context("spawn").Pool(min(os.cpu_count() or 1, len(seeds))) as pool:
        for done, failure in enumerate(pool.imap(failure_of, seeds, chunksize=min(20, -(-len(seeds) // 8))), 1):
            if failure:
                failures.append(failure)
                print(failure, flush=True)
            if time.monotonic() - reported > REPORT_EVERY_S:
                reported = time.monotonic()
                print(f"{done} of {len(seeds)} seeds, {len(failures)} failed, {reported - began:.0f} s", flush=True)
    took_s = time.monotonic() - began
    print(f"{len(seeds)} seeds from {asked.first} on: {len(failures)} failed, {took_s:.0f} s")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
