"""The proof: opening snapshot plus every change is the closing snapshot, or the name of the place where it breaks.

Two rules are checked, exactly. *Conservation*, per asset: opening + sum of changes = closing; what is left over is the
asset's drift. *Chain*, per asset and record by record: balance = previous balance + change, from the opening snapshot's
balance on, and the last record's balance is the closing snapshot's. The drift is the sum of what is missing in the
chain's links, so each breakage is reported once: inside the chain as a ``chain`` break, between the last record and the
closing snapshot as a ``conservation`` break. A tolerance excuses only the latter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa

from balance_bridge.errors import BadAnswer
from balance_bridge.transform.columns import LedgerColumns, group_starts, ledger_columns
from balance_bridge.transform.decimals import (
    Int64,
    Words,
    array_of,
    from_units,
    group_totals,
    sum_unequal,
    to_units,
    to_words,
)
from balance_bridge.transform.snapshot import Snapshot, check_order

__all__ = ["Break", "Outside", "Reconciliation", "Snapshot", "reconcile"]

VERSION = 1
MAX_BREAKS = 1000
MAX_OUTSIDE = 100
_MAX_SUMMARY = 10


@dataclass(frozen=True)
class Break:
    """A place where the proof fails.

    Attributes:
        kind: ``chain``: a record's balance is not the previous one plus its change. ``conservation``: the closing
            snapshot's balance is not the one after the last record.
        asset: The asset.
        amount: What is missing: the balance found minus the one that follows from what came before.
        last_good_sn: Up to here everything holds: the asset's record before, or the opening snapshot.
        first_bad_sn: The record, or the closing snapshot, at which it no longer does.
    """

    kind: Literal["chain", "conservation"]
    asset: str
    amount: Decimal
    last_good_sn: int
    first_bad_sn: int


@dataclass(frozen=True)
class Outside:
    """Records of the day, by sequence number, whose time lies outside (opening, closing].

    Attributes:
        count: How many.
        sns: The first of them, at most 100.
    """

    count: int = 0
    sns: tuple[int, ...] = ()


@dataclass(frozen=True)
class Reconciliation:
    """What the proof came to.

    Attributes:
        status: ``proven``: every link holds. ``tolerated``: drift within the tolerance, chains hold. ``broken``.
        opening: The first snapshot.
        closing: The second one.
        drift: Per asset closing - (opening + sum of changes), where that is not zero.
        breaks: By first bad sn, at most 1000.
        break_count: How many there are.
        tolerance: Per asset what was allowed.
        records: Number of records.
        assets: Number of assets that are not zero in either snapshot, or were touched.
        outside: Records whose time is not the day's; not a break.
    """

    status: Literal["proven", "tolerated", "broken"]
    opening: Snapshot
    closing: Snapshot
    drift: dict[str, Decimal] = field(default_factory=dict)
    breaks: tuple[Break, ...] = ()
    break_count: int = 0
    tolerance: dict[str, Decimal] = field(default_factory=dict)
    records: int = 0
    assets: int = 0
    outside: Outside = field(default_factory=Outside)

    def to_document(self) -> dict[str, Any]:
        """The report as JSON can hold it; amounts are text."""
        return {
            "version": VERSION,
            "status": self.status,
            "opening": {"sn": self.opening.sn, "at_ms": self.opening.at_ms},
            "closing": {"sn": self.closing.sn, "at_ms": self.closing.at_ms},
            "records": self.records,
            "assets": self.assets,
            "drift": {asset: format(amount, "f") for asset, amount in self.drift.items()},
            "tolerance": {asset: format(amount, "f") for asset, amount in self.tolerance.items()},
            "breaks": [
                {
                    "kind": found.kind,
                    "asset": found.asset,
                    "amount": format(found.amount, "f"),
                    "last_good_sn": found.last_good_sn,
                    "first_bad_sn": found.first_bad_sn,
                }
                for found in self.breaks
            ],
            "break_count": self.break_count,
            "outside": {"count": self.outside.count, "sns": list(self.outside.sns)},
        }

    def summary(self) -> str:
        """What to tell a person: the status, and each break by asset, amount and sequence numbers, at most ten."""
        span = f"{self.records} records, {self.assets} assets, sn {self.opening.sn} to {self.closing.sn}"
        if self.status == "proven":
            lines = [f"proven: opening + changes = closing ({span})"]
        elif self.status == "tolerated":
            lines = [f"tolerated: the chains hold and the drift is within the tolerance ({span})"]
            lines += _bounded(
                [
                    f"{asset}: drift {amount:f}, tolerance {self.tolerance[asset]:f}"
                    for asset, amount in self.drift.items()
                ],
                len(self.drift),
            )
        else:
            lines = [f"broken: opening + changes is not closing, or not at every record ({span})"]
            lines += _bounded([_sentence(found) for found in self.breaks[:_MAX_SUMMARY]], self.break_count)
        if self.outside.count:
            shown = ", ".join(str(sn) for sn in self.outside.sns[:_MAX_SUMMARY])
            lines.append(f"{self.outside.count} records have a time outside the day: sn {shown}" + self._outside_more())
        return "\n".join(lines)

    def _outside_more(self) -> str:
        more = self.outside.count - min(len(self.outside.sns), _MAX_SUMMARY)
        return f" and {more} more" if more else ""


def reconcile(
    opening: Snapshot, closing: Snapshot, ledger: pd.DataFrame, tolerance: Mapping[str, Decimal] | None = None
) -> Reconciliation:
    """Prove that opening + changes = closing, per asset and record by record.

    Args:
        opening: The snapshot after which the records begin.
        closing: The snapshot with which they end.
        ledger: As ``build_ledger`` makes it, of the records in (opening.sn, closing.sn].
        tolerance: Per asset the largest drift, in either direction, that is let pass; 0 for those it lacks.

    Returns:
        The proof, or where it fails.

    Raises:
        BadAnswer: If the snapshots do not follow each other, or a record lies outside their sequence numbers.
        InvalidAmount: If a snapshot holds an amount that cannot be held exactly.
    """
    check_order(opening, closing)
    held = {asset for snapshot in (opening, closing) for asset, amount in snapshot.balances.items() if amount}
    columns = ledger_columns(ledger, held)
    _check_span(columns.sn, opening, closing)
    allowed = {asset: to_units(amount) for asset, amount in (tolerance or {}).items()}

    starts = group_starts(columns.code)
    links, link_count = _broken_links(columns, starts, opening)
    ends, drift = _ends(columns, starts, opening, closing)
    gaps = [found for found in ends if abs(to_units(found.amount)) > allowed.get(found.asset, 0)]
    breaks = sorted(links + gaps, key=lambda found: (found.first_bad_sn, found.asset))
    return Reconciliation(
        status="broken" if breaks else "tolerated" if drift else "proven",
        opening=opening,
        closing=closing,
        drift=drift,
        breaks=tuple(breaks[:MAX_BREAKS]),
        break_count=link_count + len(gaps),
        tolerance={asset: from_units(units) for asset, units in sorted(allowed.items()) if units},
        records=len(_distinct(columns.sn)),
        assets=len(columns.assets),
        outside=_outside(columns, opening, closing),
    )


def _check_span(sn: Int64, opening: Snapshot, closing: Snapshot) -> None:
    stray = sn[(sn <= opening.sn) | (sn > closing.sn)]
    if len(stray):
        raise BadAnswer(
            f"the ledger has a record of sn {stray.min()}, which is not in ({opening.sn}, {closing.sn}]: "
            "it is not the ledger between these snapshots"
        )


def _broken_links(columns: LedgerColumns, starts: Int64, opening: Snapshot) -> tuple[list[Break], int]:
    """Where a record's balance is not the previous one plus its change: the first by sn, and how many there are."""
    balance, delta = to_words(columns.balance), to_words(columns.delta)
    initial = to_words(_amounts(opening, columns.assets)).take(columns.code[starts])
    previous = Words(np.roll(balance.low, 1), np.roll(balance.high, 1))
    previous.low[starts], previous.high[starts] = initial.low, initial.high
    bad = np.flatnonzero(sum_unequal(previous, delta, balance))
    first = np.zeros(len(columns), np.bool_)
    first[starts] = True

    listed = bad[np.argsort(columns.sn[bad], kind="stable")][:MAX_BREAKS]
    breaks = [
        Break(
            kind="chain",
            asset=columns.assets[columns.code[row]],
            amount=from_units(balance.units(row) - previous.units(row) - delta.units(row)),
            last_good_sn=opening.sn if first[row] else int(columns.sn[row - 1]),
            first_bad_sn=int(columns.sn[row]),
        )
        for row in listed.tolist()
    ]
    return breaks, len(bad)


