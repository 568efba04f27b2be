"""Tasks give up their worker while the request budget makes them wait, and go on from the store."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import TaskDeferred

from balance_bridge.errors import RateLimited
from balance_bridge.operators.daily import FetchHistory, FetchSnapshot
from balance_bridge.sandbox.exchange import ExchangeOptions


def configure(world: Any, *, deferrable: bool | None, requests_per_minute: int = 8) -> Any:
    if deferrable is not None:
        text = world.accounts_file.read_text()
        told = str(deferrable).lower()
        world.accounts_file.write_text(
            text.replace("    destinations:", f"    deferrable: {told}\n    destinations:", 1)
        )
    world.connect("ascendex_cash", extra={"requests_per_minute": requests_per_minute})
    return world


def context(run_id: str = "manual__1") -> dict[str, Any]:
    return {"run_id": run_id, "params": {}, "dag_run": SimpleNamespace(clear_number=0)}


def snapshot(world: Any, which: Any) -> FetchSnapshot:
    return FetchSnapshot(task_id=which, which=which, account="main_cash", day=str(world.yesterday))


def history(world: Any) -> FetchHistory:
    return FetchHistory(task_id="history", account="main_cash", day=str(world.yesterday))


def snapshots(world: Any) -> None:
    for which in ("opening", "closing"):
        snapshot(world, which).execute(context())


def seconds_ahead(deferred: TaskDeferred) -> float:
    moment = deferred.trigger.serialize()[1]["moment"]
    return (datetime.fromisoformat(str(moment)).astimezone(UTC) - datetime.now(UTC)).total_seconds()


def test_a_task_that_must_wait_gives_up_its_worker_and_goes_on_from_the_store(world: Any) -> None:
    configure(world, deferrable=True, requests_per_minute=2)
    snapshots(world)
    assert world.requests("exchange") == 2
    with pytest.raises(TaskDeferred) as caught:
        history(world).execute(context())
    assert world.requests("exchange") == 2
    assert world.naps == []
    # Two seconds before there is a place again.
    assert 50 < seconds_ahead(caught.value) < 60
    assert caught.value.method_name == "execute"
    assert caught.value.kwargs == {"since": None, "refused": 0}
    world.pass_time(60)
    found = history(world).execute(context(), event=None, **caught.value.kwargs)
    assert found["records"] > 0
    assert world.requests("exchange") == 2 + found["pages_fetched"]
    assert world.sandbox.journal.refusals(429) == []


@pytest.mark.parametrize("deferrable", [False, None])
def test_a_task_that_may_not_be_deferred_waits_by_itself(world: Any, deferrable: bool | None) -> None:
    configure(world, deferrable=deferrable, requests_per_minute=2)
    snapshots(world)
    assert history(world).execute(context())["records"] > 0
    assert 50 < sum(world.naps) < 70


def test_airflow_s_own_default_decides_where_the_account_says_nothing(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", "True")
    configure(world, deferrable=None, requests_per_minute=1)
    snapshot(world, "opening").execute(context())
    with pytest.raises(TaskDeferred) as caught:
        snapshot(world, "closing").execute(context())
    assert caught.value.kwargs == {"since": None, "refused": 0}


def test_a_short_wait_is_waited_out(world: Any) -> None:
    configure(world, deferrable=True, requests_per_minute=1)
    snapshot(world, "opening").execute(context())
    world.pass_time(55)
    snapshot(world, "closing").execute(context())
    assert 3 < world.naps[-1] < 7


def test_the_exchange_that_refuses_although_we_count_is_waited_for_once(
    make_world: Callable[..., Any],
) -> None:
    # It grants fewer than it says.
    world = configure(make_world(ExchangeOptions(requests=1, window_s=3600)), deferrable=True)
    snapshot(world, "opening").execute(context())
    with pytest.raises(TaskDeferred) as caught:
        snapshot(world, "closing").execute(context())
    assert caught.value.kwargs["refused"] == 1
    assert 50 < seconds_ahead(caught.value) < 60
    world.pass_time(60)
    with pytest.raises(RateLimited, match="share one request budget"):
        snapshot(world, "closing").execute(context(), event=None, **caught.value.kwargs)
    assert len(world.sandbox.journal.refusals(429)) == 2


def test_the_first_task_saves_the_day_that_the_exchange_is_about_to_forget(world: Any) -> None:
    oldest = world.now.date() - timedelta(days=7)
    text = world.accounts_file.read_text()
    start = (world.now.date() - timedelta(days=3)).isoformat()
    world.accounts_file.write_text(text.replace(f"start_date: {start}", f"start_date: {oldest}", 1))
    snapshot(world, "opening").execute(context())
    stored = {path.parent.parent.name for path in world.store.glob("raw/main_cash/*/manifest/*.json")}
    assert stored == {str(oldest), str(oldest + timedelta(days=1))}
    asked = world.requests("exchange")
    snapshot(world, "opening").execute(context())
    assert world.requests("exchange") == asked
