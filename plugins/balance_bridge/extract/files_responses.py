"""Balances and changes out of CSV and JSON files: what is missing or malformed is refused here, with its place.

What is read is the envelope that :class:`balance_bridge.extract.files.FilesSource` makes of the files: a JSON object
``{"files": {name: text}}``, for changes with the ``from_sn`` that was asked for.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, ClassVar

import pyarrow as pa

from balance_bridge import money
from balance_bridge.errors import Contradiction, InvalidAmount, InvalidResponse
from balance_bridge.extract.source import Page, SnapshotResponse
from balance_bridge.transform.schema import AMOUNT, LEGS
from balance_bridge.transform.snapshot import Snapshot

SNAPSHOT_COLUMNS = ("account", "sn", "at", "asset", "balance")
CHANGE_COLUMNS = ("account", "sn", "at", "event", "reference", "asset", "delta", "balance", "fee")

_SN = re.compile(r"[0-9]{1,19}")
_MAX_SN = 2**63 - 1
# Half a surrogate pair, which JSON can spell, is no text that could be written down again.
_ASSET = re.compile(r"[^\s\x00-\x1f\ud800-\udfff]{1,64}")
_TEXT = re.compile(r"[^\x00-\x1f\ud800-\udfff]*")
_INSTANT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,3})?(Z|[+-][0-9]{2}:[0-9]{2})")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_SHOWN = 200
# What a JSON field may be; a CSV field is always text.
_FEES = {"true": True, "false": False, "": False, True: True, False: False, None: False}


@dataclass(frozen=True, order=True)
class FileLeg:
    """One asset's change within a record; ``balance`` is the one after the whole record."""

    asset: str
    delta: Decimal
    balance: Decimal
    fee: bool


@dataclass(frozen=True)
class FileRecord:
    """A change. Two of them are equal wherever they were read.

    Attributes:
        sn: Its sequence number.
        at_ms: When it happened, UTC milliseconds since the epoch.
        event: What it was; None if that is not told.
        reference: The order or transfer that it belongs to; None if that is not told.
        legs: Its legs, sorted.
        place: File and line or path, for messages.
    """

    shares_sn: ClassVar[bool] = False

    sn: int
    at_ms: int
    event: str | None
    reference: str | None
    legs: tuple[FileLeg, ...]
    place: str = field(compare=False, repr=False)


@dataclass(frozen=True)
class _Fields:
    """The fields of a CSV row or of a JSON object, with their place."""

    values: Mapping[str, Any]
    place: str
    is_row: bool = False

    def refuse(self, name: str, expected: str) -> InvalidResponse:
        shown = repr(self.values.get(name))[:_MAX_SHOWN]
        return InvalidResponse(f"{self.place}: {name} is {shown}, but {expected} is expected")

    def account(self) -> str:
        value = self.values["account"]
        if not isinstance(value, str) or not value.strip() or not _TEXT.fullmatch(value):
            raise self.refuse("account", "the account's name or number as text")
        return value

    def sn(self) -> int:
        value = self.values["sn"]
        if isinstance(value, str) and self.is_row and _SN.fullmatch(value):
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MAX_SN:
            raise self.refuse("sn", f"a whole number from 0 to {_MAX_SN}")
        return value

    def at_ms(self) -> int:
        value = self.values["at"]
        expected = "an instant such as 2026-11-20T00:00:00Z, with Z or an offset and at most milliseconds,"
        if not isinstance(value, str) or not _INSTANT.fullmatch(value):
            raise self.refuse("at", expected)
        try:
            since = datetime.fromisoformat(value) - _EPOCH
        except ValueError as error:
            raise self.refuse("at", expected) from error
        at_ms = (since.days * 86_400 + since.seconds) * 1000 + since.microseconds // 1000
        if at_ms < 0:
            raise self.refuse("at", f"{expected} not before 1970,")
        return at_ms

    def text(self, name: str) -> str | None:
        value = self.values[name]
        if value is not None and (not isinstance(value, str) or not _TEXT.fullmatch(value)):
            raise self.refuse(name, "text in one line")
        return value or None

    def asset(self) -> str:
        value = self.values["asset"]
        if not isinstance(value, str) or not _ASSET.fullmatch(value):
            raise self.refuse("asset", "an asset code of 1 to 64 characters without blanks")
        return value

    def amount(self, name: str) -> Decimal:
        try:
            return _amount(self.values[name])
        except InvalidAmount as error:
            raise InvalidResponse(f"{self.place}: {name}: {error}") from error

    def fee(self) -> bool:
        value = self.values["fee"]
        if isinstance(value, str | bool | None) and value in _FEES and (self.is_row or not isinstance(value, str)):
            return _FEES[value]
        raise self.refuse("fee", "true, false or nothing")


