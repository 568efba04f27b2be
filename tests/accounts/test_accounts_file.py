"""What is wrong with the file as a whole, and that nothing but an AccountsFileError ever comes out of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from balance_bridge.accounts import AccountsFile, load_accounts
from balance_bridge.errors import AccountsFileError

Load = Callable[[str], AccountsFile]
Base = Callable[..., str]


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("# nothing\n", 1, ["the file is empty", "the one key accounts"]),
        ("just text", 1, ["'just text'", "top of the file", "is not a mapping", "Allowed: accounts"]),
        ("- accounts", 1, ["a list", "top of the file", "is not a mapping"]),
        ("{}", 1, ["accounts: missing", "this key is required"]),
        ("account:\n  a: b", 1, ["'account'", "unknown key, did you mean accounts?"]),
        ("accounts: {a: b}\nversion: 1", 2, ["'version'", "unknown key", "Allowed: accounts"]),
        ("accounts: {a: b}\naccounts: {c: d}", 2, ["'accounts'", "duplicate key, first in line 1"]),
        ("accounts:", 1, ["accounts: ''", "is not a mapping", "each account's name"]),
        ("\naccounts: [a]", 2, ["accounts: a list", "is not a mapping"]),
        ("accounts: !!set {a}", 1, ["the YAML tag 'tag:yaml.org,2002:set' is not supported"]),
        ("accounts:\n  <<: {a: b}\n  c: d", 2, ["'<<'", "merge keys are not supported"]),
        ("accounts:\n  [a]: b", 2, ["a list or mapping cannot be a key"]),
        ("accounts: {a: b}\n---\naccounts: {c: d}", 2, ["expected a single document"]),
        ("accounts: {a: b", 1, ["this is not YAML", "while parsing a flow mapping that starts in line 1"]),
        ("accounts:\n\t- a", 2, ["this is not YAML", "cannot start any token"]),
        ("accounts:\n  a: *b", 2, ["this is not YAML", "undefined alias"]),
        ("accounts:\n  a: &a {b: *a}", 2, ["nested deeper than 32 levels"]),
        ("accounts:\n  a: \x07", 2, ["'\\x07' cannot be in YAML"]),
        ("accounts: " + "[" * 1_000_000, 1, ["nested deeper than 32 levels"]),
        ("- " * 1_000_000, 1, ["nested deeper than 32 levels"]),
        ("accounts:\n" + "- a\n" * 100_001, None, ["more than 100000 values"]),
    ],
)
def test_file_is_refused_with_line_and_reason(
    load: Load, file: Path, text: str, line: int | None, said: list[str]
) -> None:
    with pytest.raises(AccountsFileError) as refused:
        load(text)

    assert str(refused.value).startswith(f"{file}:{line}: " if line else f"{file}:")
    for part in said:
        assert part in str(refused.value)


def test_missing_file_is_refused_with_what_to_do(file: Path) -> None:
    with pytest.raises(AccountsFileError, match=r"there is no such file.*Create it, or correct the option"):
        load_accounts(file)


def test_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AccountsFileError, match="the file cannot be read"):
        load_accounts(tmp_path)
    with pytest.raises(AccountsFileError, match="the file cannot be read"):
        load_accounts(tmp_path / "a\0b")


def test_file_in_another_encoding_is_refused_with_its_line(file: Path) -> None:
    file.write_bytes("accounts:\n  # größe\n".encode("latin-1"))

    with pytest.raises(AccountsFileError, match=r":2: byte 0xf6 is not UTF-8"):
        load_accounts(file)


def test_file_that_is_too_large_is_not_read_to_its_end(file: Path) -> None:
    file.write_bytes(b"#" * (4 * 1024 * 1024 + 1))

    with pytest.raises(AccountsFileError, match="larger than 4194304 bytes"):
        load_accounts(file)


def test_aliases_that_multiply_are_refused_before_they_are_written_out(load: Load) -> None:
    levels = "".join(f"  l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]\n" for n in range(1, 20))

    with pytest.raises(AccountsFileError, match="more than 100000 values with aliases written out"):
        load("accounts:\n  l0: &l0 [x]\n" + levels)


def test_message_does_not_quote_the_file(load: Load) -> None:
    with pytest.raises(AccountsFileError) as refused:
        load("accounts:\n  a: {password: hunter2\n  b: c\n")

    assert "hunter2" not in str(refused.value)


def _survives(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8", newline="")
    try:
        loaded = load_accounts(file)
    except AccountsFileError:
        return
    assert not loaded.accounts.keys() & loaded.broken.keys()
    for broken in loaded.broken.values():
        assert broken.message
        for line in broken.message.splitlines():
            assert line.startswith(f"{file}:")
            assert "; allowed: " in line


# One file is enough for all examples: each overwrites it whole.
_examples = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=100)


@_examples
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=200))
def test_any_text_gives_accounts_or_an_accounts_file_error(file: Path, text: str) -> None:
    _survives(file, text)


_words = st.sampled_from(
    [
        *(
            "a",
            "source",
            "start_date",
            "destinations",
            "elven",
            "amlyze",
            "points",
            "close",
            "every",
            "assets",
            "{asset}",
        ),
        *("'", '"', "<<", "*a", "&a", "!!str", "!x", "? ", "- ", ": ", "{", "}", "[", "]", ",", "|", "#", "\n", "\n  "),
    ]
)


@_examples
@given(words=st.lists(_words, max_size=40))
def test_any_mixture_of_yaml_gives_accounts_or_an_accounts_file_error(file: Path, words: list[str]) -> None:
    _survives(file, "accounts:\n  a: " + "".join(words))


_keys = st.sampled_from(
    [
        *("source", "start_date", "on_break", "tolerance", "destinations", "elven", "amlyze", "x", "type", "conn_id"),
        *("category", "points", "assets", "entity_account_id", "source_id", "timezone", "max_rows", "account_ext_id"),
        *("path", "deferrable", "intraday", "retention_days"),
        *("requester", "name", "symbol", "asset_id", "every", "[key]", "text", "mapping", "", "A B"),
    ]
)
_scalars = st.sampled_from(
    [
        *("elven", "amlyze", "ignore", "1", "", "close", "2026-11-01", "UTC", "{asset}", "ascendex", "cash"),
        *("files", "changes", "15min", "true", "s3://c@bucket/f"),
    ]
)
_values = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys, inner, max_size=6),
    max_leaves=30,
)


def _write(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_write(key)}: {_write(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_write, value)) + "]"
    return f'"{value}"'


@settings(_examples, max_examples=50)
@given(
    destinations=st.dictionaries(_keys, _values, max_size=3) | _values,
    rest=st.dictionaries(_keys, _values, max_size=5),
    source=_values,
)
def test_any_structure_gives_accounts_that_are_right_or_broken(
    file: Path, destinations: object, rest: dict[str, object], source: object
) -> None:
    account = {**rest, "source": source, "destinations": destinations}
    _survives(file, f"accounts:\n  a: {_write(account)}\n  b: {_write(rest)}\n")


@_examples
@given(line=st.integers(1, 22), column=st.integers(0, 60), text=st.text(st.characters(codec="ascii"), max_size=5))
def test_any_edit_of_a_good_file_gives_accounts_or_an_accounts_file_error(
    file: Path, base: Base, line: int, column: int, text: str
) -> None:
    lines = base().splitlines()
    lines[line - 1] = lines[line - 1][:column] + text + lines[line - 1][column + 1 :]
    _survives(file, "\n".join(lines))
