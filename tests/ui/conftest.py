"""The pages as Airflow mounts them, with a user and an accounts file, and days of the sandbox behind them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException
from fastapi.testclient import TestClient

from balance_bridge import decisions, index, settings
from balance_bridge.store import Store, to_json
from commands.conftest import Place, delivered, delivered_day, place

__all__ = ["delivered", "delivered_day", "place"]

BOTH = ("main_cash", "main_margin")


@dataclass
class Site:
    """The pages behind ``/airflow/balances``, and who looks at them.

    Attributes:
        client: A browser without a memory; it sends what a browser says about its own requests.
        place: The configuration behind.
        user: Airflow's name of the user; None for nobody.
        readable: Accounts whose DAG the user may read.
        triggerable: Accounts whose DAG the user may trigger.
        started: The runs that were started: DAG, parameters, run id.
    """

    client: TestClient
    place: Place
    user: str | None = "alice"
    readable: tuple[str, ...] = BOTH
    triggerable: tuple[str, ...] = BOTH
    started: list[dict[str, Any]] = field(default_factory=list)

    def get(self, path: str, *, status: int = 200) -> str:
        response = self.client.get(f"/airflow/balances{path}")
        assert response.status_code == status, response.text
        return response.text

    def post(self, path: str, *, status: int = 303, headers: dict[str, str] | None = None, **form: str) -> str:
        sent = {"Sec-Fetch-Site": "same-origin"} if headers is None else headers
        response = self.client.post(f"/airflow/balances{path}", data=form, headers=sent, follow_redirects=False)
        assert response.status_code == status, response.text
        return response.headers.get("location", response.text)

    @property
    def store(self) -> Store:
        return settings.open_store()

    def break_day(self, account: str, day: date, amount: str = "0.5", **more: Any) -> str:
        """Make a proven day one that does not add up, as its report has it; the proof's digest."""
        report = self.store.read_json(self.store.newest(f"reconciliation/{account}/{day}", ".json"))
        first = {"kind": "conservation", "asset": "BTC", "amount": amount, "last_good_sn": 1, "first_bad_sn": 2}
        changed = {"status": "broken", "breaks": [first], "break_count": 1, "drift": {"BTC": amount}, **more}
        proof = decisions.digest({"of": amount})
        document = to_json({**report, **changed, "proof": proof, "approval": None})
        self.store.append(f"reconciliation/{account}/{day}", ".json", document)
        index.record(self.store, account, day)
        return proof


@pytest.fixture
def site(place: Place, airflow_db: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    from airflow.api_fastapi.core_api.security import get_user

    from balance_bridge.ui import access, app, overview

    parent = FastAPI()
    parent.mount("/balances", app.app)
    made = Site(TestClient(parent, root_path="/airflow", base_url="https://airflow.test"), place)

    def user() -> Any:
        if made.user is None:
            raise HTTPException(401, "Not authenticated")
        return SimpleNamespace(get_name=lambda: made.user)

    manager = SimpleNamespace(
        get_authorized_dag_ids=lambda **_: {f"balances_{name}" for name in made.readable},
        is_authorized_dag=lambda **asked: asked["details"].id in {f"balances_{name}" for name in made.triggerable},
    )
    monkeypatch.setattr(access, "get_auth_manager", lambda: manager)
    start: Callable[..., Any] = lambda dag, **run: made.started.append({"dag": dag, **run})  # noqa: E731
    monkeypatch.setattr("airflow.api.common.trigger_dag.trigger_dag", start)
    monkeypatch.setattr(overview, "_KNOWN", {})
    app.app.dependency_overrides[get_user] = user
    yield made
    app.app.dependency_overrides.clear()


@pytest.fixture
def yesterday(place: Place) -> date:
    return place.today - timedelta(days=1)
