"""Where an account's balances go: a model per type of destination.

A field's description says what is allowed there; messages quote it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator

from balance_bridge.accounts.fields import (
    MAX_ID,
    Code,
    ConnectionId,
    Id,
    Model,
    Name,
    OptionalText,
    Points,
    WholeNumber,
    Zone,
    line,
    parse_duration,
)
from balance_bridge.accounts.problems import describe

ASSET_PLACEHOLDER = "{asset}"
# Some APIs repeat the HTTP status as the code of an error. These are the same for every part of a request.
_NO_RECORD = re.compile(r"401|403|404|429|5[0-9]{2}")


def _kind(value: object) -> str:
    return "mapping" if isinstance(value, dict | ElvenAsset) else "text"


def _distinct(values: Mapping[str, str | None], name: str) -> None:
    for value, count in Counter(filter(None, values.values())).items():
        if count > 1:
            assets = ", ".join(asset for asset, of in values.items() if of == value)
            raise ValueError(f"{assets} are all mapped to the {name} {describe(value)}")


# --- Elven


def _symbol(symbol: str) -> str:
    if "-" in symbol:
        raise ValueError("has a '-' in it, which no symbol in Elven has")
    return symbol


class ElvenAsset(Model):
    """What an asset of the exchange is called in Elven: by symbol or by Elven's own id, never both."""

    symbol: Annotated[
        Annotated[Code, AfterValidator(_symbol)] | None,
        Field(description="a symbol as Elven has it: text without '-' and blanks, case-sensitive"),
    ] = None
    asset_id: Annotated[Code | None, Field(description="an asset's id as Elven has it, case-sensitive")] = None

    @model_validator(mode="after")
    def _one_name(self) -> ElvenAsset:
        if (self.symbol is None) == (self.asset_id is None):
            raise ValueError("needs exactly one of symbol and asset_id")
        return self


def _distinct_targets(assets: dict[str, ElvenTarget]) -> dict[str, ElvenTarget]:
    mapped = {asset: target for asset, target in assets.items() if isinstance(target, ElvenAsset)}
    _distinct({asset: target.symbol for asset, target in mapped.items()}, "symbol")
    _distinct({asset: target.asset_id for asset, target in mapped.items()}, "asset_id")
    return assets


ElvenTarget = Annotated[
    Annotated[Literal["ignore"], Tag("text")] | Annotated[ElvenAsset, Tag("mapping")], Discriminator(_kind)
]
Ignored = Annotated[
    dict[Code, Literal["ignore"]],
    Field(description="a mapping from an asset's code (text without blanks) to ignore"),
]
MaxBytes = Annotated[WholeNumber, Field(ge=1000, le=10_000_000)]


# --- Amlyze


def _pattern(text: str) -> str:
    rest = text.replace(ASSET_PLACEHOLDER, "", 1)
    if rest == text:
        raise ValueError(f"has no {ASSET_PLACEHOLDER} in it, so that all assets would go to one account")
    if "{" in rest or "}" in rest:
        raise ValueError(f"has braces besides one {ASSET_PLACEHOLDER}")
    return text


def _distinct_ids(ids: dict[str, str]) -> dict[str, str]:
    _distinct(ids, "id")
    return ids


def _seconds(value: object) -> int:
    return value if type(value) is int else int(parse_duration(value).total_seconds())


class Equivalent(Model):
    """What balances are said to be worth, in the currency that the destination counts in.

    Attributes:
        prices: Folder and file, or URL, of a table ``asset, at, price`` in CSV or Parquet.
        max_age: Seconds that a price may be older than a balance's instant.
        digits: Decimals of the worth.
    """

    prices: Annotated[
        str,
        line(1000),
        Field(description="the path or URL of a CSV or Parquet file with the columns asset, at and price"),
    ]
    max_age: Annotated[
        int, BeforeValidator(_seconds), Field(ge=1, description="a whole number of s, min, h or d, such as 24h")
    ] = 86_400
    digits: Annotated[WholeNumber, Field(ge=0, le=18)] = 2


# --- Destinations


def _record_code(code: str) -> str:
    if _NO_RECORD.fullmatch(code):
        raise ValueError("is about the request, not about a record")
    return code


