"""One DAG per account of the accounts file: fetches its balances from the exchange, proves them and delivers them.

An account with ``intraday`` has a second one. One DAG checks whether everything is set up, and one exists, and is red,
only while the accounts file cannot be read.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, time, timedelta
from functools import partial
from typing import Any

from airflow.sdk import (
    DAG,
    CronDataIntervalTimetable,
    ExceptionRetryPolicy,
    MultipleCronTriggerTimetable,
    Param,
    RetryAction,
    RetryRule,
    get_parsing_context,
)

from balance_bridge import settings
from balance_bridge.accounts import Account, AccountsFile, AscendexSource, BrokenAccount
from balance_bridge.dag_docs import PREFLIGHT_DOC, account_doc, approval_doc, broken_doc, file_doc, intraday_doc
from balance_bridge.days import approval_dag_id, dag_id
from balance_bridge.errors import AccountsFileError, PermanentError
from balance_bridge.operators.daily import FetchHistory, FetchSnapshot, Reconcile, ResolveDay
from balance_bridge.operators.deliver import Deliver
from balance_bridge.operators.intraday import FollowDay
from balance_bridge.operators.preflight import Preflight
from balance_bridge.operators.refuse import Refuse
from balance_bridge.points import cron_of, known_so_far
from balance_bridge.timetable import DayTimetable

# Permanent errors fail the task at once; after all others Airflow tries again, with growing delays.
FAIL_WHAT_IS_PERMANENT = ExceptionRetryPolicy(rules=[RetryRule(exception=PermanentError, action=RetryAction.FAIL)])

# Passed to each task, not as the DAG's default arguments: Airflow would copy those for every task.
TASK: dict[str, Any] = {
    "owner": "balance-bridge",
    "retries": 6,
    "retry_delay": settings.retry_delay(),
    "retry_exponential_backoff": 2,
    "max_retry_delay": timedelta(hours=1),
    "retry_policy": FAIL_WHAT_IS_PERMANENT,
}

DRY_RUN = Param(
    False, source="dag", type="boolean", title="Dry run", description="Build and check everything, send nothing."
)
# The DAG that is there only while the accounts file cannot be read.
FILE_DAG = "balances_accounts_file"
# The start date of what has none.
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


def account_dag(name: str, account: Account) -> DAG:
    """The daily run of one account."""
    with _dag(name, _midnight(account), tags=_tags(account), doc_md=account_doc(account)) as dag:
        common: dict[str, Any] = {"account": account.name, **TASK}
        fetching = _fetching(account)
        day = ResolveDay(task_id="day", **common).output
        opening = FetchSnapshot(task_id="opening_snapshot", which="opening", day=day, **fetching).output
        closing = FetchSnapshot(task_id="closing_snapshot", which="closing", day=day, **fetching).output
        history = FetchHistory(task_id="history", day=day, **fetching).output
        [opening, closing] >> history
        proof = Reconcile(task_id="reconcile", day=day, extracted=history, **common).output
        for destination in account.destinations:
            Deliver(task_id=f"load_{destination}", destination=destination, reconciled=proof, **common)
        if account.on_break == "ask":
            from balance_bridge.operators.approval import AskAboutBreak

            proof >> AskAboutBreak(task_id="ask", day=day, extracted=history, trigger_rule="one_failed", **common)
    return _with_params(dag, _daily_params(list(account.destinations)))


def intraday_dag(name: str, account: Account, step: str) -> DAG:
    """The runs that follow one account during the day."""
    with _dag(
        name,
        _midnight(account),
        # The next run delivers what an outage has left out.
        catchup=False,
        schedule=MultipleCronTriggerTimetable(*cron_of(step), timezone="UTC"),
        tags=[*_tags(account), "intraday"],
        doc_md=intraday_doc(account),
    ) as dag:
        so_far = FollowDay(task_id="follow", **_fetching(account)).output
        for destination, target in account.destinations.items():
            if known_so_far(target.points):
                Deliver(
                    task_id=f"load_{destination}",
                    destination=destination,
                    reconciled=so_far,
                    account=account.name,
                    **TASK,
                )
    return _with_params(dag, {"dry_run": DRY_RUN})


def approval_dag(name: str, account: Account) -> DAG:
    """The runs that ask a person about a day that does not add up; started by the day's run."""
    from balance_bridge.operators.approval import Approval, RunApproved

    with DAG(
        name,
        schedule=None,
        start_date=LONG_AGO,
        catchup=False,
        # Each waits for a person, and none for another.
        max_active_runs=100,
        is_paused_upon_creation=False,
        tags=[*_tags(account), "approval"],
        doc_md=approval_doc(account),
    ) as dag:
        answer = Approval(task_id="approve", account=account.name, **TASK)
        answer >> RunApproved(task_id="deliver", account=account.name, **TASK)
    day = Param(None, source="dag", type="string", title="Day", description="The UTC day, YYYY-MM-DD.")
    proof = Param(None, source="dag", type="string", title="Proof", description="The proof that is asked about.")
    return _with_params(dag, {"date": day, "proof": proof})


