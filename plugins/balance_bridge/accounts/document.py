"""The accounts file as YAML: every scalar is text, every key knows its line.

The usual loaders turn ``NO`` into false and ``007`` into 7, take the last of two equal keys without a word and forget
the lines. Composing with a ``BaseLoader`` does none of that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path as FilePath
from typing import NamedTuple

import yaml

from balance_bridge.accounts.problems import Path, Problem, describe
from balance_bridge.errors import AccountsFileError

MAX_BYTES = 4 * 1024 * 1024
MAX_VALUES = 100_000
MAX_DEPTH = 32

Plain = str | list["Plain"] | dict[str, "Plain"]
"""The file's values without their lines."""

_LOADER = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_TAGS = {"!", *(f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "timestamp"))}
_TAGS |= {"tag:yaml.org,2002:seq", "tag:yaml.org,2002:map"}
_BRACKET = re.compile(r"[\[\]{}]")
_NESTED_LISTS = re.compile(rf"(?:[-?:][ \t]+){{{MAX_DEPTH}}}")


def read_text(path: FilePath) -> str:
    """The file's text.

    Raises:
        AccountsFileError: If it cannot be read, is not UTF-8, or is larger than any accounts file has reason to be.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        do = "Create it, or correct the option accounts_file in [balance_bridge]"
        raise AccountsFileError(f"{path}: there is no such file", do=do) from error
    except (OSError, ValueError) as error:
        do = "Check its path and permissions"
        raise AccountsFileError(f"{path}: the file cannot be read", why=str(error), do=do) from error
    if len(content) > MAX_BYTES:
        do = "Check whether it is the accounts file"
        raise AccountsFileError(f"{path}: the file is larger than {MAX_BYTES} bytes", do=do)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        what = f"{path}:{line}: byte {content[error.start]:#04x} is not UTF-8"
        raise AccountsFileError(what, do="Save the file as UTF-8") from error


def compose(text: str, file: str) -> yaml.Node:
    """The text as one YAML document.

    Args:
        text: The text.
        file: The file's name, for messages.

    Raises:
        AccountsFileError: If it is not one YAML document, or nested deeper than any accounts file has reason to be.
    """
    unprintable = _UNPRINTABLE.search(text)
    if unprintable:
        what = f"{file}:{_line_at(text, unprintable)}: the character {unprintable.group()!r} cannot be in YAML"
        raise AccountsFileError(what, do="Remove it")
    # Composing is recursive, in C: what is far too deep must not get there.
    levels = accumulate(1 if each.group() in "[{" else -1 for each in _BRACKET.finditer(text))
    nested = _NESTED_LISTS.search(text)
    if nested or max(levels, default=0) > 10 * MAX_DEPTH:
        raise _too_deep(file, _line_at(text, nested) if nested else 1)
    try:
        root = yaml.compose(text, Loader=_LOADER)
    except yaml.YAMLError as error:
        raise _not_yaml(error, file, text) from error
    if root is None:
        raise AccountsFileError(f"{file}:1: the file is empty", do="Allowed: a mapping with the one key accounts")
    return root


class Entry(NamedTuple):
    """A key of a mapping with its line and value."""

    key: str
    line: int
    node: yaml.Node


class Reader:
    """Takes values out of a composed document, and collects what is wrong with the YAML itself.

    Args:
        file: The file's name, for messages.
    """

    def __init__(self, file: str) -> None:
        self._file = file
        self._problems: list[Problem] = []
        self._values = 0

    def take_problems(self) -> list[Problem]:
        """The repeated keys, and the keys and tags that cannot be taken, that were found since the last call."""
        found, self._problems = self._problems, []
        return found

    def entries(self, node: yaml.MappingNode, path: Path) -> list[Entry]:
        """A mapping's entries, repeated keys included.

        Raises:
            AccountsFileError: As :meth:`plain`.
        """
        self._check(node, path)
        found = []
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._add(key, path, "''", "a list or mapping cannot be a key", "keys that are text")
            # Only where it is plain: quoted, it is a key like any other.
            elif key.value == "<<" and not key.style:
                fault = "merge keys are not supported; write the keys out, or use an alias for a whole value"
                self._add(key, path, "'<<'", fault, "keys that are text")
            else:
                self._check(key, path)
                found.append(Entry(str(key.value), line_of(key), value))
        return found

    def plain(self, node: yaml.Node, path: Path) -> Plain:
        """The value without lines, with its aliases written out. Of repeated keys the first one's value is taken.

        Raises:
            AccountsFileError: If it is longer or deeper than any account has reason to be.
        """
        if isinstance(node, yaml.SequenceNode):
            self._check(node, path)
            return [self.plain(item, (*path, index)) for index, item in enumerate(node.value)]
        if not isinstance(node, yaml.MappingNode):
            self._check(node, path)
            return str(node.value)
        values: dict[str, Plain] = {}
        first_line: dict[str, int] = {}
        for key, line, value in self.entries(node, path):
            if key in values:
                fault = f"the key stands twice, first in line {first_line[key]}"
                self._problems.append(Problem(line, (*path, key), repr(key), fault, "each key once"))
            else:
                first_line[key] = line
                values[key] = self.plain(value, (*path, key))
        return values

    def _check(self, node: yaml.Node, path: Path) -> None:
        self._values += 1
        if self._values > MAX_VALUES:
            what = f"{self._file}:{line_of(node)}: more than {MAX_VALUES} values once the aliases are written out"
            raise AccountsFileError(what, do="Shorten it")
        if len(path) >= MAX_DEPTH:
            raise _too_deep(self._file, line_of(node))
        if node.tag not in _TAGS:
            shown = describe(node.value if isinstance(node, yaml.ScalarNode) else "")
            fault = f"the YAML tag {describe(node.tag)} is not supported here"
            self._add(node, path, shown, fault, "plain text, lists and mappings")

    def _add(self, node: yaml.Node, path: Path, shown: str, fault: str, allowed: str) -> None:
        self._problems.append(Problem(line_of(node), path, shown, fault, allowed))


def line_of(node: yaml.Node) -> int:
    """The line where the value starts, from 1."""
    return int(node.start_mark.line) + 1


def line_at(node: yaml.Node, path: Path) -> int | None:
    """The line of the deepest key or list item on the path that exists below the node; None if there is none."""
    line = None
    for part in path:
        if isinstance(part, int) and isinstance(node, yaml.SequenceNode) and part < len(node.value):
            key = node = node.value[part]
        elif isinstance(node, yaml.MappingNode):
            entry = next((entry for entry in node.value if entry[0].value == part), None)
            if entry is None:
                break
            key, node = entry
        else:
            break
        line = line_of(key)
    return line


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002
        return True


def write_accounts(accounts: Mapping[str, object]) -> str:
    """Accounts as the text of an accounts file.

    Args:
        accounts: By name, as mappings with the file's keys; the values are text, whole numbers, dates, true or false,
            lists and mappings.
    """
    return yaml.dump({"accounts": dict(accounts)}, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def _line_at(text: str, match: re.Match[str]) -> int:
    return text.count("\n", 0, match.start()) + 1


def _too_deep(file: str, line: int) -> AccountsFileError:
    what = f"{file}:{line}: nested deeper than {MAX_DEPTH} levels"
    return AccountsFileError(what, do="No account needs that: check the brackets and the indentation")


def _not_yaml(error: yaml.YAMLError, file: str, text: str) -> AccountsFileError:
    # Not str(error): it may quote the file.
    mark, start = getattr(error, "problem_mark", None), getattr(error, "context_mark", None)
    # What is missing at the end of the file is reported on the line after the last.
    line = min(mark.line + 1, len(text.splitlines())) if mark is not None else 1
    context = getattr(error, "context", None)
    since = f"{context} that starts in line {start.line + 1}" if context and start is not None else context
    why = ", ".join(part for part in (since, getattr(error, "problem", None)) if part)
    return AccountsFileError(f"{file}:{line}: this is not YAML", why=why, do="Correct the file near this line")
