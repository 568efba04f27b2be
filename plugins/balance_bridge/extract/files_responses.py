"""Balances and changes out of CSV and JSON files: what is missing or malformed is refused here, with its place.

What is read is the envelope that :class:`balance_bridge.extract.files.FilesAccount` makes of the files: a JSON object
``{"files": {name: text}}``, for changes with the ``from_sn`` that was asked for. A CSV file becomes the document that a
JSON file holds, so that both are checked alike.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any, ClassVar, TypeVar

import pyarrow as pa
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from balance_bridge import money
from balance_bridge.errors import Contradiction, InvalidAmount, InvalidResponse
from balance_bridge.extract.source import Page, SnapshotResponse
from balance_bridge.transform.schema import LEGS
from balance_bridge.transform.snapshot import Snapshot

SNAPSHOT_COLUMNS = ("account", "sn", "at", "asset", "balance")
CHANGE_COLUMNS = ("account", "sn", "at", "event", "reference", "asset", "delta", "balance", "fee")

_INSTANT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,3})?(Z|[+-][0-9]{2}:[0-9]{2})")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_SHOWN = 200
_MAX_SN = 2**63 - 1
# Half a surrogate pair, which JSON can spell, is no text that could be written down again.
_LINE = r"[^\x00-\x1f\ud800-\udfff]*"


def _text(pattern: str) -> AfterValidator:
    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError("does not match")
        return text

    return AfterValidator(check)


def _at_ms(value: object) -> int:
    try:
        if isinstance(value, str) and _INSTANT.fullmatch(value):
            since = datetime.fromisoformat(value).astimezone(UTC) - _EPOCH
            if since.days >= 0:
                return (since.days * 86_400 + since.seconds) * 1000 + since.microseconds // 1000
    except (ValueError, OverflowError):
        pass
    raise ValueError("is no such instant")


def _amount(value: Any) -> Decimal:
    try:
        if isinstance(value, Decimal):
            return money.check(value)
        # Of a JSON number without a point; True is no number.
        return money.parse(str(value) if type(value) is int else value)
    except InvalidAmount as error:
        raise PydanticCustomError("amount", "{error}", {"error": str(error)}) from error


_Account = Annotated[str, _text(rf"(?=.*\S){_LINE}")]
_Sn = Annotated[int, Field(ge=0, le=_MAX_SN)]
_Instant = Annotated[int, BeforeValidator(_at_ms)]
_Line = Annotated[Annotated[str, _text(_LINE)] | None, AfterValidator(lambda text: text or None)]
_Asset = Annotated[str, _text(r"[^\s\x00-\x1f\ud800-\udfff]{1,64}")]
_Amount = Annotated[Decimal, PlainValidator(_amount)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Envelope(_Strict):
    files: dict[str, str]
    from_sn: int = 0


class _Snapshot(_Strict):
    account: _Account
    sn: _Sn
    at: _Instant
    balances: dict[_Asset, _Amount]


class FileLeg(_Strict):
    """One asset's change within a record; ``balance`` is the one after the whole record."""

    asset: _Asset
    delta: _Amount
    balance: _Amount
    fee: Annotated[bool, BeforeValidator(lambda value: value is not None and value)] = False


class FileRecord(_Strict):
    """A change. ``reference`` is the order or transfer that it belongs to."""

    shares_sn: ClassVar[bool] = False

    sn: _Sn
    at: _Instant
    event: _Line = None
    reference: _Line = None
    # Sorted, so that two records are equal wherever they were read.
    legs: Annotated[list[FileLeg], Field(min_length=1), AfterValidator(lambda legs: sorted(legs, key=repr))]


class _Changes(_Strict):
    account: _Account
    changes: list[FileRecord]


# What messages say is expected, by the name of the field.
_EXPECTED = {
    "account": "the account's name or number as text in one line",
    "sn": f"a whole number from 0 to {_MAX_SN}",
    "at": "an instant such as 2026-11-20T00:00:00Z, with Z or an offset, at most milliseconds, of 1970 to 9999",
    "balances": "an object with an amount for each asset",
    "changes": "a list of changes",
    "event": "text in one line",
    "reference": "text in one line",
    "legs": "a list of at least one leg",
    "asset": "an asset code of 1 to 64 characters without blanks",
    "fee": "true, false or nothing",
}
_ENVELOPE = '{"files": {name: text}} as this source makes it'

Model = TypeVar("Model", bound=BaseModel)
# Where in a document a value is, as pydantic says it.
_Path = tuple[int | str, ...]


