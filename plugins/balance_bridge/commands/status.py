"""``balance-bridge status``: whether everything is delivered, by the receipts in the store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

from balance_bridge import settings
from balance_bridge.accounts import Account
from balance_bridge.commands.arguments import choose_accounts, today
from balance_bridge.commands.deliveries import MANIFEST, Delivered, destinations_of, read_delivered
from balance_bridge.commands.output import Listing, Output
from balance_bridge.errors import BalanceBridgeError, StoreDamaged
from balance_bridge.load.fold import Status
from balance_bridge.load.log import destinations_with_logs
from balance_bridge.load.summary import held_otherwise, other_keys
from balance_bridge.store import Store

NOT_RUN = "not run"
STORED, MISSING, GONE = "stored", "missing", "gone"
LEFT = "not in the accounts file any more"
_STATES = {
    "broken": "the day does not add up",
    MISSING: "missing",
    GONE: "gone: it can no longer be fetched",
    NOT_RUN: "fetched, but not run",
    "not delivered": "not delivered",
}
# What a damaged object may raise.
_UNREADABLE = (BalanceBridgeError, OSError, ValueError)
_COLUMNS = {"account": "account", "UTC day": "day", "proof": "proof", "destination": "destination", "state": "state"}


@dataclass(frozen=True)
class Line:
    """An account's day at a destination; or, without a day, something that stops the account altogether.

    Attributes:
        account: The account's name.
        day: The UTC day, ``YYYY-MM-DD``; empty for what concerns all days.
        destination: The destination's name, or empty.
        proof: ``proven``, ``tolerated``, ``broken``, or ``not run`` where there is no reconciliation yet.
        raw: ``stored`` if the store has all changes of the day; else ``missing`` if they can still be fetched, and
            ``gone`` if not.
        days_left: Days that are left to fetch what is missing, today included; None where that does not matter.
        not_sent: Balances that are worked out and were never sent.
        problem: What kind of thing is wrong, in a few words; empty if nothing is.
        state: All of it in words.
        counts: Number of balances by outcome; each balance counts once. JSON and CSV have a column for each.
        needs_a_look: Whether it is not wrong, but not as usual either.
    """

    account: str
    day: str = ""
    destination: str = ""
    proof: str = ""
    raw: str = ""
    days_left: int | None = None
    not_sent: int = 0
    problem: str = ""
    state: str = ""
    counts: Mapping[Status, int] = field(default_factory=Counter)
    needs_a_look: bool = False

    def record(self) -> dict[str, Any]:
        """The line as it is shown."""
        counts = {str(status): self.counts.get(status, 0) for status in Status}
        return {**vars(self), **counts, "colour": "red" if self.problem else "yellow" if self.needs_a_look else ""}


_FIELDS = [name for name in Line("").record() if name not in ("counts", "needs_a_look", "colour")]


def run(accounts: Sequence[str], days: Sequence[date], output: Output) -> int:
    """Show what is delivered and what is wrong.

    Returns:
        The exit code: 1 if anything is wrong or missing.
    """
    chosen = choose_accounts(accounts)
    file = settings.read_accounts()
    store, states, lines = settings.open_store(), dag_states(), list[Line]()
    if not accounts:
        for name, wrong in file.broken.items():
            state = f"wrong in the accounts file: {wrong.message.splitlines()[0]}"
            lines.append(Line(name, problem="wrong account", state=state))
    if file.error is not None:
        lines.append(Line("(all)", problem="accounts file", state=str(file.error.args[0])))
    for account in chosen:
        lines += _account(store, account, states)
        lines += read_days(store, account, days)
        lines += _left(store, account.name, days, account.destinations)
    if not accounts:
        stored = {key.split("/")[1] for key in store.list("reconciliation")}
        for name in sorted(stored - file.accounts.keys() - file.broken.keys()):
            lines += _left(store, name, days, ())
    remarks = [] if states is not None else ["Airflow's database cannot be read: whether a DAG is paused is not known"]
    records = [line.record() for line in lines]
    output.show(Listing(records, _COLUMNS, _FIELDS, _verdict(len(chosen), lines), remarks))
    return int(any(line.problem for line in lines))


def read_days(store: Store, account: Account, days: Sequence[date]) -> Iterator[Line]:
    """What the store knows of an account's days, a line for each destination.

    Args:
        store: The store.
        account: The account.
        days: Which days.
    """
    for day in days:
        try:
            proof = _proof(store, account.name, day)
        except _UNREADABLE as error:
            yield _unreadable(account.name, day, "", error)
            continue
        # A run with an explicit date may have delivered an earlier day.
        if account.start_date <= day < today() or proof != NOT_RUN:
            for name in account.destinations:
                try:
                    yield _day(store, account, day, name, proof)
                except _UNREADABLE as error:
                    yield _unreadable(account.name, day, name, error)


def dag_states() -> dict[str, str] | None:
    """By DAG id: ``paused``, ``gone``, or empty for one that runs; None if Airflow's database cannot be read."""
    try:
        from airflow.models.dag import DagModel
        from airflow.utils.session import create_session
        from sqlalchemy import select

        with create_session() as session:
            found = session.execute(select(DagModel.dag_id, DagModel.is_paused, DagModel.is_stale)).all()
    except Exception:  # whatever a database, its driver or its schema may raise
        return None
    return {dag: "gone" if stale else "paused" if paused else "" for dag, paused, stale in found}


