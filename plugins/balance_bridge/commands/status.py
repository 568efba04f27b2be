"""``balance-bridge status``: what was delivered, per account and day, as the receipts in the store tell it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from balance_bridge import settings
from balance_bridge.accounts import Account, AccountsFile, load_accounts
from balance_bridge.errors import ConfigurationError
from balance_bridge.load.receipts import outcomes
from balance_bridge.store import Store

NOT_RUN = "not run"


@dataclass(frozen=True)
class DayStatus:
    """One account's day at one destination.

    Attributes:
        account: The account's name.
        day: The UTC day, ``YYYY-MM-DD``.
        destination: The destination's name.
        proof: ``proven``, ``tolerated``, ``broken``, or ``not run`` where there is no reconciliation yet.
        outcomes: Number of balances by outcome.
    """

    account: str
    day: str
    destination: str
    proof: str
    outcomes: dict[str, int]


def read_status(store: Store, accounts: Sequence[Account], *, last: date, days: int) -> list[DayStatus]:
    """What the store knows of accounts and days.

    Args:
        store: The store.
        accounts: Which accounts.
        last: The last day.
        days: How many days back from it; before an account's start only those that were run.
    """
    found = []
    for account in accounts:
        for back in range(days - 1, -1, -1):
            day = last - timedelta(days=back)
            proof = _proof(store, account.name, day)
            # A run with an explicit date may have delivered an earlier day.
            if day >= account.start_date or proof != NOT_RUN:
                for name in account.destinations:
                    rows = outcomes(store, account.name, day, name)
                    counts = Counter(str(row.outcome) for row in rows)
                    found.append(DayStatus(account.name, day.isoformat(), name, proof, dict(sorted(counts.items()))))
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
        for name in file.broken:
            console.print(f"[red]{escape(name)} is wrong in the accounts file[/]: see balance-bridge check")
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


def _table(rows: Sequence[DayStatus]) -> Table:
    kinds = sorted({kind for row in rows for kind in row.outcomes} | {"accepted"})
    table = Table(title="What was delivered", box=box.SIMPLE_HEAD)
    for name in ("account", "UTC day", "proof", "destination"):
        table.add_column(name, no_wrap=True)
    for kind in kinds:
        table.add_column(kind, justify="right")
    colours = {"proven": "green", "tolerated": "yellow", "broken": "red", NOT_RUN: "dim"}
    for row in rows:
        counts = [str(row.outcomes.get(kind, "")) for kind in kinds]
        table.add_row(row.account, row.day, f"[{colours.get(row.proof, '')}]{row.proof}[/]", row.destination, *counts)
    return table
