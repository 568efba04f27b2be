from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from balance_bridge.accounts import (
    Account,
    AccountsFile,
    AmlyzeDestination,
    AscendexSource,
    ElvenAsset,
    ElvenDestination,
    FilesSource,
    WebhookDestination,
    load_accounts,
)
from balance_bridge.points import cron_of, parse_step_ms

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
            source=AscendexSource(
                type="ascendex",
                conn_id="ascendex_default",
                category="cash",
                retention_days=7,
                settle=timedelta(minutes=10),
            ),
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
    # A copy that nobody has edited asks the exchange for no day that it no longer serves.
    assert {account.start_date for account in loaded.accounts.values()} == {date(2030, 1, 1)}


def test_the_account_that_the_example_file_has_as_a_comment_is_right_as_well(load: Load) -> None:
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


def test_destinations_with_names_of_their_own_may_be_of_one_type(load: Load, base: Base) -> None:
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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", timedelta(0)),
        ("90s", timedelta(seconds=90)),
        ("10min", timedelta(minutes=10)),
        ("3h", timedelta(hours=3)),
    ],
)
def test_settle_is_a_length_of_time(load: Load, base: Base, text: str, expected: timedelta) -> None:
    exchange = load(base({6: f"      category: cash\n      settle: {text}"})).accounts["main_cash"].source
    files = load(base({4: "      type: files", 5: "      path: p", 6: f"      settle: {text}"})).accounts["main_cash"]

    assert exchange.settle == files.source.settle == expected


def test_an_exchange_settles_for_ten_minutes_and_files_do_not_unless_given(load: Load, base: Base) -> None:
    assert load(base()).accounts["main_cash"].source.settle == timedelta(minutes=10)
    assert FilesSource(path="p").settle == timedelta(0)


@pytest.mark.parametrize(
    "path",
    [
        *("/srv/statements", "../bank statements/2026", "~/statements", "s3://aws_default@bucket/statements"),
        *(
            "s3://bucket/a@b",
            "sftp://bank_conn@bank.example:22/in",
            "C:\\statements@bank",
            "größe/账单",
            "NO",
            "x" * 1000,
        ),
    ],
)
def test_path_of_files_is_kept_as_it_stands(load: Load, base: Base, path: str) -> None:
    loaded = load(base({4: "      type: files", 5: f"      path: {json.dumps(path)}", 6: "#"}))

    assert loaded.accounts["main_cash"].source == FilesSource(type="files", path=path, retention_days=None)


def test_only_what_counts_requests_has_a_pool(load: Load, base: Base) -> None:
    accounts = load(base({4: "      type: files", 5: "      path: p", 6: "#"})).accounts

    assert accounts["main_cash"].source.pool is None
    assert accounts["other"].source.pool == "ascendex_other"


def test_how_a_delivery_fails_is_as_the_file_says_or_by_default(load: Load, base: Base) -> None:
    given = """timezone: UTC
        max_rejected: 3
        on_unconfirmed: fail
        bisect_codes: [001, O001, '50', NO]
        timeout_s: "7\""""
    targets = load(base({13: f"        {given}"})).accounts["main_cash"].destinations

    def policy(name: str) -> tuple[object, ...]:
        target = targets[name]
        return (target.max_rejected, target.on_unconfirmed, target.bisect_codes, target.timeout_s)

    assert policy("elven") == (3, "fail", ("001", "O001", "50", "NO"), 7)
    assert policy("amlyze") == (0, "warn", None, 30)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{prices: prices.csv}", ("prices.csv", 86_400, 2)),
        ("{prices: s3://aws@bucket/p.parquet, max_age: 90min, digits: 0}", ("s3://aws@bucket/p.parquet", 5400, 0)),
        ("{prices: p.csv, max_age: 2d, digits: 18}", ("p.csv", 172_800, 18)),
    ],
)
def test_an_equivalent_has_prices_an_age_in_seconds_and_digits(
    load: Load, base: Base, text: str, expected: tuple[str, int, int]
) -> None:
    replace = {16: f"        requester: treasury\n        equivalent: {text}"}
    target = load(base(replace)).accounts["main_cash"].destinations["amlyze"]

    assert isinstance(target, AmlyzeDestination)
    assert target.equivalent is not None
    assert (target.equivalent.prices, target.equivalent.max_age, target.equivalent.digits) == expected


