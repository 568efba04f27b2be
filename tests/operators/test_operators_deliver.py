"""The task that delivers, when what it was handed is not the newest any more."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowSkipException

from balance_bridge.errors import Overtaken


def test_a_task_that_is_cleared_alone_does_not_deliver_what_was_worked_out_before_the_last_time(world: Any) -> None:
    from balance_bridge import settings
    from balance_bridge.operators.deliver import Deliver

    ended = world.run("main_cash", date=str(world.yesterday))
    assert ended.state == "success", ended.errors
    handed, sent = ended.handed_on["reconcile"], world.requests("elven")
    task = Deliver(task_id="load_elven", account="main_cash", destination="elven", reconciled=handed)
    context = {"run_id": "cleared", "params": {}}
    assert task.execute(context)["accepted_now"] == 0
    key = handed["balances"]["elven"]
    store = settings.open_store()
    corrected = store.append(key.rpartition("/")[0], ".parquet", store.read(key) + b"corrected")
    with pytest.raises(Overtaken, match="the day was worked out anew since, and what this task was handed is not"):
        task.execute(context)
    assert corrected.endswith("0002.parquet")
    assert world.requests("elven") == sent


def test_a_task_that_hangs_before_its_delivery_begins_has_not_the_last_word(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from balance_bridge import settings
    from balance_bridge.hooks import prices
    from balance_bridge.operators.deliver import Deliver

    ended = world.run("main_cash", date=str(world.yesterday))
    handed, read, store = ended.handed_on["reconcile"], prices.due_balances, settings.open_store()
    key = handed["balances"]["elven"]

    def hangs(*arguments: Any) -> Any:
        found = read(*arguments)
        store.append(key.rpartition("/")[0], ".parquet", store.read(key) + b"corrected")
        return found

    monkeypatch.setattr(prices, "due_balances", hangs)
    task = Deliver(task_id="load_elven", account="main_cash", destination="elven", reconciled=handed)
    with pytest.raises(Overtaken, match="worked out anew since"):
        task.execute({"run_id": "hung", "params": {}})


def test_an_earlier_run_of_the_day_so_far_that_is_cleared_is_skipped(world: Any) -> None:
    from balance_bridge import settings
    from balance_bridge.operators.deliver import Deliver

    ended = world.run("main_cash", date=str(world.yesterday))
    handed, store = {**ended.handed_on["reconcile"], "status": "so far"}, settings.open_store()
    key = handed["balances"]["elven"]
    store.append(key.rpartition("/")[0], ".parquet", store.read(key) + b"later")
    task = Deliver(task_id="load_elven", account="main_cash", destination="elven", reconciled=handed)
    with pytest.raises(AirflowSkipException, match="worked out anew since"):
        task.execute({"run_id": "cleared", "params": {}})
