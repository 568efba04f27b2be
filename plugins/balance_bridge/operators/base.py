"""What the tasks of an account have in common: its configuration, its job, and waiting without a worker.

This module is imported while DAG files are parsed, so whatever needs pandas, the network or the store is imported where
it is used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, date, datetime, timedelta
from functools import wraps
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk import BaseOperator

from balance_bridge import settings
from balance_bridge.accounts import Account
from balance_bridge.errors import (
    AccountsFileError,
    BalanceBridgeError,
    BudgetExhausted,
    NotYetAvailable,
    SnapshotOverdue,
)
from balance_bridge.operators.parameters import check_destinations, check_names
from balance_bridge.points import BalanceRequest

if TYPE_CHECKING:
    from balance_bridge.daily import Job

# A shorter wait costs less than giving up the worker and getting another one.
MAX_INLINE_WAIT_S = 10.0
# A task is woken this much earlier than it can continue: what it takes until it runs again.
LEAD_S = 2.0
LOOK_AGAIN_AFTER_S = 600.0
GIVE_UP_AFTER = timedelta(hours=6)


def without_traceback(execute: Callable[..., Any]) -> Callable[..., Any]:
    """Let a task end with what went wrong, why and what to do, in three short lines, and without our traceback.

    For the errors of this package only: their traceback is logged at the level debug. Anything else is a bug, and keeps
    its traceback.
    """

    @wraps(execute)
    def wrapper(self: BaseOperator, context: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return execute(self, context, *args, **kwargs)
        except BalanceBridgeError as error:
            self.log.debug("Traceback:", exc_info=True)
            # Airflow prints the exception as one long line: what somebody must act on comes before it, in short ones.
            self.log.error("%s", error.log_entry())  # noqa: TRY400 - the traceback is for the level debug
            raise error.with_traceback(None) from None

    return wrapper


class BridgeOperator(BaseOperator):
    """A task of this package: it refuses unknown parameters of its run, rather than ignore them."""

    @without_traceback
    def pre_execute(self, context: Any) -> None:
        """Check the run's parameters. Airflow calls this before each start of a task, also of one that had waited."""
        self.check_parameters(context)

    def check_parameters(self, context: Any) -> None:
        """Check the run's parameters.

        Raises:
            ConfigurationError: If one is unknown or would be ignored.
        """
        check_names(context)


