"""``balance-bridge preview``: what would be sent of a day, without sending anything."""

from __future__ import annotations

import json
import sys
from datetime import date

import msgspec
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from balance_bridge import settings
from balance_bridge.accounts import Account, load_accounts
from balance_bridge.commands.receipts import WIDE
from balance_bridge.errors import ConfigurationError
from balance_bridge.load.numbers import rfc3339
from balance_bridge.load.preview import Preview, read
from balance_bridge.store import Store

RUN_ID = "preview"


def run(account: str, day: date, *, destination: str | None = None, as_json: bool = False) -> int:
    """Work out what a delivery would send by now, from the balances that the store has, and show it.

    Args:
        account: The account's name.
        day: The UTC day.
        destination: Only this one.
        as_json: As JSON instead of a table.

    Returns:
        The exit code.

    Raises:
        ConfigurationError: If there is no such account or destination, or the day was not worked out yet.
    """
    file = load_accounts(settings.accounts_file())
    if account not in file.accounts:
        wrong = ": it is wrong in the accounts file, see balance-bridge check" if account in file.broken else ""
        raise ConfigurationError(f"there is no usable account {account!r}{wrong}; there are {', '.join(file.accounts)}")
    found = file.accounts[account]
    if destination is not None and destination not in found.destinations:
        raise ConfigurationError(
            f"{account} has no destination {destination!r}; it has {', '.join(found.destinations)}"
        )
    store = settings.open_store()
    previews = [_preview(store, found, day, name) for name in found.destinations if destination in (None, name)]
    if as_json:
        print(json.dumps([json.loads(msgspec.json.encode(each)) for each in previews], indent=1))
    else:
        for each in previews:
            _print(each)
    return 0


def _preview(store: Store, account: Account, day: date, name: str) -> Preview:
    from balance_bridge.hooks.destinations import open_destination
    from balance_bridge.hooks.prices import due_balances
    from balance_bridge.load.delivery import deliver

    newest = store.newest(f"balances/{account.name}/{day}/{name}", ".parquet")
    if newest is None:
        raise ConfigurationError(
            f"{account.name} {day} was not worked out for {name} yet: trigger the DAG with "
            f'{{"date": "{day}", "dry_run": true}}'
        )
    config = account.destinations[name]
    due, _ = due_balances(store, newest, config, lambda text: print(text, file=sys.stderr))
    summary = deliver(
        destination=open_destination(config, account.name),
        store=store,
        account=account.name,
        day=day,
        namespace=settings.namespace(),
        balances=due,
        run_id=RUN_ID,
        dry_run=True,
    )
    return read(store, summary.preview)


def _print(preview: Preview) -> None:
    console = Console(emoji=False, width=None if sys.stdout.isatty() else WIDE)
    rows = [(index, row) for index, rows in enumerate(preview.batches, 1) for row in rows]
    head = f"{preview.account} {preview.day} to {preview.destination} ({preview.kind})"
    if rows:
        table = Table(title=f"{head}: would be sent", box=box.SIMPLE_HEAD)
        for name in ("request", "asset", "at (UTC)", "balance", "number", "remark"):
            table.add_column(name, justify="right" if name == "balance" else "left", overflow="fold")
        for index, row in rows:
            remark = f"instead of {row.supersedes}" if row.supersedes else f"again, after {row.replaces}"
            told = [str(index), row.asset, rfc3339(row.at_ms), row.amount, row.number]
            table.add_row(*map(escape, told), escape(remark) if row.supersedes or row.replaces else "")
        console.print(table)
    for each in preview.rejected:
        unsendable = f"{each.asset} at {rfc3339(each.at_ms)} ({each.amount}): {each.text}"
        console.print(f"[red]cannot be sent[/]: {escape(unsendable)}")
    ignored = ", ".join(f"{asset} x{count}" for asset, count in preview.ignored.items())
    console.print(
        f"{escape(head)}: {len(rows)} balances in {len(preview.batches)} requests would be sent, "
        f"{len(preview.rejected)} cannot be" + (f"; ignored: {escape(ignored)}" if ignored else "")
    )
