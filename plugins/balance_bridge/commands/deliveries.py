"""What became of an account's day at a destination, for ``status`` and for ``store prune``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from balance_bridge import settings
from balance_bridge.commands.arguments import choose, choose_accounts
from balance_bridge.errors import BalanceBridgeError, StoreDamaged
from balance_bridge.load.fold import SETTLED, Folded, Status, fold, outcomes
from balance_bridge.load.log import DayLog, destinations_with_logs
from balance_bridge.store import Store

#: The folder of a day's raw responses whose objects name all of them, once they are complete.
MANIFEST = "manifest"
_DONE = SETTLED | {Status.IGNORED}


@dataclass(frozen=True)
class Delivered:
    """One day at one destination, by its receipts.

    Attributes:
        folded: The log.
        counts: Balances of the newest plan, by outcome; each counts once.
        is_worked_out: Whether the store has the balances that are due.
        never_sent: Those of them that are in no plan.
        is_planned: Whether a run has planned a delivery of the whole day.
    """

    folded: Folded
    counts: Counter[Status]
    is_worked_out: bool
    never_sent: int
    is_planned: bool

    @property
    def left(self) -> int:
        """Balances that are not delivered, whatever the reason."""
        return self.never_sent + sum(count for status, count in self.counts.items() if status not in _DONE)


def read_delivered(store: Store, account: str, day: date, name: str, *, compare: bool = False) -> Delivered:
    """Read the log of a day's delivery, and whether its newest balances are in it.

    Args:
        store: The store.
        account: The account's name.
        day: The UTC day.
        name: The destination's name.
        compare: Compare the balances one by one even if the plan names them: where older ones were pruned, numbers
            begin again.
    """
    folded = fold(DayLog(store, account, day, name).read())
    found, plan = list(outcomes(folded)), folded.events.newest_plan
    newest = store.newest(f"balances/{account}/{day}/{name}", ".parquet")
    never_sent = 0
    if newest is not None and (compare or plan is None or plan.generation != newest):
        # By content: a run that has nothing to change writes no plan.
        planned = {(*each.row.balance, Decimal(each.row.amount)) for each in found}
        never_sent = sum(balance not in planned for balance in _balances(store, newest))
    is_planned = plan is not None and not plan.so_far
    return Delivered(folded, Counter(each.outcome.status for each in found), newest is not None, never_sent, is_planned)


def destinations_of(store: Store, account: str, day: date) -> list[str]:
    """The destinations for which the store has balances or receipts of a day."""
    due = {key.split("/")[3] for key in store.list(f"balances/{account}/{day}")}
    return sorted(due.union(destinations_with_logs(store, account, day)))


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


def _balances(store: Store, key: str) -> list[tuple[str, int, Decimal]]:
    from balance_bridge.load.destination import balances_from_table
    from balance_bridge.transform import balances

    try:
        due = balances_from_table(balances.from_parquet(store.read(key)))
    except (BalanceBridgeError, ValueError) as error:
        raise StoreDamaged(f"{store.describe(key)} cannot be read", why=str(error)) from error
    return [(each.asset, each.at_ms, each.amount) for each in due]
