"""From a destination of the accounts file to the thing that delivers there."""

from __future__ import annotations

from typing import Literal

from balance_bridge.accounts import AmlyzeDestination, Destination, ElvenDestination
from balance_bridge.hooks.amlyze import AmlyzeHook
from balance_bridge.hooks.connection import ApiHook
from balance_bridge.hooks.elven import ElvenHook
from balance_bridge.load.destination import Destination as Delivers

HOOKS: dict[str, type[ApiHook]] = {"elven": ElvenHook, "amlyze": AmlyzeHook}

# Elven knows a balance by its local text, which has no fraction and no zone; Amlyze by its instant.
KEYS: dict[str, Literal["instant", "local_second"]] = {"elven": "local_second", "amlyze": "instant"}


def open_destination(config: Destination) -> Delivers:
    """The destination with its connection.

    Raises:
        ConfigurationError: If the connection is missing or wrong.
    """
    if isinstance(config, ElvenDestination):
        return ElvenHook(config.conn_id).get_conn(config)
    if isinstance(config, AmlyzeDestination):
        return AmlyzeHook(config.conn_id).get_conn(config)
    raise TypeError(f"no hook for {type(config).__name__}")
