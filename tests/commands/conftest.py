from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from balance_bridge import settings
from balance_bridge.errors import OutcomeUnknown, ResponseLost
from balance_bridge.sandbox.server import Sandbox, accounts_yaml, connections
from balance_bridge.store import Store
from balance_bridge.transport import Transport


class _NoEvents(dict[Any, Any]):
    def __missing__(self, _: Any) -> Any:
        return SimpleNamespace(add=lambda *args, **kwargs: None)


@dataclass
class Place:
    """A configuration that is right in every respect, with the sandbox behind it."""

    sandbox: Sandbox
    folder: Path
    monkeypatch: pytest.MonkeyPatch
    today: date = field(default_factory=lambda: datetime.now(UTC).date())
    runs: int = 0

    @property
    def accounts_file(self) -> Path:
        return self.folder / "accounts.yaml"

    @property
    def yesterday(self) -> date:
        return self.today - timedelta(days=1)

    def option(self, name: str, value: str) -> None:
        self.monkeypatch.setenv(f"AIRFLOW__BALANCE_BRIDGE__{name.upper()}", value)

    def connect(self, conn_id: str, **fields: Any) -> None:
        made = {**connections(self.sandbox.url)[conn_id], **fields}
        self.monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(made))

    def replace(self, old: str, new: str) -> None:
        """Change the first occurrence in the accounts file."""
        text = self.accounts_file.read_text()
        assert old in text
        self.accounts_file.write_text(text.replace(old, new, 1))

    def deliver(self, account: str, day: date, **params: Any) -> None:
        """The tasks of a day one after another, without Airflow's database."""
        proof = self.reconcile(account, day)
        for name in ("elven", "amlyze"):
            self.load(account, name, proof, **params)

    def reconcile(self, account: str, day: date) -> dict[str, Any]:
        """The tasks of another run, up to the one that works out the balances; what it hands on."""
        from balance_bridge.operators import daily

        self.runs += 1
        context = _context()
        common: dict[str, Any] = {"account": account, "day": str(day)}
        daily.FetchSnapshot(task_id="o", which="opening", **common).execute(context)
        daily.FetchSnapshot(task_id="c", which="closing", **common).execute(context)
        history = daily.FetchHistory(task_id="h", **common).execute(context)
        proof: dict[str, Any] = daily.Reconcile(task_id="r", extracted=history, **common).execute(context)
        return proof

    def load(self, account: str, name: str, proof: dict[str, Any], **params: Any) -> None:
        """The task that delivers to one destination."""
        from balance_bridge.operators.deliver import Deliver

        context = {**_context(**params), "run_id": f"manual__{self.runs}"}
        Deliver(task_id=name, destination=name, reconciled=proof, account=account).execute(context)

    def deliver_and_lose_responses(self, account: str, day: date, url: str) -> None:
        """Deliver a day, and let no response of the URLs that hold this text come back."""
        send = Transport.send

        def lose(transport: Any, method: str, to: str, **given: Any) -> Any:
            response = send(transport, method, to, **given)
            if url in to:
                raise ResponseLost("cut")
            return response

        with self.monkeypatch.context() as patch:
            patch.setattr(Transport, "send", lose)
            with pytest.raises(OutcomeUnknown):
                self.deliver(account, day)

    def arrived(self) -> dict[str, int]:
        """How many records each destination has taken."""
        return {name: len(rows) for name, rows in self.sandbox.delivered().items()}


def _context(**params: Any) -> dict[str, Any]:
    return {
        "run_id": "manual__1",
        "params": params,
        "outlet_events": _NoEvents(),
        "dag_run": SimpleNamespace(clear_number=0, conf=params),
    }


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    # Wide enough that no message is folded.
    monkeypatch.setenv("COLUMNS", "400")
    # The command line sets this for its process; here it ends with the test.
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
    with Sandbox() as sandbox:
        made = Place(sandbox, tmp_path, monkeypatch)
        made.accounts_file.write_text(accounts_yaml(made.today - timedelta(days=3)))
        made.option("accounts_file", str(made.accounts_file))
        made.option("store", str(tmp_path / "balances"))
        made.option("budget", f"sqlite:///{tmp_path}/budget.db")
        made.option("namespace", "test")
        for conn_id in connections(sandbox.url):
            made.connect(conn_id)
        yield made


@pytest.fixture(scope="session")
def delivered_day(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a delivered day, once there is one: a delivery takes a second, a copy of what it leaves does not."""
    return tmp_path_factory.mktemp("delivered") / "balances"


@pytest.fixture
def delivered(place: Place, delivered_day: Path) -> Store:
    """The store after main_cash's yesterday. A test that delivers again delivers itself: addresses differ."""
    if delivered_day.exists():
        shutil.copytree(delivered_day, place.folder / "balances")
    else:
        place.deliver("main_cash", place.yesterday)
        shutil.copytree(place.folder / "balances", delivered_day)
    return settings.open_store()


@pytest.fixture
def no_pools(airflow_db: Path) -> Iterator[None]:
    """Airflow's database without any pool but its own, before and after."""
    _remove_pools()
    yield
    _remove_pools()


def _remove_pools() -> None:
    from airflow.models.pool import Pool

    for pool in Pool.get_pools():
        if pool.pool != Pool.DEFAULT_POOL_NAME:
            Pool.delete_pool(str(pool.pool))
