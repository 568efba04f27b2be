"""A closing snapshot that is not there yet is waited for, without holding a worker."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import TaskDeferred

from balance_bridge.errors import NotYetAvailable, PermanentError, SnapshotOverdue
from balance_bridge.operators.daily import FetchHistory, FetchSnapshot
from balance_bridge.sandbox.exchange import ExchangeOptions

CONTEXT = {"run_id": "manual__1", "params": {}, "dag_run": SimpleNamespace(clear_number=0)}


@pytest.fixture
def late(make_world: Callable[..., Any]) -> Any:
    """A world whose snapshots are made a day late: yesterday's is there, today's is not."""
    return make_world(ExchangeOptions(snapshot_delay_s=86_400))


def closing(world: Any) -> FetchSnapshot:
    return FetchSnapshot(task_id="closing_snapshot", which="closing", account="main_cash", day=str(world.yesterday))


def test_it_is_asked_for_again_in_ten_minutes(late: Any) -> None:
    before = datetime.now(UTC)
    with pytest.raises(TaskDeferred) as caught:
        closing(late).execute(CONTEXT)
    moment = caught.value.trigger.moment
    assert before + timedelta(minutes=10) <= moment <= datetime.now(UTC) + timedelta(minutes=10)
    assert caught.value.method_name == "execute"
    assert before <= datetime.fromisoformat(caught.value.kwargs["since"]) <= datetime.now(UTC)
    # No data is no fault that another attempt within seconds could mend.
    assert late.requests("exchange") == 1
    assert late.naps == []


def test_what_wakes_it_carries_on_the_time_at_which_the_wait_began(late: Any) -> None:
    since = (datetime.now(UTC) - timedelta(hours=5, minutes=59)).isoformat()
    with pytest.raises(TaskDeferred) as caught:
        closing(late).resume_execution("execute", {"since": since, "event": "woken"}, CONTEXT)
    assert caught.value.kwargs == {"since": since}


def test_after_six_hours_it_fails_for_good_and_says_what_was_missing(late: Any) -> None:
    began = datetime.now(UTC) - timedelta(hours=6)
    with pytest.raises(SnapshotOverdue) as caught:
        closing(late).resume_execution("execute", {"since": began.isoformat(), "event": "woken"}, CONTEXT)
    # Final: Airflow's next attempt would wait six hours more.
    assert isinstance(caught.value, PermanentError)
    message = str(caught.value)
    assert f"the closing snapshot of {late.yesterday}, dated {late.now.date()}, is not there yet" in message
    assert f"since {began:%H:%M} UTC" in message


def test_once_it_is_there_the_wait_ends_well(late: Any) -> None:
    late.sandbox.exchange.options = ExchangeOptions()
    since = (datetime.now(UTC) - timedelta(hours=7)).isoformat()
    found = closing(late).resume_execution("execute", {"since": since, "event": "woken"}, CONTEXT)
    assert found["sn"] > 0
    assert found["at_ms"] == int(datetime.combine(late.now.date(), datetime.min.time(), UTC).timestamp()) * 1000


@pytest.mark.slow  # Airflow runs the day twice
def test_only_the_closing_snapshot_waits_and_nothing_is_delivered_before_it_is_there(late: Any) -> None:
    ended = late.run()
    assert set(ended.deferred) == {"closing_snapshot"}
    asked = ended.deferred["closing_snapshot"]
    assert asked.classpath == "airflow.providers.standard.triggers.temporal.DateTimeTrigger"
    assert asked.next_method == "execute"
    assert set(asked.next_kwargs) == {"since"}
    assert ended.tasks["opening_snapshot"] == "success"
    assert ended.tasks["history"] == "upstream_failed"
    assert late.delivered() == 0
    late.sandbox.exchange.options = ExchangeOptions()
    assert late.run().state == "success"
    assert late.differences() == []


def raising(monkeypatch: pytest.MonkeyPatch, stage: str, **options: Any) -> None:
    def stands_in(*_: Any) -> None:
        raise NotYetAvailable("not there yet", **options)

    monkeypatch.setattr(f"balance_bridge.daily.{stage}", stands_in)


@pytest.mark.parametrize("since", [None, "2026-11-20T23:00:00+00:00"])
def test_a_snapshot_that_must_not_be_fetched_yet_is_waited_for_to_the_second_and_not_counted_as_overdue(
    late: Any, monkeypatch: pytest.MonkeyPatch, since: str | None
) -> None:
    raising(monkeypatch, "fetch_snapshot", wait_s=123.0)
    before = datetime.now(UTC)
    with pytest.raises(TaskDeferred) as caught:
        closing(late).execute(CONTEXT, since=since)
    assert before + timedelta(seconds=123) <= caught.value.trigger.moment <= datetime.now(UTC) + timedelta(seconds=123)
    assert caught.value.kwargs == {"since": since}


def test_changes_that_are_not_there_yet_are_waited_for_as_a_snapshot_is(
    late: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    raising(monkeypatch, "fetch_history")
    task = FetchHistory(task_id="history", account="main_cash", day=str(late.yesterday))
    with pytest.raises(TaskDeferred) as caught:
        task.execute(CONTEXT)
    assert datetime.fromisoformat(caught.value.kwargs["since"]) <= datetime.now(UTC)
    with pytest.raises(SnapshotOverdue, match="not there yet"):
        task.execute(CONTEXT, since=(datetime.now(UTC) - timedelta(hours=7)).isoformat())
