"""How a watched Airflow's runs are shown."""

from __future__ import annotations

import io
from typing import Any, ClassVar

import pytest
from rich.console import Console

from balance_bridge.commands import progress
from balance_bridge.commands.local_airflow import LocalAirflowError
from balance_bridge.commands.progress import Runs

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


def test_each_change_is_a_line_once_where_there_is_no_terminal() -> None:
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
    assert runs.failed() == [(*KEY, "history")]


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
