from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balance_bridge.errors import InvalidResponse
from balance_bridge.transform.prices import PRICE, equivalent_values, read_prices
from balance_bridge.transform.schema import BALANCES

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
EXACT = Context(prec=200)


def frame(*rows: tuple[str, datetime, str]) -> pd.DataFrame:
    made = [{"asset": asset, "at": at, "balance": Decimal(amount), "points": "close"} for asset, at, amount in rows]
    found: pd.DataFrame = pa.Table.from_pylist(made, schema=BALANCES).to_pandas(types_mapper=pd.ArrowDtype)
    return found


def csv(*rows: str) -> bytes:
    return "\n".join(["asset,at,price", *rows, ""]).encode()


def worth(balances: pd.DataFrame, prices: bytes, **options: Any) -> list[Decimal | None]:
    given = {"max_age_s": 86_400, "digits": 2} | options
    found = equivalent_values(balances, read_prices(prices, "prices.csv"), **given)
    return pa.array(found).to_pylist()


def test_the_last_price_at_or_before_the_instant_counts() -> None:
    prices = csv("BTC,2026-11-20T11:00:00Z,100.5", "BTC,2026-11-20T12:00:00Z,200", "BTC,2026-11-20T12:00:00.001Z,300")
    balances = frame(("BTC", NOON, "2"), ("BTC", NOON - timedelta(milliseconds=1), "2"))
    assert worth(balances, prices) == [Decimal("400.00"), Decimal("201.00")]


def test_no_price_or_none_that_is_fresh_is_none_and_never_a_guess() -> None:
    prices = csv("BTC,2026-11-20T11:00:00Z,100", "ETH,2026-11-20T12:00:01Z,1")
    balances = frame(("BTC", NOON, "2"), ("ETH", NOON, "2"), ("XRP", NOON, "1"))
    assert worth(balances, prices, max_age_s=3600) == [Decimal("200.00"), None, None]
    assert worth(balances, prices, max_age_s=3599) == [None, None, None]


@pytest.mark.parametrize(
    ("amount", "digits", "expected"),
    [("0.125", 2, "0.12"), ("0.135", 2, "0.14"), ("-0.125", 2, "-0.12"), ("2.5", 0, "2"), ("3.5", 0, "4")],
)
def test_halves_are_rounded_to_even(amount: str, digits: int, expected: str) -> None:
    (found,) = worth(frame(("BTC", NOON, amount)), csv("BTC,2026-11-20T12:00:00Z,1"), digits=digits)
    assert found == Decimal(expected)


AMOUNTS = st.integers(-(10**38) + 1, 10**38 - 1).map(lambda units: EXACT.scaleb(Decimal(units), -18))
PRICES = st.integers(0, 10**37 - 1).map(lambda units: EXACT.scaleb(Decimal(units), -18))


@settings(max_examples=150, deadline=None)
@given(AMOUNTS, PRICES, st.integers(0, 18))
def test_the_product_is_exact_before_it_is_rounded(amount: Decimal, price: Decimal, digits: int) -> None:
    (found,) = worth(
        frame(("BTC", NOON, format(amount, "f"))), csv(f"BTC,2026-11-20T12:00:00Z,{price:f}"), digits=digits
    )
    product = EXACT.multiply(amount, price)
    assert found == product.quantize(Decimal(1).scaleb(-digits), rounding=ROUND_HALF_EVEN, context=EXACT)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_join_is_what_a_loop_would_find(data: st.DataObject) -> None:
    minutes = st.integers(0, 300)
    assets = st.sampled_from(["A", "B", "C"])
    known = data.draw(st.dictionaries(st.tuples(assets, minutes), st.integers(1, 999), max_size=20))
    asked = data.draw(st.lists(st.tuples(assets, minutes, st.integers(-99, 99)), max_size=20))
    age = data.draw(st.integers(0, 120))
    rows = [f"{asset},{(NOON + timedelta(minutes=at)).isoformat()},{price}" for (asset, at), price in known.items()]
    balances = frame(*((asset, NOON + timedelta(minutes=at), str(amount)) for asset, at, amount in asked))
    expected = []
    for asset, at, amount in asked:
        fresh = [(when, price) for (name, when), price in known.items() if name == asset and at - age <= when <= at]
        expected.append(Decimal(max(fresh)[1] * amount) if fresh else None)
    assert worth(balances, csv(*rows), max_age_s=age * 60) == expected


def test_parquet_is_read_as_well() -> None:
    table = pa.table(
        {
            "asset": ["BTC"],
            "at": pa.array([NOON], pa.timestamp("us", "Europe/Vilnius")),
            "price": pa.array([Decimal("1.5")], pa.decimal128(10, 2)),
        }
    )
    file = io.BytesIO()
    pq.write_table(table, file)
    prices = read_prices(file.getvalue(), "prices.parquet")
    assert prices["price"].dtype == pd.ArrowDtype(PRICE)
    assert prices["at"].iloc[0] == NOON


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"asset,at\nBTC,2026-11-20T12:00:00Z\n", "lacks the column price"),
        (csv("BTC,2026-11-20T12:00:00Z,1e3"), "row 2: price = '1e3'; a plain decimal number is expected"),
        (csv("BTC,2026-11-20T12:00:00Z,NaN"), "price = 'NaN'"),
        (csv("BTC,2026-11-20T12:00:00Z,-1"), "price = '-1'"),
        (csv("BTC,2026-11-20T12:00:00Z,1", "BTC,2026-11-20T12:00:00,1"), "row 3: at = '2026-11-20T12:00:00'"),
        (csv("BTC,2026-11-20T12:00:00Z,1", "BTC,2026-11-20T13:00:00+01:00,2"), "BTC at .* is there twice"),
        (b"\xff\xfe", "is no price table"),
        (b"", "is no price table|lacks the column"),
    ],
)
def test_a_table_that_is_none_is_refused_by_row_and_value(data: bytes, told: str) -> None:
    with pytest.raises(InvalidResponse, match=told):
        read_prices(data, "prices.csv")


def test_floats_are_refused() -> None:
    file = io.BytesIO()
    pq.write_table(
        pa.table({"asset": ["BTC"], "at": pa.array([NOON], pa.timestamp("ms", "UTC")), "price": [1.5]}), file
    )
    with pytest.raises(InvalidResponse, match="the column price is double, which is not exact"):
        read_prices(file.getvalue(), "prices.parquet")
