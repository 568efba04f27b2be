"""The command line: help, arguments, exit codes."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import balance_bridge
from balance_bridge import cli
from balance_bridge.commands.output import Listing
from balance_bridge.errors import ConfigurationError

NAMES = list(cli.COMMANDS)
# What each command needs at least.
LEAST = {
    "receipts resolve-file": "x.csv --by A --reason B",
    "explain": "main_cash yesterday",
    "diff": "main_cash 2026-11-19 2026-11-20",
    "approve": "main_cash 2026-11-20 --by Ada --reason ticket",
    "preview": "main_cash yesterday",
    "receipts": "main_cash 2026-11-01..2026-11-07",
    "receipts resolve": "main_cash yesterday --destination elven --by A --reason B --all --accepted",
    "receipts adopt": "main_cash --destination elven --by A --reason B",
    "receipts rekey": "main_cash --destination elven --by A --reason B",
    "store prune": "--keep 400d",
    "elven create-source": "--account ID --name NAME",
}


@pytest.fixture(autouse=True)
def no_trace_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    # The command line sets this for its process; here it ends with the test.
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")


@pytest.mark.parametrize("name", NAMES)
def test_each_command_has_a_help_in_which_every_option_says_its_default(
    capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert cli.main([*name.split(), "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"usage: balance-bridge {name} " in shown
    _, *arguments = cli.COMMANDS[name]
    options = [each for each in arguments if not isinstance(each, list) and each[0][0].startswith("-")]
    assert not [flags for flags, settings in options if not {"default", "required"} & words(settings["help"])]


def words(text: str) -> set[str]:
    return {word.strip("():") for word in text.split()}


@pytest.mark.parametrize("name", NAMES)
def test_each_command_is_called_with_the_arguments_that_it_takes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, _, function = cli.COMMANDS[name][0].partition(":")
    room = importlib.import_module(f"balance_bridge.{module}")
    signature = inspect.signature(getattr(room, function))
    assert len(signature.parameters) <= 6
    called: list[Any] = []

    def pretend(**given: Any) -> int:
        called.append(signature.bind(**given))
        return 7

    monkeypatch.setattr(room, function, pretend)
    assert cli.main([*name.split(), *LEAST.get(name, "").split()]) == 7
    assert len(called) == 1


def test_the_help_lists_every_command_and_shows_how_to_run_a_day_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert not [name for name in NAMES if f"\n    {name}" not in shown]
    assert "airflow dags trigger balances_ACCOUNT --conf" in shown
    assert max(map(len, shown.splitlines())) < 80


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "required: COMMAND"),
        ("statu", "did you mean status?"),
        ("store chek", "did you mean store check"),
        ("store", "a second word is required: store check, store index or store prune"),
        ("elven", "a second word is required: elven accounts or elven create-source"),
        ("status -o jsn", "did you mean json?"),
        ("--nothing", "required: COMMAND"),
        ("check main_cash", "unrecognized arguments"),
        ("status --days 0", "0 is not between 1 and"),
        ("status --days -1", "--days"),
        ("status --days some", "'some' is not of the form YYYY-MM-DD"),
        ("receipts main_cash 2026-02-30", "a date that does not exist"),
        ("receipts main_cash 20261120", "is not of the form"),
        ("receipts main_cash 2026-11-07..2026-11-01", "ends before it begins"),
        ("receipts main_cash 0001-01-01..yesterday", "is longer than"),
        ("sandbox --port http", "invalid int value"),
        ("demo --home", "expected one argument"),
        ("store prune --keep 29d", "30d or more"),
        ("receipts adopt main_cash", "required: --destination"),
        ("receipts rekey main_cash --destination elven --by Ada", "required: --reason"),
        ("receipts resolve a 2026-11-20 --destination b --by c --reason d --accepted", "one of the arguments --number"),
        ("receipts resolve a 2026-11-20 --destination b --by c --reason d --all", "one of the arguments --accepted"),
        ("receipts resolve a 2026-11-20..2026-11-21", "more than one day"),
    ],
)
def test_wrong_arguments_end_with_2_the_usage_and_what_is_wrong(
    capsys: pytest.CaptureFixture[str], arguments: str, message: str
) -> None:
    assert cli.main(arguments.split()) == 2
    said = capsys.readouterr()
    assert said.err.startswith("usage: balance-bridge")
    assert message in said.err
    assert said.out == ""


@pytest.mark.parametrize("command", ["pools", "status", "check"])
def test_without_an_accounts_file_each_command_ends_with_1_and_its_path(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, command: str
) -> None:
    monkeypatch.setenv("AIRFLOW__BALANCE_BRIDGE__ACCOUNTS_FILE", str(tmp_path / "nowhere.yaml"))
    assert cli.main([command]) == 1
    said = capsys.readouterr()
    assert str(tmp_path / "nowhere.yaml") in said.out + said.err
    assert "Traceback" not in said.err


def test_a_known_error_is_shown_in_its_parts_and_an_unknown_one_is_a_bug(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def raises(error: BaseException) -> None:
        def run(**_: Any) -> int:
            raise error

        monkeypatch.setattr("balance_bridge.commands.pools.run", run)

    raises(ConfigurationError("what and where", why="why", do="what to do"))
    assert cli.main(["pools"]) == 1
    assert capsys.readouterr().err == "balance-bridge: what and where\n  why\n  what to do\n"
    raises(ConfigurationError("two lines:\nand \x1b[2J \x9b"))
    assert cli.main(["pools"]) == 1
    assert capsys.readouterr().err == "balance-bridge: two lines:\n  and \\x1b[2J \\x9b\n"
    raises(PermissionError(13, "Permission denied", "/a/file"))
    assert cli.main(["pools"]) == 1
    assert capsys.readouterr().err.startswith("balance-bridge: /a/file: Permission denied\n  ")
    raises(KeyboardInterrupt())
    assert cli.main(["pools"]) == 130
    raises(ZeroDivisionError("a bug"))
    with pytest.raises(ZeroDivisionError):
        cli.main(["pools"])


def test_the_help_costs_neither_airflow_nor_pandas() -> None:
    code = (
        "import sys; from balance_bridge import cli; cli.main(['--help'])\n"
        "print('HEAVY', *{'airflow', 'pandas', 'pyarrow', 'pydantic', 'fastapi', 'rich', 'yaml'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "HEAVY"


def test_a_reader_that_has_seen_enough_causes_no_traceback() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "balance_bridge.cli", "receipts", "--help"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert process.returncode == 141


@pytest.mark.parametrize(("target", "said"), [(">&-", "standard output is closed"), (">/dev/full", "No space left")])
def test_output_that_cannot_be_written_is_one_message_and_no_traceback(target: str, said: str) -> None:
    command = f"{sys.executable} -m balance_bridge.cli receipts --help {target}"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, env=environment, text=True, check=False)
    assert done.returncode == 1
    first, do = done.stderr.splitlines()
    assert first.startswith("balance-bridge: ")
    assert said in first
    assert do.startswith("  L")


@pytest.mark.parametrize("arguments", [["store", "--help"], ["elven", "-h"]])
def test_help_for_the_first_word_of_commands_shows_all_of_them(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert cli.main(arguments) == 0
    assert "\n    store check " in capsys.readouterr().out


def test_the_command_is_installed() -> None:
    command = Path(sys.executable).parent / "balance-bridge"
    done = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"balance-bridge {balance_bridge.__version__}\n"


def test_what_is_meant_for_another_program_stands_alone_on_standard_output(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(output: Any, **_: Any) -> int:
        print("what Airflow logs")
        output.show(Listing([{"a": 1}], {"a": "a"}))
        return 0

    monkeypatch.setattr("balance_bridge.commands.pools.run", run)
    assert cli.main(["pools", "-o", "json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out) == [{"a": 1}]
    assert told.err == "what Airflow logs\n"
