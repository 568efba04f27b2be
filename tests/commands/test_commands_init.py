"""``balance-bridge init`` writes an accounts file that is right, or nothing."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from balance_bridge import cli
from balance_bridge.accounts import load_accounts

ELVEN = ["", "entityCash", "sourceCash", "Asia/Shanghai"]
AMLYZE = ["", "", ""]
ALL_OF_ONE = ["", "", "", "", "", "", "", *ELVEN, *AMLYZE, ""]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
    monkeypatch.setenv("AIRFLOW__BALANCE_BRIDGE__ACCOUNTS_FILE", str(tmp_path / "include" / "accounts.yaml"))
    return tmp_path / "include" / "accounts.yaml"


def answered(monkeypatch: pytest.MonkeyPatch, lines: list[str], *arguments: str) -> int:
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
    return cli.main(["init", *arguments])


def test_enter_takes_the_defaults_and_what_is_written_is_right(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert answered(monkeypatch, ALL_OF_ONE) == 0
    written = load_accounts(file)
    assert not written.broken
    account = written.accounts["main_cash"]
    assert (account.source.type, list(account.destinations)) == ("ascendex", ["elven", "amlyze"])
    assert capsys.readouterr().out.splitlines()[-1] == "  balance-bridge check --fix"


def test_several_accounts_and_a_file_of_another_name(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    second = ["spare", "margin", "", "2026-11-01", "no", "no", "yes", "hooks", "no"]
    other = file.with_name("other.yaml")
    assert answered(monkeypatch, [*ALL_OF_ONE[:-1], "yes", *second], "--file", str(other)) == 0
    accounts = load_accounts(other).accounts
    assert list(accounts) == ["main_cash", "spare"]
    assert accounts["spare"].destinations["webhook"].conn_id == "hooks"
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"  AIRFLOW__BALANCE_BRIDGE__ACCOUNTS_FILE={other} balance-bridge check --fix"


def test_a_wrong_answer_is_asked_about_again(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ["Main Cash", "main_cash", "cahs", "cash", "", "tomorrow", "2026-11-01", "yes", "maybe", "no", "no"]
    assert answered(monkeypatch, [*lines, "", "", "entityCash", "sourceCash", "Shanghai", "Asia/Shanghai", "no"]) == 0
    said = capsys.readouterr().out
    assert "cahs" in said
    assert "YYYY-MM-DD" in said
    assert "yes or no?" in said
    assert "this is required" in said
    assert "/tmp" not in said.replace(str(file), "")
    assert load_accounts(file).accounts["main_cash"].destinations["elven"].timezone == "Asia/Shanghai"


def test_a_second_account_cannot_take_the_name_or_the_source_of_the_first(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    second = ["main_cash", "spare", "", "", "", "yes", "no", "no", "", "entityCash", "sourceCash", "sourceSpare"]
    assert answered(monkeypatch, [*ALL_OF_ONE[:-1], "yes", *second, "", "no"]) == 0
    said = capsys.readouterr().out
    assert "there is an account of this name" in said
    assert "delivers to 'entityCash sourceCash', as does elven of main_cash" in said
    assert not load_accounts(file).broken


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "the answers ended before the questions did"),
        (ALL_OF_ONE[:-1], "the answers ended before the questions did"),
        (["", "gold", "gold", "gold"], "no valid answer in 3 tries"),
        (["", "", "", "", "no", "no", "no"], "has no destination"),
    ],
)
def test_unfinished_answers_write_nothing(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], lines: list[str], message: str
) -> None:
    assert answered(monkeypatch, lines) == 1
    assert message in capsys.readouterr().err
    assert not file.exists()


def test_a_folder_that_cannot_be_written_to_is_named_before_anything_is_asked(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file.parent.touch()
    assert answered(monkeypatch, ALL_OF_ONE) == 1
    assert f"{file.parent} is not a folder\n  Choose another file with --file\n" in capsys.readouterr().err
    other = file.parent.with_name("folder")
    other.mkdir()
    monkeypatch.setattr("os.access", lambda path, _: path != other)
    assert answered(monkeypatch, ALL_OF_ONE, "--file", str(other / "missing" / "accounts.yaml")) == 1
    said = capsys.readouterr()
    assert f"{other} cannot be written to" in said.err
    assert said.out == ""


def test_a_file_that_exists_is_left_as_it_is(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file.parent.mkdir()
    file.write_text("mine")
    assert answered(monkeypatch, ALL_OF_ONE) == 1
    assert "exists already" in capsys.readouterr().err
    assert file.read_text() == "mine"
