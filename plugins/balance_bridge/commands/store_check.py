"""``balance-bridge store check``: reads every object of the store, and says what is damaged and what is missing."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta

from rich.console import Console
from rich.progress import Progress

from balance_bridge import settings
from balance_bridge.commands.arguments import unknown
from balance_bridge.commands.deliveries import MANIFEST
from balance_bridge.commands.output import Listing, Output
from balance_bridge.errors import BalanceBridgeError, StoreDamaged
from balance_bridge.extract import raw
from balance_bridge.extract.pages import newest_pages
from balance_bridge.load.fold import fold, outcomes
from balance_bridge.load.log import DayLog, Plan, decode
from balance_bridge.load.place import Place
from balance_bridge.store import Store

STAGES = ("raw", "ledger", "reconciliation", "balances", "intraday", "dry", "receipts")
_FIELDS = ("finding", "object", "message")
_COLOURS = {"damaged": "red", "gap": "yellow", "foreign": ""}
# What lies where a day would: for all days of an account.
_NO_DAYS = frozenset({("raw", "account"), ("receipts", "places")})


@dataclass(frozen=True)
class Damage:
    """An object that is not what was written.

    Attributes:
        key: The object.
        message: What is wrong, and what to do.
    """

    key: str
    message: str


@dataclass
class Report:
    """What was found.

    Attributes:
        objects: Number of objects by stage.
        sizes: Their bytes by stage.
        damaged: What is wrong.
        gaps: Days between an account's first and last that lack something; no damage.
        foreign: Objects that this package did not write.
    """

    objects: Counter[str] = field(default_factory=Counter)
    sizes: Counter[str] = field(default_factory=Counter)
    damaged: list[Damage] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)


def check(
    store: Store, accounts: Sequence[str] = (), *, days: Sequence[date] | None = None, progress: bool = False
) -> Report:
    """Read the store. Nothing is changed.

    Args:
        store: The store.
        accounts: Only these; all that it holds if empty.
        days: Only these days; all if None.
        progress: Whether to show the progress on standard error.

    Returns:
        What was found.

    Raises:
        UsageError: If the store has nothing of an account.
    """
    report = Report()
    folders = list(_folders(store, report))
    known = sorted({folder.account for folder in folders})
    for name in accounts:
        if name not in known:
            raise unknown("the store has no account", name, known)
    wanted = None if days is None else {str(day) for day in days}
    folders = [
        folder
        for folder in folders
        if (not accounts or folder.account in accounts)
        and (wanted is None or not _is_day(folder.day) or folder.day in wanted)
    ]
    with Progress(console=Console(stderr=True), transient=True, disable=not progress) as shown:
        for folder in shown.track(folders, description="reading the store"):
            for key in folder.keys:
                report.objects[folder.stage] += 1
                _look(store, report, folder, key)
            if folder.stage == "raw" and _is_day(folder.day):
                _manifests(store, report, folder)
            elif folder.stage == "receipts" and _is_day(folder.day):
                _logs(store, report, folder)
    _gaps(report, folders)
    return report


def run(accounts: Sequence[str], days: Sequence[date] | None, output: Output) -> int:
    """Check the store and show what was found.

    Args:
        accounts: Only these; all that it holds if empty.
        days: Only these days; all if None.
        output: How to show it.

    Returns:
        The exit code: 1 if anything is damaged.

    Raises:
        UsageError: If the store has nothing of an account.
    """
    report = check(settings.open_store(), accounts, days=days, progress=sys.stderr.isatty() and not output.quiet)
    found = [("damaged", damage.key, damage.message) for damage in report.damaged]
    found += [("gap", "", gap) for gap in report.gaps]
    found += [("foreign", key, "this package did not write it") for key in report.foreign]
    verdict = f"{len(report.damaged)} damaged." if report.damaged else "Every object is what was written."
    counted = [f"{stage}: {report.objects[stage]} objects, {report.sizes[stage]:,} bytes" for stage in report.objects]
    output.show(
        Listing(
            [dict(zip(_FIELDS, each, strict=True)) for each in found],
            {name: name for name in _FIELDS},
            [_COLOURS[kind] for kind, _, _ in found],
            verdict,
            counted,
        )
    )
    return 1 if report.damaged else 0


@dataclass(frozen=True)
class _Folder:
    """What the store holds of one account's day in one stage; of no day in particular under a name of ``_NO_DAYS``."""

    stage: str
    account: str
    day: str
    keys: Sequence[str]


