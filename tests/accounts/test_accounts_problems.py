"""Bad input, one by one: the message has the file, the line, the key, the value, the fault and what is allowed."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from balance_bridge.accounts import AccountsFile
from balance_bridge.accounts.problems import describe

Load = Callable[[str], AccountsFile]
Base = Callable[..., str]

NO_NUMBERS = ["7.0", "1e2", "ten", "true", "''", "0x10", "1_0", "007", "+5", "9" * 18 + "9"]
_LEFT_OUT = "#"


class Case(NamedTuple):
    """Lines of the base file to replace, and what the message says."""

    replace: dict[int, str]
    line: int
    key: str
    value: str
    fault: str
    allowed: str


def _account(text: str, key: str, value: str, fault: str, allowed: str) -> Case:
    return Case({7: f"    start_date: 2026-11-01\n    {text}"}, 8, key, value, fault, allowed)


def _source(text: str, key: str, value: str, fault: str, allowed: str) -> Case:
    return Case({6: f"      category: cash\n      {text}"}, 7, f"source.{key}".rstrip("."), value, fault, allowed)


def _files(lines: str, line: int, key: str, value: str, fault: str, allowed: str) -> Case:
    return Case({4: "      type: files", 5: lines or "#", 6: "#"}, line, f"source.{key}", value, fault, allowed)


def _elven(text: str, key: str, value: str, fault: str, allowed: str) -> Case:
    replace = {13: f"        timezone: Asia/Shanghai\n        {text}"}
    return Case(replace, 14, f"destinations.elven.{key}", value, fault, allowed)


def _amlyze(text: str, key: str, value: str, fault: str, allowed: str) -> Case:
    replace = {16: f"        requester: treasury\n        {text}"}
    return Case(replace, 17, f"destinations.amlyze.{key}", value, fault, allowed)


def _ids(text: str, value: str, fault: str, key: str = "") -> Case:
    path = f"destinations.amlyze.account_ext_id{key}"
    return Case({17: f"        account_ext_id: {text}"}, 17, path, value, fault, "a pattern with {asset}")


def _assets(text: str, key: str, value: str, fault: str, allowed: str = "ignore, {symbol: X} or {asset_id: X}") -> Case:
    return _elven(f"assets: {text}", f"assets{key}", value, fault, allowed)


def _points(text: str, key: str, value: str, fault: str) -> Case:
    return _elven(f"points: {text}", f"points{key}", value, fault, "open, close, changes, local_midnight and {every:")


def _number(key: str, text: str, fault: str) -> Case:
    return _elven(f"{key}: {text}", key, describe(text.strip("'")), fault, "a whole number from 1 to 1000")


def _tolerance(text: str, key: str, value: str, fault: str) -> Case:
    return _account(f"tolerance: {text}", f"tolerance{key}", value, fault, "an amount of 0 or more")


def _zone(text: str, fault: str = "is not a time zone") -> Case:
    replace = {13: f"        timezone: {text}"}
    return Case(replace, 13, "destinations.elven.timezone", repr(text), fault, "Area/City, such as Asia/Shanghai")


def _day(text: str, fault: str) -> Case:
    return Case({7: f"    start_date: {text}"}, 7, "start_date", repr(text), fault, "YYYY-MM-DD")


def _settle(text: str, fault: str) -> Case:
    return _source(f"settle: {text}", "settle", repr(text), fault, "0, or a whole number of s, min or h up to 3h")


def _code(text: str, key: str, value: str, fault: str) -> Case:
    return _elven(f"bisect_codes: {text}", f"bisect_codes{key}", value, fault, "without 401, 403, 404, 429 and 500")


def _equivalent(text: str, key: str, value: str, fault: str, allowed: str) -> Case:
    return _amlyze(f"equivalent: {text}", f"equivalent{key}", value, fault, allowed)


def _intraday(text: str, fault: str, points: str = "[changes]") -> Case:
    replace = {
        7: f"    start_date: 2026-11-01\n    intraday: {text}",
        13: f"        timezone: UTC\n        points: {points}",
    }
    return Case(replace, 8, "intraday", repr(text), fault, "a step of whole minutes from 1min to 12h")


CASES = {
    # A missing key has the line of the mapping that lacks it.
    "no source": Case(
        dict.fromkeys(range(3, 7), ""), 2, "source", "missing", "required", "type: ascendex, conn_id and category"
    ),
    "no type of a source": Case({4: _LEFT_OUT}, 3, "source.type", "missing", "required", "ascendex, files"),
    "no category": Case({6: _LEFT_OUT}, 3, "source.category", "missing", "required", "cash, margin"),
    "no start_date": Case({7: _LEFT_OUT}, 2, "start_date", "missing", "required", "YYYY-MM-DD"),
    "no conn_id": Case({10: _LEFT_OUT}, 9, "destinations.elven.conn_id", "missing", "required", "Airflow connection"),
    "no source_id": Case(
        {12: _LEFT_OUT},
        9,
        "destinations.elven.source_id",
        "missing",
        "required",
        "Without source_id Elven would make a new source for each import",
    ),
    "no requester": Case({16: _LEFT_OUT}, 14, "destinations.amlyze.requester", "missing", "required", "100"),
    "no type of a destination": Case(
        {9: "      books:"}, 9, "destinations.books.type", "missing", "required", "elven, amlyze, webhook"
    ),
    "no path": _files("", 3, "path", "missing", "required", "a folder, absolute or relative"),
    # Unknown keys.
    "key of an account": _account(
        "on_brake: hold",
        "on_brake",
        "'on_brake'",
        "unknown key, did you mean on_break?",
        "source, start_date, on_break, tolerance, destinations, deferrable, intraday",
    ),
    "key of a source": _source(
        "con_id: x",
        "con_id",
        "'con_id'",
        "unknown key, did you mean conn_id?",
        "type, conn_id, category, retention_days, settle",
    ),
    "key of a destination": _elven(
        "sourceId: x", "sourceId", "'sourceId'", "unknown key, did you mean source_id?", "entity_account_id"
    ),
    "key of another type": _amlyze("max_bytes: 1000", "max_bytes", "'max_bytes'", "unknown key", "requester"),
    "key of an earlier release": _elven(
        "max_in_flight: 3", "max_in_flight", "'max_in_flight'", "unknown key", "timeout_s"
    ),
    "key of an asset": _assets("{A: {symbl: B}}", ".A.symbl", "'symbl'", "did you mean symbol?", "symbol, asset_id"),
    "name in an account": _account("name: x", "name", "'name'", "unknown key", "source, start_date"),
    "name in a destination": _elven("name: x", "name", "'name'", "unknown key", "conn_id, points, on_unconfirmed"),
    "conn_id of files": _files(
        "      path: p\n      conn_id: bank", 6, "conn_id", "'conn_id'", "unknown key", "type, path, retention_days"
    ),
    # YAML.
    "repeated key": _source("category: cash", "category", "'category'", "duplicate key, first in line 6", "once"),
    "repeated key, once in quotes": _source('"type": ascendex', "type", "'type'", "duplicate key", "once"),
    "repeated asset": _assets("{A: ignore, A: ignore}", ".A", "'A'", "duplicate key", "once"),
    "repeated account": Case({18: "  main_cash:"}, 18, "", "'main_cash'", "duplicate key, first in line 2", "once"),
    "merge key": _source("<<: {a: b}", "", "'<<'", "merge keys are not supported", "keys that are text"),
    "list as a key": _source("[a, b]: c", "", "''", "cannot be a key", "keys that are text"),
    "tag on a value": _source("retention_days: !days 7", "retention_days", "'7'", "tag '!days'", "plain text"),
    "tag on a mapping": _assets("!!python/dict {}", "", "''", "python/dict' is not supported", "plain text"),
    # Kinds of values.
    "account is text": Case(
        {18: "  third: text\n  other:"}, 18, "", "'text'", "is not a mapping", "source, start_date"
    ),
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
        "is empty",
        "at least one of elven, amlyze",
    ),
    # Types and names.
    "unknown source": Case(
        {4: "      type: binance"}, 4, "source.type", "'binance'", "is not a type", "ascendex, files"
    ),
    "misspelt source": Case(
        {4: "      type: file"}, 4, "source.type", "'file'", "did you mean files?", "ascendex, files"
    ),
    "misspelt destination": _elven("type: elvn", "type", "'elvn'", "did you mean elven?", "amlyze"),
    "type is a list": _elven("type: [elven]", "type", "a list", "is not a type of destination", "elven, amlyze"),
    "destination in capitals": Case(
        {9: "      Elven:\n        type: elven"}, 9, "destinations.Elven", "'Elven'", "has a character", "a letter a-z"
    ),
    "destination with a long name": Case(
        {9: f"      {'e' * 101}:\n        type: elven"},
        9,
        f"destinations.'{'e' * 80}...'",
        f"'{'e' * 80}...'",
        "is too long",
        "up to 100 characters",
    ),
    # Words and numbers.
    "word in capitals": Case(
        {6: "      category: Cash"}, 6, "source.category", "'Cash'", "did you mean cash?", "cash, margin"
    ),
    "on_break that does not exist": _account(
        "on_break: skip", "on_break", "'skip'", "not allowed here", "hold, load, ask"
    ),
    "on_unconfirmed": _elven("on_unconfirmed: Fail", "on_unconfirmed", "'Fail'", "did you mean fail?", "warn, fail"),
    "connection with a blank": Case(
        {5: "      conn_id: my conn"},
        5,
        "source.conn_id",
        "'my conn'",
        "has a character that is not allowed there",
        "letters, digits, '_'",
    ),
    **{f"number {text}": _number("max_rows", text, "is not a whole number") for text in NO_NUMBERS},
    "number too small": _number("max_rows", "0", "is too small"),
    "number too large": _number("max_rows", "1001", "is too large"),
    "max_rejected": _elven("max_rejected: -1", "max_rejected", "'-1'", "is too small", "from 0 to 1000000"),
    "retention_days": _source("retention_days: 366", "retention_days", "'366'", "is too large", "from 1 to 365"),
    "retention_days of files": _files(
        "      path: p\n      retention_days: 0", 6, "retention_days", "'0'", "is too small", "from 1 to 3650"
    ),
    "truth": _account("deferrable: flase", "deferrable", "'flase'", "is neither true nor false", "true, false"),
    "YAML's other truth": _account(
        "deferrable: yes", "deferrable", "'yes'", "is neither true nor false", "true, false"
    ),
    # Lengths of time, dates and zones.
    "settle without a unit": _settle("10", "is not a length of time"),
    "settle in words": _settle("10 min", "is not a length of time"),
    "settle too long": _settle("181min", "is too large"),
    "date of another form": _day("1.11.2026", "is not of the form YYYY-MM-DD"),
    "ISO week": _day("2026-W44-7", "is not of the form YYYY-MM-DD"),
    "date with a time": _day("2026-11-01 00:00:00", "is not of the form YYYY-MM-DD"),
    "day that does not exist": _day("2026-02-30", "does not exist"),
    "date too early to compute with": _day("0001-01-01", "is too small"),
    "zone that does not exist": _zone("Asia/Shanghia", "did you mean Asia/Shanghai"),
    "city alone": _zone("New York", "did you mean America/New_York"),
    "offset": _zone("+08:00"),
    "folder of the zones": _zone("America"),
    "path to a zone": _zone("../../etc/passwd"),
    "zone with leap seconds": _zone("right/Asia/Shanghai"),
    "the machine's own zone": _zone("localtime"),
    # Tolerance.
    "tolerance is a number": _tolerance("1", "", "'1'", "is not a mapping"),
    "tolerance negative": _tolerance("{BTC: -1}", ".BTC", "'-1'", "is negative"),
    "tolerance with a comma": _tolerance("{BTC: '0,1'}", ".BTC", "'0,1'", "is not an amount"),
    "tolerance too fine": _tolerance("{BTC: 1e-19}", ".BTC", "'1e-19'", "is not an amount"),
    "tolerance of an asset with a blank": _tolerance(
        "{B C: 1}", ".'B C'", "'B C'", "has a character that is not allowed there"
    ),
    # Points and steps.
    "no points": _points("[]", "", "an empty list", "is empty"),
    "points as text": _points("close", "", "'close'", "is not a list"),
    "unknown point": _points("[open, closing]", "[1]", "'closing'", "is not a point, did you mean close?"),
    "repeated point": _points("[open, close, open]", "", "a list", "'open' and 'open' are the same"),
    "repeated step": _points("[{every: 1h}, {every: 60min}]", "", "a list", "'every 1h' and 'every 60min' are"),
    "step that does not divide a day": _points("[{every: 7h}]", "[0]", "{every: '7h'}", "is not a step"),
    "step with the word every": _points(
        "[{every: every 1h}]", "[0]", "{every: 'every 1h'}", "leave out the word every"
    ),
    "step as text": _points("[every 1h]", "[0]", "'every 1h'", "did you mean {every: 1h}?"),
    "step and more": _points("[{every: 1h, from: open}]", "[0]", "a mapping", "must have the one key every"),
    "intraday that does not divide a day": _intraday("7min", "is not a step"),
    "intraday too short": _intraday("30s", "is not such a step"),
    "intraday with seconds": _intraday("90s", "is not such a step"),
    "intraday too long": _intraday("24h", "is not such a step"),
    "intraday with nothing to deliver": _intraday("15min", "would deliver nothing", "[open, close, local_midnight]"),
    "intraday of files": Case(
        _intraday("15min", "").replace | {4: "      type: files", 5: "      path: p", 6: "#"},
        8,
        "intraday",
        "'15min'",
        "a source of type files cannot be followed",
        "for an account of an exchange",
    ),
    # Text and paths.
    "empty text": _elven(
        "entity_account_id_: x\n        bisect_codes: ['']", "bisect_codes[0]", "''", "is empty", "codes"
    )._replace(line=15),
    "text too long": Case(
        {16: f"        requester: {'x' * 101}"},
        16,
        "destinations.amlyze.requester",
        f"'{'x' * 80}...'",
        "is too long",
        "text of 1 to 100 characters",
    ),
    "text with a control character": _files(
        '      path: "a\\tb"', 5, "path", "'a\\tb'", "has a character that is not allowed there", "1 to 1000 characters"
    ),
    "path with a password": _files(
        "      path: s3://key:hunter2@bucket/folder",
        5,
        "path",
        "'s3://***@bucket/folder'",
        "put login and password into an Airflow connection",
        "without a password",
    ),
    # Assets.
    "assets is a list": _assets("[A]", "", "a list", "is not a mapping"),
    "asset neither ignored nor mapped": _assets("{A: B}", ".A", "'B'", "is not allowed here"),
    "asset misspelt ignore": _assets("{A: ignored}", ".A", "'ignored'", "did you mean ignore?"),
    "asset mapped to nothing": _assets("{A: {}}", ".A", "an empty mapping", "exactly one of symbol and asset_id"),
    "asset mapped twice": _assets(
        "{A: {symbol: B, asset_id: C}}", ".A", "a mapping", "exactly one of symbol and asset_id"
    ),
    "symbol with a dash": _assets("{A: {symbol: A-S}}", ".A.symbol", "'A-S'", "has a '-'", "text without '-'"),
    "two assets to one symbol": _assets(
        "{A: {symbol: X}, B: {symbol: X}}", "", "a mapping", "A, B are all mapped to the symbol 'X'"
    ),
    "asset with a blank": _assets(
        "{A B: ignore}", ".'A B'", "'A B'", "has a character that is not allowed there", "text without blanks"
    ),
    "asset named as pydantic marks a key": _assets("{'[key]': B}", ".'[key]'", "'B'", "is not allowed here"),
    "key as pydantic marks one": _assets(
        "{A: {'[key]': B}}", ".A.'[key]'", "'[key]'", "unknown key", "symbol, asset_id"
    ),
    "asset of amlyze mapped": _amlyze("assets: {A: {symbol: B}}", "assets.A", "a mapping", "not allowed", "to ignore"),
    # Account ids.
    "pattern without a place": _ids("CASH", "'CASH'", "has no {asset} in it"),
    "pattern with other braces": _ids("'{account}-{asset}'", "'{account}-{asset}'", "has braces besides"),
    "ids as a list": _ids("[a]", "a list", "is not text"),
    "no ids": _ids("{}", "an empty mapping", "is empty"),
    "id repeated": _ids("{A: X, B: X}", "a mapping", "A, B are all mapped to the id 'X'"),
    "id of an asset with a blank": _ids("{A B: X}", "'A B'", "has a character that is not allowed there", ".'A B'"),
    # Delivery.
    "code about the request": _code("[E9, 401]", "[1]", "'401'", "is about the request, not about a record"),
    "code about the server": _code("['599']", "[0]", "'599'", "is about the request, not about a record"),
    "codes as text": _code("O001", "", "'O001'", "is not a list"),
    "equivalent without prices": _equivalent("{digits: 2}", ".prices", "missing", "required", "CSV or Parquet"),
    "equivalent of an age without a unit": _equivalent(
        "{prices: p, max_age: 24}", ".max_age", "'24'", "is not a length of time", "such as 24h"
    ),
    "equivalent of no age": _equivalent("{prices: p, max_age: '0'}", ".max_age", "'0'", "is too small", "such as 24h"),
    "equivalent of too many digits": _equivalent(
        "{prices: p, digits: 19}", ".digits", "'19'", "is too large", "from 0 to 18"
    ),
    "key of an equivalent": _equivalent(
        "{prices: p, digit: 2}", ".digit", "'digit'", "did you mean digits?", "prices, max_age, digits"
    ),
    "equivalent is text": _equivalent("p.csv", "", "'p.csv'", "is not a mapping", "a mapping with prices"),
    "equivalent of elven": _elven("equivalent: {prices: p}", "equivalent", "'equivalent'", "unknown key", "assets"),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_mistake_breaks_its_account_alone_and_the_message_has_place_value_fault_and_what_is_allowed(
    load: Load, base: Base, file: Path, case: Case
) -> None:
    loaded = load(base(case.replace))

    (name,) = loaded.broken
    assert not loaded.broken.keys() & loaded.accounts.keys()
    assert loaded.accounts or case.line == 18
    path = f"accounts.{name}" + (f".{case.key}".rstrip(".") if case.key else "")
    start = f"{file}:{case.line}: {path}: {case.value}: "
    found = [line for line in loaded.broken[name].message.splitlines() if line.startswith(start)]
    assert found, f"no line starts with {start}\n{loaded.broken[name].message}"
    fault, allowed = found[0].removeprefix(start).split("; allowed: ")
    assert case.fault in fault
    assert case.allowed in allowed


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("Main", "has a character that is not allowed there"),
        ("1st", "has a character that is not allowed there"),
        ("_main", "has a character that is not allowed there"),
        ("main-cash", "has a character that is not allowed there"),
        ("größe", "has a character that is not allowed there"),
        ("'main\\n'", "has a character that is not allowed there"),
        ("preflight", "is reserved"),
        ("accounts_file", "is reserved"),
        ("main_intraday", "is reserved"),
        ("m" * 101, "is too long"),
        ("''", "has a character that is not allowed there"),
        ("NO", "has a character that is not allowed there"),
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


def test_each_wrong_point_is_reported(load: Load, base: Base) -> None:
    message = load(base({13: "        timezone: UTC\n        points: [a, {every: 5h}, c]"})).broken["main_cash"].message

    assert [line.split(": ")[1].rsplit(".", 1)[1] for line in message.splitlines()] == [
        "points[0]",
        "points[1]",
        "points[2]",
    ]


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
        {7: "    start_date: 2026-11-01\n    intraday: https://key:hunter2@ascendex.com/x"},
        {7: "    start_date: 2026-11-01\n    tolerance: {BTC: 'https://key:hunter2@ascendex.com/x'}"},
        {13: "        timezone: UTC\n        points: [{every: 'https://key:hunter2@ascendex.com/x'}]"},
        {13: "        timezone: UTC\n        points: ['every https://key:hunter2@ascendex.com/x']"},
        {13: "        timezone: UTC\n        points: [{every: 'every https://key:hunter2@ascendex.com/x'}]"},
    ],
)
def test_secret_in_the_wrong_file_does_not_travel_on(load: Load, base: Base, replace: dict[int, str]) -> None:
    message = load(base(replace)).broken["main_cash"].message

    assert message
    assert "hunter2" not in message


@pytest.mark.parametrize(
    "wrong",
    [
        {13: "        timezone: UTC\n        points: [chnages]"},
        {11: "        entity_account_id: ''", 13: "        timezone: UTC\n        points: [changes]"},
        {4: "      type: file", 13: "        timezone: UTC\n        points: [changes]"},
    ],
)
def test_a_mistake_elsewhere_is_not_reported_at_intraday_as_well(load: Load, base: Base, wrong: dict[int, str]) -> None:
    replace = {7: "    start_date: 2026-11-01\n    intraday: 15min"} | wrong

    assert ".intraday: " not in load(base(replace)).broken["main_cash"].message


def test_connection_of_a_broken_account_is_kept_unless_its_source_has_none(load: Load, base: Base) -> None:
    wrong = {7: "    start_date: soon"}

    assert load(base(wrong)).broken["main_cash"].conn_id == "ascendex_default"
    assert load(base({4: "      type: binance"})).broken["main_cash"].conn_id == "ascendex_default"
    assert load(base({4: "      type: files"})).broken["main_cash"].conn_id is None


def test_the_error_of_a_broken_account_has_all_of_its_problems_and_a_log_entry_of_three_lines(
    load: Load, base: Base, file: Path
) -> None:
    error = load(base({4: "      type: x", 7: "    start_date: soon"})).broken["main_cash"].error()

    for part in (str(file), "line 4: accounts.main_cash.source.type: 'x'", "line 7: accounts.main_cash.start_date"):
        assert part in str(error)
    assert [line.split(":")[0] for line in error.log_entry().splitlines()] == ["what", "why", "do"]


# One file is enough for all examples: each overwrites it whole.
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(
    before=st.text(st.characters(codec="ascii", exclude_characters=":"), max_size=5),
    after=st.text(st.characters(codec="ascii"), max_size=5),
    rest=st.text(st.characters(codec="ascii"), max_size=10),
)
def test_password_in_a_path_is_refused_and_never_shown(
    load: Load, base: Base, before: str, after: str, rest: str
) -> None:
    path = json.dumps(f"s3://{before}:hunter2{after}@bucket{rest}")
    message = load(base({4: "      type: files", 5: f"      path: {path}", 6: "#"})).broken["main_cash"].message

    assert "hunter2" not in message
    assert ":5: accounts.main_cash.source.path: " in message
    assert "s3://***@" in message
