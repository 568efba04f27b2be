"""Reads the accounts file and sorts its accounts into those that can run and those that are broken."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path as FilePath
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from balance_bridge.accounts.document import Document, read_text
from balance_bridge.accounts.fields import ConnectionId, Day
from balance_bridge.accounts.models import Account, TopLevel
from balance_bridge.accounts.problems import Problem, dotted
from balance_bridge.accounts.validation import named, validate
from balance_bridge.errors import AccountsFileError

Value = TypeVar("Value")
_DAY: TypeAdapter[date] = TypeAdapter(Day)
_CONN_ID: TypeAdapter[str] = TypeAdapter(ConnectionId)


@dataclass
class BrokenAccount:
    """An account that cannot run, and why.

    Attributes:
        name: Its key under ``accounts`` as it stands in the file, which need not be a valid name.
        file: The file.
        problems: All that is wrong with it.
        start_date: Its first day (UTC), if at least that can be read.
        conn_id: Its exchange's connection, if at least that can be read.
    """

    name: str
    file: str
    problems: list[Problem]
    start_date: date | None = None
    conn_id: str | None = None

    @property
    def message(self) -> str:
        """All of its problems, a line each."""
        return "\n".join(dict.fromkeys(problem.text(self.file) for problem in self._by_line()))

    def error(self) -> AccountsFileError:
        """All of its problems as the error with which its runs fail."""
        problems = self._by_line()
        what = f"{self.file}:{problems[0].line}: account {self.name} is wrong"
        why = "\n".join(dict.fromkeys(problem.text() for problem in problems))
        return AccountsFileError(
            what, why=why, do="Correct the file, run balance-bridge check, then clear the red runs"
        )

    def _by_line(self) -> list[Problem]:
        return sorted(self.problems, key=lambda problem: problem.line)


@dataclass(frozen=True)
class AccountsFile:
    """The accounts of a file, in its order.

    Attributes:
        accounts: Those that are right, by name.
        broken: Those that are wrong, by name. No name is in both.
        error: Why the accounts file cannot be read, so that these are of its last good version; None: they are its own.
    """

    accounts: Mapping[str, Account]
    broken: Mapping[str, BrokenAccount]
    error: AccountsFileError | None = None


def load_accounts(path: FilePath) -> AccountsFile:
    """Read the accounts file.

    Args:
        path: A YAML file in UTF-8.

    Returns:
        The accounts that can run, and those that cannot, each with all of its problems.

    Raises:
        AccountsFileError: If the file as a whole is wrong: missing, not readable, not UTF-8, not YAML, or its top is
            not a mapping with the one key ``accounts``. One that holds no account is right.
    """
    return parse_accounts(read_text(path), str(path))


def parse_accounts(text: str, file: str) -> AccountsFile:
    """Read the text of an accounts file.

    Args:
        text: The text.
        file: The file's name, for messages.

    Raises:
        AccountsFileError: As :func:`load_accounts`.
    """
    document = Document(text, file)
    top, wrong = validate(TopLevel, document.values, (), document.line_at)
    # A misspelt key comes behind the one that is missing because of it, and says more.
    for problem in [*(each for each in document.problems if len(each.path) < 2), *reversed(wrong)]:
        what = f"{file}:{problem.line}: {dotted(problem.path) or 'top of the file'}: {problem.value}"
        raise AccountsFileError(what, why=problem.fault, do=f"Allowed: {problem.allowed}")
    accounts: dict[str, Account] = {}
    broken: dict[str, BrokenAccount] = {}
    for name, given in (top.accounts if top else {}).items():
        at = ("accounts", name)
        account, problems = validate(Account, named(name, given), at, document.line_at)
        problems += [problem for problem in document.problems if problem.path[:2] == at]
        if account is not None and not problems:
            accounts[name] = account
        else:
            options = given if isinstance(given, dict) else {}
            source = options.get("source")
            exchange = source if isinstance(source, dict) and source.get("type") != "files" else {}
            start_date, conn_id = _read(_DAY, options.get("start_date")), _read(_CONN_ID, exchange.get("conn_id"))
            broken[name] = BrokenAccount(name, file, problems, start_date, conn_id)
    return AccountsFile(accounts, broken)


def _read(kind: TypeAdapter[Value], value: object) -> Value | None:
    """A value of a broken account, if at least that can be read."""
    with contextlib.suppress(ValidationError):
        return kind.validate_python(value)
    return None
