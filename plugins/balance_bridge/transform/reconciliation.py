"""The proof: opening snapshot plus every change is the closing snapshot, or the name of the place where it breaks.

An asset's balances form a chain: the opening snapshot, each record, the closing snapshot. At each link the balance must
be the one before plus the change; a snapshot changes nothing. Where it is not, that is a break, named by the sequence
numbers on both sides: a ``chain`` break at a record, a ``conservation`` break at the closing snapshot. What is missing
at all the links of an asset adds up to its drift, closing - (opening + sum of changes): so each breakage is reported
once, and an asset without breaks has no drift. A tolerance excuses only what is missing at the closing snapshot.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

import pandas as pd

from balance_bridge import money
from balance_bridge.errors import Contradiction
from balance_bridge.transform.ledger import WIDE, snapshot_rows
from balance_bridge.transform.snapshot import Snapshot, check_order

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
class Reconciliation:
    """The result of a proof.

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
        outside: Records, by sn and at most 100, whose time lies outside (opening, closing]; not a break.
        outside_count: How many there are.
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
    outside: tuple[int, ...] = ()
    outside_count: int = 0

    def to_document(self) -> dict[str, Any]:
        """The report as JSON can hold it; amounts are text."""
        return {
            "version": VERSION,
            "status": self.status,
            "opening": _snapshot(self.opening),
            "closing": _snapshot(self.closing),
            "records": self.records,
            "assets": self.assets,
            "drift": {asset: f"{amount:f}" for asset, amount in self.drift.items()},
            "tolerance": {asset: f"{amount:f}" for asset, amount in self.tolerance.items()},
            "breaks": [vars(found) | {"amount": f"{found.amount:f}"} for found in self.breaks],
            "break_count": self.break_count,
            "outside": {"count": self.outside_count, "sns": list(self.outside)},
        }

    def summary(self) -> str:
        """For people: the status, and each break by asset, amount and sequence numbers, at most ten."""
        span = f"{self.records} records, {self.assets} assets, sn {self.opening.sn} to {self.closing.sn}"
        if self.status == "proven":
            lines = [f"proven: opening + changes = closing ({span})"]
        elif self.status == "tolerated":
            lines = [f"tolerated: the chains hold and the drift is within the tolerance ({span})"]
            drifts = [
                f"{asset}: drift {amount:f}, tolerance {self.tolerance[asset]:f}"
                for asset, amount in self.drift.items()
            ]
            lines += _first(drifts, len(drifts))
        else:
            lines = [f"broken: opening + changes is not closing, or not at every record ({span})"]
            lines += _first([_sentence(found) for found in self.breaks[:_MAX_SUMMARY]], self.break_count)
        if self.outside_count:
            sns = ", ".join(_first([str(sn) for sn in self.outside], self.outside_count))
            lines.append(f"{self.outside_count} records have a time outside the day: sn {sns}")
        return "\n".join(lines)


def _snapshot(snapshot: Snapshot) -> dict[str, Any]:
    balances = {asset: f"{amount:f}" for asset, amount in sorted(snapshot.balances.items()) if amount}
    return {"sn": snapshot.sn, "at_ms": snapshot.at_ms, "balances": balances}


def reconcile(
    opening: Snapshot, closing: Snapshot, ledger: pd.DataFrame, tolerance: Mapping[str, Decimal] | None = None
) -> Reconciliation:
    """Prove that opening + changes = closing, per asset and record by record.

    Args:
        opening: The snapshot after which the records begin.
        closing: The snapshot with which they end.
        ledger: As ``build_ledger`` makes it, of the records in (opening.sn, closing.sn].
        tolerance: Per asset the largest gap, in either direction, that is excused; 0 for those it lacks.

    Returns:
        The proof, or where it fails.

    Raises:
        Contradiction: If the snapshots do not follow each other, or a record lies outside their sequence numbers.
        InvalidAmount: If a snapshot holds an amount that cannot be held exactly.
    """
    check_order(opening, closing)
    allowed = {asset: money.check(amount) for asset, amount in (tolerance or {}).items() if amount}
    return _prove(opening, closing, ledger, closing.at_ms, allowed)


