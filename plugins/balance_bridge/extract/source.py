"""What a source must be able to do: positions by day, and changes after a position.

A source turns an exchange's responses into two things that the rest of the package knows: a :class:`SnapshotResponse`
and a :class:`Page`. It knows nothing of the store, of days or of destinations.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, ClassVar, Protocol

from balance_bridge.transform.snapshot import Snapshot
from balance_bridge.transport import Response


class Record(Protocol):
    """A change as the exchange records it, with its place in the one order of all changes."""

    shares_sn: ClassVar[bool]
    """Whether another record of the same event may have the same sequence number."""

    @property
    def sn(self) -> int:
        """The sequence number: increasing, with gaps."""


@dataclass(frozen=True)
class SnapshotResponse:
    """A day's opening balances, as read from a response.

    Attributes:
        account_ref: The exchange's own name of the account, as this endpoint spells it.
        snapshot: Sequence number, instant and balances.
    """

    account_ref: str
    snapshot: Snapshot


@dataclass(frozen=True)
class Page:
    """One page of changes, as read from a response.

    Attributes:
        account_ref: The exchange's own name of the account, as this endpoint spells it.
        lists: The page's lists of records as they came, each in any order. They share one sequence of numbers.
        legs: The records as a ``pyarrow.Table`` of the schema ``transform.schema.LEGS``, in any order, each event once.
    """

    account_ref: str
    lists: tuple[Sequence[Record], ...]
    legs: Any = field(default=None, repr=False)

    def __len__(self) -> int:
        return sum(len(records) for records in self.lists)


class Source(ABC):
    """One account at an exchange, or at whoever else keeps it.

    Attributes:
        who: What messages call the other side, such as ``the exchange``.
        page_limit: Records that a full page holds at least; a page with fewer holds everything that there is yet.
        settle: How long after a day's end its closing snapshot is first fetched, so that what the other side books
            late is in it.
        comes_late: Whether a past day's data may still come, and in any order; otherwise what is not there after the
            day never will be.
        one_account_name: Whether snapshots and changes spell the account's name alike.
    """

    who: str
    page_limit: int
    settle: timedelta = timedelta(0)
    comes_late: ClassVar[bool] = False
    one_account_name: ClassVar[bool] = False

    @abstractmethod
    def now(self) -> float:
        """Seconds since the epoch (UTC) by the other side's clock, as far as it was seen, else by ours."""

    def today(self) -> date:
        """The UTC day of :meth:`now`."""
        return datetime.fromtimestamp(self.now(), UTC).date()

    @abstractmethod
    def oldest(self) -> date | None:
        """The oldest available day; None if the other side forgets nothing."""

    @abstractmethod
    def fetch_snapshot(self, day: date) -> Response:
        """Fetch the balances at the start of a UTC day.

        Raises:
            NotYetAvailable: There is none for that date (too early, or too long ago).
        """

    @abstractmethod
    def fetch_changes(self, from_sn: int, day: date, closing_sn: int | None) -> Response:
        """Fetch the page of changes that begins at a sequence number (itself included).

        Args:
            from_sn: Where to begin.
            day: The UTC day that is being put together, for sources that file their changes by day.
            closing_sn: The sequence number with which that day closes; None while it goes on.

        Raises:
            NotYetAvailable: The changes are not all there yet.
        """

    @abstractmethod
    def read_snapshot(self, body: bytes, day: date) -> SnapshotResponse:
        """Interpret a response to :meth:`fetch_snapshot`.

        Raises:
            InvalidResponse: If it is not what the exchange documents, or another day's.
        """

    @abstractmethod
    def read_page(self, body: bytes) -> Page:
        """Interpret a response to :meth:`fetch_changes`.

        Raises:
            InvalidResponse: If it is not what the exchange documents, or an amount or an asset is malformed.
            Contradiction: If a sequence number comes twice with different content.
        """
