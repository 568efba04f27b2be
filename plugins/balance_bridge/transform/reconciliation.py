"""The proof: opening snapshot plus every change is the closing snapshot, or the name of the place where it breaks.

An asset's balances form a chain: the opening snapshot, each record, the closing snapshot. At each link the balance must
be the one before plus the change; a snapshot changes nothing. Where it is not, that is a break, named by the sequence
numbers on both sides: a ``chain`` break at a record, a ``conservation`` break at the closing snapshot. What is missing
at all the links of an asset adds up to its drift, closing - (opening + sum of changes): so each breakage is reported
once, and an asset without breaks has no drift. A tolerance excuses only what is missing at the closing snapshot.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

import pandas as pd

from balance_bridge import money
from balance_bridge.errors import Contradiction
from balance_bridge.transform.ledger import WIDE, snapshot_rows
from balance_bridge.transform.report import MAX_BREAKS, MAX_OUTSIDE, Break, Outside, Reconciliation
from balance_bridge.transform.snapshot import Snapshot, check_order

__all__ = ["MAX_BREAKS", "MAX_OUTSIDE", "Break", "Outside", "Reconciliation", "reconcile", "reconcile_so_far"]


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
        outside=_outside(ledger, opening.at_ms, closing_at_ms),
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


def _outside(ledger: pd.DataFrame, opening_at_ms: int, closing_at_ms: int) -> Outside:
    at_ms = ledger["at"].astype("int64[pyarrow]")
    sns = ledger["sn"][(at_ms <= opening_at_ms) | (at_ms > closing_at_ms)].drop_duplicates()
    return Outside(len(sns), tuple(sns.head(MAX_OUTSIDE)))
