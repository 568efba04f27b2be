"""``balance-bridge status`` says whether anything is wrong; ``verdict`` compares with the sandbox's books."""

from __future__ import annotations

import json
import shutil
from datetime import timedelta
from typing import Any

import pytest

from balance_bridge import cli, settings
from balance_bridge.accounts import load_accounts
from balance_bridge.commands import status, verdict
from balance_bridge.commands.deliveries import MANIFEST
from balance_bridge.errors import RecordsRejected
from balance_bridge.store import Store, to_json

KEYS = {"main_cash": "sandbox-cash-key", "main_margin": "sandbox-margin-key"}


@pytest.fixture(autouse=True)
def dags(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What Airflow says of its DAGs."""
    states = {"balances_main_cash": "", "balances_main_margin": ""}
    monkeypatch.setattr(status, "dag_states", lambda: states)
    return states


def read(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[dict[str, Any]], str]:
    """The exit code, the lines, and the verdict."""
    capsys.readouterr()
    code = cli.main(["status", *arguments, "-o", "json"])
    said = capsys.readouterr()
    return code, json.loads(said.out), said.err.splitlines()[0] if said.err else ""


def yesterday(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """By destination, what is wrong with yesterday; the exit code must agree."""
    code, lines, _ = read(capsys, "main_cash", "--days", "1")
    assert code == any(line["problem"] for line in lines)
    return {line["destination"]: line["problem"] for line in lines}


def test_where_all_is_delivered_the_first_line_says_so_and_quiet_says_nothing(
    place: Any, delivered: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    code, lines, verdict_line = read(capsys, "main_cash", "--days", "yesterday")
    assert (code, verdict_line) == (0, "All is well: 1 account, 1 day, every balance delivered.")
    assert [(line["destination"], line["proof"], line["accepted"] > 0) for line in lines] == [
        (name, "proven", True) for name in ("elven", "amlyze")
    ]
    capsys.readouterr()
    assert cli.main(["status", "main_cash", "--days", "1"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == verdict_line
    assert said[2].endswith(f"{lines[0]['accepted']} accepted, 1 ignored")
    assert cli.main(["status", "main_cash", "--days", "1", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


def test_a_day_that_is_missing_says_how_long_it_can_still_be_fetched(
    place: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    account = load_accounts(place.accounts_file).accounts["main_cash"]
    early = account.model_copy(update={"start_date": place.today - timedelta(days=30)})
    for back in range(1, 11):
        (line, _) = status.read_days(settings.open_store(), early, [place.today - timedelta(days=back)])
        # Seven days back is the last one that the exchange serves: today is its last chance.
        expected = ("missing", 8 - back) if back <= 7 else ("gone", 0)
        assert (line.problem, line.days_left) == expected
    code, lines, verdict_line = read(capsys, "main_cash")
    # Only the days since its start: three, at two destinations.
    assert (code, verdict_line, len(lines)) == (1, "6 problems in 1 account: 6 missing", 6)
    assert lines[-1]["state"] == "missing, 7 days left to fetch it"


def test_a_day_that_is_proven_and_not_delivered_is_wrong(place: Any, capsys: pytest.CaptureFixture[str]) -> None:
    proof = place.reconcile("main_cash", place.yesterday)
    assert yesterday(capsys) == {"elven": "not delivered", "amlyze": "not delivered"}
    place.load("main_cash", "elven", proof)
    assert yesterday(capsys) == {"elven": "", "amlyze": "not delivered"}
    # Fetched and never run.
    for path in (place.folder / "balances").glob("reconciliation/main_cash/*/*"):
        path.unlink()
    assert yesterday(capsys) == {"elven": "", "amlyze": "not delivered"}


def test_a_day_without_anything_due_is_delivered(
    place: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place.reconcile("main_cash", place.yesterday)
    monkeypatch.setattr("balance_bridge.facts._balances", lambda *_: [])
    _, lines, _ = read(capsys, "main_cash", "--days", "1")
    assert [(line["problem"], line["state"]) for line in lines] == [("", "nothing to deliver")] * 2


def test_a_day_that_does_not_add_up_is_wrong_even_if_it_was_delivered(
    place: Any, delivered: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    delivered.append(f"reconciliation/main_cash/{place.yesterday}", ".json", to_json({"status": "broken"}))
    assert yesterday(capsys) == {"elven": "held", "amlyze": "held"}


def test_balances_that_are_rejected_are_wrong_unless_they_are_tolerated(
    place: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    place.replace("BTMX-S: {symbol: BTMX}", "BTMX-S: {symbol: BTMX2}")
    with pytest.raises(RecordsRejected):
        place.deliver("main_cash", place.yesterday)
    place.load("main_cash", "amlyze", place.reconcile("main_cash", place.yesterday))
    assert yesterday(capsys) == {"elven": "rejected", "amlyze": ""}
    place.replace("conn_id: elven_default", "conn_id: elven_default\n        max_rejected: 1")
    assert yesterday(capsys) == {"elven": "", "amlyze": ""}


def test_a_balance_of_which_nobody_knows_what_became_is_wrong(
    place: Any, delivered: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    (result,) = (place.folder / "balances").glob("receipts/main_cash/*/amlyze/plan-0001/0001.res.jsonl")
    result.unlink()
    assert yesterday(capsys) == {"elven": "", "amlyze": "unknown"}


def test_a_day_that_was_delivered_and_pruned_is_not_alarming(
    place: Any, delivered: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    for stage in ("raw", "ledger", "balances", "reconciliation"):
        for key in delivered.list(stage):
            delivered.prune(key)
    assert yesterday(capsys) == {"elven": "", "amlyze": ""}


@pytest.mark.parametrize("damaged", ["reconciliation/main_cash/*/*.json", "receipts/main_cash/*-*/elven/plan-0001.*"])
def test_a_damaged_object_is_one_unreadable_day_with_its_key_and_the_rest_is_shown(
    place: Any, delivered: Store, capsys: pytest.CaptureFixture[str], damaged: str
) -> None:
    (path,) = (place.folder / "balances").glob(damaged)
    path.write_bytes(path.read_bytes()[:-10])
    code, lines, _ = read(capsys, "--days", "2")
    assert code == 1
    wrong = [line for line in lines if line["problem"] == "unreadable"]
    assert {(line["account"], line["day"]) for line in wrong} == {("main_cash", str(place.yesterday))}
    # The proof is that of all destinations.
    assert len(wrong) == (2 if damaged.startswith("reconciliation") else 1)
    assert all(str(path.relative_to(place.folder / "balances")) in line["state"] for line in wrong)
    # The day before, and the other account.
    assert {line["day"] for line in lines} == {str(place.yesterday), str(place.yesterday - timedelta(days=1))}
    assert {line["account"] for line in lines} == {"main_cash", "main_margin"}


def test_what_is_undelivered_shows_although_account_or_destination_left_the_accounts_file(
    place: Any, delivered: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    text = place.accounts_file.read_text()
    head, rest = text.split("  main_cash:")
    without_account = f"{head}  main_margin:{rest.split('  main_margin:')[1]}"
    without_destination = text.replace("      amlyze:", "      another:\n        type: amlyze", 1)

    def left(*arguments: str) -> tuple[list[tuple[str, str]], str]:
        code, lines, verdict_line = read(capsys, *arguments, "--days", "1")
        problem = "not in the accounts file any more"
        found = [(line["account"], line["destination"]) for line in lines if line["problem"] == problem]
        assert code == 1 or not found
        assert all(problem in line["state"] for line in lines if line["problem"] == problem)
        return found, verdict_line

    for changed in (without_account, without_destination):
        place.accounts_file.write_text(changed)
        assert left()[0] == []
    # Its response was lost: nobody knows what became of these balances.
    (result,) = (place.folder / "balances").glob("receipts/main_cash/*/amlyze/plan-0001/0001.res.jsonl")
    result.unlink()
    found, verdict_line = left("main_cash")
    assert found == [("main_cash", "amlyze")]
    assert "1 not in the accounts file any more" in verdict_line
    place.accounts_file.write_text(without_account)
    assert left()[0] == [("main_cash", "amlyze")]
    # Worked out and never sent.
    shutil.rmtree(place.folder / "balances" / "receipts")
    assert left()[0] == [("main_cash", "amlyze"), ("main_cash", "elven")]
    place.accounts_file.write_text(text)
    assert left()[0] == []


def test_where_no_day_is_over_it_is_not_said_that_all_is_delivered(
    place: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert read(capsys, "main_cash", "--days", "today") == (0, [], "Nothing is due yet: 1 account, no finished day.")


@pytest.mark.parametrize(
    ("state", "problem", "said"),
    [
        ("paused", "paused", "airflow dags unpause balances_main_cash"),
        ("gone", "no DAG", "Airflow has no DAG balances_main_cash"),
    ],
)
def test_an_account_whose_dag_does_not_run_is_wrong(
    place: Any,
    delivered: Store,
    dags: dict[str, str],
    capsys: pytest.CaptureFixture[str],
    state: str,
    problem: str,
    said: str,
) -> None:
    dags["balances_main_cash"] = state
    code, (line, *rest), verdict_line = read(capsys, "main_cash", "--days", "1")
    assert (code, line["problem"], line["day"], verdict_line) == (
        1,
        problem,
        "",
        f"1 problem in 1 account: 1 {problem}",
    )
    assert said in line["state"]
    assert not any(each["problem"] for each in rest)


@pytest.mark.parametrize(
    ("days", "said"), [(1, "nothing is delivered before"), (-8, "can no longer be fetched"), (-7, ""), (0, "")]
)
def test_a_start_date_in_the_future_or_beyond_the_exchange_s_window_is_wrong(
    place: Any, capsys: pytest.CaptureFixture[str], days: int, said: str
) -> None:
    start = place.today + timedelta(days=days)
    place.replace(str(place.today - timedelta(days=3)), str(start))
    code, lines, _ = read(capsys, "main_cash", "--days", "1")
    found = [line["state"] for line in lines if line["problem"] == "start date"]
    assert bool(found) == bool(said)
    assert all(said in text for text in found)
    assert code == any(line["problem"] for line in lines)


def test_a_start_date_that_was_delivered_in_time_is_right(place: Any, capsys: pytest.CaptureFixture[str]) -> None:
    start = place.today - timedelta(days=30)
    place.replace(str(place.today - timedelta(days=3)), str(start))
    settings.open_store().put(f"raw/main_cash/{start}/{MANIFEST}/0001.json", to_json({}))
    _, lines, _ = read(capsys, "main_cash", "--days", "1")
    assert "start date" not in {line["problem"] for line in lines}


def test_an_account_that_is_wrong_in_the_file_is_wrong_and_the_others_are_shown(
    place: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    place.replace("category: cash", "category: cahs")
    code, lines, _ = read(capsys, "--days", "1")
    assert code == 1
    assert (lines[0]["account"], lines[0]["problem"]) == ("main_cash", "wrong account")
    assert {line["account"] for line in lines[1:]} == {"main_margin"}
    assert cli.main(["status", "main_cash"]) == 2
    assert "is wrong in the accounts file" in capsys.readouterr().err


def test_without_airflow_s_database_it_is_said_that_dags_are_not_looked_at(
    place: Any, delivered: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "dag_states", lambda: None)
    capsys.readouterr()
    assert cli.main(["status", "main_cash", "--days", "1"]) == 0
    assert "whether a DAG is paused is not known" in capsys.readouterr().out


@pytest.mark.usefixtures("airflow_db")
def test_airflow_says_which_dags_are_paused_or_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.models.dag import DagModel
    from airflow.models.dagbundle import DagBundleModel
    from airflow.utils.session import create_session
    from sqlalchemy import delete

    monkeypatch.undo()
    kinds = {"runs": (False, False), "paused": (True, False), "gone": (False, True)}
    with create_session() as session:
        session.add(DagBundleModel(name="status"))
        session.flush()
        for name, (paused, stale) in kinds.items():
            session.add(DagModel(dag_id=name, bundle_name="status", is_paused=paused, is_stale=stale))
    try:
        found = status.dag_states()
        assert found is not None
        assert {name: found[name] for name in kinds} == {"runs": "", "paused": "paused", "gone": "gone"}
    finally:
        with create_session() as session:
            session.execute(delete(DagModel).where(DagModel.bundle_name == "status"))
            session.execute(delete(DagBundleModel).where(DagBundleModel.name == "status"))


def test_what_did_not_arrive_is_missing_and_what_is_not_due_is_wrong(place: Any) -> None:
    accounts = {"main_cash": load_accounts(place.accounts_file).accounts["main_cash"]}
    before = place.yesterday - timedelta(days=1)
    nothing = verdict.compare(place.sandbox.url, accounts, KEYS, [before])
    assert all(one.due == len(one.missing) > 0 and one.right == 0 and not one.wrong for one in nothing)
    place.deliver("main_cash", place.yesterday)
    right = verdict.compare(place.sandbox.url, accounts, KEYS, [place.yesterday])
    assert [(one.right, one.missing, one.wrong) for one in right] == [(one.due, (), ()) for one in right]
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
    whole = place.sandbox.delivered()
    place.monkeypatch.setattr(place.sandbox, "delivered", lambda: whole)
    whole["elven"].append(whole["elven"][0])
    whole["amlyze"][0] = {**whole["amlyze"][0], "balance": "1.5"}
    elven, amlyze = verdict.compare(place.sandbox.url, accounts, KEYS, [place.yesterday])
    assert (len(elven.missing), len(elven.wrong)) == (0, 1)
    assert (len(amlyze.missing), len(amlyze.wrong)) == (1, 1)
    assert "1.5" in amlyze.wrong[0]
