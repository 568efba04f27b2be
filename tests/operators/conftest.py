from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from balance_bridge.clock import Clock
from balance_bridge.sandbox.exchange import ExchangeOptions
from balance_bridge.sandbox.server import CREDENTIALS, Sandbox, accounts_yaml, connections


@dataclass
class Ended:
    """How a run ended.

    Attributes:
        state: The run's.
        tasks: State by task id.
        errors: What a task raised, by task id.
        retried: Tasks that Airflow would have tried again.
        deferred: What a task that waits asked for, by task id.
        handed_on: What a task returned, by task id.
        asset_events: What an asset's event tells, by the asset's URI.
    """

    state: str
    tasks: dict[str, str]
    errors: dict[str, BaseException]
    retried: set[str]
    deferred: dict[str, Any]
    handed_on: dict[str, Any]
    asset_events: dict[str, Any]


@dataclass
class World:
    """An account, its exchange and its destinations, with Airflow in this process.

    Nothing sleeps: a pause is written down in ``naps``, and exchange and client find that it has passed. A task that
    Airflow would try again or wake later ends there, as failed.
    """

    sandbox: Sandbox
    folder: Path
    monkeypatch: pytest.MonkeyPatch
    request: pytest.FixtureRequest
    # Taken once, so that a midnight in the middle of a test changes nothing.
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    naps: list[float] = field(default_factory=list)

    @property
    def yesterday(self) -> date:
        return self.now.date() - timedelta(days=1)

    @property
    def accounts_file(self) -> Path:
        return self.folder / "accounts.yaml"

    @property
    def store(self) -> Path:
        return self.folder / "balances"

    def connect(self, conn_id: str, **fields: Any) -> None:
        """Set a connection of the environment, the sandbox's but for some fields."""
        made = {**connections(self.sandbox.url)[conn_id], **fields}
        self.monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(made))

    def pass_time(self, seconds: float) -> None:
        """Let so much time pass for all."""
        self.naps.append(seconds)
        self.now += timedelta(seconds=seconds)

    def dag(self, account: str = "main_cash") -> Any:
        self.request.getfixturevalue("airflow_db")
        from airflow.dag_processing.dagbag import DagBag

        bag = DagBag(collect_dags=True)
        assert not bag.import_errors
        return bag.dags[f"balances_{account}"]

    def run(self, account: str = "main_cash", *, logical_date: datetime | None = None, **conf: Any) -> Ended:
        """Run a day in this process, as ``dag.test()`` does it."""
        return self.run_dag(self.dag(account), logical_date=logical_date, **conf)

    def run_dag(
        self, dag: Any, *, logical_date: datetime | None = None, skipping: str | None = None, **conf: Any
    ) -> Ended:
        """The same with a DAG that was parsed before; tasks whose id matches ``skipping`` are marked as done."""
        self.request.getfixturevalue("airflow_db")
        results: dict[str, Any] = {}
        with self.monkeypatch.context() as patch:
            patch.setattr("airflow.sdk.execution_time.supervisor.run_task_in_process", _spied(results))
            # dag.test() sleeps a second each time that it finds a task which has to wait for another one.
            patch.setattr(time, "sleep", lambda _: None)
            _only(dag, patch)
            run = dag.test(run_after=self.now, logical_date=logical_date, run_conf=conf, mark_success_pattern=skipping)
        return Ended(
            str(run.state),
            {task.task_id: str(task.state) for task in run.get_task_instances()},
            {name: result.error for name, result in results.items() if result.error is not None},
            {name for name, result in results.items() if type(result.msg).__name__ == "RetryTask"},
            {name: result.msg for name, result in results.items() if type(result.msg).__name__ == "DeferTask"},
            {name: run.get_task_instance(name).xcom_pull(task_ids=name) for name in results},
            _asset_events(run.dag_id, run.run_id),
        )

    def task(self, task_id: str, account: str = "main_cash", *, day: date | None = None, **params: Any) -> Any:
        """Run one task by itself, without Airflow's database; its error is raised.

        What the tasks before it hand on is asked of them first.
        """
        from balance_bridge.operators import daily

        common: dict[str, Any] = {"task_id": task_id, "account": account, "day": str(day or self.yesterday)}
        context = {"run_id": "manual__1", "params": params, "dag_run": SimpleNamespace(clear_number=0)}
        if task_id in ("opening_snapshot", "closing_snapshot"):
            which: Any = task_id.removesuffix("_snapshot")
            return daily.FetchSnapshot(which=which, **common).execute(context)
        if task_id == "reconcile":
            extracted = self.task("history", account, day=day, **params)
            return daily.Reconcile(extracted=extracted, **common).execute(context)
        for name in ("opening", "closing"):
            self.task(f"{name}_snapshot", account, day=day, **params)
        return daily.FetchHistory(**common).execute(context)

    def differences(self, account: str = "main_cash", *days: date) -> list[str]:
        """Where what was delivered differs from the sandbox's own books."""
        from balance_bridge.accounts import load_accounts
        from balance_bridge.commands import verdict

        accounts = {account: load_accounts(self.accounts_file).accounts[account]}
        keys = {f"main_{key.split('-')[1]}": key for key in CREDENTIALS.exchange}
        verdicts = verdict.compare(self.sandbox.url, accounts, keys, list(days) or [self.yesterday])
        assert all(one.due for one in verdicts)
        return list(verdict.differences(verdicts))

    def delivered(self) -> int:
        """How many balances have arrived anywhere, accepted or not."""
        arrived = self.sandbox.delivered()
        return sum(len(rows) for rows in arrived.values())

    def requests(self, api: str) -> int:
        """How many requests have reached one of the three APIs."""
        return sum(request.api == api for request in self.sandbox.journal.requests)


