"""Where an account's balances go, as pydantic models: a model per type of destination.

Every field's description says what is allowed there; messages quote it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator

from balance_bridge.accounts.fields import (
    ID_CHARACTERS,
    ZONES,
    AssetCode,
    ConnectionId,
    Model,
    OpaqueId,
    OptionalText,
    Points,
    Zone,
    below,
    printable,
    whole_number,
)
from balance_bridge.accounts.problems import describe

ASSET_PLACEHOLDER = "{asset}"
TYPES = "elven, amlyze, webhook"
# Some APIs repeat the HTTP status as the code of an error. These are the same for every part of a request.
_NO_RECORD = re.compile(r"401|403|404|429|5[0-9]{2}")


def _pattern(text: str) -> str:
    printable(ID_CHARACTERS + len(ASSET_PLACEHOLDER) - 1, blanks=True)(text)
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
        raise below(shared[0][1][1], told)


def _record_code(code: str) -> str:
    printable(60, blanks=False)(code)
    if _NO_RECORD.fullmatch(code):
        raise ValueError("says nothing of a record, but of who asks, the address, the moment or the server")
    return code


def _kind(value: object) -> str:
    return "mapping" if isinstance(value, dict | ElvenAsset) else "text"


class ElvenAsset(Model):
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
            raise below("symbol", "has a '-' in it, which no symbol in Elven has")
        return self


ElvenTarget = Annotated[
    Annotated[Literal["ignore"], Tag("text")] | Annotated[ElvenAsset, Tag("mapping")], Discriminator(_kind)
]

Ignored = dict[AssetCode, Literal["ignore"]]
_IGNORED = "a mapping from an asset's code (text without blanks) to ignore"

Bytes = Annotated[
    int,
    BeforeValidator(whole_number),
    Field(ge=1000, le=10_000_000, description="a whole number from 1000 to 10000000"),
]


def _max_age_s(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = re.fullmatch(r"([1-9][0-9]{0,4})(min|h|d)", value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("is not a length of time")
    return int(match[1]) * {"min": 60, "h": 3600, "d": 86_400}[match[2]]


class Equivalent(Model):
    """What balances are told to be worth, in the currency that the destination counts in.

    Attributes:
        prices: Folder and file, or URL, of a table ``asset, at, price`` in CSV or Parquet.
        max_age: Seconds that a price may be older than a balance's instant.
        digits: Decimals of what is told.
    """

    prices: Annotated[
        Annotated[str, AfterValidator(printable(1000, blanks=True))],
        Field(description="the path or URL of a CSV or Parquet file with the columns asset, at and price"),
    ]
    max_age: Annotated[
        int, BeforeValidator(_max_age_s), Field(description="a whole number of min, h or d, such as 24h")
    ] = 86_400
    digits: Annotated[
        int, BeforeValidator(whole_number), Field(ge=0, le=18, description="a whole number from 0 to 18")
    ] = 2


class _Target(Model):
    """What every destination can be told.

    Attributes:
        name: Its key under ``destinations``.
        points: ``open``, ``close``, ``changes``, ``local_midnight`` or a step such as ``every 1h``.
        on_unconfirmed: What becomes of a delivery with balances that were seen and not confirmed.
        max_rejected: So many rejected balances of a day do not fail it.
        bisect_codes: Codes for a bad record, for which a request that was refused as a whole is divided; None: the
            destination's own.
        timeout_s: Seconds without a byte after which the answer to an empty request counts as lost.
    """

    name: str
    conn_id: ConnectionId
    points: Points = ("close",)
    on_unconfirmed: Annotated[Literal["warn", "fail"], Field(description="warn, fail")] = "warn"
    max_rejected: Annotated[
        int, BeforeValidator(whole_number), Field(ge=0, le=1_000_000, description="a whole number from 0 to 1000000")
    ] = 0
    bisect_codes: Annotated[
        tuple[Annotated[str, AfterValidator(_record_code)], ...] | None,
        Field(
            description="a list of error codes as text, without 401, 403, 404, 429 and 500 to 599; "
            "an empty one never divides"
        ),
    ] = None
    timeout_s: Annotated[
        int, BeforeValidator(whole_number), Field(ge=1, le=600, description="a whole number from 1 to 600")
    ] = 30


class ElvenDestination(_Target):
    """An Elven entity account with the source to write to.

    Attributes:
        timezone: IANA zone of the Entity, in which Elven reads the times that it gets.
        assets: By the exchange's code: what Elven calls it, or ``ignore``. Others go out under their own code.
        max_rows: Balances per request.
        max_bytes: Bytes of a request's body.
    """

    type: Literal["elven"] = Field(default="elven", description=TYPES)
    assets: Annotated[dict[AssetCode, ElvenTarget], AfterValidator(_distinct_targets)] = Field(
        default_factory=dict,
        description="a mapping from an asset's code (text without blanks) to ignore, {symbol: X} or {asset_id: X}; "
        "each X for one asset",
    )
    entity_account_id: Annotated[OpaqueId, Field(description="the id of the entity account in Elven")]
    source_id: Annotated[
        OpaqueId,
        Field(
            description="the id of the account's source in Elven (type OPENAPI_BALANCE). "
            "Without source_id Elven would make a new source for each import"
        ),
    ]
    timezone: Annotated[Zone, Field(description=f"the Entity's zone in Elven: {ZONES}")]
    max_rows: Annotated[
        int, BeforeValidator(whole_number), Field(ge=1, le=1000, description="a whole number from 1 to 1000")
    ] = 1000
    max_bytes: Bytes = 100_000


class AmlyzeDestination(_Target):
    """The accounts of an Amlyze tenant that take the balances, one account per asset.

    Attributes:
        assets: By the exchange's code: ``ignore``.
        requester: Name under which Amlyze records the requests.
        account_ext_id: Pattern with ``{asset}``, or the id by asset's code.
        equivalent: What balances are told to be worth; None: that is not told.
        timezone: IANA zone, for ``local_midnight`` only.
        max_rows: Balances per request.
    """

    type: Literal["amlyze"] = Field(default="amlyze", description=TYPES)
    assets: Ignored = Field(default_factory=dict, description=_IGNORED)
    requester: Annotated[
        Annotated[str, AfterValidator(printable(100, blanks=True))],
        Field(description="text of 1 to 100 characters"),
    ]
    account_ext_id: Annotated[
        Annotated[Annotated[str, AfterValidator(_pattern)], Tag("text")]
        | Annotated[
            dict[AssetCode, Annotated[str, AfterValidator(printable(ID_CHARACTERS, blanks=True))]],
            AfterValidator(_distinct_ids),
            Tag("mapping"),
        ],
        Discriminator(_kind),
        Field(
            description=f"a pattern with {ASSET_PLACEHOLDER} in it once, or a mapping from an asset's code to its "
            f"account id, each id once and of 1 to {ID_CHARACTERS} characters"
        ),
    ]
    balance_type: OptionalText = None
    business_unit: OptionalText = None
    equivalent: Annotated[
        Equivalent | None, Field(description="a mapping with prices, and max_age and digits if needed")
    ] = None
    timezone: Annotated[Zone, Field(description=ZONES)] = "UTC"
    max_rows: Annotated[
        int, BeforeValidator(whole_number), Field(ge=1, le=10_000, description="a whole number from 1 to 10000")
    ] = 100


class WebhookDestination(_Target):
    """A URL of one's own.

    Attributes:
        assets: By the exchange's code: ``ignore``.
        timezone: IANA zone, for ``local_midnight`` only.
        max_rows: Balances per request.
        max_bytes: Bytes of a request's body.
    """

    type: Literal["webhook"] = Field(default="webhook", description=TYPES)
    assets: Ignored = Field(default_factory=dict, description=_IGNORED)
    timezone: Annotated[Zone, Field(description=ZONES)] = "UTC"
    max_rows: Annotated[
        int, BeforeValidator(whole_number), Field(ge=1, le=10_000, description="a whole number from 1 to 10000")
    ] = 500
    max_bytes: Bytes = 1_000_000


Destination = Annotated[ElvenDestination | AmlyzeDestination | WebhookDestination, Field(discriminator="type")]
DESTINATIONS: dict[str, type[ElvenDestination | AmlyzeDestination | WebhookDestination]] = {
    "elven": ElvenDestination,
    "amlyze": AmlyzeDestination,
    "webhook": WebhookDestination,
}
