"""The task that delivers, when what it was handed is no longer the newest."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowSkipException

from balance_bridge.errors import SupersededRun


def deliver(handed: Any, run_id: str) -> Any:
    from balance_bridge.operators.deliver import Deliver

    task = Deliver(task_id="load_elven", account="main_cash", destination="elven", reconciled=handed)
    return task.execute({"run_id": run_id, "params": {}, "dag_run": SimpleNamespace(clear_number=0)})


@pytest.mark.slow  # Airflow runs the day
def test_a_task_that_is_cleared_alone_does_not_take_back_what_was_worked_out_and_delivered_later(world: Any) -> None:
    from balance_bridge import settings

    ended = world.run("main_cash", date=str(world.yesterday))
    assert ended.state == "success", ended.errors
    handed, store = ended.handed_on["reconcile"], settings.open_store()
    assert deliver(handed, "cleared")["accepted_now"] == 0
    key = handed["balances"]["elven"]
    # The same balances, worked out later.
    assert store.put(key.replace("0001", "0002"), store.read(key))
    later = {**handed, "balances": {**handed["balances"], "elven": key.replace("0001", "0002")}}
    assert deliver(later, "later")["accepted_before"] == ended.handed_on["load_elven"]["accepted_now"]
    sent = world.requests("elven")
    with pytest.raises(SupersededRun, match=r"balances that were worked out later .* have been delivered"):
        deliver(handed, "cleared again")
    assert world.requests("elven") == sent


@pytest.mark.slow  # Airflow runs the day
def test_a_run_of_the_day_so_far_that_comes_after_the_whole_day_s_is_skipped(world: Any) -> None:
    ended = world.run("main_cash", date=str(world.yesterday))
    with pytest.raises(AirflowSkipException, match="the whole day is being delivered already"):
        deliver({**ended.handed_on["reconcile"], "status": "so far"}, "late")
