"""Bad input, one by one: the message has the file, the line, the key, the value, the fault and what is allowed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import NamedTuple

import pytest

from balance_bridge.accounts import AccountsFile

Load = Callable[[str], AccountsFile]
Base = Callable[..., str]

_LONG = "x" * 256
_LEFT_OUT = "#"


class Case(NamedTuple):
    replace: dict[int, str]
    line: int
    key: str
    value: str
    fault: str
    allowed: str


def _source(text: str, line: int, key: str, value: str, fault: str, allowed: str) -> Case:
    return Case({6: f"      category: cash\n      {text}"}, line, f"source.{key}", value, fault, allowed)


def _elven(text: str, line: int, key: str, value: str, fault: str, allowed: str) -> Case:
    replace = {13: f"        timezone: Asia/Shanghai\n        {text}"}
    return Case(replace, line, f"destinations.elven.{key}", value, fault, allowed)


def _amlyze(text: str, line: int, key: str, value: str, fault: str, allowed: str) -> Case:
    replace = {16: f"        requester: treasury\n        {text}"}
    return Case(replace, line, f"destinations.amlyze.{key}", value, fault, allowed)


def _ids(text: str, value: str, fault: str, key: str = "") -> Case:
    path = f"destinations.amlyze.account_ext_id{key}"
    return Case({17: f"        account_ext_id: {text}"}, 17, path, value, fault, "a pattern with {asset}")


def _assets(text: str, key: str, value: str, fault: str, allowed: str = "ignore, {symbol: X} or {asset_id: X}") -> Case:
    return _elven(f"assets: {text}", 14, f"assets{key}", value, fault, allowed)


def _points(text: str, key: str, value: str, fault: str) -> Case:
    return _elven(
        f"points: {text}", 14, f"points{key}", value, fault, "open, close, changes, local_midnight and {every:"
    )


def _tolerance(text: str, key: str, value: str, fault: str) -> Case:
    replace = {7: f"    start_date: 2026-11-01\n    tolerance: {text}"}
    return Case(replace, 8, f"tolerance{key}", value, fault, "an amount of 0 or more")


def _zone(text: str, fault: str = "is not a time zone") -> Case:
    replace = {13: f"        timezone: {text}"}
    return Case(replace, 13, "destinations.elven.timezone", repr(text), fault, "Area/City, such as Asia/Shanghai")


def _day(text: str, fault: str) -> Case:
    return Case({7: f"    start_date: {text}"}, 7, "start_date", repr(text), fault, "YYYY-MM-DD")


CASES = {
    # Missing keys: the line of the mapping that lacks them.
    "source missing": Case(
        dict.fromkeys(range(3, 7), ""), 2, "source", "missing", "required", "type: ascendex, conn_id and category"
    ),
    "source.type missing": Case({4: _LEFT_OUT}, 3, "source.type", "missing", "required", "ascendex, files"),
    "source.conn_id missing": Case({5: _LEFT_OUT}, 3, "source.conn_id", "missing", "required", "Airflow connection"),
    "source.category missing": Case({6: _LEFT_OUT}, 3, "source.category", "missing", "required", "cash, margin"),
    "start_date missing": Case({7: _LEFT_OUT}, 2, "start_date", "missing", "required", "YYYY-MM-DD"),
    "elven conn_id missing": Case(
        {10: _LEFT_OUT}, 9, "destinations.elven.conn_id", "missing", "required", "Airflow connection"
    ),
    "entity_account_id missing": Case(
        {11: _LEFT_OUT}, 9, "destinations.elven.entity_account_id", "missing", "required", "entity account"
    ),
    "source_id missing": Case(
        {12: _LEFT_OUT},
        9,
        "destinations.elven.source_id",
        "missing",
        "required",
        "Without source_id Elven would make a new source for each import",
    ),
    "timezone missing": Case({13: _LEFT_OUT}, 9, "destinations.elven.timezone", "missing", "required", "Area/City"),
    "requester missing": Case({16: _LEFT_OUT}, 14, "destinations.amlyze.requester", "missing", "required", "100"),
    "account_ext_id missing": Case(
        {17: _LEFT_OUT}, 14, "destinations.amlyze.account_ext_id", "missing", "required", "{asset}"
    ),
    # Unknown keys.
    "unknown key of an account": Case(
        {7: "    start_date: 2026-11-01\n    on_brake: hold"},
        8,
        "on_brake",
        "'on_brake'",
        "unknown key, did you mean on_break?",
        "source, start_date, on_break, tolerance, destinations, deferrable, intraday",
    ),
    "unknown key of a source": _source(
        "con_id: x",
        7,
        "con_id",
        "'con_id'",
        "unknown key, did you mean conn_id?",
        "type, conn_id, category, retention_days",
    ),
    "unknown key of elven": _elven(
        "sourceId: x", 14, "sourceId", "'sourceId'", "unknown key, did you mean source_id?", "entity_account_id"
    ),
    "unknown key of amlyze": _amlyze(
        "max_bytes: 1000", 17, "max_bytes", "'max_bytes'", "unknown key", "requester, account_ext_id"
    ),
    "name of a destination": _elven("name: x", 14, "name", "'name'", "unknown key", "conn_id, points, on_unconfirmed"),
    "name of an account": Case(
        {7: "    start_date: 2026-11-01\n    name: x"}, 8, "name", "'name'", "unknown key", "source, start_date"
    ),
    "unknown key of an asset": _assets(
        "{A: {symbl: B}}", ".A.symbl", "'symbl'", "did you mean symbol?", "symbol, asset_id"
    ),
    # Repeated and unusable keys.
    "repeated key": _source(
        "category: cash", 7, "category", "'category'", "stands twice, first in line 6", "each key once"
    ),
    "repeated key, once in quotes": _source('"type": ascendex', 7, "type", "'type'", "stands twice", "each key once"),
    "repeated destination": Case(
        {14: "      elven:"}, 14, "destinations.elven", "'elven'", "stands twice, first in line 9", "each key once"
    ),
    "repeated asset": _assets("{A: ignore, A: ignore}", ".A", "'A'", "stands twice", "each key once"),
    "merge key": _source("<<: {a: b}", 7, "", "'<<'", "merge keys are not supported", "keys that are text"),
    "list as a key": _source("[a, b]: c", 7, "", "''", "cannot be a key", "keys that are text"),
    "tag on a value": _source("retention_days: !days 7", 7, "retention_days", "'7'", "tag '!days'", "plain text"),
    "tag on a mapping": _assets("!!python/dict {}", "", "''", "python/dict' is not supported", "plain text"),
    "alias without an anchor": _source(
        "retention_days: *n", 7, "retention_days", "'*n'", "no complete anchor", "plain"
    ),
    "alias to itself": _assets("&a {A: *a}", ".A", "'*a'", "no complete anchor", "plain text"),
    # Kinds of values.
    "account is text": Case(
        {18: "  third: text\n  other:"}, 18, "", "'text'", "is not a mapping", "source, start_date"
    ),
    "account is a list": Case({18: "  third: [a]\n  other:"}, 18, "", "a list", "is not a mapping", "destinations"),
    "source is text": Case(
        {3: "    source: x", 4: "", 5: "", 6: ""}, 3, "source", "'x'", "is not a mapping", "type: files and path"
    ),
    "conn_id is a mapping": Case(
        {5: "      conn_id: {a: b}"}, 5, "source.conn_id", "a mapping", "is not text", "connection"
    ),
    "destinations is a list": Case(
        {8: "    destinations: [elven]", **dict.fromkeys(range(9, 18), "")},
        8,
        "destinations",
        "a list",
        "is not a mapping",
        "at least one of elven, amlyze",
    ),
    "destination is text": Case(
        {8: "    destinations:\n      elven_2: x"}, 9, "destinations.elven_2", "'x'", "is not a mapping", "a mapping"
    ),
    "no destination": Case(
        {8: "    destinations: {}", **dict.fromkeys(range(9, 18), "")},
        8,
        "destinations",
        "an empty mapping",
        "has no destination",
        "at least one of elven, amlyze",
    ),
    # Source.
    "unknown source": Case(
        {4: "      type: binance"}, 4, "source.type", "'binance'", "is not a type of source", "ascendex, files"
    ),
    "category in capitals": Case(
        {6: "      category: Cash"}, 6, "source.category", "'Cash'", "did you mean cash?", "cash, margin"
    ),
    "conn_id with a blank": Case(
        {5: "      conn_id: my conn"},
        5,
        "source.conn_id",
        "'my conn'",
        "is not a connection id",
        "letters, digits, '_'",
    ),
    "retention_days 0": _source("retention_days: 0", 7, "retention_days", "'0'", "is too small", "from 1 to 365"),
    "retention_days 366": _source("retention_days: 366", 7, "retention_days", "'366'", "is too large", "from 1 to 365"),
    "retention_days 7.0": _source("retention_days: 7.0", 7, "retention_days", "'7.0'", "is not a whole number", "365"),
    "retention_days 007": _source("retention_days: 007", 7, "retention_days", "'007'", "is not a whole number", "365"),
    "retention_days empty": _source("retention_days:", 7, "retention_days", "''", "is not a whole number", "1 to 365"),
    # Dates.
    "date of another form": _day("1.11.2026", "is not of the form YYYY-MM-DD"),
    "date without dashes": _day("20261101", "is not of the form YYYY-MM-DD"),
    "date with a time": _day("2026-11-01 00:00:00", "is not of the form YYYY-MM-DD"),
    "ISO week": _day("2026-W44-7", "is not of the form YYYY-MM-DD"),
    "day that does not exist": _day("2026-02-30", "does not exist"),
    "date too early to compute with": _day("0001-01-01", "is out of range"),
    "date too late to compute with": _day("9999-12-31", "is out of range"),
    # on_break and tolerance.
    "on_break ask": Case(
        {7: "    start_date: 2026-11-01\n    on_break: ask"},
        8,
        "on_break",
        "'ask'",
        "",
        "hold, load",
    ),
    "on_break unknown": Case(
        {7: "    start_date: 2026-11-01\n    on_break: loda"},
        8,
        "on_break",
        "'loda'",
        "did you mean load?",
        "hold, load",
    ),
    "tolerance is a number": _tolerance("1", "", "'1'", "is not a mapping"),
    "tolerance negative": _tolerance("{BTC: -1}", ".BTC", "'-1'", "is negative"),
    "tolerance with a comma": _tolerance("{BTC: '0,1'}", ".BTC", "'0,1'", "is not an amount"),
    "tolerance not a number": _tolerance("{BTC: NaN}", ".BTC", "'NaN'", "is not an amount"),
    "tolerance too fine": _tolerance("{BTC: 1e-19}", ".BTC", "'1e-19'", "more than 18 decimals"),
    "tolerance a list": _tolerance("{BTC: [1]}", ".BTC", "a list", "is not an amount"),
    "tolerance of a nameless asset": _tolerance("{'': 1}", ".''", "''", "is empty"),
    "tolerance of an asset with a blank": _tolerance("{B C: 1}", ".'B C'", "'B C'", "has a blank in it"),
    "tolerance of an asset with a control character": _tolerance(
        '{"B\\x07C": 1}', ".'B\\x07C'", "'B\\x07C'", "has a control character"
    ),
    # Points.
    "no points": _points("[]", "", "an empty list", "has no points"),
    "points as text": _points("close", "", "'close'", "is not a list"),
    "unknown point": _points("[open, closing]", "[1]", "'closing'", "is not a point, did you mean close?"),
    "repeated point": _points("[open, close, open]", "[2]", "'open'", "is the same as points[0]"),
    "repeated step": _points("[{every: 1h}, {every: 60min}]", "[1]", "{every: '60min'}", "is the same as points[0]"),
    "step that does not divide a day": _points("[{every: 7h}]", "[0]", "{every: '7h'}", "'7h' is not a step"),
    "step without a unit": _points("[{every: 1}]", "[0]", "{every: '1'}", "'1' is not a step"),
    "step of nothing": _points("[{every: 0h}]", "[0]", "{every: '0h'}", "'0h' is not a step"),
    "step with the word every": _points(
        "[{every: every 1h}]", "[0]", "{every: 'every 1h'}", "leave out the word every"
    ),
    "step as text": _points("[every 1h]", "[0]", "'every 1h'", "did you mean {every: 1h}?"),
    "step and more": _points("[{every: 1h, from: open}]", "[0]", "a mapping", "must have the one key every"),
    "point is a list": _points("[[close]]", "[0]", "a list", "is not a point"),
    # Time zones.
    "zone that does not exist": _zone("Asia/Shanghia", "did you mean Asia/Shanghai"),
    "zone in small letters": _zone("asia/shanghai", "did you mean Asia/Shanghai"),
    "city alone": _zone("Shanghai", "did you mean Asia/Shanghai"),
    "city of two words": _zone("New York", "did you mean America/New_York"),
    "offset": _zone("+08:00"),
    "folder of the database": _zone("America"),
    "path": _zone("../../etc/passwd"),
    "zone with leap seconds": _zone("right/Asia/Shanghai"),
    "the machine's own zone": _zone("localtime"),
    "empty zone": Case(
        {13: "        timezone:"}, 13, "destinations.elven.timezone", "''", "is not a time zone", "Area/City"
    ),
    "zone of amlyze": _amlyze("timezone: UTC+8", 17, "timezone", "'UTC+8'", "is not a time zone", "Area/City"),
    # Destinations.
    "type missing": Case(
        {9: "      books:"},
        9,
        "destinations.books.type",
        "missing",
        "a destination that is named none of elven, amlyze, webhook must say its type",
        "elven, amlyze, webhook",
    ),
    "type unknown": _elven(
        "type: elvn", 14, "type", "'elvn'", "not a type of destination, did you mean elven?", "amlyze"
    ),
    "type is a list": _elven("type: [elven]", 14, "type", "a list", "is not a type of destination", "elven, amlyze"),
    "destination in capitals": Case(
        {9: "      Elven:\n        type: elven"}, 9, "destinations.Elven", "'Elven'", "is not a name", "a letter a-z"
    ),
    "destination with a long name": Case(
        {9: f"      {'e' * 101}:\n        type: elven"},
        9,
        f"destinations.'{'e' * 80}...'",
        f"'{'e' * 80}...'",
        "has 101 characters",
        "up to 100 characters",
    ),
    "source_id empty": Case(
        {12: "        source_id:"},
        12,
        "destinations.elven.source_id",
        "''",
        "is empty",
        "Without source_id Elven would make a new source for each import",
    ),
    "entity_account_id empty": Case(
        {11: "        entity_account_id: ''"},
        11,
        "destinations.elven.entity_account_id",
        "''",
        "is empty",
        "entity account",
    ),
    "elven max_rows": _elven("max_rows: 1001", 14, "max_rows", "'1001'", "is too large", "from 1 to 1000"),
    "elven max_rows 0": _elven("max_rows: 0", 14, "max_rows", "'0'", "is too small", "from 1 to 1000"),
    "elven max_rows with an underscore": _elven(
        "max_rows: 1_0", 14, "max_rows", "'1_0'", "is not a whole number", "1000"
    ),
    "elven max_bytes": _elven("max_bytes: 999", 14, "max_bytes", "'999'", "is too small", "from 1000 to 10000000"),
    "elven max_bytes large": _elven("max_bytes: 10000001", 14, "max_bytes", "'10000001'", "is too large", "10000000"),
    "amlyze max_rows": _amlyze("max_rows: 10001", 17, "max_rows", "'10001'", "is too large", "from 1 to 10000"),
    "requester too long": Case(
        {16: f"        requester: {_LONG[:101]}"},
        16,
        "destinations.amlyze.requester",
        f"'{'x' * 80}...'",
        "has 101 characters",
        "text of 1 to 100 characters",
    ),
    "business_unit empty": _amlyze("business_unit: ''", 17, "business_unit", "''", "is empty", "1 to 255 characters"),
    "balance_type too long": _amlyze(
        f"balance_type: {_LONG}", 17, "balance_type", f"'{'x' * 80}...'", "has 256 characters", "1 to 255 characters"
    ),
    # Assets.
    "assets is a list": _assets("[A]", "", "a list", "is not a mapping"),
    "asset neither ignored nor mapped": _assets("{A: B}", ".A", "'B'", "is not allowed here"),
    "asset misspelt ignore": _assets("{A: ignored}", ".A", "'ignored'", "did you mean ignore?"),
    "asset mapped to nothing": _assets("{A: {}}", ".A", "an empty mapping", "exactly one of symbol and asset_id"),
    "asset mapped twice": _assets(
        "{A: {symbol: B, asset_id: C}}", ".A", "a mapping", "exactly one of symbol and asset_id"
    ),
    "symbol empty": _assets("{A: {symbol: ''}}", ".A.symbol", "''", "is empty", "a symbol as Elven has it"),
    "symbol with a dash": _assets("{A: {symbol: A-S}}", ".A.symbol", "'A-S'", "has a '-'", "text without '-'"),
    "asset_id empty": _assets("{A: {asset_id: ''}}", ".A.asset_id", "''", "is empty", "an asset's id as Elven has it"),
    "two assets to one symbol": _assets(
        "{A: {symbol: X}, B: {symbol: X}}", ".B", "a mapping", "A, B are all mapped to the symbol 'X'", "each X for one"
    ),
    "two assets to one asset_id": _assets(
        "{A: {asset_id: X}, B: {asset_id: X}}",
        ".B",
        "a mapping",
        "A, B are all mapped to the asset_id 'X'",
        "each X for",
    ),
    "asset with a blank": _assets("{A B: ignore}", ".'A B'", "'A B'", "has a blank in it", "text without blanks"),
    "asset named as pydantic marks a key": _assets("{'[key]': B}", ".'[key]'", "'B'", "is not allowed here"),
    "asset mapped with a key as pydantic marks one": _assets(
        "{A: {'[key]': B}}", ".A.'[key]'", "'[key]'", "unknown key", "symbol, asset_id"
    ),
    "asset of amlyze mapped": _amlyze(
        "assets: {A: {symbol: B}}", 17, "assets.A", "a mapping", "not allowed", "to ignore"
    ),
    # Account ids.
    "pattern without a place": _ids("CASH", "'CASH'", "has no {asset} in it"),
    "pattern with other braces": _ids("'{account}-{asset}'", "'{account}-{asset}'", "has braces besides"),
    "pattern with two places": _ids("'{asset}-{asset}'", "'{asset}-{asset}'", "has braces besides"),
    "pattern empty": _ids("''", "''", "is empty"),
    "pattern too long": _ids(f"'{_LONG[:255]}{{asset}}'", f"'{'x' * 80}...'", "has 262 characters"),
    "ids as a list": _ids("[a]", "a list", "is not text"),
    "no ids": _ids("{}", "an empty mapping", "maps no asset"),
    "id empty": _ids("{A: ''}", "''", "is empty", ".A"),
    "id too long": _ids(f"{{A: {_LONG}}}", f"'{'x' * 80}...'", "has 256 characters", ".A"),
    "id repeated": _ids("{A: X, B: X}", "'X'", "A, B are all mapped to the id 'X'", ".B"),
    "id of an asset with a blank": _ids("{A B: X}", "'A B'", "has a blank in it", ".'A B'"),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_problem_is_told_with_place_value_and_what_is_allowed(load: Load, base: Base, file: Path, case: Case) -> None:
    loaded = load(base(case.replace))

    name = next(iter(loaded.broken))
    path = f"accounts.{name}" + (f".{case.key}".rstrip(".") if case.key else "")
    start = f"{file}:{case.line}: {path}: {case.value}: "
    told = [line for line in loaded.broken[name].message.splitlines() if line.startswith(start)]
    assert told, f"no line starts with {start}\n{loaded.broken[name].message}"
    fault, allowed = told[0].removeprefix(start).split("; allowed: ")
    assert case.fault in fault
    assert case.allowed in allowed


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_account_that_is_wrong_leaves_the_others(load: Load, base: Base, case: Case) -> None:
    loaded = load(base(case.replace))

    assert len(loaded.broken) == 1
    assert len(loaded.accounts) >= 1
    assert not loaded.broken.keys() & loaded.accounts.keys()


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("Main", "is not a name"),
        ("1st", "is not a name"),
        ("_main", "is not a name"),
        ("main-cash", "is not a name"),
        ("größe", "is not a name"),
        ("'main\\n'", "is not a name"),
        ("preflight", "kept for another purpose"),
        ("main_intraday", "kept for another purpose"),
        ("m" * 101, "has 101 characters"),
        ("''", "is not a name"),
        ("NO", "is not a name"),
    ],
)
def test_account_name_is_refused(load: Load, base: Base, file: Path, name: str, fault: str) -> None:
    loaded = load(base({2: f"  {name}:"}))

    assert list(loaded.accounts) == ["other"]
    (broken,) = loaded.broken.values()
    assert broken.message.startswith(f"{file}:2: accounts.")
    assert fault in broken.message
    assert "; allowed: up to 100 characters" in broken.message
    assert len(broken.message.splitlines()) == 1


def test_all_problems_of_an_account_are_in_its_message_by_line(load: Load, base: Base, file: Path) -> None:
    text = base(
        {4: "      type: x", 7: "    start_date: soon", 12: "        source_id: ''", 17: "        points: [never]"}
    )
    message = load(text).broken["main_cash"].message

    assert [line.split(": ")[:2] for line in message.splitlines()] == [
        [f"{file}:4", "accounts.main_cash.source.type"],
        [f"{file}:7", "accounts.main_cash.start_date"],
        [f"{file}:12", "accounts.main_cash.destinations.elven.source_id"],
        [f"{file}:14", "accounts.main_cash.destinations.amlyze.account_ext_id"],
        [f"{file}:17", "accounts.main_cash.destinations.amlyze.points[0]"],
    ]


def test_each_wrong_point_is_told(load: Load, base: Base) -> None:
    message = load(base({13: "        timezone: UTC\n        points: [a, {every: 5h}, c]"})).broken["main_cash"].message

    assert [line.split(": ")[1].rsplit(".", 1)[1] for line in message.splitlines()] == [
        "points[0]",
        "points[1]",
        "points[2]",
    ]


def test_repeated_account_is_broken_with_the_problems_of_all_its_definitions(
    load: Load, base: Base, file: Path
) -> None:
    loaded = load(base({18: "  main_cash:", 20: "    start_date: soon"}))

    assert loaded.accounts == {}
    lines = loaded.broken["main_cash"].message.splitlines()
    assert lines[0].startswith(f"{file}:18: accounts.main_cash: 'main_cash': an account of this name stands in line 2")
    assert lines[1].startswith(f"{file}:20: accounts.main_cash.start_date: 'soon': ")
    assert len(lines) == 2
    assert loaded.broken["main_cash"].start_date == date(2026, 11, 1)


@pytest.mark.parametrize(
    ("text", "expected"), [("2026-11-01", date(2026, 11, 1)), ("soon", None), ("[2026-11-01]", None), ("", None)]
)
def test_start_date_of_a_broken_account_is_kept_where_it_can_be_read(
    load: Load, base: Base, text: str, expected: date | None
) -> None:
    assert load(base({4: "      type: x", 7: f"    start_date: {text}"})).broken["main_cash"].start_date == expected


@pytest.mark.parametrize(
    "replace",
    [
        {5: "      conn_id: ascendex_default\n      api_secret: hunter2"},
        {5: "      conn_id: {password: hunter2}"},
        {5: "      conn_id: 'https://key:hunter2@ascendex.com'"},
        {13: "        timezone: UTC\n        points: [{key: hunter2}]"},
        {5: "      conn_id: ascendex_default\n      <<: {api_secret: hunter2}"},
    ],
)
def test_secret_in_the_wrong_file_does_not_travel_on(load: Load, base: Base, replace: dict[int, str]) -> None:
    message = load(base(replace)).broken["main_cash"].message

    assert message
    assert "hunter2" not in message
