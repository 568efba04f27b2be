"""The first task of an account's intraday run."""

from __future__ import annotations

from datetime import UTC
from typing import Any

from airflow.sdk.exceptions import AirflowSkipException

from balance_bridge import settings
from balance_bridge.accounts import Account
from balance_bridge.operators.base import FetchingOperator


class FollowDay(FetchingOperator):
    """Gets what has happened since the last time, and works out what each destination can get by now.

    Gives the ``day`` (the UTC day in which the run is due), how far it was followed, and the keys of the balances.
    """

    def fetch(self, context: Any, account: Account) -> dict[str, Any]:
        """See :meth:`FetchingOperator.fetch`."""
        from balance_bridge import intraday

        settings.namespace()
        day = context["dag_run"].run_after.astimezone(UTC).date()
        found = intraday.run(self.job_of(account, day, intraday.asked_by(day)), self.requests(account))
        if found is None:
            raise AirflowSkipException(f"nothing to follow on {day}")
        return found
