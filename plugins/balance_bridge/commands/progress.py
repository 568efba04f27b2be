"""A live view of the runs while Airflow works on them: in place on a terminal, a line per change elsewhere."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Column, Table

from balance_bridge.commands.local_airflow import LocalAirflow

POLL_S = 0.7
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
        return len(self.states) >= expected and set(self.states.values()) <= {"success", "failed"}

    def reasons(self, logs: Path) -> Iterator[str]:
        """What each task said that failed by itself, in lines, and where its log is.

        Args:
            logs: Airflow's folder of task logs.
        """
        for dag, run, task in sorted(key for key, state in self.tasks.items() if state == "failed"):
            folder = logs / f"dag_id={dag}" / f"run_id={run}" / f"task_id={task}"
            attempts = sorted(folder.glob("attempt=*.log"), key=lambda path: path.stat().st_mtime)
            reason = last_error(attempts[-1]) if attempts else None
            yield f"{dag} {run} {task}:"
            yield from (reason or "no message found").split("\n")
            yield f"log: {attempts[-1] if attempts else folder}"


def read_runs(airflow: LocalAirflow) -> Runs:
    """Ask Airflow for all runs and their tasks."""
    runs = Runs()
    for run in airflow.get("dags/~/dagRuns", limit=100)["dag_runs"]:
        key = run["dag_id"], run["dag_run_id"]
        runs.states[key] = run["state"]
        # A run by hand has no date of its own, but may have been asked for one.
        runs.days[key] = (run["logical_date"] or (run["conf"] or {}).get("date") or "")[:10]
    for task in airflow.get("dags/~/dagRuns/~/taskInstances", limit=500)["task_instances"]:
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
                continue
            for (dag, run, task), state in sorted(runs.tasks.items() - shown.items()):
                if state in _SIGNS:
                    day = runs.days.get((dag, run), run)
                    console.print(f"{dag.removeprefix('balances_')} {day} {task}: {state}", highlight=False)
            shown = runs.tasks
    return runs


def last_error(log: Path) -> str | None:
    """What a task's log says last about its failure; None if it says nothing.

    That is the entry in short lines (what, why, do) with which this package logs its errors. Where the entry was cut to
    fit, or the exception is another's, it is the whole exception as ``Type: message``.
    """
    entry = exception = None
    for line in log.read_text(errors="replace").splitlines():
        try:
            record = json.loads(line)
            text, details = str(record.get("event")), record.get("error_detail")
        except (ValueError, AttributeError):
            continue
        if text.startswith("what: "):
            entry = None if " ..." in text else text
        if details:
            exception = f"{details[0].get('exc_type')}: {details[0].get('exc_value')}"
    return entry or exception


def _table(runs: Runs, expected: int, passed_s: float) -> Table:
    done = Counter(runs.states.values())
    table = Table(
        *(Column(name, no_wrap=True) for name in ("account", "UTC day")),
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
