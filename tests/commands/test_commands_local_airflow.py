"""An Airflow of child processes: what it is given, and what it says when a part does not work."""

from __future__ import annotations

import base64
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import date
from importlib.util import find_spec
from pathlib import Path

import pytest

from balance_bridge import cli
from balance_bridge.commands import demo, local_airflow
from balance_bridge.commands.local_airflow import LocalAirflow, LocalAirflowError, dags_folder, free_port
from balance_bridge.errors import ConfigurationError


def test_a_port_that_is_wanted_is_taken_unless_somebody_listens_on_it() -> None:
    wanted = free_port()
    assert free_port(wanted) == wanted
    with socket.create_server(("127.0.0.1", wanted)):
        other = free_port(wanted)
    assert other != wanted
    socket.create_server(("127.0.0.1", other)).close()


def test_the_dags_folder_is_the_one_with_the_package_s_dags() -> None:
    assert (dags_folder() / "account_balances.py").is_file()


def test_another_airflow_s_settings_do_not_leak_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "postgresql://production")
    monkeypatch.setenv("AIRFLOW_CONN_ELVEN_DEFAULT", "{}")
    made = LocalAirflow(tmp_path, {"AIRFLOW_CONN_AMLYZE_DEFAULT": "{}"}).environment
    assert made["AIRFLOW_HOME"] == str(tmp_path)
    assert made["AIRFLOW_CONN_AMLYZE_DEFAULT"] == "{}"
    assert str(tmp_path) in made["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]
    assert "AIRFLOW_CONN_ELVEN_DEFAULT" not in made
    # Only this machine can reach it, for it lets everybody in.
    assert made["AIRFLOW__API__HOST"] == "127.0.0.1"


def test_two_of_them_share_no_port(tmp_path: Path) -> None:
    one, two = (LocalAirflow(tmp_path / name, {}) for name in "ab")
    assert one.url != two.url
    assert one.environment["AIRFLOW__API__BASE_URL"] == one.url


@pytest.fixture
def broken_airflow(tmp_path: Path) -> Iterator[LocalAirflow]:
    """An Airflow whose database cannot be made, and which knows no DAG."""
    package = tmp_path / "installed" / "airflow"
    for name, code in {
        "__init__": "",
        "__main__": "import sys; sys.exit(sys.argv[1:] == ['dags'] and 'no such DAG')",
        "utils.__init__": "",
        "utils.db": "def initdb(): raise OSError('the disk is full')",
    }.items():
        file = package / f"{name.replace('.__', '/__').replace('.', '/')}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(code)
    with LocalAirflow(tmp_path / "home", {"PYTHONPATH": str(package.parent)}) as airflow:
        yield airflow


def test_what_cannot_be_prepared_is_an_error_with_what_was_said(broken_airflow: LocalAirflow) -> None:
    with pytest.raises(LocalAirflowError, match="the disk is full"):
        broken_airflow.prepare()


def test_a_command_of_airflow_that_fails_is_an_error_with_what_it_said(broken_airflow: LocalAirflow) -> None:
    broken_airflow.command("db")
    with pytest.raises(LocalAirflowError, match="no such DAG"):
        broken_airflow.command("dags")


def test_a_part_that_ends_is_told_with_its_code_and_its_last_lines(tmp_path: Path) -> None:
    with LocalAirflow(tmp_path, {}) as airflow:
        airflow.logs.mkdir(parents=True)
        with (airflow.logs / "scheduler.log").open("wb") as output:
            code = "import sys; print('the last words', flush=True); sys.exit(3)"
            process = subprocess.Popen([sys.executable, "-c", code], stdout=output, start_new_session=True)
        airflow._processes["scheduler"] = process
        process.wait(30)
        with pytest.raises(LocalAirflowError, match="scheduler ended with code 3") as caught:
            airflow.check_alive()
    assert "the last words" in str(caught.value)


@pytest.mark.parametrize("patient", [True, False], ids=["ends when told", "does not listen"])
def test_whatever_a_part_has_started_is_ended_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patient: bool
) -> None:
    monkeypatch.setattr(local_airflow, "STOP_LIMIT_S", 0.3)
    ignore = "" if patient else "signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    child = f"import signal, time; {ignore}print('up', flush=True); time.sleep(600)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with LocalAirflow(tmp_path, {}) as airflow:
        process = subprocess.Popen(
            [sys.executable, "-c", parent], stdout=subprocess.PIPE, start_new_session=True, text=True
        )
        airflow._processes["scheduler"] = process
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
    # The pipe ends once the last process that holds it is gone.
    assert process.stdout.read() == ""
    process.stdout.close()
    assert process.returncode is not None
    airflow.stop()


def test_the_demo_empties_only_what_it_made(tmp_path: Path) -> None:
    made = demo._fresh(tmp_path / "demo")
    (made / "old").touch()
    assert not (demo._fresh(made) / "old").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious.txt").touch()
    with pytest.raises(ConfigurationError, match="is not empty and not ours"):
        demo._fresh(tmp_path / "mine")
    assert (tmp_path / "mine" / "precious.txt").exists()


class PlayedWorld:
    """What the demo's own world is to what prints it."""

    def __init__(self, home: Path) -> None:
        self.environment_file = home / "env"
        self.held_day = date(2026, 11, 19)


@pytest.mark.parametrize(
    ("ended", "code"),
    [(True, 0), (False, 1), (LocalAirflowError("scheduler ended with code 1"), 1), (KeyboardInterrupt(), 130)],
    ids=["right", "wrong", "Airflow fails", "Ctrl-C"],
)
def test_the_demo_s_exit_code_is_0_only_if_everything_went_as_it_must(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    ended: bool | BaseException,
    code: int,
) -> None:
    def play(*_: object) -> bool:
        if isinstance(ended, bool):
            return ended
        raise ended

    monkeypatch.setattr(demo, "world", lambda home, *_, **__: nullcontext(PlayedWorld(home)))
    monkeypatch.setattr(demo, "play", play)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["demo", "--home", str(tmp_path / "made")]) == code
    assert ("  . made/env" in capsys.readouterr().out.splitlines()) == (code == 0)


@pytest.mark.parametrize("command", [("demo",), ("up",), ("sandbox",)], ids=str)
def test_without_what_the_sandbox_needs_the_commands_say_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    monkeypatch.setattr(demo, "find_spec", lambda name: None if name == "uvicorn" else find_spec(name))
    monkeypatch.setenv("BALANCE_BRIDGE_DEMO", str(tmp_path / "made"))
    assert cli.main(command) == 1
    said = capsys.readouterr().err
    assert "uvicorn" in said
    assert "pip install 'balance-bridge[sandbox]'" in said
    assert not (tmp_path / "made").exists()


def test_parts_and_commands_share_one_key_for_the_connections_of_the_database(tmp_path: Path) -> None:
    one, two = (LocalAirflow(tmp_path, {}).environment["AIRFLOW__CORE__FERNET_KEY"] for _ in "ab")
    assert len(base64.urlsafe_b64decode(one)) == 32
    assert one != two


def test_the_log_view_wraps_long_lines(tmp_path: Path) -> None:
    assert LocalAirflow(tmp_path, {}).environment["AIRFLOW__API__DEFAULT_WRAP"] == "True"
