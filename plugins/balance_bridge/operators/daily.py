"""The tasks of an account's daily run.

This module is imported while DAG files are parsed, so whatever needs pandas, the network or the store is imported where
it is used.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import wraps
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from airflow.sdk import Asset, AssetAlias, BaseOperator
from airflow.sdk.exceptions import AirflowSkipException

from balance_bridge import settings
from balance_bridge.accounts import Account, load_accounts
from balance_bridge.days import resolve_day
from balance_bridge.errors import (
    AccountsFileError,
    BalanceBridgeError,
    ConfigurationError,
    NotYetAvailable,
    SnapshotOverdue,
)

if TYPE_CHECKING:
    from balance_bridge.daily import Job

ASK_AGAIN_AFTER = timedelta(minutes=10)
GIVE_UP_AFTER = timedelta(hours=6)


def _asked_by(context: Any) -> str:
    """Who asks the exchange: the run, and how often it was cleared, since a cleared run may ask anew."""
    cleared = context["dag_run"].clear_number
    return f"{context['run_id']}, cleared {cleared}" if cleared else str(context["run_id"])


def plainly(execute: Callable[..., Any]) -> Callable[..., Any]:
    """Let a task end with the message of what went wrong, not with a page of where it was noticed.

    For the errors of this package only: they say what, where and what to do. The way they took is logged at the level
    debug. Anything else is a bug, and keeps its traceback.
    """

    @wraps(execute)
    def wrapper(self: BaseOperator, context: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return execute(self, context, *args, **kwargs)
        except BalanceBridgeError as error:
            self.log.debug("The way of the error:", exc_info=True)
            raise error.with_traceback(None) from None

    return wrapper


class AccountOperator(BaseOperator):
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

    def read_account(self) -> Account:
        """The account as the accounts file has it now.

        Raises:
            AccountsFileError: If it is no longer there, or no longer right.
        """
        path = settings.accounts_file()
        file = load_accounts(path)
        if self.account in file.broken:
            raise AccountsFileError(file.broken[self.account].message)
        if self.account not in file.accounts:
            raise AccountsFileError(f"{path}: there is no account {self.account!r} any more")
        return file.accounts[self.account]

    def job(self, context: Any, account: Account) -> Job:
        """The account's day as the stages take it."""
        from balance_bridge.daily import Job
        from balance_bridge.hooks.ascendex import AscendexHook

        return Job(
            source=AscendexHook(account.source.conn_id).source(account.source.category),
            store=settings.open_store(),
            account=account.name,
            day=date.fromisoformat(self.day),
            retention_days=account.source.retention_days,
            run_id=_asked_by(context),
            refetch=bool(context["params"].get("refetch")),
            log=self.log.info,
        )


class ResolveDay(AccountOperator):
    """Decides, once for all tasks of the run, which day it is about; refuses what cannot be run at all."""

    @plainly
    def execute(self, context: Any) -> str:
        """Resolve the day.

        Returns:
            The UTC day as ``YYYY-MM-DD``.
        """
        account = self.read_account()
        params = context["params"]
        # Not the context's: with those Airflow has already mixed whatever the run was triggered with.
        self._refuse_unknown(context["dag_run"].conf or {}, context["dag"].params)
        unknown = sorted(set(params.get("destinations") or ()) - set(account.destinations))
        if unknown:
            raise ConfigurationError(
                f"destinations = {', '.join(unknown)}: {account.name} has none of that name; "
                f"allowed: {', '.join(account.destinations)}"
            )
        settings.namespace()
        run = context["dag_run"]
        day = resolve_day(params.get("date"), run.logical_date, run.run_after)
        self.log.info("%s: this run delivers %s (UTC)", account.name, day)
        if run.logical_date is not None and not params.get("date") and run.logical_date.date() > day:
            self.log.warning("the day of the logical date %s is not over; %s is the last", run.logical_date, day)
        return day.isoformat()

    def _refuse_unknown(self, conf: Mapping[str, Any], params: Mapping[str, Any]) -> None:
        # Airflow takes any key, and a misspelt dry_run would be a real delivery.
        for name in conf:
            if name not in params:
                close = difflib.get_close_matches(name, params, n=1)
                raise ConfigurationError(
                    f"this run was triggered with {name!r}, which is no parameter of this DAG"
                    f"{f', did you mean {close[0]}?' if close else ''}; allowed: {', '.join(params)}"
                )


