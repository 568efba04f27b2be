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
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from typing import Any

import msgspec

from balance_bridge.commands.deliveries import read_delivered
from balance_bridge.errors import BalanceBridgeError, StoreDamaged, StoreUnwritable
from balance_bridge.extract import raw
from balance_bridge.load.log import destinations_with_logs
from balance_bridge.load.summary import DeliverySummary, other_keys
from balance_bridge.store import Store, to_json

VERSION = 1
FOLDER = "index"
_SUFFIX = ".json"
_MOST_ATTEMPTS = 100
_READERS = 16
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


class Rejections(msgspec.Struct, frozen=True):
    """Balances that were rejected for one reason.

    Attributes:
        code: The destination's code, or ``LOCAL``.
        text: The reason in words.
        count: Balances.
        assets: Up to five examples.
    """

    code: str
    text: str
    count: int
    assets: list[str]


class Delivered(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of a day at one destination.

    Attributes:
        counts: Balances of the newest plan, by outcome; each counts once.
        never_sent: Balances that are due and in no plan.
        due: Whether the store has the balances that are due.
        planned: Whether a run has planned a delivery of the whole day.
        so_far: Whether the newest plan is of a day that went on.
        other_keys: Balances held under keys or settings that the accounts file no longer has.
        example: One of them.
        rejections: By reason.
        run_id: The run that planned last.
        at: When it did (UTC, RFC 3339).
    """

    counts: dict[str, int] = {}
    never_sent: int = 0
    due: bool = False
    planned: bool = False
    so_far: bool = False
    other_keys: int = 0
    example: str = ""
    rejections: list[Rejections] = []
    run_id: str = ""
    at: str = ""


class Day(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the store has of an account's day.

    Attributes:
        stored: Whether it has all changes of the day.
        unavailable: Whether the exchange said that it no longer has the day.
        proof: ``proven``, ``tolerated``, ``broken``; empty if the day was not run yet.
        report: The reconciliation's key.
        records: Records of the day.
        assets: Assets with a balance or a change.
        breaks: Places where the proof fails.
        drift: By asset, in units of the asset.
        approved_by: Who approved that it is delivered although it does not add up, or empty.
        destinations: By name.
        unreadable: What of it cannot be read, and why; empty if all can.
    """

    stored: bool = False
    unavailable: bool = False
    proof: str = ""
    report: str = ""
    records: int = 0
    assets: int = 0
    breaks: int = 0
    drift: dict[str, str] = {}
    approved_by: str = ""
    destinations: dict[str, Delivered] = {}
    unreadable: str = ""


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
    wanted = {place: key for month in months for place, key in _newest(store, month).items()}
    new = [key for key in wanted.values() if key not in known]
    with ThreadPoolExecutor(_READERS) as readers:
        known.update(zip(new, readers.map(lambda key: _decode(store, key), new), strict=True))
    for key in set(known) - set(wanted.values()):
        if key.split("/")[1] in {month for month, _ in wanted}:
            del known[key]
    return {place: known[key] for place, key in wanted.items()}


def read_day(store: Store, account: str, day: date) -> Day:
    """Read a day's facts from the store itself. What cannot be read is named, and the rest is read all the same."""
    folder = f"raw/{account}/{day}"
    report = store.newest(f"reconciliation/{account}/{day}", _SUFFIX)
    proof: Mapping[str, Any] = {}
    destinations, unreadable = dict[str, Delivered](), list[str]()
    try:
        proof = store.read_json(report) if report is not None else {}
    except StoreDamaged as error:
        unreadable.append(str(error))
    due = {key.split("/")[3] for key in store.list(f"balances/{account}/{day}")}
    for name in sorted(due | set(destinations_with_logs(store, account, day))):
        try:
            destinations[name] = _delivered(store, account, day, name)
        except BalanceBridgeError as error:
            unreadable.append(str(error))
    return Day(
        stored=store.newest(raw.manifests(account, day), _SUFFIX) is not None,
        unavailable=bool(store.list(f"{folder}/unavailable")),
        proof=str(proof.get("status", "")),
        report=report or "",
        records=int(proof.get("records", 0)),
        assets=int(proof.get("assets", 0)),
        breaks=int(proof.get("break_count", 0)),
        drift=dict(proof.get("drift", {})),
        approved_by=str((proof.get("approval") or {}).get("by", "")),
        destinations=destinations,
        unreadable="; ".join(unreadable),
    )


def months_of(store: Store, account: str) -> list[str]:
    """The months of which the store has anything of an account."""
    return sorted({day[:7] for day in _days_of(store, account)})


def _days_of(store: Store, account: str) -> set[str]:
    found = set[str]()
    for stage in ("raw", "reconciliation", "receipts"):
        found |= {key.split("/")[2] for key in store.list(f"{stage}/{account}")}
    return {day for day in found if _DAY.fullmatch(day)}


def _delivered(store: Store, account: str, day: date, name: str) -> Delivered:
    found = read_delivered(store, account, day, name)
    plan = found.folded.events.newest_plan
    summary = DeliverySummary(account, day.isoformat(), name)
    summary.count(found.folded)
    held, example = other_keys(plan, found.folded)
    return Delivered(
        counts={str(status): count for status, count in found.counts.items()},
        never_sent=found.never_sent,
        due=found.is_worked_out,
        planned=found.is_planned,
        so_far=plan is not None and plan.so_far,
        other_keys=held,
        example=example,
        rejections=[Rejections(each.code, each.text, each.count, each.assets) for each in summary.reasons.values()],
        run_id=plan.run_id if plan is not None else "",
        at=plan.created_at if plan is not None else "",
    )


def _write(store: Store, account: str, month: str, days: Sequence[date] | None) -> int:
    """Write the index's next object with these days read again; with all that the store has, where None."""
    folder = f"{FOLDER}/{month}/{account}"
    for _ in range(_MOST_ATTEMPTS):
        series = store.series(folder, _SUFFIX)
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
        number = 1 + (int(newest.rsplit("/", 1)[1].split(".")[0]) if newest is not None else 0)
        if newest is not None and found == known:
            return len(found)
        if store.put(f"{folder}/{number:04d}{_SUFFIX}", document):
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
        if len(parts) == 4 and key.endswith(_SUFFIX):
            # Sorted by name, and numbers have leading zeros.
            found[month, parts[2]] = key
    return found


def _decode(store: Store, key: str) -> Month:
    try:
        month = msgspec.convert(store.read_json(key), Month)
    except msgspec.ValidationError as error:
        raise StoreDamaged(
            f"{store.describe(key)} cannot be read",
            why=str(error),
            do="Make the index again: balance-bridge store index",
        ) from error
    if month.version != VERSION:
        raise StoreDamaged(
            f"{store.describe(key)} is of version {month.version}, this release reads {VERSION}",
            do="Make the index again: balance-bridge store index",
        )
    return month