def _folders(store: Store, report: Report) -> Iterator[_Folder]:
    for stage in STAGES:
        days: dict[tuple[str, str], list[str]] = {}
        for key in store.list(stage):
            parts = key.split("/")
            # A receipt lies one folder deeper: in its destination's.
            if len(parts) < 4 + (stage == "receipts") or not (_is_day(parts[2]) or (stage, parts[2]) in _NO_DAYS):
                report.foreign.append(key)
            else:
                days.setdefault((parts[1], parts[2]), []).append(key)
        for (account, day), keys in days.items():
            yield _Folder(stage, account, day, keys)


def _is_day(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _look(store: Store, report: Report, folder: _Folder, key: str) -> None:
    try:
        report.sizes[folder.stage] += store.size(key)
        if not _is_read(store, folder, key):
            report.foreign.append(key)
    except (BalanceBridgeError, ValueError, OSError) as error:
        report.damaged.append(Damage(key, f"{error}. {_advice(folder.stage)}"))


def _is_read(store: Store, folder: _Folder, key: str) -> bool:
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


def _advice(stage: str) -> str:
    return {
        "raw": "Clear the day's run: it is fetched again if the exchange still has it",
        "dry": "Nothing depends on it; it can be removed",
        "receipts": "Until then nothing is delivered there: runs stop at it",
    }.get(stage, "Clear the day's run: it is worked out again from the raw answers")


def _manifests(store: Store, report: Report, folder: _Folder) -> None:
    for key in folder.keys:
        if f"/{folder.day}/{MANIFEST}/" not in key:
            continue
        try:
            found = store.read_json(key)
            missing = [name for name in (found["opening"], found["closing"]) if not store.exists(name)]
            pages = newest_pages(store, found["history"])
            if len(pages) < found["pages"]:
                missing.append(f"{found['pages'] - len(pages)} pages in {found['history']}")
            if missing:
                report.damaged.append(Damage(key, f"what it names is missing: {', '.join(missing)}. {_advice('raw')}"))
        except StoreDamaged:
            # Reported already, as an object of its own.
            continue
        except (KeyError, TypeError) as error:
            report.damaged.append(Damage(key, f"it lacks {error}. {_advice('raw')}"))


def _logs(store: Store, report: Report, folder: _Folder) -> None:
    """Read each log of a day as a run would."""
    for name in sorted({key.split("/")[3] for key in folder.keys}):
        log = DayLog(store, folder.account, date.fromisoformat(folder.day), name)
        try:
            list(outcomes(fold(log.read())))
        except (BalanceBridgeError, OSError) as error:
            where = f"receipts/{folder.account}/{folder.day}/{name}"
            report.damaged.append(Damage(where, f"{error}. {_advice('receipts')}"))


def _gaps(report: Report, folders: Sequence[_Folder]) -> None:
    have: dict[str, dict[str, set[str]]] = {}
    for folder in folders:
        if _is_day(folder.day):
            names = have.setdefault(folder.account, {}).setdefault(folder.day, set())
            if folder.stage == "raw" and any(f"/{MANIFEST}/" in key for key in folder.keys):
                names.add("changes")
            elif folder.stage == "reconciliation":
                names.add("proof")
    for account, days in sorted(have.items()):
        whole = sorted(day for day, names in days.items() if names)
        if not whole:
            continue
        first, last = date.fromisoformat(whole[0]), date.fromisoformat(whole[-1])
        for ahead in range((last - first).days + 1):
            at = (first + timedelta(days=ahead)).isoformat()
            lacks = sorted({"changes", "proof"} - days.get(at, set()))
            if lacks:
                report.gaps.append(f"{account} {at}: no {', no '.join(lacks)}")
