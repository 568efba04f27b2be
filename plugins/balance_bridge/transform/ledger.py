"""The ledger: one row per record and asset, the sum of its legs and the balance after it.

Arrow refuses to add ``decimal128(38, 18)`` amounts, and its sums of them wrap around silently. So whatever is added is
``WIDE`` before: no sum of amounts can leave that.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

import pandas as pd
import pyarrow as pa

from balance_bridge import money
from balance_bridge.errors import Contradiction, InvalidAmount
from balance_bridge.transform import parquet
from balance_bridge.transform.schema import AMOUNT, LEDGER, LEGS
from balance_bridge.transform.snapshot import Snapshot

FORMAT = parquet.Format("ledger/1", LEDGER)
to_parquet, from_parquet = FORMAT.write, FORMAT.read

WIDE = pd.ArrowDtype(pa.decimal256(60, money.SCALE))
_AMOUNT = pd.ArrowDtype(AMOUNT)


def build_ledger(legs: pa.Table) -> pd.DataFrame:
    """Sum the legs of each record and asset.

    Args:
        legs: Columns as ``schema.LEGS``, in any order of rows; no record twice.

    Returns:
        Columns as ``schema.LEDGER``, all of them Arrow's, sorted by (sn, asset). ``delta`` is the sum of all legs,
        ``fee`` that of the fee legs among them (0 where there are none), ``balance`` the one after the whole record.

    Raises:
        Contradiction: If the legs of one record and asset give different balances, or one sequence number has two
            times or kinds; the message names them. Also if a value that every leg has is missing.
        InvalidAmount: If a sum cannot be held; the message names the record.
    """
    rows = _frame(legs).sort_values(["sn", "asset"], ignore_index=True)
    repeats = _same_row(rows)
    row = (~repeats).cumsum()
    delta = _sums(rows, repeats | repeats.shift(-1, fill_value=False), row)
    fee = _sums(rows, rows["fee"].astype(bool), row)
    rows = rows[~repeats].set_index(row[~repeats])
    rows["delta"] = delta.reindex(rows.index).fillna(rows["delta"])
    rows["fee"] = fee.reindex(rows.index).fillna(0)
    return parquet.to_frame(pa.Table.from_pandas(rows[LEDGER.names], schema=LEDGER, preserve_index=False))


def snapshot_rows(snapshot: Snapshot, assets: Iterable[str]) -> pd.DataFrame:
    """A snapshot as rows of a ledger: the balances at its place, and no change.

    Args:
        snapshot: The snapshot.
        assets: The assets to have a row each; 0 for one that the snapshot lacks.

    Raises:
        InvalidAmount: If a balance cannot be held exactly.
    """
    rows = [
        {"sn": snapshot.sn, "at": snapshot.at_ms, "asset": asset, "delta": Decimal(0), "balance": money.check(balance)}
        for asset, balance in ((asset, snapshot.balances.get(asset, Decimal(0))) for asset in assets)
    ]
    schema = pa.schema([LEDGER.field(name) for name in ("sn", "at", "asset", "delta", "balance")])
    return parquet.to_frame(pa.Table.from_pylist(rows, schema=schema))


def _frame(legs: pa.Table) -> pd.DataFrame:
    for field in LEGS:
        missing = legs[field.name].null_count
        if missing and not field.nullable:
            raise Contradiction(
                f"{missing} of {len(legs)} legs have no {field.name}",
                why="Every leg of a record must have one",
            )
    # What rows are compared by, as plain text; the rest may stay dictionary-encoded until there are fewer rows.
    texts = {name: legs[name].cast(pa.string()) for name in ("kind", "asset")}
    return parquet.to_frame(pa.table({name: texts.get(name, legs[name]) for name in LEGS.names}))


def _same_row(legs: pd.DataFrame) -> pd.Series:
    """Which legs are of the same record and asset as the one before; refuses a record that contradicts itself."""
    values = legs[["sn", "at", "kind", "asset", "balance"]]
    same = values.eq(values.shift()).fillna(False).astype(bool)
    repeats = same["sn"] & same["asset"]
    for name, of_one in (("balance", repeats), ("at", same["sn"]), ("kind", same["sn"])):
        wrong = legs.index[of_one & ~same[name]]
        if len(wrong):
            leg, found = legs.loc[wrong[0]], [legs.loc[place, name] for place in (wrong[0] - 1, wrong[0])]
            if name == "balance":
                told = " and ".join(money.to_text(amount) for amount in found)
                raise Contradiction(
                    f"sn {leg['sn']}: the legs of {leg['asset']} give different balances after the record: {told}"
                )
            raise Contradiction(
                f"sn {leg['sn']}: two records have this sequence number ({name} {found[0]} and {found[1]})"
            )
    return repeats


def _sums(legs: pd.DataFrame, summed: pd.Series, row: pd.Series) -> pd.Series:
    """The sum of some legs by the row of the ledger to which they belong."""
    sums: pd.Series = legs.loc[summed, "delta"].astype(WIDE).groupby(row[summed]).sum()
    too_large = sums[sums.abs() >= money.LIMIT]
    if len(too_large):
        leg = legs[row == too_large.index[0]].iloc[0]
        raise InvalidAmount(
            f"sn {leg['sn']}, {leg['asset']}: the sum of the legs is too large: {too_large.iloc[0]:f}",
            why=f"An amount has at most {money.PRECISION - money.SCALE} digits before the point",
        )
    return sums.astype(_AMOUNT)
