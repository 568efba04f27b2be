"""An Airflow of child processes: what it is given, and what it says when a part does not work."""

from __future__ import annotations

import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from balance_bridge.commands import demo, local_airflow
from balance_bridge.commands.local_airflow import LocalAirflow, LocalAirflowError, dags_folder, free_ports


def test_free_ports_are_distinct_and_can_be_taken() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    with ExitStack() as stack:
        for port in ports:
            stack.enter_context(socket.create_server(("127.0.0.1", port)))


def test_the_dags_folder_is_the_one_with_the_package_s_dags() -> None:
    assert (dags_folder() / "account_balances.py").is_file()


def test_another_airflow_s_settings_do_not_leak_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "postgresql://production")
    monkeypatch.setenv("AIRFLOW_CONN_ELVEN_DEFAULT", "{}")
    made = LocalAirflow(tmp_path, {"AIRFLOW_CONN_AMLYZE_DEFAULT": "{}"}, ui=False).environment
    assert made["AIRFLOW_HOME"] == str(tmp_path)
    assert made["AIRFLOW_CONN_AMLYZE_DEFAULT"] == "{}"
    assert "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN" not in made
    assert "AIRFLOW_CONN_ELVEN_DEFAULT" not in made
    # Only this machine can reach it, for it lets everybody in.
    assert made["AIRFLOW__API__HOST"] == "127.0.0.1"


def test_two_of_them_share_no_port(tmp_path: Path) -> None:
    one, two = (LocalAirflow(tmp_path / name, {}, ui=False) for name in "ab")
    assert one.url != two.url
    assert one.environment["AIRFLOW__API__BASE_URL"] == one.url


# Some seconds: Airflow is imported and makes a database before it looks at the accounts file.
@pytest.mark.slow
def test_what_cannot_be_prepared_is_told_with_its_log(tmp_path: Path) -> None:
    options = {"AIRFLOW__BALANCE_BRIDGE__ACCOUNTS_FILE": str(tmp_path / "nowhere.yaml")}
    with LocalAirflow(tmp_path, options, ui=False) as airflow, pytest.raises(LocalAirflowError) as caught:
        airflow.prepare()
    assert "nowhere.yaml" in str(caught.value)
    assert "prepare.log" in str(caught.value)


def test_a_part_that_ends_is_told_with_its_code_and_its_last_lines(tmp_path: Path) -> None:
    with LocalAirflow(tmp_path, {}, ui=False) as airflow:
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
    with LocalAirflow(tmp_path, {}, ui=False) as airflow:
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
    with pytest.raises(LocalAirflowError, match="is not empty and not ours"):
        demo._fresh(tmp_path / "mine")
    assert (tmp_path / "mine" / "precious.txt").exists()


def test_the_demo_s_folder_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BALANCE_BRIDGE_DEMO", raising=False)
    assert demo.default_home() == Path(".demo")
    monkeypatch.setenv("BALANCE_BRIDGE_DEMO", "/somewhere")
    assert demo.default_home() == Path("/somewhere")
