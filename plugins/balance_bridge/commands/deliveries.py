"""Where an account's days were delivered, for the commands that name a destination."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from balance_bridge import settings
from balance_bridge.commands.arguments import choose, choose_accounts
from balance_bridge.load.log import destinations_with_logs
from balance_bridge.store import Store

#: The folder of a day's raw responses whose objects name all of them, once they are complete.
MANIFEST = "manifest"


def delivered_to(store: Store, account: str, days: Sequence[date], wanted: Sequence[str]) -> list[str]:
    """Destinations that have a receipt of these days, or stand in the accounts file: one may have left it since.

    Args:
        store: The store.
        account: The account's name; it may have left the accounts file too.
        days: The UTC days.
        wanted: Only these; all of them if none is named.

    Raises:
        UsageError: If there is no such account or destination.
    """
    file = settings.read_accounts()
    known = {name for day in days for name in destinations_with_logs(store, account, day)}
    if account in file.accounts:
        known |= set(file.accounts[account].destinations)
    if not known:
        choose_accounts([account])
    return choose(f"{account} has no destination", wanted, sorted(known))
