"""The index: what became of each day of an account, one object per month, so that a page need not read the store.

It says nothing that the rest of the store does not say, and can be made again from it at any time. What it holds are
facts; what they mean, such as whether three rejections are too many, is decided where they are shown, by the accounts
file as it is then.

An entry is read from the store after the index's newest object was, and written only if no other object has followed:
so whoever writes last has seen what everybody else has done. A month's older objects are removed, but for the one
before the newest, which somebody may be reading.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date

import msgspec

from balance_bridge.days import is_day
from balance_bridge.errors import StoreDamaged, StoreUnwritable
from balance_bridge.facts import Day, read_day
from balance_bridge.store import Store, to_json

VERSION = 1
FOLDER = "index"
_SUFFIX = ".json"
_MOST_ATTEMPTS = 100
_READERS = 16
# More than an intraday run each minute can use up in a month.
_DIGITS = 8
_NAME = re.compile(rf"[0-9]{{{_DIGITS}}}\{_SUFFIX}")


class Month(msgspec.Struct):
    """An account's month, as an object of the index holds it."""

    version: int
    account: str
    month: str
    days: dict[str, Day]


def record(store: Store, account: str, day: date) -> None:
    """Bring the index of a day up to date. To be called after whatever has changed the day's results or receipts.

    Raises:
        StoreUnwritable: If it cannot be written.
    """
    _write(store, account, f"{day:%Y-%m}", [day])


def rebuild(store: Store, account: str, month: str) -> int:
    """Make an account's month again from the rest of the store.

    Args:
        store: The store.
        account: The account's name.
        month: ``YYYY-MM``.

    Returns:
        How many days it has.

    Raises:
        StoreUnwritable: If it cannot be written.
    """
    return _write(store, account, month, None)


def read(store: Store, months: Iterable[str], known: dict[str, Month]) -> dict[tuple[str, str], Month]:
    """The index of some months: one listing for each, and only objects that are not known yet are read.

    Args:
        store: The store.
        months: ``YYYY-MM``.
        known: By key, what was read before; what is read is added, and what was replaced is dropped. Objects never
            change, so this can be kept for as long as the process lives.

    Returns:
        By month and account.

    Raises:
        StoreDamaged: If an object is not what was written.
    """
    wanted = set(months)
    for last in (False, True):
        newest = {place: key for month in wanted for place, key in _newest(store, month).items()}
        # Requests share what is known: each keeps what it needs of it.
        before = known.copy()
        found = {key: before[key] for key in newest.values() if key in before}
        new = [key for key in newest.values() if key not in found]
        try:
            with ThreadPoolExecutor(_READERS) as readers:
                found.update(zip(new, readers.map(lambda key: _decode(store, key), new), strict=True))
            break
        except StoreDamaged:
            # Runs may have replaced an object, and removed it, since it was listed.
            if last:
                raise
    known.update(found)
    for key in known.copy().keys() - found.keys():
        if key.split("/")[1] in wanted:
            known.pop(key, None)
    return {place: found[key] for place, key in newest.items()}


def months_of(store: Store, account: str) -> list[str]:
    """The months of which the store has anything of an account."""
    return sorted({day[:7] for day in _days_of(store, account)})


def _days_of(store: Store, account: str) -> set[str]:
    found = set[str]()
    for stage in ("raw", "reconciliation", "receipts"):
        found |= {key.split("/")[2] for key in store.list(f"{stage}/{account}")}
    return {day for day in found if is_day(day)}


def _write(store: Store, account: str, month: str, days: Sequence[date] | None) -> int:
    """Write the index's next object with these days read again; with all that the store has, where None."""
    folder = f"{FOLDER}/{month}/{account}"
    for _ in range(_MOST_ATTEMPTS):
        series = sorted(key for key in store.list(folder) if _NAME.fullmatch(key.rpartition("/")[2]))
        newest = series[-1] if series else None
        known = _readable(store, newest)
        if days is None or known is None:
            # There is none yet, or it is damaged: the store may have days that it should have had.
            now = sorted(date.fromisoformat(day) for day in _days_of(store, account) if day.startswith(month))
            known = {}
        else:
            now = list(days)
        found = {**known, **{day.isoformat(): read_day(store, account, day) for day in now}}
        found = {day: found[day] for day in sorted(found) if found[day] != Day()}
        document = to_json(msgspec.to_builtins(Month(VERSION, account, month, found)))
        if newest is not None and found == known:
            return len(found)
        number = 1 + (int(newest.rpartition("/")[2].partition(".")[0]) if newest is not None else 0)
        if store.put(f"{folder}/{number:0{_DIGITS}d}{_SUFFIX}", document):
            for key in series[:-1]:
                store.discard(key)
            return len(found)
    raise StoreUnwritable(f"{store.describe(folder)}: others wrote it each time before this run could")


def _readable(store: Store, key: str | None) -> dict[str, Day] | None:
    try:
        return None if key is None else _decode(store, key).days
    except StoreDamaged:
        return None


def _newest(store: Store, month: str) -> dict[tuple[str, str], str]:
    """By month and account the key of the newest object."""
    found: dict[tuple[str, str], str] = {}
    for key in store.list(f"{FOLDER}/{month}"):
        parts = key.split("/")
        if len(parts) == 4 and _NAME.fullmatch(parts[3]):
            # Sorted by name, and numbers have leading zeros.
            found[month, parts[2]] = key
    return found


def _decode(store: Store, key: str) -> Month:
    try:
        month = msgspec.convert(store.read_json(key), Month)
    except (msgspec.ValidationError, OSError) as error:
        raise StoreDamaged(
            f"{store.describe(key)} cannot be read",
            why=str(error),
            do="Rebuild the index: balance-bridge store index",
        ) from error
    if month.version != VERSION:
        raise StoreDamaged(
            f"{store.describe(key)} is of version {month.version}, this release reads {VERSION}",
            do="Rebuild the index: balance-bridge store index",
        )
    return month
