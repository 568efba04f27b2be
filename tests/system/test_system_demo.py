"""The demo, ``up``, and what they print; by a real Airflow in processes of its own."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import requests
from rich.console import Console

from balance_bridge.commands import demo
from system.processes import left_behind, open_to_others

COMMAND = Path(sys.executable).parent / "balance-bridge"

# One after another: each of them keeps both cores busy, and most share one Airflow.
pytestmark = [pytest.mark.system, pytest.mark.slow]


# A minute or two: a real scheduler catches up six runs of seven tasks each, and one more after the repair.
def test_the_demo_holds_the_one_day_that_does_not_add_up_and_delivers_everything_once_it_is_repaired(
    running: Any,
) -> None:
    shown, day = running.shown, running.world.held_day
    assert running.right, shown
    assert "12 of 15 deliveries arrived exactly. 3 are held" in shown
    assert [line.split()[-1] for line in shown.splitlines() if f"{day} " in line and "main_margin  " in line] == [
        *["held"] * 3,
        *["yes"] * 3,
    ]
    # Why: the asset, and where the record is missing.
    book = running.sandbox.exchange.world.book("sandbox-margin-key", "margin", running.days[-1])
    missing = running.world.missing
    (leg,) = missing.legs
    of_asset = [record.sn for record in book.records if any(each.asset == leg.asset for each in record.legs)]
    place = of_asset.index(missing.sn)
    for told in (leg.asset, f"{abs(leg.delta).normalize():f}", str(of_asset[place - 1]), str(of_asset[place + 1])):
        assert told in shown
    assert {kept.state for kept in running.sandbox.elven.delivered} == {"new"}, "nothing twice"
    assert {kept.state for kept in running.sandbox.amlyze.delivered} == {"new"}, "nothing twice"
    assert running.sandbox.journal.refusals() == []


def test_the_commands_that_the_demo_prints_work_as_printed(running: Any) -> None:
    printed = io.StringIO()
    demo.print_commands(running.world, Console(file=printed, soft_wrap=True, width=200), "Look at it:")
    settings, *commands = [line.strip() for line in printed.getvalue().splitlines()[1:]]
    assert settings.startswith(". ")
    assert len(commands) >= 3
    for command in commands:
        done = subprocess.run(
            ["sh", "-c", f"{settings} && {command}"], capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        assert done.stdout


def test_what_is_started_listens_on_this_machine_only_and_what_it_writes_is_its_users_alone(running: Any) -> None:
    assert len(running.listened) >= 2, "Airflow's API and the sandbox"
    assert {where: str(at) for where, at in running.listened.items() if not at.is_loopback} == {}
    assert open_to_others(running.world.home) == {}


def test_task_logs_are_shown_without_a_log_server(running: Any) -> None:
    first = running.runs("balances_main_cash")[0]["dag_run_id"]
    task = f"dags/balances_main_cash/dagRuns/{first}/taskInstances/day"
    log = from_airflow(running.airflow.url, f"api/v2/{task}/logs/{running.airflow.get(task)['try_number']}")
    assert "main_cash: this run delivers" in log


# A quarter of a minute: Airflow is started with all its parts.
def test_up_shows_messages_whole_and_ends_at_ctrl_c_with_nothing_left_running(tmp_path: Path) -> None:
    home = tmp_path / "demo"
    with started("up", home) as process:
        said = read_until(process, "Ctrl-C stops everything.")
        url = next(line.split()[2] for line in said if line.startswith("Airflow's UI:"))
        assert json.loads(from_airflow(url, "ui/config"))["default_wrap"] is True
        assert left_behind(home)
        os.kill(process.pid, signal.SIGINT)
        rest = ended(process)
    assert process.returncode == 0, "".join(said) + rest
    assert "nothing is left running" in rest
    assert left_behind(home) == []


# A quarter of a minute: the demo is interrupted while Airflow starts, and ends it in order.
def test_a_terminated_demo_ends_all_that_it_started(tmp_path: Path) -> None:
    home = tmp_path / "demo"
    with started("demo", home) as process:
        read_until(process, "Starting Airflow")
        time.sleep(3)
        assert left_behind(home)
        os.kill(process.pid, signal.SIGTERM)
        rest = ended(process)
    assert process.returncode == 130
    assert "nothing is left running" in rest
    assert left_behind(home) == []


def test_a_folder_that_is_not_the_demos_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with started("demo", tmp_path) as process:
        said = ended(process)
    assert process.returncode == 1
    assert "choose another folder with --home" in said
    assert (tmp_path / "precious.txt").read_text() == "mine"


def from_airflow(url: str, path: str) -> str:
    """What Airflow's UI is given at a path."""
    with requests.Session() as session:
        session.trust_env = False
        token = session.get(f"{url}/auth/token", timeout=60).json()["access_token"]
        answer = session.get(f"{url}/{path}", headers={"Authorization": f"Bearer {token}"}, timeout=60)
        answer.raise_for_status()
        return answer.text


def started(command: str, home: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [COMMAND, command, "--home", home],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def read_until(process: subprocess.Popen[str], start: str) -> list[str]:
    assert process.stdout is not None
    said: list[str] = []
    for line in process.stdout:
        said.append(line)
        if line.startswith(start):
            break
    return said


def ended(process: subprocess.Popen[str]) -> str:
    try:
        return process.communicate(timeout=90)[0]
    finally:
        process.kill()
