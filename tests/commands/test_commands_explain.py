"""``balance-bridge explain`` says in sentences what became of a day; ``diff`` what two days differ in."""

from __future__ import annotations

import csv
import io
import json
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from balance_bridge import cli, decisions
from balance_bridge.decisions import Act, Decision
from balance_bridge.errors import RecordsRejected
from balance_bridge.store import Store, to_json


def explained(capsys: pytest.CaptureFixture[str], day: Any, code: int) -> list[str]:
    capsys.readouterr()
    assert cli.main(["explain", "main_cash", str(day)]) == code
    return capsys.readouterr().out.splitlines()


def test_a_delivered_day_says_that_it_adds_up_and_what_each_destination_took(
    place: Any, delivered: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    first, proof, *rest = explained(capsys, place.yesterday, 0)
    assert first == f"main_cash {place.yesterday} is delivered."
    assert proof.startswith("It adds up: ")
    assert [line.partition(":")[0] for line in rest] == ["elven", "amlyze"]
    assert all(" accepted" in line for line in rest)


def test_a_missing_day_says_how_long_it_can_be_fetched_and_what_to_do(
    place: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = explained(capsys, place.yesterday, 1)
    assert lines[0].endswith("is missing.")
    assert "7 days left" in lines[1]
    assert lines[-1].startswith("What to do: ")


def test_a_held_day_says_where_it_breaks_and_who_decided_what(
    place: Any, delivered: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    report = delivered.read_json(str(delivered.newest(f"reconciliation/main_cash/{place.yesterday}", ".json")))
    first = {"kind": "chain", "asset": "BTC", "amount": "0.0000005", "last_good_sn": 7, "first_bad_sn": 8}
    broken = {**report, "status": "broken", "breaks": [first], "break_count": 1}
    delivered.append(f"reconciliation/main_cash/{place.yesterday}", ".json", to_json(broken))
    answer = Decision(Act.REFUSED, "Ada", "2026-11-21T08:00:00.000Z", "wrong", proof="p")
    decisions.record(delivered, "main_cash", place.yesterday, answer)
    lines = explained(capsys, place.yesterday, 1)
    assert lines[0].endswith("is held.")
    assert "BTC: 0.0000005 is unexplained between sn 7 (last good) and sn 8 (first bad)." in lines
    assert "Ada refused it at 2026-11-21T08:00:00.000Z: wrong." in lines
    assert lines[-1].startswith("What to do: ")


def test_a_rejection_says_its_code_and_assets(place: Any, capsys: pytest.CaptureFixture[str]) -> None:
    place.replace("BTMX-S: {symbol: BTMX}", "BTMX-S: {symbol: BTMX2}")
    with pytest.raises(RecordsRejected):
        place.deliver("main_cash", place.yesterday)
    lines = explained(capsys, place.yesterday, 1)
    assert lines[0].endswith("is rejected.")
    assert any(line.startswith("elven: 1 rejected (BTMX-S), ") for line in lines)


def test_two_days_differ_by_the_exact_change_of_each_closing_balance(
    place: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    days = [place.yesterday - timedelta(days=1), place.yesterday]
    for day in days:
        place.reconcile("main_cash", day)
    capsys.readouterr()
    assert cli.main(["diff", "main_cash", *map(str, days), "-o", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) > 5
    for row in rows:
        assert Decimal(row["second"]) - Decimal(row["first"]) == Decimal(row["change"])
        assert "E" not in row["change"]
    one = rows[0]["asset"]
    assert cli.main(["diff", "main_cash", *map(str, days), "--asset", one, "-o", "csv"]) == 0
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert row["asset"] == one
    assert cli.main(["diff", "main_cash", "2020-01-01", str(days[0])]) == 1
    assert "main_cash 2020-01-01 was not run yet" in capsys.readouterr().err
