"""``balance-bridge explain`` and ``diff``: a day in sentences, and what two days differ in."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from typing import Any

from balance_bridge import settings
from balance_bridge.commands.arguments import choose, choose_accounts, today
from balance_bridge.commands.output import Listing, Output, printable
from balance_bridge.daybook import Daybook
from balance_bridge.errors import ConfigurationError
from balance_bridge.explanation import explain
from balance_bridge.money import EXACT


def run(account: str, day: date) -> int:
    """Explain a day.

    Returns:
        The exit code: 1 if anything about it is wrong.
    """
    store, (config,) = settings.open_store(), choose_accounts([account])
    state, sentences = explain(store, config, day, today())
    for sentence in sentences:
        print(printable(sentence))
    return int(state.is_wrong)


def diff(account: str, first: date, second: date, *, assets: Sequence[str], output: Output) -> int:
    """Show by how much an account's closing balances differ between two days.

    Raises:
        ConfigurationError: If one of them was not run yet.
    """
    before, after = (_closing(account, day) for day in (first, second))
    names = sorted(before.keys() | after.keys())
    chosen = choose("there is no asset", assets, names) if assets else names
    records: list[dict[str, Any]] = []
    for asset in chosen:
        old, new = before.get(asset, Decimal(0)), after.get(asset, Decimal(0))
        change = EXACT.normalize(EXACT.subtract(new, old))
        records.append({"asset": asset, "first": old, "second": new, "change": change, "colour": ""})
    changed = [record for record in records if record["change"]]
    columns = {"asset": "asset", f"closing {first}": "first", f"closing {second}": "second", "change": "change"}
    verdict = f"{account}: {len(changed)} of {len(records)} assets changed between {first} and {second}"
    output.show(Listing(changed if output.form == "table" else records, columns, verdict=verdict))
    return 0


def _closing(account: str, day: date) -> dict[str, Decimal]:
    report = Daybook.read(settings.open_store(), account, day).report
    if not report:
        raise ConfigurationError(f"{account} {day} was not run yet")
    return {asset: Decimal(text) for asset, text in report["closing"]["balances"].items()}
