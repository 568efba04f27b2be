"""The page of one asset: its balance over time, and which balances were delivered."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal

from balance_bridge.accounts import Account
from balance_bridge.clock import utc_text
from balance_bridge.daybook import Daybook
from balance_bridge.errors import BalanceBridgeError
from balance_bridge.facts import UNREADABLE
from balance_bridge.load.fold import Status
from balance_bridge.money import to_text
from balance_bridge.store import Store


@dataclass(frozen=True)
class Point:
    """A balance at an instant.

    Attributes:
        at: RFC 3339, UTC.
        seconds: The same, in seconds since the epoch.
        balance: In units of the asset.
        what: What is known of it: ``opening``, ``closing``, the event of a record.
        sn: The record's sequence number; None for a snapshot.
        delivered: To which destinations it was delivered.
    """

    at: str
    seconds: float
    balance: str
    what: str
    sn: int | None = None
    delivered: str = ""


@dataclass(frozen=True)
class AssetPage:
    """What the page shows.

    Attributes:
        account: The account.
        asset: The asset.
        points: Its balances, by time.
        problems: What could not be read.
    """

    account: Account
    asset: str
    points: Sequence[Point]
    problems: Sequence[str]

    @property
    def chart(self) -> str:
        """For the chart: times, balances and which of them were delivered. A chart's pixels may be approximate."""
        return json.dumps(
            {
                "asset": self.asset,
                "at": [point.seconds for point in self.points],
                "balance": [point.balance for point in self.points],
                "delivered": [bool(point.delivered) for point in self.points],
            }
        )


def look(store: Store, account: Account, asset: str, days: Sequence[date]) -> AssetPage:
    """Put the page together from the store.

    Args:
        store: The store.
        account: The account.
        asset: The exchange's asset code.
        days: The UTC days, oldest first.
    """
    points, problems = list[Point](), list[str]()
    for day in days:
        try:
            book = Daybook.read(store, account.name, day)
            # A day opens with the balance with which the one before closed.
            points += _points(book, asset, ("closing",) if points else ("opening", "closing"))
        except UNREADABLE as error:
            problems.append(str(error) if isinstance(error, BalanceBridgeError) else f"{day}: {error!r}")
    return AssetPage(account, asset, _in_time(points), problems)


def _in_time(points: Sequence[Point]) -> list[Point]:
    """The balance at each instant: the one after the last record, by sn, of those up to then."""
    found, last = list[Point](), 0
    for point in sorted(points, key=lambda point: (point.seconds, point.sn is None, point.sn)):
        if point.sn is None or point.sn > last:
            found.append(point)
            last = max(last, point.sn or 0)
    return found


def _points(book: Daybook, asset: str, ends: Sequence[str]) -> Iterator[Point]:
    if book.ledger is None:
        return
    delivered: dict[str, list[str]] = {}
    for name, found in book.deliveries.items():
        for entry in found:
            if entry.asset == asset and entry.current and entry.outcome == Status.ACCEPTED:
                delivered.setdefault(entry.at, []).append(name)
    for end in ends:
        text = book.report[end]["balances"].get(asset)
        if text is not None:
            at = datetime.fromtimestamp(book.report[end]["at_ms"] / 1000, UTC)
            yield _point(at, Decimal(text), f"{end} of {book.day}", None, delivered if end == "closing" else {})
    for row in book.ledger[book.ledger["asset"] == asset].to_dict("records"):
        yield _point(row["at"], row["balance"], row["event"] or row["kind"], row["sn"], delivered)


def _point(at: datetime, balance: Decimal, what: str, sn: int | None, delivered: dict[str, list[str]]) -> Point:
    text = utc_text(at.timestamp())
    return Point(text, at.timestamp(), to_text(balance), what, sn, ", ".join(delivered.get(text, [])))
