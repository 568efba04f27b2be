"""The overview: one sentence that says whether everything is delivered, and a cell for each account's day."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from balance_bridge import index
from balance_bridge.accounts import Account
from balance_bridge.facts import Day
from balance_bridge.index import Month
from balance_bridge.states import Kind, State, judge, left_over, worst
from balance_bridge.store import Store
from balance_bridge.ui.runs import Run

#: What was read of the index, for as long as the process lives: its objects never change.
_KNOWN: dict[str, Month] = {}
_MAX_NAMED = 5

#: By kind: what a cell shows (shape before colour), and its word.
MARKS = {
    Kind.UNREADABLE: ("!", "unreadable"),
    Kind.HELD: ("■", "held"),
    Kind.REJECTED: ("✕", "rejected"),
    Kind.UNKNOWN: ("?", "unknown"),
    Kind.GONE: ("∅", "gone"),
    Kind.NOT_DELIVERED: ("◐", "not delivered"),
    Kind.MISSING: ("○", "missing"),
    Kind.RUNNING: ("▸", "running"),
    Kind.DELIVERED: ("✓", "delivered"),
}


@dataclass(frozen=True)
class Cell:
    """One account's day.

    Attributes:
        day: The UTC day.
        state: What became of it; None before the account's first day.
    """

    day: date
    state: State | None

    @property
    def mark(self) -> str:
        """What the cell shows; of a missing day also how many days are left."""
        if self.state is None:
            return "·"
        mark = MARKS[self.state.kind][0]
        return f"{mark}{self.state.days_left}" if self.state.kind is Kind.MISSING and self.state.days_left else mark

    @property
    def word(self) -> str:
        """The state in a word, for class names and people."""
        return "not due" if self.state is None else str(self.state.kind)

    @property
    def text(self) -> str:
        """The state in a sentence's part."""
        if self.state is None:
            return "before the account's first day"
        text = self.state.text.removeprefix(f"{self.word}: ").removeprefix(f"{self.word}, ")
        return f"{text}; {self.state.remark}" if self.state.remark else text


@dataclass(frozen=True)
class Row:
    """One account.

    Attributes:
        account: Its name.
        cells: Its days, oldest first.
        problem: What is wrong with the account as a whole; empty if nothing is.
    """

    account: str
    cells: Sequence[Cell]
    problem: str = ""

    @property
    def wrong(self) -> list[Cell]:
        """The days that somebody has to look at."""
        return [cell for cell in self.cells if cell.state is not None and cell.state.is_wrong]


def read_states(
    store: Store,
    accounts: Sequence[Account],
    days: Sequence[date],
    runs: Mapping[tuple[str, date], Run],
    today: date,
) -> list[Row]:
    """What became of each account's days, by the index.

    Args:
        store: The store.
        accounts: The accounts.
        days: The UTC days, oldest first.
        runs: Airflow's newest run of each day.
        today: The present UTC day.
    """
    months = index.read(store, sorted({f"{day:%Y-%m}" for day in days}), _KNOWN)
    return [
        Row(account.name, [Cell(day, _state(months, account, day, runs, today)) for day in days])
        for account in accounts
    ]


def verdict(rows: Sequence[Row], *, unreadable: bool = False) -> str:
    """One sentence: whether everything is delivered and, if not, what needs attention.

    Args:
        rows: All accounts.
        unreadable: Whether the accounts file cannot be read.
    """
    broken = [row.account for row in rows if row.problem]
    wrong = [(row.account, cell) for row in rows for cell in row.wrong]
    due = sum(cell.state is not None for row in rows for cell in row.cells)
    running = sum(cell.state is not None and cell.state.kind is Kind.RUNNING for row in rows for cell in row.cells)
    under_way = f" {_counted(running, 'account-day')} still running." if running else ""
    if not (wrong or broken or unreadable):
        done = due - running
        if not done:
            return f"Nothing needs attention.{under_way}" if running else "Nothing is due yet."
        return f"All {_counted(done, 'account-day')} {'is' if done == 1 else 'are'} delivered.{under_way}"
    named = ["the accounts file cannot be read"] if unreadable else []
    named += [f"{account}: wrong in the accounts file" for account in broken]
    named += [f"{account} {cell.day}: {cell.word}" for account, cell in wrong]
    more = f", and {len(named) - _MAX_NAMED} more" if len(named) > _MAX_NAMED else ""
    needs = "needs" if len(named) == 1 else "need"
    return f"{len(named)} {needs} attention: {', '.join(named[:_MAX_NAMED])}{more}.{under_way}"


def _state(
    months: Mapping[tuple[str, str], Month],
    account: Account,
    day: date,
    runs: Mapping[tuple[str, date], Run],
    today: date,
) -> State | None:
    month = months.get((f"{day:%Y-%m}", account.name))
    facts = None if month is None else month.days.get(day.isoformat())
    if facts is None and day < account.start_date:
        return None
    run = runs.get((account.name, day))
    if run is not None and run.is_under_way:
        return State(Kind.RUNNING, f"Airflow's run of it: {run.state}")
    known = facts or Day()
    return worst({**judge(account, day, known, today), **left_over(account, known)})


def days_until(last: date, count: int) -> list[date]:
    """So many days, up to this one, oldest first."""
    return [last - timedelta(days=ago) for ago in reversed(range(count))]


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
