"""``balance-bridge store index``: makes the index of the page again."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from balance_bridge import index, settings
from balance_bridge.commands.arguments import choose_accounts


def run(accounts: Sequence[str]) -> int:
    """Make the index again, account by account."""
    from rich.console import Console
    from rich.progress import track

    store, days, months = settings.open_store(), 0, 0
    console = Console(stderr=True)
    chosen = choose_accounts(accounts)
    for account in track(chosen, "indexing", console=console, transient=True, disable=not sys.stderr.isatty()):
        for month in index.months_of(store, account.name):
            days += index.rebuild(store, account.name, month)
            months += 1
    print(f"Indexed {days} days of {len(chosen)} accounts, in {months} objects.")
    return 0
