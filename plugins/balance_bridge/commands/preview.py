"""``balance-bridge preview``: what would be sent, without sending anything."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import date
from decimal import Decimal
from typing import Any

from balance_bridge import settings
from balance_bridge.accounts import Account
from balance_bridge.commands.arguments import choose, choose_accounts
from balance_bridge.commands.output import Listing, Output, printable
from balance_bridge.errors import ConfigurationError
from balance_bridge.load.documents import Action, Plan, Row, decode
from balance_bridge.load.numbers import rfc3339
from balance_bridge.load.summary import DeliverySummary, held_otherwise
from balance_bridge.store import Store

RUN_ID = "preview"
_COLUMNS = {
    "day": "day",
    "destination": "destination",
    "request": "request",
    "asset": "asset",
    "at (UTC)": "at",
    "balance": "amount",
    "number": "number",
    "remark": "remark",
}
_FIELDS = (
    *("account", "day", "destination", "action", "request", "asset", "at", "amount", "number", "key", "points"),
    "remark",
)


def run(
    account: str, days: Sequence[date], *, destinations: Sequence[str], assets: Sequence[str], output: Output
) -> int:
    """Work out what a delivery would send now, from the balances that the store has, and show it.

    Returns:
        The exit code: 1 if a balance cannot be sent.

    Raises:
        ConfigurationError: If a day was not worked out yet.
        PlaceChanged: If a delivery would be refused because the destination leads elsewhere by now.
    """
    (found,), store = choose_accounts([account]), settings.open_store()
    records, remarks = list[dict[str, Any]](), list[str]()
    for day in days:
        for name in choose(f"{account} has no destination", destinations, found.destinations):
            plan, summary = _preview(store, found, day, name)
            records += [_record(plan, row) for row in plan.rows]
            remarks += _remarks(plan, summary)
    chosen = choose("there is no asset", assets, sorted({record["asset"] for record in records}))
    records = [record for record in records if record["asset"] in chosen]
    if output.form == "table":
        records = [record for record in records if record["action"] in (Action.SEND, Action.REJECT)]
    columns = {head: key for head, key in _COLUMNS.items() if key != "day" or len(days) > 1}
    output.show(Listing(records, columns, _FIELDS, remarks=remarks))
    return int(any(record["colour"] == "red" for record in records))


def _preview(store: Store, account: Account, day: date, name: str) -> tuple[Plan, DeliverySummary]:
    from balance_bridge.hooks.destinations import open_destination
    from balance_bridge.hooks.prices import due_balances
    from balance_bridge.load.delivery import Delivery, deliver

    newest = store.newest(f"balances/{account.name}/{day}/{name}", ".parquet")
    if newest is None:
        raise ConfigurationError(
            f"the balances of {account.name} {day} for {name} have not been computed yet",
            do=f'airflow dags trigger balances_{account.name} --conf \'{{"date": "{day}", "dry_run": true}}\'',
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


def _record(plan: Plan, row: Row) -> dict[str, Any]:
    remark = row.text
    if row.action is Action.SEND:
        remark = f"again, after {row.replaces}" if row.replaces else ""
        remark = f"instead of {row.supersedes}" if row.supersedes else remark
    return {
        "account": plan.account,
        "day": plan.day,
        "destination": plan.destination,
        "action": str(row.action),
        "request": row.batch or None,
        "asset": row.asset,
        "at": rfc3339(row.at_ms),
        "amount": Decimal(row.amount),
        "number": row.number,
        "key": row.key,
        "points": row.points,
        "remark": remark,
        "colour": "red" if row.action is Action.REJECT else "",
    }


def _remarks(plan: Plan, summary: DeliverySummary) -> Iterator[str]:
    batches = plan.batches()
    again = f", {summary.resent} of them again under the same numbers" if summary.resent else ""
    ignored = Counter(row.asset for row in plan.rows if row.action is Action.IGNORE)
    named = ", ".join(f"{asset} x{count}" for asset, count in ignored.items())
    yield (
        f"{plan.account} {plan.day} to {plan.destination} ({plan.kind}): {sum(map(len, batches.values()))} balances in "
        f"{len(batches)} requests would be sent{again}, {summary.rejected_locally} cannot be"
        f"{f'; ignored: {named}' if named else ''}"
    )
    if summary.other_keys:
        yield held_otherwise(summary.other_keys, summary.example, plan)
