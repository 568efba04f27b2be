from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from pydantic import ValidationError

from balance_bridge.accounts import (
    Account,
    AccountsFile,
    AmlyzeDestination,
    AscendexSource,
    ElvenAsset,
    ElvenDestination,
    FilesSource,
    load_accounts,
)

Load = Callable[[str], AccountsFile]
Base = Callable[..., str]
ROOT = Path(__file__).parents[2]

DOCUMENTED = """\
accounts:
  main_cash:
    source: {type: ascendex, conn_id: ascendex_default, category: cash}
    start_date: 2026-11-01
    destinations:
      elven:
        conn_id: elven_default
        entity_account_id: w597WQZ5SzfKegoGB8qF1XRA2D39dr0U
        source_id: IH1ty3XJlOuHWDEAsQrTn0xkJ4hS319L
        timezone: Asia/Shanghai
        points: [close]
        assets: {BTMX-S: {symbol: BTMX}, BTC: {asset_id: BTC}, SPAM: ignore}
      amlyze:
        conn_id: amlyze_default
        requester: treasury
        account_ext_id: "ASCENDEX-CASH-{asset}"
        business_unit: sandbox
        points: [close]
"""


def test_documented_example_is_read_with_its_values_and_defaults(load: Load) -> None:
    loaded = load(DOCUMENTED)

    assert loaded.broken == {}
    assert loaded.accounts == {
        "main_cash": Account(
            name="main_cash",
            source=AscendexSource(type="ascendex", conn_id="ascendex_default", category="cash", retention_days=7),
            start_date=date(2026, 11, 1),
            on_break="hold",
            tolerance={},
            deferrable=None,
            intraday=None,
            destinations={
                "elven": ElvenDestination(
                    name="elven",
                    conn_id="elven_default",
                    entity_account_id="w597WQZ5SzfKegoGB8qF1XRA2D39dr0U",
                    source_id="IH1ty3XJlOuHWDEAsQrTn0xkJ4hS319L",
                    timezone="Asia/Shanghai",
                    points=("close",),
                    assets={"BTMX-S": ElvenAsset(symbol="BTMX"), "BTC": ElvenAsset(asset_id="BTC"), "SPAM": "ignore"},
                    max_rows=1000,
                    max_bytes=100_000,
                ),
                "amlyze": AmlyzeDestination(
                    name="amlyze",
                    conn_id="amlyze_default",
                    requester="treasury",
                    account_ext_id="ASCENDEX-CASH-{asset}",
                    business_unit="sandbox",
                    balance_type=None,
                    points=("close",),
                    timezone="UTC",
                    assets={},
                    max_rows=100,
                ),
            },
        )
    }


def test_example_file_has_no_broken_account() -> None:
    loaded = load_accounts(ROOT / "include" / "accounts.example.yaml")

    assert loaded.broken == {}
    assert list(loaded.accounts) == ["main_cash", "main_margin"]
    margin = loaded.accounts["main_margin"]
    assert margin.destinations["elven"].points == ("close", "every 6h")
    assert (margin.deferrable, margin.intraday) == (True, "15min")


def test_what_the_example_file_has_as_a_comment_is_right_as_well(load: Load) -> None:
    text = (ROOT / "include" / "accounts.example.yaml").read_text(encoding="utf-8")
    before, account, after = text.partition("  # custody:\n")
    loaded = load(before + account.replace("# ", "") + re.sub(r"(?m)^  # ", "  ", after))

    assert loaded.broken == {}
    assert loaded.accounts["custody"].source == FilesSource(
        path="s3://aws_default@example-bucket/statements", retention_days=90
    )


@pytest.mark.parametrize(
    "asset", ["NO", "1INCH", "1e5", "007", "null", "~", "0x10", "yes", "1_000", "12:30:45", "2026-11-01", ".inf", "="]
)
def test_assets_are_the_text_that_stands_in_the_file(load: Load, base: Base, asset: str) -> None:
    ids = f"        account_ext_id: {{{asset}: {asset}}}"
    account = load(base({7: f"    start_date: 2026-11-01\n    tolerance: {{{asset}: 1}}", 17: ids})).accounts[
        "main_cash"
    ]

    assert account.destinations["amlyze"].account_ext_id == {asset: asset}
    assert account.tolerance == {asset: Decimal(1)}


