"""The proof: opening snapshot plus every change is the closing snapshot, or the name of the place where it breaks.

Two rules are checked, exactly. *Conservation*, per asset: opening + sum of changes = closing; what is left over is the
asset's drift. *Chain*, per asset and record by record: balance = previous balance + change, from the opening snapshot's
balance on, and the last record's balance is the closing snapshot's. The drift is the sum of what is missing in the
chain's links, so each breakage is reported once: inside the chain as a ``chain`` break, between the last record and the
closing snapshot as a ``conservation`` break. A tolerance excuses only the latter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd

from balance_bridge.errors import InvalidResponse
from balance_bridge.transform.columns import LedgerColumns, group_starts, ledger_columns
from balance_bridge.transform.decimals import (
    Int64,
    Words,
    from_units,
    group_totals,
    sum_unequal,
    to_units,
    to_words,
)
from balance_bridge.transform.report import MAX_BREAKS, MAX_OUTSIDE, Break, Outside, Reconciliation
from balance_bridge.transform.snapshot import Snapshot, check_order

__all__ = ["MAX_BREAKS", "MAX_OUTSIDE", "Break", "Outside", "Prover", "Reconciliation", "Snapshot", "reconcile"]

_WORD = (1 << 64) - 1


class Prover:
    """Proves a day piece by piece, in the order of sequence numbers; holds one balance per asset and no record.

    Args:
        opening: The snapshot after which the records begin.
        closing_at_ms: The instant at which the day ends, UTC milliseconds: a record after it is told as outside the
            day. If it is None, none is.

    Raises:
        InvalidAmount: If the snapshot holds an amount that cannot be held exactly.
    """

    def __init__(self, opening: Snapshot, closing_at_ms: int | None = None) -> None:
        self._opening = opening
        self._closing_at_ms = closing_at_ms
        self._balances = {asset: to_units(amount) for asset, amount in opening.balances.items()}
        self._changes: dict[str, int] = {}
        self._last_sns: dict[str, int] = {}
        self._last_sn = opening.sn
        self._last_at_ms = opening.at_ms
        self._breaks: list[Break] = []
        self._break_count = 0
        self._records = 0
        self._outside_count = 0
        self._outside_sns: list[int] = []

    def add(self, ledger: pd.DataFrame) -> None:
        """Follow the chain of balances through the next records.

        Args:
            ledger: As ``build_ledger`` makes it, of records that all lie above those before.

        Raises:
            InvalidResponse: If one does not.
        """
        columns = ledger_columns(ledger, ())
        if not len(columns):
            return
        if int(columns.sn.min()) <= self._last_sn:
            raise InvalidResponse(
                f"the ledger has a record of sn {columns.sn.min()}, which is not above sn {self._last_sn}: "
                "it is not the ledger of what follows"
            )
        starts = group_starts(columns.code)
        touched = [columns.assets[code] for code in columns.code[starts].tolist()]
        self._follow(columns, starts, touched)
        balance = to_words(columns.balance)
        lasts = np.append(starts[1:], len(columns))[: len(starts)] - 1
        totals = group_totals(to_words(columns.delta), starts)
        for asset, row, total in zip(touched, lasts.tolist(), totals, strict=True):
            self._balances[asset] = balance.units(row)
            self._changes[asset] = self._changes.get(asset, 0) + total
            self._last_sns[asset] = int(columns.sn[row])
        self._count(columns)

    def conclude(self, closing: Snapshot, tolerance: Mapping[str, Decimal] | None = None) -> Reconciliation:
        """Hold what the records lead to against the closing snapshot.

        Args:
            closing: The snapshot with which the records end.
            tolerance: Per asset the largest drift, in either direction, that is let pass; 0 for those it lacks.

        Raises:
            InvalidResponse: If the snapshots do not follow each other, or a record lies above the closing one.
            InvalidAmount: If the snapshot holds an amount that cannot be held exactly.
        """
        check_order(self._opening, closing)
        if self._last_sn > closing.sn:
            raise _not_between(self._last_sn, self._opening, closing)
        allowed = {asset: to_units(amount) for asset, amount in (tolerance or {}).items()}
        assets = self._assets(closing)
        gaps, drift = self._ends(assets, closing, allowed)
        breaks = sorted(self._breaks + gaps, key=lambda found: (found.first_bad_sn, found.asset))
        return self._report(
            closing,
            status="broken" if breaks else "tolerated" if drift else "proven",
            drift=drift,
            breaks=tuple(breaks[:MAX_BREAKS]),
            break_count=self._break_count + len(gaps),
            tolerance={asset: from_units(units) for asset, units in sorted(allowed.items()) if units},
            assets=len(assets),
        )

    def interim(self) -> Reconciliation:
        """What the chain shows of a day that is still going on.

        Returns:
            ``proven`` or ``broken`` by the chain alone. The closing snapshot is what the records lead to: the last sn,
            the latest time, and each balance that is not zero.
        """
        balances = {asset: from_units(units) for asset, units in self._balances.items() if units}
        so_far = Snapshot(self._last_sn, self._last_at_ms, balances)
        breaks = sorted(self._breaks, key=lambda found: (found.first_bad_sn, found.asset))
        return self._report(
            so_far,
            status="broken" if breaks else "proven",
            breaks=tuple(breaks),
            break_count=self._break_count,
            assets=len(self._assets(so_far)),
        )

    def _report(self, closing: Snapshot, **told: Any) -> Reconciliation:
        return Reconciliation(
            opening=self._opening,
            closing=closing,
            records=self._records,
            outside=Outside(self._outside_count, tuple(self._outside_sns)),
            **told,
        )

    def _assets(self, closing: Snapshot) -> list[str]:
        held = {asset for each in (self._opening, closing) for asset, amount in each.balances.items() if amount}
        return sorted(held.union(self._changes))

    def _follow(self, columns: LedgerColumns, starts: Int64, touched: list[str]) -> None:
        """Where a record's balance is not the previous one plus its change."""
        balance, delta = to_words(columns.balance), to_words(columns.delta)
        initial = _words([self._balances.get(asset, 0) for asset in touched])
        previous = Words(np.roll(balance.low, 1), np.roll(balance.high, 1))
        previous.low[starts], previous.high[starts] = initial.low, initial.high
        bad = np.flatnonzero(sum_unequal(previous, delta, balance))
        self._break_count += len(bad)
        first = np.zeros(len(columns), np.bool_)
        first[starts] = True
        room = MAX_BREAKS - len(self._breaks)
        for row in bad[np.argsort(columns.sn[bad], kind="stable")][:room].tolist():
            asset = columns.assets[columns.code[row]]
            before = self._last_sns.get(asset, self._opening.sn) if first[row] else int(columns.sn[row - 1])
            self._breaks.append(
                Break(
                    kind="chain",
                    asset=asset,
                    amount=from_units(balance.units(row) - previous.units(row) - delta.units(row)),
                    last_good_sn=before,
                    first_bad_sn=int(columns.sn[row]),
                )
            )

    def _count(self, columns: LedgerColumns) -> None:
        sns = _distinct(columns.sn)
        self._records += len(sns)
        self._last_sn = int(sns[-1])
        self._last_at_ms = max(self._last_at_ms, int(columns.at.max()))
        stray = columns.at <= self._opening.at_ms
        if self._closing_at_ms is not None:
            stray |= columns.at > self._closing_at_ms
        outside = _distinct(columns.sn[stray])
        self._outside_count += len(outside)
        self._outside_sns += outside[: MAX_OUTSIDE - len(self._outside_sns)].tolist()

    def _ends(
        self, assets: Iterable[str], closing: Snapshot, allowed: Mapping[str, int]
    ) -> tuple[list[Break], dict[str, Decimal]]:
        """Where the closing snapshot is further than allowed from the balance after the last record; and each drift."""
        gaps, drift = [], {}
        for asset in assets:
            opened = to_units(self._opening.balances.get(asset, Decimal(0)))
            closed = to_units(closing.balances.get(asset, Decimal(0)))
            gap = closed - self._balances.get(asset, 0)
            if abs(gap) > allowed.get(asset, 0):
                last_sn = self._last_sns.get(asset, self._opening.sn)
                gaps.append(Break("conservation", asset, from_units(gap), last_sn, closing.sn))
            off = closed - opened - self._changes.get(asset, 0)
            if off:
                drift[asset] = from_units(off)
        return gaps, drift


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
        InvalidResponse: If the snapshots do not follow each other, or a record lies outside their sequence numbers.
        InvalidAmount: If a snapshot holds an amount that cannot be held exactly.
    """
    check_order(opening, closing)
    prover = Prover(opening, closing.at_ms)
    prover.add(ledger)
    return prover.conclude(closing, tolerance)


def reconcile_so_far(opening: Snapshot, ledger: pd.DataFrame, closing_at_ms: int) -> Reconciliation:
    """Follow the chain of balances of a day that is still going on.

    Args:
        opening: The snapshot after which the records begin.
        ledger: As ``build_ledger`` makes it, of the records after ``opening.sn``.
        closing_at_ms: The instant at which the day ends, UTC milliseconds.

    Returns:
        ``proven`` or ``broken`` by the chain alone. Its closing snapshot is what the records lead to.

    Raises:
        InvalidResponse: If a record is not after the opening snapshot.
    """
    prover = Prover(opening, closing_at_ms)
    prover.add(ledger)
    return prover.interim()


def _not_between(sn: int, opening: Snapshot, closing: Snapshot) -> InvalidResponse:
    return InvalidResponse(
        f"the ledger has a record of sn {sn}, which is not in ({opening.sn}, {closing.sn}]: "
        "it is not the ledger between these snapshots"
    )


def _words(units: list[int]) -> Words:
    low = np.array([each & _WORD for each in units], np.uint64)
    return Words(low, np.array([each >> 64 for each in units], np.int64))


def _distinct(sn: Int64) -> Int64:
    ordered = np.sort(sn)  # ten times as fast as np.unique, which hashes
    return ordered[group_starts(ordered)]
