"""The Elven connection."""

from __future__ import annotations

from balance_bridge.accounts import ElvenDestination
from balance_bridge.hooks.connection import ApiHook
from balance_bridge.hooks.transport import MaskingTransport
from balance_bridge.load.elven import Elven
from balance_bridge.transport import Credentials


class ElvenHook(ApiHook):
    """Elven as a destination, from an Airflow connection of type ``elven``.

    Args:
        conn_id: The connection's id.
    """

    conn_type = "elven"
    default_conn_name = "elven_default"
    hook_name = "Elven"
    default_url = "https://openapi.elven.com"

    def get_conn(self, config: ElvenDestination | None = None) -> Elven:
        """The destination.

        Args:
            config: As the accounts file has it; None for a client that can only be tested.
        """
        key, secret = self.secret("login", "API key"), self.secret("password", "API secret")
        config = config or ElvenDestination.model_construct(name=self.conn_id)
        return Elven(config, Credentials(self.base_url, key, secret), MaskingTransport())
