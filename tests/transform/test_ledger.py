from __future__ import annotations

from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balance_bridge import money
from balance_bridge.errors import InvalidAmount, InvalidResponse
from balance_bridge.transform.ledger import build_ledger
from balance_bridge.transform.schema import LEDGER, LEGS


def rows_of(history: Any) -> list[dict[str, Any]]:
    """The ledger, record by record."""
    rows = []
    for record in history.records:
        for asset in sorted(record.after):
            legs = [leg for leg in record.legs if leg.asset == asset]
            rows.append(
                {
                    "sn": record.sn,
                    "at_ms": record.at,
                    "kind": record.kind,
                    "event": "Limit" if record.kind == "order" else "Deposit",
                    "order_id": f"id{record.sn}" if record.kind == "order" else None,
                    "asset": asset,
                    "delta": sum(leg.units for leg in legs),
                    "fee": sum(leg.units for leg in legs if leg.fee),
                    "balance": record.after[asset],
                }
            )
    return rows


@given(st.data(), st.integers(0, 9), st.booleans())
@settings(max_examples=50, deadline=None)
def test_the_ledger_is_what_plain_sums_give_whatever_the_order_of_legs(
    world: SimpleNamespace, data: st.DataObject, seed: int, dictionary: bool
) -> None:
    history = data.draw(world.histories())
    frame = build_ledger(history.legs(seed, dictionary=dictionary))
    assert found_rows(frame) == rows_of(history)


def found_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    rows = pa.Table.from_pandas(frame, preserve_index=False).to_pylist()
    at = pa.Table.from_pandas(frame, preserve_index=False)["at"].cast(pa.int64()).to_pylist()
    for row, at_ms in zip(rows, at, strict=True):
        row.pop("at")
        row["at_ms"] = at_ms
        for name in ("delta", "fee", "balance"):
            row[name] = units(row[name])
    return rows


def in_units(units: int) -> Decimal:
    return Decimal(units).scaleb(-18, money.EXACT)


def units(amount: Decimal) -> int:
    sign, digits, exponent = amount.as_tuple()
    assert isinstance(exponent, int)
    return (-1) ** sign * int("".join(map(str, digits))) * 10 ** (exponent + 18)


@given(st.data())
@settings(max_examples=20, deadline=None)
def test_every_column_is_arrows_and_none_is_a_float(world: SimpleNamespace, data: st.DataObject) -> None:
    frame = build_ledger(data.draw(world.histories()).legs())
    assert list(frame.columns) == LEDGER.names
    assert [dtype.pyarrow_dtype for dtype in frame.dtypes] == LEDGER.types
    assert not any(pa.types.is_floating(dtype.pyarrow_dtype) for dtype in frame.dtypes)


def legs(*rows: tuple[int, str, str, str], **columns: list[Any]) -> pa.Table:
    """Legs of (sn, asset, delta, balance), with other columns as given."""
    count = len(rows)
    values: dict[str, list[Any]] = {
        "sn": [row[0] for row in rows],
        "at": [row[0] * 1000 for row in rows],
        "kind": ["order"] * count,
        "event": ["Limit"] * count,
        "order_id": ["x"] * count,
        "asset": [row[1] for row in rows],
        "fee": [False] * count,
        "delta": [None if row[2] == "" else Decimal(row[2]) for row in rows],
        "balance": [Decimal(row[3]) for row in rows],
    } | columns
    return pa.table({name: pa.array(values[name], LEGS.field(name).type) for name in LEGS.names})


def test_trade_and_fee_leg_of_one_asset_become_one_row() -> None:
    table = legs(
        (7, "BTC", "0.0001", "0.0301"),
        (7, "USDT", "-5.4175", "-1628.51466633"),
        (7, "USDT", "-0.00270875", "-1628.51466633"),
        fee=[False, False, True],
    )
    frame = build_ledger(table)
    assert frame["asset"].tolist() == ["BTC", "USDT"]
    assert frame["delta"].tolist() == [Decimal("0.0001"), Decimal("-5.42020875")]
    assert frame["fee"].tolist() == [Decimal(0), Decimal("-0.00270875")]
    assert frame["balance"].tolist() == [Decimal("0.0301"), Decimal("-1628.51466633")]


