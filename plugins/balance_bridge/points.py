"""The points in time at which a destination wants balances, by name.

A point is ``open``, ``close``, ``changes`` or ``local_midnight``, or a step such as ``every 1h``. This module is plain
Python: reading the accounts file needs it and must not load pandas.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal

POINT_NAMES = ("open", "close", "changes", "local_midnight")
STEP_PREFIX = "every "

_DAY_MS = 24 * 60 * 60 * 1000
_UNIT_MS = {"s": 1000, "min": 60_000, "h": 3_600_000}
# No step that divides a day needs more than five digits, and int() never sees a text of unbounded length.
_STEP = re.compile(r"([0-9]{1,5})(s|min|h)", re.ASCII)


@dataclass(frozen=True)
class BalanceRequest:
    """The balances that one destination asks for.

    Attributes:
        name: The destination's name in the accounts file.
        points: The configured points.
        zone: IANA zone for local midnights and, where keys are local, for the keys.
        key: ``instant`` where a balance's key is its instant, ``local_second`` where it is the local text.
        start: The account's first day.
    """

    name: str
    points: Sequence[str]
    zone: str
    key: Literal["instant", "local_second"]
    start: date

    def delivers_opening(self, day: date) -> bool:
        """Whether the day delivers its opening instant."""
        return opens(self.points, day, self.start)

    def delivers_closing(self, day: date) -> bool:
        """Whether the day delivers its closing instant, if a point asks for it."""
        return not opens(self.points, day + timedelta(days=1), self.start)


def opens(points: Sequence[str], day: date, start_date: date) -> bool:
    """Whether the midnight between the day before and this day is delivered by this day.

    Otherwise the day before delivers it: a day is (open, close]. So each midnight is delivered by exactly one day.

    Args:
        points: The destination's points.
        day: The day that begins with the midnight.
        start_date: The account's first day, whose opening instant no earlier day delivers.
    """
    return "open" in points and ("close" not in points or day == start_date)


def parse_step_ms(text: str) -> int:
    """Read the length of a step.

    Args:
        text: ``<N>s``, ``<N>min`` or ``<N>h``, with or without ``every`` and a blank before it.

    Returns:
        Milliseconds; they divide 24 hours, so that steps counted from UTC midnight are the same on every day.

    Raises:
        ValueError: If the text is anything else; the message says what is allowed, and leaves out the text.
    """
    match = _STEP.fullmatch(text.removeprefix(STEP_PREFIX))
    step_ms = int(match[1]) * _UNIT_MS[match[2]] if match else 0
    if step_ms == 0 or _DAY_MS % step_ms:
        raise ValueError(
            "is not a step: expected is a whole number of s, min or h that divides 24 h, such as 30s or 1h"
        )
    return step_ms


def known_so_far(points: Sequence[str]) -> list[str]:
    """The points that are known before a day is over: changes and steps."""
    return [point for point in points if point == "changes" or point.startswith(STEP_PREFIX)]


def cron_of(step: str) -> list[str]:
    """A step, counted from midnight, as cron expressions that together name each of its instants once.

    Args:
        step: As :func:`parse_step_ms` reads it; whole minutes.

    Raises:
        ValueError: If it is no step, or not of whole minutes.
    """
    step_minutes, rest = divmod(parse_step_ms(step), _UNIT_MS["min"])
    if rest:
        raise ValueError(f"{step!r} is not a whole number of minutes")
    hours: dict[tuple[int, ...], list[int]] = {}
    for hour in range(24):
        minutes = tuple(minute for minute in range(60) if (hour * 60 + minute) % step_minutes == 0)
        if minutes:
            hours.setdefault(minutes, []).append(hour)
    return [f"{','.join(map(str, minutes))} {','.join(map(str, at))} * * *" for minutes, at in hours.items()]
