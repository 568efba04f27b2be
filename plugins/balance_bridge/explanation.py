"""An account's day in sentences: what became of it, why, and what to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date

from balance_bridge import decisions
from balance_bridge.accounts import Account
from balance_bridge.clock import utc_text
from balance_bridge.daybook import Break, Daybook, reasons
from balance_bridge.decisions import Act
from balance_bridge.facts import Day, read_day
from balance_bridge.load.audit import Entry
from balance_bridge.money import to_text
from balance_bridge.states import Kind, State, describe, judge, left_over, worst
from balance_bridge.store import Store

_MOST_BREAKS = 5
_MOST_ASSETS = 5
REMEDIES = {
    Kind.HELD: "Once the exchange has corrected it, refetch the day. With on_break: ask, you can also approve it.",
    Kind.REJECTED: "Correct the mapping or the ids in the accounts file, or ignore these assets; run the day again.",
    Kind.UNKNOWN: "Run the day again. If they stay unknown, ask the vendor, and record the answer (resolve).",
    Kind.GONE: "Restore its raw objects from a backup of the store, if there is one; otherwise the day is lost.",
    Kind.NOT_DELIVERED: "Run the day again.",
    Kind.MISSING: "Run it while the exchange still serves it.",
    Kind.UNREADABLE: "Run `balance-bridge store check`: it says what to do.",
}


def explain(store: Store, account: Account, day: date, today: date) -> tuple[State, list[str]]:
    """The state of a day, and the day in sentences, the most important first.

    Args:
        store: The store.
        account: The account.
        day: The UTC day.
        today: The present UTC day.

    Raises:
        StoreDamaged: If a part of what there is to say cannot be read.
    """
    known = read_day(store, account.name, day)
    states = {**judge(account, day, known, today), **left_over(account, known)}
    state = worst(states)
    first = f"{account.name} {day} is {state.kind}."
    if state.kind in (Kind.MISSING, Kind.GONE, Kind.UNREADABLE):
        return state, [first, f"{state.text[:1].upper()}{state.text[1:]}.", *_remedy(state)]
    book = Daybook.read(store, account.name, day)
    sentences = [first, *_proof(known, book.breaks)]
    for each in decisions.read(store, account.name, day):
        if each.act in (Act.APPROVED, Act.REFUSED):
            reason = f": {each.reason}" if each.reason else ""
            sentences.append(f"{each.by} {each.act} it at {each.at}{reason}.")
    for name, its in states.items():
        sentences += _delivery(name, its, known, book.deliveries.get(name, []))
    return state, [*sentences, *_remedy(state)]


def _proof(known: Day, breaks: Sequence[Break]) -> Iterator[str]:
    span = f"{known.records} records, {known.assets} assets"
    if known.proof == "proven":
        yield f"It adds up: opening and every change give the closing balances ({span})."
    elif known.proof == "tolerated":
        drift = ", ".join(f"{asset} {amount}" for asset, amount in known.drift.items())
        yield f"It adds up within the tolerance ({span}); the drift is {drift}."
    elif known.proof:
        yield f"It does not add up ({span}): {known.breaks} {'break' if known.breaks == 1 else 'breaks'}."
    for each in breaks[:_MOST_BREAKS]:
        at = "" if each.first_bad_at is None else f" at {utc_text(each.first_bad_at.timestamp())}"
        where = f"between sn {each.last_good_sn} (last good) and sn {each.first_bad_sn}{at} (first bad)"
        yield f"{each.asset}: {to_text(each.amount)} is unexplained {where}."


def _delivery(name: str, state: State, known: Day, entries: Sequence[Entry]) -> Iterator[str]:
    found = known.destinations.get(name)
    outcomes = describe(found) if found is not None else ""
    yield f"{name}: {outcomes or state.text}{f' ({state.remark})' if state.remark else ''}."
    for each in reasons(entries):
        named = ", ".join(each.assets[:_MOST_ASSETS]) + (", ..." if len(each.assets) > _MOST_ASSETS else "")
        yield f"{name}: {each.count} {each.outcome} ({named}), {each.code}: {each.text}."


def _remedy(state: State) -> list[str]:
    return [f"What to do: {REMEDIES[state.kind]}"] if state.kind in REMEDIES else []