def _account(store: Store, account: Account, states: Mapping[str, str] | None) -> Iterator[Line]:
    """What stops an account altogether."""
    dag, start, retention = f"balances_{account.name}", account.start_date, account.source.retention_days
    state = "" if states is None else states.get(dag, "gone")
    if state == "paused":
        yield Line(account.name, problem="paused", state=f"its DAG is paused: airflow dags unpause {dag}")
    elif state:
        yield Line(account.name, problem="no DAG", state=f"Airflow has no DAG {dag}: check its DAGs folder")
    if start > today():
        yield Line(account.name, problem="start date", state=f"nothing is delivered before its start_date, {start}")
    oldest = start if retention is None else today() - timedelta(days=retention)
    if start < oldest and not _was_run(store, account.name, start):
        state = f"its start_date {start} can no longer be fetched: set it to {oldest}, the oldest available day"
        yield Line(account.name, problem="start date", state=state)


def _left(store: Store, account: str, days: Sequence[date], known: Container[str]) -> Iterator[Line]:
    """What is undelivered at destinations that the accounts file no longer has."""
    for day in days:
        for name in destinations_of(store, account, day):
            if name in known:
                continue
            try:
                delivered, proof = read_delivered(store, account, day, name), _proof(store, account, day)
            except _UNREADABLE as error:
                yield _unreadable(account, day, name, error)
                continue
            if delivered.left:
                where, state = (account, str(day), name, proof), f"{_outcomes(delivered)}: {LEFT}"
                counts, not_sent = delivered.counts, delivered.never_sent
                yield Line(*where, not_sent=not_sent, problem=LEFT, state=state, counts=counts)


def _was_run(store: Store, account: str, day: date) -> bool:
    stored = store.newest(f"raw/{account}/{day}/{MANIFEST}", ".json")
    return stored is not None or any(destinations_with_logs(store, account, day))


def _proof(store: Store, account: str, day: date) -> str:
    newest = store.newest(f"reconciliation/{account}/{day}", ".json")
    if newest is None:
        return NOT_RUN
    try:
        return str(store.read_json(newest)["status"])
    except (KeyError, TypeError) as error:
        raise StoreDamaged(f"{store.describe(newest)} has no status") from error


def _unreadable(account: str, day: date, name: str, error: Exception) -> Line:
    state = f"cannot be read: {error}. balance-bridge store check {account} --days {day} says what to do"
    return Line(account, str(day), name, problem="unreadable", state=state)


def _day(store: Store, account: Account, day: date, name: str, proof: str) -> Line:
    delivered = read_delivered(store, account.name, day, name)
    raw, left = _raw(store, account, day)
    counts = delivered.counts
    problem = _problem(account, name, proof, raw, delivered)
    parts = [_outcomes(delivered)] if counts or delivered.never_sent else []
    if problem in _STATES and not delivered.never_sent:
        parts.append(_STATES[problem] + (f", {left} day{'s' if left > 1 else ''} left to fetch it" if left else ""))
    held, example = other_keys(delivered.folded.events.newest_plan, delivered.folded)
    if held:
        parts.append(held_otherwise(held, example))
    state = ", ".join(parts) or "nothing to deliver"
    look = bool(held or proof == "tolerated" or counts[Status.SEEN] or counts[Status.REJECTED])
    where = (account.name, str(day), name)
    return Line(*where, proof, raw, left, delivered.never_sent, problem, state, counts, look)


def _outcomes(delivered: Delivered) -> str:
    parts = [f"{count} {status}" for status, count in sorted(delivered.counts.items())]
    return ", ".join([*parts, *([f"{delivered.never_sent} not delivered"] if delivered.never_sent else [])])


def _problem(account: Account, name: str, proof: str, raw: str, delivered: Delivered) -> str:
    """What kind of thing is wrong with a day, the most serious first; empty if nothing is."""
    counts, config = delivered.counts, account.destinations[name]
    found = {
        "broken": proof == "broken",
        "rejected": counts[Status.REJECTED] > config.max_rejected,
        "unknown": bool(counts[Status.UNKNOWN]),
        "unconfirmed": bool(counts[Status.SEEN]) and config.on_unconfirmed == "fail",
        # A day that was delivered and pruned has receipts and no proof.
        NOT_RUN if raw == STORED else raw: proof == NOT_RUN and not delivered.is_planned,
        "not delivered": bool(delivered.never_sent or counts[Status.PLANNED])
        or not (delivered.is_planned or delivered.is_worked_out),
    }
    return next((kind for kind, is_so in found.items() if is_so), "")


def _raw(store: Store, account: Account, day: date) -> tuple[str, int | None]:
    if store.newest(f"raw/{account.name}/{day}/{MANIFEST}", ".json") is not None:
        return STORED, None
    retention_days = account.source.retention_days
    if retention_days is None:
        return MISSING, None
    # Day D can be fetched while D >= today - retention: on its last day one is left.
    left = (day - today()).days + retention_days + 1
    return (MISSING, left) if left > 0 else (GONE, 0)


def _verdict(accounts: int, lines: Sequence[Line]) -> str:
    wrong = Counter(line.problem for line in lines if line.problem)
    if wrong:
        kinds = ", ".join(f"{count} {kind}" for kind, count in wrong.most_common())
        where = _counted(len({line.account for line in lines if line.problem}), "account")
        return f"{_counted(wrong.total(), 'problem')} in {where}: {kinds}"
    days = len({(line.account, line.day) for line in lines})
    if not days:
        return f"Nothing is due yet: {_counted(accounts, 'account')}, no finished day."
    return f"All is well: {_counted(accounts, 'account')}, {_counted(days, 'day')}, every balance delivered."


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
