"""What people type: days, and the names of accounts and destinations. Whatever is unknown gets a suggestion.

Imported with the command line: nothing in here may import Airflow, pandas or pydantic at module level.
"""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

from balance_bridge import days
from balance_bridge.errors import ConfigurationError

if TYPE_CHECKING:
    from balance_bridge.accounts import Account

DAYS_HELP = "YYYY-MM-DD, yesterday, today, or FIRST..LAST"
LEAST_KEPT_DAYS = 30
_MAX_DAYS = 3660
_MAX_NAMED = 10


class UsageError(ConfigurationError):
    """What was typed on the command line is wrong; it ends with exit code 2."""


@dataclass(frozen=True)
class Author:
    """Who decided something, and why; it stays in the store.

    Attributes:
        by: Who.
        reason: Why, or how it was found out.

    Raises:
        UsageError: If one of them is empty.
    """

    by: str
    reason: str

    def __post_init__(self) -> None:
        if not self.by.strip() or not self.reason.strip():
            raise UsageError("--by and --reason must not be empty: they stay in the store, for an auditor")


def parse_days(text: str) -> list[date]:
    """Read a UTC day or a range of them.

    Args:
        text: ``2026-11-20``, ``yesterday``, ``today``, or two of these as ``2026-11-01..yesterday``.

    Raises:
        ArgumentTypeError: If it is neither; the message says why.
    """
    first, _, last = text.partition("..")
    begin, end = _day(first), _day(last) if ".." in text else _day(first)
    count = (end - begin).days + 1
    if count < 1:
        raise ArgumentTypeError(f"{text!r} ends before it begins")
    if count > _MAX_DAYS:
        raise ArgumentTypeError(f"{text!r} is longer than {_MAX_DAYS} days")
    return [begin + timedelta(days=ahead) for ahead in range(count)]


def parse_day(text: str) -> date:
    """Read one UTC day.

    Raises:
        ArgumentTypeError: If it is none, or several.
    """
    days = parse_days(text)
    if len(days) > 1:
        raise ArgumentTypeError(f"{text!r} is more than one day")
    return days[0]


def parse_recent(text: str) -> list[date]:
    """Read days as :func:`parse_days` does, or how many of them back from yesterday.

    Raises:
        ArgumentTypeError: If it is neither.
    """
    if text.isdecimal():
        if not 1 <= int(text) <= _MAX_DAYS:
            raise ArgumentTypeError(f"{text} is not between 1 and {_MAX_DAYS}")
        return [today() - timedelta(days=back) for back in range(int(text), 0, -1)]
    return parse_days(text)


def parse_keep(text: str) -> int:
    """Read how many days to keep, such as ``400d``.

    Raises:
        ArgumentTypeError: If it is no number of days, or too few of them.
    """
    if not re.fullmatch(r"[0-9]{1,5}d", text) or int(text[:-1]) < LEAST_KEPT_DAYS:
        raise ArgumentTypeError(f"{text!r} is not a number of days such as 400d, {LEAST_KEPT_DAYS}d or more")
    return int(text[:-1])


def today() -> date:
    """The UTC day that is going on."""
    return datetime.now(UTC).date()


def choose(missing: str, wanted: Sequence[str], known: Iterable[str]) -> list[str]:
    """Those of the known names that are wanted; all of them if none is named.

    Args:
        missing: How the message about an unknown one begins, such as ``there is no account``.
        wanted: Names as they were typed.
        known: The names that there are.

    Raises:
        UsageError: If a wanted one is not known; with what was probably meant, and what there is.
    """
    from balance_bridge.accounts.problems import did_you_mean

    names = list(known)
    for name in wanted:
        if name not in names:
            more = f" or one of {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
            do = f"use {', '.join(names[:_MAX_NAMED])}{more}" if names else "there are none at all"
            raise UsageError(f"{missing} {name!r}{did_you_mean(name, names)}", do=do)
    return [name for name in names if not wanted or name in wanted]


def choose_accounts(names: Sequence[str]) -> list[Account]:
    """The usable accounts of the accounts file with these names; all of them if none is named.

    Raises:
        UsageError: If the file has no usable account of such a name.
    """
    from balance_bridge import settings

    file = settings.read_accounts()
    if file.error is not None and not file.accounts:
        raise file.error
    for name in file.broken.keys() & set(names):
        raise UsageError(f"the account {name} is wrong in the accounts file", do="run balance-bridge check")
    return [file.accounts[name] for name in choose("there is no account", names, file.accounts)]


def _day(text: str) -> date:
    if text in ("yesterday", "today"):
        return today() - timedelta(days=text == "yesterday")
    try:
        return days.parse_day(text)
    except ValueError as error:
        raise ArgumentTypeError(f"{text!r} {error} ({DAYS_HELP})") from error
