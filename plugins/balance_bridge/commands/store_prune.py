"""``balance-bridge store prune``: removes what old days can do without. Never a receipt, never what is undelivered."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta

from balance_bridge import settings
from balance_bridge.commands.arguments import today
from balance_bridge.commands.deliveries import MANIFEST, read_delivered
from balance_bridge.commands.output import Listing, Output
from balance_bridge.days import is_day
from balance_bridge.errors import BalanceBridgeError
from balance_bridge.load.log import destinations_with_logs
from balance_bridge.store import PRUNABLE, Store


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
            if len(parts) >= 4 and is_day(parts[2]) and parts[2] < before.isoformat():
                found.setdefault((parts[1], parts[2]), []).append(key)
    why = {place: _undelivered(store, place[0], date.fromisoformat(place[1]), keys) for place, keys in found.items()}
    needed = set(_needed(store, before, [place for place, kept in why.items() if kept]))
    days = []
    for (account, day), keys in sorted(found.items()):
        # A manifest before what it names: whoever finds it finds the rest.
        ordered = sorted(
            keys, key=lambda key: (PRUNABLE.index(f"{key.split('/', 1)[0]}/"), f"/{MANIFEST}/" not in key, key)
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


def run(*, keep_days: int, yes: bool, output: Output) -> int:
    """Show what can be removed, and remove it if that is wanted."""
    store, before = settings.open_store(), today() - timedelta(days=keep_days)
    days = old_days(store, before)
    records = [
        {"account": day.account, "day": day.day, "objects": len(day.keys), "bytes": day.size, "kept": day.kept}
        for day in days
    ]
    going = [day for day in days if not day.kept]
    objects = sum(len(day.keys) for day in going)
    for key in (key for day in going if yes for key in day.keys):
        store.prune(key)
    done = "were removed" if yes else "can be removed: --yes removes them"
    columns = {"account": "account", "UTC day": "day", "objects": "objects", "bytes": "bytes", "kept because": "kept"}
    output.show(
        Listing(
            records,
            columns,
            ["yellow" if day.kept else "" for day in days],
            f"Days before {before}: {objects} objects of {len(going)} days {done}.",
            ["Receipts stay, whatever their age."],
        )
    )
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
        left = {name: read_delivered(store, account, day, name, compare=True).left for name in names}
        return ", ".join(
            f"{count} of its balances are not delivered to {name}" for name, count in left.items() if count
        )
    except BalanceBridgeError as error:
        return f"it cannot be read ({error})"
