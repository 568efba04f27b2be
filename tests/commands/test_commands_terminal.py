"""What came from outside acts neither in a terminal nor in a spreadsheet."""

from __future__ import annotations

import csv
import json
import re
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from balance_bridge import cli, settings
from balance_bridge.commands import status
from balance_bridge.commands.receipts import _write_csv
from balance_bridge.commands.terminal import cell, printable, shown
from balance_bridge.load.audit import Entry
from balance_bridge.load.log import VERSION, Action, DayLog, Plan, Row
from balance_bridge.transform import balances

# Sets the window's title, clears the screen, begins a new line, hides what follows, turns it round, and is markup.
HOSTILE = "\x1b]0;owned\x07\x1b[2J\nTotal: 0\r\x9b8m\u202e[red]x[/red]"
CONTROLS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]")


def log_with(text: str, day: date) -> None:
    """A log in which everything that is text comes from outside."""
    row = Row(text, 1_795_219_200_000, "-1.5", "close", Action.REJECT, text=text)
    plan = Plan(VERSION, "main_cash", str(day), "amlyze", "amlyze", text, "x", "balances/x", False, {}, [row])
    assert DayLog(settings.open_store(), "main_cash", day, "amlyze").put_plan(1, plan)


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    cli.main(arguments)
    out, err = capsys.readouterr()
    assert not CONTROLS.search(out + err)
    assert "\nTotal: 0" not in out + err
    return str(out + err)


def test_what_is_not_printable_is_shown_as_an_escape() -> None:
    assert printable("BTC é 比特币") == "BTC é 比特币"
    assert printable("a\x1b[2J\nb\x7f\x9b\u2028\udce9") == "a\\x1b[2J\\nb\\x7f\\x9b\\u2028\\udce9"
    assert shown("[red]\x1b") == "\\[red]\\x1b"


def test_no_table_or_line_of_receipts_prints_control_characters(place: Any, capsys: pytest.CaptureFixture[str]) -> None:
    log_with(HOSTILE, place.yesterday)
    day = str(place.yesterday)
    said = printed(capsys, "receipts", "main_cash", day)
    # All of it is there to be read, markup included.
    assert said.count("\\x1b]0;owned\\x07\\x1b[2J\\nTotal: 0\\r\\x9b8m\\u202e[red]x[/red]") >= 3
    assert json.loads(printed(capsys, "receipts", "main_cash", day, "--json"))[0]["text"] == HOSTILE
    printed(capsys, "receipts", "main_cash", day, "--outcome", HOSTILE)
    printed(capsys, "receipts", "main_cash", day, "--destination", HOSTILE)
    decision = ["--destination", "amlyze", "--by", "Ada", "--reason", "x"]
    printed(capsys, "receipts", "resolve", "main_cash", day, "--number", HOSTILE, "--accepted", *decision)


def test_no_line_of_status_prints_control_characters(
    place: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    row = status.DayStatus("main_cash", "2026-11-20", "amlyze", HOSTILE, "stored", None, {"accepted": 1}, 1, HOSTILE)
    monkeypatch.setattr(status, "read_status", lambda *_, **__: [row])
    assert "for example \\x1b]0;owned" in printed(capsys, "status")


def test_no_line_of_preview_prints_control_characters(place: Any, capsys: pytest.CaptureFixture[str]) -> None:
    place.reconcile("main_cash", place.yesterday)
    store, prefix = settings.open_store(), f"balances/main_cash/{place.yesterday}/amlyze"
    newest = store.newest(prefix, ".parquet")
    assert newest is not None
    frame = balances.from_parquet(store.read(newest))
    frame["asset"] = pd.Series([HOSTILE, *frame["asset"][1:]], dtype=frame["asset"].dtype)
    store.append(prefix, ".parquet", balances.to_parquet(frame))
    assert "\\x1b]0;owned" in printed(capsys, "preview", "main_cash", str(place.yesterday), "--destination", "amlyze")


def test_no_line_about_the_store_prints_control_characters(place: Any, capsys: pytest.CaptureFixture[str]) -> None:
    name = HOSTILE.replace("/", "")
    store = settings.open_store()
    store.put(f"raw/{name}/2020-01-01/notes{name}.txt", b"mine")
    store.put(f"raw/{name}/2020-01-01/snapshot/{name}.gz", b"no gzip")
    assert "\\x1b]0;owned" in printed(capsys, "store", "check")
    assert "\\x1b]0;owned" in printed(capsys, "store", "prune", "--keep", "30d")


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "=cmd|' /C calc'!A0"])
def test_a_spreadsheet_does_not_run_a_text_cell(tmp_path: Path, text: str) -> None:
    assert cell(text) == f"'{text}"
    entry = Entry("elven", text, text, Decimal("-1.5"), "rejected", text, text, supersedes="-2", request_id=text)
    _write_csv(file := tmp_path / "receipts.csv", [entry])
    with file.open(newline="") as opened:
        (row,) = csv.DictReader(opened)
    assert {row[name] for name in ("asset", "at", "code", "text", "request_id")} == {f"'{text}"}
    # Amounts stay numbers.
    assert (row["amount"], row["supersedes"]) == ("-1.5", "-2")


def test_other_cells_stay_as_they_are() -> None:
    assert [cell(text) for text in ("", "BTC", "1INCH", "a=b", " x")] == ["", "BTC", "1INCH", "a=b", " x"]
