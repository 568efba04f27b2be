"""Whether what arrived equals the sandbox's own books, balance by balance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import requests

from balance_bridge.accounts import (
    Account,
    AmlyzeDestination,
    AscendexSource,
    Destination,
    ElvenAsset,
    ElvenDestination,
)
from balance_bridge.commands.output import Listing
from balance_bridge.errors import ConfigurationError

Rows = Counter[tuple[str, str, Decimal]]
"""How often a balance is there, by its key at the destination (name and instant) and its amount."""

_COLUMNS = ("account", "destination", "day", "due", "exact", "missing", "wrong", "equal")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Verdict:
    """One account, one destination, one day.

    Attributes:
        account: The account's name.
        destination: The destination's name.
        day: The UTC day.
        due: Balances that the sandbox's books say are due.
        missing: What is due and did not arrive, as text.
        wrong: What arrived and is not due (another amount, a second copy, another key), as text.
    """

    account: str
    destination: str
    day: date
    due: int
    missing: tuple[str, ...]
    wrong: tuple[str, ...]

    @property
    def right(self) -> int:
        """Balances that arrived exactly as they are due, once."""
        return self.due - len(self.missing)

    @property
    def equal(self) -> bool:
        """Whether exactly what is due has arrived."""
        return not self.missing and not self.wrong


def compare(url: str, accounts: Mapping[str, Account], keys: Mapping[str, str], days: list[date]) -> list[Verdict]:
    """Hold what arrived against the books.

    Args:
        url: The sandbox.
        accounts: The accounts that were run.
        keys: Exchange API key by account name.
        days: The days that were run, in order.

    Returns:
        A verdict per account, destination and day. What arrived and belongs to no day stands with the last one.
    """
    arrived: dict[str, list[dict[str, Any]]] = _get(f"{url}/sandbox/delivered")
    verdicts = []
    for account in accounts.values():
        for destination in account.destinations.values():
            left = _arrived(arrived[destination.type], account.name, destination)
            by_day = _due(url, account, destination, keys[account.name], days)
            for day, due in by_day.items():
                missing, left = due - left, left - due
                wrong = _texts(left) if day == days[-1] else ()
                verdicts.append(Verdict(account.name, destination.name, day, due.total(), _texts(missing), wrong))
    return verdicts


def listing(verdicts: list[Verdict], held: tuple[str, date] | None = None) -> Listing:
    """The verdicts as a table.

    Args:
        verdicts: In the order in which they are shown.
        held: Account and day of which nothing was to be sent.
    """
    records = []
    for one in verdicts:
        equal, colour = ("yes", "") if one.equal else ("NO", "red")
        if (one.account, one.day) == held and not one.right and not one.wrong:
            equal, colour = "held", "yellow"
        counts = {"exact": one.right, "missing": len(one.missing), "wrong": len(one.wrong)}
        records.append({**vars(one), **counts, "equal": equal, "colour": colour})
    columns = {"UTC day" if name == "day" else name: name for name in _COLUMNS}
    return Listing(records, columns, verdict="What arrived, against the sandbox's own books:")


def differences(verdicts: list[Verdict], most: int = 10) -> Iterator[str]:
    """The first differences, as lines."""
    lines = [
        f"{one.account} {one.destination} {one.day}: {kind} {text}"
        for one in verdicts
        for kind in ("missing", "wrong")
        for text in getattr(one, kind)
    ]
    yield from lines[:most]
    if len(lines) > most:
        yield f"and {len(lines) - most} more"


def _due(url: str, account: Account, destination: Destination, key: str, days: list[date]) -> dict[date, Rows]:
    if not isinstance(account.source, AscendexSource):
        raise ConfigurationError(f"{account.name}: the sandbox has books of exchange accounts only")
    elven = isinstance(destination, ElvenDestination)
    books = _get(
        f"{url}/sandbox/books",
        {
            "key": key,
            "category": account.source.category,
            "from": str(days[0]),
            "to": str(days[-1]),
            "points": ",".join(destination.points),
            "zone": destination.timezone,
            "key_kind": "local_second" if elven else "instant",
            "start": str(account.start_date),
        },
    )
    rows: dict[date, Rows] = {day: Counter() for day in days}
    for row in books["deliveries"]:
        name = _name(destination, row["asset"])
        if name is not None:
            instant = EPOCH + timedelta(milliseconds=row["at_ms"])
            when = row["local"] if elven else f"{instant:%Y-%m-%dT%H:%M:%S}.{row['at_ms'] % 1000:03d}Z"
            rows[date.fromisoformat(row["day"])][name, when, Decimal(row["balance"])] += 1
    return rows


def _name(destination: Destination, asset: str) -> str | None:
    """What an asset is called at the destination; None if it is not sent there."""
    if destination.assets.get(asset) == "ignore":
        return None
    if isinstance(destination, AmlyzeDestination):
        ids = destination.account_ext_id
        return ids.replace("{asset}", asset) if isinstance(ids, str) else ids.get(asset)
    if not isinstance(destination, ElvenDestination):
        return asset
    rule = destination.assets.get(asset)
    if not isinstance(rule, ElvenAsset):
        return f"symbol:{asset}"
    return f"assetID:{rule.asset_id}" if rule.asset_id else f"symbol:{rule.symbol}"


def _arrived(rows: list[dict[str, Any]], account: str, destination: Destination) -> Rows:
    """What has arrived at a destination, of all that its API has taken."""
    if isinstance(destination, ElvenDestination):
        columns = ("identity", "datetime", "balance")
        mine = {"entity_account_id": destination.entity_account_id, "source_id": destination.source_id}
    elif isinstance(destination, AmlyzeDestination):
        columns, mine = ("account_ext_id", "balance_at", "balance"), {}
        ids = destination.account_ext_id
        rows = [row for row in rows if _is_id(ids, row["account_ext_id"])]
    else:
        columns, mine = ("asset", "at", "balance"), {"account": account, "destination": destination.name}
    name, when, amount = columns
    return Counter((row[name], row[when], Decimal(row[amount])) for row in rows if mine.items() <= row.items())


def _is_id(ids: str | Mapping[str, str], text: str) -> bool:
    """Whether an account id at Amlyze is made by a pattern, or one of a mapping."""
    return text.startswith(ids.split("{")[0]) if isinstance(ids, str) else text in ids.values()


def _texts(rows: Rows) -> tuple[str, ...]:
    return tuple(f"{name} at {when}: {amount}" for name, when, amount in rows.elements())


def _get(url: str, params: dict[str, str] | None = None) -> Any:
    answer = requests.get(url, params=params, timeout=30)
    answer.raise_for_status()
    return answer.json()
