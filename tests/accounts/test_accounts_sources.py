"""Where an account may come from: what is taken, and how each fault is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from balance_bridge.accounts import AccountsFile, AscendexSource, FilesSource

Load = Callable[[str], AccountsFile]
Base = Callable[..., str]

_FILES_KEYS = "type, path, retention_days"
_PATHS = "a folder, absolute or relative to AIRFLOW_HOME, or a URL such as s3://CONN_ID@bucket/folder"

# One file is enough for all examples: each overwrites it whole.
_examples = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=100)


def _files(*lines: str) -> dict[int, str]:
    """The source of the base file's first account replaced by one of files; its lines from 5 on are given."""
    return {4: "      type: files", 5: "\n".join(f"      {line}" for line in lines) or "#", 6: "#"}


@pytest.mark.parametrize(
    "path",
    [
        "/srv/statements",
        "statements",
        "../bank statements/2026",
        "~/statements",
        "file:///srv/statements",
        "s3://aws_default@bucket/statements",
        "s3://bucket/a@b",
        "gs://bucket",
        "memory://x",
        "sftp://bank:22/in",
        "sftp://bank_conn@bank.example:22/in",
        "C:\\statements@bank",
        "größe/账单",
        "NO",
        "x" * 1000,
    ],
)
def test_path_of_files_is_kept_as_it_stands(load: Load, base: Base, path: str) -> None:
    loaded = load(base(_files(f"path: {json.dumps(path)}")))

    assert loaded.broken == {}
    assert loaded.accounts["main_cash"].source == FilesSource(type="files", path=path, retention_days=None)


def test_files_are_there_for_as_long_as_their_account_says(load: Load, base: Base) -> None:
    for days in (1, 3650):
        source = load(base(_files("path: p", f"retention_days: {days}"))).accounts["main_cash"].source
        assert source.retention_days == days


def test_only_what_counts_requests_has_a_pool(load: Load, base: Base) -> None:
    accounts = load(base(_files("path: p"))).accounts

    assert accounts["main_cash"].source.pool is None
    assert isinstance(accounts["other"].source, AscendexSource)
    assert accounts["other"].source.pool == "ascendex_other"


class Case(NamedTuple):
    replace: dict[int, str]
    line: int
    key: str
    value: str
    fault: str
    allowed: str


