"""Reads one account and finds everything that is wrong with it by itself."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from balance_bridge.accounts.destinations import (
    DESTINATIONS,
    AmlyzeDestination,
    ElvenAsset,
    ElvenDestination,
    Equivalent,
)
from balance_bridge.accounts.document import Entry, Findings, plain
from balance_bridge.accounts.fields import CONN_ID, parse_day
from balance_bridge.accounts.models import Account
from balance_bridge.accounts.problems import Path, Problem, describe, did_you_mean
from balance_bridge.accounts.sharing import Place
from balance_bridge.accounts.sources import SOURCES, AscendexSource, FilesSource

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_NAME_CHARACTERS = 100
_DESTINATION_NAMES = f"up to {_NAME_CHARACTERS} characters: a letter a-z, then a-z, 0-9 and '_'"
NAMES = f"{_DESTINATION_NAMES}; each name once; not preflight; not ending in _intraday"
_MAPPING = "a mapping of keys and values"

_FAULTS = {
    "missing": "this key is required",
    "string_type": "is not text",
    "dict_type": "is not a mapping",
    "model_type": "is not a mapping",
    "tuple_type": "is not a list",
    "greater_than_equal": "is too small",
    "less_than_equal": "is too large",
}

_Model = TypeVar("_Model", bound=BaseModel)


@dataclass
class Reading:
    """One account as far as it could be read.

    Attributes:
        number: Its number in the file.
        entry: Its key, line and value.
        findings: What is wrong with it.
        places: Its destinations that are right by themselves.
        account: The account, if all of it is right by itself.
        start_date: Its first day, if that is right.
        conn_id: Its exchange's connection, if it has one and that is right.
    """

    number: int
    entry: Entry
    findings: Findings = field(default_factory=Findings)
    places: list[Place] = field(default_factory=list)
    account: Account | None = None
    start_date: date | None = None
    conn_id: str | None = None

    @property
    def path(self) -> Path:
        """Where the account stands."""
        return ("accounts", self.entry.key)

    def line_at(self, path: Path) -> int:
        """The line of the deepest key on the path (from the top of the file) that exists."""
        return self.entry.node.line_at(path[len(self.path) :]) or self.entry.line

    def add(self, path: Path, value: str, fault: str, allowed: str) -> None:
        """Add a problem."""
        self.findings.add(Problem(self.line_at(path), path, value, fault, allowed))


def read_account(number: int, entry: Entry) -> Reading:
    """Read one account.

    Args:
        number: Its number in the file.
        entry: Its name and settings.
    """
    reading = Reading(number, entry)
    _check_name(reading, reading.path, NAMES)
    given = plain(entry.node, reading.path, reading.findings)
    if not isinstance(given, dict):
        reading.add(
            reading.path, describe(given), "is not a mapping", "a mapping with source, start_date, destinations"
        )
        return reading
    with contextlib.suppress(ValueError):
        reading.start_date = parse_day(given.get("start_date"))
    values: dict[str, object] = dict(given)
    # What is told already, part by part, is not told again where the account is looked at as a whole.
    told: set[str] = set()
    if "source" in values:
        source = _read_source(reading, values["source"])
        if source is None:
            told.add("source")
        else:
            values["source"] = source
    destinations = values.get("destinations")
    if isinstance(destinations, dict):
        read = [_read_destination(reading, name, options) for name, options in destinations.items()]
        if all(read):
            values["destinations"] = {place.destination.name: place.destination for place in reading.places}
        else:
            told.add("destinations")
    reading.account = _validate(reading, Account, reading.path, values, told)
    return reading


def _check_name(reading: Reading, path: Path, allowed: str) -> None:
    name = str(path[-1])
    if not _NAME.fullmatch(name):
        reading.add(path, describe(name), "is not a name", allowed)
    elif len(name) > _NAME_CHARACTERS:
        reading.add(path, describe(name), f"has {len(name)} characters", allowed)
    elif path == reading.path and (name == "preflight" or name.endswith("_intraday")):
        reading.add(path, describe(name), "is a name that is kept for another purpose", allowed)


def _read_source(reading: Reading, options: object) -> AscendexSource | FilesSource | None:
    path = (*reading.path, "source")
    if not isinstance(options, dict):
        allowed = Account.model_fields["source"].description or ""
        reading.add(path, describe(options), "is not a mapping", allowed)
        return None
    kind, conn_id = options.get("type"), options.get("conn_id")
    if kind != "files" and isinstance(conn_id, str) and re.fullmatch(CONN_ID, conn_id):
        reading.conn_id = conn_id
    if kind is None:
        reading.add((*path, "type"), "missing", "this key is required", ", ".join(SOURCES))
        return None
    model = _model(reading, path, kind, SOURCES, "source")
    return None if model is None else _validate(reading, model, path, options)


def _read_destination(reading: Reading, name: str, options: object) -> bool:
    """Whether the destination is right by itself; then it is among the places."""
    path = (*reading.path, "destinations", name)
    before = len(reading.findings.problems)
    _check_name(reading, path, _DESTINATION_NAMES)
    if not isinstance(options, dict):
        reading.add(path, describe(options), "is not a mapping", _MAPPING)
        return False
    kind = options.get("type", name if name in DESTINATIONS else None)
    if kind is None:
        fault = f"a destination that is named none of {', '.join(DESTINATIONS)} must say its type"
        reading.add((*path, "type"), "missing", fault, ", ".join(DESTINATIONS))
        return False
    model = _model(reading, path, kind, DESTINATIONS, "destination")
    destination = None if model is None else _validate(reading, model, path, options | {"type": kind})
    if destination is None:
        return False
    line = reading.line_at((*path, _TELLS_WHERE[destination.type]))
    reading.places.append(Place(reading.entry.key, reading.number, path, line, destination))
    return len(reading.findings.problems) == before


# The key that says where a destination delivers to.
_TELLS_WHERE = {"elven": "source_id", "amlyze": "account_ext_id", "webhook": "conn_id"}


def _model(
    reading: Reading, path: Path, kind: object, models: Mapping[str, type[_Model]], of: str
) -> type[_Model] | None:
    """The model for a ``type``; None, and told, if there is no such type."""
    if isinstance(kind, str) and kind in models:
        return models[kind]
    close = did_you_mean(kind, models) if isinstance(kind, str) else ""
    reading.add((*path, "type"), describe(kind), f"is not a type of {of}{close}", ", ".join(models))
    return None


def _validate(
    reading: Reading, model: type[_Model], path: Path, values: Mapping[str, Any], told: Collection[str] = ()
) -> _Model | None:
    named = "name" in model.model_fields
    if named and "name" in values:
        # The model's name is the key above; in the file it is a key like any other unknown one.
        reading.add((*path, "name"), "'name'", "unknown key", _keys(model))
    try:
        return model.model_validate({**values, "name": path[-1]} if named else values)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            location = _in_file(detail["loc"])
            if location[0] not in told:
                _tell(reading, model, path, location, detail, values)
        return None


def _in_file(location: Path) -> Path:
    """Pydantic's location without the names of the alternatives that it tried."""
    if location[:1] == ("account_ext_id",):
        return location[:1] + location[2:]
    if location[:1] == ("assets",) and location[2:3] in {("text",), ("mapping",)}:
        return location[:2] + location[3:]
    return location


