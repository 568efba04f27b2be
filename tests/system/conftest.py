from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from balance_bridge.accounts import load_accounts
from balance_bridge.commands import demo, verdict
from balance_bridge.commands.local_airflow import LocalAirflow, dags_folder
from balance_bridge.sandbox.fixtures import API_KEYS
from balance_bridge.sandbox.server import Sandbox, accounts_yaml, connections
from system.processes import Address, left_behind, watched_sockets

BIN = Path(sys.executable).parent


def run_command(
    environment: dict[str, str], name: str, *arguments: str, timeout_s: float = 180
) -> subprocess.CompletedProcess[str]:
    """Run a command of the installation to its end; standard error is part of the output."""
    return subprocess.run(
        [str(BIN / name), *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def find_differences(sandbox: Sandbox, accounts_file: Path, keys: dict[str, str], days: list[date]) -> list[str]:
    """Where what was delivered differs from the sandbox's own books, of the accounts with these API keys."""
    accounts = {name: each for name, each in load_accounts(accounts_file).accounts.items() if name in keys}
    verdicts = verdict.compare(sandbox.url, accounts, keys, days)
    assert all(one.due for one in verdicts)
    return list(verdict.differences(verdicts))


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

    def command(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run_command(self.environment, name, *arguments)

    def differences(self, account: str, *days: date) -> list[str]:
        return find_differences(self.sandbox, self.accounts_file, {account: API_KEYS[account]}, list(days))


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    start = datetime.now(UTC).date() - timedelta(days=3)
    home = tmp_path / "airflow"
    home.mkdir()
    with Sandbox() as sandbox:
        made = Machine(home, sandbox, start)
        made.accounts_file.write_text(accounts_yaml(start))
        yield made


@dataclass
class Running:
    """The demo's Airflow and sandbox, after the demo, with the triggerer that ``up`` starts.

    Attributes:
        world: What the demo has made.
        right: What the demo found: whether all was right.
        shown: What it printed.
        listened: Where anything has listened while it ran, by socket.
        keys: API key by account name.
    """

    world: demo.World
    right: bool
    shown: str
    listened: dict[str, Address]
    keys: dict[str, str] = field(default_factory=lambda: dict(API_KEYS))

    @property
    def airflow(self) -> LocalAirflow:
        return self.world.airflow

    @property
    def sandbox(self) -> Sandbox:
        return self.world.sandbox

    @property
    def days(self) -> list[date]:
        return self.world.days

    def command(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run_command(self.airflow.environment, name, *arguments)

    def runs(self, dag: str) -> list[dict[str, Any]]:
        """A DAG's runs, by their start; none while Airflow does not know it."""
        found = self.airflow.get("dags/~/dagRuns", limit=200, order_by="start_date")["dag_runs"]
        return [run for run in found if run["dag_id"] == dag]

    def tasks(self, dag: str, run: str) -> dict[str, str]:
        found = self.airflow.get(f"dags/{dag}/dagRuns/{run}/taskInstances")["task_instances"]
        return {task["task_id"]: task["state"] for task in found}

    def until(self, what: str, met: Callable[[], bool], limit_s: float = 240) -> None:
        end = time.monotonic() + limit_s
        while not met():
            self.airflow.check_alive()
            assert time.monotonic() < end, f"{what}: not within {limit_s:g} s"
            time.sleep(0.3)

    def differences(self, account: str, *days: date) -> list[str]:
        keys = {account: self.keys[account]}
        return find_differences(self.sandbox, self.world.accounts_file, keys, list(days) or self.days)

    def open_account(
        self,
        name: str,
        category: str,
        days: list[date],
        *,
        points: str = "[close]",
        more: str = "",
        on_break: str = "hold",
        **extra: Any,
    ) -> None:
        """Add an account with an API key of its own, whose balances go to Amlyze.

        Args:
            name: The account's; key and connection are named after it.
            category: ``cash`` or ``margin``.
            days: The first is its start.
            points: As the accounts file has them.
            more: Further lines of the destination.
            on_break: As the accounts file has it.
            extra: What the connection has in its extra field.
        """
        key, secret = f"{name}-key", f"{name}-secret-not-real"
        self.keys[name] = key
        self.sandbox.exchange.users = {**self.sandbox.exchange.users, key: secret}
        made = {**connections(self.sandbox.url)["ascendex_cash"], "login": key, "password": secret, "extra": extra}
        self.airflow.command("connections", "add", name, "--conn-json", json.dumps(made))
        self.rewrite_accounts(
            lambda text: (
                f"""{text}
  {name}:
    source: {{type: ascendex, conn_id: {name}, category: {category}}}
    start_date: {days[0]}
    on_break: {on_break}
    deferrable: true
    destinations:
      amlyze: {{conn_id: amlyze_default, account_ext_id: "{name}-{{asset}}", points: {points}, {more}}}
"""
            )
        )
        assert self.command("balance-bridge", "pools").returncode == 0

    def rewrite_accounts(self, change: Callable[[str], str]) -> None:
        """Change the text of the accounts file; readers see the old one or the new one."""
        file = self.world.accounts_file
        draft = file.with_suffix(".draft")
        draft.write_text(change(file.read_text()))
        draft.replace(file)


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The demo, played once for all tests that need a whole Airflow; it goes on running for them."""
    home = tmp_path_factory.mktemp("system") / "demo"
    shown = io.StringIO()
    console = Console(file=shown, soft_wrap=True, width=200)
    # What it makes must be its user's alone whatever the umask.
    umask = os.umask(0)
    try:
        with demo.world(home, console, ui=True) as world:
            with watched_sockets() as listened:
                right = demo.play(world, console)
            os.umask(umask)
            yield Running(world, right, shown.getvalue(), listened)
    finally:
        os.umask(umask)
    assert left_behind(home) == []
