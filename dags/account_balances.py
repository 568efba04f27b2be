"""One DAG per account of the accounts file: its balances out of the exchange, proven, and into its destinations."""

from __future__ import annotations

import re
from collections.abc import Container
from datetime import UTC, datetime, time, timedelta
from typing import Any

from airflow.sdk import DAG, CronDataIntervalTimetable, ExceptionRetryPolicy, Param, RetryAction, RetryRule

from balance_bridge import settings
from balance_bridge.accounts import Account, BrokenAccount, load_accounts
from balance_bridge.dag_docs import account_doc, broken_doc
from balance_bridge.errors import FinalError
from balance_bridge.operators.daily import Deliver, FetchHistory, FetchSnapshot, Reconcile, RefuseAccount, ResolveDay

# What cannot get better by itself fails at once; everything else is tried again after growing delays.
FAIL_WHAT_IS_FINAL = ExceptionRetryPolicy(rules=[RetryRule(exception=FinalError, action=RetryAction.FAIL)])

# Handed to each task by itself: Airflow copies a DAG's default arguments, and all that hangs on them, for every task.
TASK: dict[str, Any] = {
    "owner": "balance-bridge",
    "retries": 6,
    "retry_delay": settings.retry_delay(),
    "retry_exponential_backoff": 2,
    "max_retry_delay": timedelta(hours=1),
    "retry_policy": FAIL_WHAT_IS_FINAL,
}


def account_dag(account: Account) -> DAG:
    """The daily run of one account."""
    names = list(account.destinations)
    with _dag(
        dag_id(account.name),
        datetime.combine(account.start_date, time(), UTC),
        tags=["balance-bridge", account.source.type, account.source.category],
        doc_md=account_doc(account),
        params={
            "date": Param(
                None,
                type=["null", "string"],
                title="Day",
                description="The UTC day, YYYY-MM-DD. Empty: the run's logical date, else the last whole day.",
            ),
            "destinations": Param(
                None,
                type=["null", "array"],
                items={"type": "string"},
                examples=names,
                title="Destinations",
                description=f"Only these of {', '.join(names)}. Empty: all.",
            ),
            "dry_run": Param(
                False, type="boolean", title="Dry run", description="Build and check everything, send nothing."
            ),
            "refetch": Param(
                False, type="boolean", title="Refetch", description="Ask the exchange anew for what the store has."
            ),
        },
    ) as dag:
        common: dict[str, Any] = {"account": account.name, **TASK}
        asking: dict[str, Any] = {"pool": account.source.conn_id, **common}
        day = ResolveDay(task_id="day", **common).output
        opening = FetchSnapshot(task_id="opening_snapshot", which="opening", day=day, **asking).output
        closing = FetchSnapshot(task_id="closing_snapshot", which="closing", day=day, **asking).output
        history = FetchHistory(task_id="history", day=day, opening=opening, closing=closing, **asking).output
        proof = Reconcile(task_id="reconcile", day=day, extracted=history, **common).output
        for name in names:
            Deliver(task_id=f"load_{name}", day=day, destination=name, reconciled=proof, **common)
    return dag


def broken_dag(account: BrokenAccount, name: str) -> DAG:
    """The run of an account that the accounts file gets wrong: red, with the whole message."""
    start = account.start_date
    with _dag(
        name,
        datetime.combine(start, time(), UTC) if start else datetime(2000, 1, 1, tzinfo=UTC),
        # Without a start date of its own only the latest day runs, so that the mistake shows.
        catchup=start is not None,
        tags=["balance-bridge", "broken"],
        doc_md=broken_doc(account),
    ) as dag:
        RefuseAccount(task_id="day", message=account.message, **TASK)
        # A run that was under way when the mistake was made has its "day" behind it, and Airflow takes its other tasks
        # away: without a task that is new to it, it would end green with nothing delivered.
        RefuseAccount(task_id="accounts_file", message=account.message, **TASK)
    return dag


def dag_id(account: str, taken: Container[str] = ()) -> str:
    """``balances_<account>``; a wrong account's name may hold what a DAG id may not, or come down to another's id."""
    name = f"balances_{re.sub(r'[^A-Za-z0-9_.-]', '_', account)[:200]}"
    while name in taken:
        name += "_"
    return name


def _dag(name: str, start: datetime, *, catchup: bool = True, **kwargs: Any) -> DAG:
    return DAG(
        name,
        schedule=CronDataIntervalTimetable("0 0 * * *", timezone="UTC"),
        start_date=start,
        catchup=catchup,
        max_active_runs=1,
        **kwargs,
    )


ACCOUNTS = load_accounts(settings.accounts_file())
DAGS = {dag_id(right.name): account_dag(right) for right in ACCOUNTS.accounts.values()}
for wrong in ACCOUNTS.broken.values():
    unused = dag_id(wrong.name, DAGS)
    DAGS[unused] = broken_dag(wrong, unused)
globals().update(DAGS)
