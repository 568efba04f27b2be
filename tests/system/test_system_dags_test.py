"""``airflow dags test`` in an AIRFLOW_HOME of its own, configured by nothing but the environment."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

# One after another: each of them keeps both cores busy.
pytestmark = [pytest.mark.system, pytest.mark.slow]


# Half a minute: Airflow is started three times, for its database and for the two runs.
def test_a_wrong_secret_ends_red_with_one_message_and_with_the_right_one_the_day_is_delivered(machine: Any) -> None:
    yesterday = machine.start + timedelta(days=2)
    assert machine.command("airflow", "db", "migrate").returncode == 0
    wrong = {"conn_type": "ascendex", "host": machine.sandbox.url, "login": "sandbox-cash-key", "password": "not-it-1"}
    machine.more["AIRFLOW_CONN_ASCENDEX_CASH"] = json.dumps(wrong)
    done = machine.command("airflow", "dags", "test", "balances_main_cash", yesterday.isoformat())
    assert done.returncode != 0
    assert "CredentialsRefused" in done.stdout
    assert "check key, secret and permissions in the connection" in done.stdout
    assert "not-it-1" not in done.stdout
    assert machine.sandbox.elven.delivered == []
    refused = [request for request in machine.sandbox.journal.refusals() if request.api == "exchange"]
    assert len(refused) == 2, "one for each snapshot: what cannot get better is not tried again"

    machine.more.clear()
    done = machine.command("airflow", "dags", "test", "balances_main_cash", yesterday.isoformat())
    assert done.returncode == 0, done.stdout
    assert machine.differences("main_cash", yesterday) == []
    assert (machine.home / "balances" / "receipts" / "main_cash" / yesterday.isoformat()).is_dir()
