from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pandas as pd
import pyarrow as pa

from balance_bridge.load.destination import Balance, balances_from_table
from balance_bridge.transform.balances import from_parquet, to_parquet
from balance_bridge.transform.schema import BALANCES

AT = datetime(2026, 11, 21, 0, 0, 0, 5000, tzinfo=UTC)
AT_MS = 1_795_219_200_005


def test_the_stores_balances_are_read_with_every_digit_and_millisecond():
    rows = [
        {"asset": "BTC", "at": AT, "balance": Decimal("0.000000000000000001"), "points": "close"},
        {"asset": "NO", "at": AT, "balance": Decimal(-5), "points": "close,changes"},
    ]
    frame = pa.Table.from_pylist(rows, schema=BALANCES).to_pandas(types_mapper=pd.ArrowDtype)
    assert balances_from_table(from_parquet(to_parquet(frame)), [None, Decimal("3.10")]) == [
        Balance("BTC", AT_MS, Decimal("1E-18"), "close"),
        Balance("NO", AT_MS, Decimal(-5), "close,changes", Decimal("3.10")),
    ]