@dataclass(frozen=True)
class _File:
    """What a file says, as the document that its JSON would hold.

    Attributes:
        name: The file's name.
        document: What it says.
        lines: Of a CSV, the line of each part of the document.
    """

    name: str
    document: Any
    lines: dict[_Path, int] = field(default_factory=dict)

    def place(self, path: _Path) -> str:
        """Where a part of the document is, for messages: of a CSV by line and column, of a JSON by its path."""
        # Of the balances, an asset is a key, which pydantic marks with a third part.
        is_balance = path[:1] == ("balances",) and len(path) > 1
        column = ("asset" if len(path) > 2 else "balance") if is_balance else path[-1] if path else ""
        for end in range(len(path), -1, -1):
            if path[:end] in self.lines:
                line = f"{self.name} line {self.lines[path[:end]]}"
                return f"{line} {column}" if isinstance(column, str) else line
        parts = ["balances asset"] if is_balance and len(path) > 2 else [_shown_part(part) for part in path]
        return f"{self.name} {'.'.join(parts)}".rstrip()

    def read(self, model: type[Model]) -> Model:
        """The document, checked."""
        try:
            return model.model_validate(self.document)
        except ValidationError as error:
            wrong = error.errors(include_url=False)[0]
            raise InvalidResponse(f"{self.place(wrong['loc'])}: {_fault(wrong)}") from error


def _shown_part(part: int | str) -> str:
    text = str(part)
    return text if text.isprintable() and len(text) <= _MAX_SHOWN else repr(text)[:_MAX_SHOWN]


def _fault(wrong: ErrorDetails) -> str:
    """What is wrong, and what is expected instead, in this module's words: pydantic's name Python's types."""
    kind, path, value = wrong["type"], wrong["loc"], wrong["input"]
    if kind == "amount":
        return wrong["msg"]
    if kind == "missing":
        return "it is missing"
    if kind == "extra_forbidden":
        return "this key is unknown"
    if kind == "string_unicode":
        # A key with half a surrogate pair, which the place cannot name.
        return f"the key {repr(value)[:_MAX_SHOWN]} is unknown"
    if kind == "model_type":
        models = {model.__name__: model for model in (_Envelope, _Snapshot, _Changes, FileRecord, FileLeg)}
        expected = f"an object with {', '.join(models[wrong['ctx']['class_name']].model_fields)}"
    elif path[0] == "balances" and len(path) > 1:
        expected = _EXPECTED["asset"]
    else:
        expected = _EXPECTED.get(str(path[-1]), _ENVELOPE)
    shown = str(value) if isinstance(value, Decimal) else repr(value)
    return f"{expected} is expected; the value is {shown[:_MAX_SHOWN]}"


def read_snapshot(body: bytes, day: date) -> SnapshotResponse:
    """Interpret the file of a day's opening balances.

    Raises:
        InvalidResponse: If something in it is missing or malformed, or it is another day's or of several accounts.
    """
    files = _envelope(body).files
    if len(files) != 1:
        raise InvalidResponse(f"one file with the balances of {day} is expected, not {', '.join(files) or 'none'}")
    [(name, text)] = files.items()
    file = _snapshot_of_csv(name, text) if name.endswith(".csv") else _File(name, _json(name, text))
    found = file.read(_Snapshot)
    if found.at != (day - _EPOCH.date()).days * 86_400_000:
        at = file.document["at"]
        raise InvalidResponse(f"{file.place(('at',))}: {at} is not the start of the day, {day}T00:00:00Z")
    return SnapshotResponse(found.account, Snapshot(found.sn, found.at, found.balances))


def read_page(body: bytes) -> Page:
    """Interpret the files of changes: each record from the number on that was asked for, once.

    Raises:
        InvalidResponse: If something in it is missing or malformed, or it is of several accounts.
        Contradiction: If a sequence number stands in two places with different content.
    """
    envelope = _envelope(body)
    accounts: dict[str, str] = {}
    records: dict[int, tuple[FileRecord, str]] = {}
    for name, text in envelope.files.items():
        file = _changes_of_csv(name, text) if name.endswith(".csv") else _File(name, _json(name, text))
        if file is None:
            continue
        found = file.read(_Changes)
        accounts.setdefault(found.account, name)
        for index, record in enumerate(found.changes):
            place = file.place(("changes", index))
            twin, other = records.setdefault(record.sn, (record, place))
            if twin != record:
                raise Contradiction(
                    f"sn {record.sn} comes twice with different content: {other}: {twin}; {place}: {record}"
                )
    if len(accounts) != 1:
        named = " and ".join(f"{account!r} in {name}" for account, name in accounts.items()) or "none"
        raise InvalidResponse(f"the files of one account are expected; {', '.join(envelope.files)} name {named}")
    wanted = [record for sn, (record, _) in sorted(records.items()) if sn >= envelope.from_sn]
    return Page(next(iter(accounts)), (wanted,), _legs(wanted))


