"""``balance-bridge store check``: reads every object of the store, and says what is damaged and what is missing."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date, timedelta

from balance_bridge import settings
from balance_bridge.commands.arguments import choose
from balance_bridge.commands.deliveries import MANIFEST
from balance_bridge.commands.output import Listing, Output
from balance_bridge.errors import BalanceBridgeError, StoreDamaged
from balance_bridge.extract import raw
from balance_bridge.load.documents import Plan, decode
from balance_bridge.load.fold import fold, outcomes
from balance_bridge.load.log import DayLog
from balance_bridge.load.place import Place
from balance_bridge.store import Store

STAGES = ("raw", "ledger", "reconciliation", "balances", "intraday", "dry", "receipts")
_COLOURS = {"damaged": "red", "gap": "yellow", "foreign": ""}
# What lies where a day would: for all days of an account.
_NO_DAYS = frozenset({("raw", "account"), ("receipts", "places")})
_ADVICE = {
    "raw": "Clear the day's run: it is fetched again if the exchange still has it",
    "dry": "Nothing depends on it; it can be removed",
    "receipts": "Put it back from a backup: until then nothing is delivered there",
}


@dataclass(frozen=True)
class Finding:
    """What is not as it should be.

    Attributes:
        kind: ``damaged``: not what was written; ``gap``: a day between an account's first and last lacks something;
            ``foreign``: this package did not write it.
        object: The object's key, or the account and day of a gap.
        message: What is wrong, and what to do.
    """

    kind: str
    object: str
    message: str


@dataclass(frozen=True)
class Folder:
    """What the store holds of one account's day in one stage; of no day in particular under a name of ``_NO_DAYS``."""

    stage: str
    account: str
    day: str
    keys: Sequence[str]

    def damaged(self, key: str, what: object) -> Finding:
        """The finding that one of its objects is damaged."""
        advice = _ADVICE.get(self.stage, "Clear the day's run: it is computed again from the raw responses")
        return Finding("damaged", key, f"{what}. {advice}")


def run(accounts: Sequence[str], days: Sequence[date] | None, output: Output) -> int:
    """Check the store and show what was found.

    Returns:
        The exit code: 1 if anything is damaged.
    """
    from rich.console import Console
    from rich.progress import track

    store = settings.open_store()
    chosen, found = folders(store, accounts, days)
    shows = sys.stderr.isatty() and not output.quiet
    for folder in track(chosen, "reading the store", console=Console(stderr=True), transient=True, disable=not shows):
        found += check(store, folder)
    found += gaps(chosen)
    damaged = sum(each.kind == "damaged" for each in found)
    verdict = f"{damaged} damaged." if damaged else "Every object is what was written."
    columns = {"finding": "kind", "object": "object", "message": "message"}
    count = f"{sum(len(folder.keys) for folder in chosen)} objects were read."
    colours = [_COLOURS[each.kind] for each in found]
    output.show(Listing([asdict(each) for each in found], columns, colours, verdict, [count]))
    return 1 if damaged else 0


def folders(
    store: Store, accounts: Sequence[str] = (), days: Sequence[date] | None = None
) -> tuple[list[Folder], list[Finding]]:
    """What the store holds, and what in it is none of this package's.

    Args:
        store: The store.
        accounts: Only these; all that it holds if empty.
        days: Only these days, and what is of no day in particular; all if None.

    Raises:
        UsageError: If the store has nothing of an account.
    """
    found: dict[tuple[str, str, str], list[str]] = {}
    foreign = []
    for key in (key for stage in STAGES for key in store.list(stage)):
        parts = key.split("/")
        # A receipt lies one folder deeper: in its destination's.
        if len(parts) < 4 + (parts[0] == "receipts") or not (_is_day(parts[2]) or (parts[0], parts[2]) in _NO_DAYS):
            foreign.append(_foreign(key))
        else:
            found.setdefault((parts[0], parts[1], parts[2]), []).append(key)
    names = choose("the store has no account", accounts, sorted({account for _, account, _ in found}))
    wanted = None if days is None else {str(day) for day in days}
    chosen = [
        Folder(stage, account, day, keys)
        for (stage, account, day), keys in found.items()
        if account in names and (wanted is None or not _is_day(day) or day in wanted)
    ]
    return chosen, foreign


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
            yield folder.damaged(key, error)
    if folder.stage == "raw" and _is_day(folder.day):
        yield from _manifests(store, folder)
    elif folder.stage == "receipts" and _is_day(folder.day):
        yield from _logs(store, folder)


def gaps(chosen: Sequence[Folder]) -> Iterator[Finding]:
    """The days between an account's first and last that lack something."""
    have: dict[str, dict[str, set[str]]] = {}
    for folder in chosen:
        if folder.stage == "raw" and any(f"/{MANIFEST}/" in key for key in folder.keys):
            have.setdefault(folder.account, {}).setdefault(folder.day, set()).add("changes")
        elif folder.stage == "reconciliation":
            have.setdefault(folder.account, {}).setdefault(folder.day, set()).add("proof")
    for account, days in sorted(have.items()):
        first, last = date.fromisoformat(min(days)), date.fromisoformat(max(days))
        for ahead in range((last - first).days + 1):
            at = (first + timedelta(days=ahead)).isoformat()
            lacks = sorted({"changes", "proof"} - days.get(at, set()))
            if lacks:
                yield Finding("gap", f"{account} {at}", f"no {', no '.join(lacks)}")


def _foreign(key: str) -> Finding:
    return Finding("foreign", key, "this package did not write it")


def _is_day(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _is_read(store: Store, folder: Folder, key: str) -> bool:
    """Read an object; False if this package did not write it."""
    from balance_bridge.transform import balances, ledger

    stage = folder.stage
    if stage == "receipts":
        if folder.day == "places" and key.endswith(".jsonl"):
            decode(store.read(key), Place, store.describe(key))
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
                yield folder.damaged(key, f"what it names is missing: {', '.join(missing)}")
        except StoreDamaged:
            # Reported already, as an object of its own.
            continue
        except (KeyError, TypeError) as error:
            yield folder.damaged(key, f"it lacks {error}")


def _logs(store: Store, folder: Folder) -> Iterator[Finding]:
    """Read each log of a day as a run would."""
    for name in sorted({key.split("/")[3] for key in folder.keys}):
        try:
            list(outcomes(fold(DayLog(store, folder.account, date.fromisoformat(folder.day), name).read())))
        except (BalanceBridgeError, OSError) as error:
            yield folder.damaged(f"receipts/{folder.account}/{folder.day}/{name}", error)
