"""What should be delivered, worked out from the world's own books, record by record.

Plain Python on purpose: slow, obvious, and without a line in common with the pipeline that it judges.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any, Literal
from zoneinfo import ZoneInfo

from balance_bridge.sandbox.wire import plain
from balance_bridge.sandbox.world import DAY_MS, Book, Record, Snapshot

KeyKind = Literal["instant", "local_second"]
KEY_KINDS = ("instant", "local_second")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STEP = re.compile(r"every ([1-9][0-9]{0,5})(s|min|h)")
_UNIT_MS = {"s": 1_000, "min": 60_000, "h": 3_600_000}
_MINUTE_MS = 60_000


@dataclass(frozen=True)
class Expected:
    """One balance that is to be delivered.

    Attributes:
        day: The UTC day whose run delivers it.
        asset: As the exchange calls it.
        at_ms: The instant in UTC milliseconds.
        local: The instant in the destination's zone, cut to the second.
        balance: The exact amount.
        points: Which points asked for the instant, in alphabetical order.
    """

    day: date
    asset: str
    at_ms: int
    local: str
    balance: Decimal
    points: tuple[str, ...]

    def key(self, kind: KeyKind) -> tuple[str, int | str]:
        """What must be delivered once."""
        return (self.asset, self.at_ms) if kind == "instant" else (self.asset, self.local)

    def document(self) -> dict[str, Any]:
        """As JSON, the amount as text."""
        return vars(self) | {"day": self.day.isoformat(), "balance": plain(self.balance)}


@dataclass(frozen=True)
class Asked:
    """What a destination asks for.

    Attributes:
        points: ``open``, ``close``, ``changes``, ``local_midnight``, or steps such as ``every 1h``.
        zone: IANA name of the destination's zone.
        kind: Whether a key is the instant or the local second.
        start: The account's first day.
    """

    points: Sequence[str]
    zone: str
    kind: KeyKind
    start: date


@dataclass(frozen=True)
class _Day:
    """One day of an account, and what a destination asks of it."""

    opening: Snapshot
    closing: Snapshot
    asked: Asked

    def has_first_midnight(self) -> bool:
        """Whether the opening instant is this day's to deliver: then the day before leaves it out."""
        points = self.asked.points
        return "open" in points and ("close" not in points or self.opening.day == self.asked.start)

    def has_last_midnight(self) -> bool:
        """Whether the closing instant is this day's to deliver: then the next day leaves it out."""
        return not replace(self, opening=self.closing).has_first_midnight()

    def delivers(self, one: Expected) -> bool:
        """Whether a balance is this day's to deliver, and not that of one of the days beside it."""
        if one.at_ms == self.closing.at_ms and not self.has_last_midnight():
            return one.balance == 0 and self.closing.day != self.asked.start
        return one.at_ms != self.opening.at_ms or one.balance != 0 or self.opening.day == self.asked.start

    def is_taken(self, at_ms: int) -> bool:
        """Whether the instant's key belongs to the opening instant or to an earlier one."""
        if self.asked.kind == "instant":
            return at_ms <= self.opening.at_ms
        return local_text(at_ms, self.asked.zone) <= _latest_text(self.opening.at_ms, self.asked.zone)

    def moved(self, at_ms: int) -> int:
        """A record's time or, where it has no key in the day, the nearest instant that has."""
        tick_ms = 1 if self.asked.kind == "instant" else 1000
        at_ms = max(at_ms, self.opening.at_ms)
        while at_ms < self.closing.at_ms and self.is_taken(at_ms):
            at_ms = (at_ms // tick_ms + 1) * tick_ms
        return min(at_ms, self.closing.at_ms)


def expected(book: Book, first: date, last: date, asked: Asked) -> tuple[list[Expected], int]:
    """The balances to be delivered for the UTC days from ``first`` to ``last``, and how many lost their key.

    Args:
        book: With the snapshots of every day and of the day after ``last``.
        first: First day.
        last: Last day, included.
        asked: What the destination asks for.

    Raises:
        ValueError: An unknown point, or a day whose snapshots are not there.
    """
    found: list[Expected] = []
    collisions = 0
    for number in range((last - first).days + 1):
        today = first + timedelta(days=number)
        opening, closing = book.snapshots.get(today), book.snapshots.get(today + timedelta(days=1))
        if opening is None or closing is None:
            raise ValueError(f"{today}: its snapshot or that of the next day is not in the books")
        day = _Day(opening, closing, asked)
        of_day, lost = _expected_day(day, book.between(opening, closing))
        found += of_day
        collisions += lost
    return sorted(found, key=lambda one: (one.at_ms, one.asset)), collisions


def _expected_day(day: _Day, records: Iterable[Record]) -> tuple[list[Expected], int]:
    """The balances to be delivered for one day, and how many instants lost their key to another."""
    records = [replace(record, at_ms=day.moved(record.at_ms)) for record in records]
    touched = {leg.asset for record in records for leg in record.legs}
    held = {asset for snapshot in (day.opening, day.closing) for asset, amount in snapshot.balances.items() if amount}
    found: list[Expected] = []
    collisions = 0
    for asset in sorted(touched | held):
        of_asset = [record for record in records if any(leg.asset == asset for leg in record.legs)]
        of_key: dict[tuple[str, int | str], Expected] = {}
        for one in _asked(day, of_asset, asset):
            if (one.at_ms != day.opening.at_ms and day.is_taken(one.at_ms)) or one.key(day.asked.kind) in of_key:
                collisions += 1
            else:
                of_key[one.key(day.asked.kind)] = one
        found += of_key.values()
    return [one for one in found if day.delivers(one)], collisions


def _asked(day: _Day, of_asset: list[Record], asset: str) -> list[Expected]:
    """What is asked for of one asset; under one key the first is to be delivered: a snapshot's, else the latest."""
    instants: dict[int, set[str]] = {}
    for point in day.asked.points:
        for at_ms in _instants(day, of_asset, point):
            instants.setdefault(at_ms, set()).add(point)
    if not day.has_first_midnight():
        instants.pop(day.opening.at_ms, None)
    if not day.has_last_midnight():
        # The next day's, with its key; but what has come to nothing is this day's to say.
        instants[day.closing.at_ms] = {"open"} | (instants.get(day.closing.at_ms, set()) & {"changes"})
    ends = (day.opening.at_ms, day.closing.at_ms)
    return [
        Expected(
            day.opening.day,
            asset,
            at_ms,
            local_text(at_ms, day.asked.zone),
            _balance_at(day, of_asset, asset, at_ms),
            tuple(sorted(instants[at_ms])),
        )
        for at_ms in sorted(instants, key=lambda at_ms: (at_ms in ends, at_ms), reverse=True)
    ]


def _instants(day: _Day, of_asset: list[Record], point: str) -> Iterable[int]:
    """The instants from the opening to the closing that a point names."""
    if point == "open":
        return [day.opening.at_ms]
    if point == "close":
        return [day.closing.at_ms]
    if point == "changes":
        return [record.at_ms for record in of_asset]
    if point == "local_midnight":
        return local_midnights(day.opening.at_ms - 1, day.closing.at_ms, day.asked.zone)
    return range(day.opening.at_ms, day.closing.at_ms + 1, step_ms(point))


def _balance_at(day: _Day, of_asset: list[Record], asset: str, at_ms: int) -> Decimal:
    if at_ms == day.closing.at_ms:
        return day.closing.balances.get(asset, Decimal(0))
    balance = day.opening.balances.get(asset, Decimal(0))
    for record in of_asset:  # by sn: the last one whose time is not later decides
        if record.at_ms <= at_ms:
            balance = next(leg.balance for leg in record.legs if leg.asset == asset)
    return balance


def step_ms(point: str) -> int:
    """Milliseconds of a step such as ``every 1h``.

    Raises:
        ValueError: If the text is no point, or the step does not divide 24 hours.
    """
    match = _STEP.fullmatch(point)
    step = int(match[1]) * _UNIT_MS[match[2]] if match else 0
    if not step or DAY_MS % step:
        raise ValueError(
            f"{point!r} is no point: open, close, changes, local_midnight, or every <N>s|min|h that divides 24 h"
        )
    return step


def local_text(at_ms: int, zone: str) -> str:
    """An instant in a zone, cut to the second: ``YYYY-MM-DD HH:mm:ss``."""
    moment = (_EPOCH + timedelta(seconds=at_ms // 1000)).astimezone(ZoneInfo(zone))
    return moment.replace(tzinfo=None).isoformat(" ")


@lru_cache(maxsize=1024)
def local_midnights(open_ms: int, close_ms: int, zone: str) -> tuple[int, ...]:
    """The first instant of each local date, as far as it lies in (open, close]; found by looking at every minute."""
    known: set[date] = set()
    found = []
    # A day and a half back: a local date's first instant may lie before the clocks went back over it.
    for at_ms in range(open_ms // _MINUTE_MS * _MINUTE_MS - 36 * 60 * _MINUTE_MS, close_ms + 1, _MINUTE_MS):
        local = (_EPOCH + timedelta(milliseconds=at_ms)).astimezone(ZoneInfo(zone)).date()
        if local not in known:
            known.add(local)
            found.append(at_ms)
    return tuple(at_ms for at_ms in found if open_ms < at_ms <= close_ms)


@lru_cache(maxsize=1024)
def _latest_text(at_ms: int, zone: str) -> str:
    """The latest text that the zone's clock has shown up to an instant; later than the last one if it went back."""
    ends_of_minutes = range(at_ms - 1000, at_ms - 36 * 60 * _MINUTE_MS, -_MINUTE_MS)
    return max(local_text(moment, zone) for moment in (at_ms, *ends_of_minutes))
