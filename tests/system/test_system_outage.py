"""A real scheduler that was stopped while days became due, and tasks that wait for the request budget meanwhile."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from balance_bridge.commands.local_airflow import LocalAirflow
from balance_bridge.sandbox.server import accounts_yaml, connections

# One after another: each of them keeps both cores busy.
pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.xdist_group("airflow")]

DAG = "balances_main_cash"
# The options that LocalAirflow sets itself.
OWN = ("AIRFLOW_HOME", "AIRFLOW__CORE__DAGS_FOLDER", "AIRFLOW__CORE__LOAD_EXAMPLES")


def runs(airflow: LocalAirflow) -> list[dict[str, Any]]:
    return list(airflow.get(f"dags/{DAG}/dagRuns", limit=100, order_by="start_date")["dag_runs"])


def done(airflow: LocalAirflow) -> list[str]:
    return [run["logical_date"][:10] for run in runs(airflow) if run["state"] == "success"]


def until(airflow: LocalAirflow, what: str, met: Callable[[], bool], limit_s: float = 300) -> None:
    end = time.monotonic() + limit_s
    while not met():
        airflow.check_alive()
        assert not [run for run in runs(airflow) if run["state"] == "failed"], what
        assert time.monotonic() < end, f"{what}: not within {limit_s:g} s"
        time.sleep(0.3)


# Three minutes: Airflow is started twice, and the request budget's real window of 60 s is waited for.
def test_after_an_outage_the_missing_days_come_by_themselves_oldest_first_and_hold_no_worker_while_they_wait(
    machine: Any,
) -> None:
    start = machine.start - timedelta(days=1)
    days = [(start + timedelta(days=ahead)).isoformat() for ahead in range(4)]
    # One account; three requests a minute, so that one day's are all that a window has room for.
    text = accounts_yaml(start).split("  main_margin:")[0]
    machine.accounts_file.write_text(text.replace("    start_date:", "    deferrable: true\n    start_date:", 1))
    extra = {"extra": {"requests_per_minute": 3}}
    machine.more = {"AIRFLOW_CONN_ASCENDEX_CASH": json.dumps(connections(machine.sandbox.url)["ascendex_cash"] | extra)}
    options = {name: value for name, value in machine.environment.items() if name.startswith("AIRFLOW")}
    options = {name: value for name, value in options.items() if name not in OWN}
    with LocalAirflow(machine.home, options, ui=True) as airflow:
        airflow.prepare()
        airflow.start()
        until(airflow, "the first day", lambda: len(done(airflow)) == 1)
        airflow.stop()
    asked = len(machine.sandbox.journal.requests)
    # What stands for three days: nothing runs, and three days are due.
    time.sleep(3)
    assert len(machine.sandbox.journal.requests) == asked
    deferred: list[dict[str, Any]] = []

    with LocalAirflow(machine.home, options, ui=True) as airflow:

        def all_done() -> bool:
            tasks = airflow.get(f"dags/{DAG}/dagRuns/~/taskInstances", limit=100)["task_instances"]
            if any(task["state"] == "deferred" for task in tasks):
                deferred.append(airflow.get("pools/ascendex_cash"))
            return len(done(airflow)) == 4

        airflow.start()
        assert done(airflow) == days[:1]
        until(airflow, "the missing days", all_done)
        assert done(airflow) == days, "oldest first"
    assert machine.differences("main_cash", *(start + timedelta(days=ahead) for ahead in range(4))) == []
    journal = [request for request in machine.sandbox.journal.requests if request.api == "exchange"]
    assert [request for request in journal if request.status != 200] == []
    assert sum(request.path.endswith("snapshot") for request in journal) == 5, "each snapshot once"
    assert machine.sandbox.journal.refusals() == []
    assert {record.state for record in machine.sandbox.amlyze.registered} == {"new"}, "nothing twice"
    # Seen waiting, with the only slot of the pool free for others.
    assert deferred, "no task has given up its worker"
    assert any(pool["open_slots"] == 1 and pool["deferred_slots"] == 1 for pool in deferred)
