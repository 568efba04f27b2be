"""``balance-bridge status`` tells what the receipts tell, and ``verdict`` what the sandbox's books tell."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from typing import Any

import pytest

from balance_bridge import cli, settings
from balance_bridge.accounts import load_accounts
from balance_bridge.commands import status, verdict

KEYS = {"main_cash": "sandbox-cash-key", "main_margin": "sandbox-margin-key"}


def test_a_delivered_day_shows_its_proof_and_every_balance_by_outcome(
    place: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    place.deliver("main_cash", place.yesterday)
    capsys.readouterr()
    assert cli.main(["status", "main_cash", "--days", "2", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["account"], row["day"], row["destination"], row["proof"]) for row in rows] == [
        ("main_cash", str(place.yesterday - timedelta(days=1)), "elven", "not run"),
        ("main_cash", str(place.yesterday - timedelta(days=1)), "amlyze", "not run"),
        ("main_cash", str(place.yesterday), "elven", "proven"),
        ("main_cash", str(place.yesterday), "amlyze", "proven"),
    ]
    assert [row["outcomes"] for row in rows[:2]] == [{}, {}]
    arrived = place.sandbox.apis.delivered()
    assert rows[2]["outcomes"]["accepted"] == len(arrived["elven"])
    assert rows[3]["outcomes"]["accepted"] == len(arrived["amlyze"])
    assert cli.main(["status", "main_cash", "--days", "2"]) == 0
    shown = [line for line in capsys.readouterr().out.splitlines() if f"{place.yesterday}" in line]
    assert len(shown) == 2
    assert f" {len(arrived['elven'])} " in shown[0]
    assert "proven" in shown[0]
    # The account's own file holds it against the books of the other side.
    accounts = {"main_cash": load_accounts(place.accounts_file).accounts["main_cash"]}
    verdicts = verdict.compare(place.sandbox.url, accounts, KEYS, [place.yesterday])
    assert [(one.right, one.missing, one.wrong) for one in verdicts] == [(one.due, (), ()) for one in verdicts]


def test_nothing_is_shown_of_days_before_an_accounts_start(place: Any) -> None:
    accounts = list(load_accounts(place.accounts_file).accounts.values())
    rows = status.read_status(settings.open_store(), accounts, last=place.yesterday, days=10)
    assert {row.day for row in rows} == {str(place.today - timedelta(days=back)) for back in (1, 2, 3)}
    assert len(rows) == 3 * (2 + 3)  # two destinations of one account, three of the other
    assert {row.proof for row in rows} == {"not run"}


def test_without_names_all_accounts_are_shown_and_broken_ones_named(
    place: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    place.replace("category: cash", "category: cahs")
    assert cli.main(["status"]) == 0
    shown = capsys.readouterr().out
    assert "main_margin" in shown
    assert "main_cash is wrong in the accounts file" in shown


@pytest.mark.parametrize("name", ["nobody", "main_cash"])
def test_an_account_that_cannot_be_shown_is_refused_with_those_that_can(
    place: Any, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    place.replace("category: cash", "category: cahs")
    assert cli.main(["status", name]) == 1
    told = capsys.readouterr().err
    assert f"has no usable account {name}; it has main_margin" in told
    assert str(place.accounts_file) in told


def test_what_did_not_arrive_is_missing_and_what_is_not_due_is_wrong(place: Any) -> None:
    accounts = {"main_cash": load_accounts(place.accounts_file).accounts["main_cash"]}
    before = place.yesterday - timedelta(days=1)
    nothing = verdict.compare(place.sandbox.url, accounts, KEYS, [before])
    assert all(one.due == len(one.missing) > 0 and one.right == 0 and not one.wrong for one in nothing)
    place.deliver("main_cash", place.yesterday)
    other = verdict.compare(place.sandbox.url, accounts, KEYS, [before])
    assert all(len(one.missing) == one.due and one.wrong for one in other)
    lines = list(verdict.differences(other, most=3))
    assert len(lines) == 4
    assert lines[0].startswith(f"main_cash elven {before}: missing ")
    assert lines[-1].startswith("and ")
    assert lines[-1].endswith(" more")


def test_a_balance_that_arrived_twice_or_with_another_amount_is_wrong(place: Any) -> None:
    accounts = {"main_cash": load_accounts(place.accounts_file).accounts["main_cash"]}
    place.deliver("main_cash", place.yesterday)
    whole = place.sandbox.apis.delivered()
    place.monkeypatch.setattr(place.sandbox.apis, "delivered", lambda: whole)
    whole["elven"].append(whole["elven"][0])
    whole["amlyze"][0] = {**whole["amlyze"][0], "value": "1.5"}
    elven, amlyze = verdict.compare(place.sandbox.url, accounts, KEYS, [place.yesterday])
    assert (len(elven.missing), len(elven.wrong)) == (0, 1)
    assert (len(amlyze.missing), len(amlyze.wrong)) == (1, 1)
    assert "1.5" in amlyze.wrong[0]


def test_a_day_that_is_missing_says_how_long_it_can_still_be_fetched(
    place: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    account = load_accounts(place.accounts_file).accounts["main_cash"]
    early = account.model_copy(update={"start_date": place.today - timedelta(days=30)})
    rows = status.read_status(settings.open_store(), [early], last=place.yesterday, days=10)
    told = {(place.today - timedelta(days=back)).isoformat(): back for back in range(1, 11)}
    for row in rows:
        back = told[row.day]
        # Seven days back is the last one that the exchange serves: today is its last chance.
        assert (row.raw, row.days_left) == (("missing", 8 - back) if back <= 7 else ("gone", 0))
    place.deliver("main_cash", place.yesterday)
    (delivered, *_) = status.read_status(settings.open_store(), [account], last=place.yesterday, days=1)
    assert (delivered.raw, delivered.days_left) == ("stored", None)
    capsys.readouterr()
    assert cli.main(["status", "main_cash"]) == 0
    shown = capsys.readouterr().out
    assert "missing, 6 days left to fetch it" in shown
    assert not any("missing" in line for line in shown.splitlines() if str(place.yesterday) in line)


def test_a_narrow_terminal_shows_every_count(
    place: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kinds = ["accepted", "ignored", "planned", "rejected", "seen", "unknown"]
    counts = {kind: 1234 + index for index, kind in enumerate(kinds)}
    row = status.DayStatus("main_margin", "2026-11-20", "treasury_ledger", "proven", "stored", None, counts)
    monkeypatch.setattr(status, "read_status", lambda *_, **__: [row])
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main(["status"]) == 0
    # A word of two may stand on the next line.
    shown = " ".join(re.sub(r"main_margin|2026-11-20|proven|treasury_ledger", "", capsys.readouterr().out).split())
    assert ", ".join(f"{count} {kind}" for kind, count in counts.items()) in shown


def test_a_day_that_was_delivered_and_pruned_is_not_alarming(place: Any, capsys: pytest.CaptureFixture[str]) -> None:
    place.deliver("main_cash", place.yesterday)
    store = settings.open_store()
    for key in store.list("raw"):
        store.prune(key)
    capsys.readouterr()
    assert cli.main(["status", "main_cash", "--days", "1"]) == 0
    assert "missing" not in capsys.readouterr().out
