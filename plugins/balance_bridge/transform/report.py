"""The result of a proof: the report for the store, and the summary for people."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

from balance_bridge.transform.snapshot import Snapshot

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
            "opening": _snapshot(self.opening),
            "closing": _snapshot(self.closing),
            "records": self.records,
            "assets": self.assets,
            "drift": {asset: f"{amount:f}" for asset, amount in self.drift.items()},
            "tolerance": {asset: f"{amount:f}" for asset, amount in self.tolerance.items()},
            "breaks": [vars(found) | {"amount": f"{found.amount:f}"} for found in self.breaks],
            "break_count": self.break_count,
            "outside": {"count": self.outside.count, "sns": list(self.outside.sns)},
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
        if self.outside.count:
            sns = ", ".join(_first([str(sn) for sn in self.outside.sns], self.outside.count))
            lines.append(f"{self.outside.count} records have a time outside the day: sn {sns}")
        return "\n".join(lines)


def _snapshot(snapshot: Snapshot) -> dict[str, Any]:
    balances = {asset: f"{amount:f}" for asset, amount in sorted(snapshot.balances.items()) if amount}
    return {"sn": snapshot.sn, "at_ms": snapshot.at_ms, "balances": balances}


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
