"""YAML as the accounts file uses it: every scalar is text, every key and value knows its line.

The usual loaders turn ``NO`` into false, ``1e5`` into a number and ``007`` into 7, take the last of two equal keys
without a word and forget the lines. Here the parser's events are put together directly: that keeps all four, and
depth and size are bounded before anything is built, which a loader that composes the whole file first cannot do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import NamedTuple

import yaml

from balance_bridge.accounts.problems import Path, Problem, describe
from balance_bridge.errors import AccountsFileError

MAX_BYTES = 4 * 1024 * 1024
MAX_NODES = 100_000
MAX_DEPTH = 32

Plain = str | list["Plain"] | dict[str, "Plain"]
"""The file's values without their lines."""

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_STANDARD = "tag:yaml.org,2002:"
_SCALAR_TAGS = {"!", *(_STANDARD + name for name in ("str", "int", "float", "bool", "null", "timestamp"))}
_LIST_TAGS = {"!", _STANDARD + "seq"}
_MAPPING_TAGS = {"!", _STANDARD + "map"}


class Entry(NamedTuple):
    """One key of a mapping with its line and value."""

    key: str
    line: int
    node: Node


@dataclass(slots=True)
class Node:
    """A value with its line: a list has ``items``, a mapping has ``entries``, a scalar only its ``text``.

    Attributes:
        line: Where the value starts, from 1.
        text: A scalar's text.
        items: A list's values.
        entries: A mapping's keys in the order of the file, repeated ones included.
        refused: Why the value cannot be taken, if so (a tag, an alias that leads nowhere).
        faults: Keys that cannot be taken: line, key as shown, reason.
        size: Values in it, itself included, with every alias written out.
        depth: Levels in it, with every alias written out.
    """

    line: int
    text: str = ""
    items: list[Node] | None = None
    entries: list[Entry] | None = None
    refused: str = ""
    faults: tuple[tuple[int, str, str], ...] = ()
    size: int = 1
    depth: int = 1

    def line_at(self, path: Path) -> int | None:
        """The line of the deepest key or list item on the path that exists, None if not even the first one does."""
        line: int | None = None
        node: Node = self
        for part in path:
            if isinstance(part, int):
                if node.items is None or part >= len(node.items):
                    break
                node = node.items[part]
                line = node.line
            else:
                entry = next((entry for entry in node.entries or () if entry.key == part), None)
                if entry is None:
                    break
                line, node = entry.line, entry.node
        return line


def read_document(path: FilePath) -> Node:
    """Read the file as one YAML document.

    Raises:
        AccountsFileError: If it cannot be read, is not UTF-8, is not one YAML document, or is larger, deeper or (with
            its aliases written out) longer than any accounts file has reason to be.
    """
    text = _read_text(path)
    unprintable = _UNPRINTABLE.search(text)
    if unprintable:
        line = text.count("\n", 0, unprintable.start()) + 1
        raise AccountsFileError(f"{path}:{line}: the character {unprintable.group()!r} cannot be in YAML; remove it")
    try:
        node = _Builder(text, str(path)).document()
    except yaml.YAMLError as error:
        raise AccountsFileError(_tell(error, path, text)) from error
    if node is None:
        raise AccountsFileError(f"{path}:1: the file is empty; allowed: a mapping with the one key accounts")
    return node


@dataclass
class Findings:
    """What is wrong, as far as it is known.

    Attributes:
        problems: In the order in which they were found.
        refused: Places whose value could not be taken, so that whatever else is said about it is moot.
    """

    problems: list[Problem] = field(default_factory=list)
    refused: set[Path] = field(default_factory=set)

    def add(self, problem: Problem) -> None:
        """Add a problem unless it lies at or below a refused value."""
        if not any(problem.path[:length] in self.refused for length in range(len(problem.path) + 1)):
            self.problems.append(problem)


def plain(node: Node, path: Path, findings: Findings) -> Plain:
    """The value without lines; what cannot be taken is added to the findings.

    Of repeated keys the first one's value is taken. A refused value becomes empty text.

    Args:
        node: The value.
        path: Where it stands.
        findings: Receives repeated and unusable keys, and refused values.
    """
    if node.refused:
        findings.add(Problem(node.line, path, describe(node.text), node.refused, "plain text, lists and mappings"))
        findings.refused.add(path)
        return ""
    if node.items is not None:
        return [plain(item, (*path, index), findings) for index, item in enumerate(node.items)]
    if node.entries is None:
        return node.text
    findings.problems += [
        Problem(line, path, shown, reason, "keys that are text") for line, shown, reason in node.faults
    ]
    values: dict[str, Plain] = {}
    first_line: dict[str, int] = {}
    for key, line, value in node.entries:
        if key in values:
            told = f"the key stands twice, first in line {first_line[key]}"
            findings.add(Problem(line, (*path, key), repr(key), told, "each key once"))
            continue
        first_line[key] = line
        values[key] = plain(value, (*path, key), findings)
    return values