def _legs(records: Sequence[FileRecord]) -> pa.Table:
    """Records as a table of legs; of kind ``order`` where there is a reference."""
    rows = [
        {
            "sn": record.sn,
            "at": record.at,
            "kind": "order" if record.reference else "balance",
            "event": record.event,
            "order_id": record.reference,
            **dict(leg),
        }
        for record in records
        for leg in record.legs
    ]
    return pa.Table.from_pylist(rows, schema=LEGS)


def _envelope(body: bytes) -> _Envelope:
    name = "the stored response"
    return _File(name, _json(name, body.decode("utf-8", "replace"))).read(_Envelope)


def _snapshot_of_csv(name: str, text: str) -> _File:
    document: dict[str, Any] = {}
    lines: dict[_Path, int] = {}
    for line, row in _rows(name, text, SNAPSHOT_COLUMNS):
        asset, balance = row.pop("asset"), row.pop("balance")
        document = document or {**row, "balances": {}}
        _check_same(f"{name} line {line}", row, document)
        if asset in document["balances"]:
            raise InvalidResponse(f"{name} line {line}: asset {asset!r} comes twice")
        document["balances"][asset] = balance
        lines.setdefault((), line)
        lines["balances", asset] = line
    if not document:
        raise InvalidResponse(
            f"{name}: there is no row: of an account without any balance one is expected, asset empty"
        )
    if document["balances"] == {"": ""}:
        document["balances"] = {}
    return _File(name, document, lines)


def _changes_of_csv(name: str, text: str) -> _File | None:
    """None for a file without any row: it names no account."""
    document: dict[str, Any] = {}
    lines: dict[_Path, int] = {}
    index_of: dict[Any, int] = {}
    for line, row in _rows(name, text, CHANGE_COLUMNS):
        place, account = f"{name} line {line}", {"account": row.pop("account")}
        leg = {column: row.pop(column) for column in ("asset", "delta", "balance", "fee")}
        leg["fee"] = {"true": True, "false": False, "": None}.get(leg["fee"], leg["fee"])
        document = document or {**account, "changes": []}
        index = index_of.setdefault(row["sn"], len(index_of))
        if index == len(document["changes"]):
            document["changes"].append({**row, "legs": []})
            lines["changes", index] = line
        change = document["changes"][index]
        _check_same(place, account | row, document | change)
        lines.setdefault((), line)
        lines["changes", index, "legs", len(change["legs"])] = line
        change["legs"].append(leg)
    return _File(name, document, lines) if document else None


def _check_same(place: str, row: dict[str, Any], first: dict[str, Any]) -> None:
    for column, value in row.items():
        if value != first[column]:
            raise InvalidResponse(f"{place}: {column} is {value!r}, but {first[column]!r} is expected as before")


def _rows(name: str, text: str, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a CSV by column, each with its line."""
    reader = csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
    try:
        header = list(reader.fieldnames or [])
        if sorted(header) != sorted(columns):
            wrong = sorted({each for each in (*header, *columns) if header.count(each) != columns.count(each)})
            raise InvalidResponse(
                f"{name} line 1: missing, unknown or repeated: {repr(wrong)[:_MAX_SHOWN]}",
                why=f"the columns {', '.join(columns)} are expected",
            )
        for row in reader:
            if None in row or None in row.values():
                raise InvalidResponse(f"{name} line {reader.line_num}: {len(header)} fields are expected")
            sn = row["sn"]
            yield reader.line_num, {**row, "sn": int(sn) if re.fullmatch(r"[0-9]{1,19}", sn) else sn}
    except csv.Error as error:
        raise InvalidResponse(
            f"{name} line {reader.line_num}: no CSV with commas and double quotes: {error}"
        ) from error


def _json(name: str, text: str) -> Any:
    try:
        return json.loads(
            text.removeprefix("\ufeff"),
            parse_float=Decimal,
            parse_constant=_refuse_constant,
            object_pairs_hook=_without_repeats,
        )
    except (ValueError, ArithmeticError, RecursionError) as error:
        raise InvalidResponse(f"{name}: this is no JSON: {error}") from error


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} comes twice in one object")
    return found


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
