"""What should be delivered, worked out from the world's own books, record by record.

Plain Python on purpose: slow, obvious, and without a line in common with the pipeline that it judges.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any, Literal
from zoneinfo import ZoneInfo

from balance_bridge.sandbox.wire import plain
from balance_bridge.sandbox.world import DAY_MS, Book, Record, Snapshot

KeyKind = Literal["instant", "local_second"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STEP = re.compile(r"every ([1-9][0-9]{0,5})(s|min|h)")
_UNIT_MS = {"s": 1_000, "min": 60_000, "h": 3_600_000}
_MINUTE_MS = 60_000


@dataclass(frozen=True)
class Expected:
    """One balance that is to be delivered.

    Attributes:
        asset: As the exchange calls it.
        at_ms: The instant in UTC milliseconds.
        local: The instant in the destination's zone, cut to the second.
        balance: The exact amount.
        points: Which points asked for the instant, in alphabetical order.
        snapshot: Whether the instant is a snapshot's.
    """

    asset: str
    at_ms: int
    local: str
    balance: Decimal
    points: tuple[str, ...]
    snapshot: bool

    def key(self, kind: KeyKind) -> tuple[str, int | str]:
        """What must be delivered once."""
        return (self.asset, self.at_ms) if kind == "instant" else (self.asset, self.local)

    def document(self) -> dict[str, Any]:
        """As JSON, the amount as text."""
        return {
            "asset": self.asset,
            "at_ms": self.at_ms,
            "local": self.local,
            "balance": plain(self.balance),
            "points": list(self.points),
        }


def expected(
    book: Book, first: date, last: date, points: Sequence[str], zone: str, kind: KeyKind
) -> tuple[list[Expected], int]:
    """The balances to be delivered for the UTC days from ``first`` to ``last``, and how many lost their key.

    One key is delivered once: where two days ask for it, a snapshot's instant wins, else the later instant, else the
    later day.

    Args:
        book: With the snapshots of every day and of the day after ``last``.
        first: First day.
        last: Last day, included.
        points: ``open``, ``close``, ``changes``, ``local_midnight``, or steps such as ``every 1h``.
        zone: IANA name of the destination's zone.
        kind: Whether a key is the instant or the local second.

    Raises:
        ValueError: An unknown point, or a day whose snapshots are not there.
    """
    kept: dict[tuple[str, int | str], Expected] = {}
    collisions = 0
    for number in range((last - first).days + 1):
        day = first + timedelta(days=number)
        opening, closing = book.snapshots.get(day), book.snapshots.get(day + timedelta(days=1))
        if opening is None or closing is None:
            raise ValueError(f"{day}: its snapshot or that of the next day is not in the books")
        of_day, lost = expected_day(opening, closing, book.between(opening, closing), points, zone, kind)
        collisions += lost
        for one in of_day:
            other = kept.get(one.key(kind))
            if other is None or (one.snapshot, one.at_ms) >= (other.snapshot, other.at_ms):
                kept[one.key(kind)] = one
    return sorted(kept.values(), key=lambda one: (one.at_ms, one.asset)), collisions


def expected_day(
    opening: Snapshot, closing: Snapshot, records: Iterable[Record], points: Sequence[str], zone: str, kind: KeyKind
) -> tuple[list[Expected], int]:
    """The balances to be delivered for one day, and how many instants lost their key to another."""
    ordered = sorted(records, key=lambda record: record.sn)
    touched = {leg.asset for record in ordered for leg in record.legs}
    held = {asset for snapshot in (opening, closing) for asset, amount in snapshot.balances.items() if amount}
    kept: dict[tuple[str, int | str], Expected] = {}
    collisions = 0
    for asset in sorted(touched | held):
        of_asset = [record for record in ordered if any(leg.asset == asset for leg in record.legs)]
        for at_ms, asking in sorted(_instants(opening, closing, of_asset, points, zone).items()):
            one = Expected(
                asset,
                at_ms,
                local_text(at_ms, zone),
                _balance_at(opening, closing, of_asset, asset, at_ms),
                tuple(sorted(asking)),
                at_ms in (opening.at_ms, closing.at_ms),
            )
            if "open" not in points and _under_opening(one, opening, zone, kind):
                collisions += 1
                continue
            other = kept.get(one.key(kind))
            collisions += other is not None
            if other is None or (one.snapshot, one.at_ms) > (other.snapshot, other.at_ms):
                kept[one.key(kind)] = one
    return sorted(kept.values(), key=lambda one: (one.at_ms, one.asset)), collisions


def _under_opening(one: Expected, opening: Snapshot, zone: str, kind: KeyKind) -> bool:
    """Whether a balance's key is the opening instant's, which belongs to the day before."""
    if kind == "instant":
        return one.at_ms == opening.at_ms
    return one.local == local_text(opening.at_ms, zone)


def _instants(
    opening: Snapshot, closing: Snapshot, of_asset: Iterable[Record], points: Sequence[str], zone: str
) -> dict[int, set[str]]:
    found: dict[int, set[str]] = {}
    for point in points:
        if point == "open":
            asked = [opening.at_ms]
        elif point == "close":
            asked = [closing.at_ms]
        elif point == "changes":
            asked = [record.at_ms for record in of_asset]
        elif point == "local_midnight":
            asked = local_midnights(opening.at_ms, closing.at_ms, zone)
        else:
            step = step_ms(point)
            asked = list(range((opening.at_ms // step + 1) * step, closing.at_ms + 1, step))
        for at_ms in asked:
            found.setdefault(at_ms, set()).add(point)
    return found


def _balance_at(opening: Snapshot, closing: Snapshot, of_asset: Iterable[Record], asset: str, at_ms: int) -> Decimal:
    for snapshot in (opening, closing):
        if at_ms == snapshot.at_ms:
            return snapshot.balances.get(asset, Decimal(0))
    balance = opening.balances.get(asset, Decimal(0))
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
    moment = (_EPOCH + timedelta(seconds=at_ms // 1000)).astimezone(_zone(zone))
    return moment.replace(tzinfo=None).isoformat(" ")


@lru_cache(maxsize=64)
def _zone(zone: str) -> ZoneInfo:
    return ZoneInfo(zone)


@lru_cache(maxsize=1024)
def _minutes(open_ms: int, close_ms: int, zone: str) -> tuple[int, ...]:
    known: set[date] = set()
    found = []
    # A day and a half back: a local date's first instant may lie before the clocks went back over it.
    for at_ms in range(open_ms - 36 * 60 * _MINUTE_MS, close_ms + 1, _MINUTE_MS):
        local = (_EPOCH + timedelta(milliseconds=at_ms)).astimezone(_zone(zone)).date()
        if local not in known:
            known.add(local)
            found.append(at_ms)
    return tuple(at_ms for at_ms in found if open_ms < at_ms <= close_ms)


def local_midnights(open_ms: int, close_ms: int, zone: str) -> list[int]:
    """The first instant of each local date, as far as it lies in (open, close]; found by looking at every minute."""
    return list(_minutes(open_ms, close_ms, zone))
