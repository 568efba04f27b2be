"""Local time of a destination's zone: texts cut to the second, and the first instants of local dates.

Offsets come from :mod:`zoneinfo` alone, so that all parts agree on one time zone database.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from balance_bridge.errors import ConfigurationError, InvalidResponse

Int64 = npt.NDArray[np.int64]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAIVE_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 (wall clock readings carry no zone)
_SECOND = timedelta(seconds=1)
# No zone ever changed its offset twice within so short a time: equal offsets at both ends are the offset in between.
_BUCKET_S = 900
# An offset, and a change of it, are each at most about a day, and what a clock repeats it has shown within that time.
_LOOK_BACK_S = 36 * 3600


@lru_cache(maxsize=64)
def zone_info(zone: str) -> ZoneInfo:
    """The IANA zone of that name.

    Raises:
        ConfigurationError: If there is none.
    """
    try:
        return ZoneInfo(zone)
    except (OSError, ValueError, LookupError) as error:
        raise ConfigurationError(
            f"time zone {zone!r} is unknown: the name of an IANA zone such as Europe/Berlin or UTC is expected"
        ) from error


def local_seconds(at_ms: Iterable[int] | Int64, zone: str) -> Int64:
    """What the zone's wall clock shows at each instant, cut to the second.

    Args:
        at_ms: UTC milliseconds since the epoch; negative ones lie before 1970.
        zone: An IANA zone.

    Returns:
        Per instant the wall clock's reading, as seconds between it and the reading 1970-01-01 00:00:00. Two instants
        have the same number exactly if they have the same local text.

    Raises:
        ConfigurationError: If the zone is unknown.
        InvalidResponse: If an instant lies outside the years 1 to 9999.
    """
    info = zone_info(zone)
    utc_s = _as_int64(at_ms) // 1000  # floor: the second is cut, before 1970 as well
    buckets, bucket_of = np.unique(utc_s // _BUCKET_S, return_inverse=True)
    first = _offsets_s(buckets * _BUCKET_S, info)
    last = _offsets_s(buckets * _BUCKET_S + _BUCKET_S - 1, info)
    local: Int64 = utc_s + first[bucket_of]
    changing = (first != last)[bucket_of]
    if changing.any():
        seconds, second_of = np.unique(utc_s[changing], return_inverse=True)
        local[changing] = (seconds + _offsets_s(seconds, info))[second_of]
    return local


def local_texts(at_ms: Iterable[int] | Int64, zone: str) -> list[str]:
    """Each instant as ``YYYY-MM-DD HH:mm:ss`` on the zone's wall clock: shifted, then cut to the second, not rounded.

    Args:
        at_ms: UTC milliseconds since the epoch.
        zone: An IANA zone.

    Returns:
        One text per instant, in the same order.

    Raises:
        ConfigurationError: If the zone is unknown.
        InvalidResponse: If an instant lies outside the years 1 to 9999.
    """
    seconds, second_of = np.unique(local_seconds(at_ms, zone), return_inverse=True)
    iso: list[str] = np.datetime_as_string(seconds.astype("datetime64[s]")).tolist()
    texts = [text.replace("T", " ") for text in iso]
    return [texts[index] for index in second_of.tolist()]


def new_seconds(open_ms: int, close_ms: int, zone: str) -> Int64:
    """The seconds of a day whose local texts are the day's own.

    A clock that goes back shows texts again, and some of them the day before may have had. The day's own are those
    later than all that the clock has shown up to the opening instant: no two days share one.

    Args:
        open_ms: The day's opening instant, UTC milliseconds.
        close_ms: Its closing instant.
        zone: An IANA zone.

    Returns:
        Seconds since the epoch in (open, close], ascending. On most days, all of them.

    Raises:
        ConfigurationError: If the zone is unknown.
        InvalidResponse: If an instant lies outside the years 1 to 9999.
    """
    open_s = open_ms // 1000
    seconds = np.arange(open_s - _LOOK_BACK_S, close_ms // 1000 + 1)
    local, of_day = local_seconds(seconds * 1000, zone), seconds > open_s
    own: Int64 = seconds[of_day & (local > local[~of_day].max())]
    return own


def local_midnights(open_ms: int, close_ms: int, zone: str) -> list[int]:
    """The first instant of each local date, of those that fall in (open, close].

    Where clocks go forward over midnight, that is the instant of the change; where midnight happens twice, the earlier
    one; a date that the zone left out has none.

    Args:
        open_ms: UTC milliseconds; an instant equal to it is not in the result.
        close_ms: UTC milliseconds; an instant equal to it is.
        zone: An IANA zone.

    Returns:
        UTC milliseconds, ascending.

    Raises:
        ConfigurationError: If the zone is unknown.
        InvalidResponse: If an instant lies outside the years 1 to 9999.
    """
    info = zone_info(zone)
    # Two days more at each end: an offset, and a change of it, are each at most about a day.
    first, last = (_local(at_ms // 1000 + days * 86_400, info).date() for at_ms, days in ((open_ms, -2), (close_ms, 2)))
    days = (first + timedelta(days=number) for number in range((last - first).days + 1))
    starts = (_first_instant_s(day, info) for day in days)
    return sorted(start * 1000 for start in starts if start is not None and open_ms < start * 1000 <= close_ms)


def _as_int64(at_ms: Iterable[int] | Int64) -> Int64:
    if isinstance(at_ms, np.ndarray):
        return at_ms.astype(np.int64, casting="same_kind", copy=False)
    return np.fromiter(at_ms, dtype=np.int64)


def _local(utc_s: int, info: ZoneInfo) -> datetime:
    try:
        return (_EPOCH + timedelta(seconds=utc_s)).astimezone(info).replace(tzinfo=None)
    except OverflowError as error:
        raise InvalidResponse(f"the instant {utc_s} s after the epoch lies outside the years 1 to 9999") from error


def _offsets_s(utc_s: Int64, info: ZoneInfo) -> Int64:
    return np.array([_local_s(second, info) - second for second in utc_s.tolist()], dtype=np.int64)


def _local_s(utc_s: int, info: ZoneInfo) -> int:
    return (_local(utc_s, info) - _NAIVE_EPOCH) // _SECOND


def _first_instant_s(day: date, info: ZoneInfo) -> int | None:
    """The first UTC second whose local date is the day, or None where the zone left that date out."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=info)
    midnight_s = (midnight.replace(tzinfo=None) - _NAIVE_EPOCH) // _SECOND
    readings = [(midnight.replace(fold=fold) - _EPOCH) // _SECOND for fold in (0, 1)]
    before, start = min(readings), max(readings)
    if _local_s(before, info) == midnight_s:
        return before
    # Clocks jumped over midnight: between the two readings lies the jump, and the local time only rises.
    while start - before > 1:
        middle = (before + start) // 2
        if _local_s(middle, info) < midnight_s:
            before = middle
        else:
            start = middle
    return start if _local(start, info).date() == day else None
