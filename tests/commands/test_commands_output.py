"""Records as a table, JSON and CSV: exact, unbroken, and without effect on a terminal or a spreadsheet."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from datetime import date
from decimal import Decimal
from typing import Any

import pandas as pd
import pytest

from balance_bridge import cli, settings
from balance_bridge.commands import status
from balance_bridge.commands.output import Listing, Output, csv_cell, printable
from balance_bridge.load.documents import Action, Plan, Row
from balance_bridge.load.log import DayLog
from balance_bridge.transform import balances

# Sets the window's title, clears the screen, begins a new line, hides what follows, turns it round, and is markup.
HOSTILE = "\x1b]0;owned\x07\x1b[2J\nTotal: 0\r\x9b8m\u202e[red]x[/red]"
CONTROLS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]")
LONG = Decimal("-12345678901234567890.000000000000000001")
LISTING = Listing(
    records=[
        {"asset": "BTC", "amount": LONG, "count": 3_000_000, "reason": "it is long " * 20, "colour": "red"},
        {"asset": "=比特币", "amount": Decimal("1E-18"), "count": None, "reason": ""},
    ],
    columns={"asset": "asset", "balance": "amount", "count": "count", "reason": "reason"},
    verdict="1 problem",
    remarks=["a remark"],
)


def shown(capsys: pytest.CaptureFixture[str], form: str, quiet: bool = False, listing: Listing = LISTING) -> Any:
    Output(form, quiet).show(listing)
    return capsys.readouterr()


def test_a_table_has_the_verdict_first_and_every_amount_whole(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, "table").out.splitlines()
    assert lines[0] == "1 problem"
    assert lines[1].split() == ["asset", "balance", "count", "reason"]
    assert lines[2].split()[:3] == ["BTC", str(LONG), "3000000"]
    assert lines[3].split() == ["=比特币", "0.000000000000000001"]
    assert lines[4:] == ["a remark"]


@pytest.mark.parametrize("columns", [20, 60, 80])
def test_a_narrow_terminal_folds_only_the_last_column(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", str(columns))
    said = re.sub(r"\x1b\[[0-9;]*m", "", shown(capsys, "table").out)
    assert str(LONG) in said
    assert "0.000000000000000001" in said
    assert said.count("it is") > said.splitlines()[2].count("it is") > 0


def test_a_column_that_can_be_done_without_gives_way_on_a_narrow_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    listing = replace(LISTING, optional=("count",))
    for columns, is_there in ((80, False), (200, True)):
        monkeypatch.setenv("COLUMNS", str(columns))
        assert ("count" in shown(capsys, "table", listing=listing).out) == is_there


def test_json_and_csv_are_exact_and_alone_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    as_json, as_csv = shown(capsys, "json"), shown(capsys, "csv")
    assert [row["amount"] for row in json.loads(as_json.out)] == [str(LONG), "0.000000000000000001"]
    rows = list(csv.DictReader(io.StringIO(as_csv.out)))
    assert [(row["asset"], row["amount"]) for row in rows] == [("BTC", str(LONG)), ("'=比特币", "0.000000000000000001")]
    assert as_json.err == as_csv.err == "1 problem\na remark\n"


def test_quiet_shows_what_is_wrong_and_nothing_if_nothing_is(capsys: pytest.CaptureFixture[str]) -> None:
    said = shown(capsys, "table", quiet=True).out
    assert said.startswith("1 problem\n")
    assert "BTC" in said
    assert "比特币" not in said
    fine = Listing(LISTING.records[1:], LISTING.columns, verdict="all is well", remarks=["a remark"])
    assert shown(capsys, "table", quiet=True, listing=fine) == ("", "")
    assert shown(capsys, "json", quiet=True, listing=fine) == ("[]\n", "")


def test_the_head_of_a_csv_file_does_not_depend_on_what_is_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    listing = replace(LISTING, fields=("asset", "amount"))
    for records in (listing.records, listing.records[1:], []):
        for quiet in (False, True):
            said = shown(capsys, "csv", quiet=quiet, listing=replace(listing, records=records)).out
            assert said.splitlines()[0] == "asset,amount"


def test_what_is_not_printable_is_shown_as_an_escape() -> None:
    assert printable("BTC é 比特币") == "BTC é 比特币"
    assert printable("a\x1b[2J\nb\x7f\x9b\u2028\udce9") == "a\\x1b[2J\\nb\\x7f\\x9b\\u2028\\udce9"


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "=cmd|' /C calc'!A0"])
def test_a_spreadsheet_does_not_run_a_text_cell_and_still_counts_an_amount(text: str) -> None:
    assert csv_cell(text) == f"'{printable(text)}"
    assert csv_cell(Decimal("-1.50")) == "-1.50"
    assert [csv_cell(each) for each in ("", "BTC", "1INCH", "a=b", " x", 3)] == ["", "BTC", "1INCH", "a=b", " x", 3]


def log_with(text: str, day: date) -> None:
    """A log in which everything that is text comes from outside."""
    row = Row(text, 1_795_219_200_000, "-1.5", "close", Action.REJECT, text=text)
    plan = Plan("main_cash", str(day), "amlyze", "amlyze", text, "x", "balances/x", False, {}, [row])
    assert DayLog(settings.open_store(), "main_cash", day, "amlyze").put_plan(1, plan)


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    cli.main(arguments)
    out, err = capsys.readouterr()
    assert not CONTROLS.search(out + err)
    assert "\nTotal: 0" not in out + err
    return str(out + err)


def test_no_command_prints_control_characters_that_came_from_outside(
    place: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    day = str(place.yesterday)
    # A balance, a receipt, and objects of the store.
    place.reconcile("main_cash", place.yesterday)
    store, prefix = settings.open_store(), f"balances/main_cash/{day}/elven"
    newest = store.newest(prefix, ".parquet")
    assert newest is not None
    frame = balances.from_parquet(store.read(newest))
    frame["asset"] = pd.Series([HOSTILE, *frame["asset"][1:]], dtype=frame["asset"].dtype)
    store.append(prefix, ".parquet", balances.to_parquet(frame))
    log_with(HOSTILE, place.yesterday)
    name = HOSTILE.replace("/", "")
    store.put(f"raw/{name}/2020-01-01/notes{name}.txt", b"mine")
    store.put(f"raw/{name}/2020-01-01/snapshot/{name}.gz", b"no gzip")

    said = printed(capsys, "receipts", "main_cash", day)
    # All of it is there to be read, markup included.
    assert said.count("\\x1b]0;owned\\x07\\x1b[2J\\nTotal: 0\\r\\x9b8m\\u202e[red]x[/red]") >= 2
    capsys.readouterr()
    cli.main(["receipts", "main_cash", day, "-o", "json"])
    assert HOSTILE in {row["text"] for row in json.loads(capsys.readouterr().out)}
    decision = ["--destination", "amlyze", "--by", "Ada", "--reason", "x"]
    line = status.Line("main_cash", "2026-11-20", "amlyze", HOSTILE, state=HOSTILE)
    monkeypatch.setattr(status, "read_days", lambda *_: [line])
    for arguments in (
        ["receipts", "main_cash", day, "-o", "csv"],
        ["receipts", "main_cash", day, "--outcome", HOSTILE],
        ["receipts", "main_cash", day, "--destination", HOSTILE],
        ["receipts", "main_cash", day, "--asset", "x" + HOSTILE],
        ["preview", "main_cash", day, "--destination", "elven"],
        ["status"],
        ["status", HOSTILE],
        ["store", "check"],
        ["store", "prune", "--keep", "30d"],
        ["receipts", HOSTILE, day],
        ["check", HOSTILE],
    ):
        assert "\\x1b]0;owned" in printed(capsys, *arguments), arguments
    log = DayLog(store, "main_cash", place.yesterday, "amlyze")
    assert log.read().newest_plan is not None
    assert "nothing to resolve" in printed(
        capsys, "receipts", "resolve", "main_cash", day, "--number", HOSTILE, "--accepted", *decision
    )