def reconcile_so_far(opening: Snapshot, ledger: pd.DataFrame, closing_at_ms: int) -> Reconciliation:
    """Prove what there is of a day that is still going on, by the chain alone.

    Args:
        opening: The snapshot after which the records begin.
        ledger: As ``build_ledger`` makes it, of the records above opening.sn.
        closing_at_ms: The instant at which the day will end, UTC milliseconds: later records are outside the day.

    Returns:
        ``proven`` or ``broken``. The closing snapshot is what the records lead to: the last sn, the latest time, and
        each balance that is not zero.

    Raises:
        Contradiction: If a record lies at or below the opening snapshot's sequence number.
        InvalidAmount: If the snapshot holds an amount that cannot be held exactly.
    """
    last = ledger.drop_duplicates("asset", keep="last")  # in order of sequence numbers
    balances = {**opening.balances, **dict(zip(last["asset"], last["balance"], strict=True))}
    closing = Snapshot(
        sn=max([opening.sn, *ledger["sn"].tail(1)]),
        at_ms=max([opening.at_ms, *ledger["at"].astype("int64[pyarrow]").nlargest(1)]),
        balances={asset: money.check(balance) for asset, balance in balances.items() if balance},
    )
    return _prove(opening, closing, ledger, closing_at_ms, {})


def _prove(
    opening: Snapshot, closing: Snapshot, ledger: pd.DataFrame, closing_at_ms: int, allowed: dict[str, Decimal]
) -> Reconciliation:
    _check_between(opening, closing, ledger)
    held = {asset for each in (opening, closing) for asset, balance in each.balances.items() if balance}
    assets = sorted(held.union(ledger["asset"].unique()))
    first, last = snapshot_rows(opening, assets), snapshot_rows(closing, assets)
    chain = pd.concat([first, ledger[first.columns], last], ignore_index=True)
    before = chain.groupby("asset", sort=False)[["sn", "balance"]].shift()
    missing = chain["balance"].astype(WIDE) - before["balance"].astype(WIDE) - chain["delta"].astype(WIDE)

    at_ms = ledger["at"].astype("int64[pyarrow]")
    outside = ledger["sn"][(at_ms <= opening.at_ms) | (at_ms > closing_at_ms)].drop_duplicates()

    broken = (missing != 0).fillna(False)
    found = chain.assign(last_good_sn=before["sn"], amount=missing)[broken]
    drift = found.groupby("asset")["amount"].sum()
    gaps = found[found.index >= len(chain) - len(last)]
    excused = [row for row, gap in _rows(gaps) if gap["amount"].copy_abs() <= allowed.get(gap["asset"], 0)]
    breaks = found.drop(index=excused).sort_values(["sn", "asset"])
    return Reconciliation(
        status="broken" if len(breaks) else "tolerated" if (drift != 0).any() else "proven",
        opening=opening,
        closing=closing,
        drift={str(asset): money.EXACT.normalize(amount) for asset, amount in drift[drift != 0].items()},
        breaks=tuple(
            Break(
                kind="conservation" if row in gaps.index else "chain",
                asset=each["asset"],
                amount=money.EXACT.normalize(each["amount"]),
                last_good_sn=each["last_good_sn"],
                first_bad_sn=each["sn"],
            )
            for row, each in _rows(breaks.head(MAX_BREAKS))
        ),
        break_count=len(breaks),
        tolerance=dict(sorted(allowed.items())),
        records=ledger["sn"].nunique(),
        assets=len(assets),
        outside=tuple(outside.head(MAX_OUTSIDE)),
        outside_count=len(outside),
    )


def _rows(frame: pd.DataFrame) -> Iterable[tuple[Any, dict[Any, Any]]]:
    return frame.to_dict("index").items()


def _check_between(opening: Snapshot, closing: Snapshot, ledger: pd.DataFrame) -> None:
    stray = ledger["sn"][(ledger["sn"] <= opening.sn) | (ledger["sn"] > closing.sn)]
    if len(stray):
        raise Contradiction(
            f"the ledger has a record of sn {stray.iloc[0]}, which is not in ({opening.sn}, {closing.sn}]",
            why="It is not the ledger between these snapshots",
        )


def _sentence(found: Break) -> str:
    where = f"between sn {found.last_good_sn} (last good) and sn {found.first_bad_sn} (first bad)"
    what = (
        "the record's balance is not the one before plus its change"
        if found.kind == "chain"
        else "the closing snapshot is not the balance after the last record"
    )
    return f"{found.asset}: {found.amount:f} unexplained {where}: {what}"


def _first(lines: list[str], count: int) -> list[str]:
    shown = lines[:_MAX_SUMMARY]
    return [*shown, f"and {count - len(shown)} more"] if count > len(shown) else shown
