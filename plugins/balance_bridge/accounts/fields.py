"""What the values of the accounts file may be: types with their checks, and what messages say is allowed.

They take what the file holds (text) and what Python holds (dates, numbers, decimals) alike; never a float.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, timedelta
from decimal import Decimal
from typing import Annotated, Any
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from balance_bridge import days, money
from balance_bridge.accounts.problems import describe, did_you_mean
from balance_bridge.errors import InvalidAmount
from balance_bridge.points import POINT_NAMES, STEP_PREFIX, parse_step_ms

# Airflow and pandas overflow at the ends of what a date can hold, and no account is older or plans further.
FIRST_DATE = date(2000, 1, 1)
LAST_DATE = date(2199, 12, 31)
MAX_ID = 255

_CONN_ID = re.compile(r"[A-Za-z0-9_.\-]{1,250}")
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_MAX_NAME = 100
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,17}")
_DURATION = re.compile(r"([1-9][0-9]{0,4})(s|min|h|d)")
_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86_400}
_ZONE = re.compile(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*")
# Copies of the database with leap seconds, and files that are no zone or mean another one on each machine.
_NO_ZONES = ("posix/", "right/", "posixrules", "localtime", "Factory")


def check_name(name: str) -> str:
    """Check the name of a destination, or of an account.

    Raises:
        ValueError: If it is none.
    """
    if not _NAME.fullmatch(name):
        raise ValueError("is not a name")
    if len(name) > _MAX_NAME:
        raise ValueError(f"has {len(name)} characters")
    return name


def check_account_name(name: str) -> str:
    """Check the name of an account; it becomes part of its DAGs' names.

    Raises:
        ValueError: If it is none.
    """
    if name == "preflight" or name.endswith("_intraday"):
        raise ValueError("is a name that is kept for another purpose")
    return check_name(name)


def check_conn_id(value: object) -> str:
    """Check the id of an Airflow connection.

    Raises:
        ValueError: If it is none.
    """
    if not isinstance(value, str) or not _CONN_ID.fullmatch(value):
        raise ValueError("is not a connection id")
    return value


def printable(longest: int, *, blanks: bool) -> Callable[[str], str]:
    """A check for text of one line, without a blank at its ends.

    Args:
        longest: Characters that it may have.
        blanks: Whether it may have blanks in it.
    """

    def check(text: str) -> str:
        if not text.strip():
            raise ValueError("is empty")
        if len(text) > longest:
            raise ValueError(f"has {len(text)} characters")
        if not text.isprintable() or text != text.strip():
            raise ValueError("has a control character, or a blank at one end")
        if not blanks and any(character.isspace() for character in text):
            raise ValueError("has a blank in it")
        return text

    return check


def parse_whole_number(value: object) -> int:
    """Read a whole number from plain digits; a number is taken as it is.

    Raises:
        ValueError: If it is neither.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        return int(value)
    raise ValueError("is not a whole number in plain digits")


def parse_bool(value: object) -> bool:
    """Read ``true`` or ``false``; a bool is taken as it is.

    Raises:
        ValueError: If it is anything else. YAML's other words for them are not taken: NO is an asset in this file.
    """
    if isinstance(value, bool):
        return value
    if value not in ("true", "false"):
        close = did_you_mean(value, ["true", "false"]) if isinstance(value, str) else ""
        raise ValueError(f"is neither true nor false{close}")
    return value == "true"


def parse_day(value: object) -> date:
    """Read a day from ``YYYY-MM-DD``; a date is taken as it is.

    Raises:
        ValueError: If it is neither, or lies out of range; the message says which.
    """
    if isinstance(value, str):
        value = days.parse_day(value)
    if type(value) is not date:
        raise ValueError("is not a date")
    if not FIRST_DATE <= value <= LAST_DATE:
        raise ValueError("is out of range")
    return value


def parse_duration(value: object) -> timedelta:
    """Read a length of time from ``0``, or a whole number of ``s``, ``min``, ``h`` or ``d``.

    Raises:
        ValueError: If it is neither that nor a timedelta.
    """
    if isinstance(value, timedelta):
        return value
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None and value != "0":
        raise ValueError("is not a length of time")
    return timedelta(seconds=int(match[1]) * _SECONDS[match[2]] if match else 0)


