"""The task that delivers, when what it was handed is no longer the newest."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowSkipException

from balance_bridge.errors import SupersededRun


def deliver(handed: Any, run_id: str) -> Any:
    from balance_bridge.operators.deliver import Deliver

    task = Deliver(task_id="load_elven", account="main_cash", destination="elven", reconciled=handed)
    context = {"run_id": run_id, "params": {}, "dag_run": SimpleNamespace(clear_number=0)}
    return task.execute({**context, "outlet_events": defaultdict(lambda: SimpleNamespace(add=lambda *_, **__: None))})


def test_a_task_that_is_cleared_alone_does_not_take_back_what_was_worked_out_and_delivered_later(world: Any) -> None:
    from balance_bridge import settings

    handed, store = world.task("reconcile"), settings.open_store()
    accepted = deliver(handed, "first")["accepted_now"]
    assert accepted > 0
    assert deliver(handed, "cleared")["accepted_now"] == 0
    key = handed["balances"]["elven"]
    # The same balances, computed later.
    assert store.put(key.replace("0001", "0002"), store.read(key))
    later = {**handed, "balances": {**handed["balances"], "elven": key.replace("0001", "0002")}}
    assert deliver(later, "later")["accepted_before"] == accepted
    sent = world.requests("elven")
    with pytest.raises(SupersededRun, match=r"Newer balances .* have been delivered"):
        deliver(handed, "cleared again")
    assert world.requests("elven") == sent


def test_a_run_of_the_day_so_far_that_comes_after_the_whole_day_s_is_skipped(world: Any) -> None:
    handed = world.task("reconcile")
    deliver(handed, "first")
    with pytest.raises(AirflowSkipException, match="the whole day is being delivered already"):
        deliver({**handed, "status": "so far"}, "late")
