"""Which accounts run while the file is wrong."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from balance_bridge.accounts import AccountsFile, accounts_in_force

Force = Callable[[str | None], AccountsFile]
Base = Callable[..., str]


@pytest.fixture
def force(file: Path, tmp_path: Path) -> Force:
    """The accounts in force once the file has this text; None: once it is gone."""

    def written(text: str | None) -> AccountsFile:
        if text is None:
            file.unlink(missing_ok=True)
        else:
            file.write_text(text, encoding="utf-8")
        return accounts_in_force(file, tmp_path / "last_good")

    return written


@pytest.mark.parametrize("wrong", [None, "", "accounts: [", "accounts:", "{}", "acounts: {a: b}", "x: \x07"])
def test_while_the_file_cannot_be_read_its_last_good_version_is_in_force(
    force: Force, base: Base, file: Path, wrong: str | None
) -> None:
    good = force(base())
    assert good.error is None

    for _ in range(2):
        found = force(wrong)
        assert found.accounts == good.accounts
        assert found.error is not None
        assert str(found.error).startswith(str(file))
        assert "runs meanwhile" in str(found.error)
        (copy,) = (file.parent / "last_good").iterdir()
        assert str(copy) in found.error.do
        assert copy.read_text().startswith(base())
        # What it holds is nobody else's business.
        assert copy.stat().st_mode & 0o077 == 0


def test_an_account_with_a_mistake_is_broken_and_does_not_bring_the_last_good_version_back(
    force: Force, base: Base
) -> None:
    force(base())
    found = force(base({4: "      type: x"}))

    assert found.error is None
    assert (list(found.accounts), list(found.broken)) == (["other"], ["main_cash"])
    # It is the last version that could be read.
    assert list(force("accounts: [").broken) == ["main_cash"]


def test_a_file_that_was_never_right_has_no_accounts_and_an_error_that_says_so(force: Force) -> None:
    found = force("accounts: [")

    assert (found.accounts, found.broken) == ({}, {})
    assert "no account runs" in str(found.error)


def test_a_copy_is_of_its_own_file_only(force: Force, base: Base, file: Path) -> None:
    force(base())

    assert accounts_in_force(file.with_name("other.yaml"), file.parent / "last_good").accounts == {}


@pytest.mark.parametrize("damaged", [b"", b"accounts: [", b"\xff"])
def test_a_damaged_copy_is_as_none(force: Force, base: Base, file: Path, damaged: bytes) -> None:
    force(base())
    (copy,) = (file.parent / "last_good").iterdir()
    copy.write_bytes(damaged)

    assert "no account runs" in str(force("accounts: [").error)


def test_a_copy_that_cannot_be_written_does_not_stop_the_accounts(base: Base, file: Path) -> None:
    file.write_text(base(), encoding="utf-8")

    # A file where the folder should be.
    assert list(accounts_in_force(file, file).accounts) == ["main_cash", "other"]


def test_a_file_that_did_not_change_is_not_copied_again(force: Force, base: Base, file: Path) -> None:
    force(base())
    (copy,) = (file.parent / "last_good").iterdir()
    os.utime(copy, (1, 1))
    force(base())
    assert copy.stat().st_mtime == 1
    force(base({2: "  renamed:"}))
    assert copy.stat().st_mtime > 1
    assert "renamed" in force("accounts: [").accounts


def test_a_file_without_accounts_stops_the_old_ones(force: Force, base: Base) -> None:
    force(base())

    for text in ("accounts: {}", "accounts: ["):
        found = force(text)
        assert (found.accounts, found.broken) == ({}, {})


def test_while_the_last_good_version_runs_its_mistakes_are_reported_in_the_users_file(
    force: Force, base: Base, file: Path
) -> None:
    force(base({4: "      type: x"}))
    broken = force("accounts: [").broken["main_cash"]

    for said in (broken.message, str(broken.error())):
        assert re.match(rf"{file} \(version of \S+ \S+ UTC\):4: ", said)
        assert "/last_good/" not in said
