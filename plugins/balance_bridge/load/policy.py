"""How a delivery deals with what does not go as it should: a destination's settings that are no limits."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, Protocol


class Places(Protocol):
    """Places in a window of requests, shared by all who write with the same key."""

    def place(self) -> AbstractContextManager[None]:
        """Hold a place for one request; waits until there is one."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How a delivery deals with what does not go as it should.

    Attributes:
        max_rejected: So many rejected balances of a day are told, and yet the delivery ends well.
        on_unconfirmed: What becomes of a delivery with balances that the destination has seen and does not confirm:
            ``warn`` ends well and counts them, ``fail`` ends with an error.
        bisect_codes: The destination's codes for a bad record. A request that is refused as a whole with one of them is
            divided until the bad records are alone.
        max_in_flight: Requests at the same time.
    """

    max_rejected: int = 0
    on_unconfirmed: Literal["warn", "fail"] = "warn"
    bisect_codes: frozenset[str] = frozenset()
    max_in_flight: int = 1
