"""``balance-bridge store prune``: removes what old days can do without. Never a receipt, never what is undelivered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from balance_bridge import settings
from balance_bridge.commands.arguments import today
from balance_bridge.commands.deliveries import MANIFEST
from balance_bridge.commands.output import Listing, Output
from balance_bridge.commands.store_check import folders
from balance_bridge.errors import BalanceBridgeError
from balance_bridge.facts import destinations_of, read_delivery
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
    keys: Sequence[str]
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
    # Stage after stage, in the order in which a day goes.
    for folder in folders(store, [stage.rstrip("/") for stage in PRUNABLE])[0]:
        if folder.has_day and folder.day < str(before):
            # A manifest before what it names: whoever finds it finds the rest.
            keys = sorted(folder.keys, key=lambda key: (f"/{MANIFEST}/" not in key, key))
            found.setdefault((folder.account, folder.day), []).extend(keys)
    why = {place: _undelivered(store, place[0], date.fromisoformat(place[1])) for place in found}
    needed = set[str]()
    for account, day in (place for place, kept in why.items() if kept):
        # Without a manifest it is the next day's newest snapshot that closes the day.
        needed.update(store.list(f"raw/{account}/{date.fromisoformat(day) + timedelta(days=1)}/snapshot"))
    days = []
    for place, keys in sorted(found.items()):
        going = [key for key in keys if key not in needed]
        days.append(OldDay(*place, going, sum(map(store.size, going)), why[place]))
    return days


def run(*, keep_days: int, yes: bool, output: Output) -> int:
    """Show what can be removed, and remove it if that is wanted."""
    store, before = settings.open_store(), today() - timedelta(days=keep_days)
    records = []
    objects = days = 0
    for each in old_days(store, before):
        record = {"account": each.account, "day": each.day, "objects": len(each.keys), "bytes": each.size}
        records.append({**record, "kept": each.kept, "colour": "yellow" if each.kept else ""})
        if not each.kept:
            objects, days = objects + len(each.keys), days + 1
            for key in each.keys if yes else ():
                store.prune(key)
    done = "were removed." if yes else "can be removed. Add --yes to remove them."
    columns = {"account": "account", "UTC day": "day", "objects": "objects", "bytes": "bytes", "kept because": "kept"}
    verdict = f"Before {before}: {objects} objects of {days} days {done}"
    output.show(Listing(records, columns, verdict=verdict, remarks=["Receipts are never removed."]))
    return 0


def _undelivered(store: Store, account: str, day: date) -> str:
    """Why a day must stay; empty if all of it is settled."""
    try:
        report = store.newest(f"reconciliation/{account}/{day}", ".json")
        if report is None:
            return "it was never reconciled"
        document = store.read_json(report)
        proof = document.get("status") if isinstance(document, dict) else None
        if proof == "broken":
            return "it does not add up"
        if proof not in ("proven", "tolerated"):
            return f"it cannot be read ({store.describe(report)} is not a reconciliation report)"
        names = destinations_of(store, account, day)
        if not names:
            return f"it is {proof}, but was not delivered"
        found = {name: read_delivery(store, account, day, name, compare=True) for name in names}
        for unreadable in (each.unreadable for each in found.values() if each.unreadable):
            return f"it cannot be read ({unreadable})"
        return ", ".join(
            f"{each.left} balances are not delivered to {name}" for name, each in found.items() if each.left
        )
    except BalanceBridgeError as error:
        return f"it cannot be read ({error})"
