"""Reads the accounts file and sorts its accounts into those that can run and those that are broken."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path as FilePath

import yaml

from balance_bridge.accounts.document import Entry, Plain, Reader, compose, line_at, line_of, read_text
from balance_bridge.accounts.fields import check_conn_id, parse_day
from balance_bridge.accounts.models import Account
from balance_bridge.accounts.problems import Path, Problem, describe, did_you_mean, dotted
from balance_bridge.accounts.sharing import Claim, Place, find_clashes
from balance_bridge.accounts.validation import usable_destinations, validate
from balance_bridge.errors import AccountsFileError

_ALLOWED_TOP = "a mapping with the one key accounts, once"
_ALLOWED_ACCOUNTS = "a mapping from each account's name to its settings, with at least one account"


@dataclass(frozen=True)
class BrokenAccount:
    """An account that cannot run, and why.

    Attributes:
        name: Its key under ``accounts`` as it stands in the file, which need not be a valid name.
        file: The file.
        problems: All that is wrong with it, by line.
        start_date: Its first day (UTC), if at least that can be read.
        conn_id: Its exchange's connection, if at least that can be read.
        refused: Its destinations that would deliver to where another one does.
    """

    name: str
    file: str
    problems: tuple[Problem, ...]
    start_date: date | None = None
    conn_id: str | None = None
    refused: frozenset[str] = frozenset()

    @property
    def message(self) -> str:
        """All of its problems, a line each."""
        return "\n".join(dict.fromkeys(problem.text(self.file) for problem in self.problems))

    def error(self) -> AccountsFileError:
        """All of its problems as the error with which its runs fail."""
        why = "\n".join(dict.fromkeys(problem.text() for problem in self.problems))
        do = "Correct the file, run balance-bridge check, then clear the red runs"
        return AccountsFileError(f"{self.file}: account {self.name} is wrong", why=why, do=do)


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
    definitions = _read(text, file)
    _refuse_sharing(definitions, claims)
    accounts: dict[str, Account] = {}
    broken: dict[str, BrokenAccount] = {}
    for definition in definitions:
        name, first = definition.name, definition.first or definition
        if definition.account is not None and not definition.problems and definition is first:
            accounts[name] = definition.account
            continue
        accounts.pop(name, None)
        found = [each for each in definitions if each.name == name]
        broken[name] = BrokenAccount(
            name,
            file,
            tuple(sorted((problem for each in found for problem in each.problems), key=lambda problem: problem.line)),
            next((each.start_date for each in found if each.start_date), None),
            next((each.conn_id for each in found if each.conn_id), None),
            frozenset(name for each in found for name in each.refused),
        )
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
    places = [place for definition in _read(text, file) for place in definition.places()]
    return {place.claim for place in places if f"{place.account}.{place.destination.name}" not in refused}


@dataclass
class _Definition:
    """One account as it stands in the file, which may define its name twice."""

    number: int
    entry: Entry
    given: Plain
    first: _Definition | None
    problems: list[Problem] = field(default_factory=list)
    account: Account | None = None
    refused: set[str] = field(default_factory=set)

    @property
    def name(self) -> str:
        return self.entry.key

    @property
    def start_date(self) -> date | None:
        with contextlib.suppress(ValueError):
            return parse_day(self.given.get("start_date")) if isinstance(self.given, dict) else None
        return None

    @property
    def conn_id(self) -> str | None:
        source = self.given.get("source") if isinstance(self.given, dict) else None
        if isinstance(source, dict) and source.get("type") != "files":
            with contextlib.suppress(ValueError):
                return check_conn_id(source.get("conn_id"))
        return None

    def places(self) -> list[Place]:
        targets = self.account.destinations if self.account else usable_destinations(self.given)
        return [Place(self.name, self.number, target) for target in targets.values()]

    def line_at(self, path: Path) -> int:
        return line_at(self.entry.node, path) or self.entry.line

    def add(self, path: Path, value: str, fault: str, allowed: str) -> None:
        self.problems.append(Problem(self.line_at(path), ("accounts", self.name, *path), value, fault, allowed))


def _read(text: str, file: str) -> list[_Definition]:
    reader = Reader(file)
    first: dict[str, _Definition] = {}
    definitions = []
    for number, entry in enumerate(_account_entries(compose(text, file), reader, file)):
        given = reader.plain(entry.node, ("accounts", entry.key))
        definition = _Definition(number, entry, given, first.get(entry.key), reader.take_problems())
        definition.account, faults = validate(entry.key, given)
        for fault in faults:
            definition.add(*fault)
        if definition.first is not None:
            line = definition.first.entry.line
            definition.add(
                (), describe(entry.key), f"an account of this name stands in line {line} already", "each once"
            )
        first.setdefault(entry.key, definition)
        definitions.append(definition)
    return definitions


def _refuse_sharing(definitions: list[_Definition], claims: Callable[[], Collection[Claim]]) -> None:
    places = [place for definition in definitions for place in definition.places()]
    clashes = [
        clash
        for clash in find_clashes(places)
        # Two definitions of one account are reported as such.
        if clash.first.account != clash.second.account or clash.first.definition == clash.second.definition
    ]
    before = claims() if clashes else ()
    reported = set()
    for clash in clashes:
        keeps, other = sorted(clash[:2], key=lambda place: (place.claim not in before, place.definition))
        if other in reported:
            continue
        reported.add(other)
        refused, holder = definitions[other.definition], definitions[keeps.definition]
        refused.refused.add(other.destination.name)
        path: Path = ("destinations", other.destination.name, other.key)
        where: Path = ("destinations", keeps.destination.name)
        at = f"line {holder.line_at((*where, keeps.key))}, {dotted(('accounts', keeps.account, *where))}"
        fault = f"delivers to {clash.shared} as account {keeps.account} ({at}), which comes first"
        refused.add(path, describe(getattr(other.destination, other.key)), fault, _OWN[other.key])


_OWN = {
    "source_id": "a source of its own for each destination",
    "account_ext_id": "account ids that no other destination with this connection can produce",
}


def _account_entries(root: yaml.Node, reader: Reader, file: str) -> list[Entry]:
    accounts: Entry | None = None
    for entry in _entries(root, (), reader, file, _ALLOWED_TOP):
        if entry.key != "accounts":
            fault = f"unknown key{did_you_mean(entry.key, ['accounts'])}"
            raise _wrong(file, Problem(entry.line, (entry.key,), describe(entry.key), fault, _ALLOWED_TOP))
        if accounts is not None:
            fault = f"the key stands twice, first in line {accounts.line}"
            raise _wrong(file, Problem(entry.line, ("accounts",), "'accounts'", fault, _ALLOWED_TOP))
        accounts = entry
    if accounts is None:
        raise _wrong(file, Problem(line_of(root), ("accounts",), "missing", "this key is required", _ALLOWED_TOP))
    entries = _entries(accounts.node, ("accounts",), reader, file, _ALLOWED_ACCOUNTS)
    if not entries:
        raise _wrong(
            file, Problem(accounts.line, ("accounts",), "an empty mapping", "has no account", _ALLOWED_ACCOUNTS)
        )
    return entries


def _entries(node: yaml.Node, path: Path, reader: Reader, file: str, allowed: str) -> list[Entry]:
    if not isinstance(node, yaml.MappingNode):
        shown = "a list" if isinstance(node, yaml.SequenceNode) else describe(node.value)
        fault = "is not a mapping" if path else "the top of the file is not a mapping"
        raise _wrong(file, Problem(line_of(node), path, shown, fault, allowed))
    entries = reader.entries(node, path)
    for problem in reader.take_problems():
        raise _wrong(file, problem)
    return entries


def _wrong(file: str, problem: Problem) -> AccountsFileError:
    what = f"{file}:{problem.line}: {dotted(problem.path) or 'top of the file'}: {problem.value}"
    return AccountsFileError(what, why=problem.fault, do=f"Allowed: {problem.allowed}")
