"""From a destination of the accounts file to the client that delivers there."""

from __future__ import annotations

from typing import Literal

from balance_bridge.accounts import Destination as Config
from balance_bridge.accounts import WebhookDestination
from balance_bridge.hooks.amlyze import AmlyzeHook
from balance_bridge.hooks.connection import ApiHook
from balance_bridge.hooks.elven import ElvenHook
from balance_bridge.hooks.webhook import WebhookHook
from balance_bridge.load.destination import Destination

HOOKS: dict[str, type[ApiHook]] = {"elven": ElvenHook, "amlyze": AmlyzeHook, "webhook": WebhookHook}

# Elven knows a balance by its local text, which has no fraction and no zone; the others by its instant.
KEYS: dict[str, Literal["instant", "local_second"]] = {
    "elven": "local_second",
    "amlyze": "instant",
    "webhook": "instant",
}


def open_destination(config: Config, account: str) -> Destination:
    """The destination with its connection.

    Args:
        config: As the accounts file has it.
        account: The account's name there.

    Raises:
        ConfigurationError: If the connection is missing or wrong.
    """
    if isinstance(config, WebhookDestination):
        return WebhookHook(config.conn_id).get_conn(config, account)
    destination: Destination = HOOKS[config.type](config.conn_id).get_conn(config)
    return destination
