"""What an account is, as pydantic models. Every field's description says what is allowed there; messages quote it.

The models take what the file holds (text) and what Python holds (dates, numbers, decimals) alike; never a float.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import date
from decimal import Decimal
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, available_timezones

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)
from pydantic_core import PydanticCustomError

from balance_bridge import money
from balance_bridge.accounts.problems import describe, did_you_mean
from balance_bridge.errors import InvalidAmount
from balance_bridge.points import POINT_NAMES, STEP_PREFIX, parse_step_ms

ASSET_PLACEHOLDER = "{asset}"
CONN_ID = r"[A-Za-z0-9_.\-]{1,250}"

# Airflow and pandas overflow at the ends of what a date can hold, and no account is older or plans further.
FIRST_DATE = date(2000, 1, 1)
LAST_DATE = date(2199, 12, 31)

_ID_CHARACTERS = 255
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,17}")
_ZONE = re.compile(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*")
# Copies of the database with leap seconds, and files that are no zone or mean another one on each machine.
_NO_ZONES = ("posix/", "right/", "posixrules", "localtime", "Factory")
_STEPS = "{every: STEP} with a step such as 30s, 15min or 1h that divides 24 h"


def _matching(pattern: str, fault: str) -> Callable[[str], str]:
    compiled = re.compile(pattern)

    def check(text: str) -> str:
        if not compiled.fullmatch(text):
            raise ValueError(fault)
        return text

    return check


def _printable(longest: int, *, blanks: bool) -> Callable[[str], str]:
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


def _whole_number(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        return int(value)
    raise ValueError("is not a whole number in plain digits")


def parse_day(value: object) -> date:
    """Read a day from ``YYYY-MM-DD``; a date is taken as it is.

    Raises:
        ValueError: If it is neither, or lies out of range; the message says which.
    """
    if isinstance(value, str):
        if not _DATE.fullmatch(value):
            raise ValueError("is not of the form YYYY-MM-DD")
        try:
            value = date.fromisoformat(value)
        except ValueError as error:
            raise ValueError("is a date that does not exist") from error
    if type(value) is not date:
        raise ValueError("is not a date")
    if not FIRST_DATE <= value <= LAST_DATE:
        raise ValueError("is out of range")
    return value


def _tolerance(value: Any) -> Decimal:
    try:
        # parse() refuses everything that is not text, floats above all.
        amount = money.check(value) if isinstance(value, Decimal) else money.parse(value)
    except InvalidAmount as error:
        raise ValueError(f"cannot be held as an amount ({error})") from error
    if amount < 0:
        raise ValueError("is negative")
    return amount


def _zone(text: str) -> str:
    try:
        if _ZONE.fullmatch(text) and not text.startswith(_NO_ZONES):
            ZoneInfo(text)
            return text
    except (KeyError, OSError, ValueError):
        pass  # Told below, with what comes close.
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
            raise _below(index, f"is the same as points[{seen[same]}]")
        seen[same] = index
    return points


def _pattern(text: str) -> str:
    _printable(_ID_CHARACTERS + len(ASSET_PLACEHOLDER) - 1, blanks=True)(text)
    rest = text.replace(ASSET_PLACEHOLDER, "", 1)
    if rest == text:
        raise ValueError(f"has no {ASSET_PLACEHOLDER} in it, so that all assets would go to one account")
    if "{" in rest or "}" in rest:
        raise ValueError(f"has braces besides one {ASSET_PLACEHOLDER}")
    return text


def _distinct_ids(ids: dict[str, str]) -> dict[str, str]:
    if not ids:
        raise ValueError("maps no asset")
    _refuse_shared(ids, "id")
    return ids


def _distinct_targets(assets: dict[str, ElvenTarget]) -> dict[str, ElvenTarget]:
    mapped = {asset: target for asset, target in assets.items() if isinstance(target, ElvenAsset)}
    _refuse_shared({asset: target.symbol for asset, target in mapped.items()}, "symbol")
    _refuse_shared({asset: target.asset_id for asset, target in mapped.items()}, "asset_id")
    return assets


def _refuse_shared(values: Mapping[str, str | None], name: str) -> None:
    holders: dict[str, list[str]] = {}
    for asset, value in values.items():
        if value is not None:
            holders.setdefault(value, []).append(asset)
    shared = [(value, assets) for value, assets in holders.items() if len(assets) > 1]
    if shared:
        told = "; ".join(
            f"{', '.join(assets)} are all mapped to the {name} {describe(value)}" for value, assets in shared
        )
        raise _below(shared[0][1][1], told)


def _below(part: str | int, fault: str) -> PydanticCustomError:
    """A fault that belongs to one item of the value that is being checked."""
    # The template has no placeholders: the text may hold braces of its own.
    return PydanticCustomError("below", "see the context", {"below": part, "fault": fault})


def _kind(value: object) -> str:
    return "mapping" if isinstance(value, dict | ElvenAsset) else "text"


ConnectionId = Annotated[
    str,
    AfterValidator(_matching(CONN_ID, "is not a connection id")),
    Field(description="the id of an Airflow connection: up to 250 letters, digits, '_', '.' and '-'"),
]
AssetCode = Annotated[str, AfterValidator(_printable(_ID_CHARACTERS, blanks=False))]
Points = Annotated[
    tuple[Annotated[str, BeforeValidator(_point)], ...],
    AfterValidator(_distinct_points),
    Field(description=f"a list of {', '.join(POINT_NAMES)} and {_STEPS}, each once"),
]
Zone = Annotated[str, AfterValidator(_zone)]
OpaqueId = Annotated[str, AfterValidator(_printable(_ID_CHARACTERS, blanks=False))]
OptionalText = Annotated[
    Annotated[str, AfterValidator(_printable(_ID_CHARACTERS, blanks=True))] | None,
    Field(description=f"text of 1 to {_ID_CHARACTERS} characters; without the key it is not sent"),
]
_ZONES = "a zone of the IANA database, written as Area/City, such as Asia/Shanghai, or UTC"


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AscendexSource(_Model):
    """Where an account's balances come from.

    Attributes:
        retention_days: How many days back the exchange answers.
    """

    type: Literal["ascendex"] = Field(description="ascendex")
    conn_id: ConnectionId
    category: Literal["cash", "margin"] = Field(description="cash, margin")
    retention_days: Annotated[
        int, BeforeValidator(_whole_number), Field(ge=1, le=365, description="a whole number from 1 to 365")
    ] = 7


class ElvenAsset(_Model):
    """What an asset of the exchange is called in Elven: by symbol or by Elven's own id, never both."""

    symbol: Annotated[
        OpaqueId | None, Field(description="a symbol as Elven has it: text without '-' and blanks, case-sensitive")
    ] = None
    asset_id: Annotated[OpaqueId | None, Field(description="an asset's id as Elven has it, case-sensitive")] = None

    @model_validator(mode="after")
    def _one_name(self) -> ElvenAsset:
        if (self.symbol is None) == (self.asset_id is None):
            raise ValueError("needs exactly one of symbol and asset_id")
        if self.symbol is not None and "-" in self.symbol:
            raise _below("symbol", "has a '-' in it, which no symbol in Elven has")
        return self


