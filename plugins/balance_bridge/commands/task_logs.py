"""The message of a task that failed, out of Airflow's task logs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path


def explain_failures(airflow_home: Path, failed: Iterable[tuple[str, str, str]]) -> Iterator[str]:
    """What failed tasks said last.

    Args:
        airflow_home: Where the logs lie.
        failed: (DAG id, run id, task id) of each.

    Yields:
        A line per task: what failed, and why.
    """
    for dag, run, task in failed:
        folder = airflow_home / "logs" / f"dag_id={dag}" / f"run_id={run}" / f"task_id={task}"
        attempts = sorted(folder.glob("attempt=*.log"), key=lambda path: path.stat().st_mtime)
        reason = last_error(attempts[-1]) if attempts else None
        yield f"{dag} {run} {task}: {reason or 'no message found'} (log: {attempts[-1] if attempts else folder})"


def last_error(log: Path) -> str | None:
    """The last exception in a task's log, as ``Type: message``; None if there is none."""
    found = None
    for line in log.read_text(errors="replace").splitlines():
        try:
            details = json.loads(line).get("error_detail")
        except (ValueError, AttributeError):
            continue
        if details:
            found = f"{details[0].get('exc_type')}: {details[0].get('exc_value')}"
    return found
