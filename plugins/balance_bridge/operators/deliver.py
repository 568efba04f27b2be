"""The task that delivers, of a day that is over or of one that is still going on."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

from airflow.sdk import Asset, AssetAlias
from airflow.sdk.exceptions import AirflowSkipException

from balance_bridge import settings
from balance_bridge.accounts import Account
from balance_bridge.errors import ConfigurationError, SupersededRun
from balance_bridge.operators.base import AccountOperator, run_of, without_traceback


class Deliver(AccountOperator):
    """Delivers the day's balances to one destination.

    Args:
        destination: The destination's name in the accounts file.
        reconciled: What the task before handed on: the day, how it is proven, and the keys of the balances.
    """

    template_fields: Sequence[str] = ("reconciled",)

    def __init__(self, *, destination: str, reconciled: Any, **kwargs: Any) -> None:
        self.alias = AssetAlias(f"balance-bridge {kwargs['account']} {destination}")
        # An alias, because an asset among the outlets would have an event whether or not anything was accepted.
        super().__init__(outlets=[self.alias], **kwargs)
        self.destination = destination
        self.reconciled = reconciled

    @without_traceback
    def execute(self, context: Any) -> dict[str, Any]:
        """Deliver.

        Returns:
            Counts per outcome.
        """
        from balance_bridge.daily import SO_FAR, refuse_if_held_since
        from balance_bridge.hooks.destinations import open_destination
        from balance_bridge.hooks.prices import due_balances
        from balance_bridge.load.delivery import Delivery, deliver

        params = context["params"]
        chosen = params.get("destinations")
        if chosen and self.destination not in chosen:
            raise AirflowSkipException(f"this run is for {', '.join(chosen)} only")
        account = self.read_account()
        self._check_both_know(account)
        status, key = self.reconciled["status"], self.reconciled["balances"][self.destination]
        config, store = account.destinations[self.destination], settings.open_store()
        refuse_if_held_since(store, account.name, self.reconciled, on_break=account.on_break)
        due, without = due_balances(store, key, config, self.log.info)
        if status == "broken":
            self.log.warning("%s %s does not add up and is delivered anyway", account.name, self.reconciled["day"])
        delivery = Delivery(
            destination=open_destination(config, account.name),
            store=store,
            account=account.name,
            day=date.fromisoformat(self.reconciled["day"]),
            namespace=settings.namespace(),
            generation=key,
            run_id=run_of(context),
            so_far=status == SO_FAR,
            redeliver=bool(params.get("redeliver")),
            dry_run=bool(params.get("dry_run")),
            log=self.log.info,
        )
        try:
            with self.indexed(delivery.day):
                summary = deliver(delivery, due)
        except SupersededRun as error:
            if delivery.so_far and not error.late:
                # Nothing is wrong: the run of the whole day has all of it.
                raise AirflowSkipException(str(error)) from error
            raise
        counts = {"reconciliation": status, **_approval(self.reconciled), **summary.as_dict()}
        if without is not None:
            counts["without_equivalent"] = without
        if summary.accepted_now:
            asset = Asset(f"balance-bridge://{account.name}/{self.destination}")
            context["outlet_events"][self.alias].add(asset, extra=counts)
        return counts

    def _check_both_know(self, account: Account) -> None:
        if self.destination not in account.destinations:
            raise ConfigurationError(
                f"{settings.accounts_file()}: {account.name} has no destination {self.destination!r} any more",
                do="Nothing, if that is intended; otherwise put it back, then clear this task.",
            )
        if self.destination not in self.reconciled["balances"]:
            raise ConfigurationError(
                f"{self.destination} was not in the accounts file when these balances were computed",
                do="Clear the task before this one as well.",
            )


def _approval(reconciled: Any) -> dict[str, Any]:
    # Of a day that was approved although it does not add up: who did, when and why.
    approval = reconciled.get("approval")
    return {} if approval is None else {"approval": approval}
