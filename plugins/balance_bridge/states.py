"""What a day's facts mean: whether an account's day is delivered and, if it is not, what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from enum import StrEnum

from balance_bridge.accounts import Account
from balance_bridge.facts import Day, Delivered
from balance_bridge.load.fold import SETTLED, Status
from balance_bridge.load.summary import held_otherwise


class Kind(StrEnum):
    """The state of an account's day, the most serious first."""

    UNREADABLE = "unreadable"
    HELD = "held"
    REJECTED = "rejected"
    UNKNOWN = "unknown"
    GONE = "gone"
    NOT_DELIVERED = "not delivered"
    MISSING = "missing"
    RUNNING = "running"
    DELIVERED = "delivered"


#: Somebody has to do something about these.
WRONG = frozenset(set(Kind) - {Kind.RUNNING, Kind.DELIVERED})


@dataclass(frozen=True)
class State:
    """The state of an account's day, at one destination or at all of them.

    Attributes:
        kind: In a word.
        text: In a sentence's part, such as ``2 rejected, 10 accepted``.
        days_left: Days that are left to fetch what is missing, today included; None where that does not matter.
        remark: What is not wrong, but not as usual either; empty if nothing is.
    """

    kind: Kind
    text: str
    days_left: int | None = None
    remark: str = ""

    @property
    def is_wrong(self) -> bool:
        """Whether somebody has to do something."""
        return self.kind in WRONG


def judge(account: Account, day: date, facts: Day, today: date) -> dict[str, State]:
    """The state of an account's day at each of its destinations.

    Args:
        account: As the accounts file has it.
        day: The UTC day.
        facts: What the store has of it.
        today: The present UTC day.
    """
    return {name: _at(account, day, facts, name, today) for name in account.destinations}


def left_over(account: Account, facts: Day) -> dict[str, State]:
    """The destinations that the accounts file has no longer, by what is undelivered there."""
    found = {}
    for name, each in facts.destinations.items():
        if name not in account.destinations:
            kind = Kind.UNREADABLE if each.unreadable else Kind.NOT_DELIVERED if each.left else Kind.DELIVERED
            text = each.unreadable or describe(each) or "nothing was delivered"
            found[name] = State(kind, f"{text}: not in the accounts file any more")
    return found


def worst(states: Mapping[str, State]) -> State:
    """The state that counts for the day as a whole: the most serious one."""
    order = list(Kind)
    return min(states.values(), key=lambda state: order.index(state.kind))


def describe(found: Delivered) -> str:
    """What became of the balances at a destination, such as ``11 accepted, 1 rejected``; empty if there are none."""
    parts = [f"{count} {status}" for status, count in sorted(found.counts.items())]
    return ", ".join([*parts, *([f"{found.never_sent} not delivered"] if found.never_sent else [])])


def days_left(account: Account, day: date, today: date) -> int | None:
    """Days on which the exchange still has a day, today included; 0 once it has not, None if it never forgets."""
    retention_days = account.source.retention_days
    return None if retention_days is None else max((day - today).days + retention_days + 1, 0)


def _at(account: Account, day: date, facts: Day, name: str, today: date) -> State:
    found, config = facts.destinations.get(name, Delivered()), account.destinations[name]
    counts = dict.fromkeys(Status, 0) | {Status(status): number for status, number in found.counts.items()}
    is_run = bool(facts.proof) or found.planned
    missing = found.never_sent + counts[Status.PLANNED]
    unconfirmed = counts[Status.SEEN] if config.on_unconfirmed == "fail" else 0
    unreadable = facts.unreadable or found.unreadable
    if day >= today and not (unreadable or is_run):
        return State(Kind.RUNNING, "the day is not over yet")
    if not (unreadable or facts.stored or is_run):
        return _missing(account, day, facts, today)
    kinds = {
        Kind.UNREADABLE: bool(unreadable),
        Kind.HELD: facts.proof == "broken" and account.on_break != "load" and not facts.approved_by,
        Kind.REJECTED: counts[Status.REJECTED] > config.max_rejected,
        Kind.UNKNOWN: bool(counts[Status.UNKNOWN] or unconfirmed),
        Kind.NOT_DELIVERED: bool(missing or not (found.planned or found.due)),
    }
    kind = next((kind for kind, is_so in kinds.items() if is_so), Kind.DELIVERED)
    outcomes = describe(found)
    texts = {
        Kind.UNREADABLE: f"cannot be read: {unreadable}",
        Kind.HELD: f"held: the day does not add up ({facts.breaks} {'break' if facts.breaks == 1 else 'breaks'})",
        Kind.NOT_DELIVERED: outcomes or ("not delivered" if is_run else "fetched, but not run"),
        Kind.DELIVERED: outcomes or "nothing to deliver",
    }
    remark = _before(found) if kind is Kind.HELD else _remark(facts, found, counts)
    return State(kind, texts.get(kind, outcomes), remark=remark)


def held_text(facts: Day) -> str:
    """What of a day that is held may have arrived all the same, by an earlier run."""
    found = {name: text for name, each in facts.destinations.items() if (text := _before(each))}
    if not found:
        return "Nothing of the day was delivered."
    return f"Parts of the day were sent before: {'; '.join(f'{name}: {text}' for name, text in found.items())}."


def _before(found: Delivered) -> str:
    arrived = sum(found.counts.get(str(status), 0) for status in (*SETTLED, Status.UNKNOWN))
    return f"an earlier run sent {arrived} balances" if arrived else ""


def _missing(account: Account, day: date, facts: Day, today: date) -> State:
    left = 0 if facts.unavailable else days_left(account, day, today)
    if left is None:
        return State(Kind.MISSING, "missing")
    if left == 0:
        return State(Kind.GONE, "gone: it can no longer be fetched", 0)
    return State(Kind.MISSING, f"missing, {left} {'day' if left == 1 else 'days'} left to fetch it", left)


def _remark(facts: Day, found: Delivered, counts: Mapping[Status, int]) -> str:
    remarks = {
        "the drift is within the tolerance": facts.proof == "tolerated",
        f"it does not add up; {facts.approved_by} approved it": facts.approved_by,
        "it does not add up, and is delivered anyway": facts.proof == "broken" and not facts.approved_by,
        f"{counts[Status.SEEN]} not confirmed": counts[Status.SEEN],
        f"{counts[Status.REJECTED]} rejected": counts[Status.REJECTED],
        held_otherwise(found.other_keys, found.example): found.other_keys,
    }
    return "; ".join(text for text, is_so in remarks.items() if is_so)
