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


def validate(
    model: type[Root], values: object, at: Path, line_at: Callable[[Path], int]
) -> tuple[Root | None, list[Problem]]:
    """Make a model of what the file says; None with what is wrong, if anything is.

    Args:
        model: The model.
        values: What the file says; of an account, with its names (see :func:`named`).
        at: Where that stands in the file.
        line_at: The line in the file of a path from its top.
    """
    try:
        return model.model_validate(values), []
    except ValidationError as error:
        faults = [_fault(detail, model) for detail in error.errors(include_url=False)]
        return None, [Problem(line_at(at + path), at + path, *rest) for path, *rest in faults]


def named(name: str, given: object) -> object:
    """What the file says about an account, with the names that are keys above, and the types that follow from them."""
    if not isinstance(given, dict):
        return given
    destinations = given.get("destinations")
    if isinstance(destinations, dict):
        types = {key: {"type": key} for key in DESTINATIONS}
        destinations = {
            key: _named(key, types.get(key, {}) | options) if isinstance(options, dict) else options
            for key, options in destinations.items()
        }
        given = given | {"destinations": destinations}
    return _named(name, given)


def _named(name: str, given: dict[str, Any]) -> dict[str, Any]:
    # The file has no key "name". If somebody writes one, the model gets no text, and that is an unknown key.
    return given | {"name": None if "name" in given else name}


def _fault(detail: ErrorDetails, root: type[BaseModel]) -> _Fault:
    kind, context, value = detail["type"], detail.get("ctx", {}), detail["input"]
    model, path, rest = _locate(detail["loc"], root)
    if kind.startswith("union_tag"):
        return _type_fault(path + rest, value)
    if kind == "extra_forbidden" or (kind == "string_type" and rest == ("name",)):
        fault = f"unknown key{did_you_mean(str(rest[-1]), _fields(model))}"
        return path + rest, describe(rest[-1]), fault, _keys(model)
    field = model.model_fields.get(str(rest[0])) if rest else None
    if rest == ("name",):
        rest = ()
    # Pydantic's mark for a mapping's key comes after the key.
    if rest[2:] == ("[key]",):
        rest, value = rest[:-1], rest[-2]
    if kind == "literal_error":
        names = re.findall(r"'([^']*)'", context["expected"])
        fault = f"is not allowed here{did_you_mean(value, names) if isinstance(value, str) else ''}"
    else:
        fault = _FAULTS.get(kind) or str(context.get("error") or detail["msg"])
    return path + rest, "missing" if kind == "missing" else describe(value), fault, _allowed(model, field)


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
