from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from balance_bridge.accounts import AmlyzeDestination, ElvenDestination
from balance_bridge.errors import ConfigurationError
from balance_bridge.hooks.prices import due_balances
from balance_bridge.store import Store
from balance_bridge.transform import balances
from balance_bridge.transform.schema import BALANCES

AT = datetime(2026, 11, 21, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    rows = [
        {"asset": asset, "at": AT, "balance": Decimal(amount), "points": "close"}
        for asset, amount in (("BTC", "2"), ("ETH", "3"), ("BIG", "99999999999999999999"))
    ]
    frame = pa.Table.from_pylist(rows, schema=BALANCES).to_pandas(types_mapper=__import__("pandas").ArrowDtype)
    made = Store(tmp_path / "store")
    made.put("balances/a/x.parquet", balances.to_parquet(frame))
    return made


def amlyze(**options: Any) -> AmlyzeDestination:
    given = {"name": "amlyze", "conn_id": "c", "requester": "r", "account_ext_id": "{asset}"}
    return AmlyzeDestination.model_validate(given | options)


def test_without_a_price_table_nothing_is_worth_anything(store: Store) -> None:
    due, without = due_balances(store, "balances/a/x.parquet", amlyze(), print)
    assert ({balance.equivalent for balance in due}, without) == ({None}, None)
    elven = ElvenDestination(name="e", conn_id="c", entity_account_id="E", source_id="S", timezone="UTC")
    assert due_balances(store, "balances/a/x.parquet", elven, print)[1] is None


@pytest.mark.parametrize("url", [False, True])
def test_balances_go_with_what_they_are_worth_and_those_without_are_counted_and_named(
    store: Store, tmp_path: Path, url: bool
) -> None:
    file = tmp_path / "prices.csv"
    file.write_text("asset,at,price\nBTC,2026-11-20T23:00:00Z,100.125\nBIG,2026-11-20T23:00:00Z,9\n")
    place = f"file://{file}" if url else str(file)
    told: list[str] = []
    config = amlyze(equivalent={"prices": place, "max_age": "24h", "digits": 2})
    due, without = due_balances(store, "balances/a/x.parquet", config, told.append)
    assert {balance.asset: balance.equivalent for balance in due} == {
        "BTC": Decimal("200.25"),
        "ETH": None,
        # Larger than any amount can be.
        "BIG": None,
    }
    assert without == 2
    assert "2 of 3 balances are sent without an equivalent value" in told[0]
    assert told[0].endswith("BIG, ETH")


def test_a_missing_price_table_is_reported_with_what_to_do(store: Store, tmp_path: Path) -> None:
    config = amlyze(equivalent={"prices": str(tmp_path / "none.csv")})
    with pytest.raises(ConfigurationError, match=r"none.csv cannot be read.*equivalent.prices in the accounts file"):
        due_balances(store, "balances/a/x.parquet", config, print)
