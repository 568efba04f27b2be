"""The tasks of an account's daily run.

This module is imported while DAG files are parsed, so whatever needs pandas, the network or the store is imported where
it is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from balance_bridge import settings
from balance_bridge.accounts import Account
from balance_bridge.days import resolve_day
from balance_bridge.errors import BudgetExhausted, NotYetAvailable, SnapshotOverdue
from balance_bridge.operators.base import AccountOperator, AskingOperator, without_traceback
from balance_bridge.points import BalanceRequest

if TYPE_CHECKING:
    from balance_bridge.daily import Job

LOOK_AGAIN_AFTER = timedelta(minutes=10)
GIVE_UP_AFTER = timedelta(hours=6)


class ResolveDay(AccountOperator):
    """Decides, once for all tasks of the run, which day it is about; refuses what cannot be run at all."""

    @without_traceback
    def execute(self, context: Any) -> str:
        """Resolve the day.

        Returns:
            The UTC day as ``YYYY-MM-DD``.
        """
        account = self.read_account()
        settings.namespace()
        run = context["dag_run"]
        requested = context["params"].get("date")
        day = resolve_day(requested, run.logical_date, run.run_after, run_type=run.run_type)
        self.log.info("%s: this run delivers %s (UTC)", account.name, day)
        if run.logical_date is not None and requested is None and run.logical_date.date() > day:
            self.log.warning("the day of the logical date %s is not over; %s is the last", run.logical_date, day)
        return day.isoformat()


class WaitingOperator(AskingOperator):
    """A task that fetches something of the day and waits, without a worker, for what is not there yet."""

    @without_traceback
    def execute(
        self,
        context: Any,
        event: Any = None,  # noqa: ARG002 - what woke the task, if it had been waiting
        since: str | None = None,
        refused: int = 0,
    ) -> dict[str, Any]:
        """Fetch it.

        Args:
            context: Airflow's context.
            event: What woke the task.
            since: When the wait for what is not there yet began (ISO, UTC).
            refused: How often the exchange has refused a request since the last one that it answered.

        Returns:
            What the next tasks need of it.
        """
        account = self.read_account()
        job = self.job(context, account)
        try:
            return self._fetch(job, account)
        except BudgetExhausted as error:
            self.wait_for_budget(error, refused, {"since": since})
        except NotYetAvailable as error:
            self.wait_for_data(error, since, job.source.who)

    def _fetch(self, job: Job, account: Account) -> dict[str, Any]:
        raise NotImplementedError

    def wait_for_data(self, error: NotYetAvailable, since: str | None, who: str) -> NoReturn:
        """Look again in ten minutes, for six hours; or, without counting, when it is time to look at all.

        Args:
            error: What is not there yet.
            since: When the wait began (ISO, UTC); None if it begins now.
            who: Where it should come from.

        Raises:
            SnapshotOverdue: It has been waited for too long.
            TaskDeferred: The wait itself, as Airflow takes it.
        """
        now = datetime.now(UTC)
        if error.wait_s is not None:
            self.log.info("%s", error)
            self.wait_until(now + timedelta(seconds=error.wait_s), {"since": since})
        began = datetime.fromisoformat(since) if since else now
        if now - began >= GIVE_UP_AFTER:
            raise SnapshotOverdue(
                str(error),
                why=f"the task has looked for it since {began:%H:%M} UTC",
                do=f"Find out whether {who} is in trouble; clear this task once it is there",
            ) from error
        self.log.info("%s; looking again in %d min", error, LOOK_AGAIN_AFTER.total_seconds() // 60)
        self.wait_until(now + LOOK_AGAIN_AFTER, {"since": began.isoformat()})


class FetchSnapshot(WaitingOperator):
    """Gets one of the day's two snapshots into the store; waits for one that is not there yet.

    The first one also rescues days that the exchange is about to forget. Gives key, sequence number, instant and number
    of assets.

    Args:
        which: The ``opening`` or the ``closing`` one.
    """

    def __init__(self, *, which: Literal["opening", "closing"], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.which = which

    def _fetch(self, job: Job, account: Account) -> dict[str, Any]:
        from balance_bridge.daily import fetch_snapshot, rescue_expiring_days

        if self.which == "opening":
            for day in rescue_expiring_days(job, account.start_date, account.tolerance):
                with self.indexed(day):
                    pass
        return fetch_snapshot(job, self.which)


class FetchHistory(WaitingOperator):
    """Gets every change of the day into the store, and proves that the day adds up; comes after both snapshots.

    Gives the key of the day's manifest, the status of its proof, and counts.
    """

    def _fetch(self, job: Job, account: Account) -> dict[str, Any]:
        from balance_bridge.daily import fetch_history

        return fetch_history(job, account.tolerance)


class Reconcile(AccountOperator):
    """Works out what each destination is to get of a day that was proven; holds one that does not add up.

    Args:
        extracted: What the history's task handed on.
    """

    template_fields: Sequence[str] = ("day", "extracted")

    def __init__(self, *, extracted: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.extracted = extracted

    @without_traceback
    def execute(self, context: Any) -> dict[str, Any]:
        """Reconcile.

        Returns:
            Status and summary of the proof, and the keys of what was stored.
        """
        from balance_bridge.daily import reconcile
        from balance_bridge.hooks.destinations import KEYS

        account = self.read_account()
        requests = [
            BalanceRequest(name, destination.points, destination.timezone, KEYS[destination.type], account.start_date)
            for name, destination in account.destinations.items()
        ]
        job = self.job(context, account)
        with self.indexed(job.day):
            return reconcile(
                job,
                self.extracted,
                tolerance=account.tolerance,
                on_break=account.on_break,
                destinations=requests,
            )
