"""What a source must be able to do: positions by day, and changes after a position.

A source turns an exchange's answers into three things that the rest of the package knows: a :class:`SnapshotResponse`,
a :class:`Page` and a table of legs. It knows nothing of the store, of days or of destinations.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Protocol

from balance_bridge.transform.snapshot import Snapshot
from balance_bridge.transport import Response

if TYPE_CHECKING:
    import pyarrow as pa


class Record(Protocol):
    """A change as the exchange records it, with its place in the one order of all changes."""

    @property
    def sn(self) -> int:
        """The sequence number: unique, increasing, with gaps."""


@dataclass(frozen=True)
class SnapshotResponse:
    """A day's opening balances, as read from an answer.

    Attributes:
        account_ref: The exchange's own name of the account, as this endpoint spells it.
        snapshot: Sequence number, instant and balances.
    """

    account_ref: str
    snapshot: Snapshot


@dataclass(frozen=True)
class Page:
    """One page of changes, as read from an answer.

    Attributes:
        account_ref: The exchange's own name of the account, as this endpoint spells it.
        lists: The page's lists of records, each in any order. They share one sequence of numbers.
    """

    account_ref: str
    lists: tuple[Sequence[Record], ...]

    def __len__(self) -> int:
        return sum(len(records) for records in self.lists)


class Source(ABC):
    """One account at an exchange, or at whoever else keeps it.

    Attributes:
        who: What messages call the other side, such as ``the exchange``.
        page_limit: Records that a full page holds at least; a page with fewer holds everything that there is yet. 1:
            only an empty page is the last.
    """

    who: str
    page_limit: int

    @abstractmethod
    def now(self) -> float:
        """Seconds since the epoch (UTC) by the other side's clock, as far as it was seen, else by ours."""

    def today(self) -> date:
        """The UTC day of :meth:`now`."""
        return datetime.fromtimestamp(self.now(), UTC).date()

    @abstractmethod
    def oldest(self) -> date | None:
        """The oldest day whose snapshot and changes can be asked for; None if it forgets nothing."""

    @abstractmethod
    def fetch_snapshot(self, day: date) -> Response:
        """Ask for the balances at the start of a UTC day.

        Raises:
            NotYetAvailable: There is none for that date (too early, or too long ago).
        """

    @abstractmethod
    def fetch_changes(self, from_sn: int, day: date) -> Response:
        """Ask for the page of changes that begins at a sequence number (itself included).

        Args:
            from_sn: Where to begin.
            day: The UTC day that is being put together, for sources that file their changes by day.
        """

    @abstractmethod
    def read_snapshot(self, body: bytes, day: date) -> SnapshotResponse:
        """Interpret an answer to :meth:`fetch_snapshot`.

        Raises:
            InvalidResponse: If it is not what the exchange documents, or another day's.
        """

    @abstractmethod
    def read_page(self, body: bytes) -> Page:
        """Interpret an answer to :meth:`fetch_changes`.

        Raises:
            InvalidResponse: If it is not what the exchange documents.
        """

    @abstractmethod
    def legs(self, records: Sequence[Record]) -> pa.Table:
        """Records that :meth:`read_page` gave as a table of the schema ``transform.schema.LEGS``, in any order.

        Raises:
            InvalidResponse: If an amount or an asset is malformed.
        """

    def legs_of_pages(
        self,
        bodies: Sequence[bytes],  # noqa: ARG002 - for those who can
        cursors: Sequence[int],  # noqa: ARG002
        *,
        then: int | None,  # noqa: ARG002
        closing_sn: int,  # noqa: ARG002
    ) -> pa.Table | None:
        """The legs of consecutive pages that were read and found good before, all at once.

        A source that can read many pages faster than one by one does so here. The result must be the one of reading
        each by :meth:`read_page` and taking from it what it answers for: the records from its own cursor up to the
        next one's, and from the last page up to the closing sequence number.

        Args:
            bodies: The pages' answers.
            cursors: The sequence number that each was asked from.
            then: The cursor of the page behind these, to which the last one must lead; None if there is none.
            closing_sn: The closing snapshot's sequence number.

        Returns:
            The legs, or None if these pages are to be read one by one: because anything about them is unusual, or
            because one does not lead to the next.
        """
        return None
