"""What people type: days, and the names of accounts and destinations. Whatever is unknown gets a suggestion.

Imported with the command line: nothing in here may import Airflow, pandas or pydantic at module level.
"""

from __future__ import annotations

import difflib
import re
from argparse import ArgumentTypeError
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from balance_bridge.errors import ConfigurationError

if TYPE_CHECKING:
    from balance_bridge.accounts import Account
    from balance_bridge.store import Store

DAYS_HELP = "YYYY-MM-DD, yesterday, today, or FIRST..LAST"
LEAST_KEPT_DAYS = 30
_MAX_DAYS = 3660


class UsageError(ConfigurationError):
    """What was typed on the command line is wrong; it ends with exit code 2."""


@dataclass(frozen=True)
class Decision:
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


def unknown(what: str, name: str, known: Iterable[str]) -> UsageError:
    """The error for a name that does not exist, with what was probably meant and what there is.

    Args:
        what: What is said of it, such as ``there is no account``.
        name: As it was typed.
        known: The names that there are.
    """
    names = list(known)
    return UsageError(f"{what} {name!r}{suggestion(name, names)}", do=f"use {_listed(names)}")


def suggestion(name: str, known: Iterable[str]) -> str:
    """``", did you mean X?"`` if one of the known names is close, else nothing."""
    by_lower = {each.lower(): each for each in known}
    close = difflib.get_close_matches(name.lower()[:100], by_lower, n=1)
    return f": did you mean {by_lower[close[0]]}?" if close else ""


def chosen_accounts(names: Sequence[str]) -> list[Account]:
    """The accounts of the accounts file with these names; all of them if there are none.

    Raises:
        UsageError: If the file has no usable account of such a name.
    """
    from balance_bridge import settings
    from balance_bridge.accounts import load_accounts

    file = load_accounts(settings.accounts_file())
    for name in names:
        if name in file.broken:
            raise UsageError(f"the account {name} is wrong in the accounts file", do="run balance-bridge check")
        if name not in file.accounts:
            raise unknown("there is no account", name, file.accounts)
    return [account for name, account in file.accounts.items() if not names or name in names]


def chosen_destinations(account: Account, name: str | None) -> list[str]:
    """The names of an account's destinations: the one that is wanted, or all of them.

    Raises:
        UsageError: If there is no such destination.
    """
    if name is not None and name not in account.destinations:
        raise unknown(f"{account.name} has no destination", name, account.destinations)
    return [each for each in account.destinations if name in (None, each)]


def destinations_of(store: Store, account: str, days: Sequence[date], wanted: str | None) -> list[str]:
    """Destinations that have a receipt of these days, or stand in the accounts file: one may have left it since.

    Raises:
        UsageError: If there is no such account or destination.
    """
    from balance_bridge import settings
    from balance_bridge.accounts import load_accounts
    from balance_bridge.load.log import destinations_with_logs

    file = load_accounts(settings.accounts_file())
    known = {name for day in days for name in destinations_with_logs(store, account, day)}
    if account in file.accounts:
        known |= set(file.accounts[account].destinations)
    if not known:
        raise unknown("there is no account", account, file.accounts)
    if wanted is not None and wanted not in known:
        raise unknown(f"{account} has no destination", wanted, sorted(known))
    return [wanted] if wanted is not None else sorted(known)


def _listed(names: Sequence[str]) -> str:
    more = f", or one of {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(names[:10]) + more if names else "none: there are none"


def _day(text: str) -> date:
    if text in ("yesterday", "today"):
        return today() - timedelta(days=text == "yesterday")
    # date.fromisoformat would also take 20261120 and 2026-W47-5.
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        raise ArgumentTypeError(f"{text!r} is not a day ({DAYS_HELP})")
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise ArgumentTypeError(f"{text!r} is a date that does not exist") from error


def only_assets(records: list[dict[str, Any]], assets: Sequence[str] | None) -> list[dict[str, Any]]:
    """The records of these assets; all if None.

    Raises:
        UsageError: If there is none of an asset.
    """
    known = {record["asset"] for record in records}
    for asset in assets or ():
        if asset not in known:
            raise unknown("there is no asset", asset, sorted(known))
    return [record for record in records if assets is None or record["asset"] in assets]