ElvenTarget = Annotated[
    Annotated[Literal["ignore"], Tag("text")] | Annotated[ElvenAsset, Tag("mapping")], Discriminator(_kind)
]


class ElvenDestination(_Model):
    """An Elven entity account with the source to write to.

    Attributes:
        name: Its key under ``destinations``.
        points: ``open``, ``close``, ``changes``, ``local_midnight`` or a step such as ``every 1h``.
        timezone: IANA zone of the Entity, in which Elven reads the times that it gets.
        assets: By the exchange's code: what Elven calls it, or ``ignore``. Others go out under their own code.
        max_rows: Balances per request.
        max_bytes: Bytes of a request's body.
    """

    name: str
    type: Literal["elven"] = Field(default="elven", description="elven, amlyze")
    conn_id: ConnectionId
    points: Points = ("close",)
    assets: Annotated[
        dict[AssetCode, ElvenTarget],
        AfterValidator(_distinct_targets),
        Field(
            description="a mapping from an asset's code (text without blanks) to ignore, {symbol: X} or {asset_id: X}; "
            "each X for one asset"
        ),
    ] = {}
    entity_account_id: Annotated[OpaqueId, Field(description="the id of the entity account in Elven")]
    source_id: Annotated[
        OpaqueId,
        Field(
            description="the id of the account's source in Elven (type OPENAPI_BALANCE). "
            "Without source_id Elven would make a new source for each import"
        ),
    ]
    timezone: Annotated[Zone, Field(description=f"the Entity's zone in Elven: {_ZONES}")]
    max_rows: Annotated[
        int, BeforeValidator(_whole_number), Field(ge=1, le=1000, description="a whole number from 1 to 1000")
    ] = 1000
    max_bytes: Annotated[
        int,
        BeforeValidator(_whole_number),
        Field(ge=1000, le=10_000_000, description="a whole number from 1000 to 10000000"),
    ] = 100_000


