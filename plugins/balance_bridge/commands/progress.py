"""A live view of the runs while Airflow works on them: in place on a terminal, a line per change elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Column, Table

from balance_bridge.commands.local_airflow import LocalAirflow

POLL_S = 0.7
ENDED = {"success", "failed"}
_SIGNS = {
    "success": "[green]✓[/]",
    "failed": "[red]✗[/]",
    "upstream_failed": "[red]–[/]",
    "running": "[yellow]▶[/]",
    "up_for_retry": "[yellow]↻[/]",
    "deferred": "[blue]⏸[/]",
    "skipped": "[dim]○[/]",
}
# Short heads: the table is to fit into 80 columns.
TASKS = {
    "day": "day",
    "opening_snapshot": "open",
    "closing_snapshot": "close",
    "history": "pages",
    "reconcile": "proof",
    "load_elven": "elven",
    "load_amlyze": "amlyze",
    "load_webhook": "hook",
}


@dataclass
class Runs:
    """The runs as Airflow's REST API reports them.

    Attributes:
        states: State by (DAG id, run id).
        days: The UTC day that a run is about, by (DAG id, run id).
        tasks: State by (DAG id, run id, task id).
    """

    states: dict[tuple[str, str], str] = field(default_factory=dict)
    days: dict[tuple[str, str], str] = field(default_factory=dict)
    tasks: dict[tuple[str, str, str], str] = field(default_factory=dict)

    def ended(self, expected: int) -> bool:
        """Whether as many runs as expected exist and all have ended."""
        return len(self.states) >= expected and all(state in ENDED for state in self.states.values())

    def failed(self) -> list[tuple[str, str, str]]:
        """The tasks that failed by themselves."""
        return sorted(key for key, state in self.tasks.items() if state == "failed")


def read_runs(airflow: LocalAirflow) -> Runs:
    """Ask Airflow for all runs and their tasks."""
    runs = Runs()
    for run in airflow.get("dags/~/dagRuns", limit=100)["dag_runs"]:
        key = run["dag_id"], run["dag_run_id"]
        runs.states[key] = run["state"]
        # A run by hand has no date of its own, but may have been asked for one.
        runs.days[key] = (run["logical_date"] or (run["conf"] or {}).get("date") or "")[:10]
    page: dict[str, Any] = airflow.get("dags/~/dagRuns/~/taskInstances", limit=500)
    for task in page["task_instances"]:
        runs.tasks[task["dag_id"], task["dag_run_id"], task["task_id"]] = task["state"] or "waiting"
    return runs


def watch(
    airflow: LocalAirflow, console: Console, *, expected: int, limit_s: float, before: Runs | None = None
) -> Runs:
    """Show progress until all expected runs have ended.

    Args:
        airflow: Where they run.
        console: Where to show it.
        expected: Number of runs.
        limit_s: Seconds after which to give up; what is not done then shows in the result.
        before: What was watched before, and need not be shown again.

    Returns:
        The runs as they were last.
    """
    began = time.monotonic()
    runs, shown = Runs(), dict(before.tasks) if before else {}
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while not runs.ended(expected) and time.monotonic() - began < limit_s:
            time.sleep(POLL_S)
            airflow.check_alive()
            runs = read_runs(airflow)
            if console.is_terminal:
                live.update(_table(runs, expected, time.monotonic() - began), refresh=True)
            else:
                _print_changes(console, runs, shown)
    return runs


def _table(runs: Runs, expected: int, passed_s: float) -> Table:
    done = Counter(runs.states.values())
    table = Table(
        Column("account", no_wrap=True),
        Column("UTC day", no_wrap=True),
        *TASKS.values(),
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        title=f"Airflow at work: {done['success']} of {expected} runs done, {passed_s:.0f} s",
    )
    for dag, run in sorted(runs.states, key=lambda key: (key[0], runs.days[key])):
        signs = [_SIGNS.get(runs.tasks.get((dag, run, task), ""), "[dim]·[/]") for task in TASKS]
        table.add_row(dag.removeprefix("balances_"), runs.days[dag, run], *signs)
    return table


def _print_changes(console: Console, runs: Runs, shown: dict[tuple[str, str, str], str]) -> None:
    for key, state in sorted(runs.tasks.items()):
        if state in _SIGNS and shown.get(key) != state:
            shown[key] = state
            dag, run, task = key
            console.print(
                f"{dag.removeprefix('balances_')} {runs.days.get((dag, run), run)} {task}: {state}", highlight=False
            )
