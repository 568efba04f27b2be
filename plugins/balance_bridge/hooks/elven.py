"""The Elven connection."""

from __future__ import annotations

from balance_bridge.accounts import ElvenDestination
from balance_bridge.hooks.connection import ApiHook
from balance_bridge.hooks.transport import MaskingTransport
from balance_bridge.load.destination import Credentials
from balance_bridge.load.elven import Elven

_NOT_A_DESTINATION = "connection-test"


class ElvenHook(ApiHook):
    """Elven as a destination, from an Airflow connection of type ``elven``.

    Args:
        conn_id: The connection's id.
    """

    conn_name_attr = "conn_id"
    conn_type = "elven"
    default_conn_name = "elven_default"
    hook_name = "Elven"
    default_url = "https://openapi.elven.com"

    def __init__(self, conn_id: str = default_conn_name, **kwargs: object) -> None:
        super().__init__(conn_id, **kwargs)

    def get_conn(self, config: ElvenDestination | None = None) -> Elven:
        """The destination.

        Args:
            config: As the accounts file has it; None for a client that can only be tested.
        """
        if config is None:
            config = ElvenDestination(
                name=self.conn_id,
                conn_id=self.conn_id,
                entity_account_id=_NOT_A_DESTINATION,
                source_id=_NOT_A_DESTINATION,
                timezone="UTC",
            )
        login, password = self.secret("login", "API key"), self.secret("password", "API secret")
        return Elven(config, Credentials(self.base_url, login, password), MaskingTransport())

    def _test(self) -> tuple[bool, str]:
        return self.get_conn().check()
