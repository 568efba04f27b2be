"""The Amlyze connection."""

from __future__ import annotations

from balance_bridge.accounts import AmlyzeDestination
from balance_bridge.hooks.connection import ApiHook
from balance_bridge.hooks.transport import MaskingTransport
from balance_bridge.load.amlyze import Amlyze
from balance_bridge.load.destination import Credentials


class AmlyzeHook(ApiHook):
    """An Amlyze tenant as a destination, from an Airflow connection of type ``amlyze``.

    Args:
        conn_id: The connection's id.
    """

    conn_name_attr = "conn_id"
    conn_type = "amlyze"
    default_conn_name = "amlyze_default"
    hook_name = "Amlyze"

    def __init__(self, conn_id: str = default_conn_name, **kwargs: object) -> None:
        super().__init__(conn_id, **kwargs)

    def get_conn(self, config: AmlyzeDestination | None = None) -> Amlyze:
        """The destination.

        Args:
            config: As the accounts file has it; None for a client that can only be tested.
        """
        if config is None:
            config = AmlyzeDestination(
                name=self.conn_id, conn_id=self.conn_id, requester="connection test", account_ext_id="{asset}"
            )
        token = self.secret("password", "bearer token")
        return Amlyze(config, Credentials(self.base_url, "", token), MaskingTransport())

    def _test(self) -> tuple[bool, str]:
        return self.get_conn().check()