class AccountOperator(BridgeOperator):
    """A task of one account.

    Args:
        account: The account's name in the accounts file.
        day: The UTC day, from the task that resolves it.
    """

    template_fields: Sequence[str] = ("day",)
    ui_color = "#e8f0f8"

    def __init__(self, *, account: str, day: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.account = account
        self.day = day

    def check_parameters(self, context: Any) -> None:
        """See :meth:`BridgeOperator.check_parameters`; the accounts file may have changed since the run began."""
        super().check_parameters(context)
        chosen = context["params"].get("destinations")
        if chosen is not None:
            check_destinations(chosen, self.account, self.read_account().destinations)

    def read_account(self) -> Account:
        """The account as the accounts file has it now or, while that cannot be read, as its last good version has it.

        Raises:
            AccountsFileError: If it is no longer there, or no longer right.
        """
        path = settings.accounts_file()
        file = settings.read_accounts()
        if self.account in file.broken:
            raise file.broken[self.account].error()
        if self.account not in file.accounts:
            raise file.error or AccountsFileError(f"{path}: there is no account {self.account!r} any more")
        if file.error is not None:
            self.log.warning("%s", file.error.log_entry())
        return file.accounts[self.account]

    @contextmanager
    def indexed(self, day: date) -> Iterator[None]:
        """Bring the index of a day up to date once the task has changed it, however the task ends."""
        from balance_bridge import index

        try:
            yield
        finally:
            try:
                index.record(settings.open_store(), self.account, day)
            except Exception as error:
                # It can be made again at any time, and the task's own result is what counts.
                self.log.warning("the page of this day is not up to date: %s", error)

    def requests(self, account: Account) -> list[BalanceRequest]:
        """What each destination of the account asks for."""
        from balance_bridge.hooks.destinations import KEYS

        return [
            BalanceRequest(name, destination.points, destination.timezone, KEYS[destination.type], account.start_date)
            for name, destination in account.destinations.items()
        ]

    def job(self, context: Any, account: Account) -> Job:
        """The account's day as the stages take it."""
        refetch = bool(context["params"].get("refetch"))
        return self.job_of(account, date.fromisoformat(self.day), run_of(context), refetch=refetch)

    def job_of(self, account: Account, day: date, run_id: str, *, refetch: bool = False) -> Job:
        """A day of the account as the stages take it, fetched under this run id."""
        from balance_bridge.daily import Job
        from balance_bridge.hooks.sources import open_source

        return Job(
            source=open_source(account, patience_s=patience_s(account), log=self.log.info),
            store=settings.open_store(),
            account=account.name,
            day=day,
            run_id=run_id,
            refetch=refetch,
            log=self.log.info,
        )


class FetchingOperator(AccountOperator):
    """A task that fetches from the exchange, and waits without a worker: for the request budget, or for data."""

    def fetch(self, context: Any, account: Account) -> dict[str, Any]:
        """Fetch what this task is for; called again after a wait, it continues from what is in the store."""
        raise NotImplementedError

    @without_traceback
    def execute(
        self,
        context: Any,
        event: Any = None,  # noqa: ARG002 - what woke the task, if it had been waiting
        since: str | None = None,
        refused: int = 0,
    ) -> dict[str, Any]:
        """Fetch, or wait.

        Args:
            context: Airflow's context.
            event: What woke the task.
            since: When the wait for data began (ISO, UTC).
            refused: How often the exchange has refused a request since its last successful response.

        Returns:
            What the next tasks need of it.

        Raises:
            RateLimited: The exchange refuses requests although the window was waited for.
            SnapshotOverdue: The data did not come within six hours.
            TaskDeferred: The wait itself, as Airflow takes it.
        """
        try:
            return self.fetch(context, self.read_account())
        except BudgetExhausted as error:
            if error.refusal is not None and refused:
                raise error.refusal from None
            self._wait(error, max(error.wait_s - LEAD_S, 1.0), since=since, refused=int(error.refusal is not None))
        except NotYetAvailable as error:
            if error.wait_s is not None:
                # It cannot be there before: that is not being late.
                self._wait(error, error.wait_s, since=since)
            began = datetime.fromisoformat(since) if since else datetime.now(UTC)
            if datetime.now(UTC) - began >= GIVE_UP_AFTER:
                raise SnapshotOverdue(str(error), why=f"the task has looked for it since {began:%H:%M} UTC") from error
            self._wait(error, LOOK_AGAIN_AFTER_S, since=began.isoformat())
        except BalanceBridgeError:
            # It may have left on record what the exchange does not have.
            with self.indexed(date.fromisoformat(self.day)) if self.day else nullcontext():
                raise

    def _wait(self, error: BudgetExhausted | NotYetAvailable, wait_s: float, **kwargs: Any) -> NoReturn:
        """Give up the worker; ``execute`` is called again after the wait, with these arguments."""
        from airflow.providers.standard.triggers.temporal import DateTimeTrigger

        self.log.info("%s; this task gives up its worker for %.0f s", error, wait_s)
        # Instants of the wall clock: the trigger waits in another process.
        moment = datetime.now(UTC) + timedelta(seconds=wait_s)
        self.defer(trigger=DateTimeTrigger(moment=moment), method_name="execute", kwargs=kwargs)


def patience_s(account: Account) -> float:
    """Seconds for which a task of the account holds its worker while it waits for the request budget."""
    from airflow.sdk.configuration import conf

    deferrable = account.deferrable
    if deferrable is None:
        deferrable = conf.getboolean("operators", "default_deferrable", fallback=False)
    return MAX_INLINE_WAIT_S if deferrable else math.inf


def run_of(context: Any) -> str:
    """The run, and how often it was cleared: a cleared run is another one, a retry by Airflow is the same."""
    cleared = context["dag_run"].clear_number
    return f"{context['run_id']}, cleared {cleared}" if cleared else str(context["run_id"])
