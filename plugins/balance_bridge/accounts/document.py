"""The accounts file as YAML: every scalar is text, every key knows its line.

The usual loaders turn ``NO`` into false and ``007`` into 7, take the last of two equal keys without a word and forget
the lines. Composing with a ``BaseLoader`` does none of that.
"""

from __future__ import annotations

import re
from itertools import accumulate
from pathlib import Path as FilePath

import yaml

from balance_bridge.accounts.problems import Path, Problem, describe
from balance_bridge.errors import AccountsFileError

MAX_BYTES = 4 * 1024 * 1024
MAX_VALUES = 100_000
MAX_DEPTH = 32

Plain = str | list["Plain"] | dict[str, "Plain"]
"""The file's values without their lines."""

_LOADER = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
_KINDS = ("str", "int", "float", "bool", "null", "timestamp", "seq", "map")
_TAGS = {"!", *(f"tag:yaml.org,2002:{kind}" for kind in _KINDS)}
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


class Document:
    """The text of a file as one YAML document.

    Args:
        text: The text.
        file: The file's name, for messages.

    Attributes:
        values: Its values, with aliases written out. Of repeated keys the first one's value is taken.
        problems: The repeated keys, and the keys and tags that cannot be taken.

    Raises:
        AccountsFileError: If it is not one YAML document, or deeper or longer than any accounts file has reason to be.
    """

    def __init__(self, text: str, file: str) -> None:
        self._file = file
        self._count = 0
        self._root = self._compose(text)
        self.problems: list[Problem] = []
        self.values = self._plain(self._root, ())

    def line_at(self, path: Path) -> int:
        """The line of the deepest key or list item on the path that exists."""
        node, line = self._root, _line(self._root)
        for part in path:
            if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
                node = node.value[part]
                line = _line(node)
            elif isinstance(node, yaml.MappingNode):
                entry = next((entry for entry in node.value if entry[0].value == part), None)
                if entry is None:
                    break
                line, node = _line(entry[0]), entry[1]
            else:
                break
        return line

    def _compose(self, text: str) -> yaml.Node:
        # Composing is recursive, in C: what is far too deep must not get there.
        levels = accumulate(1 if each.group() in "[{" else -1 for each in _BRACKET.finditer(text))
        if _NESTED_LISTS.search(text) or max(levels, default=0) > 10 * MAX_DEPTH:
            raise self._too_deep(1)
        try:
            root = yaml.compose(text, Loader=_LOADER)
        except yaml.reader.ReaderError as error:
            line = text.encode().count(b"\n", 0, error.position) + 1
            what = f"the character {chr(error.character)!r} cannot be in YAML"
            raise self._error(line, what, do="Remove it") from error
        except yaml.MarkedYAMLError as error:
            # Not str(error): it may quote the file.
            start = f" that starts in line {error.context_mark.line + 1}" if error.context_mark else ""
            why = ", ".join(part for part in (error.context and error.context + start, error.problem) if part)
            # What is missing at the end of the file is reported on the line after the last.
            line = min(error.problem_mark.line + 1, len(text.splitlines())) if error.problem_mark else 1
            raise self._error(line, "this is not YAML", why, "Correct the file near this line") from error
        if root is None:
            raise self._error(1, "the file is empty", do="Allowed: a mapping with the one key accounts")
        return root

    def _plain(self, node: yaml.Node, path: Path) -> Plain:
        self._check(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._plain(item, (*path, index)) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        return str(node.value)

    def _check(self, node: yaml.Node, path: Path) -> None:
        self._count += 1
        if self._count > MAX_VALUES:
            raise self._error(_line(node), f"more than {MAX_VALUES} values with aliases written out", do="Shorten it")
        if len(path) >= MAX_DEPTH:
            raise self._too_deep(_line(node))
        if node.tag not in _TAGS:
            shown = describe(node.value if isinstance(node, yaml.ScalarNode) else "")
            fault = f"the YAML tag {describe(node.tag)} is not supported here"
            self.problems.append(Problem(_line(node), path, shown, fault, "plain text, lists and mappings"))

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Plain]:
        values: dict[str, Plain] = {}
        for key, value in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else ""
            if not isinstance(key, yaml.ScalarNode):
                self._refuse_key(key, path, "", "a list or mapping cannot be a key")
            elif name == "<<" and not key.style:  # In quotes it is a key like any other.
                self._refuse_key(key, path, name, "merge keys are not supported; use an alias for a whole value")
            elif name in values:
                first = self.line_at((*path, name))
                self._refuse_key(key, (*path, name), name, f"duplicate key, first in line {first}")
            else:
                if key.tag not in _TAGS:
                    self._refuse_key(key, path, name, f"the YAML tag {describe(key.tag)} is not supported here")
                values[name] = self._plain(value, (*path, name))
        return values

    def _refuse_key(self, key: yaml.Node, path: Path, name: str, fault: str) -> None:
        self.problems.append(Problem(_line(key), path, describe(name), fault, "keys that are text, each key once"))

    def _error(self, line: int, what: str, why: str = "", do: str = "") -> AccountsFileError:
        return AccountsFileError(f"{self._file}:{line}: {what}", why=why, do=do)

    def _too_deep(self, line: int) -> AccountsFileError:
        do = "No account needs that: check the brackets and the indentation"
        return self._error(line, f"nested deeper than {MAX_DEPTH} levels", do=do)


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