class _Target(Model):
    """What every destination has.

    Attributes:
        name: Its key under ``destinations``.
        points: ``open``, ``close``, ``changes``, ``local_midnight`` or a step such as ``every 1h``.
        on_unconfirmed: What becomes of a delivery with balances that were seen and not confirmed.
        max_rejected: Rejections tolerated per day before the task fails.
        bisect_codes: Codes for a bad record, for which a request that was refused as a whole is divided; None: the
            destination's own.
        timeout_s: Read timeout for an empty request, in seconds; it grows per record.
    """

    name: Name
    conn_id: ConnectionId
    points: Points = ("close",)
    on_unconfirmed: Literal["warn", "fail"] = "warn"
    max_rejected: Annotated[WholeNumber, Field(ge=0, le=1_000_000)] = 0
    bisect_codes: Annotated[
        tuple[Annotated[Code, AfterValidator(_record_code)], ...] | None,
        Field(
            description="a list of error codes as text, without 401, 403, 404, 429 and 500 to 599; "
            "an empty one never divides"
        ),
    ] = None
    timeout_s: Annotated[WholeNumber, Field(ge=1, le=600)] = 30


class ElvenDestination(_Target):
    """An Elven entity account with the source to write to.

    Attributes:
        timezone: IANA zone of the Entity, in which Elven reads the times that it gets.
        assets: By the exchange's code: what Elven calls it, or ``ignore``. Others go out under their own code.
        max_rows: Balances per request.
        max_bytes: Bytes of a request's body.
    """

    type: Literal["elven"] = "elven"
    assets: Annotated[dict[Code, ElvenTarget], AfterValidator(_distinct_targets)] = Field(
        default_factory=dict,
        description="a mapping from an asset's code (text without blanks) to ignore, {symbol: X} or {asset_id: X}; "
        "each X for one asset",
    )
    entity_account_id: Annotated[Code, Field(description="the id of the entity account in Elven")]
    source_id: Annotated[
        Code,
        Field(
            description="the id of the account's source in Elven (type OPENAPI_BALANCE). "
            "Without source_id Elven would make a new source for each import"
        ),
    ]
    timezone: Zone
    max_rows: Annotated[WholeNumber, Field(ge=1, le=1000)] = 1000
    max_bytes: MaxBytes = 100_000


class AmlyzeDestination(_Target):
    """The accounts of an Amlyze tenant that take the balances, one account per asset.

    Attributes:
        assets: By the exchange's code: ``ignore``.
        requester: Name under which Amlyze records the requests.
        account_ext_id: Pattern with ``{asset}``, or the id by asset's code.
        equivalent: What balances are said to be worth; None: that is not said.
        timezone: IANA zone, for ``local_midnight`` only.
        max_rows: Balances per request.
    """

    type: Literal["amlyze"] = "amlyze"
    assets: Ignored = Field(default_factory=dict)
    requester: Annotated[str, line(100), Field(description="text of 1 to 100 characters")]
    account_ext_id: Annotated[
        Annotated[str, line(MAX_ID + len(ASSET_PLACEHOLDER) - 1), AfterValidator(_pattern), Tag("text")]
        | Annotated[dict[Code, Id], Field(min_length=1), AfterValidator(_distinct_ids), Tag("mapping")],
        Discriminator(_kind),
        Field(
            description=f"a pattern with {ASSET_PLACEHOLDER} in it once, or a mapping from an asset's code to its "
            f"account id, each id once and of 1 to {MAX_ID} characters"
        ),
    ]
    balance_type: OptionalText = None
    business_unit: OptionalText = None
    equivalent: Annotated[
        Equivalent | None, Field(description="a mapping with prices, and max_age and digits if needed")
    ] = None
    timezone: Zone = "UTC"
    max_rows: Annotated[WholeNumber, Field(ge=1, le=10_000)] = 100


class WebhookDestination(_Target):
    """A URL of the user's own.

    Attributes:
        assets: By the exchange's code: ``ignore``.
        timezone: IANA zone, for ``local_midnight`` only.
        max_rows: Balances per request.
        max_bytes: Bytes of a request's body.
    """

    type: Literal["webhook"] = "webhook"
    assets: Ignored = Field(default_factory=dict)
    timezone: Zone = "UTC"
    max_rows: Annotated[WholeNumber, Field(ge=1, le=10_000)] = 500
    max_bytes: MaxBytes = 1_000_000


Destination = Annotated[ElvenDestination | AmlyzeDestination | WebhookDestination, Field(discriminator="type")]
