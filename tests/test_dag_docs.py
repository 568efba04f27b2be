"""What the DAGs say about themselves."""

from __future__ import annotations

from datetime import date
from typing import Any

from balance_bridge.accounts import Account, AmlyzeDestination, AscendexSource, BrokenAccount, FilesSource
from balance_bridge.accounts.problems import Problem
from balance_bridge.dag_docs import account_doc, broken_doc, intraday_doc


def account(**changes: Any) -> Account:
    common: dict[str, Any] = {"conn_id": "a", "requester": "r"}
    settings: dict[str, Any] = {
        "name": "main_cash",
        "source": AscendexSource(conn_id="ascendex_default", category="cash"),
        "start_date": date(2026, 11, 1),
        "destinations": {
            "daily": AmlyzeDestination(name="daily", account_ext_id="D-{asset}", points=("close",), **common),
            "often": AmlyzeDestination(
                name="often", account_ext_id="O-{asset}", points=("open", "changes", {"every": "1h"}), **common
            ),
        },
    }
    return Account(**settings | changes)


def test_an_account_of_an_exchange_names_its_connection_and_its_destinations() -> None:
    doc = account_doc(account())

    assert "From **ascendex** (cash, connection `ascendex_default`) since 2026-11-01." in doc
    assert "| daily | amlyze | `a` | close | UTC |\n| often | amlyze | `a` | open, changes, every 1h | UTC |\n" in doc
    assert "the day is fetched" in doc
    assert "_intraday" not in doc


def test_an_account_of_files_names_its_folder_and_no_exchange() -> None:
    doc = account_doc(account(source=FilesSource(path="s3://aws_default@bank/statements")))

    assert "From **files** in `s3://aws_default@bank/statements` since 2026-11-01." in doc
    assert "the files are read" in doc
    assert "exchange" not in doc


def test_an_account_that_is_followed_says_by_what() -> None:
    assert "`balances_main_cash_intraday` follows the day every 15min" in account_doc(account(intraday="15min"))


def test_what_happens_with_a_day_that_does_not_add_up_is_what_the_account_says() -> None:
    assert "nothing of the day is delivered" in account_doc(account())
    assert "the day is delivered anyway, and marked" in account_doc(account(on_break="load"))


def test_the_intraday_run_names_only_what_it_delivers() -> None:
    doc = intraday_doc(account(intraday="15min"))

    assert "| often | amlyze | `a` | changes, every 1h | UTC |\n" in doc
    assert "| daily |" not in doc
    for word in ("every 15min", "`balances_main_cash`", "last sequence number", "60 s", "dry_run", "Off by default"):
        assert word in doc


def test_both_runs_of_an_account_say_which_parameters_there_are() -> None:
    doc = account_doc(account())

    for name in ("date", "refetch", "destinations", "dry_run", "redeliver"):
        assert f'"{name}"' in doc
    assert "for many days create a backfill, without" in doc
    for each in (doc, intraday_doc(account(intraday="15min"))):
        assert "ny other parameter is refused" in each


def test_a_broken_account_shows_its_whole_message() -> None:
    problems = [Problem(line, ("accounts", "main_cash"), "'v'", "is wrong", "right") for line in (1, 2)]
    doc = broken_doc(BrokenAccount("main_cash", "f", tuple(problems)))

    line = "accounts.main_cash: 'v': is wrong; allowed: right\n"
    assert f"```\nf:1: {line}f:2: {line}```" in doc
