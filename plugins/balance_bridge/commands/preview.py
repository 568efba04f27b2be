"""``balance-bridge preview``: what would be sent of a day, without sending anything."""

from __future__ import annotations

import json
import sys
from collections import Counter
from datetime import date
from typing import Any

import msgspec
from rich import box
from rich.table import Table

from balance_bridge import settings
from balance_bridge.accounts import Account
from balance_bridge.commands.receipts import configured
from balance_bridge.commands.terminal import printable, shown, wide_console
from balance_bridge.errors import ConfigurationError
from balance_bridge.load.log import Action, Plan, decode
from balance_bridge.load.numbers import rfc3339
from balance_bridge.load.summary import DeliverySummary, held_otherwise
from balance_bridge.store import Store

RUN_ID = "preview"


def run(account: str, day: date, *, destination: str | None = None, as_json: bool = False) -> int:
    """Work out what a delivery would send now, from the balances that the store has, and show it.

    Args:
        account: The account's name.
        day: The UTC day.
        destination: Only this one.
        as_json: As JSON instead of a table.

    Returns:
        The exit code.

    Raises:
        ConfigurationError: If there is no such account or destination, or the day was not worked out yet.
        PlaceChanged: If a delivery would be refused because the destination leads elsewhere by now.
    """
    found, store = configured(account, destination), settings.open_store()
    previews = [_preview(store, found, day, name) for name in found.destinations if destination in (None, name)]
    if as_json:
        print(json.dumps([_plain(plan, summary) for plan, summary in previews], indent=1))
    else:
        for plan, summary in previews:
            _print(plan, summary)
    return 0


def _preview(store: Store, account: Account, day: date, name: str) -> tuple[Plan, DeliverySummary]:
    from balance_bridge.hooks.destinations import open_destination
    from balance_bridge.hooks.prices import due_balances
    from balance_bridge.load.delivery import Delivery, deliver

    newest = store.newest(f"balances/{account.name}/{day}/{name}", ".parquet")
    if newest is None:
        raise ConfigurationError(
            f"{account.name} {day} was not worked out for {name} yet: trigger the DAG with "
            f'{{"date": "{day}", "dry_run": true}}'
        )
    config = account.destinations[name]
    due, _ = due_balances(store, newest, config, lambda text: print(printable(text), file=sys.stderr))
    delivery = Delivery(
        destination=open_destination(config, account.name),
        store=store,
        account=account.name,
        day=day,
        namespace=settings.namespace(),
        generation=newest,
        run_id=RUN_ID,
        dry_run=True,
    )
    summary = deliver(delivery, due)
    return decode(store.read(summary.preview), Plan, store.describe(summary.preview)), summary


def _plain(plan: Plan, summary: DeliverySummary) -> dict[str, Any]:
    return {
        **msgspec.structs.asdict(plan),
        "rows": [msgspec.structs.asdict(row) for row in plan.rows],
        "other_keys": summary.other_keys,
        "example": summary.example,
    }


def _print(plan: Plan, summary: DeliverySummary) -> None:
    console = wide_console()
    head = f"{plan.account} {plan.day} to {plan.destination} ({plan.kind})"
    batches = plan.batches()
    if batches:
        console.print(_table(shown(f"{head}: would be sent"), plan))
    for row in plan.rows:
        if row.action is Action.REJECT:
            unsendable = f"{row.asset} at {rfc3339(row.at_ms)} ({row.amount}): {row.text}"
            console.print(f"[red]cannot be sent[/]: {shown(unsendable)}", soft_wrap=True)
    again = f", {summary.resent} of them again under the same numbers" if summary.resent else ""
    ignored = Counter(row.asset for row in plan.rows if row.action is Action.IGNORE)
    named = ", ".join(f"{asset} x{count}" for asset, count in ignored.items())
    line = (
        f"{head}: {sum(map(len, batches.values()))} balances in {len(batches)} requests would be sent{again}, "
        f"{summary.rejected_locally} cannot be" + (f"; ignored: {named}" if named else "")
    )
    console.print(shown(line), soft_wrap=True)
    if summary.other_keys:
        held = held_otherwise(summary.other_keys, summary.example, plan)
        console.print(f"[yellow]{shown(held)}[/]", soft_wrap=True)


def _table(title: str, plan: Plan) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD)
    for name in ("request", "asset", "at (UTC)", "balance", "number", "remark"):
        table.add_column(name, justify="right" if name == "balance" else "left", overflow="fold")
    for batch, rows in sorted(plan.batches().items()):
        for row in rows:
            remark = f"again, after {row.replaces}" if row.replaces else ""
            if row.supersedes:
                remark = f"instead of {row.supersedes}"
            table.add_row(*map(shown, (str(batch), row.asset, rfc3339(row.at_ms), row.amount, row.number, remark)))
    return table
