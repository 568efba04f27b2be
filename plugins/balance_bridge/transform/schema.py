"""The columns of what the transformation takes and gives.

Amounts are ``decimal128(38, 18)``, instants UTC milliseconds. Text columns of ``LEGS`` may also come
dictionary-encoded.
"""

from __future__ import annotations

import pyarrow as pa

AMOUNT = pa.decimal128(38, 18)
INSTANT = pa.timestamp("ms", tz="UTC")

# One row per leg of a record, free of repeated records and cut to (opening sn, closing sn], in any order. ``balance``
# is the one after the whole record and is repeated on each leg of the same asset.
LEGS = pa.schema(
    [
        pa.field("sn", pa.int64(), nullable=False),
        pa.field("at", INSTANT, nullable=False),
        pa.field("kind", pa.string(), nullable=False),  # "order" or "balance": the list in which the record came
        pa.field("event", pa.string()),
        pa.field("order_id", pa.string()),  # null for records of the balance list
        pa.field("asset", pa.string(), nullable=False),
        pa.field("fee", pa.bool_(), nullable=False),  # True for a fee leg
        pa.field("delta", AMOUNT, nullable=False),
        pa.field("balance", AMOUNT, nullable=False),
    ]
)

# One row per (sn, asset), sorted so. ``delta`` is the sum of all legs, ``fee`` that of the fee legs among them.
LEDGER = pa.schema(
    [
        pa.field("sn", pa.int64(), nullable=False),
        pa.field("at", INSTANT, nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("event", pa.string()),
        pa.field("order_id", pa.string()),
        pa.field("asset", pa.string(), nullable=False),
        pa.field("delta", AMOUNT, nullable=False),
        pa.field("fee", AMOUNT, nullable=False),
        pa.field("balance", AMOUNT, nullable=False),
    ]
)

# What one destination is to get, one row per key, sorted by (at, asset). ``points`` are the points that asked for the
# instant, joined by commas in the order in which they were asked for.
BALANCES = pa.schema(
    [
        pa.field("asset", pa.string(), nullable=False),
        pa.field("at", INSTANT, nullable=False),
        pa.field("balance", AMOUNT, nullable=False),
        pa.field("points", pa.string(), nullable=False),
    ]
)
