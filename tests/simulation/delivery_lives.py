"""Lives of a day: seeded runs among faults, deaths, second copies and corrections, until all is delivered.

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
from datetime import date
from decimal import Decimal
from functools import partial

from simulation.delivery_checks import Paper, Watch
from simulation.delivery_model import DAY, HELD, Ended, Killed, Simulation, Turns
from simulation.delivery_wire import AT_AMLYZE, FAULTS

# Asked about, mended, sent under a new number: what there can be to do once nothing errs any more.
QUIET_RUNS = 8
TELL_EVERY_S = 10.0


def one_run(
    simulation: Simulation,
    watch: Watch,
    days: Sequence[date] = (DAY,),
    *,
    woken: bool = False,
    turns: Turns | None = None,
) -> tuple[bool, dict[str, Paper]]:
    """A run of a day; or of several days at once, or of one beside a second copy of it.

    If ``woken``, the first of them hung before the last correction, and goes on now. Who of them goes on when is told
    by ``turns``, or drawn.

    Returns:
        Whether all of it ended well, and the receipts after it.
    """
    watch.before()
    simulation.steps.clear()
    simulation.run += 1
    ended: list[Ended] = []
    died = []

    def copy(day: date, *, hung: bool = False) -> None:
        order = ["elven", "amlyze"]
        simulation.chance.shuffle(order)
        try:
            ended.extend(simulation.wake(order, day) if hung else simulation.a_run(order, day))
        except Killed as death:
            died.append(death)

    if len(days) == 1:
        copy(days[0])
    else:
        simulation.shared = True
        simulation.turns = turns or Turns(simulation.chance, simulation.chance.choice((0.02, 0.1, 0.5)))
        simulation.turns.run([partial(copy, day, hung=woken and not me) for me, day in enumerate(days)])
        simulation.turns = None
    simulation.die_at = {}
    papers = watch.after(ended, woken=woken)
    return not died and all(each.error is None for each in ended), papers


def ask(simulation: Simulation, papers: dict[str, Paper]) -> None:
    """A person asks Amlyze about what it has seen and not confirmed."""
    paper = papers["amlyze"]
    open_ones = [planned for planned in paper.rows if planned.outcome == "seen"]
    simulation.resolve({planned.row["number"]: (planned.day, planned.batch) for planned in open_ones})


def quiet(simulation: Simulation, watch: Watch, papers: dict[str, Paper]) -> None:
    """Nothing errs any more: the run is repeated until it is green."""
    simulation.fault, simulation.die_at = lambda _: "", {}
    simulation.mend()
    for _ in range(QUIET_RUNS):
        ask(simulation, papers)
        well = True
        for day in simulation.all_days:
            of_day, papers = one_run(simulation, watch, [day])
            well = well and of_day
        if well:
            watch.ended_well(papers)
            return
    raise AssertionError(f"not green after {QUIET_RUNS} runs without a fault: {simulation.told[-3:]}")


def faults_of(chance: random.Random) -> Callable[[str], str]:
    """How a run's requests fare: at chance, or from some request on for ever."""
    how = chance.random()
    often = chance.choice((0.05, 0.2, 0.5))
    for_ever = chance.choice(FAULTS)
    first = chance.randrange(16)
    seen = 0

    def fault(api: str) -> str:
        nonlocal seen
        seen += 1
        if how < 0.2:
            return for_ever if seen > first else ""
        # The exchange errs more rarely, or hardly any run would come to deliver.
        if chance.random() >= often / (5 if api == "exchange" else 1):
            return ""
        return chance.choice(AT_AMLYZE if api == "amlyze" and chance.random() < 0.4 else FAULTS)

    return fault


def a_life(seed: int) -> Simulation:
    """One seed: runs among faults, deaths, second copies and corrections, then quiet ones to the end."""
    drawn = random.Random(f"{seed}/kind")
    simulation = Simulation(seed, days=drawn.choice((1, 1, 2)), in_flight=drawn.choice((1, 1, 2, 4)))
    chance, watch, papers = simulation.chance, Watch(simulation), {}
    for _ in range(chance.randint(1, 4)):
        simulation.fault = faults_of(chance)
        simulation.die_at = {copy: chance.randint(1, 60) for copy in (0, 1) if chance.random() < 0.5}
        # A day by itself; or beside a second copy of it, one that hung before a correction, or another day.
        often = 0.5 if simulation.hung else 0.25
        days = [chance.choice(simulation.all_days) for _ in range(2 if chance.random() < often else 1)]
        woken = len(days) == 2 and simulation.days == 1 and DAY in simulation.hung
        if woken:
            # Killed in the moment in which it sends, it could tell nobody that it was late.
            simulation.die_at.pop(0, None)
        papers = one_run(simulation, watch, days, woken=woken)[1]
        if chance.random() < 0.3:
            ask(simulation, papers)
        if chance.random() < 0.3:
            simulation.mend()
        if chance.random() < 0.3:
            simulation.correct({chance.choice(sorted(HELD)): chance.choice((Decimal("1.25"), Decimal(0)))})
    papers = papers or {name: Paper(simulation, name) for name in ("elven", "amlyze")}
    quiet(simulation, watch, papers)
    return simulation


def failure_of(seed: int) -> str:
    """Lead one life; why it failed and how to see it again, or an empty text."""
    try:
        a_life(seed)
    except Exception as error:
        return f"seed {seed} failed (again: make simulate FIRST={seed} SEEDS=1)\n{type(error).__name__}: {error}"
    return ""


def main(arguments: Sequence[str]) -> int:
    """Lead many lives on all cores, telling of the progress; 0 if none failed."""
    parser = argparse.ArgumentParser(prog="simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0)
    asked = parser.parse_args(arguments)
    seeds = range(asked.first, asked.first + asked.seeds)
    began, told, failures = time.monotonic(), time.monotonic(), []
    # Spawned: pyarrow's threads do not survive a fork.
    with multiprocessing.get_context("spawn").Pool(min(os.cpu_count() or 1, len(seeds))) as pool:
        for done, failure in enumerate(pool.imap(failure_of, seeds, chunksize=min(20, -(-len(seeds) // 8))), 1):
            if failure:
                failures.append(failure)
                print(failure, flush=True)
            if time.monotonic() - told > TELL_EVERY_S:
                told = time.monotonic()
                print(f"{done} of {len(seeds)} seeds, {len(failures)} failed, {told - began:.0f} s", flush=True)
    took_s = time.monotonic() - began
    print(f"{len(seeds)} seeds from {asked.first} on: {len(failures)} failed, {took_s:.0f} s")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