def broken_dag(name: str, account: BrokenAccount) -> DAG:
    """The run of an account with a mistake in the accounts file: red, with the whole message."""
    start = account.start_date
    with _dag(
        name,
        datetime.combine(start, time(), UTC) if start else LONG_AGO,
        # Without a start date only the latest day runs, so that the mistake shows.
        catchup=start is not None,
        tags=["balance-bridge", "broken"],
        doc_md=broken_doc(account),
    ) as dag:
        Refuse(task_id="day", error=account.error(), **TASK)
        # A run that was under way when the mistake was made may have finished "day", and Airflow removes its other
        # tasks: without a new task, it would end green with nothing delivered.
        Refuse(task_id="accounts_file", error=account.error(), **TASK)
    # The parameters of the correct account's DAG, so that a run that was triggered with them reports the mistake.
    return _with_params(dag, _daily_params([]))


def file_dag(name: str, error: AccountsFileError) -> DAG:
    """The run that is red, at once and every hour, while the accounts file cannot be read."""
    with _dag(
        name,
        LONG_AGO,
        catchup=False,
        schedule=CronDataIntervalTimetable("0 * * * *", timezone="UTC"),
        # Airflow pauses new DAGs by default, and a paused one is never red.
        is_paused_upon_creation=False,
        tags=["balance-bridge", "broken"],
        doc_md=file_doc(error),
    ) as dag:
        Refuse(task_id="accounts_file", error=error, **TASK)
    return dag


def preflight_dag(name: str) -> DAG:
    """Checks everything that a run needs, as a worker sees it; started by hand."""
    with DAG(
        name,
        schedule=None,
        start_date=LONG_AGO,
        catchup=False,
        max_active_runs=1,
        tags=["balance-bridge", "preflight"],
        doc_md=PREFLIGHT_DOC,
    ) as dag:
        Preflight(task_id="look", owner="balance-bridge")
    return dag


def makers(file: AccountsFile) -> dict[str, Callable[[str], DAG]]:
    """The function that makes each DAG, by the DAG's id."""
    found: dict[str, Callable[[str], DAG]] = {}
    for right in file.accounts.values():
        found[dag_id(right.name)] = partial(account_dag, account=right)
        if right.on_break == "ask":
            found[approval_dag_id(right.name)] = partial(approval_dag, account=right)
        if right.intraday is not None:
            found[f"{dag_id(right.name)}_intraday"] = partial(intraday_dag, account=right, step=right.intraday)
    found["balances_preflight"] = preflight_dag
    if file.error is not None:
        found[FILE_DAG] = partial(file_dag, error=file.error)
    for wrong in file.broken.values():
        found[dag_id(wrong.name, {*found, FILE_DAG})] = partial(broken_dag, account=wrong)
    return found


def _daily_params(names: list[str]) -> dict[str, Param]:
    return {
        "date": Param(
            None,
            source="dag",
            type=["null", "string"],
            title="Day",
            description="The UTC day, YYYY-MM-DD. Empty: the logical date's day, else the last one that is over.",
        ),
        "destinations": Param(
            None,
            source="dag",
            type=["null", "array"],
            items={"type": "string"},
            examples=names,
            title="Destinations",
            description=f"Deliver to these only: {', '.join(names)}. Empty: all." if names else "Empty: all.",
        ),
        "dry_run": DRY_RUN,
        "refetch": Param(
            False,
            source="dag",
            type="boolean",
            title="Refetch",
            description="Fetch the day from the exchange again, even if the store has it.",
        ),
        "redeliver": Param(
            False,
            source="dag",
            type="boolean",
            title="Redeliver",
            description="Send balances that were delivered under other keys or settings again, under new numbers.",
        ),
    }


def _with_params(dag: DAG, params: Mapping[str, Param]) -> DAG:
    # After the tasks were added: otherwise Airflow validates the parameters' schemas and copies them three times for
    # each task, which is most of the cost of parsing. A run takes them from the DAG.
    for name, param in params.items():
        dag.params[name] = param
    return dag


def _tags(account: Account) -> list[str]:
    source = account.source
    return ["balance-bridge", source.type, *([source.category] if isinstance(source, AscendexSource) else [])]


def _fetching(account: Account) -> dict[str, Any]:
    # One task at a time for each key: several would only wait for each other's requests.
    pool = {} if account.source.pool is None else {"pool": account.source.pool}
    return {"account": account.name, **pool, **TASK}


def _midnight(account: Account) -> datetime:
    return datetime.combine(account.start_date, time(), UTC)


def _dag(name: str, start: datetime, *, catchup: bool = True, schedule: Any = None, **kwargs: Any) -> DAG:
    return DAG(
        name,
        schedule=schedule or DayTimetable(),
        start_date=start,
        catchup=catchup,
        max_active_runs=1,
        **kwargs,
    )


def make() -> dict[str, DAG]:
    """The DAGs, by id; in a task's process only the task's own DAG."""
    wanted = get_parsing_context().dag_id
    # With many accounts, garbage collection would take a third of the time, and finds nothing.
    gc.disable()
    try:
        found = makers(settings.read_accounts())
        return {name: maker(name) for name, maker in found.items() if wanted in (None, name)}
    finally:
        gc.enable()


DAGS = make()
globals().update(DAGS)
