"""``balance-bridge status``: what was delivered, per account and day, by the receipts in the store."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from balance_bridge import settings
from balance_bridge.accounts import Account, AccountsFile, load_accounts
from balance_bridge.commands.terminal import shown
from balance_bridge.errors import ConfigurationError
from balance_bridge.load.fold import Status, fold, outcomes
from balance_bridge.load.log import DayLog
from balance_bridge.load.summary import held_otherwise, other_keys
from balance_bridge.store import Store

NOT_RUN = "not run"
STORED, MISSING, GONE = "stored", "missing", "gone"
_URGENT_DAYS = 2
_PROOF_COLOURS = {"proven": "green", "tolerated": "yellow", "broken": "red", NOT_RUN: "dim"}
_OUTCOME_COLOURS: dict[str, str] = {
    Status.REJECTED: "red",
    Status.UNKNOWN: "red",
    Status.PLANNED: "red",
    Status.SEEN: "yellow",
}


@dataclass(frozen=True)
class DayStatus:
    """One account's day at one destination.

    Attributes:
        account: The account's name.
        day: The UTC day, ``YYYY-MM-DD``.
        destination: The destination's name.
        proof: ``proven``, ``tolerated``, ``broken``, or ``not run`` where there is no reconciliation yet.
        raw: ``stored`` if the store has all changes of the day; else ``missing`` if they can still be fetched, and
            ``gone`` if not.
        days_left: Days that are left to fetch what is missing, today included; None where that does not matter.
        outcomes: Number of balances by outcome; each balance counts once.
        other_keys: How many are held under keys or settings that the accounts file no longer has.
        example: One of them.
    """

    account: str
    day: str
    destination: str
    proof: str
    raw: str
    days_left: int | None
    outcomes: dict[str, int]
    other_keys: int = 0
    example: str = ""


def read_status(
    store: Store, accounts: Sequence[Account], *, last: date, days: int, today: date | None = None
) -> list[DayStatus]:
    """What the store knows of accounts and days.

    Args:
        store: The store.
        accounts: Which accounts.
        last: The last day.
        days: How many days back from it; before an account's start only those that were run.
        today: The UTC day from which the days that are left are counted; the one after ``last`` by default.
    """
    found = []
    today = today or last + timedelta(days=1)
    for account in accounts:
        for back in range(days - 1, -1, -1):
            day = last - timedelta(days=back)
            proof = _proof(store, account.name, day)
            # A run with an explicit date may have delivered an earlier day.
            if day >= account.start_date or proof != NOT_RUN:
                raw, left = _raw(store, account, day, today)
                for name in account.destinations:
                    folded = fold(DayLog(store, account.name, day, name).read())
                    counts = Counter(str(each.outcome.status) for each in outcomes(folded))
                    by_outcome, other = dict(sorted(counts.items())), other_keys(folded.events.newest_plan, folded)
                    found.append(DayStatus(account.name, day.isoformat(), name, proof, raw, left, by_outcome, *other))
    return found


def run(names: Sequence[str], *, days: int, as_json: bool) -> int:
    """Show it.

    Args:
        names: Only these accounts; all if empty.
        days: How many days back from yesterday.
        as_json: As JSON instead of a table.

    Returns:
        The exit code.

    Raises:
        ConfigurationError: If there is no account of a given name.
    """
    file = load_accounts(settings.accounts_file())
    accounts = _chosen(file, names)
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    rows = read_status(settings.open_store(), accounts, last=yesterday, days=days)
    if as_json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
    else:
        console = Console(emoji=False)
        console.print(_table(rows))
        for name, broken in file.broken.items():
            first = broken.message.splitlines()[0]
            console.print(f"[red]{shown(name)} is wrong in the accounts file[/]: {shown(first)}", soft_wrap=True)
    return 0


def _chosen(file: AccountsFile, names: Sequence[str]) -> list[Account]:
    unknown = [name for name in names if name not in file.accounts]
    if unknown:
        raise ConfigurationError(
            f"{settings.accounts_file()} has no usable account {', '.join(unknown)}; it has {', '.join(file.accounts)}"
        )
    return [account for name, account in file.accounts.items() if not names or name in names]


def _proof(store: Store, account: str, day: date) -> str:
    newest = store.newest(f"reconciliation/{account}/{day}", ".json")
    if newest is None:
        return NOT_RUN
    document: dict[str, Any] = store.read_json(newest)
    return str(document["status"])


def _raw(store: Store, account: Account, day: date, today: date) -> tuple[str, int | None]:
    if store.newest(f"raw/{account.name}/{day}/manifest", ".json") is not None:
        return STORED, None
    retention_days = account.source.retention_days
    if retention_days is None:
        return MISSING, None
    # Day D can be asked for while D >= today - retention: on its last day one is left.
    left = (day - today).days + retention_days + 1
    return (MISSING, left) if left > 0 else (GONE, 0)


def _balances(row: DayStatus) -> str:
    if row.outcomes or row.other_keys:
        found = [_coloured(kind, count) for kind, count in row.outcomes.items()]
        if row.other_keys:
            found.append(f"[yellow]{shown(held_otherwise(row.other_keys, row.example))}[/]")
        return ", ".join(found)
    if row.raw == STORED or row.proof != NOT_RUN:
        return ""
    if row.raw == GONE:
        return "[red]gone: it cannot be fetched any more[/]"
    if row.days_left is None:
        return "[yellow]missing[/]"
    colour = "red" if row.days_left <= _URGENT_DAYS else "yellow"
    return f"[{colour}]missing, {row.days_left} day{'s' if row.days_left > 1 else ''} left to fetch it[/]"


def _coloured(outcome: str, count: int) -> str:
    colour = _OUTCOME_COLOURS.get(outcome)
    return f"[{colour}]{count} {outcome}[/]" if colour else f"{count} {outcome}"


def _table(rows: Sequence[DayStatus]) -> Table:
    table = Table(title="What was delivered", box=box.SIMPLE_HEAD)
    for name in ("account", "UTC day", "proof", "destination"):
        table.add_column(name, no_wrap=True)
    # One column for all of it: a column for each outcome leaves no room for the counts in a narrow terminal.
    table.add_column("balances")
    for row in rows:
        proof = f"[{_PROOF_COLOURS.get(row.proof, 'dim')}]{shown(row.proof)}[/]"
        table.add_row(row.account, row.day, proof, row.destination, _balances(row))
    return table