def _read_text(path: FilePath) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise AccountsFileError(
            f"{path}: there is no such file; create it, or correct the option accounts_file in [balance_bridge]"
        ) from error
    except (OSError, ValueError) as error:
        raise AccountsFileError(f"{path}: the file cannot be read ({error}); check its path and permissions") from error
    if len(content) > MAX_BYTES:
        raise AccountsFileError(f"{path}: the file is larger than {MAX_BYTES} bytes; is it the accounts file?")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise AccountsFileError(
            f"{path}:{line}: byte {content[error.start]:#04x} is not UTF-8; save the file as UTF-8"
        ) from error


def _tell(error: yaml.YAMLError, path: FilePath, text: str) -> str:
    # Not str(error): it may quote the file.
    mark, start = getattr(error, "problem_mark", None), getattr(error, "context_mark", None)
    # What is missing at the end of the file is reported on the line after the last.
    line = min(mark.line + 1, len(text.splitlines())) if mark is not None else 1
    context = getattr(error, "context", None)
    since = f"{context} that starts in line {start.line + 1}" if context and start is not None else context
    fault = ", ".join(part for part in (since, getattr(error, "problem", None)) if part)
    return f"{path}:{line}: this is not YAML: {fault or 'unreadable'}; correct the file near this line"


class _Builder:
    """Puts the parser's events together; recursive, to at most ``MAX_DEPTH`` levels."""

    def __init__(self, text: str, file: str) -> None:
        self._events: Iterator[yaml.Event] = iter(yaml.parse(text, Loader=_LOADER))
        self._file = file
        self._anchors: dict[str, Node] = {}
        self._built = 0

    def document(self) -> Node | None:
        root: Node | None = None
        for event in self._events:
            if not isinstance(event, yaml.DocumentStartEvent):
                continue
            if root is not None:
                line = _line(event)
                raise AccountsFileError(f"{self._file}:{line}: a second YAML document starts here; allowed: only one")
            root = self._node(next(self._events), 1)
        return root

    def _node(self, event: yaml.Event, level: int) -> Node:
        line = _line(event)
        if isinstance(event, yaml.AliasEvent):
            known = self._anchors.get(str(event.anchor))
            return known or Node(line, f"*{event.anchor}", refused="this alias has no complete anchor before it")
        anchor: str = getattr(event, "anchor", None) or ""
        if anchor:
            # From here on the name means this value; an alias to it within itself would never end.
            self._anchors.pop(anchor, None)
        self._built += 1
        self._bound(line, level, self._built)
        if isinstance(event, yaml.ScalarEvent):
            node = Node(line, str(event.value), refused=_refuse_tag(event.tag, _SCALAR_TAGS))
        elif isinstance(event, yaml.MappingStartEvent):
            node = self._mapping(Node(line, refused=_refuse_tag(event.tag, _MAPPING_TAGS)), level)
        else:
            node = self._list(Node(line, refused=_refuse_tag(getattr(event, "tag", None), _LIST_TAGS)), level)
        if anchor:
            self._anchors[anchor] = node
        return node

    def _mapping(self, node: Node, level: int) -> Node:
        node.entries = entries = []
        for event in self._events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            key = self._node(event, level + 1)
            value = self._node(next(self._events), level + 1)
            self._add(node, value, level)
            fault = _key_fault(event, key)
            if fault:
                node.faults += ((key.line, describe(key.text), fault),)
            else:
                entries.append(Entry(key.text, _line(event), value))
        return node

    def _list(self, node: Node, level: int) -> Node:
        node.items = items = []
        for event in self._events:
            if isinstance(event, yaml.SequenceEndEvent):
                break
            item = self._node(event, level + 1)
            self._add(node, item, level)
            items.append(item)
        return node

    def _add(self, node: Node, child: Node, level: int) -> None:
        node.size += child.size
        node.depth = max(node.depth, child.depth + 1)
        # At once, not at the end: each alias may add as much as all before it.
        self._bound(node.line, level - 1 + node.depth, node.size)

    def _bound(self, line: int, depth: int, size: int) -> None:
        if depth > MAX_DEPTH:
            raise AccountsFileError(
                f"{self._file}:{line}: nested deeper than {MAX_DEPTH} levels; no account needs that"
            )
        if size > MAX_NODES:
            raise AccountsFileError(
                f"{self._file}:{line}: more than {MAX_NODES} values once the aliases are written out; shorten it"
            )


def _key_fault(event: yaml.Event, key: Node) -> str:
    if key.items is not None or key.entries is not None:
        return "a list or mapping cannot be a key"
    # Only where it is plain (which the first flag says): quoted, it is a key like any other.
    if key.text == "<<" and isinstance(event, yaml.ScalarEvent) and event.implicit[0]:
        return "merge keys are not supported; write the keys out, or give a whole value an anchor and use its alias"
    return key.refused


def _refuse_tag(tag: str | None, known: set[str]) -> str:
    return "" if tag is None or tag in known else f"the YAML tag {describe(tag)} is not supported here; remove it"


def _line(event: yaml.Event) -> int:
    mark = event.start_mark
    return int(mark.line) + 1 if mark is not None else 1
