"""``airflow dags test`` in an AIRFLOW_HOME of its own, configured by nothing but the environment."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

# One after another: each of them keeps both cores busy.
pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.xdist_group("airflow")]


# A quarter of a minute: Airflow is started twice, for its database and for the run.
def test_a_day_is_delivered_from_a_fresh_home(machine: Any) -> None:
    yesterday = machine.start + timedelta(days=2)
    assert machine.command("airflow", "db", "migrate").returncode == 0
    done = machine.command("airflow", "dags", "test", "balances_main_cash", yesterday.isoformat())
    assert done.returncode == 0, done.stdout
    assert machine.differences("main_cash", yesterday) == []
    assert (machine.home / "balances" / "receipts" / "main_cash" / yesterday.isoformat()).is_dir()


# A quarter of a minute, for the same reason.
def test_a_wrong_secret_ends_red_with_one_message_and_without_the_secret(machine: Any) -> None:
    yesterday = machine.start + timedelta(days=2)
    wrong = {"conn_type": "ascendex", "host": machine.sandbox.url, "login": "sandbox-cash-key", "password": "not-it-1"}
    machine.more["AIRFLOW_CONN_ASCENDEX_CASH"] = json.dumps(wrong)
    assert machine.command("airflow", "db", "migrate").returncode == 0
    done = machine.command("airflow", "dags", "test", "balances_main_cash", yesterday.isoformat())
    assert done.returncode != 0
    assert "CredentialsRefused" in done.stdout
    assert "check key, secret and permissions in the connection" in done.stdout
    assert "not-it-1" not in done.stdout
    assert machine.sandbox.elven.imports == []
    refused = [request for request in machine.sandbox.journal.refusals() if request.api == "exchange"]
    assert len(refused) == 2, "one for each snapshot: what cannot get better is not tried again"
