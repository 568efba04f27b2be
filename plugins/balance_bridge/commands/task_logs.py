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
        What failed, why, and what to do, in lines; and where the log is.
    """
    for dag, run, task in failed:
        folder = airflow_home / "logs" / f"dag_id={dag}" / f"run_id={run}" / f"task_id={task}"
        attempts = sorted(folder.glob("attempt=*.log"), key=lambda path: path.stat().st_mtime)
        reason = last_error(attempts[-1]) if attempts else None
        yield f"{dag} {run} {task}:"
        yield from (reason or "no message found").split("\n")
        yield f"log: {attempts[-1] if attempts else folder}"


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
