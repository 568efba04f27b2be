"""The Amlyze connection."""

from __future__ import annotations

from balance_bridge.accounts import AmlyzeDestination
from balance_bridge.hooks.connection import ApiHook
from balance_bridge.hooks.transport import MaskingTransport
from balance_bridge.load.amlyze import Amlyze
from balance_bridge.transport import Credentials


class AmlyzeHook(ApiHook):
    """An Amlyze tenant as a destination, from an Airflow connection of type ``amlyze``.

    Args:
        conn_id: The connection's id.
    """

    conn_type = "amlyze"
    default_conn_name = "amlyze_default"
    hook_name = "Amlyze"

    def get_conn(self, config: AmlyzeDestination | None = None) -> Amlyze:
        """The destination.

        Args:
            config: As the accounts file has it; None for a client that can only be tested.
        """
        credentials = Credentials(self.base_url, "", self.secret("password", "bearer token"))
        config = config or AmlyzeDestination.model_construct(name=self.conn_id)
        return Amlyze(config, credentials, MaskingTransport())
