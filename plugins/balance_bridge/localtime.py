"""Local time of a destination's zone: what its clocks show, cut to the second, and the first instants of its dates."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pandas as pd
import pendulum

from balance_bridge.errors import ConfigurationError, InvalidResponse

Int64 = npt.NDArray[np.int64]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Some days inside the years that a calendar has, so that an offset and the day before never lead out of them.
_FIRST_MS, _LAST_MS = (
    (limit - _EPOCH) // timedelta(milliseconds=1)
    for limit in (datetime(1, 1, 4, tzinfo=UTC), datetime(9999, 12, 28, tzinfo=UTC))
)
# An offset, and a change of it, are each at most about a day, and what a clock repeats it has shown within that time.
_LOOK_BACK_S = 36 * 3600


def local_seconds(at_ms: Sequence[int] | npt.NDArray[np.integer], zone: str) -> pd.DatetimeIndex:
    """What the zone's clocks show at each instant, cut (not rounded) to the second.

    Args:
        at_ms: UTC milliseconds since the epoch; negative ones lie before 1970.
        zone: An IANA zone.

    Returns:
        The readings, without a zone. Two instants have the same reading exactly if they have the same local text.

    Raises:
        ConfigurationError: If the zone is unknown.
        InvalidResponse: If an instant lies outside the years 1 to 9999.
    """
    info = _zone_info(zone)
    instants = np.asarray(at_ms, np.int64)
    outside = instants[(instants < _FIRST_MS) | (instants > _LAST_MS)]
    if len(outside):
        raise InvalidResponse(f"the instant {outside[0]} ms after the epoch lies outside the years 1 to 9999")
    utc = pd.DatetimeIndex(instants.astype("datetime64[ms]")).tz_localize("UTC")
    return utc.tz_convert(info).tz_localize(None).floor("s")


def local_texts(at_ms: Sequence[int] | npt.NDArray[np.integer], zone: str) -> list[str]:
    """Each instant as ``YYYY-MM-DD HH:mm:ss`` on the zone's clocks; arguments and errors as :func:`local_seconds`."""
    texts: list[str] = local_seconds(at_ms, zone).strftime("%Y-%m-%d %H:%M:%S").tolist()
    return texts


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

    Where clocks skip midnight, that is the instant of the change; where midnight happens twice, the earlier one; a date
    that the zone skipped has none. Exact from 1970 on.

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
    # A clock that goes back over midnight shows a date before it ends and after it began.
    first, last = local_seconds([open_ms, close_ms], zone) + pd.to_timedelta([-1, 1], "D")
    starts = (_first_instant_ms(day, zone) for day in pd.date_range(first.normalize(), last.normalize()))
    return sorted(start for start in starts if start is not None and open_ms < start <= close_ms)


def _zone_info(zone: str) -> ZoneInfo:
    try:
        return ZoneInfo(zone)
    except (OSError, ValueError, LookupError) as error:
        raise ConfigurationError(
            f"time zone {zone!r} is unknown: the name of an IANA zone such as Europe/Berlin or UTC is expected"
        ) from error


def _first_instant_ms(day: pd.Timestamp, zone: str) -> int | None:
    # Where midnight happens twice, these are both. Where clocks skip it, they are a time of the day before and the
    # instant of the change, provided that the clocks skip from midnight on, as they did in every zone since 1970.
    readings = [pendulum.datetime(day.year, day.month, day.day, tz=zone, fold=fold) for fold in (0, 1)]
    return min((reading.int_timestamp * 1000 for reading in readings if reading.day == day.day), default=None)
