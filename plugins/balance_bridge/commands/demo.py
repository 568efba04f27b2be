"""``balance-bridge demo`` and ``up``: the whole chain on this machine, with the sandbox in place of the three APIs.

The exchange leaves out one record of one account's day. That day does not add up, so nothing of it is delivered; every
other day goes through. The demo then does what a person would do: it fetches the day again once the record is there.
"""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from balance_bridge import private
from balance_bridge.accounts import AccountsFile, load_accounts
from balance_bridge.commands import progress, verdict
from balance_bridge.commands.arguments import parse_recent
from balance_bridge.commands.local_airflow import LocalAirflow
from balance_bridge.commands.output import Output
from balance_bridge.errors import ConfigurationError

if TYPE_CHECKING:
    from balance_bridge.sandbox.server import Sandbox
    from balance_bridge.sandbox.world import Record

DAYS = 3
LIMIT_S = 600.0
# The account and the day, counted back from today, of which the exchange leaves out a record.
HELD_ACCOUNT, HELD_DAYS_BACK = "main_margin", 2
_MARKER = "made-by-balance-bridge"


@dataclass(frozen=True)
class World:
    """What demo and ``up`` run in.

    Attributes:
        home: Folder of all that was made.
        airflow: Airflow, running.
        sandbox: The APIs, running.
        accounts: The accounts that Airflow runs.
        days: The days to catch up, in order.
        missing: The record that the exchange leaves out.
    """

    home: Path
    airflow: LocalAirflow
    sandbox: Sandbox
    accounts: AccountsFile
    days: list[date]
    missing: Record

    @property
    def held_day(self) -> date:
        """The day of :data:`HELD_ACCOUNT` that does not add up until the exchange shows all of it."""
        return self.days[DAYS - HELD_DAYS_BACK]

    @property
    def accounts_file(self) -> Path:
        """The accounts file that Airflow reads."""
        return self.airflow.home / "include" / "accounts.yaml"

    @property
    def environment_file(self) -> Path:
        """What a shell reads so that commands find this Airflow and its store."""
        return self.home / "env"

    def repair(self) -> list[str]:
        """The command that fetches the held day again, and delivers it if it adds up."""
        asked = json.dumps({"date": str(self.held_day), "refetch": True})
        return ["airflow", "dags", "trigger", f"balances_{HELD_ACCOUNT}", "--conf", asked]

    def compare(self) -> tuple[list[verdict.Verdict], list[verdict.Verdict]]:
        """Hold what has arrived against the sandbox's books: of the held day, and of all others."""
        from balance_bridge.sandbox.fixtures import API_KEYS

        found = verdict.compare(self.sandbox.url, self.accounts.accounts, API_KEYS, self.days)
        held = [one for one in found if (one.account, one.day) == (HELD_ACCOUNT, self.held_day)]
        return held, [one for one in found if one not in held]


def run_demo(home: Path) -> int:
    """Run three days of two accounts through the real scheduler and hold what arrives against the sandbox's books.

    Args:
        home: Folder for all that it makes; emptied first.

    Returns:
        The exit code: 0 only if the day that did not add up was held, and everything arrived exactly in the end.

    Raises:
        ConfigurationError: What the sandbox needs is not installed, or the folder is not ours.
        LocalAirflowError: Airflow does not start.
    """
    console, began = _console(), time.monotonic()
    with world(home, console, ui=False) as made:
        right = play(made, console)
    if right:
        console.print(f"[green]Every balance arrived exactly, once.[/] ({time.monotonic() - began:.0f} s)")
        print_commands(made, console, "Look at it yourself, in another shell:")
    return 0 if right else 1


