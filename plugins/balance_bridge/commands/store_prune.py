"""``balance-bridge store prune``: removes what old days can do without. Never a receipt, never what is undelivered."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

from rich import box
from rich.console import Console
from rich.table import Table

from balance_bridge import settings
from balance_bridge.commands.terminal import shown
from balance_bridge.errors import BalanceBridgeError
from balance_bridge.load.destination import balances_from_table
from balance_bridge.load.fold import SETTLED, Status, fold, outcomes
from balance_bridge.load.log import DayLog, destinations_with_logs
from balance_bridge.store import PRUNABLE, Store

LEAST_DAYS = 30
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_DONE = SETTLED | {Status.IGNORED}


@dataclass(frozen=True)
class OldDay:
    """A day of an account that is older than what is to be kept.

    Attributes:
        account: The account's name.
        day: The UTC day, ``YYYY-MM-DD``.
        keys: What can be removed of it, in the order in which it is: each object before those that it rests on.
        size: Bytes of these.
        kept: Why nothing of it is removed; empty if it can be.
    """

    account: str
    day: str
    keys: tuple[str, ...]
    size: int
    kept: str


def old_days(store: Store, before: date) -> list[OldDay]:
    """The days that are older than a date, by account and day, and whether they can be done without.

    What a day that stays rests on stays as well, wherever it lies: its closing snapshot is the next day's opening one.

    Args:
        store: The store.
        before: The first day that is kept.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for prefix in PRUNABLE:
        for key in store.list(prefix.rstrip("/")):
            parts = key.split("/")
            if len(parts) >= 4 and _DAY.fullmatch(parts[2]) and parts[2] < before.isoformat():
                found.setdefault((parts[1], parts[2]), []).append(key)
    why = {place: _undelivered(store, place[0], date.fromisoformat(place[1]), keys) for place, keys in found.items()}
    needed = set(_needed(store, before, [place for place, kept in why.items() if kept]))
    days = []
    for (account, day), keys in sorted(found.items()):
        # A manifest before what it names: whoever finds it finds the rest.
        ordered = sorted(
            keys, key=lambda key: (PRUNABLE.index(f"{key.split('/', 1)[0]}/"), "/manifest/" not in key, key)
        )
        going = tuple(key for key in ordered if key not in needed)
        days.append(OldDay(account, day, going, sum(store.size(key) for key in going), why[account, day]))
    return days


def _needed(store: Store, before: date, kept: Iterable[tuple[str, str]]) -> Iterator[str]:
    """What the days that stay rest on, and does not lie under them: the snapshots that their manifests name."""
    for account, day in kept:
        # Without a manifest it is the next day's newest snapshot that closes the day.
        following = date.fromisoformat(day) + timedelta(days=1)
        if following < before:
            yield from store.list(f"raw/{account}/{following}/snapshot")


def run(*, keep_days: int, yes: bool) -> int:
    """Show what can be removed, and remove it if that is wanted.

    Args:
        keep_days: Days that are kept, counted back from today.
        yes: Whether to remove it.

    Returns:
        The exit code.
    """
    store = settings.open_store()
    before = datetime.now(UTC).date() - timedelta(days=keep_days)
    days = list(old_days(store, before))
    going = [day for day in days if not day.kept]
    console = Console(emoji=False, soft_wrap=True)
    table = Table(title=f"Days before {before}", box=box.SIMPLE_HEAD)
    for name in ("account", "days", "objects", "bytes"):
        table.add_column(name, justify="left" if name == "account" else "right")
    for account in sorted({day.account for day in going}):
        own = [day for day in going if day.account == account]
        objects, size = sum(len(day.keys) for day in own), sum(day.size for day in own)
        table.add_row(shown(account), str(len(own)), str(objects), f"{size:,}")
    console.print(table)
    for day in days:
        if day.kept:
            console.print(f"[yellow]kept[/] {shown(f'{day.account} {day.day}: {day.kept}')}")
    if not yes:
        console.print("Nothing was removed. With --yes this is removed; receipts stay, whatever their age.")
        return 0
    for day in going:
        for key in day.keys:
            store.prune(key)
    console.print(f"{sum(len(day.keys) for day in going)} objects of {len(going)} days were removed.")
    return 0


def _undelivered(store: Store, account: str, day: date, keys: list[str]) -> str:
    """Why a day must stay; empty if all of it is settled."""
    try:
        report = store.newest(f"reconciliation/{account}/{day}", ".json")
        if report is None:
            return "it was never worked out"
        proof = store.read_json(report)["status"]
        if proof == "broken":
            return "its last proof is broken"
        worked_out = {key.split("/")[3] for key in keys if key.startswith("balances/")}
        names = sorted(worked_out.union(destinations_with_logs(store, account, day)))
        if not names:
            return f"it was not delivered: its proof is {proof}"
        return next(filter(None, (_left(store, account, day, name) for name in names)), "")
    except BalanceBridgeError as error:
        return f"it cannot be read ({error})"


def _left(store: Store, account: str, day: date, name: str) -> str:
    """What is left to be delivered to one destination; empty if nothing is."""
    from balance_bridge.transform import balances

    planned = set[tuple[str, int, Decimal]]()
    left: list[Status] = []
    for each in outcomes(fold(DayLog(store, account, day, name).read())):
        planned.add((*each.row.balance, Decimal(each.row.amount)))
        if each.outcome.status not in _DONE:
            left.append(each.outcome.status)
    if left:
        return f"{len(left)} of its balances are {', '.join(sorted(set(left)))} at {name}"
    newest = store.newest(f"balances/{account}/{day}/{name}", ".parquet")
    if newest is None:
        return ""
    # By content: numbers of what was pruned begin again, and a run that has nothing to change writes no plan.
    due = balances_from_table(balances.from_parquet(store.read(newest)))
    never = sum((each.asset, each.at_ms, each.amount) not in planned for each in due)
    return f"{never} of its balances were never sent to {name}" if never else ""
