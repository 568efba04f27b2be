"""One DAG per account of the accounts file: its balances out of the exchange, proven, and into its destinations.

And one more for each account that is followed during the day, and one that looks whether all is right.
"""

from __future__ import annotations

import re
from collections.abc import Container
from datetime import UTC, datetime, time, timedelta
from typing import Any

from airflow.sdk import (
    DAG,
    CronDataIntervalTimetable,
    ExceptionRetryPolicy,
    MultipleCronTriggerTimetable,
    Param,
    RetryAction,
    RetryRule,
)

from balance_bridge import settings
from balance_bridge.accounts import Account, AscendexSource, BrokenAccount, load_accounts
from balance_bridge.dag_docs import PREFLIGHT_DOC, account_doc, broken_doc, intraday_doc
from balance_bridge.errors import PermanentError
from balance_bridge.operators.daily import FetchHistory, FetchSnapshot, Reconcile, RefuseAccount, ResolveDay
from balance_bridge.operators.deliver import Deliver
from balance_bridge.operators.intraday import FollowDay
from balance_bridge.operators.preflight import Preflight
from balance_bridge.points import cron_of, known_so_far

# What cannot get better by itself fails at once; everything else is tried again after growing delays.
FAIL_WHAT_IS_FINAL = ExceptionRetryPolicy(rules=[RetryRule(exception=PermanentError, action=RetryAction.FAIL)])

# Handed to each task by itself: Airflow copies a DAG's default arguments, and all that hangs on them, for every task.
TASK: dict[str, Any] = {
    "owner": "balance-bridge",
    "retries": 6,
    "retry_delay": settings.retry_delay(),
    "retry_exponential_backoff": 2,
    "max_retry_delay": timedelta(hours=1),
    "retry_policy": FAIL_WHAT_IS_FINAL,
}

DRY_RUN = Param(False, type="boolean", title="Dry run", description="Build and check everything, send nothing.")


def account_dag(account: Account) -> DAG:
    """The daily run of one account."""
    with _dag(
        dag_id(account.name),
        datetime.combine(account.start_date, time(), UTC),
        tags=_tags(account),
        doc_md=account_doc(account),
        params=_daily_params(list(account.destinations)),
    ) as dag:
        common: dict[str, Any] = {"account": account.name, **TASK}
        asking = _asking(account)
        day = ResolveDay(task_id="day", **common).output
        opening = FetchSnapshot(task_id="opening_snapshot", which="opening", day=day, **asking).output
        closing = FetchSnapshot(task_id="closing_snapshot", which="closing", day=day, **asking).output
        history = FetchHistory(task_id="history", day=day, **asking).output
        [opening, closing] >> history
        proof = Reconcile(task_id="reconcile", day=day, extracted=history, **common).output
        for name in account.destinations:
            Deliver(task_id=f"load_{name}", destination=name, reconciled=proof, **common)
    return dag


def intraday_dag(account: Account, step: str) -> DAG:
    """The runs that follow one account's day while it goes on."""
    with _dag(
        f"{dag_id(account.name)}_intraday",
        datetime.combine(account.start_date, time(), UTC),
        # What an outage has left out is in the next run.
        catchup=False,
        schedule=MultipleCronTriggerTimetable(*cron_of(step), timezone="UTC"),
        tags=[*_tags(account), "intraday"],
        doc_md=intraday_doc(account),
        params={"dry_run": DRY_RUN},
    ) as dag:
        so_far = FollowDay(task_id="follow", **_asking(account)).output
        for name, destination in account.destinations.items():
            if known_so_far(destination.points):
                Deliver(
                    task_id=f"load_{name}",
                    destination=name,
                    reconciled=so_far,
                    account=account.name,
                    **TASK,
                )
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
        # Those of the right account's DAG: a run that was triggered with them before says what is wrong in the file.
        params=_daily_params([]),
    ) as dag:
        RefuseAccount(task_id="day", message=account.message, **TASK)
        # A run that was under way when the mistake was made has its "day" behind it, and Airflow takes its other tasks
        # away: without a task that is new to it, it would end green with nothing delivered.
        RefuseAccount(task_id="accounts_file", message=account.message, **TASK)
    return dag


def preflight_dag() -> DAG:
    """Looks at everything that a run needs, as a worker sees it; started by hand."""
    with DAG(
        "balances_preflight",
        schedule=None,
        start_date=datetime(2000, 1, 1, tzinfo=UTC),
        catchup=False,
        max_active_runs=1,
        tags=["balance-bridge", "preflight"],
        doc_md=PREFLIGHT_DOC,
    ) as dag:
        Preflight(task_id="look", owner="balance-bridge")
    return dag


def dag_id(account: str, taken: Container[str] = ()) -> str:
    """``balances_<account>``; a wrong account's name may hold what a DAG id may not, or come down to another's id."""
    name = f"balances_{re.sub(r'[^A-Za-z0-9_.-]', '_', account)[:200]}"
    while name in taken:
        name += "_"
    return name


def _daily_params(names: list[str]) -> dict[str, Param]:
    return {
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
            description=f"Only these: {', '.join(names)}. Empty: all." if names else "Empty: all.",
        ),
        "dry_run": DRY_RUN,
        "refetch": Param(
            False, type="boolean", title="Refetch", description="Fetch again from the exchange what the store has."
        ),
        "redeliver": Param(
            False,
            type="boolean",
            title="Redeliver",
            description="Send again, under new numbers, what was delivered under other keys or settings.",
        ),
    }


def _tags(account: Account) -> list[str]:
    source = account.source
    return ["balance-bridge", source.type, *([source.category] if isinstance(source, AscendexSource) else [])]


def _asking(account: Account) -> dict[str, Any]:
    # One at a time for each key: more would only wait for each other's requests.
    pool = {} if account.source.pool is None else {"pool": account.source.pool}
    return {"account": account.name, **pool, **TASK}


def _dag(name: str, start: datetime, *, catchup: bool = True, schedule: Any = None, **kwargs: Any) -> DAG:
    return DAG(
        name,
        schedule=schedule or CronDataIntervalTimetable("0 0 * * *", timezone="UTC"),
        start_date=start,
        catchup=catchup,
        max_active_runs=1,
        **kwargs,
    )


ACCOUNTS = load_accounts(settings.accounts_file())
DAGS = {dag_id(right.name): account_dag(right) for right in ACCOUNTS.accounts.values()}
for right in ACCOUNTS.accounts.values():
    if right.intraday is not None:
        followed = intraday_dag(right, right.intraday)
        DAGS[followed.dag_id] = followed
DAGS["balances_preflight"] = preflight_dag()
for wrong in ACCOUNTS.broken.values():
    unused = dag_id(wrong.name, DAGS)
    DAGS[unused] = broken_dag(wrong, unused)
globals().update(DAGS)
