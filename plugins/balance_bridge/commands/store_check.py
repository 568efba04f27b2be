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
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from balance_bridge import settings
from balance_bridge.errors import BalanceBridgeError, StoreDamaged
from balance_bridge.extract import raw
from balance_bridge.extract.pages import newest_pages
from balance_bridge.load import preview
from balance_bridge.load.receipts import Receipts
from balance_bridge.store import Store

STAGES = ("raw", "ledger", "reconciliation", "balances", "intraday", "dry", "receipts")


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
    places = list(_places(store, accounts, since, report))
    with Progress(console=Console(stderr=True), transient=True, disable=not tell) as progress:
        task = progress.add_task("reading the store", total=len(places))
        for stage, account, day, keys in places:
            for key in keys:
                report.objects[stage] += 1
                _look(store, report, stage, key)
            if stage == "raw" and _is_day(day):
                _manifests(store, report, day, keys)
            elif stage == "receipts":
                _receipts(store, report, account, day, keys)
            progress.advance(task)
    _gaps(report, places)
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


def _places(
    store: Store, accounts: Sequence[str], since: date | None, report: Report
) -> Iterator[tuple[str, str, str, list[str]]]:
    """Stage, account, day and keys, of one day at a time."""
    for stage in STAGES:
        days: dict[tuple[str, str], list[str]] = {}
        for key in store.list(stage):
            parts = key.split("/")
            if len(parts) < 4 or not (_is_day(parts[2]) or (stage, parts[2]) == ("raw", "account")):
                report.foreign.append(key)
            elif not accounts or parts[1] in accounts:
                days.setdefault((parts[1], parts[2]), []).append(key)
        for (account, day), keys in days.items():
            if since is None or not _is_day(day) or day >= since.isoformat():
                yield stage, account, day, keys


def _is_day(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _look(store: Store, report: Report, stage: str, key: str) -> None:
    from balance_bridge.transform import balances, ledger

    try:
        report.sizes[stage] += store.size(key)
        if stage == "raw" and key.endswith(raw.SUFFIX):
            raw.read(store, key)
        elif key.endswith(".parquet"):
            (ledger if stage == "ledger" else balances).from_parquet(store.read(key))
        elif stage == "dry" and key.endswith(".json"):
            preview.read(store, key)
        elif key.endswith(".json"):
            # Receipts are read in their own words below; here only their being JSON counts.
            json.loads(store.read(key)) if stage == "receipts" else store.read_json(key)
        else:
            report.foreign.append(key)
    except (BalanceBridgeError, ValueError, OSError) as error:
        report.damaged.append(Damage(key, f"{error}. {_mend(stage)}"))


def _mend(stage: str) -> str:
    return {
        "raw": "Clear the day's run: it is asked for again if the exchange still has it, and refused by name if not",
        "receipts": "Do not run the day before it is mended: put the object back from a backup, or ask the destination",
    }.get(stage, "Clear the day's run: it is worked out again from the raw answers")


def _manifests(store: Store, report: Report, day: str, keys: Sequence[str]) -> None:
    for key in keys:
        if f"/{day}/whole/" not in key:
            continue
        try:
            found = store.read_json(key)
            missing = [name for name in (found["opening"], found["closing"]) if not store.exists(name)]
            pages = newest_pages(store, found["history"])
            if len(pages) < found["pages"]:
                missing.append(f"{found['pages'] - len(pages)} pages in {found['history']}")
            if missing:
                report.damaged.append(Damage(key, f"what it names is missing: {', '.join(missing)}. {_mend('raw')}"))
        except StoreDamaged:
            # Told already, as an object of its own.
            continue
        except (KeyError, TypeError) as error:
            report.damaged.append(Damage(key, f"it lacks {error}. {_mend('raw')}"))


def _receipts(store: Store, report: Report, account: str, day: str, keys: Sequence[str]) -> None:
    prefix = f"receipts/{account}/{day}/"
    for name in sorted({key.removeprefix(prefix).split("/", 1)[0] for key in keys}):
        receipts = Receipts(store, account, name)
        try:
            receipts.batches(date.fromisoformat(day))
            receipts.local_rejections(date.fromisoformat(day))
            receipts.history(date.fromisoformat(day), ())
        except (StoreDamaged, ValueError) as error:
            report.damaged.append(Damage(f"{prefix}{name}", f"{error}. {_mend('receipts')}"))


def _gaps(report: Report, places: Sequence[tuple[str, str, str, list[str]]]) -> None:
    have: dict[str, dict[str, set[str]]] = {}
    for stage, account, day, keys in places:
        if _is_day(day):
            names = have.setdefault(account, {}).setdefault(day, set())
            if stage == "raw" and any("/whole/" in key for key in keys):
                names.add("changes")
            elif stage == "reconciliation":
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
        console.print(f"[red]damaged[/] {escape(damage.key)}: {escape(damage.told)}")
    for gap in report.gaps:
        console.print(f"[yellow]gap[/] {escape(gap)}")
    if report.foreign:
        shown = ", ".join(report.foreign[:5])
        console.print(f"{len(report.foreign)} objects are none of this package's: {escape(shown)}")
    console.print(
        f"[red]{len(report.damaged)} damaged.[/]" if report.damaged else "[green]Every object is what was written.[/]"
    )