def play(world: World, console: Console) -> bool:
    """The demo itself: catch up, find the day that is held, and repair it.

    Args:
        world: Where it happens; nothing has run in it yet.
        console: Where it is shown.

    Returns:
        Whether everything went as it must.
    """
    accounts, days = len(world.accounts.accounts), world.days
    expected = accounts * len(days)
    console.print(f"{expected} daily runs to catch up: {accounts} accounts, {days[0]} to {days[-1]}")
    runs = progress.watch(world.airflow, console, expected=expected, limit_s=LIMIT_S)
    held, others = world.compare()
    _show(console, [*others, *held], held=(HELD_ACCOUNT, world.held_day))
    reasons, (leg,) = list(runs.reasons(world.airflow.home / "logs")), world.missing.legs
    failed = [(dag, runs.days[dag, run]) for (dag, run), state in runs.states.items() if state != "success"]
    if not (
        runs.ended(expected)
        and failed == [(f"balances_{HELD_ACCOUNT}", str(world.held_day))]
        # The reason names the asset and the amount of the record that the exchange leaves out.
        and all(part in "\n".join(reasons) for part in (leg.asset, f"{abs(leg.delta).normalize():f}"))
        and all(one.equal for one in others)
        and not any(one.right or one.wrong for one in held)
    ):
        return _show_what_is_wrong(world, console, others, runs)
    console.print(
        f"{len(others)} of {len(others) + len(held)} deliveries arrived exactly. {len(held)} are held: "
        f"{HELD_ACCOUNT} {world.held_day} does not add up, so nothing of that day was sent."
    )
    for line in reasons:
        console.print(line, markup=False)
    return _repair(world, console, runs)


def _repair(world: World, console: Console, before: progress.Runs) -> bool:
    console.print("What a person does next: ask the exchange, and fetch the day again once its records are complete:")
    console.print(f"  {shlex.join(world.repair())}", markup=False)
    world.sandbox.release()
    console.print("The sandbox's exchange has found its record. Running that command ...")
    world.airflow.command(*world.repair()[1:])
    expected = len(before.states) + 1
    runs = progress.watch(world.airflow, console, expected=expected, limit_s=LIMIT_S, before=before)
    held, others = world.compare()
    _show(console, held)
    added = [state for run, state in runs.states.items() if run not in before.states]
    if added == ["success"] and all(one.equal for one in (*held, *others)):
        return True
    return _show_what_is_wrong(world, console, [*held, *others], runs)


def _show(console: Console, verdicts: list[verdict.Verdict], held: tuple[str, date] | None = None) -> None:
    Output(file=console.file).show(verdict.listing(verdicts, held))


def _show_what_is_wrong(world: World, console: Console, verdicts: list[verdict.Verdict], runs: progress.Runs) -> bool:
    logs = world.airflow.home / "logs"
    for line in (*verdict.differences(verdicts), *runs.reasons(logs)):
        console.print(line, markup=False, style="red")
    states = ", ".join(f"{key[0]} {runs.days[key]}: {state}" for key, state in runs.states.items())
    console.print(f"[red]The runs did not end as they must[/] ({states or 'none was started'})")
    console.print(f"Airflow's logs: {logs}", markup=False)
    return False


def run_up(home: Path) -> int:
    """The same with Airflow's UI, until Ctrl-C.

    Args:
        home: Folder for all that it makes; emptied first.

    Returns:
        The exit code.

    Raises:
        ConfigurationError: What the sandbox needs is not installed, or the folder is not ours.
        LocalAirflowError: Airflow does not start, or ends.
    """
    console = _console()
    with suppress(KeyboardInterrupt), world(home, console, ui=True) as made:
        console.print(f"Airflow's UI: [bold]{made.airflow.url}[/] (no login)")
        console.print(f"The sandbox: {made.sandbox.url}/sandbox/status")
        console.print(f"Accounts file: {made.accounts_file}; store: {made.airflow.home}/balances")
        print_commands(made, console, "Look at it in another shell:")
        console.print(
            f"{HELD_ACCOUNT} {made.held_day} will not add up: the exchange leaves out a record. "
            "Make the exchange complete, and fetch the day again:"
        )
        console.print(f"  curl -X POST {made.sandbox.url}/sandbox/release")
        console.print(f"  {shlex.join(made.repair())}", markup=False)
        console.print("Ctrl-C stops everything.")
        while True:
            made.airflow.check_alive()
            time.sleep(1)
    return 0


