"""The ledger: one row per record and asset, the sum of its legs and the balance after it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from balance_bridge.errors import InvalidAmount, InvalidResponse
from balance_bridge.transform import parquet
from balance_bridge.transform.columns import Int64, codes, group_starts, int64, pair_keys, sort_order, whole
from balance_bridge.transform.decimals import (
    Words,
    from_units,
    from_words,
    group_sums,
    group_totals,
    is_amount,
    to_words,
    unequal,
)
from balance_bridge.transform.schema import LEDGER, LEGS

FORMAT = "ledger/1"


def build_ledger(legs: pa.Table) -> pd.DataFrame:
    """Sum the legs of each record and asset.

    Args:
        legs: Columns as ``schema.LEGS``, in any order of rows; no record twice.

    Returns:
        Columns as ``schema.LEDGER``, all of them Arrow's, sorted by (sn, asset). ``delta`` is the sum of all legs,
        ``fee`` that of the fee legs among them (0 where there are none), ``balance`` the one after the whole record.

    Raises:
        InvalidResponse: If the legs of one record and asset give different balances, or one sequence number has two
            times or kinds; the message names them. Also if a value that every leg has is missing.
        InvalidAmount: If a sum cannot be held; the message names the record.
    """
    columns = _columns(legs)
    code = codes(columns["asset"])[0]
    sn = int64(columns["sn"])
    keys = pair_keys(sn, code)
    order = sort_order(keys)
    if order is None:
        order = np.arange(len(keys))
    starts = group_starts(keys[order])
    first = order[starts]
    _check_one_balance(columns, order, starts)
    _check_one_record(columns, sn, order)

    delta, fee = to_words(columns["delta"]), columns["fee"].to_numpy(zero_copy_only=False)
    rows = pa.array(first)
    same = [name for name in LEDGER.names if name not in ("delta", "fee")]
    result = {name: columns[name].take(rows).cast(LEDGER.field(name).type) for name in same}
    for name, legs_of in (("delta", delta.take(order)), ("fee", delta.where(fee).take(order))):
        try:
            result[name] = from_words(group_sums(legs_of, starts))
        except InvalidAmount as error:
            units = group_totals(legs_of, starts)
            row = next(row for row, total in enumerate(units) if not is_amount(total))
            where = f"sn {sn[first[row]]}, {result['asset'][row]}: the sum of the legs ({name})"
            raise InvalidAmount(f"{where} cannot be held: {error}") from error
    return parquet.to_frame(pa.table([result[name] for name in LEDGER.names], schema=LEDGER))


def to_parquet(ledger: pd.DataFrame) -> bytes:
    """Write a ledger; the same ledger gives the same bytes."""
    return parquet.write(ledger, LEDGER, FORMAT)


def from_parquet(data: bytes) -> pd.DataFrame:
    """Read a ledger.

    Raises:
        StoreDamaged: If the data is not a ledger that this release can read.
    """
    return parquet.read(data, LEDGER, FORMAT)


def _columns(legs: pa.Table) -> dict[str, pa.Array]:
    table = legs.select(LEGS.names).unify_dictionaries()
    columns = {}
    for field in LEGS:
        column = whole(table[field.name])
        if column.null_count and not field.nullable:
            raise InvalidResponse(
                f"{column.null_count} of {len(column)} legs have no {field.name}: every leg must have one"
            )
        columns[field.name] = column if pa.types.is_dictionary(column.type) else column.cast(field.type)
    return columns


def _check_one_balance(columns: dict[str, pa.Array], order: Int64, starts: Int64) -> None:
    balance = to_words(columns["balance"]).take(order)
    differs = unequal(Words(balance.low[1:], balance.high[1:]), Words(balance.low[:-1], balance.high[:-1]))
    # A difference is one between groups, and therefore none, where a group starts.
    differs[starts[1:] - 1] = False
    if differs.any():
        position = int(np.flatnonzero(differs)[0])
        values = " and ".join(f"{from_units(balance.units(place)):f}" for place in (position, position + 1))
        sn, asset = (columns[name][int(order[position])].as_py() for name in ("sn", "asset"))
        raise InvalidResponse(f"sn {sn}: the legs of {asset} give different balances after the record: {values}")


def _check_one_record(columns: dict[str, pa.Array], sn: Int64, order: Int64) -> None:
    sorted_sn = sn[order]
    same = sorted_sn[1:] == sorted_sn[:-1]
    checks: dict[str, Any] = {"at": int64(columns["at"]), "kind": codes(columns["kind"])[0]}
    for name, values in checks.items():
        ordered = values[order]
        differs = same & (ordered[1:] != ordered[:-1])
        if differs.any():
            position = int(np.flatnonzero(differs)[0])
            pair = " and ".join(str(columns[name][int(order[place])].as_py()) for place in (position, position + 1))
            raise InvalidResponse(f"sn {sorted_sn[position]}: two records have this sequence number ({name} {pair})")
