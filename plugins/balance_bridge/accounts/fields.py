"""What the values of the accounts file may be: types with their checks, and what messages say is allowed.

They take what the file holds (text) and what Python holds (dates, numbers, decimals) alike; never a float.
"""

from __future__ import annotations

import re
from datetime import date, timedelta
from decimal import Decimal
from typing import Annotated, Any
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, Strict, StringConstraints

from balance_bridge import days, money
from balance_bridge.accounts.problems import describe, did_you_mean
from balance_bridge.errors import InvalidAmount
from balance_bridge.points import POINT_NAMES, STEP_PREFIX, parse_step_ms

# Airflow and pandas overflow at the ends of what a date can hold, and no account is older or plans further.
FIRST_DATE = date(2000, 1, 1)
LAST_DATE = date(2199, 12, 31)
MAX_ID = 255

# Characters that can be seen, and blanks between them.
_LINE = r"^[^\p{C}\p{Z}]+( +[^\p{C}\p{Z}]+)*$"
_WORD = r"^[^\p{C}\p{Z}]+$"
_MAX_NAME = 100
# The names of DAGs that no account makes, and of a folder of receipts.
_RESERVED = ("preflight", "accounts_file", "places")
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,17}")
_DURATION = re.compile(r"([1-9][0-9]{0,4})(s|min|h|d)")
_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86_400}
_ZONE = re.compile(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*")
# Copies of the database with leap seconds, and files that are no zone or mean another one on each machine.
_NO_ZONES = ("posix/", "right/", "posixrules", "localtime", "Factory")


def line(longest: int) -> StringConstraints:
    """Text of one line of up to so many characters, without a blank at its ends."""
    return StringConstraints(min_length=1, max_length=longest, pattern=_LINE)


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
        # Not what the error says: it quotes the value, and a message shows that only as describe() does.
        raise ValueError(
            "is not an amount: digits with an optional sign, point and exponent are expected, at most 20 before the "
            "point and 18 after it"
        ) from error
    if amount < 0:
        raise ValueError("is negative")
    return amount


def _not_reserved(name: str) -> str:
    if name in _RESERVED or name.endswith(("_intraday", "_approval")):
        raise ValueError("is reserved")
    return name


def _whole_number(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    # int() alone would also take 1_0, +5 and 007.
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        return int(value)
    raise ValueError("is not a whole number in plain digits")


def _truth(value: object) -> object:
    # YAML's other words for them are not taken: NO is an asset in this file.
    return {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value


def _date(value: object) -> object:
    # Pydantic would also take a time, or a number of seconds.
    return days.parse_day(value) if isinstance(value, str) else value


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
        parse_step_ms(value)
        raise ValueError(f"is not a point, did you mean {{every: {value.removeprefix(STEP_PREFIX)}}}?")
    raise ValueError(f"is not a point{did_you_mean(value, POINT_NAMES) if isinstance(value, str) else ''}")


def _distinct_points(points: tuple[str, ...]) -> tuple[str, ...]:
    seen: dict[str | int, str] = {}
    for point in points:
        # 60min and 1h are the same instants.
        same = parse_step_ms(point) if point.startswith(STEP_PREFIX) else point
        if same in seen:
            raise ValueError(f"{describe(seen[same])} and {describe(point)} are the same")
        seen[same] = point
    return points


Name = Annotated[
    str,
    StringConstraints(max_length=_MAX_NAME, pattern="^[a-z][a-z0-9_]*$"),
    Field(description=f"up to {_MAX_NAME} characters: a letter a-z, then a-z, 0-9 and '_'"),
]
AccountName = Annotated[
    Name,
    AfterValidator(_not_reserved),
    Field(
        description=f"up to {_MAX_NAME} characters: a letter a-z, then a-z, 0-9 and '_'; each name once; not "
        f"{' or '.join(_RESERVED)}; not ending in _intraday or _approval"
    ),
]
ConnectionId = Annotated[
    str,
    StringConstraints(min_length=1, max_length=250, pattern=r"^[A-Za-z0-9_.\-]*$"),
    Field(description="the id of an Airflow connection: up to 250 letters, digits, '_', '.' and '-'"),
]
Id = Annotated[str, line(MAX_ID)]
Code = Annotated[str, StringConstraints(min_length=1, max_length=MAX_ID, pattern=_WORD)]
OptionalText = Annotated[
    Id | None, Field(description=f"text of 1 to {MAX_ID} characters; without the key it is not sent")
]
Day = Annotated[
    date,
    BeforeValidator(_date),
    Field(ge=FIRST_DATE, le=LAST_DATE, description=f"a day from {FIRST_DATE} to {LAST_DATE}, as YYYY-MM-DD"),
]
Truth = Annotated[bool, Strict(), BeforeValidator(_truth)]
Points = Annotated[
    tuple[Annotated[str, BeforeValidator(_point)], ...],
    AfterValidator(_distinct_points),
    Field(
        min_length=1,
        description=f"a list of {', '.join(POINT_NAMES)} and {{every: STEP}} with a step such as 30s, 15min or 1h that "
        "divides 24 h, each once",
    ),
]
Zone = Annotated[
    str,
    AfterValidator(_zone),
    Field(description="a zone of the IANA database, written as Area/City, such as Asia/Shanghai, or UTC"),
]
WholeNumber = Annotated[int, BeforeValidator(_whole_number)]


class Model(BaseModel):
    """What all models of the accounts file are: not to be changed, and without keys that nobody knows."""

    model_config = ConfigDict(frozen=True, extra="forbid")
