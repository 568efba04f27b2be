"""A snapshot of an account; plain Python, for those who pass snapshots on and compute nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from balance_bridge.errors import Contradiction


@dataclass(frozen=True)
class Snapshot:
    """An account's balances at one place in the sequence of its records.

    Attributes:
        sn: The last sequence number that is contained in the balances.
        at_ms: The instant, UTC milliseconds.
        balances: Per asset; one that is absent is zero.
    """

    sn: int
    at_ms: int
    balances: Mapping[str, Decimal]


def check_order(opening: Snapshot, closing: Snapshot) -> None:
    """Refuse a closing snapshot that does not follow the opening one.

    Raises:
        Contradiction: If its time does not rise, or its sequence number falls. Equal numbers are a day without
            records.
    """
    if closing.at_ms <= opening.at_ms:
        raise Contradiction(
            f"the closing snapshot's time {closing.at_ms} is not after the opening one's {opening.at_ms} (UTC ms)",
            do="Check the days that were requested",
        )
    if closing.sn < opening.sn:
        raise Contradiction(
            f"the closing snapshot's sn {closing.sn} is below the opening one's {opening.sn}",
            why="The two are not of one account, or the exchange began a new sequence",
        )
