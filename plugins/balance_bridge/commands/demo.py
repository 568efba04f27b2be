"""``balance-bridge demo`` and ``up``: the whole chain on this machine, with the sandbox in place of the three APIs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from rich.console import Console

from balance_bridge import private
from balance_bridge.accounts import AccountsFile, load_accounts
from balance_bridge.commands import progress, verdict
from balance_bridge.commands.local_airflow import LocalAirflow, LocalAirflowError
from balance_bridge.commands.task_logs import explain_failures

DAYS = 3
LIMIT_S = 300.0
_MARKER = "made-by-balance-bridge"


def run_demo(home: Path) -> int:
    """Run three days of two accounts through the real scheduler and hold what arrives against the sandbox's books.

    Args:
        home: Folder for all that it makes; emptied first.

    Returns:
        The exit code: 0 only if everything arrived exactly as it should.
    """
    console = Console(soft_wrap=True, emoji=False)
    began = time.monotonic()
    try:
        with _world(home, console, ui=False) as (airflow, url, file, days):
            expected = len(file.accounts) * len(days)
            console.print(f"{expected} daily runs to catch up: {len(file.accounts)} accounts, {days[0]} to {days[-1]}")
            runs = progress.watch(airflow, console, expected=expected, limit_s=LIMIT_S)
            verdicts = verdict.compare(url, file.accounts, _api_keys(), days)
            console.print(verdict.table(verdicts))
            for line in verdict.differences(verdicts):
                console.print(line, markup=False, style="red")
            for line in explain_failures(airflow.home, runs.failed()):
                console.print(line, markup=False)
            right = all(not one.missing and not one.wrong for one in verdicts)
            done = runs.ended(expected) and set(runs.states.values()) == {"success"}
    except LocalAirflowError as error:
        console.print(str(error), markup=False, style="red")
        return 1
    except KeyboardInterrupt:
        console.print("stopped; nothing is left running")
        return 130
    passed_s = time.monotonic() - began
    if right and done:
        console.print(f"[green]Every balance arrived exactly, once.[/] ({passed_s:.0f} s)")
        console.print(f"To look at: the store in {home}/airflow/balances (raw answers, ledgers, proofs, receipts)")
        return 0
    if not done:
        states = ", ".join(f"{key[0]} {runs.days[key]}: {state}" for key, state in runs.states.items())
        console.print(f"[red]Not all runs succeeded[/] ({states or 'none was started'}); logs: {home}/airflow/logs")
    return 1


def run_up(home: Path) -> int:
    """The same with Airflow's UI, until Ctrl-C.

    Args:
        home: Folder for all that it makes; emptied first.

    Returns:
        The exit code.
    """
    console = Console(soft_wrap=True, emoji=False)
    try:
        with _world(home, console, ui=True) as (airflow, url, _, _):
            console.print(f"Airflow's UI: [bold]{airflow.url}[/] (no login)")
            console.print(f"The sandbox: {url}/sandbox/status")
            console.print(f"Accounts file: {airflow.home}/include/accounts.yaml; store: {airflow.home}/balances")
            console.print("Ctrl-C stops everything.")
            while True:
                airflow.check_alive()
                time.sleep(1)
    except LocalAirflowError as error:
        console.print(str(error), markup=False, style="red")
        return 1
    except KeyboardInterrupt:
        console.print("stopped; nothing is left running")
        return 0


@contextmanager
def _world(home: Path, console: Console, *, ui: bool) -> Iterator[tuple[LocalAirflow, str, AccountsFile, list[date]]]:
    from balance_bridge.sandbox.server import Sandbox, accounts_yaml, connections

    with _interruptible():
        home = _fresh(home)
        today = datetime.now(UTC).date()
        days = [today - timedelta(days=back) for back in range(DAYS, 0, -1)]
        accounts_file = home / "airflow" / "include" / "accounts.yaml"
        private.make_file(accounts_file, accounts_yaml(days[0]).encode())
        with Sandbox() as sandbox:
            options = {
                **{f"AIRFLOW_CONN_{name.upper()}": json.dumps(each) for name, each in connections(sandbox.url).items()},
                "AIRFLOW__BALANCE_BRIDGE__ACCOUNTS_FILE": str(accounts_file),
                "AIRFLOW__BALANCE_BRIDGE__RETRY_DELAY": "5",
                "AIRFLOW__BALANCE_BRIDGE__NAMESPACE": "demo",
            }
            with LocalAirflow(home / "airflow", options, ui=ui) as airflow:
                console.print(f"The sandbox of AscendEX, Elven and Amlyze is at {sandbox.url}")
                console.print("Making Airflow's database and the pools ...")
                airflow.prepare()
                console.print("Starting Airflow ...")
                airflow.start()
                try:
                    yield airflow, sandbox.url, load_accounts(accounts_file), days
                finally:
                    console.print("Stopping Airflow ...")


def _api_keys() -> dict[str, str]:
    from balance_bridge.sandbox.server import CREDENTIALS

    return {f"main_{key.split('-')[1]}": key for key in CREDENTIALS.exchange}


def _fresh(home: Path) -> Path:
    home = home.resolve()
    if home.exists() and any(home.iterdir()):
        if not (home / _MARKER).exists():
            raise LocalAirflowError(f"{home} is not empty and not ours: choose another folder with --home")
        shutil.rmtree(home)
    private.make_folder(home)
    private.make_file(home / _MARKER)
    return home


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM ends like Ctrl-C, and neither is ignored even if a shell's ``&`` made it so."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def default_home() -> Path:
    """Where demo and up keep what they make: ``.demo`` in the current folder, or BALANCE_BRIDGE_DEMO."""
    return Path(os.environ.get("BALANCE_BRIDGE_DEMO", ".demo"))
