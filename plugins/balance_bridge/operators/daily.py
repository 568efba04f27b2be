"""The tasks of an account's daily run.

This module is imported while DAG files are parsed, so whatever needs pandas, the network or the store is imported where
it is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from balance_bridge import settings
from balance_bridge.accounts import Account
from balance_bridge.days import resolve_day
from balance_bridge.operators.base import AccountOperator, FetchingOperator, without_traceback


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


class FetchSnapshot(FetchingOperator):
    """Gets one of the day's two snapshots into the store; waits for one that is not there yet.

    The first one also rescues days that the exchange is about to forget. Gives key, sequence number, instant and number
    of assets.

    Args:
        which: The ``opening`` or the ``closing`` one.
    """

    def __init__(self, *, which: Literal["opening", "closing"], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.which = which

    def fetch(self, context: Any, account: Account) -> dict[str, Any]:
        """See :meth:`FetchingOperator.fetch`."""
        from balance_bridge.daily import fetch_snapshot, rescue_expiring_days

        job = self.job(context, account)
        if self.which == "opening":
            for day in rescue_expiring_days(job, account.start_date, account.tolerance):
                with self.indexed(day):
                    pass
        return fetch_snapshot(job, self.which)


class FetchHistory(FetchingOperator):
    """Gets every change of the day into the store, and proves that the day adds up; comes after both snapshots.

    Gives the key of the day's manifest, the status of its proof, and counts.
    """

    def fetch(self, context: Any, account: Account) -> dict[str, Any]:
        """See :meth:`FetchingOperator.fetch`."""
        from balance_bridge.daily import fetch_history

        return fetch_history(self.job(context, account), account.tolerance)


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

        account = self.read_account()
        job = self.job(context, account)
        with self.indexed(job.day):
            return reconcile(
                job,
                self.extracted,
                tolerance=account.tolerance,
                on_break=account.on_break,
                destinations=self.requests(account),
            )
