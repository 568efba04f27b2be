"""``balance-bridge store check``: reads every object of the store, and says what is damaged and what is missing."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from balance_bridge import settings
from balance_bridge.commands.arguments import choose
from balance_bridge.commands.deliveries import MANIFEST
from balance_bridge.commands.output import Finding, Output
from balance_bridge.days import is_day
from balance_bridge.errors import BalanceBridgeError, StoreDamaged
from balance_bridge.extract import raw
from balance_bridge.load.documents import Plan, decode
from balance_bridge.load.fold import fold, outcomes
from balance_bridge.load.log import DayLog
from balance_bridge.load.place import Owners, Place
from balance_bridge.store import Store

STAGES = ("raw", "ledger", "reconciliation", "balances", "intraday", "dry", "receipts")
# What lies where a day would: for all days of an account.
_NO_DAYS = frozenset({("raw", "account"), ("receipts", "places")})
_ADVICE = {
    "raw": "Clear the day's run: it is fetched again if the exchange still has it",
    "dry": "Nothing depends on it; it can be removed",
    "receipts": "Put it back from a backup: until then nothing is delivered there",
}


@dataclass(frozen=True)
class Folder:
    """What the store holds of one account's day in one stage; of no day in particular under a name of ``_NO_DAYS``.

    The account is empty for what is of no account in particular.
    """

    stage: str
    account: str
    day: str
    keys: Sequence[str]

    @property
    def has_day(self) -> bool:
        """Whether it is about one day."""
        return is_day(self.day)


def run(accounts: Sequence[str], days: Sequence[date] | None, output: Output) -> int:
    """Check the store and show what was found.

    Returns:
        The exit code: 1 if anything is damaged.
    """
    from rich.console import Console
    from rich.progress import track

    store = settings.open_store()
    chosen, found = folders(store, accounts=accounts, days=days)
    shows = sys.stderr.isatty() and not output.quiet
    for folder in track(chosen, "reading the store", console=Console(stderr=True), transient=True, disable=not shows):
        found += check(store, folder)
    found += gaps(chosen)
    damaged = sum(not each.right for each in found)
    count = f"{sum(len(folder.keys) for folder in chosen)} objects were read."
    return output.show_findings(found, f"{damaged} damaged." if damaged else "Nothing is damaged.", [count])


def folders(
    store: Store,
    stages: Sequence[str] = STAGES,
    *,
    accounts: Sequence[str] = (),
    days: Sequence[date] | None = None,
) -> tuple[list[Folder], list[Finding]]:
    """What the store holds, and what in it this package did not write.

    Args:
        store: The store.
        stages: Only these.
        accounts: Only these; all that it holds if empty.
        days: Only these days, and what is of no day in particular; all if None.

    Raises:
        UsageError: If the store has nothing of an account.
    """
    found: dict[tuple[str, str, str], list[str]] = {}
    foreign = []
    for key in (key for stage in stages for key in store.list(stage)):
        parts = key.split("/")
        if parts[:2] == ["receipts", "places"] and len(parts) == 4:
            # Of all accounts: who delivers to which account of an address.
            found.setdefault(("receipts", "", "places"), []).append(key)
            continue
        # A receipt lies one folder deeper: in its destination's.
        if len(parts) < 4 + (parts[0] == "receipts") or not (is_day(parts[2]) or (parts[0], parts[2]) in _NO_DAYS):
            foreign.append(_foreign(key))
        else:
            found.setdefault((parts[0], parts[1], parts[2]), []).append(key)
    names = choose("the store has no account", accounts, sorted({account for _, account, _ in found if account}))
    wanted = None if days is None else {str(day) for day in days}
    every = [Folder(*place, keys) for place, keys in found.items() if place[1] in ("", *names)]
    return [each for each in every if wanted is None or not each.has_day or each.day in wanted], foreign


def check(store: Store, folder: Folder) -> Iterator[Finding]:
    """Read a folder's objects. Nothing is changed.

    Args:
        store: The store.
        folder: Which objects.
    """
    for key in folder.keys:
        try:
            if not _is_read(store, folder, key):
                yield _foreign(key)
        except (BalanceBridgeError, ValueError, OSError) as error:
            yield _damaged(folder, key, error)
    if folder.has_day and folder.stage == "raw":
        yield from _manifests(store, folder)
    elif folder.has_day and folder.stage == "receipts":
        yield from _logs(store, folder)


def gaps(chosen: Sequence[Folder]) -> Iterator[Finding]:
    """The days between an account's first and last that lack something."""
    have: dict[str, dict[str, set[str]]] = {}
    for folder in chosen:
        days = have.setdefault(folder.account, {})
        if folder.stage == "raw" and any(f"/{MANIFEST}/" in key for key in folder.keys):
            days.setdefault(folder.day, set()).add("changes")
        elif folder.stage == "reconciliation":
            days.setdefault(folder.day, set()).add("proof")
    for account, days in sorted(have.items()):
        at, last = min(days, default=""), max(days, default="")
        while at and at <= last:
            lacks = sorted({"changes", "proof"} - days.get(at, set()))
            if lacks:
                yield Finding(f"{account} {at}", f"no {', no '.join(lacks)}", "gap", "yellow")
            at = str(date.fromisoformat(at) + timedelta(days=1))


