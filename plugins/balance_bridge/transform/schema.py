"""The columns of what the transformation takes and gives.

Amounts are ``decimal128(38, 18)``, instants UTC milliseconds. Text columns of ``LEGS`` may also come
dictionary-encoded.
"""

from __future__ import annotations

import pyarrow as pa

AMOUNT = pa.decimal128(38, 18)
INSTANT = pa.timestamp("ms", tz="UTC")


def _required(name: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, kind, nullable=False)


_RECORD = [
    _required("sn", pa.int64()),
    _required("at", INSTANT),
    _required("kind", pa.string()),  # "order" or "balance": the list in which the record came
    pa.field("event", pa.string()),
    pa.field("order_id", pa.string()),  # null for records of the balance list
    _required("asset", pa.string()),
]

# One row per leg of a record, free of repeated records and cut to (opening sn, closing sn], in any order. ``fee`` tells
# a fee leg. ``balance`` is the one after the whole record and is repeated on each leg of the same asset.
LEGS = pa.schema(
    [*_RECORD, _required("fee", pa.bool_()), _required("delta", AMOUNT), _required("balance", AMOUNT)],
)

# One row per (sn, asset), sorted so. ``delta`` is the sum of all legs, ``fee`` that of the fee legs among them.
LEDGER = pa.schema(
    [*_RECORD, _required("delta", AMOUNT), _required("fee", AMOUNT), _required("balance", AMOUNT)],
)

# What one destination is to get, one row per key, sorted by (at, asset). ``points`` are the points that asked for the
# instant, joined by commas in the order in which they were asked for.
BALANCES = pa.schema(
    [
        _required("asset", pa.string()),
        _required("at", INSTANT),
        _required("balance", AMOUNT),
        _required("points", pa.string()),
    ]
)