def read_snapshot(body: bytes, day: date) -> SnapshotResponse:
    """Interpret the file of a day's opening balances.

    Raises:
        InvalidResponse: If something in it is missing or malformed, or it is another day's or of several accounts.
    """
    files, _ = _files(body)
    if len(files) != 1:
        raise InvalidResponse(
            f"one file with the balances of {day} is expected, not {', '.join(sorted(files)) or 'none'}"
        )
    [(name, text)] = files.items()
    read = _snapshot_of_csv if name.endswith(".csv") else _snapshot_of_json
    head, account, balances = read(name, text)
    at_ms = head.at_ms()
    if at_ms != _start_ms(day):
        raise head.refuse("at", f"the start of the day, {day}T00:00:00Z,")
    return SnapshotResponse(account, Snapshot(head.sn(), at_ms, balances))


def read_page(body: bytes) -> Page:
    """Interpret the files of changes: each record from the number on that was asked for, once.

    Raises:
        InvalidResponse: If something in it is missing or malformed, or it is of several accounts.
        Contradiction: If a sequence number stands in two places with different content.
    """
    files, from_sn = _files(body)
    accounts: dict[str, str] = {}
    records: dict[int, FileRecord] = {}
    for name, text in files.items():
        read = _changes_of_csv if name.endswith(".csv") else _changes_of_json
        account, found = read(name, text)
        if account is not None:
            accounts.setdefault(account, name)
        for record in found:
            _add(records, record)
    if len(accounts) != 1:
        told = " and ".join(f"{account!r} in {name}" for account, name in accounts.items()) or "none"
        raise InvalidResponse(f"the files of one account are expected; {', '.join(files)} name {told}")
    wanted = [record for sn, record in sorted(records.items()) if sn >= from_sn]
    return Page(next(iter(accounts)), (wanted,), _legs(wanted))


def _legs(records: Sequence[FileRecord]) -> pa.Table:
    """Records as a table of legs; of kind ``order`` where there is a reference."""
    rows = [(record, leg) for record in records for leg in record.legs]
    columns = {
        "sn": [record.sn for record, _ in rows],
        "at": [record.at_ms for record, _ in rows],
        "kind": ["order" if record.reference else "balance" for record, _ in rows],
        "event": [record.event for record, _ in rows],
        "order_id": [record.reference for record, _ in rows],
        "asset": [leg.asset for _, leg in rows],
        "fee": [leg.fee for _, leg in rows],
    }
    arrays = {name: pa.array(values, LEGS.field(name).type) for name, values in columns.items()}
    arrays |= {name: pa.array([getattr(leg, name) for _, leg in rows], AMOUNT) for name in ("delta", "balance")}
    return pa.table([arrays[name] for name in LEGS.names], schema=LEGS)


def _files(body: bytes) -> tuple[dict[str, str], int]:
    envelope = _json("the stored response", body.decode("utf-8", "replace"))
    known = envelope if isinstance(envelope, dict) else {}
    files, from_sn = known.get("files"), known.get("from_sn", 0)
    whole = isinstance(files, dict) and all(isinstance(text, str) for text in files.values())
    if not isinstance(files, dict) or not whole or not isinstance(from_sn, int):
        raise InvalidResponse('the stored response is not {"files": {name: text}} as this source makes it')
    return {name: text.removeprefix("\ufeff") for name, text in files.items()}, from_sn


def _snapshot_of_csv(name: str, text: str) -> tuple[_Fields, str, dict[str, Decimal]]:
    balances: dict[str, Decimal] = {}
    head: _Fields | None = None
    empty = False
    for row in _rows(name, text, SNAPSHOT_COLUMNS):
        head = head or row
        _check_same(head, row, ("account", "sn", "at"))
        if empty or (not row.values["asset"] and not row.values["balance"]):
            # The row of an account without any balance stands alone.
            if row is not head:
                raise row.refuse("asset", "an asset code: only an account's one row may be without")
            empty = True
            continue
        _put(balances, row)
    if head is None:
        raise InvalidResponse(
            f"{name}: there is no row: of an account without any balance one is expected, asset empty"
        )
    return head, head.account(), balances


def _snapshot_of_json(name: str, text: str) -> tuple[_Fields, str, dict[str, Decimal]]:
    head = _object(_json(name, text), f"{name}: $", ("account", "sn", "at", "balances"))
    given = head.values["balances"]
    if not isinstance(given, dict):
        raise head.refuse("balances", "an object with an amount for each asset")
    balances: dict[str, Decimal] = {}
    for asset, amount in given.items():
        _put(balances, _Fields({"asset": asset, "balance": amount}, f"{name}: $.balances[{asset!r}]"))
    return head, head.account(), balances


def _put(balances: dict[str, Decimal], row: _Fields) -> None:
    asset = row.asset()
    if asset in balances:
        raise row.refuse("asset", "each asset once")
    balances[asset] = row.amount("balance")


