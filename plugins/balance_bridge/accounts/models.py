"""What an account is, as a pydantic model. A field's description says what is allowed there; messages quote it."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo

from balance_bridge.accounts.destinations import Destination
from balance_bridge.accounts.fields import AccountName, Code, Day, Model, Truth, parse_tolerance
from balance_bridge.accounts.sources import Source
from balance_bridge.points import STEP_PREFIX, known_so_far, parse_step_ms

_MINUTE_MS = 60_000
_LONGEST_INTRADAY_MS = 12 * 60 * _MINUTE_MS


def _interval(text: str) -> str:
    step_ms = parse_step_ms(text)
    # Runs are scheduled by cron, which knows no seconds.
    if text.startswith(STEP_PREFIX) or not _MINUTE_MS <= step_ms <= _LONGEST_INTRADAY_MS or step_ms % _MINUTE_MS:
        raise ValueError("is not such a step")
    return text


def _deliverable(step: str, info: ValidationInfo) -> str:
    # What is not in here is wrong by itself, and reported as such.
    source = info.data.get("source")
    if source is not None and source.type == "files":
        raise ValueError("a source of type files cannot be followed during the day")
    destinations = info.data.get("destinations")
    if destinations is not None and not any(known_so_far(target.points) for target in destinations.values()):
        raise ValueError(
            "would deliver nothing: only the points changes and {every: STEP} are known during the day, and no "
            "destination of this account has one"
        )
    return step


class Account(Model):
    """An account of an exchange, and where its balances are delivered.

    Attributes:
        name: Its key under ``accounts``.
        source: Where its balances come from.
        start_date: First day to deliver (UTC).
        on_break: What to do with a day that does not add up: deliver nothing, deliver it marked, or ask
            somebody first.
        tolerance: By asset: the drift that conservation may have, in units of the asset.
        destinations: By name, at least one.
        deferrable: Whether its extraction gives up its worker while it waits; None: as Airflow's own default says.
        intraday: The step in which a day that goes on is followed, such as ``15min``; None: it is not.
    """

    name: AccountName
    source: Annotated[
        Source, Field(description="a mapping with type: ascendex, conn_id and category, or with type: files and path")
    ]
    start_date: Day
    on_break: Literal["hold", "load", "ask"] = "hold"
    tolerance: dict[Code, Annotated[Decimal, BeforeValidator(parse_tolerance)]] = Field(
        default_factory=dict,
        description="a mapping from an asset's code (text without blanks) to an amount of 0 or more, in digits, with "
        "up to 18 decimals",
    )
    destinations: Annotated[
        dict[str, Destination],
        Field(
            min_length=1,
            description="a mapping with at least one of elven, amlyze, webhook, or a name of your own with one "
            "of these as its type",
        ),
    ]
    deferrable: Annotated[
        Truth | None,
        Field(description="true, false; without the key it is Airflow's option default_deferrable in [operators]"),
    ] = None
    # Below source and destinations, because its check looks at them.
    intraday: Annotated[
        Annotated[str, AfterValidator(_interval), AfterValidator(_deliverable)] | None,
        Field(
            description="a step of whole minutes from 1min to 12h that divides 24 h, such as 15min, for an account of "
            "an exchange with changes or {every: STEP} among the points of a destination"
        ),
    ] = None


class TopLevel(Model):
    """The top of the file. Each account is validated on its own, so that a mistake breaks it alone.

    Attributes:
        accounts: What the file says about each account.
    """

    accounts: Annotated[dict[str, Any], Field(description="a mapping from each account's name to its settings")]