def parse_tolerance(value: Any) -> Decimal:
    """Read an amount that may be missing, in units of an asset.

    Raises:
        ValueError: If it is no amount, or negative.
    """
    try:
        # parse() refuses everything that is not text, floats above all.
        amount = money.check(value) if isinstance(value, Decimal) else money.parse(value)
    except InvalidAmount as error:
        raise ValueError(f"cannot be held as an amount ({error})") from error
    if amount < 0:
        raise ValueError("is negative")
    return amount


def below(part: str | int, fault: str) -> PydanticCustomError:
    """A fault that belongs to one item of the value that is being checked."""
    # The template has no placeholders: the text may hold braces of its own.
    return PydanticCustomError("below", "see the context", {"below": part, "fault": fault})


def _zone(text: str) -> str:
    try:
        if _ZONE.fullmatch(text) and not text.startswith(_NO_ZONES):
            ZoneInfo(text)
            return text
    except (KeyError, OSError, ValueError):
        pass  # Reported below, with what comes close.
    zones = available_timezones()
    city = text.lower().replace(" ", "_")
    same_city = [zone for zone in sorted(zones) if city and zone.lower().endswith(f"/{city}")]
    close = f", did you mean {' or '.join(same_city[:3])}?" if same_city else did_you_mean(text, zones)
    raise ValueError(f"is not a time zone{close}")


def _point(value: object) -> str:
    if isinstance(value, dict):
        if list(value) != ["every"] or not isinstance(value["every"], str):
            raise ValueError("is not a point: a mapping must have the one key every, with a step as text")
        step = value["every"]
        if step.startswith(STEP_PREFIX):
            raise ValueError(f"{describe(step)} is not a step: leave out the word every in it")
        parse_step_ms(step)
        return f"{STEP_PREFIX}{step}"
    if value in POINT_NAMES:
        return str(value)
    if isinstance(value, str) and value.startswith(STEP_PREFIX):
        raise ValueError(f"is not a point, did you mean {{every: {value.removeprefix(STEP_PREFIX)}}}?")
    raise ValueError(f"is not a point{did_you_mean(value, POINT_NAMES) if isinstance(value, str) else ''}")


def _distinct_points(points: tuple[str, ...]) -> tuple[str, ...]:
    if not points:
        raise ValueError("has no points")
    seen: dict[str | int, int] = {}
    for index, point in enumerate(points):
        # 60min and 1h are the same instants.
        same = parse_step_ms(point) if point.startswith(STEP_PREFIX) else point
        if same in seen:
            raise below(index, f"is the same as points[{seen[same]}]")
        seen[same] = index
    return points


ZONES = "a zone of the IANA database, written as Area/City, such as Asia/Shanghai, or UTC"
NAMES = f"up to {_MAX_NAME} characters: a letter a-z, then a-z, 0-9 and '_'"

DestinationName = Annotated[str, AfterValidator(check_name), Field(description=NAMES)]
AccountName = Annotated[
    str,
    AfterValidator(check_account_name),
    Field(description=f"{NAMES}; each name once; not preflight; not ending in _intraday"),
]
ConnectionId = Annotated[
    str,
    AfterValidator(check_conn_id),
    Field(description="the id of an Airflow connection: up to 250 letters, digits, '_', '.' and '-'"),
]
AssetCode = Annotated[str, AfterValidator(printable(MAX_ID, blanks=False))]
OpaqueId = Annotated[str, AfterValidator(printable(MAX_ID, blanks=False))]
OptionalText = Annotated[
    Annotated[str, AfterValidator(printable(MAX_ID, blanks=True))] | None,
    Field(description=f"text of 1 to {MAX_ID} characters; without the key it is not sent"),
]
Points = Annotated[
    tuple[Annotated[str, BeforeValidator(_point)], ...],
    AfterValidator(_distinct_points),
    Field(
        description=f"a list of {', '.join(POINT_NAMES)} and {{every: STEP}} with a step such as 30s, 15min or 1h that "
        "divides 24 h, each once"
    ),
]
Zone = Annotated[str, AfterValidator(_zone), Field(description=ZONES)]
WholeNumber = Annotated[int, BeforeValidator(parse_whole_number)]


class Model(BaseModel):
    """What all models of the accounts file are: not to be changed, and without keys that nobody knows."""

    model_config = ConfigDict(frozen=True, extra="forbid")
