"""What Airflow has of the accounts' runs: which days are being run, and where to look at them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from airflow.utils.session import create_session
from sqlalchemy import or_, select

from balance_bridge.days import dag_id, resolve_day
from balance_bridge.errors import InvalidDay

_UNDER_WAY = ("running", "queued")


@dataclass(frozen=True)
class Run:
    """A run of an account's daily DAG.

    Attributes:
        dag: The DAG's id.
        run_id: Its own.
        state: As Airflow has it.
        paused: Whether its DAG is, so that nothing of it goes on.
    """

    dag: str
    run_id: str
    state: str
    paused: bool = False

    @property
    def is_under_way(self) -> bool:
        """Whether it is running, or about to."""
        return self.state in _UNDER_WAY and not self.paused


def newest_runs(accounts: Iterable[str], first: date, last: date) -> dict[tuple[str, date], Run]:
    """The newest run of each account's day that Airflow has.

    Args:
        accounts: Names of accounts.
        first: The first UTC day.
        last: The last one.
    """
    by_dag = {dag_id(account): account for account in accounts}
    begin = datetime.combine(first, time(), UTC)
    end = datetime.combine(last + timedelta(days=1), time(), UTC)
    query = (
        select(
            *(DagRun.dag_id, DagRun.run_id, DagRun.run_type, DagRun.state),
            *(DagRun.logical_date, DagRun.run_after, DagRun.conf, DagModel.is_paused),
        )
        .join(DagModel, DagModel.dag_id == DagRun.dag_id)
        .where(DagRun.dag_id.in_(by_dag))
        .where(or_(DagRun.logical_date.between(begin, end), DagRun.run_after >= begin))
        .order_by(DagRun.queued_at)
    )
    found: dict[tuple[str, date], Run] = {}
    with create_session() as session:
        for run in session.execute(query):
            day = _day(run)
            # A dry run changes nothing about the day.
            if day is not None and first <= day <= last and not (run.conf or {}).get("dry_run"):
                found[by_dag[run.dag_id], day] = Run(run.dag_id, run.run_id, str(run.state), bool(run.is_paused))
    return found


def _day(run: Any) -> date | None:
    """The day that a run is for, by the rule of its first task."""
    requested = run.conf.get("date") if isinstance(run.conf, dict) else None
    try:
        return resolve_day(requested, run.logical_date, run.run_after, run_type=run.run_type)
    except InvalidDay:
        return None
