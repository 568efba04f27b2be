"""Communication numbers: deterministic, readable, and never the same for two different things.

``<namespace>-<account>.<destination>-<asset>-<instant>-<attempt>``, for instance
``bb-main_cash.amlyze-BTMX-S-20261120T000000000Z-1``.

Every part can be read back, so two numbers are equal only if all parts are: namespace, account and destination hold no
``-`` and end at the first two; instant and attempt hold none either and begin at the last two; the rest is the asset,
which may hold any. The destination is a part because two destinations of one account may write into one tenant.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from urllib.parse import quote

MAX_NUMBER_CHARS = 255

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# UTC as well; without a zone its text takes two thirds of the time.
_NAIVE_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001
_WITHOUT_SEPARATORS = str.maketrans("", "", "-:.")
# A day inside what datetime can hold, so that no time zone pushes an instant out of it.
_MIN_MS = (datetime(1, 1, 2, tzinfo=UTC) - _EPOCH) // timedelta(milliseconds=1)
_MAX_MS = (datetime(9999, 12, 31, tzinfo=UTC) - _EPOCH) // timedelta(milliseconds=1)


def number_prefix(namespace: str, account: str, destination: str) -> str:
    """What the numbers of an account at a destination begin with.

    Args:
        namespace: As ``settings.namespace`` returns it; two deployments that write to one tenant differ in it.
        account: The account's name in the accounts file.
        destination: The destination's name there.
    """
    return f"{namespace}-{_escape(account)}.{_escape(destination)}-"


def communication_number(prefix: str, asset: str, at_ms: int, attempt: int) -> str:
    """The number of an attempt (counted from 1) to deliver an asset's balance at an instant (UTC ms)."""
    return f"{prefix}{_escaped_asset(asset)}-{compact_instant(at_ms)}-{attempt}"


@lru_cache(maxsize=8192)
def _escaped_asset(asset: str) -> str:
    # Characters that a header, a file name or a mail would mangle are written as %XX; "-" stays readable.
    return quote(asset, safe="")


def is_instant(at_ms: int) -> bool:
    """Whether UTC milliseconds since the epoch lie in a year that can be written with four digits."""
    return _MIN_MS <= at_ms < _MAX_MS


@lru_cache(maxsize=8192)
def compact_instant(at_ms: int) -> str:
    """UTC milliseconds since the epoch as ``20261120T000000000Z``."""
    return rfc3339(at_ms).translate(_WITHOUT_SEPARATORS)


@lru_cache(maxsize=8192)
def rfc3339(at_ms: int) -> str:
    """UTC milliseconds since the epoch as ``2026-11-20T00:00:00.000Z``."""
    return (_NAIVE_EPOCH + timedelta(milliseconds=at_ms)).isoformat(timespec="milliseconds") + "Z"


def _escape(name: str) -> str:
    # quote() leaves "-", "." and "~" as they are; the first two are separators here.
    return quote(name, safe="").replace("-", "%2D").replace(".", "%2E")
