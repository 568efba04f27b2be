"""Reads the accounts file and sorts its accounts into those that can run and those that are broken."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path as FilePath

from balance_bridge.accounts.document import Document, Plain, read_text
from balance_bridge.accounts.fields import check_conn_id, parse_day
from balance_bridge.accounts.models import Account
from balance_bridge.accounts.problems import Path, Problem, describe, did_you_mean, dotted
from balance_bridge.accounts.sharing import Claim, Place, find_clashes
from balance_bridge.accounts.validation import usable_destinations, validate
from balance_bridge.errors import AccountsFileError


@dataclass
class BrokenAccount:
    """An account that cannot run, and why.

    Attributes:
        name: Its key under ``accounts`` as it stands in the file, which need not be a valid name.
        file: The file.
        problems: All that is wrong with it.
        start_date: Its first day (UTC), if at least that can be read.
        conn_id: Its exchange's connection, if at least that can be read.
        refused: Its destinations that would deliver to where another one does.
    """

    name: str
    file: str
    problems: list[Problem]
    start_date: date | None = None
    conn_id: str | None = None
    refused: list[str] = field(default_factory=list)

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
            not a mapping with the one key ``accounts`` that holds at least one account.
    """
    return parse_accounts(read_text(path), str(path))


def parse_accounts(text: str, file: str, claims: Callable[[], Collection[Claim]] = tuple) -> AccountsFile:
    """Read the text of an accounts file.

    Args:
        text: The text.
        file: The file's name, for messages.
        claims: Says which accounts delivered where before; called only if two would deliver to one place. The one that
            did not before is refused; if that does not decide it, the later one in the file.

    Raises:
        AccountsFileError: As :func:`load_accounts`.
    """
    document = Document(text, file)
    accounts: dict[str, Account] = {}
    broken: dict[str, BrokenAccount] = {}
    places: list[Place] = []
    for name, given in _accounts(document, file).items():
        path = ("accounts", name)
        account, faults = validate(name, given)
        problems = [problem for problem in document.problems if problem.path[:2] == path]
        problems += [Problem(document.line_at(path + each[0]), path + each[0], *each[1:]) for each in faults]
        if account is not None and not problems:
            accounts[name] = account
        else:
            broken[name] = BrokenAccount(name, file, problems, _start_date(given), _conn_id(given))
        targets = account.destinations if account else usable_destinations(given)
        places += [Place(name, target) for target in targets.values()]
    for place, problem in _refused(places, document, claims):
        account = accounts.pop(place.account, None)
        if account is not None:
            conn_id = getattr(account.source, "conn_id", None)
            broken[account.name] = BrokenAccount(account.name, file, [], account.start_date, conn_id)
        broken[place.account].problems.append(problem)
        broken[place.account].refused.append(place.destination.name)
    return AccountsFile(accounts, broken)


def claims_of(text: str, file: str, refused: Collection[str]) -> set[Claim]:
    """Which accounts of an accounts file deliver where.

    Args:
        text: The text.
        file: The file's name, for messages.
        refused: Destinations that were refused, as ``ACCOUNT.DESTINATION``.

    Raises:
        AccountsFileError: As :func:`load_accounts`.
    """
    found = {name: usable_destinations(given) for name, given in _accounts(Document(text, file), file).items()}
    return {
        Place(name, target).claim
        for name, targets in found.items()
        for target in targets.values()
        if f"{name}.{target.name}" not in refused
    }


def _refused(
    places: list[Place], document: Document, claims: Callable[[], Collection[Claim]]
) -> list[tuple[Place, Problem]]:
    """The places that another one had before, or earlier in the file, and what is wrong with them."""
    clashes = list(find_clashes(places))
    before = claims() if clashes else ()
    order = {place: number for number, place in enumerate(places)}
    found: dict[Place, Problem] = {}
    for *pair, shared in clashes:
        first, other = sorted(pair, key=lambda place: (place.claim not in before, order[place]))
        where, path = dotted(first.path[:-1]), other.path
        at = f"line {document.line_at(first.path)}, {where}"
        fault = f"delivers to {shared} as account {first.account} ({at}), which comes first"
        allowed = "a place of its own for each destination with this connection"
        found.setdefault(other, Problem(document.line_at(path), path, describe(other.value), fault, allowed))
    return list(found.items())


def _accounts(document: Document, file: str) -> dict[str, Plain]:
    """What the file says about each account; raises what is wrong with the file as a whole."""
    top = "a mapping with the one key accounts"

    def wrong(path: Path, value: str, fault: str, allowed: str, line: int = 0) -> AccountsFileError:
        what = f"{file}:{line or document.line_at(path)}: {dotted(path) or 'top of the file'}: {value}"
        return AccountsFileError(what, why=fault, do=f"Allowed: {allowed}")

    for each in document.problems:
        if len(each.path) < 2:
            raise wrong(each.path, each.value, each.fault, each.allowed, each.line)
    values = document.values
    if not isinstance(values, dict):
        raise wrong((), describe(values), "the top of the file is not a mapping", top)
    for key in values:
        if key != "accounts":
            raise wrong((key,), describe(key), f"unknown key{did_you_mean(key, ['accounts'])}", top)
    accounts = values.get("accounts")
    if accounts is None:
        raise wrong(("accounts",), "missing", "this key is required", top)
    if not isinstance(accounts, dict) or not accounts:
        fault = "has no account" if accounts == {} else "is not a mapping"
        allowed = "a mapping from each account's name to its settings, with at least one account"
        raise wrong(("accounts",), describe(accounts), fault, allowed)
    return accounts


def _start_date(given: Plain) -> date | None:
    with contextlib.suppress(ValueError):
        return parse_day(given.get("start_date")) if isinstance(given, dict) else None
    return None


def _conn_id(given: Plain) -> str | None:
    source = given.get("source") if isinstance(given, dict) else None
    if isinstance(source, dict) and source.get("type") != "files":
        with contextlib.suppress(ValueError):
            return check_conn_id(source.get("conn_id"))
    return None
