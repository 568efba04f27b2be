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
from balance_bridge.commands.deliveries import MANIFEST
from balance_bridge.commands.output import Listing, Output
from balance_bridge.facts import Delivered, destinations_of, read_day, read_delivery
from balance_bridge.load.fold import Status
from balance_bridge.load.log import destinations_with_logs
from balance_bridge.states import Kind, State, describe, judge
from balance_bridge.store import Store

LEFT = "not in the accounts file any more"
_COLUMNS = {"account": "account", "UTC day": "day", "proof": "proof", "destination": "destination", "state": "state"}


@dataclass(frozen=True)
class Line:
    """An account's day at a destination; or, without a day, something that stops the account altogether.

    Attributes:
        account: The account's name.
        day: The UTC day, ``YYYY-MM-DD``; empty for what concerns all days.
        destination: The destination's name, or empty.
        proof: ``proven``, ``tolerated`` or ``broken``; empty where there is no reconciliation yet.
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
    days_left: int | None = None
    not_sent: int = 0
    problem: str = ""
    state: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)
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
        found = read_day(store, account.name, day)
        # A run with an explicit date may have delivered an earlier day.
        if not (account.start_date <= day < today() or found.proof or found.unreadable):
            continue
        for name, state in judge(account, day, found, today()).items():
            delivered = found.destinations.get(name, Delivered())
            yield Line(
                *(account.name, str(day), name, found.proof, state.days_left, delivered.never_sent),
                problem=str(state.kind) if state.is_wrong else "",
                state=_text(account.name, day, state),
                counts=delivered.counts,
                needs_a_look=bool(state.remark),
            )


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
            found = read_delivery(store, account, day, name) if name not in known else Delivered()
            if found.left or found.unreadable:
                state = State(Kind.UNREADABLE, found.unreadable) if found.unreadable else None
                text = _text(account, day, state) if state else f"{describe(found)}: {LEFT}"
                problem = str(state.kind) if state else LEFT
                where = (account, str(day), name)
                yield Line(*where, not_sent=found.never_sent, problem=problem, state=text, counts=found.counts)


def _was_run(store: Store, account: str, day: date) -> bool:
    stored = store.newest(f"raw/{account}/{day}/{MANIFEST}", ".json")
    return stored is not None or any(destinations_with_logs(store, account, day))


def _text(account: str, day: date, state: State) -> str:
    """A state in words, with what to do where an object is damaged."""
    advice = f"balance-bridge store check {account} --days {day} says what to do"
    return ". ".join(filter(None, [state.text, advice if state.kind is Kind.UNREADABLE else "", state.remark]))


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
