"""The first task of an account's intraday run."""

from __future__ import annotations

from datetime import UTC
from typing import Any

from airflow.sdk.exceptions import AirflowSkipException

from balance_bridge import settings
from balance_bridge.errors import BudgetExhausted
from balance_bridge.operators.base import AskingOperator, without_traceback
from balance_bridge.points import BalanceRequest, known_so_far


class FollowDay(AskingOperator):
    """Gets what has happened since the last time, and works out what each destination can be told by now."""

    @without_traceback
    def execute(
        self,
        context: Any,
        event: Any = None,  # noqa: ARG002 - what woke the task, if it had been waiting
        refused: int = 0,
    ) -> dict[str, Any]:
        """Follow the UTC day in which the run is due.

        Args:
            context: Airflow's context.
            event: What woke the task.
            refused: How often the exchange has refused a request since the last one that it answered.

        Returns:
            The ``day``, how far it was followed, and the keys of the balances.
        """
        from balance_bridge import intraday
        from balance_bridge.hooks.destinations import KEYS

        account = self.read_account()
        settings.namespace()
        day = context["dag_run"].run_after.astimezone(UTC).date()
        requests = [
            BalanceRequest(name, destination.points, destination.timezone, KEYS[destination.type], account.start_date)
            for name, destination in account.destinations.items()
            if known_so_far(destination.points)
        ]
        try:
            found = intraday.run(self.job_of(account, day, intraday.asked_by(day)), requests)
        except BudgetExhausted as error:
            self.wait_for_budget(error, refused, {})
        if found is None:
            raise AirflowSkipException(f"nothing to follow on {day}")
        return found