def _asset_events(dag_id: str, run_id: str) -> dict[str, Any]:
    from airflow.models.asset import AssetEvent
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        events = session.scalars(
            select(AssetEvent).where(AssetEvent.source_dag_id == dag_id, AssetEvent.source_run_id == run_id)
        )
        return {str(event.asset.uri): event.extra for event in events}


def _only(dag: Any, patch: pytest.MonkeyPatch) -> None:
    """Spare dag.test() a third of its time: what it does for the folder's other DAGs, and looking through schemas."""
    from airflow.dag_processing.dagbag import DagBag

    def bag(*_: Any, **__: Any) -> DagBag:
        made = DagBag(collect_dags=False)
        made.dags = {dag.dag_id: dag}
        return made

    patch.setattr("airflow.dag_processing.dagbag.BundleDagBag", bag)
    patch.setattr("jsonschema.Draft202012Validator.check_schema", lambda *_, **__: None)


class _WouldGoOn(Exception):
    """Airflow would try the task again later, or wake it; a test does not wait for that."""


def _spied(results: dict[str, Any]) -> Callable[..., Any]:
    from airflow.sdk.execution_time import supervisor

    run = supervisor.run_task_in_process

    def spy(*, ti: Any, task: Any) -> Any:
        result = results[ti.task_id] = run(ti=ti, task=task)
        if type(result.msg).__name__ in ("RetryTask", "DeferTask"):
            raise _WouldGoOn(ti.task_id)
        return result

    return spy


@pytest.fixture
def make_world(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Callable[..., World]]:
    made: list[Sandbox] = []

    def make(options: ExchangeOptions | None = None) -> World:
        naps: list[float] = []
        # In a day's first minutes its closing snapshot is not fetched yet: let them have passed.
        shift_s = 900.0 if datetime.now(UTC).strftime("%H:%M") < "00:15" else 0.0
        clock = Clock(
            wall=lambda: time.time() + shift_s + sum(naps),
            monotonic=lambda: time.monotonic() + sum(naps),
            sleep=naps.append,
        )
        sandbox = Sandbox(options=options, clock=clock).start()
        made.append(sandbox)
        world = World(sandbox, tmp_path, monkeypatch, request, naps=naps)
        world.accounts_file.write_text(accounts_yaml(world.now.date() - timedelta(days=3)))
        for option, value in {
            "ACCOUNTS_FILE": str(world.accounts_file),
            "STORE": str(world.store),
            "BUDGET": f"sqlite:///{tmp_path}/budget.db",
            "NAMESPACE": "test",
        }.items():
            monkeypatch.setenv(f"AIRFLOW__BALANCE_BRIDGE__{option}", value)
        for conn_id in connections(sandbox.url):
            world.connect(conn_id)
        _without_sleep(monkeypatch, clock)
        return world

    yield make
    for sandbox in made:
        sandbox.stop()


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    return make_world()


def _without_sleep(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    from balance_bridge.extract.ascendex import AscendexAccount, AscendexClient
    from balance_bridge.extract.budget import Budget
    from balance_bridge.load.elven import Elven
    from balance_bridge.load.webhook import Webhook

    monkeypatch.setattr("balance_bridge.hooks.ascendex.AscendexClient", functools.partial(AscendexClient, clock=clock))
    monkeypatch.setattr(
        "balance_bridge.extract.ascendex.AscendexAccount", functools.partial(AscendexAccount, clock=clock)
    )
    monkeypatch.setattr("balance_bridge.hooks.ascendex.Budget", functools.partial(Budget, clock=clock))

    class TimedElven(Elven):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options, clock=clock)

    class TimedWebhook(Webhook):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options, clock=clock)

    monkeypatch.setattr("balance_bridge.hooks.elven.Elven", TimedElven)
    monkeypatch.setattr("balance_bridge.hooks.webhook.Webhook", TimedWebhook)
