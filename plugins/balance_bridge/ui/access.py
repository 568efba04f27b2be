"""Who is looking: Airflow's user, and the accounts whose DAGs that user may read or trigger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
from airflow.api_fastapi.core_api.security import get_user
from fastapi import Depends, HTTPException

from balance_bridge import settings
from balance_bridge.accounts import Account, AccountsFile
from balance_bridge.days import dag_id


@dataclass(frozen=True)
class Viewer:
    """A user of Airflow, and what they may see.

    Attributes:
        name: As Airflow names them.
        file: The accounts file in force.
        readable: Names of the accounts whose DAG the user may read, in the file's order.
        user: Airflow's object.
    """

    name: str
    file: AccountsFile
    readable: Sequence[str]
    user: Any

    def account(self, name: str) -> Account:
        """An account that the user may see.

        Raises:
            HTTPException: 404 if there is none: whether it exists is not said to those who may not see it.
        """
        if name not in self.readable or name not in self.file.accounts:
            raise HTTPException(404, f"There is no account {name!r}, or you may not see it")
        return self.file.accounts[name]

    def may_trigger(self, account: str) -> bool:
        """Whether the user may start runs of the account's DAG."""
        return bool(
            get_auth_manager().is_authorized_dag(
                method="POST",
                access_entity=DagAccessEntity.RUN,
                details=DagDetails(id=dag_id(account)),
                user=self.user,
            )
        )


def _viewer(user: Annotated[Any, Depends(get_user)]) -> Viewer:
    file = settings.read_accounts()
    allowed = get_auth_manager().get_authorized_dag_ids(user=user, method="GET")
    right = {name: dag_id(name) for name in file.accounts}
    wrong = {name: dag_id(name, right.values()) for name in file.broken}
    readable = [name for name, dag in {**right, **wrong}.items() if dag in allowed]
    return Viewer(str(user.get_name()), file, readable, user)


SignedIn = Annotated[Viewer, Depends(_viewer)]