def _ends(
    columns: LedgerColumns, starts: Int64, opening: Snapshot, closing: Snapshot
) -> tuple[list[Break], dict[str, Decimal]]:
    """Where the closing snapshot is not the balance after the last record, by asset; and each asset's drift."""
    lasts = np.append(starts[1:], len(columns))[: len(starts)] - 1
    touched = dict(zip(columns.code[starts].tolist(), lasts.tolist(), strict=True))
    totals = dict(zip(touched, group_totals(to_words(columns.delta), starts), strict=True))
    balance = to_words(columns.balance)
    gaps, drift = [], {}
    for code, asset in enumerate(columns.assets):
        opened = to_units(opening.balances.get(asset, Decimal(0)))
        closed = to_units(closing.balances.get(asset, Decimal(0)))
        row = touched.get(code)
        gap = closed - (opened if row is None else balance.units(row))
        if gap:
            last_sn = opening.sn if row is None else int(columns.sn[row])
            gaps.append(Break("conservation", asset, from_units(gap), last_sn, closing.sn))
        off = closed - opened - totals.get(code, 0)
        if off:
            drift[asset] = from_units(off)
    return gaps, drift


def _outside(columns: LedgerColumns, opening: Snapshot, closing: Snapshot) -> Outside:
    sns = _distinct(columns.sn[(columns.at <= opening.at_ms) | (columns.at > closing.at_ms)])
    return Outside(len(sns), tuple(sns[:MAX_OUTSIDE].tolist()))


def _distinct(sn: Int64) -> Int64:
    ordered = np.sort(sn)  # ten times as fast as np.unique, which hashes
    return ordered[group_starts(ordered)]


def _amounts(snapshot: Snapshot, assets: list[str]) -> pa.Array:
    return array_of(snapshot.balances.get(asset, Decimal(0)) for asset in assets)


def _sentence(found: Break) -> str:
    where = f"between sn {found.last_good_sn} (last good) and sn {found.first_bad_sn} (first bad)"
    what = (
        "the record's balance is not the one before plus its change"
        if found.kind == "chain"
        else "the closing snapshot is not the balance after the last record"
    )
    return f"{found.asset}: {found.amount:f} unexplained {where}: {what}"


def _bounded(lines: list[str], count: int) -> list[str]:
    shown = lines[:_MAX_SUMMARY]
    return [*shown, f"and {count - len(shown)} more"] if count > len(shown) else shown
