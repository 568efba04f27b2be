"""Airflow's own task process, killed again and again in the middle of a load."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import pytest
import requests

from balance_bridge.accounts import AmlyzeDestination
from balance_bridge.commands.local_airflow import LocalAirflow
from balance_bridge.load.amlyze import Amlyze
from balance_bridge.load.delivery import Delivery, deliver
from balance_bridge.load.destination import balances_from_table
from balance_bridge.load.fold import fold, outcomes
from balance_bridge.load.log import DayLog
from balance_bridge.sandbox.server import CREDENTIALS, Sandbox
from balance_bridge.store import Store
from balance_bridge.transform.balances import from_parquet
from balance_bridge.transport import Credentials, Transport
from system.processes import descends

pytestmark = [pytest.mark.system, pytest.mark.slow]

ACCOUNT, TASK = "killed_cash", "load_amlyze"
DAG = f"balances_{ACCOUNT}"
SEED = 20_261_121
KILLS = int(os.environ.get("KILLS", "5"))
BATCH = 10
# What of the load each kill waits for at most, so that the last one finds some left.
MOST_BEFORE_A_KILL = 180
# Half of it before the balances are taken and half after, so that a kill can meet a request at either side.
ANSWER_S = 0.03


def slowly(answer: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """An API of the sandbox that takes its time, as one far away does."""

    def slow(call: Any) -> Any:
        time.sleep(ANSWER_S / 2)
        reply = answer(call)
        time.sleep(ANSWER_S / 2)
        return reply

    return slow


class Load:
    """The one task, as Airflow tells of it."""

    def __init__(self, airflow: LocalAirflow) -> None:
        self._airflow = airflow

    def told(self) -> dict[str, Any]:
        """All that Airflow tells of it; nothing before there is a run."""
        self._airflow.check_alive()
        try:
            tasks = self._airflow.get(f"dags/{DAG}/dagRuns/~/taskInstances", limit=100)["task_instances"]
        except requests.HTTPError as error:
            if error.response.status_code != HTTPStatus.NOT_FOUND:
                raise
            # The account is new: its DAG has not been parsed yet.
            return {"state": None}
        found: list[dict[str, Any]] = [task for task in tasks if task["task_id"] == TASK]
        return found[0] if found else {"state": None}

    def run(self) -> dict[str, Any]:
        """The only run of the DAG."""
        run: dict[str, Any]
        (run,) = self._airflow.get(f"dags/{DAG}/dagRuns", limit=10)["dag_runs"]
        return run

    def until(self, *states: str, limit_s: float = 240) -> dict[str, Any]:
        """Wait until it is in one of these states; all that Airflow tells of it then."""
        end = time.monotonic() + limit_s
        while (told := self.told())["state"] not in states:
            assert time.monotonic() < end, f"the task is {told['state']!r}, not {states}, after {limit_s:g} s"
            time.sleep(0.1)
        return told

    def process(self, attempt: int) -> int:
        """The process in which it runs: a child of a worker of the scheduler's, so that nothing else can be hit."""
        told = self.until("running")
        assert told["try_number"] == attempt
        pid: int = told["pid"]
        assert descends(pid, self._airflow._processes["scheduler"].pid), f"process {pid} is not this Airflow's"
        return pid

    def clear(self) -> None:
        """Ask for it at once, instead of waiting for the delay that doubles with each try."""
        session: requests.Session = self._airflow._session
        asked = {"dry_run": False, "task_ids": [TASK], "dag_run_id": self.run()["dag_run_id"], "only_failed": False}
        answer = session.post(f"{self._airflow.url}/api/v2/dags/{DAG}/clearTaskInstances", json=asked, timeout=10)
        answer.raise_for_status()


# A minute and more: Airflow starts the task again after each death.
def test_airflows_task_killed_again_and_again_leaves_the_books_of_an_undisturbed_run(
    running: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(SEED)
    day, there, killed_at = running.days[-1], running.sandbox.amlyze, []
    rejected_before = len(there.rejected)
    monkeypatch.setattr(there, "answer", slowly(there.answer))

    def taken() -> list[Any]:
        return [kept for kept in there.delivered if kept.account_ext_id.startswith(ACCOUNT)]

    # An instant every three minutes: over 5000 balances in small requests.
    running.open_account(
        ACCOUNT,
        "cash",
        [day],
        points="[close, {every: 3min}]",
        more=f"requester: treasury, max_rows: {BATCH}, timeout_s: 1",
    )
    load = Load(running.airflow)
    for kill in range(KILLS):
        pid = load.process(kill + 1)
        wanted = len(taken()) + chance.randint(0, MOST_BEFORE_A_KILL)
        end = time.monotonic() + 60
        while len(taken()) < wanted:
            assert time.monotonic() < end, f"it neither delivers nor ends before kill {kill + 1}"
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 2 * ANSWER_S))
        os.kill(pid, signal.SIGKILL)
        killed_at.append(len(taken()))
        state = load.until("up_for_retry", "failed", "success")["state"]
        assert state == "up_for_retry", f"it was {state} at kill {kill + 1}"
        # Again went what was under way at the kills before this one, and no more.
        assert len(there.rejected) - rejected_before <= BATCH * kill
        # The first two times Airflow comes back to it by itself.
        if kill > 1:
            load.clear()
    tries = load.until("success", "failed", limit_s=180)["try_number"]
    end = time.monotonic() + 30
    while (run := load.run()["state"]) == "running" and time.monotonic() < end:
        time.sleep(0.1)
    rejected = there.rejected[rejected_before:]
    with capsys.disabled():
        print(f"\nseed {SEED}: killed with so many taken: {killed_at}; {len(rejected)} sent again in {tries} tries")
    assert (run, tries) == ("success", KILLS + 1)
    store = Store(running.airflow.home / "balances")
    due = balances_from_table(from_parquet(store.read(f"balances/{ACCOUNT}/{day}/amlyze/0001.parquet")))
    assert len(due) >= 5000
    assert running.differences(ACCOUNT, day) == []
    with Sandbox() as untouched:
        config = AmlyzeDestination(
            name="amlyze",
            conn_id="any",
            requester="treasury",
            account_ext_id=f"{ACCOUNT}-{{asset}}",
            max_rows=BATCH,
        )
        delivery = Delivery(
            destination=Amlyze(config, Credentials(untouched.url, "", CREDENTIALS.amlyze), Transport()),
            store=Store(running.airflow.home / "undisturbed"),
            account=ACCOUNT,
            day=day,
            namespace="demo",
            generation="balances/0001.parquet",
            run_id="undisturbed",
        )
        deliver(delivery, due)
        undisturbed = sorted((kept.key, kept.balance.text, kept.number) for kept in untouched.amlyze.delivered)
    # Every record once, under the same number.
    assert sorted((kept.key, kept.balance.text, kept.number) for kept in taken()) == undisturbed
    # What was sent again is no more than what was under way, and kills there were in the middle of requests.
    assert 0 < len(rejected) <= BATCH * KILLS
    assert {each["errorCode"] for each in rejected} <= {"O005"}
    found = list(outcomes(fold(DayLog(store, ACCOUNT, day, "amlyze").read())))
    assert len(found) == len({each.row.balance for each in found}) == len(due)
    # Seen: taken before a kill that left no result of it.
    assert {str(each.outcome.status) for each in found} <= {"accepted", "seen"}
    assert sum(str(each.outcome.status) == "seen" for each in found) <= len(rejected)
