"""``balance-bridge store check``: reads every object of the store, and says what is damaged and what is missing."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, timedelta

from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from balance_bridge import settings
from balance_bridge.commands.terminal import shown
from balance_bridge.errors import BalanceBridgeError, StoreDamaged
from balance_bridge.extract import raw
from balance_bridge.load.fold import fold, outcomes
from balance_bridge.load.log import DayLog, Plan, decode
from balance_bridge.load.place import Place
from balance_bridge.store import Store

STAGES = ("raw", "ledger", "reconciliation", "balances", "intraday", "dry", "receipts")
# What lies where a day would: for all days of an account.
_NO_DAYS = frozenset({("raw", "account"), ("receipts", "places")})


@dataclass(frozen=True)
class Damage:
    """An object that is not what was written.

    Attributes:
        key: The object.
        told: What is wrong, and what to do.
    """

    key: str
    told: str


@dataclass
class Report:
    """What was found.

    Attributes:
        objects: Number of objects by stage.
        sizes: Their bytes by stage.
        damaged: What is wrong.
        gaps: Days between an account's first and last that lack something; no damage.
        foreign: Objects that are none of this package's.
    """

    objects: Counter[str] = field(default_factory=Counter)
    sizes: Counter[str] = field(default_factory=Counter)
    damaged: list[Damage] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)


def check(store: Store, accounts: Sequence[str] = (), *, since: date | None = None, tell: bool = False) -> Report:
    """Read the store. Nothing is changed.

    Args:
        store: The store.
        accounts: Only these; all that it holds if empty.
        since: Only days from this one on.
        tell: Whether to show the progress.

    Returns:
        What was found.
    """
    report = Report()
    folders = list(_folders(store, accounts, since, report))
    with Progress(console=Console(stderr=True), transient=True, disable=not tell) as progress:
        task = progress.add_task("reading the store", total=len(folders))
        for folder in folders:
            for key in folder.keys:
                report.objects[folder.stage] += 1
                _look(store, report, folder, key)
            if folder.stage == "raw" and _is_day(folder.day):
                _manifests(store, report, folder)
            elif folder.stage == "receipts" and _is_day(folder.day):
                _logs(store, report, folder)
            progress.advance(task)
    _gaps(report, folders)
    return report


def run(accounts: Sequence[str], *, days: int | None, as_json: bool) -> int:
    """Check the store and show what was found.

    Args:
        accounts: Only these.
        days: Only the last so many days.
        as_json: As JSON instead of a table.

    Returns:
        The exit code: 1 if anything is damaged.
    """
    store = settings.open_store()
    since = datetime.now(UTC).date() - timedelta(days=days) if days else None
    report = check(store, accounts, since=since, tell=not as_json and sys.stderr.isatty())
    if as_json:
        counts = {"objects": dict(report.objects), "bytes": dict(report.sizes)}
        damaged = [asdict(damage) for damage in report.damaged]
        print(json.dumps({**counts, "damaged": damaged, "gaps": report.gaps, "foreign": report.foreign}, indent=1))
    else:
        _print(report)
    return 1 if report.damaged else 0


@dataclass(frozen=True)
class _Folder:
    """What the store holds of one account's day in one stage; of no day in particular under a name of ``_NO_DAYS``."""

    stage: str
    account: str
    day: str
    keys: Sequence[str]


def _folders(store: Store, accounts: Sequence[str], since: date | None, report: Report) -> Iterator[_Folder]:
    for stage in STAGES:
        days: dict[tuple[str, str], list[str]] = {}
        for key in store.list(stage):
            parts = key.split("/")
            # A receipt lies one folder deeper: in its destination's.
            if len(parts) < 4 + (stage == "receipts") or not (_is_day(parts[2]) or (stage, parts[2]) in _NO_DAYS):
                report.foreign.append(key)
            elif not accounts or parts[1] in accounts:
                days.setdefault((parts[1], parts[2]), []).append(key)
        for (account, day), keys in days.items():
            if since is None or not _is_day(day) or day >= since.isoformat():
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
    """Read an object; False if it is none of ours."""
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
        "raw": "Clear the day's run: it is asked for again if the exchange still has it, and refused by name if not",
        "dry": "Nothing depends on it; it can be removed",
        "receipts": "Until then nothing is delivered there: runs stop at it",
    }.get(stage, "Clear the day's run: it is worked out again from the raw answers")


def _manifests(store: Store, report: Report, folder: _Folder) -> None:
    for key in folder.keys:
        if f"/{folder.day}/manifest/" not in key:
            continue
        try:
            found = store.read_json(key)
            missing = [name for name in (found["opening"], found["closing"]) if not store.exists(name)]
            pages = raw.newest_pages(store, found["history"])
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
            if folder.stage == "raw" and any("/manifest/" in key for key in folder.keys):
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


def _print(report: Report) -> None:
    console = Console(emoji=False, soft_wrap=True)
    table = Table(title="What the store holds", box=box.SIMPLE_HEAD)
    table.add_column("stage")
    for name in ("objects", "bytes", "damaged"):
        table.add_column(name, justify="right")
    damaged = Counter(damage.key.split("/", 1)[0] for damage in report.damaged)
    for stage in STAGES:
        if report.objects[stage]:
            table.add_row(stage, str(report.objects[stage]), f"{report.sizes[stage]:,}", str(damaged[stage] or ""))
    console.print(table)
    for damage in report.damaged:
        console.print(f"[red]damaged[/] {shown(damage.key)}: {shown(damage.told)}")
    for gap in report.gaps:
        console.print(f"[yellow]gap[/] {shown(gap)}")
    if report.foreign:
        some = ", ".join(report.foreign[:5])
        console.print(f"{len(report.foreign)} objects are none of this package's: {shown(some)}")
    console.print(
        f"[red]{len(report.damaged)} damaged.[/]" if report.damaged else "[green]Every object is what was written.[/]"
    )