def _changes_of_csv(name: str, text: str) -> tuple[str | None, list[FileRecord]]:
    rows: dict[int, list[_Fields]] = {}
    first: _Fields | None = None
    for row in _rows(name, text, CHANGE_COLUMNS):
        first = first or row
        _check_same(first, row, ("account",))
        rows.setdefault(row.sn(), []).append(row)
    records = []
    for of_record in rows.values():
        for row in of_record[1:]:
            _check_same(of_record[0], row, ("at", "event", "reference"))
        records.append(_record(of_record[0], of_record))
    return (None if first is None else first.account()), records


def _changes_of_json(name: str, text: str) -> tuple[str, list[FileRecord]]:
    head = _object(_json(name, text), f"{name}: $", ("account", "changes"))
    records: dict[int, FileRecord] = {}
    for number, given in enumerate(_list(head, "changes")):
        place = f"{name}: $.changes[{number}]"
        change = _object(given, place, ("sn", "at", "legs"), ("event", "reference"))
        told = f"{place} (sn {change.sn()})"
        rows = [
            _object(leg, f"{told}.legs[{index}]", ("asset", "delta", "balance"), ("fee",))
            for index, leg in enumerate(_list(change, "legs"))
        ]
        if not rows:
            raise change.refuse("legs", "at least one leg")
        _add(records, _record(change, rows))
    return head.account(), list(records.values())


def _record(head: _Fields, rows: Iterable[_Fields]) -> FileRecord:
    found = [FileLeg(row.asset(), row.amount("delta"), row.amount("balance"), row.fee()) for row in rows]
    return FileRecord(
        head.sn(), head.at_ms(), head.text("event"), head.text("reference"), tuple(sorted(found)), head.place
    )


def _add(records: dict[int, FileRecord], record: FileRecord) -> None:
    twin = records.setdefault(record.sn, record)
    if twin != record:
        raise Contradiction(
            f"sn {record.sn} comes twice with different content: {twin.place}: {twin}; {record.place}: {record}"
        )


def _check_same(first: _Fields, row: _Fields, names: Iterable[str]) -> None:
    for name in names:
        if row.values[name] != first.values[name]:
            raise row.refuse(name, f"{first.values[name]!r} as in {first.place}")


def _rows(name: str, text: str, columns: Sequence[str]) -> Iterator[_Fields]:
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(lines, [])
        _check_names(f"{name} line 1", header, columns, ())
        for cells in lines:
            place = f"{name} line {lines.line_num}"
            if not cells:
                continue
            if len(cells) != len(header):
                raise InvalidResponse(f"{place}: {len(header)} fields are expected, not {len(cells)}: {_shown(cells)}")
            yield _Fields(dict(zip(header, cells, strict=True)), place, is_row=True)
    except csv.Error as error:
        raise InvalidResponse(f"{name} line {lines.line_num}: no CSV with commas and double quotes: {error}") from error


def _object(value: Any, place: str, names: Sequence[str], optional: Sequence[str] = ()) -> _Fields:
    if not isinstance(value, dict):
        raise InvalidResponse(f"{place}: an object with {', '.join(names)} is expected, not {_shown(value)}")
    _check_names(place, list(value), names, optional)
    return _Fields(dict.fromkeys(optional) | value, place)


def _check_names(place: str, given: Sequence[str], names: Sequence[str], optional: Sequence[str]) -> None:
    wrong = {
        "missing": [name for name in names if name not in given],
        "unknown": [name for name in given if name not in (*names, *optional)],
        "twice": sorted({name for name in given if given.count(name) > 1}),
    }
    told = [f"{what}: {_shown(found)}" for what, found in wrong.items() if found]
    if told:
        raise InvalidResponse(f"{place}: {'; '.join(told)}; expected are {', '.join((*names, *optional))}")


def _list(fields: _Fields, name: str) -> list[Any]:
    value = fields.values[name]
    if not isinstance(value, list):
        raise fields.refuse(name, "a list")
    return value


def _json(name: str, text: str) -> Any:
    try:
        return json.loads(
            text, parse_float=Decimal, parse_constant=_refuse_constant, object_pairs_hook=_without_repeats
        )
    except (ValueError, ArithmeticError, RecursionError) as error:
        raise InvalidResponse(f"{name}: this is no JSON: {error}") from error


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the key {name!r} comes twice in one object")
        found[name] = value
    return found


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _amount(value: object) -> Decimal:
    if isinstance(value, Decimal):
        return money.check(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return money.check(Decimal(value))
    return money.parse(value)  # type: ignore[arg-type]  # refuses what is no text


def _shown(value: object) -> str:
    return repr(value)[:_MAX_SHOWN]


def _start_ms(day: date) -> int:
    return (day - _EPOCH.date()).days * 86_400_000
