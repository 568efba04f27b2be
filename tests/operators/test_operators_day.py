"""A day through Airflow, in this process, from the exchange to both destinations."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime, time, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from balance_bridge.errors import AccountsFileError, ConfigurationError, InvalidDay
from balance_bridge.operators.daily import ResolveDay
from balance_bridge.operators.deliver import Deliver

# Each test lets Airflow run a whole day: seven tasks, a second.
pytestmark = pytest.mark.slow

LOADS = {"load_elven", "load_amlyze"}


def the_error(ended: Any, task: str = "day") -> BaseException:
    assert ended.state == "failed"
    assert set(ended.errors) == {task}
    error: BaseException = ended.errors[task]
    return error


def midnight(day: Any) -> datetime:
    return datetime.combine(day, time(), UTC)


def test_a_day_is_delivered_exactly_as_the_books_have_it(world: Any) -> None:
    ended = world.run()
    assert ended.state == "success"
    assert set(ended.tasks) == {"day", "opening_snapshot", "closing_snapshot", "history", "reconcile", *LOADS}
    assert set(ended.tasks.values()) == {"success"}
    assert ended.handed_on["day"] == str(world.yesterday)
    assert ended.handed_on["reconcile"]["status"] == "proven"
    assert world.differences() == []
    assert world.naps == []


def test_the_same_day_again_succeeds_asks_nothing_and_sends_nothing(world: Any) -> None:
    world.run()
    before = {api: world.requests(api) for api in ("exchange", "elven", "amlyze")}
    again = world.run(date=str(world.yesterday))
    assert again.state == "success"
    assert {api: world.requests(api) for api in before} == before
    assert [again.handed_on[load]["accepted_now"] for load in sorted(LOADS)] == [0, 0]
    assert all(again.handed_on[load]["accepted_before"] > 0 for load in LOADS)
    assert again.asset_events == {}
    assert world.differences() == []


def test_an_asset_event_tells_what_was_accepted(world: Any) -> None:
    ended = world.run()
    assert set(ended.asset_events) == {"balance-bridge://main_cash/elven", "balance-bridge://main_cash/amlyze"}
    for uri, extra in ended.asset_events.items():
        counts = ended.handed_on[f"load_{uri.rsplit('/', 1)[1]}"]
        assert extra == counts
        assert extra["accepted_now"] > 0
        assert extra["day"] == str(world.yesterday)
        assert extra["reconciliation"] == "proven"


def test_both_accounts_share_the_destinations_and_nothing_else(world: Any) -> None:
    assert world.run("main_cash").state == "success"
    assert world.run("main_margin").state == "success"
    assert world.differences("main_cash") == []
    assert world.differences("main_margin") == []


@pytest.mark.parametrize("back", [1, 2, 3])
def test_a_logical_date_names_its_day(world: Any, back: int) -> None:
    # As `airflow dags test DAG DAY` and the scheduler give it.
    day = world.now.date() - timedelta(days=back)
    ended = world.run(logical_date=midnight(day))
    assert ended.state == "success"
    assert ended.handed_on["day"] == str(day)
    assert world.differences("main_cash", day) == []


def test_a_logical_date_of_a_day_that_is_not_over_gives_the_last_whole_day(world: Any) -> None:
    assert world.run(logical_date=world.now).handed_on["day"] == str(world.yesterday)


def test_without_a_logical_date_it_is_the_last_whole_day(world: Any) -> None:
    assert world.run(logical_date=None).handed_on["day"] == str(world.yesterday)


def test_the_parameter_wins_over_the_logical_date(world: Any) -> None:
    day = world.now.date() - timedelta(days=3)
    ended = world.run(logical_date=midnight(world.yesterday), date=str(day))
    assert ended.handed_on["day"] == str(day)
    assert world.differences("main_cash", day) == []


def test_an_explicit_date_may_lie_before_the_start(world: Any) -> None:
    day = world.now.date() - timedelta(days=5)
    assert world.run(date=str(day)).state == "success"
    assert world.differences("main_cash", day) == []


@pytest.mark.parametrize(
    ("ahead", "text"),
    [(None, "is not of the form YYYY-MM-DD"), (1, "lies in the future"), (0, "is not over yet")],
)
def test_a_day_that_cannot_be_run_is_refused_at_once_and_nothing_is_asked(
    world: Any, ahead: int | None, text: str
) -> None:
    asked_for = "yesterday" if ahead is None else str(world.now.date() + timedelta(days=ahead))
    ended = world.run(date=asked_for)
    error = the_error(ended)
    assert isinstance(error, InvalidDay)
    assert asked_for in str(error)
    assert text in str(error)
    assert not ended.retried
    assert {state for name, state in ended.tasks.items() if name != "day"} == {"upstream_failed"}
    assert not world.sandbox.journal.requests


def test_only_the_destinations_asked_for_are_served(world: Any) -> None:
    ended = world.run(destinations=["elven"])
    assert ended.state == "success"
    assert ended.tasks["load_elven"] == "success"
    assert ended.tasks["load_amlyze"] == "skipped"
    assert world.requests("amlyze") == 0
    assert world.requests("elven") > 0
    # The other one can follow, and is not hindered by what was done.
    assert world.run(destinations=["amlyze"]).state == "success"
    assert world.differences() == []


def test_an_unknown_destination_is_refused_with_those_that_there_are(world: Any) -> None:
    error = the_error(world.run(destinations=["elven", "eleven"]))
    assert isinstance(error, ConfigurationError)
    assert "destinations = 'eleven'" in str(error)
    assert "allowed: elven, amlyze" in str(error)
    assert not world.sandbox.journal.requests


def test_an_empty_choice_of_destinations_does_not_mean_all(world: Any) -> None:
    error = the_error(world.run(destinations=[]))
    assert isinstance(error, ConfigurationError)
    assert "leave the parameter out to deliver to all" in str(error)
    assert not world.sandbox.journal.requests


@pytest.mark.parametrize("run_type", ["backfill", "scheduled"])
def test_a_date_in_a_backfill_is_refused_before_anything_is_asked(world: Any, run_type: str) -> None:
    run = SimpleNamespace(run_type=run_type, conf={}, logical_date=midnight(world.yesterday), run_after=world.now)
    with pytest.raises(InvalidDay, match="cannot be given to a run of a backfill"):
        ResolveDay(task_id="day", account="main_cash").execute(
            {"dag_run": run, "params": {"date": str(world.yesterday)}}
        )
    assert ResolveDay(task_id="day", account="main_cash").execute({"dag_run": run, "params": {"date": None}})


@pytest.mark.parametrize("name", ["dryrun", "dry-run", "dry_runs"])
def test_a_misspelt_parameter_is_refused_before_anything_is_asked(world: Any, name: str) -> None:
    error = the_error(world.run(**{name: True}))
    assert isinstance(error, ConfigurationError)
    assert f"{name!r}" in str(error)
    assert "did you mean dry_run?" in str(error)
    assert not world.sandbox.journal.requests


def test_a_dry_run_checks_everything_and_sends_nothing(world: Any) -> None:
    ended = world.run(dry_run=True)
    assert ended.state == "success"
    assert ended.handed_on["reconcile"]["status"] == "proven"
    assert world.requests("exchange") > 0
    assert world.requests("elven") == world.requests("amlyze") == 0
    assert ended.asset_events == {}
    for load in LOADS:
        assert ended.handed_on[load]["dry_run"] is True
        assert ended.handed_on[load]["accepted_now"] == 0
    # It stands in no real run's way.
    assert world.run().state == "success"
    assert world.differences() == []


def test_a_refetch_asks_the_exchange_anew_and_sends_nothing_that_is_the_same(world: Any) -> None:
    world.run()
    before = {api: world.requests(api) for api in ("exchange", "elven", "amlyze")}
    again = world.run(date=str(world.yesterday), refetch=True)
    assert again.state == "success"
    after = {api: world.requests(api) for api in before}
    # All of the day: two snapshots and every page.
    assert after.pop("exchange") == 2 * before.pop("exchange")
    assert after == before
    assert again.asset_events == {}
    assert world.differences() == []


def test_an_account_that_left_the_file_is_refused_by_name(world: Any) -> None:
    dag = world.dag()
    text = world.accounts_file.read_text()
    world.accounts_file.write_text(text.replace("main_cash:", "other_cash:"))
    error = the_error(world.run_dag(dag))
    assert isinstance(error, AccountsFileError)
    assert "there is no account 'main_cash' any more" in str(error)
    assert str(world.accounts_file) in str(error)


def test_an_account_that_became_wrong_is_refused_with_line_and_key(world: Any) -> None:
    dag = world.dag()
    world.accounts_file.write_text(world.accounts_file.read_text().replace("points: [close]", "points: [clsoe]", 1))
    error = the_error(world.run_dag(dag))
    assert isinstance(error, AccountsFileError)
    assert "accounts.main_cash.destinations.elven.points[0]: 'clsoe'" in str(error)
    line = world.accounts_file.read_text()[: world.accounts_file.read_text().index("clsoe")].count("\n") + 1
    assert f"accounts.yaml:{line}:" in str(error)


def test_a_broken_account_is_red_with_its_whole_message_and_the_other_is_delivered(world: Any) -> None:
    text = world.accounts_file.read_text()
    wrong = text.replace("category: cash", "category: cahs").replace("points: [close]", "points: [clsoe]", 1)
    world.accounts_file.write_text(wrong)
    ended = world.run("main_cash")
    assert ended.state == "failed"
    # The second one is for runs that had their first task behind them when the mistake was made.
    assert ended.tasks == {"day": "failed", "accounts_file": "failed"}
    (message,) = {str(error) for error in ended.errors.values()}
    assert "accounts.main_cash.source.category: 'cahs'" in message
    assert "accounts.main_cash.destinations.elven.points[0]: 'clsoe'" in message
    assert not ended.retried
    assert world.run("main_margin").state == "success"
    assert world.differences("main_margin") == []


def test_a_namespace_that_no_number_could_hold_is_refused_before_anything_is_asked(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__BALANCE_BRIDGE__NAMESPACE", "a:b")
    error = the_error(world.run())
    assert "[balance_bridge] namespace = a:b" in str(error)
    assert not world.sandbox.journal.requests


def test_a_task_that_fails_tells_its_message_and_not_the_way_there(world: Any) -> None:
    error = the_error(world.run(date="yesterday"))
    assert error.__cause__ is None
    assert error.__suppress_context__


def test_tasks_hand_on_keys_and_counts_and_never_rows(world: Any) -> None:
    ended = world.run()
    for task, value in ended.handed_on.items():
        text = json.dumps(value)
        assert len(text) < 1500, task
        assert "1INCH" not in text


def test_nothing_secret_is_handed_on_or_stored(world: Any) -> None:
    ended = world.run()
    secrets = ["sandbox-cash-key", "sandbox-cash-secret", "sandbox-elven-key", "sandbox-elven-secret", "amlyze-token"]
    kept = [str(ended.handed_on), *(str(path) for path in world.store.rglob("*"))]
    kept += [path.read_bytes().decode("latin-1") for path in world.store.rglob("*") if path.is_file()]
    kept += [gzip.decompress(path.read_bytes()).decode() for path in world.store.rglob("*.gz")]
    assert len(kept) > 10
    assert not [secret for secret in secrets for text in kept if secret in text]


@pytest.mark.parametrize(
    ("destination", "told"),
    [
        ("gone", "main_cash has no destination 'gone' any more"),
        (
            "elven",
            "elven was not in the accounts file when these balances were computed. Clear the task before this one as",
        ),
    ],
)
def test_a_destination_that_came_or_went_meanwhile_is_named_with_what_to_do(
    world: Any, destination: str, told: str
) -> None:
    task = Deliver(
        task_id="load",
        account="main_cash",
        destination=destination,
        reconciled={"day": str(world.yesterday), "status": "proven", "balances": {"amlyze": "balances/x"}},
    )
    with pytest.raises(ConfigurationError) as caught:
        task.execute({"run_id": "manual__1", "params": {}})
    assert told in str(caught.value)
    assert not world.sandbox.journal.requests
