"""The tasks of an account's daily run.

This module is imported while DAG files are parsed, so whatever needs pandas, the network or the store is imported where
it is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from balance_bridge import settings
from balance_bridge.days import resolve_day
from balance_bridge.errors import (
    BudgetExhausted,
    NotYetAvailable,
    SnapshotOverdue,
)
from balance_bridge.operators.base import AccountOperator, AskingOperator, without_traceback
from balance_bridge.points import BalanceRequest

ASK_AGAIN_AFTER = timedelta(minutes=10)
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


class FetchSnapshot(AskingOperator):
    """Gets one of the day's two snapshots into the store; waits for one that is not there yet.

    The first one also saves days that the exchange is about to forget.

    Args:
        which: The ``opening`` or the ``closing`` one.
    """

    def __init__(self, *, which: Literal["opening", "closing"], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.which = which

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
            since: When the wait for the snapshot began (ISO, UTC).
            refused: How often the exchange has refused a request since the last one that it answered.

        Returns:
            Key, sequence number, instant and number of assets.
        """
        from balance_bridge.daily import fetch_snapshot, rescue_expiring_days

        account = self.read_account()
        job = self.job(context, account)
        try:
            if self.which == "opening":
                rescue_expiring_days(job, account.start_date, account.tolerance)
            return fetch_snapshot(job, self.which)
        except BudgetExhausted as error:
            self.wait_for_budget(error, refused, {"since": since})
        except NotYetAvailable as error:
            now = datetime.now(UTC)
            began = datetime.fromisoformat(since) if since else now
            if now - began >= GIVE_UP_AFTER:
                raise SnapshotOverdue(
                    f"{error}; it was asked for since {began:%H:%M} UTC. Look whether {job.source.who} is in trouble, "
                    "and clear this task when the snapshot is there"
                ) from error
            self.log.info("%s; asking again in %d min", error, ASK_AGAIN_AFTER.total_seconds() // 60)
            self.wait_until(now + ASK_AGAIN_AFTER, {"since": began.isoformat()})


class FetchHistory(AskingOperator):
    """Gets every change of the day into the store.

    Args:
        opening: What the opening snapshot's task handed on.
        closing: What the closing snapshot's task handed on.
    """

    template_fields: Sequence[str] = ("day", "opening", "closing")

    def __init__(self, *, opening: Any, closing: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.opening = opening
        self.closing = closing

    @without_traceback
    def execute(
        self,
        context: Any,
        event: Any = None,  # noqa: ARG002 - what woke the task, if it had been waiting
        refused: int = 0,
    ) -> dict[str, Any]:
        """Fetch it.

        Args:
            context: Airflow's context.
            event: What woke the task.
            refused: How often the exchange has refused a request since the last one that it answered.

        Returns:
            The keys of the snapshots, the folder of the pages, and counts.
        """
        from balance_bridge.daily import fetch_history

        account = self.read_account()
        try:
            return fetch_history(self.job(context, account), self.opening, self.closing, account.tolerance)
        except BudgetExhausted as error:
            self.wait_for_budget(error, refused, {})


class Reconcile(AccountOperator):
    """Proves that the day adds up and works out what each destination is to get.

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
        return reconcile(
            self.job(context, account),
            self.extracted,
            tolerance=account.tolerance,
            on_break=account.on_break,
            destinations=requests,
        )