def test_no_legs_make_an_empty_ledger_of_the_same_columns() -> None:
    frame = build_ledger(LEGS.empty_table())
    assert len(frame) == 0
    assert [dtype.pyarrow_dtype for dtype in frame.dtypes] == LEDGER.types


def test_a_ledger_made_of_chunks_is_that_of_the_whole() -> None:
    table = legs((3, "B", "1", "1"), (1, "A", "1", "1"), (2, "A", "1", "2"))
    chunked = pa.concat_tables(
        [
            part.set_column(5, "asset", part["asset"].dictionary_encode()).set_column(
                2, "kind", part["kind"].dictionary_encode()
            )
            for part in (table.slice(0, 1), table.slice(1, 2))
        ]
    )
    pd.testing.assert_frame_equal(build_ledger(chunked), build_ledger(table))


def test_different_balances_of_one_record_and_asset_are_refused_by_name() -> None:
    with pytest.raises(
        InvalidResponse, match=r"sn 7: the legs of USDT give different balances after the record: 4 and 5\.5"
    ):
        build_ledger(legs((6, "USDT", "1", "3"), (7, "USDT", "1", "4"), (7, "BTC", "1", "4"), (7, "USDT", "2", "5.5")))


def test_two_records_under_one_sequence_number_are_refused() -> None:
    with pytest.raises(
        InvalidResponse, match=r"sn 7: two records have this sequence number \(kind order and balance\)"
    ):
        build_ledger(legs((7, "A", "1", "1"), (7, "B", "1", "1"), kind=["order", "balance"]))
    with pytest.raises(InvalidResponse, match=r"sn 7: two records have this sequence number \(at "):
        build_ledger(legs((7, "A", "1", "1"), (7, "B", "1", "1"), at=[1, 2]))


def test_a_leg_without_an_amount_is_refused() -> None:
    with pytest.raises(InvalidResponse, match="1 of 2 legs have no delta"):
        build_ledger(legs((1, "A", "1", "1"), (2, "A", "", "1")))


LARGEST = 10**38 - 1
UNITS = st.integers(-LARGEST, LARGEST) | st.integers(-9, 9) | st.sampled_from([LARGEST, -LARGEST, 2**64, -(2**126)])


@given(st.lists(st.lists(st.tuples(UNITS, st.booleans()), min_size=1, max_size=5), min_size=1, max_size=5))
@settings(max_examples=60, deadline=None)
def test_sums_over_all_38_digits_are_exact_or_refused(records: list[list[tuple[int, bool]]]) -> None:
    rows = [(sn, "A", str(in_units(unit)), "0") for sn, made in enumerate(records) for unit, _ in made]
    table = legs(*rows, fee=[fee for made in records for _, fee in made])
    sums = [sum(unit for unit, _ in made) for made in records]
    fees = [sum(unit for unit, fee in made if fee) for made in records]
    if max(map(abs, sums + fees)) > LARGEST:
        with pytest.raises(InvalidAmount, match=r"sn [0-9]+, A: the sum of the legs is too large"):
            build_ledger(table)
    else:
        frame = build_ledger(table)
        assert [[units(amount) for amount in frame[name]] for name in ("delta", "fee")] == [sums, fees]


@pytest.mark.parametrize("count", [2, 4, 5000])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_sum_that_cannot_be_held_is_refused_and_never_wraps(count: int, sign: int) -> None:
    largest = str(sign * Decimal("99999999999999999999"))
    table = legs((6, "USDT", "1", "1"), *[(7, "USDT", largest, "0")] * count)
    with pytest.raises(InvalidAmount, match=rf"sn 7, USDT: the sum of the legs is too large: {count * int(largest)}\."):
        build_ledger(table)


def test_large_legs_that_cancel_are_summed_exactly() -> None:
    largest = "99999999999999999999.999999999999999999"
    table = legs((7, "X", largest, "1"), (7, "X", largest, "1"), (7, "X", "-" + largest, "1"), (7, "X", "1E-18", "1"))
    with pytest.raises(InvalidAmount):
        build_ledger(table)
    assert build_ledger(table.slice(1))["delta"].tolist() == [Decimal("1E-18")]
