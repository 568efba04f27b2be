"""What the store has of an account's day: facts, without a word on what they mean."""

from __future__ import annotations

from collections import Counter
from datetime import date
from decimal import Decimal
from typing import Any

import msgspec

from balance_bridge.errors import BalanceBridgeError, StoreDamaged
from balance_bridge.extract import raw
from balance_bridge.load.fold import SETTLED, Folded, Status, fold, outcomes
from balance_bridge.load.log import DayLog, destinations_with_logs
from balance_bridge.load.summary import other_keys
from balance_bridge.store import Store

#: What a damaged or foreign object may raise.
UNREADABLE = (BalanceBridgeError, OSError, ValueError, LookupError, TypeError, AttributeError)
_DONE = {str(status) for status in (*SETTLED, Status.IGNORED)}


class Delivered(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of a day at one destination.

    Attributes:
        counts: Balances of the newest plan, by outcome; each counts once.
        never_sent: Balances that are due and in no plan.
        due: Whether the store has the balances that are due.
        planned: Whether a run has planned a delivery of the whole day.
        other_keys: Balances held under keys or settings that the accounts file no longer has.
        example: One of them.
        unreadable: Why none of this is known; empty if it is.
    """

    counts: dict[str, int] = {}
    never_sent: int = 0
    due: bool = False
    planned: bool = False
    other_keys: int = 0
    example: str = ""
    unreadable: str = ""

    @property
    def left(self) -> int:
        """Balances that are not delivered, whatever the reason."""
        return self.never_sent + sum(count for status, count in self.counts.items() if status not in _DONE)


class Day(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the store has of an account's day.

    Attributes:
        stored: Whether it has all changes of the day.
        unavailable: Whether the exchange said that it no longer has the day.
        proof: ``proven``, ``tolerated``, ``broken``; empty if the day was not run yet.
        records: Records of the day.
        assets: Assets with a balance or a change.
        breaks: Places where the proof fails.
        drift: By asset, in units of the asset.
        approved_by: Who approved that it is delivered although it does not add up, or empty.
        destinations: By name.
        unreadable: Why the proof is not known; empty if it is.
    """

    stored: bool = False
    unavailable: bool = False
    proof: str = ""
    records: int = 0
    assets: int = 0
    breaks: int = 0
    drift: dict[str, str] = {}
    approved_by: str = ""
    destinations: dict[str, Delivered] = {}
    unreadable: str = ""


def read_day(store: Store, account: str, day: date) -> Day:
    """Read what the store has of a day. What cannot be read is named, and the rest is there all the same."""
    proof, report, unreadable = Day(), "", ""
    try:
        report = store.newest(f"reconciliation/{account}/{day}", ".json") or ""
        proof = _of_report(store.read_json(report)) if report else proof
    except UNREADABLE as error:
        unreadable = _why(store, report, error)
    return msgspec.structs.replace(
        proof,
        stored=store.newest(raw.manifests(account, day), ".json") is not None,
        unavailable=bool(store.list(f"raw/{account}/{day}/unavailable")),
        destinations={name: read_delivery(store, account, day, name) for name in destinations_of(store, account, day)},
        unreadable=unreadable,
    )


def _of_report(report: dict[str, Any]) -> Day:
    return Day(
        proof=str(report["status"]),
        records=int(report.get("records", 0)),
        assets=int(report.get("assets", 0)),
        breaks=int(report.get("break_count", 0)),
        drift={str(asset): str(amount) for asset, amount in report.get("drift", {}).items()},
        approved_by=str((report.get("approval") or {}).get("by", "")),
    )


def destinations_of(store: Store, account: str, day: date) -> list[str]:
    """The destinations for which the store has balances or receipts of a day."""
    due = {key.split("/")[3] for key in store.list(f"balances/{account}/{day}")}
    return sorted(due.union(destinations_with_logs(store, account, day)))


def read_delivery(store: Store, account: str, day: date, name: str, *, compare: bool = False) -> Delivered:
    """Read the log of a day's delivery, and whether its newest balances are in it.

    Args:
        store: The store.
        account: The account's name.
        day: The UTC day.
        name: The destination's name.
        compare: Compare the balances one by one even if the plan names them: where older ones were pruned, numbers
            begin again.
    """
    newest = ""
    try:
        folded = fold(DayLog(store, account, day, name).read())
        newest = store.newest(f"balances/{account}/{day}/{name}", ".parquet") or ""
        return _delivered(store, folded, newest, compare=compare)
    except UNREADABLE as error:
        return Delivered(unreadable=_why(store, newest, error))


def _delivered(store: Store, folded: Folded, newest: str, *, compare: bool) -> Delivered:
    found, plan = list(outcomes(folded)), folded.events.newest_plan
    never_sent = 0
    if newest and (compare or plan is None or plan.generation != newest):
        # By content: a run that has nothing to change writes no plan.
        planned = {(*each.row.balance, Decimal(each.row.amount)) for each in found}
        never_sent = sum(balance not in planned for balance in _balances(store, newest))
    held, example = other_keys(plan, folded)
    return Delivered(
        counts={str(status): count for status, count in Counter(each.outcome.status for each in found).items()},
        never_sent=never_sent,
        due=bool(newest),
        planned=plan is not None and not plan.so_far,
        other_keys=held,
        example=example,
    )


def _balances(store: Store, key: str) -> list[tuple[str, int, Decimal]]:
    from balance_bridge.load.destination import balances_from_table
    from balance_bridge.transform import balances

    try:
        due = balances_from_table(balances.from_parquet(store.read(key)))
    except (BalanceBridgeError, ValueError) as error:
        raise StoreDamaged(f"{store.describe(key)} cannot be read", why=str(error)) from error
    return [(each.asset, each.at_ms, each.amount) for each in due]


def _why(store: Store, key: str, error: Exception) -> str:
    return str(error) if isinstance(error, BalanceBridgeError) else f"{store.describe(key)}: {error!r}"