class RefuseAccount(BaseOperator):
    """The first and only task of an account that the accounts file gets wrong.

    Args:
        message: All that is wrong with it.
    """

    ui_color = "#f8d8d8"

    def __init__(self, *, message: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.message = message

    @plainly
    def execute(self, context: Any) -> None:  # noqa: ARG002
        """Fail with the whole message."""
        raise AccountsFileError(self.message)


class FetchSnapshot(AccountOperator):
    """Gets one of the day's two snapshots into the store; waits for one that is not there yet.

    Args:
        which: The ``opening`` or the ``closing`` one.
    """

    def __init__(self, *, which: Literal["opening", "closing"], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.which = which

    @plainly
    def execute(self, context: Any, event: Any = None, since: str | None = None) -> dict[str, Any]:  # noqa: ARG002
        """Fetch it.

        Args:
            context: Airflow's context.
            event: What woke the task, if it had been waiting.
            since: When the wait began (ISO, UTC).

        Returns:
            Key, sequence number, instant and number of assets.
        """
        from balance_bridge.daily import fetch_snapshot

        try:
            return fetch_snapshot(self.job(context, self.read_account()), self.which)
        except NotYetAvailable as error:
            now = datetime.now(UTC)
            began = datetime.fromisoformat(since) if since else now
            if now - began >= GIVE_UP_AFTER:
                raise SnapshotOverdue(
                    f"{error}; it was asked for since {began:%H:%M} UTC. Look whether the exchange is in trouble, and "
                    "clear this task when the snapshot is there"
                ) from error
            self.log.info("%s; asking again in %d min", error, ASK_AGAIN_AFTER.total_seconds() // 60)
            self._wait(now, began)

    def _wait(self, now: datetime, began: datetime) -> NoReturn:
        from airflow.providers.standard.triggers.temporal import DateTimeTrigger

        self.defer(
            trigger=DateTimeTrigger(moment=now + ASK_AGAIN_AFTER),
            method_name="execute",
            kwargs={"since": began.isoformat()},
        )


class FetchHistory(AccountOperator):
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

    @plainly
    def execute(self, context: Any) -> dict[str, Any]:
        """Fetch it.

        Returns:
            The keys of the snapshots, the folder of the pages, and counts.
        """
        from balance_bridge.daily import fetch_history

        account = self.read_account()
        return fetch_history(self.job(context, account), self.opening, self.closing, account.tolerance)


class Reconcile(AccountOperator):
    """Proves that the day adds up and works out what each destination is to get.

    Args:
        extracted: What the history's task handed on.
    """

    template_fields: Sequence[str] = ("day", "extracted")

    def __init__(self, *, extracted: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.extracted = extracted

    @plainly
    def execute(self, context: Any) -> dict[str, Any]:
        """Reconcile.

        Returns:
            Status and summary of the proof, and the keys of what was stored.
        """
        from balance_bridge.daily import Wanted, reconcile
        from balance_bridge.hooks.destinations import KEYS

        account = self.read_account()
        wanted = [
            Wanted(name, destination.points, destination.timezone, KEYS[destination.type])
            for name, destination in account.destinations.items()
        ]
        return reconcile(
            self.job(context, account),
            self.extracted,
            tolerance=account.tolerance,
            on_break=account.on_break,
            destinations=wanted,
        )


class Deliver(AccountOperator):
    """Delivers the day's balances to one destination.

    Args:
        destination: The destination's name in the accounts file.
        reconciled: What the reconciliation's task handed on.
    """

    template_fields: Sequence[str] = ("day", "reconciled")

    def __init__(self, *, destination: str, reconciled: Any, **kwargs: Any) -> None:
        self.alias = AssetAlias(f"balance-bridge {kwargs['account']} {destination}")
        # An alias, because an asset among the outlets would have an event whether or not anything was accepted.
        super().__init__(outlets=[self.alias], **kwargs)
        self.destination = destination
        self.reconciled = reconciled

    @plainly
    def execute(self, context: Any) -> dict[str, Any]:
        """Deliver.

        Returns:
            Counts per outcome.
        """
        from balance_bridge.hooks.destinations import open_destination
        from balance_bridge.load.delivery import deliver
        from balance_bridge.load.destination import balances_from_table
        from balance_bridge.transform import balances

        chosen = context["params"].get("destinations")
        if chosen and self.destination not in chosen:
            raise AirflowSkipException(f"this run is for {', '.join(chosen)} only")
        account = self.read_account()
        self._check_both_know(account)
        store = settings.open_store()
        table = balances.from_parquet(store.read(self.reconciled["balances"][self.destination]))
        if self.reconciled["status"] == "broken":
            self.log.warning("%s %s does not add up and is delivered all the same", account.name, self.day)
        summary = deliver(
            destination=open_destination(account.destinations[self.destination]),
            store=store,
            account=account.name,
            day=date.fromisoformat(self.day),
            namespace=settings.namespace(),
            balances=balances_from_table(table),
            run_id=context["run_id"],
            log=self.log.info,
            dry_run=bool(context["params"].get("dry_run")),
        )
        counts = {"reconciliation": self.reconciled["status"], **summary.as_dict()}
        if summary.accepted_now:
            asset = Asset(f"balance-bridge://{account.name}/{self.destination}")
            context["outlet_events"][self.alias].add(asset, extra=counts)
        return counts

    def _check_both_know(self, account: Account) -> None:
        if self.destination not in account.destinations:
            raise ConfigurationError(
                f"{settings.accounts_file()}: {account.name} has no destination {self.destination!r} any more"
            )
        if self.destination not in self.reconciled["balances"]:
            raise ConfigurationError(
                f"{self.destination} was not in the accounts file when this day was reconciled: clear the task "
                "reconcile as well"
            )
