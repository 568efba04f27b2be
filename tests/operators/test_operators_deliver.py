"""The task that delivers, when what it was handed is not the newest any more."""

from __future__ import annotations

from typing import Any

import pytest

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
    with pytest.raises(Overtaken, match=r"0001\.parquet, which is not delivered any more\. Trigger the day, or clear"):
        task.execute(context)
    assert corrected.endswith("0002.parquet")
    assert world.requests("elven") == sent