def _foreign(key: str) -> Finding:
    return Finding(key, "this package did not write it", "foreign", "")


def _damaged(folder: Folder, key: str, what: object) -> Finding:
    advice = _ADVICE.get(folder.stage, "Clear the day's run: it is computed again from the raw responses")
    return Finding(key, f"{what}. {advice}", "damaged")


def _is_read(store: Store, folder: Folder, key: str) -> bool:
    """Read an object; False if this package did not write it."""
    from balance_bridge.transform import balances, ledger

    stage = folder.stage
    if stage == "receipts":
        if folder.day == "places" and key.endswith(".jsonl"):
            decode(store.read(key), Place if folder.account else Owners, store.describe(key))
            return True
        # A log is read as a whole, below.
        return folder.day != "places"
    if stage == "raw" and key.endswith(raw.SUFFIX):
        raw.read(store, key)
    elif key.endswith(".parquet"):
        (ledger if stage == "ledger" else balances).from_parquet(store.read(key))
    elif stage == "dry" and key.endswith(".jsonl.gz"):
        decode(store.read(key), Plan, store.describe(key))
    elif key.endswith(".json"):
        store.read_json(key)
    else:
        return False
    return True


def _manifests(store: Store, folder: Folder) -> Iterator[Finding]:
    """Whether what a day's manifests name is there."""
    for key in folder.keys:
        if f"/{folder.day}/{MANIFEST}/" not in key:
            continue
        try:
            found = store.read_json(key)
            missing = [name for name in (found["opening"], found["closing"]) if not store.exists(name)]
            pages = raw.newest_pages(store, found["history"])
            if len(pages) < found["pages"]:
                missing.append(f"{found['pages'] - len(pages)} pages in {found['history']}")
            if missing:
                yield _damaged(folder, key, f"what it names is missing: {', '.join(missing)}")
        except StoreDamaged:
            # Reported already, as an object of its own.
            continue
        except (KeyError, TypeError) as error:
            yield _damaged(folder, key, f"it lacks {error}")


def _logs(store: Store, folder: Folder) -> Iterator[Finding]:
    """Read each log of a day as a run would."""
    for name in sorted({key.split("/")[3] for key in folder.keys}):
        try:
            list(outcomes(fold(DayLog(store, folder.account, date.fromisoformat(folder.day), name).read())))
        except (BalanceBridgeError, OSError) as error:
            yield _damaged(folder, f"receipts/{folder.account}/{folder.day}/{name}", error)
