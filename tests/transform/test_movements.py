"""What moved on a day: exact, and nothing left over but the drift."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from balance_bridge.money import EXACT
from balance_bridge.transform import parquet
from balance_bridge.transform.movements import COLUMNS, movements
from balance_bridge.transform.schema import LEDGER

ASSETS = ("BTC", "ETH", "USDT")
# Whole units of the last decimal place, so that Python's integers are the oracle.
UNITS = st.integers(-(10**30), 10**30)
RECORDS = st.lists(st.tuples(st.sampled_from(ASSETS), UNITS, UNITS), max_size=8)
BALANCES = st.dictionaries(st.sampled_from(ASSETS), UNITS)


def amount(units: int) -> Decimal:
    return EXACT.scaleb(Decimal(units), -18)


def ledger(records: list[tuple[str, int, int]]) -> Any:
    rows = [
        {
            **{"sn": sn, "at": sn, "kind": "order", "event": "x", "order_id": "o", "asset": asset},
            **{"delta": amount(moved + fee), "fee": amount(fee), "balance": Decimal(0)},
        }
        for sn, (asset, moved, fee) in enumerate(records)
    ]
    return parquet.to_frame(pa.Table.from_pylist(rows, schema=LEDGER))


@given(RECORDS, BALANCES, BALANCES)
def test_each_column_is_the_exact_sum_and_the_drift_is_what_is_left(
    records: list[tuple[str, int, int]], opening: Mapping[str, int], closing: Mapping[str, int]
) -> None:
    found = movements(
        {asset: amount(units) for asset, units in opening.items()},
        {asset: amount(units) for asset, units in closing.items()},
        ledger(records),
    )
    held = {asset for each in (opening, closing) for asset, units in each.items() if units}
    assert list(found.index) == sorted(held | {asset for asset, _, _ in records})
    assert list(found.columns) == list(COLUMNS)
    for asset, row in found.iterrows():
        own = [(moved, fee) for each, moved, fee in records if each == asset]
        first, last = opening.get(str(asset), 0), closing.get(str(asset), 0)
        received, given_away = sum(moved for moved, _ in own if moved > 0), sum(moved for moved, _ in own if moved < 0)
        fees = sum(fee for _, fee in own)
        drift = last - first - received - given_away - fees
        expected = [amount(units) for units in (first, received, given_away, fees, last, drift)]
        assert [Decimal(value) for value in row] == expected
