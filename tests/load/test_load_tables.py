from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pandas as pd
import pyarrow as pa
import pytest

from balance_bridge.errors import StoreDamaged
from balance_bridge.load.destination import Balance, balances_from_table

AMOUNT = pa.decimal128(38, 18)
AT = datetime(2026, 11, 21, 0, 0, 0, 5000, tzinfo=UTC)
AT_MS = 1_795_219_200_005


def table(**columns) -> pa.Table:
    given = {
        "asset": pa.array(["BTC", "NO"]),
        "at": pa.array([AT, AT], pa.timestamp("ms", tz="UTC")),
        "balance": pa.array([Decimal("0.000000000000000001"), Decimal("-5")], AMOUNT),
        "points": pa.array(["close", "close,changes"]),
    }
    return pa.table({name: column for name, column in (given | columns).items() if column is not None})


EXPECTED = [
    Balance("BTC", AT_MS, Decimal("1E-18"), ("close",)),
    Balance("NO", AT_MS, Decimal(-5), ("close", "changes")),
]


def test_a_table_and_its_frame_give_the_same_exact_balances():
    lists = pa.array([["close"], ["close", "changes"]])
    coded = pa.array(["BTC", "NO"]).dictionary_encode()
    arrow = table().to_pandas(types_mapper=pd.ArrowDtype)
    for given in (table(), table(points=lists), table(asset=coded), arrow, table(points=lists).to_pandas()):
        assert balances_from_table(given) == EXPECTED


@pytest.mark.parametrize(
    ("columns", "part"),
    [
        ({"points": None}, "no column points"),
        ({"balance": pa.array([1.5, 2.5])}, "decimal is expected"),
        ({"balance": pa.array([Decimal(1), None], AMOUNT)}, "1 nulls in column balance"),
        ({"at": pa.array([1, 2])}, "timestamp with a time zone"),
        ({"at": pa.array([1, 2], pa.timestamp("ms"))}, "timestamp with a time zone"),
        ({"at": pa.array([1, 2], pa.timestamp("us", tz="UTC"))}, "millisecond"),
    ],
)
def test_a_table_of_another_shape_is_refused(columns, part):
    with pytest.raises(StoreDamaged, match=part):
        balances_from_table(table(**columns))
