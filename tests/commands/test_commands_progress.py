"""How a watched Airflow's runs are shown, and why a task failed."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
from rich.console import Console

from balance_bridge.commands import progress
from balance_bridge.commands.local_airflow import LocalAirflowError
from balance_bridge.commands.progress import Runs, last_error

KEY = ("balances_main_cash", "scheduled__2026-11-21")


class FakeAirflow:
    """Answers one step after another; the last one again and again."""

    asked_for: ClassVar[dict[str, Any]] = {"logical_date": "2026-11-20T00:00:00Z", "conf": {}}

    def __init__(self, *steps: tuple[str, dict[str, str | None]]) -> None:
        self.steps = list(steps)
        self.alive = True

    def check_alive(self) -> None:
        if not self.alive:
            raise LocalAirflowError("scheduler ended with code 1")

    def get(self, path: str, **params: Any) -> Any:
        state, tasks = self.steps[0]
        dag, run = KEY
        if path == "dags/~/dagRuns":
            return {
                "dag_runs": [
                    {"dag_id": dag, "dag_run_id": run, "state": state, **self.asked_for},
                ]
            }
        found = [{"dag_id": dag, "dag_run_id": run, "task_id": name, "state": each} for name, each in tasks.items()]
        if len(self.steps) > 1:
            self.steps.pop(0)
        return {"task_instances": found}


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "POLL_S", 0)


def watched(airflow: Any, *, terminal: bool = False, limit_s: float = 10) -> tuple[Runs, str]:
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=terminal, width=200)
    runs = progress.watch(airflow, console, expected=1, limit_s=limit_s)
    return runs, shown.getvalue()


def test_each_change_is_a_line_once_where_there_is_no_terminal(tmp_path: Path) -> None:
    airflow = FakeAirflow(
        ("running", {"day": "running", "history": None}),
        ("running", {"day": "running", "history": None}),
        ("running", {"day": "success", "history": "running"}),
        ("failed", {"day": "success", "history": "failed"}),
    )
    runs, shown = watched(airflow)
    assert shown.splitlines() == [
        "main_cash 2026-11-20 day: running",
        "main_cash 2026-11-20 day: success",
        "main_cash 2026-11-20 history: running",
        "main_cash 2026-11-20 history: failed",
    ]
    assert runs.states == {KEY: "failed"}
    assert [line for line in runs.reasons(tmp_path) if "history:" in line] == [f"{' '.join(KEY)} history:"]


def test_a_run_by_hand_is_shown_with_the_day_it_was_asked_for_and_what_was_shown_before_is_not_repeated() -> None:
    airflow = FakeAirflow(("success", {"day": "success", "history": "success"}))
    airflow.asked_for = {"logical_date": None, "conf": {"date": "2026-11-19"}}
    before = Runs(tasks={(*KEY, "day"): "success"})
    shown = io.StringIO()
    progress.watch(airflow, Console(file=shown, width=200), expected=1, limit_s=10, before=before)  # type: ignore[arg-type]
    assert shown.getvalue().splitlines() == ["main_cash 2026-11-19 history: success"]


def test_a_terminal_shows_the_days_in_place() -> None:
    _, shown = watched(FakeAirflow(("success", {"day": "success"})), terminal=True)
    assert "1 of 1 runs done" in shown
    assert "2026-11-20" in shown


def test_watching_ends_at_its_limit() -> None:
    runs, _ = watched(FakeAirflow(("running", {"day": "running"})), limit_s=0.05)
    assert not runs.ended(1)


def test_an_airflow_that_died_is_no_longer_watched() -> None:
    airflow = FakeAirflow(("running", {"day": "running"}))
    airflow.alive = False
    with pytest.raises(LocalAirflowError, match="scheduler ended"):
        watched(airflow)


@pytest.mark.parametrize(
    ("states", "expected", "ended"),
    [
        ([], 0, True),
        ([], 1, False),
        (["success"], 2, False),
        (["success", "running"], 2, False),
        (["success", "failed"], 2, True),
    ],
)
def test_it_is_over_when_as_many_runs_as_are_due_have_ended(states: list[str], expected: int, ended: bool) -> None:
    runs = Runs({("d", str(number)): state for number, state in enumerate(states)})
    assert runs.ended(expected) is ended


def line(kind: str | None = None, value: str = "") -> str:
    details = {"error_detail": [{"exc_type": kind, "exc_value": value, "frames": []}]} if kind else {}
    return json.dumps({"event": "x", "level": "error", **details})


ENTRY = "what: the day does not add up\nwhy: BTC: 1 unexplained\ndo: fetch it again"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], None),
        (["", "no JSON", "[]", "12", '"text"', "null", line()], None),
        ([line("InvalidResponse", "sn 12: no")], "InvalidResponse: sn 12: no"),
        (
            [line("ConnectionFailed", "first"), line(), line("InvalidResponse", "last"), "cut {"],
            "InvalidResponse: last",
        ),
        ([json.dumps({"error_detail": []}), json.dumps({"error_detail": None})], None),
        ([json.dumps({"event": ENTRY}), line("ReconciliationBroken", "all in one text")], ENTRY),
        (
            [json.dumps({"event": f"{ENTRY} and ..."}), line("ReconciliationBroken", "all in one text")],
            "ReconciliationBroken: all in one text",
        ),
    ],
    ids=["empty", "no error", "one", "the last of two", "empty details", "an entry in lines", "an entry that was cut"],
)
def test_the_last_error_of_a_log_is_its_reason(tmp_path: Path, lines: list[str], expected: str | None) -> None:
    log = tmp_path / "attempt=1.log"
    log.write_text("\n".join(lines))
    assert last_error(log) == expected


def test_a_log_that_is_no_text_still_has_its_reason(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"\xff\xfe\n" + line("InvalidResponse", "told").encode())
    assert last_error(tmp_path / "log") == "InvalidResponse: told"


def test_a_failed_task_is_explained_by_its_newest_attempt(tmp_path: Path) -> None:
    folder = tmp_path / "logs" / "dag_id=d" / "run_id=r" / "task_id=t"
    folder.mkdir(parents=True)
    for number, told in enumerate(("first", "second"), start=1):
        (folder / f"attempt={number}.log").write_text(line("InvalidResponse", told))
    shown = list(Runs(tasks={("d", "r", "t"): "failed"}).reasons(tmp_path / "logs"))
    assert shown == ["d r t:", "InvalidResponse: second", f"log: {folder}/attempt=2.log"]


def test_a_failed_task_without_a_log_is_named_with_the_place_where_it_should_be(tmp_path: Path) -> None:
    _, reason, log = Runs(tasks={("d", "r", "t"): "failed"}).reasons(tmp_path / "logs")
    assert reason == "no message found"
    assert log.endswith("task_id=t")
