"""``balance-bridge receipts``: what was sent, when, by which run, and how it ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from datetime import date
from decimal import Decimal
from typing import Any

from balance_bridge import settings
from balance_bridge.commands.arguments import choose
from balance_bridge.commands.deliveries import delivered_to
from balance_bridge.commands.output import Listing, Output, Record
from balance_bridge.load.audit import SUPERSEDED, Entry, entries
from balance_bridge.load.fold import LOCAL, Status, fold
from balance_bridge.load.log import DayLog

OUTCOMES = (*map(str, Status), SUPERSEDED)
# Assets that are named for a reason.
_EXAMPLES = 5
_COLOURS: dict[str, str] = {Status.REJECTED: "red", Status.UNKNOWN: "red", Status.PLANNED: "red", Status.SEEN: "yellow"}
_COLUMNS = {
    "day": "day",
    "destination": "destination",
    "asset": "asset",
    "at (UTC)": "at",
    "balance": "amount",
    "outcome": "outcome",
    "number": "number",
    "sent at": "sent_at",
    "reason": "reason",
}


def show(
    account: str,
    days: Sequence[date],
    *,
    destinations: Sequence[str],
    assets: Sequence[str],
    outcomes: Sequence[str],
    output: Output,
) -> int:
    """Show every attempt to deliver the balances of some days.

    Raises:
        StoreDamaged: If part of a log cannot be read.
    """
    choose("there is no outcome", outcomes, OUTCOMES)
    store, records = settings.open_store(), list[dict[str, Any]]()
    names = delivered_to(store, account, days, destinations)
    for day in days:
        for name in names:
            found = entries(fold(DayLog(store, account, day, name).read()), name)
            records += [_record(account, day, entry) for entry in found]
    chosen = choose("there is no asset", assets, sorted({record["asset"] for record in records}))
    records = [
        record
        for record in records
        if record["asset"] in chosen and (not outcomes or (record["outcome"] in outcomes and not _is_replaced(record)))
    ]
    remarks = list(_remarks(records)) if records else [f"{account}: there are no receipts of this kind"]
    if output.form == "table" and Status.IGNORED not in outcomes:
        # What the accounts file leaves out is no attempt: there may be much of it, and it has a line of its own.
        records = [record for record in records if record["outcome"] != Status.IGNORED]
    if output.form == "table":
        records = [_short(record) for record in records]
    columns = {head: key for head, key in _COLUMNS.items() if key != "day" or len(days) > 1}
    fields = ["account", "day", *Entry.__dataclass_fields__]
    output.show(Listing(records, columns, fields, remarks=remarks, optional=("number", "sent_at")))
    return 0


def _record(account: str, day: date, entry: Entry) -> dict[str, Any]:
    supersedes = Decimal(entry.supersedes) if entry.supersedes else ""
    colour = _COLOURS.get(entry.outcome, "") if entry.current else "dim"
    return {"account": account, "day": str(day), **asdict(entry), "supersedes": supersedes, "colour": colour}


def _short(record: Record) -> dict[str, Any]:
    """A record for a table: without what says nothing there."""
    instead = f"instead of {record['supersedes']:f} " if record["supersedes"] else ""
    return {
        **record,
        "at": record["at"].removesuffix("Z").removesuffix(".000"),
        "sent_at": record["sent_at"].removesuffix("Z").partition(".")[0],
        "outcome": record["outcome"] if record["current"] else f"{record['outcome']} (earlier)",
        "reason": f"{instead}{record['code']} {record['text']}".strip(),
    }


def _remarks(records: Sequence[Record]) -> Iterator[str]:
    """What became of the balances, each counted once; the attempts that came before; and why."""
    for is_current, what in ((True, ""), (False, "earlier attempts: ")):
        counts = Counter(str(record["outcome"]) for record in records if record["current"] == is_current)
        if counts:
            yield what + ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))
    yield from _reasons(records)
    ignored: dict[str, list[str]] = {}
    for record in records:
        if record["outcome"] == Status.IGNORED:
            ignored.setdefault(record["destination"], []).append(record["asset"])
    for destination, assets in ignored.items():
        yield f"{destination}: {len(assets)} ignored, as the accounts file says ({_named(assets)})"


def _is_replaced(record: Record) -> bool:
    """Whether a rejection is no longer what became of its balance."""
    return record["outcome"] == Status.REJECTED and not record["current"]


def _reasons(records: Iterable[Record]) -> Iterator[str]:
    """What was not accepted, by destination, outcome and code, the most frequent first."""
    groups: dict[tuple[str, ...], list[Record]] = {}
    for each in records:
        if each["current"] and (each["code"] or each["text"]):
            # A destination's texts may differ from record to record; our own say what is wrong.
            text = each["text"] if each["code"] == LOCAL else ""
            groups.setdefault((each["destination"], each["outcome"], each["code"], text), []).append(each)
    for (destination, outcome, code, _), same in sorted(groups.items(), key=lambda item: -len(item[1])):
        named = _named(each["asset"] for each in same)
        yield f"{destination}: {len(same)} {outcome}, {code or 'no code'} ({named}): {same[0]['text']}"


def _named(assets: Iterable[str]) -> str:
    """Some of the assets, and how many more there are."""
    distinct = list(dict.fromkeys(assets))
    more = f" and {len(distinct) - _EXAMPLES} more" if len(distinct) > _EXAMPLES else ""
    return f"{', '.join(distinct[:_EXAMPLES])}{more}"
