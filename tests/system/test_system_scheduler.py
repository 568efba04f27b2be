"""The daily run under a real scheduler: catch-up, by hand, as a backfill, after a mistake and after an outage."""

from __future__ import annotations

import time
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

# One after another: all share one Airflow.
pytestmark = [pytest.mark.system, pytest.mark.slow]

DAG = "balances_main_cash"


def ended(runs: list[dict[str, Any]]) -> bool:
    return bool(runs) and all(run["state"] in ("success", "failed") for run in runs)


def delivered(running: Any) -> tuple[int, int]:
    """How many balances have arrived."""
    return len(running.sandbox.elven.delivered), len(running.sandbox.amlyze.delivered)


def create_backfill(running: Any, reprocess: str, first: date, last: date, *conf: str) -> None:
    """Ask Airflow for the days again, as often as it takes until it agrees to.

    On SQLite the command can find the database locked; what it leaves behind then, and a backfill whose last run has
    just ended, count as running for some time (two minutes at most).
    """

    def created() -> bool:
        done = running.command(
            *("airflow", "backfill", "create", "--dag-id", DAG, "--reprocess-behavior", reprocess, *conf),
            *("--from-date", str(first), "--to-date", str(last)),
        )
        again = "AlreadyRunningBackfill" in done.stdout or "database is locked" in done.stdout
        assert done.returncode == 0 or again, done.stdout
        return done.returncode == 0

    running.until("Airflow agrees to a backfill", created)


def test_catch_up_runs_the_days_oldest_first_with_no_request_too_many(running: Any) -> None:
    runs = [run for run in running.runs(DAG) if run["run_type"] == "scheduled"]
    assert [run["logical_date"][:10] for run in runs] == [str(day) for day in running.days]
    assert {run["state"] for run in runs} == {"success"}
    asked = [each.at_s for each in running.sandbox.journal.requests if each.key == "sandbox-cash-key"]
    assert len(asked) == 4 + 3, "N days take N + 1 snapshots; a page of 500 reaches from one day into the next"


# Half a minute: three runs, started by Airflow's own command.
def test_a_day_triggered_by_hand_runs_again_and_sends_nothing_twice(running: Any) -> None:
    before = delivered(running)
    known = {run["dag_run_id"] for run in running.runs(DAG)}
    for conf in ("{}", f'{{"date": "{running.days[0]}"}}'):
        done = running.command("airflow", "dags", "trigger", DAG, "--conf", conf)
        assert done.returncode == 0, done.stdout

    def manual() -> list[dict[str, Any]]:
        return [run for run in running.runs(DAG) if run["dag_run_id"] not in known]

    running.until("manual runs", lambda: len(manual()) == 2 and ended(manual()))
    assert {run["state"] for run in manual()} == {"success"}
    told = {
        running.airflow.get(f"dags/{DAG}/dagRuns/{run['dag_run_id']}/taskInstances/day/xcomEntries/return_value")[
            "value"
        ]
        for run in manual()
    }
    assert told == {str(running.days[-1]), str(running.days[0])}, "without a date it is the last whole day"
    assert delivered(running) == before, "nothing twice"


# Half a minute: two runs, and the command that creates them.
def test_a_backfill_runs_days_again_and_sends_nothing_twice(running: Any) -> None:
    before = delivered(running)
    create_backfill(running, "completed", running.days[0], running.days[1])

    def backfilled() -> bool:
        runs = running.runs(DAG)
        return sum(run["run_type"] == "backfill" for run in runs) == 2 and ended(runs)

    running.until("the backfill", backfilled)
    assert {run["state"] for run in running.runs(DAG)} == {"success"}
    assert delivered(running) == before, "nothing twice"


# Half a minute: two backfills, each of one run.
def test_a_backfill_that_names_one_date_is_refused_and_repaired_as_its_message_says(running: Any) -> None:
    before = delivered(running)

    def backfill(reprocess: str, *conf: str) -> str:
        known = {run["dag_run_id"]: run["end_date"] for run in running.runs(DAG)}

        create_backfill(running, reprocess, running.days[1], running.days[1], *conf)
        changed: list[dict[str, Any]] = []

        def again() -> bool:
            changed[:] = [run for run in running.runs(DAG) if run["end_date"] != known.get(run["dag_run_id"])]
            return ended(changed)

        running.until(f"the backfill of {reprocess} runs", again)
        (run,) = changed
        assert (run["run_type"], run["logical_date"][:10]) == ("backfill", str(running.days[1]))
        return str(run["dag_run_id"])

    run = backfill("completed", "--dag-run-conf", f'{{"date": "{running.days[0]}"}}')
    states = running.tasks(DAG, run)
    assert states.pop("day") == "failed"
    assert set(states.values()) == {"upstream_failed"}
    run = backfill("failed", "--dag-run-conf", "{}")
    assert set(running.tasks(DAG, run).values()) == {"success"}
    assert delivered(running) == before, "nothing twice"


