from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from balance_bridge.accounts import load_accounts
from balance_bridge.commands import verdict
from balance_bridge.commands.local_airflow import dags_folder
from balance_bridge.sandbox.server import CREDENTIALS, Sandbox, accounts_yaml, connections

BIN = Path(sys.executable).parent


@dataclass
class Machine:
    """An AIRFLOW_HOME of its own, the sandbox, and the commands of an installation, all configured by environment."""

    home: Path
    sandbox: Sandbox
    start: date
    more: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
        made = connections(self.sandbox.url).items()
        return {
            **inherited,
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags_folder()),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__BALANCE_BRIDGE__ACCOUNTS_FILE": str(self.accounts_file),
            "AIRFLOW__BALANCE_BRIDGE__RETRY_DELAY": "1",
            "PYTHONWARNINGS": "ignore",
            **{f"AIRFLOW_CONN_{name.upper()}": json.dumps(fields) for name, fields in made},
            **self.more,
        }

    @property
    def accounts_file(self) -> Path:
        return self.home / "accounts.yaml"

    def command(self, name: str, *arguments: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a command of the installation to its end; standard error is part of the output."""
        return subprocess.run(
            [str(BIN / name), *arguments],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def differences(self, account: str, *days: date) -> list[str]:
        """Where what was delivered differs from the sandbox's own books."""
        file = load_accounts(self.accounts_file)
        keys = {f"main_{key.split('-')[1]}": key for key in CREDENTIALS.exchange}
        verdicts = verdict.compare(self.sandbox.url, {account: file.accounts[account]}, keys, list(days))
        assert all(one.due for one in verdicts)
        return list(verdict.differences(verdicts))


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    start = datetime.now(UTC).date() - timedelta(days=3)
    home = tmp_path / "airflow"
    home.mkdir()
    with Sandbox() as sandbox:
        made = Machine(home, sandbox, start)
        made.accounts_file.write_text(accounts_yaml(start))
        yield made
