"""Reads the accounts file and sorts its accounts into those that can run and those that are broken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path as FilePath

from balance_bridge.accounts.document import Entry, Node, read_document
from balance_bridge.accounts.models import Account
from balance_bridge.accounts.problems import Path, Problem, describe, did_you_mean
from balance_bridge.accounts.reading import NAMES, Reading, read_account
from balance_bridge.accounts.sharing import find_shared
from balance_bridge.errors import AccountsFileError

_ALLOWED_TOP = "a mapping with the one key accounts, once"
_ALLOWED_ACCOUNTS = "a mapping from each account's name to its settings, with at least one account"


@dataclass(frozen=True)
class BrokenAccount:
    """An account that cannot run, and why.

    Attributes:
        name: Its key under ``accounts`` as it stands in the file, which need not be a valid name.
        message: All of its problems, a line each.
        start_date: Its first day (UTC), if at least that can be read.
        conn_id: Its exchange's connection, if at least that can be read.
    """

    name: str
    message: str
    start_date: date | None
    conn_id: str | None = None


@dataclass(frozen=True)
class AccountsFile:
    """The accounts of a file, in its order.

    Attributes:
        accounts: Those that are right, by name.
        broken: Those that are wrong, by name. No name is in both.
    """

    accounts: Mapping[str, Account]
    broken: Mapping[str, BrokenAccount]


def load_accounts(path: FilePath) -> AccountsFile:
    """Read the accounts file.

    Args:
        path: A YAML file in UTF-8.

    Returns:
        The accounts that can run, and those that cannot, each with all of its problems.

    Raises:
        AccountsFileError: If the file as a whole is wrong: missing, not readable, not UTF-8, not YAML, or its top is
            not a mapping with the one key ``accounts`` that holds at least one account.
    """
    file = str(path)
    entries = _account_entries(read_document(path), file)
    readings = [read_account(number, entry) for number, entry in enumerate(entries)]
    for place, problem in find_shared([place for reading in readings for place in reading.places]):
        readings[place.definition].findings.add(problem)
    accounts: dict[str, Account] = {}
    broken: dict[str, BrokenAccount] = {}
    for name, definitions in _by_name(readings).items():
        problems = _problems(definitions)
        account = definitions[0].account
        if account is not None and not problems:
            accounts[name] = account
            continue
        # The same problem can be found twice where an alias repeats it.
        lines = dict.fromkeys(problem.text(file) for problem in sorted(problems, key=lambda problem: problem.line))
        start_date = next((reading.start_date for reading in definitions if reading.start_date), None)
        conn_id = next((reading.conn_id for reading in definitions if reading.conn_id), None)
        broken[name] = BrokenAccount(name, "\n".join(lines), start_date, conn_id)
    return AccountsFile(accounts, broken)


def _by_name(readings: list[Reading]) -> dict[str, list[Reading]]:
    grouped: dict[str, list[Reading]] = {}
    for reading in readings:
        grouped.setdefault(reading.entry.key, []).append(reading)
    return grouped


def _problems(definitions: list[Reading]) -> list[Problem]:
    first = definitions[0]
    repeated = [
        Problem(
            again.entry.line,
            again.path,
            describe(again.entry.key),
            f"an account of this name stands in line {first.entry.line} already",
            NAMES,
        )
        for again in definitions[1:]
    ]
    return repeated + [problem for reading in definitions for problem in reading.findings.problems]


def _account_entries(root: Node, file: str) -> list[Entry]:
    accounts: Entry | None = None
    for entry in _entries(root, (), file, "the top of the file is not a mapping", _ALLOWED_TOP):
        if entry.key != "accounts":
            fault = f"unknown key{did_you_mean(entry.key, ['accounts'])}"
            raise _wrong(file, entry.line, (entry.key,), describe(entry.key), fault, _ALLOWED_TOP)
        if accounts is not None:
            fault = f"the key stands twice, first in line {accounts.line}"
            raise _wrong(file, entry.line, ("accounts",), "'accounts'", fault, _ALLOWED_TOP)
        accounts = entry
    if accounts is None:
        raise _wrong(file, root.line, ("accounts",), "missing", "this key is required", _ALLOWED_TOP)
    entries = _entries(accounts.node, ("accounts",), file, "is not a mapping", _ALLOWED_ACCOUNTS)
    if not entries:
        raise _wrong(file, accounts.line, ("accounts",), "an empty mapping", "has no account", _ALLOWED_ACCOUNTS)
    return entries


def _entries(node: Node, path: Path, file: str, fault: str, allowed: str) -> list[Entry]:
    if node.refused or node.entries is None:
        shown = "a list" if node.items is not None else describe(node.text)
        raise _wrong(file, node.line, path or ("top of the file",), shown, node.refused or fault, allowed)
    for line, shown, reason in node.faults:
        raise _wrong(file, line, path or ("top of the file",), shown, reason, allowed)
    return node.entries


def _wrong(file: str, line: int, path: Path, value: str, fault: str, allowed: str) -> AccountsFileError:
    return AccountsFileError(Problem(line, path, value, fault, allowed).text(file))
