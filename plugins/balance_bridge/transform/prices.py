"""What balances are worth: a table of prices, and the last price at or before each balance's instant.

A price table is CSV or Parquet with the columns ``asset, at, price``: the price of one unit in the currency that the
destination counts in, and the instant (RFC 3339 with a zone, or a timestamp with one) from which it holds.
"""

from __future__ import annotations

import re

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from balance_bridge.errors import InvalidResponse
from balance_bridge.transform.schema import AMOUNT, INSTANT

# One digit less than an amount has, so that every product fits into 76 digits.
PRICE = pa.decimal128(37, 18)
_COLUMNS = ("asset", "at", "price")
# Guessing types would make floats of prices.
_AS_TEXT = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(_COLUMNS, pa.string()))
_DIGITS = re.compile(r"[0-9]{1,19}(\.[0-9]{1,18})?", re.ASCII)
_RFC_3339 = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+(Z|[+-][0-9]{2}:[0-9]{2})", re.ASCII)


def read_prices(data: bytes, name: str) -> pd.DataFrame:
    """Read a price table.

    Args:
        data: The file's content.
        name: Its name; ``.parquet`` tells Parquet, anything else is CSV.

    Returns:
        Columns ``asset``, ``at`` (UTC) and ``price`` (``decimal128(37, 18)``), sorted by ``at``.

    Raises:
        InvalidResponse: If it is no such table, a price is no plain decimal number of at most 19 digits before and 18
            after the point, or one asset has two prices for an instant.
    """
    try:
        file = pa.BufferReader(data)
        if name.endswith(".parquet"):
            table = pq.read_table(file)
        else:
            table = pyarrow.csv.read_csv(file, convert_options=_AS_TEXT)
        missing = [column for column in _COLUMNS if column not in table.column_names]
        if missing:
            raise InvalidResponse(
                f"{name} lacks the column {', '.join(missing)}; it has {', '.join(table.column_names)}"
            )
        table = pa.table({column: _typed(table[column], column, name) for column in _COLUMNS})
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise InvalidResponse(f"{name} is no price table: {error}") from error
    frame: pd.DataFrame = table.sort_by([("at", "ascending"), ("asset", "ascending")]).to_pandas(
        types_mapper=pd.ArrowDtype
    )
    twice = frame[frame.duplicated(["asset", "at"])]
    if len(twice):
        asset, at = twice["asset"].iloc[0], twice["at"].iloc[0]
        raise InvalidResponse(f"{name} has {len(twice)} prices too many: {asset} at {at.isoformat()} is there twice")
    return frame


def equivalent_values(balances: pd.DataFrame, prices: pd.DataFrame, *, max_age_s: int, digits: int) -> pd.Series:
    """What each balance is worth.

    Args:
        balances: With the columns ``asset``, ``at`` and ``balance``, in any order.
        prices: As :func:`read_prices` gives it.
        max_age_s: Seconds that a price may be older than the balance's instant.
        digits: Decimals of the result, 0 to 18.

    Returns:
        Per row of ``balances``, by its index: the exact product rounded half to even, as ``decimal256``; null where
        there is no fresh price.
    """
    asked = balances[["asset", "at"]].assign(row=range(len(balances))).sort_values("at", kind="stable")
    joined = pd.merge_asof(asked, prices, on="at", by="asset", tolerance=pd.Timedelta(seconds=max_age_s))
    price = joined.sort_values("row")["price"].set_axis(balances.index)
    product = balances["balance"].astype(_wide(AMOUNT)) * price.astype(_wide(PRICE))
    worth = pc.round(pa.array(product), ndigits=digits, round_mode="half_to_even")
    return pd.Series(worth, index=balances.index, dtype=pd.ArrowDtype(worth.type))


def _typed(column: pa.ChunkedArray, name: str, file: str) -> pa.ChunkedArray:
    if column.null_count:
        raise InvalidResponse(f"{file}: {column.null_count} rows have no {name}")
    if name == "asset":
        return column.cast(pa.string())
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        pattern = _DIGITS if name == "price" else _RFC_3339
        values = column.to_pylist()
        wrong = next((row for row, value in enumerate(values, 2) if not pattern.fullmatch(value)), None)
        if wrong is not None:
            expected = "a plain decimal number" if name == "price" else "an instant such as 2026-11-20T00:00:00Z"
            raise InvalidResponse(f"{file}: row {wrong}: {name} = {values[wrong - 2]!r}; {expected} is expected")
        if name == "price":
            return column.cast(PRICE)
        return pc.cast(pa.chunked_array([pd.to_datetime(pd.Series(values), utc=True, format="ISO8601")]), INSTANT)
    if name == "at":
        if not pa.types.is_timestamp(column.type) or column.type.tz is None:
            raise InvalidResponse(f"{file}: the column at is {column.type}; a timestamp with a time zone is expected")
        return column.cast(INSTANT, safe=False)
    if pa.types.is_floating(column.type):
        raise InvalidResponse(
            f"{file}: the column price is {column.type}, which is not exact; decimal or text is expected"
        )
    return column.cast(PRICE)


def _wide(amount: pa.Decimal128Type) -> pd.ArrowDtype:
    return pd.ArrowDtype(pa.decimal256(amount.precision, amount.scale))