@pytest.mark.parametrize("name", ["no", "null", "on", "y", "a" * 100])
def test_account_names_are_text_too(load: Load, base: Base, name: str) -> None:
    assert name in load(base({2: f"  {name}:"})).accounts


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ("[{every: 1h}]", ("every 1h",)),
        ("[open, close, changes, local_midnight]", ("open", "close", "changes", "local_midnight")),
        ("[{every: 15min}, {every: 30s}]", ("every 15min", "every 30s")),
        ("[{every: 24h}]", ("every 24h",)),
    ],
)
def test_points_keep_their_order_and_their_text(load: Load, base: Base, points: str, expected: tuple[str, ...]) -> None:
    account = load(base({13: f"        timezone: Asia/Shanghai\n        points: {points}"})).accounts["main_cash"]

    assert account.destinations["elven"].points == expected


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("0.000000000000000001", Decimal("1E-18")),
        ("0", Decimal(0)),
        ("-0", Decimal(0)),
        ("1e-9", Decimal("1E-9")),
        ("12345678901234567890.123456789012345678", Decimal("12345678901234567890.123456789012345678")),
    ],
)
def test_tolerance_is_exact(load: Load, base: Base, text: str, amount: Decimal) -> None:
    account = load(base({7: f"    start_date: 2026-11-01\n    tolerance: {{BTC: {text}}}"})).accounts["main_cash"]

    assert account.tolerance == {"BTC": amount}


def test_names_of_ones_own_allow_two_destinations_of_a_type(load: Load, base: Base) -> None:
    second = '      second: {type: amlyze, conn_id: amlyze_2, requester: us, account_ext_id: "CASH-{asset}"}'
    third = "      amlyze_3: {type: elven, conn_id: e, entity_account_id: a, source_id: b, timezone: UTC}"
    destinations = load(base({8: f"    destinations:\n{second}\n{third}"})).accounts["main_cash"].destinations

    assert {name: (target.name, target.type) for name, target in destinations.items()} == {
        "second": ("second", "amlyze"),
        "amlyze_3": ("amlyze_3", "elven"),
        "elven": ("elven", "elven"),
        "amlyze": ("amlyze", "amlyze"),
    }


def test_numbers_of_destinations_reach_to_their_bounds(load: Load, base: Base) -> None:
    destinations = (
        load(
            base(
                {
                    6: "      category: cash\n      retention_days: 365",
                    13: "        timezone: UTC\n        max_rows: 1\n        max_bytes: 10000000",
                    16: "        requester: treasury\n        max_rows: 10000",
                }
            )
        )
        .accounts["main_cash"]
        .destinations
    )

    assert isinstance(destinations["elven"], ElvenDestination)
    assert (destinations["elven"].max_rows, destinations["elven"].max_bytes) == (1, 10_000_000)
    assert destinations["amlyze"].max_rows == 10_000


def test_aliases_of_whole_values_and_standard_tags_are_understood(load: Load, base: Base) -> None:
    source = "    source: &s {type: !!str ascendex, conn_id: ascendex_other, category: margin}"
    text = base({19: source}) + (
        '  third: {source: *s, start_date: 2026-11-01, destinations: {amlyze: {conn_id: a, requester: "<<", '
        'account_ext_id: {"<<": "<<"}}}}\n'
    )
    loaded = load(text)

    assert loaded.broken == {}
    assert loaded.accounts["third"].source == loaded.accounts["other"].source
    assert loaded.accounts["third"].destinations["amlyze"].account_ext_id == {"<<": "<<"}


def test_byte_order_mark_and_windows_line_ends_do_no_harm(file: Path, base: Base) -> None:
    file.write_bytes(b"\xef\xbb\xbf" + base().replace("\n", "\r\n").encode())

    assert list(load_accounts(file).accounts) == ["main_cash", "other"]


def test_accounts_come_in_the_order_of_the_file(load: Load, base: Base) -> None:
    assert list(load(base({2: "  zzz:"})).accounts) == ["zzz", "other"]


def test_an_account_cannot_be_changed(load: Load, base: Base) -> None:
    account = load(base()).accounts["main_cash"]

    with pytest.raises(ValidationError, match="frozen"):
        account.on_break = "load"


def test_models_refuse_floats() -> None:
    source = AscendexSource(type="ascendex", conn_id="a", category="cash")
    target = AmlyzeDestination(name="amlyze", conn_id="a", requester="r", account_ext_id="{asset}")

    with pytest.raises(ValidationError, match="is not an amount"):
        Account(
            name="a",
            source=source,
            start_date=date(2026, 11, 1),
            tolerance={"BTC": 0.1},
            destinations={"amlyze": target},
        )


def test_importing_the_accounts_file_brings_in_nothing_heavy() -> None:
    heavy = "{'pandas', 'numpy', 'pyarrow', 'requests', 'pendulum', 'airflow'}"
    code = f"import sys, balance_bridge.accounts; sys.exit(', '.join({heavy} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert found.stderr.strip() == ""


def test_a_hundred_accounts_are_read_fast_enough_for_dag_parsing(load: Load, base: Base) -> None:
    block = base().split("  other:")[0].split("\n", 1)[1]
    text = "accounts:\n" + "".join(
        block.replace("main_cash", f"account_{number}")
        .replace("source1", f"source{number}")
        .replace("CASH-", f"CASH-{number:03}-")
        for number in range(100)
    )
    assert len(load(text).accounts) == 100
    durations_s = []
    for _ in range(10):
        start = time.perf_counter()
        load(text)
        durations_s.append(time.perf_counter() - start)

    # 30 ms where it was measured; the bound leaves room for a busy machine, the best of ten for its hiccups.
    assert min(durations_s) < 0.06