class AmlyzeDestination(_Model):
    """The accounts of an Amlyze tenant that take the balances, one account per asset.

    Attributes:
        name: Its key under ``destinations``.
        points: As for Elven.
        assets: By the exchange's code: ``ignore``.
        requester: Name under which Amlyze records the requests.
        account_ext_id: Pattern with ``{asset}``, or the id by asset's code.
        timezone: IANA zone, for ``local_midnight`` only.
        max_rows: Balances per request.
    """

    name: str
    type: Literal["amlyze"] = Field(default="amlyze", description="elven, amlyze")
    conn_id: ConnectionId
    points: Points = ("close",)
    assets: Annotated[
        dict[AssetCode, Literal["ignore"]],
        Field(description="a mapping from an asset's code (text without blanks) to ignore"),
    ] = {}
    requester: Annotated[
        Annotated[str, AfterValidator(_printable(100, blanks=True))],
        Field(description="text of 1 to 100 characters"),
    ]
    account_ext_id: Annotated[
        Annotated[Annotated[str, AfterValidator(_pattern)], Tag("text")]
        | Annotated[
            dict[AssetCode, Annotated[str, AfterValidator(_printable(_ID_CHARACTERS, blanks=True))]],
            AfterValidator(_distinct_ids),
            Tag("mapping"),
        ],
        Discriminator(_kind),
        Field(
            description=f"a pattern with {ASSET_PLACEHOLDER} in it once, or a mapping from an asset's code to its "
            f"account id, each id once and of 1 to {_ID_CHARACTERS} characters"
        ),
    ]
    balance_type: OptionalText = None
    business_unit: OptionalText = None
    timezone: Annotated[Zone, Field(description=_ZONES)] = "UTC"
    max_rows: Annotated[
        int, BeforeValidator(_whole_number), Field(ge=1, le=10_000, description="a whole number from 1 to 10000")
    ] = 100


Destination = Annotated[ElvenDestination | AmlyzeDestination, Field(discriminator="type")]
DESTINATIONS: dict[str, type[ElvenDestination] | type[AmlyzeDestination]] = {
    "elven": ElvenDestination,
    "amlyze": AmlyzeDestination,
}


def _some_destination(destinations: dict[str, Destination]) -> dict[str, Destination]:
    if not destinations:
        raise ValueError("has no destination")
    return destinations


def _on_break(value: object) -> object:
    if value == "ask":
        raise ValueError("is not available yet")
    return value


class Account(_Model):
    """An account of an exchange, and where its balances are delivered.

    Attributes:
        name: Its key under ``accounts``.
        start_date: First day to deliver (UTC).
        on_break: What to do with a day that does not add up: deliver nothing, or deliver it marked.
        tolerance: By asset: the drift that conservation may have, in units of the asset.
        destinations: By name, at least one.
    """

    name: str
    source: AscendexSource = Field(description="a mapping with type, conn_id and category")
    start_date: Annotated[
        date, BeforeValidator(parse_day), Field(description=f"a day from {FIRST_DATE} to {LAST_DATE}, as YYYY-MM-DD")
    ]
    on_break: Annotated[Literal["hold", "load"], BeforeValidator(_on_break), Field(description="hold, load")] = "hold"
    tolerance: Annotated[
        dict[AssetCode, Annotated[Decimal, BeforeValidator(_tolerance)]],
        Field(
            description="a mapping from an asset's code (text without blanks) to an amount of 0 or more, in digits, "
            "with up to 18 decimals"
        ),
    ] = {}
    destinations: Annotated[
        dict[str, Destination],
        AfterValidator(_some_destination),
        Field(
            description="a mapping with at least one of elven, amlyze, or a name of your own with type: elven or amlyze"
        ),
    ]
