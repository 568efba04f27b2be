"""The daily run under a real scheduler: catch-up, by hand, as a backfill, and after a mistake in the accounts file."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from balance_bridge.commands.local_airflow import LocalAirflow

# One after another: each of them keeps both cores busy.
pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.xdist_group("airflow")]

# The options that LocalAirflow sets itself.
OWN = ("AIRFLOW_HOME", "AIRFLOW__CORE__DAGS_FOLDER", "AIRFLOW__CORE__LOAD_EXAMPLES")


class Scheduler:
    """Airflow at work, and what its REST API says."""

    def __init__(self, airflow: LocalAirflow) -> None:
        self.airflow = airflow

    def runs(self, dag: str) -> list[dict[str, Any]]:
        return list(self.airflow.get(f"dags/{dag}/dagRuns", limit=100, order_by="start_date")["dag_runs"])

    def tasks(self, dag: str, run: str) -> dict[str, str]:
        found = self.airflow.get(f"dags/{dag}/dagRuns/{run}/taskInstances")["task_instances"]
        return {task["task_id"]: task["state"] for task in found}

    def until(self, what: str, met: Callable[[], bool], limit_s: float = 240) -> None:
        end = time.monotonic() + limit_s
        while not met():
            self.airflow.check_alive()
            assert time.monotonic() < end, f"{what}: not within {limit_s:g} s"
            time.sleep(0.5)


def ended(runs: list[dict[str, Any]]) -> bool:
    return bool(runs) and all(run["state"] in ("success", "failed") for run in runs)


# Four minutes: one Airflow is started, and everything that needs a scheduler is looked at while it runs.
def test_the_scheduler_runs_days_by_itself_by_hand_and_as_a_backfill(machine: Any) -> None:
    days = [machine.start + timedelta(days=ahead) for ahead in range(3)]
    right = machine.accounts_file.read_text()
    # The margin account begins wrong: its requester is missing.
    head, tail = right.split("  main_margin:")
    machine.accounts_file.write_text(f"{head}  main_margin:{tail.replace('requester: treasury', '')}")
    options = {name: value for name, value in machine.environment.items() if name.startswith("AIRFLOW")}
    options = {name: value for name, value in options.items() if name not in OWN}
    options["AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL"] = "10"
    with LocalAirflow(machine.home, options, ui=False) as airflow:
        airflow.prepare()
        airflow.start()
        scheduler = Scheduler(airflow)
        catch_up(scheduler, machine, days)
        by_hand(scheduler, machine, days)
        as_a_backfill(scheduler, machine, days)
        as_a_backfill_of_one_date(scheduler, machine, days)
        mended(scheduler, machine, right, days)
    refused = [refusal for refusal in machine.sandbox.journal.refusals(429)]
    assert refused == [], "the exchange never had to refuse"


def catch_up(scheduler: Scheduler, machine: Any, days: list[date]) -> None:
    dag = "balances_main_cash"
    scheduler.until("catch-up", lambda: len(scheduler.runs(dag)) == 3 and ended(scheduler.runs(dag)))
    runs = scheduler.runs(dag)
    assert [run["state"] for run in runs] == ["success"] * 3
    assert [run["logical_date"][:10] for run in runs] == [day.isoformat() for day in days], "oldest first"
    assert machine.differences("main_cash", *days) == []
    asked = machine.sandbox.journal.arrivals_s("exchange", "sandbox-cash-key")
    assert len(asked) == 4 + 3, "N days take N + 1 snapshots; a page of 500 reaches from one day into the next"


def by_hand(scheduler: Scheduler, machine: Any, days: list[date]) -> None:
    dag = "balances_main_cash"
    before = len(machine.sandbox.elven.imports), len(machine.sandbox.amlyze.registered)
    for conf in ("{}", f'{{"date": "{days[0]}"}}'):
        done = machine.command("airflow", "dags", "trigger", dag, "--conf", conf)
        assert done.returncode == 0, done.stdout
    scheduler.until("manual runs", lambda: len(scheduler.runs(dag)) == 5 and ended(scheduler.runs(dag)))
    assert {run["state"] for run in scheduler.runs(dag)} == {"success"}
    manual = [run["dag_run_id"] for run in scheduler.runs(dag) if run["run_type"] == "manual"]
    told = {
        scheduler.airflow.get(f"dags/{dag}/dagRuns/{run}/taskInstances/day/xcomEntries/return_value")["value"]
        for run in manual
    }
    assert told == {days[-1].isoformat(), days[0].isoformat()}, "without a date it is the last whole day"
    assert (len(machine.sandbox.elven.imports), len(machine.sandbox.amlyze.registered)) == before, "nothing twice"


def as_a_backfill(scheduler: Scheduler, machine: Any, days: list[date]) -> None:
    dag = "balances_main_cash"
    before = len(machine.sandbox.elven.imports), len(machine.sandbox.amlyze.registered)
    done = machine.command(
        *("airflow", "backfill", "create", "--dag-id", dag, "--reprocess-behavior", "completed"),
        *("--from-date", days[0].isoformat(), "--to-date", days[1].isoformat()),
    )
    assert done.returncode == 0, done.stdout

    def backfilled() -> bool:
        runs = scheduler.runs(dag)
        return sum(run["run_type"] == "backfill" for run in runs) == 2 and ended(runs)

    scheduler.until("the backfill", backfilled)
    assert {run["state"] for run in scheduler.runs(dag)} == {"success"}
    assert (len(machine.sandbox.elven.imports), len(machine.sandbox.amlyze.registered)) == before, "nothing twice"


def as_a_backfill_of_one_date(scheduler: Scheduler, machine: Any, days: list[date]) -> None:
    dag = "balances_main_cash"
    before = len(machine.sandbox.elven.imports), len(machine.sandbox.amlyze.registered)

    def backfill(reprocess: str, *conf: str) -> str:
        known = {run["dag_run_id"]: run["end_date"] for run in scheduler.runs(dag)}

        def created() -> bool:
            done = machine.command(
                *("airflow", "backfill", "create", "--dag-id", dag, "--reprocess-behavior", reprocess, *conf),
                *("--from-date", days[1].isoformat(), "--to-date", days[1].isoformat()),
            )
            # The one before counts as running for some time after its last run.
            assert done.returncode == 0 or "AlreadyRunningBackfill" in done.stdout, done.stdout
            return done.returncode == 0

        scheduler.until("the end of the backfill before", created)
        changed: list[dict[str, Any]] = []

        def again() -> bool:
            changed[:] = [run for run in scheduler.runs(dag) if run["end_date"] != known.get(run["dag_run_id"])]
            return ended(changed)

        scheduler.until(f"the backfill of {reprocess} runs", again)
        (run,) = changed
        assert (run["run_type"], run["logical_date"][:10]) == ("backfill", days[1].isoformat())
        return str(run["dag_run_id"])

    run = backfill("completed", "--dag-run-conf", f'{{"date": "{days[0]}"}}')
    states = scheduler.tasks(dag, run)
    assert states.pop("day") == "failed"
    assert set(states.values()) == {"upstream_failed"}
    # What its message says to do.
    run = backfill("failed", "--dag-run-conf", "{}")
    assert set(scheduler.tasks(dag, run).values()) == {"success"}
    assert (len(machine.sandbox.elven.imports), len(machine.sandbox.amlyze.registered)) == before, "nothing twice"


def mended(scheduler: Scheduler, machine: Any, right: str, days: list[date]) -> None:
    dag = "balances_main_margin"
    scheduler.until("the wrong account", lambda: len(scheduler.runs(dag)) == 3 and ended(scheduler.runs(dag)))
    runs = scheduler.runs(dag)
    assert [run["state"] for run in runs] == ["failed"] * 3, "each missed day is a red run"
    assert scheduler.tasks(dag, runs[0]["dag_run_id"]) == {"day": "failed", "accounts_file": "failed"}
    machine.accounts_file.write_text(right)

    def parsed_anew() -> bool:
        return len(scheduler.airflow.get(f"dags/{dag}/tasks")["tasks"]) > 1

    scheduler.until("the mended account's tasks", parsed_anew)
    done = machine.command("balance-bridge", "pools")
    assert done.returncode == 0, done.stdout
    assert "ascendex_margin" in done.stdout
    done = machine.command("airflow", "tasks", "clear", dag, "--yes", "--start-date", days[0].isoformat())
    assert done.returncode == 0, done.stdout

    def green() -> bool:
        return {run["state"] for run in scheduler.runs(dag)} == {"success"}

    scheduler.until("the cleared runs", green)
    states = list(scheduler.tasks(dag, runs[0]["dag_run_id"]).values())
    assert states.count("success") == 8
    assert states.count("removed") == 1, "the task that said what was wrong"
    assert machine.differences("main_margin", *days) == []
    assert datetime.now(UTC).date() - timedelta(days=1) == days[-1], "a midnight passed: run the test again"
