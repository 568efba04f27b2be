"""What a run is triggered with is heeded or refused, by whichever of its tasks starts first."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from balance_bridge.errors import AccountsFileError, ConfigurationError
from balance_bridge.operators.deliver import Deliver
from balance_bridge.operators.parameters import check_names

DAILY = {"date": None, "destinations": None, "dry_run": False, "refetch": False, "redeliver": False}


def context(params: dict[str, Any], conf: dict[str, Any] | None, **given: Any) -> dict[str, Any]:
    """Airflow's context of a task, as far as it is looked at."""
    return {
        "dag": SimpleNamespace(params=params),
        "dag_run": SimpleNamespace(conf=conf),
        "params": {**params, **(conf or {}), **given},
    }


def test_what_a_dag_has_is_allowed() -> None:
    check_names(context(DAILY, None))
    check_names(context(DAILY, {"date": "2026-11-20", "dry_run": True, "redeliver": True}))
    check_names(context({}, {}))


@pytest.mark.parametrize(
    ("params", "name", "hint"),
    [
        (DAILY, "dryrun", "did you mean dry_run?. allowed: date, destinations, dry_run, refetch, redeliver"),
        (DAILY, "DRY_RUN", "did you mean dry_run?"),
        (DAILY, "destination", "did you mean destinations?"),
        (DAILY, "x\n", r"'x\n', which is not a parameter of this DAG. allowed: date"),
        ({"dry_run": False}, "date", "'date', which is not a parameter of this DAG. allowed: dry_run"),
        ({}, "dry_run", "allowed: none"),
    ],
)
def test_an_unknown_parameter_is_refused_with_what_was_meant_and_what_is_allowed(
    params: dict[str, Any], name: str, hint: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_names(context(params, {name: True}))
    assert hint in str(caught.value)


def test_an_unknown_parameter_of_a_task_that_is_tested_alone_is_refused() -> None:
    # `airflow tasks test --task-params` puts them among the task's own, not into the run's.
    with pytest.raises(ConfigurationError, match=r"'dryrun'.*did you mean dry_run"):
        check_names(context(DAILY, None, dryrun=True))


def test_a_parameter_that_airflow_is_configured_to_ignore_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"'dry_run', which Airflow ignores.*dag_run_conf_overrides_params"):
        check_names(context(DAILY, {"dry_run": True}, dry_run=False))


@pytest.mark.slow  # Airflow runs the tasks
@pytest.mark.parametrize("dag", ["main_cash", "main_cash_intraday", "preflight"])
def test_no_dag_acts_on_a_misspelt_parameter(world: Any, dag: str) -> None:
    text = world.accounts_file.read_text()
    text = text.replace("    destinations:", "    intraday: 15min\n    destinations:", 1)
    world.accounts_file.write_text(text.replace("points: [close]", "points: [close, {every: 1h}]", 1))
    ended = world.run(dag, dryrun=True)
    assert ended.state == "failed"
    (error,) = ended.errors.values()
    assert isinstance(error, ConfigurationError)
    assert "'dryrun', which is not a parameter of this DAG" in str(error)
    assert not ended.retried
    assert not world.sandbox.journal.requests


@pytest.mark.slow  # Airflow runs the tasks
def test_the_dag_of_a_broken_account_refuses_a_misspelt_parameter_and_shows_its_message_otherwise(world: Any) -> None:
    world.accounts_file.write_text(world.accounts_file.read_text().replace("category: cash", "category: cahs", 1))
    for error in world.run(dryrun=True).errors.values():
        assert "did you mean dry_run?" in str(error)
    # A run that was triggered before the mistake was made.
    for error in world.run(date=str(world.yesterday), destinations=["elven"]).errors.values():
        assert isinstance(error, AccountsFileError)
        assert "'cahs'" in str(error)


@pytest.mark.slow  # Airflow runs the tasks
def test_a_delivery_that_runs_alone_does_not_act_on_a_misspelt_parameter(world: Any) -> None:
    # As if the tasks before it had been marked as done by hand.
    ended = world.run_dag(world.dag(), skipping="day|opening_snapshot|closing_snapshot|history|reconcile", dryrun=True)
    assert set(ended.errors) == {"load_elven", "load_amlyze"}
    for error in ended.errors.values():
        assert isinstance(error, ConfigurationError)
        assert "did you mean dry_run?" in str(error)
    assert not world.sandbox.journal.requests


def deliver(destination: str) -> Any:
    return Deliver(task_id="load", account="main_cash", destination=destination, reconciled=None)


@pytest.mark.parametrize(
    ("chosen", "told"),
    [
        ([], r"destinations = \[\] names no destination of main_cash. allowed: elven, amlyze. .*leave"),
        (
            ["elven", "eleven"],
            r"destinations = 'eleven': main_cash has no destination of that name, did you mean elven",
        ),
        (["x\n", "y"], r"destinations = 'x\\n', 'y': .*allowed: elven, amlyze"),
    ],
)
def test_a_delivery_that_runs_alone_refuses_a_choice_that_names_no_destination(
    world: Any, chosen: list[str], told: str
) -> None:
    with pytest.raises(ConfigurationError, match=told):
        deliver("elven").pre_execute(context(DAILY, {"destinations": chosen}))


def test_a_chosen_destination_that_has_left_the_accounts_file_is_refused_by_name(world: Any) -> None:
    given = context(DAILY, {"destinations": ["elven", "amlyze"]})
    deliver("elven").pre_execute(given)
    text = world.accounts_file.read_text()
    start, end = text.index("      amlyze:"), text.index("  main_margin:")
    world.accounts_file.write_text(text[:start] + text[end:])
    with pytest.raises(ConfigurationError, match=r"destinations = 'amlyze': .*allowed: elven\. "):
        deliver("elven").pre_execute(given)


def test_a_task_that_asks_the_exchange_refuses_a_misspelt_parameter(world: Any) -> None:
    from balance_bridge.operators.daily import FetchSnapshot

    task = FetchSnapshot(task_id="opening_snapshot", account="main_cash", which="opening", day=str(world.yesterday))
    with pytest.raises(ConfigurationError, match="did you mean refetch"):
        task.pre_execute(context(DAILY, {"re_fetch": True}))
