"""The question about a day that does not add up: asked once, about one proof, and its answer on record."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowSkipException, DagRunTriggerException, DownstreamTasksSkipped

from balance_bridge import decisions, settings
from balance_bridge.decisions import Act, Decision
from balance_bridge.errors import ConfigurationError
from balance_bridge.facts import Day, Delivered
from balance_bridge.operators.approval import Approval, AskAboutBreak, RunApproved, question
from balance_bridge.store import Store, to_json

DAY, PROOF = date(2026, 11, 20), "p" * 64


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("AIRFLOW__BALANCE_BRIDGE__STORE", str(tmp_path))
    return settings.open_store()


def report(store: Store, status: str = "broken", proof: str = PROOF, asset: str = "BTC") -> dict[str, Any]:
    first = {"kind": "chain", "asset": asset, "amount": "0.5", "last_good_sn": 7, "first_bad_sn": 8}
    document = {"status": status, "proof": proof, "breaks": [first], "break_count": 3, "manifest": "m"}
    store.append(f"reconciliation/main/{DAY}", ".json", to_json(document))
    return document


def decide(store: Store, act: Act) -> None:
    decisions.record(store, "main", DAY, Decision(act, "alice", "2026-11-21T08:00:00Z", proof=PROOF))


def ask(manifest: str = "m", cleared: int = 0) -> DagRunTriggerException:
    task = AskAboutBreak(task_id="ask", account="main", day=str(DAY), extracted={"manifest": manifest})
    with pytest.raises(DagRunTriggerException) as caught:
        task.execute({"run_id": "scheduled__2026-11-20", "dag_run": SimpleNamespace(clear_number=cleared)})
    return caught.value


def test_a_break_is_asked_about_in_a_run_named_by_day_and_proof(store: Store) -> None:
    report(store)
    asked = ask()
    assert (asked.trigger_dag_id, asked.conf) == ("balances_main_approval", {"date": str(DAY), "proof": PROOF})
    assert asked.dag_run_id.startswith(f"{DAY}__break__{PROOF[:12]}")
    assert asked.skip_when_already_exists, "the same question is not asked twice"
    assert ask().dag_run_id == asked.dag_run_id
    assert ask(cleared=1).dag_run_id != asked.dag_run_id, "a run that is cleared asks again"
    report(store, proof="q" * 64)
    assert ask().dag_run_id != asked.dag_run_id, "another proof is another question"


@pytest.mark.parametrize("case", ["failed before", "no report", "another", "proven", "approved", "refused"])
def test_nobody_is_asked_where_there_is_no_break_or_somebody_has_decided(store: Store, case: str) -> None:
    if case != "no report":
        report(store, "proven" if case == "proven" else "broken")
    if case in ("approved", "refused"):
        decide(store, Act(case))
    extracted = None if case == "failed before" else {"manifest": "n" if case == "another" else "m"}
    with pytest.raises(AirflowSkipException):
        AskAboutBreak(task_id="ask", account="main", day=str(DAY), extracted=extracted).execute({"run_id": "r"})


def approval(monkeypatch: pytest.MonkeyPatch) -> tuple[Approval, dict[str, Any]]:
    monkeypatch.setattr(HITLOperator, "execute", lambda self, context: "waiting")
    context = {"params": {"date": str(DAY), "proof": PROOF}}
    return Approval(task_id="approve", account="main"), context


def answer(chosen: str, reason: str = "the bank says so") -> dict[str, Any]:
    user = {"id": "17", "name": "alice"}
    at = datetime(2026, 11, 21, 8, tzinfo=UTC)
    return {
        **{"chosen_options": [chosen], "params_input": {"reason": reason}},
        **{"responded_at": at, "responded_by_user": user},
    }


def test_the_question_names_account_day_and_each_break(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.test/treasury")
    report(store, asset="A|B")
    task, context = approval(monkeypatch)
    assert task.execute(context) == "waiting"
    for said in ("main", str(DAY), "| A\\|B | 0.5 | 7 | 8 |", "And 2 more"):
        assert said in str(task.subject) + str(task.body)
    assert f"https://airflow.test/treasury/balances/day/main/{DAY}" in str(task.body)


def test_a_question_about_a_proof_that_has_changed_is_not_asked(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    report(store, proof="another")
    task, context = approval(monkeypatch)
    with pytest.raises(AirflowSkipException):
        task.execute(context)


def test_an_approval_is_on_record_with_who_and_why_and_goes_on(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    report(store)
    task, context = approval(monkeypatch)
    task.execute_complete(context, answer("Approve"))
    found = decisions.about(store, "main", DAY, PROOF)
    assert found is not None
    assert (found.act, found.by, found.reason) == (Act.APPROVED, "alice", "the bank says so")


def test_a_refusal_is_on_record_and_delivers_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    report(store)
    with DAG("balances_main_approval", schedule=None):
        task, context = approval(monkeypatch)
        task >> RunApproved(task_id="deliver", account="main")
    ti = SimpleNamespace(run_id="r", dag_id="d", task_id="approve", map_index=-1, xcom_push=lambda **_: None)
    with pytest.raises(DownstreamTasksSkipped) as caught:
        task.execute_complete({**context, "task": task, "ti": ti}, answer("Reject", "wrong"))
    assert caught.value.tasks == ["deliver"]
    found = decisions.about(store, "main", DAY, PROOF)
    assert found is not None
    assert (found.act, found.reason) == (Act.REFUSED, "wrong")


def test_a_task_that_was_killed_after_the_answer_was_on_record_goes_on_with_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    report(store)
    task, context = approval(monkeypatch)
    task.execute_complete(context, answer("Approve"))
    # Airflow begins such a task from its start, without the answer.
    assert task.execute(context) is None, "approved, so the next task delivers"
    assert len(decisions.read(store, "main", DAY)) == 1


def test_a_refusal_on_the_page_ends_the_question(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    report(store)
    decide(store, Act.REFUSED)
    task, context = approval(monkeypatch)
    with pytest.raises(AirflowSkipException, match="alice has refused it"):
        task.execute(context)


def test_an_approval_stands_whatever_is_answered_after_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    report(store)
    decide(store, Act.APPROVED)
    task, context = approval(monkeypatch)
    with pytest.raises(AirflowSkipException, match="alice has already decided"):
        task.execute_complete(context, answer("Reject"))
    assert [each.act for each in decisions.read(store, "main", DAY)] == [Act.APPROVED]


@pytest.mark.parametrize("given", [None, {}, {"reason": ""}, {"reason": "  "}, {"reason": 7}])
def test_an_answer_without_a_reason_is_not_taken(store: Store, monkeypatch: pytest.MonkeyPatch, given: Any) -> None:
    report(store)
    task, context = approval(monkeypatch)
    with pytest.raises(ConfigurationError, match="no reason"):
        task.execute_complete(context, {**answer("Approve"), "params_input": given})
    assert decisions.read(store, "main", DAY) == []


def test_a_question_says_what_earlier_runs_delivered() -> None:
    before = Day(destinations={"elven": Delivered(counts={"accepted": 11, "ignored": 1})})
    report = {"breaks": [], "break_count": 0}
    assert "elven: an earlier run sent 11 balances" in question("main", DAY, report, before)
    assert "Nothing of the day was delivered." in question("main", DAY, report, Day())


def test_an_approved_day_is_run_once_under_a_name_with_its_day() -> None:
    context = {"params": {"date": str(DAY), "proof": PROOF}}
    with pytest.raises(DagRunTriggerException) as caught:
        RunApproved(task_id="deliver", account="main").execute(context)
    run = caught.value
    assert (run.trigger_dag_id, run.conf) == ("balances_main", {"date": str(DAY)})
    assert run.dag_run_id == f"{DAY}__approved__{PROOF[:12]}"


def test_a_question_of_a_thousand_breaks_stays_readable() -> None:
    many = [{"asset": "BTC", "amount": "1", "last_good_sn": sn, "first_bad_sn": sn + 1} for sn in range(1000)]
    text = question("main", DAY, {"breaks": many, "break_count": 1200}, Day())
    assert "And 1180 more" in text
    assert len(text) < 2000


def test_the_answer_s_own_field_is_no_unknown_parameter_but_others_are() -> None:
    with DAG("balances_main_approval", schedule=None, params={"date": None, "proof": None}) as dag:
        task = Approval(task_id="approve", account="main")
    run = {"date": str(DAY), "proof": PROOF}
    task.check_parameters({"dag": dag, "dag_run": SimpleNamespace(conf=run), "params": {**run, "reason": ""}})
    wrong = {**run, "dry_run": True}
    with pytest.raises(ConfigurationError, match="dry_run"):
        task.check_parameters({"dag": dag, "dag_run": SimpleNamespace(conf=wrong), "params": {**wrong, "reason": ""}})