def run_sandbox(port: int, seed: int, show: bool) -> int:
    """Serve the sandbox alone until Ctrl-C; see :func:`balance_bridge.sandbox.server.serve`.

    Raises:
        ConfigurationError: What the sandbox needs is not installed.
    """
    _require_sandbox()
    from balance_bridge.sandbox.server import serve

    with _interruptible():
        return serve(port, seed, show)


def print_commands(made: World, console: Console, title: str) -> None:
    """Print commands that look at what was made; they work as printed, in a shell in the current folder."""
    file, here = made.environment_file, Path.cwd()
    console.print(title)
    for command in (
        f". {shlex.quote(str(file.relative_to(here) if file.is_relative_to(here) else file))}",
        "balance-bridge status",
        f"balance-bridge receipts {HELD_ACCOUNT} {made.held_day} --destination elven",
        "balance-bridge store check",
    ):
        console.print(f"  {command}", markup=False, highlight=False)


@contextmanager
def world(home: Path, console: Console, *, ui: bool) -> Iterator[World]:
    """Start the sandbox and Airflow in a fresh folder; both are stopped at the end, also by SIGINT and SIGTERM.

    Args:
        home: Folder for all that it makes; emptied first.
        console: Shows how far this is.
        ui: Whether a person is to look at Airflow's UI: on port 8080, if that is free.

    Raises:
        ConfigurationError: What the sandbox needs is not installed, or the folder is not ours.
        LocalAirflowError: Airflow does not start.
    """
    _require_sandbox()
    from balance_bridge.sandbox.fixtures import API_KEYS, accounts_yaml, connections
    from balance_bridge.sandbox.server import Sandbox

    home, days = _fresh(home), parse_recent(str(DAYS))
    accounts_file = home / "airflow" / "include" / "accounts.yaml"
    private.make_file(accounts_file, accounts_yaml(days[0]).encode())
    with _interruptible():
        try:
            with Sandbox() as sandbox:
                made_connections = connections(sandbox.url).items()
                options = {
                    **{f"AIRFLOW_CONN_{name.upper()}": json.dumps(each) for name, each in made_connections},
                    "AIRFLOW__BALANCE_BRIDGE__ACCOUNTS_FILE": str(accounts_file),
                    "AIRFLOW__BALANCE_BRIDGE__RETRY_DELAY": "5",
                    "AIRFLOW__BALANCE_BRIDGE__NAMESPACE": "demo",
                }
                with LocalAirflow(home / "airflow", options, 8080 if ui else 0) as airflow:
                    missing = sandbox.withhold(API_KEYS[HELD_ACCOUNT], "margin", days[DAYS - HELD_DAYS_BACK])
                    made = World(home, airflow, sandbox, load_accounts(accounts_file), days, missing)
                    private.make_file(made.environment_file, _shell(airflow.environment).encode())
                    console.print(f"The sandbox of AscendEX, Elven and Amlyze is at {sandbox.url}")
                    console.print("Making Airflow's database and the pools ...")
                    airflow.prepare()
                    console.print("Starting Airflow ...")
                    airflow.start()
                    yield made
        finally:
            console.print("Everything is stopped; nothing is left running.")


def _console() -> Console:
    return Console(soft_wrap=True, emoji=False)


def _require_sandbox() -> None:
    missing = [name for name in ("uvicorn",) if find_spec(name) is None]
    if missing:
        raise ConfigurationError(
            f"the sandbox needs {' and '.join(missing)}, which this installation lacks",
            do="install it with: pip install 'balance-bridge[sandbox]'",
        )


def _shell(environment: Mapping[str, str]) -> str:
    """What a shell reads to find this Airflow and the commands of this installation."""
    kept = {name: value for name, value in environment.items() if name.startswith(("AIRFLOW", "PYTHONWARNINGS"))}
    lines = [f"export {name}={shlex.quote(value)}" for name, value in sorted(kept.items())]
    return "\n".join([*lines, f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"', ""])


def _fresh(home: Path) -> Path:
    home = home.resolve()
    if home.exists() and any(home.iterdir()):
        if not (home / _MARKER).exists():
            raise ConfigurationError(f"{home} is not empty and not ours", do="choose another folder with --home")
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
