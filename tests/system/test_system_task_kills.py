"""Airflow's own task process, killed again and again in the middle of a load."""

from __future__ import annotations

import os
import random
import signal
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import requests

from balance_bridge.commands.local_airflow import LocalAirflow
from balance_bridge.load.amlyze import Amlyze
from balance_bridge.load.delivery import deliver
from balance_bridge.load.destination import balances_from_table
from balance_bridge.load.receipts import outcomes
from balance_bridge.sandbox.server import CREDENTIALS, Sandbox
from balance_bridge.store import Store
from balance_bridge.transform.balances import from_parquet
from balance_bridge.transport import Transport

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.xdist_group("airflow")]

DAG, TASK = "balances_main_cash", "load_amlyze"
KILLS = 20
BATCH = 25
# What of the load each kill waits for at most, so that the twentieth finds some left.
MOST_BEFORE_A_KILL = 180
# The options that LocalAirflow sets itself.
OWN = ("AIRFLOW_HOME", "AIRFLOW__CORE__DAGS_FOLDER", "AIRFLOW__CORE__LOAD_EXAMPLES")


def accounts(machine: Any, day: str) -> str:
    """One account with one destination and an instant every three minutes: over 5000 balances in small requests."""
    return f"""\
accounts:
  main_cash:
    source: {{type: ascendex, conn_id: ascendex_cash, category: cash}}
    start_date: {day}
    destinations:
      amlyze:
        conn_id: amlyze_default
        requester: treasury
        account_ext_id: "{CREDENTIALS.account_ext_ids["main_cash"]}"
        points: [close, {{every: 3min}}]
        max_rows: {BATCH}
"""


def processes() -> dict[int, int]:
    """Every process' parent."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                # The name stands in brackets and may hold anything.
                found[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue
    return found


def task_process(scheduler: int) -> int | None:
    """The process in which a task runs: a child of one of the scheduler's workers."""
    parents = processes()
    workers = {pid for pid, parent in parents.items() if parent == scheduler}
    tasks = [pid for pid, parent in parents.items() if parent in workers]
    return tasks[0] if len(tasks) == 1 else None


class Load:
    """The one task, as Airflow tells of it."""

    def __init__(self, airflow: LocalAirflow) -> None:
        self._airflow = airflow

    def state(self) -> tuple[str, int]:
        """Its state and the number of its try."""
        self._airflow.check_alive()
        for task in self._airflow.get(f"dags/{DAG}/dagRuns/~/taskInstances", limit=100)["task_instances"]:
            if task["task_id"] == TASK:
                return task["state"] or "", task["try_number"]
        return "", 0

    def until(self, *states: str, limit_s: float = 120) -> str:
        end = time.monotonic() + limit_s
        while (state := self.state()[0]) not in states:
            assert time.monotonic() < end, f"the task is {state!r}, not {states}, after {limit_s:g} s"
            time.sleep(0.1)
        return state

    def clear(self) -> None:
        """Ask for it at once, instead of waiting for the delay that doubles with each try."""
        session: requests.Session = self._airflow._session
        (run,) = self._airflow.get(f"dags/{DAG}/dagRuns", limit=10)["dag_runs"]
        asked = {"dry_run": False, "task_ids": [TASK], "dag_run_id": run["dag_run_id"], "only_failed": False}
        answer = session.post(f"{self._airflow.url}/api/v2/dags/{DAG}/clearTaskInstances", json=asked, timeout=10)
        answer.raise_for_status()


# Two minutes: Airflow starts the task twenty-one times.
def test_airflows_task_killed_twenty_times_leaves_the_books_of_an_undisturbed_run(
    machine: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = random.SystemRandom().randrange(10**6)
    chance = random.Random(seed)
    day = machine.start + timedelta(days=2)
    machine.accounts_file.write_text(accounts(machine, day.isoformat()))
    options = {name: value for name, value in machine.environment.items() if name.startswith("AIRFLOW")}
    options = {name: value for name, value in options.items() if name not in OWN}
    there, killed_at = machine.sandbox.amlyze, []
    with LocalAirflow(machine.home, options, ui=False) as airflow:
        airflow.prepare()
        airflow.start()
        load, scheduler = Load(airflow), airflow._processes["scheduler"].pid
        load.until("running")
        for kill in range(KILLS):
            load.until("running")
            wanted = len(there.registered) + chance.randint(0, MOST_BEFORE_A_KILL)
            end = time.monotonic() + 60
            while (pid := task_process(scheduler)) is None or len(there.registered) < wanted:
                assert time.monotonic() < end, f"seed {seed}: it neither delivers nor ends"
                time.sleep(0.002)
            time.sleep(chance.uniform(0, 0.04))
            os.kill(pid, signal.SIGKILL)
            killed_at.append(len(there.registered))
            state = load.until("up_for_retry", "failed", "success")
            assert state != "success", f"seed {seed}: it had ended before kill {kill + 1}"
            # The first two times Airflow comes back to it by itself.
            if kill > 1:
                load.clear()
        load.until("success", limit_s=180)
        tries = load.state()[1]
    with capsys.disabled():
        print(f"\nseed {seed}: killed with so many taken: {killed_at}; ended after {tries} tries")
    assert tries == KILLS + 1
    store = Store(machine.home / "balances")
    due = balances_from_table(from_parquet(store.read(f"balances/main_cash/{day}/amlyze/0001.parquet")))
    assert len(due) >= 5000
    assert machine.differences("main_cash", day) == []
    with Sandbox() as untouched:
        deliver(
            destination=Amlyze(
                transport=Transport(),
                base_url=untouched.url,
                token=CREDENTIALS.amlyze,
                requester="treasury",
                account_ext_id=CREDENTIALS.account_ext_ids["main_cash"],
                max_rows=BATCH,
            ),
            store=Store(machine.home / "undisturbed"),
            account="main_cash",
            day=day,
            namespace="bb",
            balances=due,
            run_id="undisturbed",
        )
        undisturbed = sorted((kept.key, kept.text, kept.number) for kept in untouched.amlyze.registered)
    # Every record once, under the same number.
    assert sorted((kept.key, kept.text, kept.number) for kept in there.registered) == undisturbed
    # What was sent again is no more than what was under way.
    assert len(there.rejected) <= BATCH * KILLS
    assert {rejected["errorCode"] for rejected in there.rejected} <= {"O005"}
    found = outcomes(store, "main_cash", day, "amlyze")
    assert len(found) == len({(one.asset, one.at_ms) for one in found}) == len(due)
    # Seen: taken before a kill that left no receipt of it.
    assert {one.outcome for one in found} <= {"accepted", "seen"}
    assert sum(one.outcome == "seen" for one in found) <= len(there.rejected)
