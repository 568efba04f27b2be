"""From pydantic's errors to problems that name the file's own keys, what stands there and what is allowed."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from balance_bridge.accounts.destinations import (
    AmlyzeDestination,
    ElvenAsset,
    ElvenDestination,
    Equivalent,
    WebhookDestination,
)
from balance_bridge.accounts.models import Account, TopLevel
from balance_bridge.accounts.problems import Path, Problem, describe, did_you_mean
from balance_bridge.accounts.sources import AscendexSource, FilesSource

Root = TypeVar("Root", Account, TopLevel)

SOURCES: dict[str, type[BaseModel]] = {"ascendex": AscendexSource, "files": FilesSource}
DESTINATIONS: dict[str, type[ElvenDestination | AmlyzeDestination | WebhookDestination]] = {
    "elven": ElvenDestination,
    "amlyze": AmlyzeDestination,
    "webhook": WebhookDestination,
}

_FAULTS = {
    "missing": "this key is required",
    "string_type": "is not text",
    "dict_type": "is not a mapping",
    "model_type": "is not a mapping",
    "model_attributes_type": "is not a mapping",
    "tuple_type": "is not a list",
    "bool_type": "is neither true nor false",
    "string_pattern_mismatch": "has a character that is not allowed there",
    "string_too_short": "is empty",
    "string_too_long": "is too long",
    "too_short": "is empty",
    "greater_than_equal": "is too small",
    "less_than_equal": "is too large",
    "date_from_datetime_parsing": "does not exist",
}

_Fault = tuple[Path, str, str, str]
"""Where in a model's input, and the rest as in a :class:`Problem`: value, fault, allowed."""


def validate_file(values: object, line_at: Callable[[Path], int]) -> tuple[TopLevel | None, list[Problem]]:
    """The accounts that a file has; None with what is wrong, if anything is.

    Args:
        values: The file's values.
        line_at: The line in the file of a path from its top.
    """
    account, faults = _validate(TopLevel, values)
    return account, [Problem(line_at(path), path, *rest) for path, *rest in faults]


def validate_account(name: str, given: object, line_at: Callable[[Path], int]) -> tuple[Account | None, list[Problem]]:
    """Make an account of what the file says; None with what is wrong, if anything is.

    Args:
        name: The account's key.
        given: Its value.
        line_at: The line in the file of a path from its top.
    """
    faults: list[_Fault] = []
    account, more = _validate(Account, _named(name, given, faults) if isinstance(given, dict) else given)
    found = [(("accounts", name, *path), rest) for path, *rest in faults + more]
    return (None if faults else account), [Problem(line_at(path), path, *rest) for path, rest in found]


def _validate(model: type[Root], values: object) -> tuple[Root | None, list[_Fault]]:
    try:
        return model.model_validate(values), []
    except ValidationError as error:
        return None, [_fault(detail, model) for detail in error.errors(include_url=False)]


def _named(name: str, given: Mapping[str, Any], faults: list[_Fault]) -> dict[str, Any]:
    """What the model takes: with the names that are keys above it in the file, and the types that follow from them."""
    values = {**given, "name": name}
    if "name" in given:
        faults.append((("name",), "'name'", "unknown key", _keys(Account)))
    destinations = given.get("destinations")
    if isinstance(destinations, dict):
        values["destinations"] = {}
        for key, options in destinations.items():
            if isinstance(options, dict):
                if "name" in options:
                    known = DESTINATIONS.get(str(options.get("type", key)), ElvenDestination)
                    faults.append((("destinations", key, "name"), "'name'", "unknown key", _keys(known)))
                options = {**({"type": key} if key in DESTINATIONS else {}), **options, "name": key}
            values["destinations"][key] = options
    return values


def _fault(detail: ErrorDetails, root: type[BaseModel]) -> _Fault:
    kind, context, value = detail["type"], detail.get("ctx", {}), detail["input"]
    model, path, rest = _locate(detail["loc"], root)
    if kind.startswith("union_tag"):
        return _type_fault(path + rest, value)
    # Pydantic's mark for a mapping's key comes after the key; elsewhere the same text is a key of the file.
    is_key = rest[2:] == ("[key]",) and kind != "extra_forbidden"
    if is_key:
        rest = rest[:-1]
    field = model.model_fields.get(str(rest[0])) if rest else None
    if rest == ("name",) and kind != "extra_forbidden":
        rest = ()
    shown = describe(rest[-1]) if kind == "extra_forbidden" or is_key else describe(value)
    if kind == "missing":
        shown = "missing"
    if kind == "extra_forbidden":
        fault = f"unknown key{did_you_mean(str(rest[-1]), _fields(model))}"
    elif kind == "literal_error":
        names = re.findall(r"'([^']*)'", context["expected"])
        fault = f"is not allowed here{did_you_mean(value, names) if isinstance(value, str) else ''}"
    else:
        fault = _FAULTS.get(kind) or str(context.get("error") or detail["msg"])
    return path + rest, shown, fault, _allowed(model, field)


def _type_fault(path: Path, given: Mapping[str, Any]) -> _Fault:
    what, types = ("source", SOURCES) if path == ("source",) else ("destination", DESTINATIONS)
    allowed = ", ".join(types)
    kind = given.get("type")
    if kind is None:
        other = "" if what == "source" else "; it may be left out where the destination's name is one of these"
        return (*path, "type"), "missing", _FAULTS["missing"], allowed + other
    close = did_you_mean(kind, types) if isinstance(kind, str) else ""
    return (*path, "type"), describe(kind), f"is not a type of {what}{close}", allowed


def _locate(location: Path, model: type[BaseModel]) -> tuple[type[BaseModel], Path, Path]:
    """The model that an error is in, where that stands, and where in it; without the unions' tags."""
    path: Path = ()
    if location[:1] == ("source",) and len(location) > 1:
        model, path, location = SOURCES[str(location[1])], ("source",), location[2:]
    elif location[:1] == ("destinations",) and len(location) > 2:
        model, path, location = DESTINATIONS[str(location[2])], location[:2], location[3:]
    if location[:1] == ("account_ext_id",):
        location = location[:1] + location[2:]
    if location[:1] == ("assets",) and location[2:3] in {("text",), ("mapping",)}:
        location = location[:2] + location[3:]
        if len(location) > 2:
            model, path, location = ElvenAsset, path + location[:2], location[2:]
    if location[:1] == ("equivalent",) and len(location) > 1:
        model, path, location = Equivalent, path + location[:1], location[1:]
    return model, path, location


def _allowed(model: type[BaseModel], field: FieldInfo | None) -> str:
    if field is None:
        return _keys(model)
    if field.description:
        return field.description
    limits = {name: getattr(each, name) for each in field.metadata for name in ("ge", "le") if hasattr(each, name)}
    return "a whole number from {ge} to {le}".format(**limits) if limits else ", ".join(get_args(field.annotation))


def _fields(model: type[BaseModel]) -> list[str]:
    return [name for name in model.model_fields if name != "name"]


def _keys(model: type[BaseModel]) -> str:
    return ", ".join(_fields(model))
