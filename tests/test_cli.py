"""The command line: help, arguments, exit codes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import balance_bridge
from balance_bridge import cli
from balance_bridge.errors import ConfigurationError

COMMANDS = {
    "demo": "Starts a sandbox of the APIs and a real Airflow",
    "up": "Starts the sandbox and a real Airflow with its UI",
    "sandbox": "Serves AscendEX, Elven and Amlyze on 127.0.0.1",
    "pools": "Makes a pool of one slot for each exchange connection",
    "status": "Reads the store and shows per account and day",
    "preview": "Works out what a delivery of the day would send now",
    "receipts": "Shows what was sent, when, under which number",
    "check": "Looks at everything that a run needs",
}


@pytest.fixture(autouse=True)
def no_trace_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    # The command line sets this for its process; here it ends with the test.
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")


def ended(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    return int(caught.value.code or 0)


# Below a command, so not in the list of all.
DECISIONS = {
    "receipts resolve": "Writes down what a person found out, by asking the vendor",
    "receipts adopt": "counts as delivered under the one that the connection and the accounts file have now",
    "receipts rekey": 'To send past days again with the new settings, trigger each with {"redeliver": true} instead',
}


@pytest.mark.parametrize(("command", "told"), (COMMANDS | DECISIONS).items())
def test_each_command_says_what_it_does(capsys: pytest.CaptureFixture[str], command: str, told: str) -> None:
    assert ended([*command.split(), "--help"]) == 0
    assert told in " ".join(capsys.readouterr().out.split())


def test_the_help_names_every_command_and_the_way_to_do_a_day_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(["--help"]) == 0
    shown = capsys.readouterr().out
    assert not [command for command in COMMANDS if f"\n    {command} " not in shown]
    assert "airflow dags trigger balances_ACCOUNT --conf" in shown


def test_the_version_is_the_package_s(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(["--version"]) == 0
    assert capsys.readouterr().out == f"balance-bridge {balance_bridge.__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["demoo"],
        ["--nothing"],
        ["check", "main_cash"],
        ["status", "--days", "0"],
        ["status", "--days", "-1"],
        ["status", "--days", "some"],
        ["sandbox", "--port", "http"],
        ["demo", "--home"],
        ["receipts", "adopt", "main_cash"],
        ["receipts", "rekey", "main_cash", "--destination", "elven", "--by", "Ada"],
        ["receipts", "resolve", "main_cash", "2026-11-20", "--destination", "elven", "--all"],
    ],
    ids=" ".join,
)
def test_wrong_arguments_end_with_2_and_the_usage(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert ended(arguments) == 2
    told = capsys.readouterr()
    assert told.err.startswith("usage: balance-bridge")
    assert told.out == ""


@pytest.mark.parametrize("command", ["pools", "status", "check"])
def test_without_an_accounts_file_each_command_ends_with_1_and_its_path(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, command: str
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setenv("AIRFLOW__BALANCE_BRIDGE__ACCOUNTS_FILE", str(tmp_path / "nowhere.yaml"))
    assert cli.main([command]) == 1
    told = capsys.readouterr()
    assert str(tmp_path / "nowhere.yaml") in told.out + told.err
    assert "Traceback" not in told.err


def test_what_is_known_to_go_wrong_is_one_line_and_what_is_not_is_a_bug(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def raises(error: BaseException) -> None:
        def run() -> int:
            raise error

        monkeypatch.setattr("balance_bridge.commands.pools.run", run)

    raises(ConfigurationError("what, where and what to do"))
    assert cli.main(["pools"]) == 1
    assert capsys.readouterr().err == "balance-bridge: what, where and what to do\n"
    raises(ConfigurationError("two lines:\nand \x1b[2J \x9b"))
    assert cli.main(["pools"]) == 1
    assert capsys.readouterr().err == "balance-bridge: two lines:\nand \\x1b[2J \\x9b\n"
    raises(KeyboardInterrupt())
    assert cli.main(["pools"]) == 130
    raises(ZeroDivisionError("a bug"))
    with pytest.raises(ZeroDivisionError):
        cli.main(["pools"])


def test_the_help_costs_neither_airflow_nor_pandas() -> None:
    code = (
        "import sys; from balance_bridge import cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print('HEAVY', *{'airflow', 'pandas', 'pyarrow', 'fastapi', 'rich'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "HEAVY"


def test_the_command_is_installed() -> None:
    command = Path(sys.executable).parent / "balance-bridge"
    done = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"balance-bridge {balance_bridge.__version__}\n"
