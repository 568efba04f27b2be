"""From the accounts file to how a delivery deals with what does not go as it should."""

from __future__ import annotations

from dataclasses import replace

from balance_bridge.accounts import Destination
from balance_bridge.load.policy import Policy


def policy_of(config: Destination, default: Policy) -> Policy:
    """A destination's policy.

    Args:
        config: As the accounts file has it.
        default: What its kind does where the file says nothing.
    """
    return replace(
        default,
        max_rejected=config.max_rejected,
        on_unconfirmed=config.on_unconfirmed,
        max_in_flight=config.max_in_flight,
        bisect_codes=default.bisect_codes if config.bisect_codes is None else frozenset(config.bisect_codes),
    )