CASES = {
    "misspelt type": Case(
        {4: "      type: file"}, 4, "type", "'file'", "is not a type of source, did you mean files?", "ascendex, files"
    ),
    "type in capitals": Case(
        {4: "      type: AscendEX"}, 4, "type", "'AscendEX'", "did you mean ascendex?", "ascendex, files"
    ),
    "type empty": Case({4: "      type:"}, 4, "type", "''", "is not a type of source", "ascendex, files"),
    "type is a list": Case({4: "      type: [files]"}, 4, "type", "a list", "is not a type of source", "ascendex"),
    "source is a list": Case(
        {3: "    source: [files]", 4: "", 5: "", 6: ""}, 3, "", "a list", "is not a mapping", "files and path"
    ),
    "source is empty": Case({3: "    source:", 4: "", 5: "", 6: ""}, 3, "", "''", "is not a mapping", "files and path"),
    "path missing": Case(_files(), 3, "path", "missing", "this key is required", _PATHS),
    "path empty": Case(_files("path:"), 5, "path", "''", "is empty", "1 to 1000 characters"),
    "path is a mapping": Case(_files("path: {a: b}"), 5, "path", "a mapping", "is not text", _PATHS),
    "path too long": Case(
        _files(f"path: {'x' * 1001}"), 5, "path", f"'{'x' * 80}...'", "has 1001 characters", "1 to 1000 characters"
    ),
    "path with a control character": Case(
        _files('path: "a\\tb"'), 5, "path", "'a\\tb'", "has a control character", "1 to 1000 characters"
    ),
    "path with a blank at its end": Case(_files("path: 'a '"), 5, "path", "'a '", "a blank at one end", _PATHS),
    "path with a password": Case(
        _files("path: s3://key:hunter2@bucket/folder"),
        5,
        "path",
        "'s3://***@bucket/folder'",
        "put login and password into an Airflow connection",
        "without a password",
    ),
    "retention_days of files 0": Case(
        _files("path: p", "retention_days: 0"), 6, "retention_days", "'0'", "is too small", "from 1 to 3650"
    ),
    "retention_days of files 3651": Case(
        _files("path: p", "retention_days: 3651"), 6, "retention_days", "'3651'", "is too large", "from 1 to 3650"
    ),
    "retention_days of files empty": Case(
        _files("path: p", "retention_days:"), 6, "retention_days", "''", "is not a whole number", "stay for ever"
    ),
    "connection of files": Case(
        _files("path: p", "conn_id: bank"), 6, "conn_id", "'conn_id'", "unknown key", _FILES_KEYS
    ),
    "category of files": Case(
        _files("path: p", "category: cash"), 6, "category", "'category'", "unknown key", _FILES_KEYS
    ),
    "misspelt key of files": Case(
        _files("paht: p"), 5, "paht", "'paht'", "unknown key, did you mean path?", _FILES_KEYS
    ),
    "path of an exchange": Case(
        {6: "      category: cash\n      path: p"}, 7, "path", "'path'", "unknown key", "type, conn_id, category"
    ),
    "name of a source": Case(_files("path: p", "name: x"), 6, "name", "'name'", "unknown key", _FILES_KEYS),
    "deferrable at the source": Case(
        {6: "      category: cash\n      deferrable: true"}, 7, "deferrable", "'deferrable'", "unknown key", "conn_id"
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_fault_of_a_source_is_told_with_place_value_and_what_is_allowed(
    load: Load, base: Base, file: Path, case: Case
) -> None:
    loaded = load(base(case.replace))

    assert list(loaded.accounts) == ["other"]
    path = f"accounts.main_cash.source.{case.key}".rstrip(".")
    start = f"{file}:{case.line}: {path}: {case.value}: "
    told = [line for line in loaded.broken["main_cash"].message.splitlines() if line.startswith(start)]
    assert told, f"no line starts with {start}\n{loaded.broken['main_cash'].message}"
    fault, allowed = told[0].removeprefix(start).split("; allowed: ")
    assert case.fault in fault
    assert case.allowed in allowed


def test_each_fault_of_a_source_is_told_once_beside_those_of_the_rest(load: Load, base: Base) -> None:
    text = base(_files("conn_id: bank", "retention_days: x") | {7: "    start_date: soon", 12: "        source_id: ''"})
    message = load(text).broken["main_cash"].message

    assert [line.split(": ")[1].removeprefix("accounts.main_cash.") for line in message.splitlines()] == [
        "source.path",
        "source.conn_id",
        "source.retention_days",
        "start_date",
        "destinations.elven.source_id",
    ]


def test_connection_of_a_broken_account_is_kept_unless_its_source_has_none(load: Load, base: Base) -> None:
    wrong = {7: "    start_date: soon"}

    assert load(base(wrong)).broken["main_cash"].conn_id == "ascendex_default"
    assert load(base({4: "      type: binance"})).broken["main_cash"].conn_id == "ascendex_default"
    assert load(base({4: "#"})).broken["main_cash"].conn_id == "ascendex_default"
    assert load(base({4: "      type: files"})).broken["main_cash"].conn_id is None
    assert load(base(wrong | _files("path: p"))).broken["main_cash"].conn_id is None


@_examples
# JSON writes what lies beyond as two escapes, which YAML does not know.
@given(text=st.text(st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"]), max_size=40))
def test_any_text_is_a_path_or_a_fault_of_the_path(load: Load, base: Base, text: str) -> None:
    loaded = load(base(_files(f"path: {json.dumps(text)}")))

    if "main_cash" in loaded.accounts:
        assert loaded.accounts["main_cash"].source == FilesSource(path=text)
        assert text.isprintable()
    else:
        (line,) = loaded.broken["main_cash"].message.splitlines()
        assert ":5: accounts.main_cash.source.path: " in line


@_examples
@given(
    before=st.text(st.characters(codec="ascii", exclude_characters=":"), max_size=5),
    after=st.text(st.characters(codec="ascii"), max_size=5),
    rest=st.text(st.characters(codec="ascii"), max_size=10),
)
def test_password_in_a_path_is_refused_and_never_shown(
    load: Load, base: Base, before: str, after: str, rest: str
) -> None:
    path = f"s3://{before}:hunter2{after}@bucket{rest}"
    loaded = load(base(_files(f"path: {json.dumps(path)}")))

    message = loaded.broken["main_cash"].message
    assert "hunter2" not in message
    assert ":5: accounts.main_cash.source.path: " in message
    assert "s3://***@" in message
