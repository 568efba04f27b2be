"""Whether what arrived equals the sandbox's own books, balance by balance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import requests
from rich import box
from rich.table import Table

from balance_bridge.accounts import (
    Account,
    AmlyzeDestination,
    AscendexSource,
    Destination,
    ElvenAsset,
    ElvenDestination,
)
from balance_bridge.errors import ConfigurationError

Rows = Counter[tuple[str, str, Decimal]]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Verdict:
    """One account, one destination, one day.

    Attributes:
        account: The account's name.
        destination: The destination's name.
        day: The UTC day.
        due: Balances that the sandbox's books say are due.
        right: Balances that arrived exactly so, once.
        missing: What is due and did not arrive, as text.
        wrong: What arrived and is not due (another amount, a second copy, another key), as text.
    """

    account: str
    destination: str
    day: date
    due: int
    right: int
    missing: tuple[str, ...]
    wrong: tuple[str, ...]

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
    arrived: dict[str, Any] = _get(f"{url}/sandbox/delivered")
    verdicts = []
    for account in accounts.values():
        for name, destination in account.destinations.items():
            if isinstance(destination, ElvenDestination):
                left = _elven_rows(arrived["elven"], destination)
            elif isinstance(destination, AmlyzeDestination):
                left = _amlyze_rows(arrived["amlyze"], destination)
            else:
                left = _webhook_rows(arrived["webhook"], account.name, name)
            by_day = _due(url, account, destination, keys[account.name], days)
            for day in days:
                due = by_day[day]
                missing, left = due - left, left - due
                wrong = _texts(left) if day == days[-1] else ()
                right = due.total() - missing.total()
                verdicts.append(Verdict(account.name, name, day, due.total(), right, _texts(missing), wrong))
    return verdicts


def table(verdicts: list[Verdict], held: tuple[str, date] | None = None) -> Table:
    """The verdicts for a terminal.

    Args:
        verdicts: In the order in which they are shown.
        held: Account and day of which nothing was to be sent.
    """
    shown = Table(title="What arrived, against the sandbox's own books", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("account", "destination", "UTC day"):
        shown.add_column(name, no_wrap=True)
    for name in ("due", "exact", "missing", "wrong"):
        shown.add_column(name, justify="right")
    shown.add_column("equal")
    for one in verdicts:
        equal = "[green]yes[/]" if one.equal else "[red]NO[/]"
        if (one.account, one.day) == held and not one.right and not one.wrong:
            equal = "[yellow]held[/]"
        counts = (one.due, one.right, len(one.missing), len(one.wrong))
        shown.add_row(one.account, one.destination, one.day.isoformat(), *map(str, counts), equal)
    return shown


def _due(url: str, account: Account, destination: Destination, key: str, days: list[date]) -> dict[date, Rows]:
    if not isinstance(account.source, AscendexSource):
        raise ConfigurationError(f"{account.name}: the sandbox has books of exchange accounts only")
    elven = isinstance(destination, ElvenDestination)
    books = _get(
        f"{url}/sandbox/books",
        {
            "key": key,
            "category": account.source.category,
            "from": days[0].isoformat(),
            "to": days[-1].isoformat(),
            "points": ",".join(destination.points),
            "zone": destination.timezone,
            "key_kind": "local_second" if elven else "instant",
            "start": account.start_date.isoformat(),
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


def _elven_rows(rows: list[dict[str, Any]], destination: ElvenDestination) -> Rows:
    found: Rows = Counter()
    for row in rows:
        if (row["entity_account_id"], row["source_id"]) == (destination.entity_account_id, destination.source_id):
            found[row["identity"], row["datetime"], Decimal(row["balance"])] += 1
    return found


def _amlyze_rows(rows: list[dict[str, Any]], destination: AmlyzeDestination) -> Rows:
    found: Rows = Counter()
    ids = destination.account_ext_id
    mine = (lambda text: text.startswith(ids.split("{")[0])) if isinstance(ids, str) else set(ids.values()).__contains__
    for row in rows:
        if mine(row["account_ext_id"]):
            found[row["account_ext_id"], row["balance_at"], Decimal(row["balance"])] += 1
    return found


def _webhook_rows(rows: list[dict[str, Any]], account: str, destination: str) -> Rows:
    found: Rows = Counter()
    for row in rows:
        if (row["account"], row["destination"]) == (account, destination):
            found[row["asset"], row["at"], Decimal(row["balance"])] += 1
    return found


def _texts(rows: Rows) -> tuple[str, ...]:
    return tuple(f"{name} at {when}: {amount}" for name, when, amount in rows.elements())


def _get(url: str, params: dict[str, str] | None = None) -> Any:
    answer = requests.get(url, params=params, timeout=30)
    answer.raise_for_status()
    return answer.json()


def differences(verdicts: list[Verdict], most: int = 10) -> Iterator[str]:
    """The first differences, as lines."""
    lines = [
        f"{one.account} {one.destination} {one.day}: {kind} {text}"
        for one in verdicts
        for kind, texts in (("missing", one.missing), ("wrong", one.wrong))
        for text in texts
    ]
    yield from lines[:most]
    if len(lines) > most:
        yield f"and {len(lines) - most} more"