# A minute: an account's three days fail, and run again.
def test_an_account_that_is_wrong_in_the_file_fails_alone_and_runs_its_days_once_it_is_corrected(running: Any) -> None:
    dag = "balances_typo_margin"
    running.open_account("typo_margin", "margin", running.days, more="requestor: treasury")
    running.until("the wrong account", lambda: len(running.runs(dag)) == 3 and ended(running.runs(dag)))
    runs = running.runs(dag)
    assert [run["state"] for run in runs] == ["failed"] * 3, "each missed day is a red run"
    assert running.tasks(dag, runs[0]["dag_run_id"]) == {"day": "failed", "accounts_file": "failed"}
    running.rewrite_accounts(lambda text: text.replace("requestor", "requester"))
    running.until("the account's tasks", lambda: len(running.airflow.get(f"dags/{dag}/tasks")["tasks"]) > 1)
    done = running.command("balance-bridge", "pools")
    assert done.returncode == 0, done.stdout
    assert "typo_margin" in done.stdout
    done = running.command("airflow", "tasks", "clear", dag, "--yes", "--start-date", str(running.days[0]))
    assert done.returncode == 0, done.stdout
    running.until("the cleared runs", lambda: {run["state"] for run in running.runs(dag)} == {"success"})
    states = list(running.tasks(dag, runs[0]["dag_run_id"]).values())
    assert states.count("success") == 6
    assert states.count("removed") == 1, "the task that said what was wrong"
    assert running.differences("typo_margin") == []


# Two minutes: Airflow is stopped and started, and the request budget's real window of 60 s is waited for.
def test_after_an_outage_the_missing_days_come_by_themselves_oldest_first_and_hold_no_worker_while_they_wait(
    running: Any,
) -> None:
    dag = "balances_outage_margin"
    days = [str(day) for day in running.days]

    def done() -> list[str]:
        runs = running.runs(dag)
        assert "failed" not in {run["state"] for run in runs}
        return [run["logical_date"][:10] for run in runs if run["state"] == "success"]

    def requests() -> list[Any]:
        return [each for each in running.sandbox.journal.requests if each.key == "outage_margin-key"]

    deferred: list[dict[str, Any]] = []

    def are_done(count: int) -> bool:
        # No task of the account is there while Airflow does not know it.
        tasks = running.airflow.get("dags/~/dagRuns/~/taskInstances", limit=500, state="deferred")["task_instances"]
        if any(task["dag_id"] == dag for task in tasks):
            deferred.append(running.airflow.get("pools/outage_margin"))
        return len(done()) >= count

    # Two requests a minute: less than one day takes.
    running.open_account("outage_margin", "margin", running.days, more="requester: treasury", requests_per_minute=2)
    running.until("the first day", lambda: are_done(1))
    running.airflow.stop()
    # What stands for two days: nothing runs, and two days are due.
    asked = len(requests())
    time.sleep(2)
    assert len(requests()) == asked
    running.airflow.start()
    running.until("the missing days", lambda: are_done(3))
    assert done() == days, "oldest first"
    assert running.differences("outage_margin") == []
    assert {each.status for each in requests()} == {200}
    assert sum(each.path.endswith("snapshot") for each in requests()) == 4, "each snapshot once"
    taken = [each for each in running.sandbox.amlyze.delivered if each.account_ext_id.startswith("outage_margin")]
    assert {each.state for each in taken} == {"new"}, "nothing twice"
    # Seen waiting, with the only slot of the pool free for others.
    assert deferred, "no task has given up its worker"
    assert any(pool["open_slots"] == 1 and pool["deferred_slots"] == 1 for pool in deferred)
    assert datetime.now(UTC).date() - timedelta(days=1) == running.days[-1], "a midnight passed: run the test again"