def test_any_number_of_webhooks_may_share_a_connection_and_need_nothing_else(load: Load, base: Base) -> None:
    hooks = "".join(f"\n      hook_{n}: {{type: webhook, conn_id: w}}" for n in range(2))
    account = load(base({8: f"    destinations:{hooks}"})).accounts["main_cash"]

    assert account.destinations["hook_0"] == WebhookDestination(
        name="hook_0", conn_id="w", points=("close",), timezone="UTC", max_rows=500, max_bytes=1_000_000
    )


@pytest.mark.parametrize(("text", "expected"), [("true", True), ("false", False), ('"true"', True)])
def test_deferrable_is_true_or_false(load: Load, base: Base, text: str, expected: bool) -> None:
    account = load(base({7: f"    start_date: 2026-11-01\n    deferrable: {text}"})).accounts["main_cash"]

    assert account.deferrable is expected


# One file is enough for all examples: each overwrites it whole.
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=100)
@given(
    step=st.builds("{}{}".format, st.integers(0, 99_999), st.sampled_from(["s", "min", "h"]))
    | st.builds(
        "{}{}".format, st.sampled_from([1, 2, 3, 5, 6, 12, 15, 20, 30, 60, 90, 720]), st.sampled_from(["min", "h"])
    )
    | st.text(st.characters(codec="ascii"), max_size=6)
)
def test_any_intraday_step_is_one_that_cron_can_name_or_a_mistake(load: Load, base: Base, step: str) -> None:
    lines = {
        7: f"    start_date: 2026-11-01\n    intraday: {json.dumps(step)}",
        13: "        timezone: UTC\n        points: [changes]",
    }
    loaded = load(base(lines))

    if "main_cash" not in loaded.accounts:
        assert ": accounts.main_cash.intraday: " in loaded.broken["main_cash"].message
        return
    assert loaded.accounts["main_cash"].intraday == step
    step_ms = parse_step_ms(step)
    assert 60_000 <= step_ms <= 43_200_000
    assert 86_400_000 % step_ms == step_ms % 60_000 == 0
    runs = 0
    for cron in cron_of(step):
        minutes, hours = cron.split()[:2]
        runs += len(minutes.split(",")) * len(hours.split(","))
    assert runs == 86_400_000 // step_ms


def test_accounts_that_are_written_are_read_as_they_were(load: Load) -> None:
    ids = {"NO": "1e5", "1INCH": "007", "<<": "null", "größe": "账单"}
    same: list[object] = ["close", {"every": "1h"}]
    account: dict[str, Any] = {
        "source": {"type": "ascendex", "conn_id": "a", "category": "cash", "retention_days": 7},
        "start_date": date(2026, 11, 1),
        "deferrable": True,
        "tolerance": {"BTC": "0.000000001"},
        "destinations": {
            "amlyze": {"conn_id": "a", "requester": "r: #1 'x'", "account_ext_id": ids, "points": same},
            "second": {
                "type": "amlyze",
                "conn_id": "b",
                "requester": "x" * 100,
                "account_ext_id": "{asset}",
                "points": same,
            },
        },
    }
    other = account | {"destinations": {"w": {"type": "webhook", "conn_id": "w"}}}
    loaded = load(
        yaml.safe_dump({"accounts": {"main_cash": account, "no": other}}, sort_keys=False, allow_unicode=True)
    )

    assert loaded.broken == {}
    assert list(loaded.accounts) == ["main_cash", "no"]
    found = loaded.accounts["main_cash"]
    assert found == Account.model_validate(
        {
            **account,
            "name": "main_cash",
            "destinations": {
                "amlyze": {**account["destinations"]["amlyze"], "type": "amlyze", "name": "amlyze"},
                "second": {**account["destinations"]["second"], "name": "second"},
            },
        }
    )
