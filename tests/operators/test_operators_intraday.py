"""The run that follows a day while it goes on, and what the day's own run makes of it."""

from __future__ import annotations

import time
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowSkipException


def follow(world: Any) -> Any:
    """Let the account be followed; Elven gets its changes and whole hours as well."""
    text = world.accounts_file.read_text()
    text = text.replace("    destinations:", "    intraday: 15min\n    destinations:", 1)
    world.accounts_file.write_text(text.replace("points: [close]", "points: [close, changes, {every: 1h}]", 1))
    return world


@pytest.fixture
def followed(world: Any) -> Any:
    if world.now.hour == 0:
        # Early in the day there may be nothing to tell yet.
        world.pass_time(3600)
    return follow(world)


def test_what_has_happened_so_far_is_delivered_and_later_runs_deliver_only_what_is_new(followed: Any) -> None:
    ended = followed.run("main_cash_intraday")
    assert ended.state == "success", ended.errors
    told = ended.handed_on["follow"]
    assert set(ended.tasks) == {"follow", "load_elven", "load_amlyze"}
    first = followed.delivered()
    assert told["counts"]["elven"] > 0
    # What the accounts file says to ignore is not sent.
    ignored = sum(ended.handed_on[f"load_{name}"]["ignored"] for name in told["counts"])
    assert first == sum(told["counts"].values()) - ignored
    # Nothing that is not over for a minute.
    assert told["until_ms"] <= (time.time() + sum(followed.naps) - 60) * 1000
    again = followed.run("main_cash_intraday")
    assert again.state == "success"
    assert again.handed_on["load_elven"]["accepted_now"] <= 5, "what a few seconds have brought"
    assert again.handed_on["load_elven"]["accepted_before"] >= ended.handed_on["load_elven"]["accepted_now"]


def test_the_day_s_own_run_uses_the_pages_and_delivers_only_what_is_new(followed: Any) -> None:
    ended = followed.run("main_cash_intraday")
    so_far, before = ended.handed_on["follow"], ended.handed_on["load_elven"]["accepted_now"]
    asked = followed.requests("exchange")
    followed.pass_time(86_400)
    day = followed.now.date() - timedelta(days=1)
    ended = followed.run("main_cash", date=str(day))
    assert ended.state == "success", ended.errors
    assert ended.handed_on["reconcile"]["status"] == "proven"
    # The closing snapshot, and what has happened since.
    assert followed.requests("exchange") - asked <= 3
    loaded = ended.handed_on["load_elven"]
    # But for what a record that was booked late has changed.
    assert loaded["accepted_before"] + loaded["superseded"] == before
    assert loaded["rows"] == sum(
        loaded[name]
        for name in ("accepted_now", "accepted_before", "seen", "rejected", "rejected_locally", "unknown", "ignored",
                     "pending")
    )  # fmt: skip
    # What Elven holds in the end is what the day's run worked out.
    from balance_bridge import settings
    from balance_bridge.load.fold import fold, outcomes
    from balance_bridge.load.log import DayLog

    log = DayLog(settings.open_store(), "main_cash", day, "elven")
    told = {each.outcome.status for each in outcomes(fold(log.read()))}
    assert told == {"accepted", "ignored"}
    # Whoever clears the old run now does not put what was known by then in the place of what is proven.
    from balance_bridge.operators.deliver import Deliver

    sent = followed.requests("elven")
    late = Deliver(task_id="load_elven", account="main_cash", destination="elven", reconciled=so_far)
    with pytest.raises(AirflowSkipException, match="the whole day is being delivered already"):
        late.execute({"run_id": "cleared", "params": {}, "dag_run": SimpleNamespace(clear_number=0)})
    assert followed.requests("elven") == sent


def test_before_the_day_s_snapshot_is_there_nothing_is_done(make_world: Any) -> None:
    from balance_bridge.sandbox.exchange import ExchangeOptions

    world = follow(make_world(ExchangeOptions(snapshot_delay_s=86_400)))
    ended = world.run("main_cash_intraday")
    assert ended.tasks["follow"] == "skipped"
    assert world.delivered() == 0