def _tell(
    reading: Reading,
    model: type[BaseModel],
    path: Path,
    location: Path,
    detail: ErrorDetails,
    values: Mapping[str, Any],
) -> None:
    context = detail.get("ctx", {})
    kind = detail["type"]
    # Pydantic's mark for a mapping's key comes after the key; elsewhere the same text is a key of the file.
    key_itself = location[2:] == ("[key]",) and kind != "extra_forbidden"
    if key_itself:
        location = location[:-1]
    if "below" in context:
        location = (*location, context["below"])
    owner, rest = _owner(model, location)
    known = owner.model_fields.get(str(rest[0])) if rest else None
    allowed = (known.description if known else None) or _keys(owner)
    value: Any = values
    for part in location:
        value = _item(value, part)
    shown = describe(value)
    if kind == "missing":
        shown = "missing"
    elif kind == "extra_forbidden" or key_itself:
        shown = describe(location[-1])
    reading.add((*path, *location), shown, _fault(detail, value, owner), allowed)


def _fault(detail: ErrorDetails, value: Any, owner: type[BaseModel]) -> str:
    context = detail.get("ctx", {})
    kind = detail["type"]
    if kind == "extra_forbidden":
        return f"unknown key{did_you_mean(str(detail['loc'][-1]), _fields(owner))}"
    if kind == "literal_error":
        names = re.findall(r"'([^']*)'", context["expected"])
        return f"is not allowed here{did_you_mean(value, names) if isinstance(value, str) else ''}"
    return str(context.get("fault") or context.get("error") or _FAULTS.get(kind) or detail["msg"])


def _owner(model: type[BaseModel], location: Path) -> tuple[type[BaseModel], Path]:
    """The model whose field is at fault, and the location from there."""
    if model is ElvenDestination and location[0] == "assets" and len(location) > 2:
        return ElvenAsset, location[2:]
    if model is AmlyzeDestination and location[0] == "equivalent" and len(location) > 1:
        return Equivalent, location[1:]
    return model, location


def _fields(model: type[BaseModel]) -> list[str]:
    return [name for name in model.model_fields if name != "name"]


def _keys(model: type[BaseModel]) -> str:
    return ", ".join(_fields(model))


def _item(value: Any, part: str | int) -> Any:
    if isinstance(value, Mapping) and isinstance(part, str):
        return value.get(part)
    if isinstance(value, list) and isinstance(part, int) and part < len(value):
        return value[part]
    return None
