"""The page of one account's day: what moved, where the proof fails, and what became of each balance."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

from fastapi import HTTPException, Response

from balance_bridge import decisions, facts
from balance_bridge.accounts import Account
from balance_bridge.clock import utc_text
from balance_bridge.commands.output import csv_cell
from balance_bridge.daybook import Daybook, Reason, reasons
from balance_bridge.decisions import Act, Decision
from balance_bridge.errors import BalanceBridgeError, StoreDamaged
from balance_bridge.explanation import REMEDIES
from balance_bridge.facts import UNREADABLE
from balance_bridge.load.audit import Entry
from balance_bridge.money import to_text
from balance_bridge.states import Kind, State, judge, left_over, worst
from balance_bridge.store import Store
from balance_bridge.ui.overview import Cell
from balance_bridge.ui.runs import Run

if TYPE_CHECKING:
    import pandas as pd

_TYPES = {"csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet"}

What = Literal["movements", "ledger", "deliveries"]
"""A table of a day that can be downloaded."""

Form = Literal["csv", "parquet"]
"""The form of a download."""


@dataclass(frozen=True)
class Target:
    """What became of the day at one destination.

    Attributes:
        name: The destination's name.
        state: In a word, and in a sentence's part.
        entries: The attempts, those that count first.
        reasons: Rejections and doubts, the most frequent first.
        unconfirmed: The attempts whose outcome somebody has to find out.
    """

    name: str
    state: State
    entries: Sequence[Entry]
    reasons: Sequence[Reason]
    unconfirmed: Sequence[Entry]


@dataclass(frozen=True)
class DayPage:
    """What the page shows.

    Attributes:
        account: The account.
        day: The UTC day.
        cell: Its state, as in the overview.
        remedy: What to do; empty if nothing is wrong.
        book: The day as the store has it.
        movements: Per asset opening, in, out, fees, closing and drift as text.
        targets: What became of it at each destination.
        decisions: What people decided about it, oldest first.
        problem: What of it cannot be read; empty if all can.
    """

    account: Account
    day: date
    cell: Cell
    remedy: str
    book: Daybook
    movements: Sequence[Mapping[str, str]]
    targets: Sequence[Target]
    decisions: Sequence[Decision] = ()
    problem: str = ""

    @property
    def open_question(self) -> str:
        """The digest of the proof that somebody has to decide about, or empty."""
        proof = str(self.book.report.get("proof", ""))
        asks = self.account.on_break == "ask" and self.book.report.get("status") == "broken"
        approved = any(each.proof == proof and each.act is Act.APPROVED for each in self.decisions)
        return proof if asks and not approved else ""


def look(store: Store, account: Account, day: date, run: Run | None, today: date) -> DayPage:
    """Put the page together from the store itself.

    Args:
        store: The store.
        account: The account.
        day: The UTC day.
        run: Airflow's newest run of it.
        today: The present UTC day.
    """
    known = facts.read_day(store, account.name, day)
    states = {**left_over(account, known), **judge(account, day, known, today)}
    state = worst(states)
    remedy = REMEDIES.get(state.kind, "")
    if run is not None and run.is_under_way:
        state = State(Kind.RUNNING, f"Airflow's run of it: {run.state}")
    book, moved, targets, problems = Daybook(store, account.name, day), list[Mapping[str, str]](), list[Target](), []
    decided: Sequence[Decision] = ()
    try:
        decided = decisions.read(store, account.name, day)
    except UNREADABLE as error:
        problems.append(str(error))
    try:
        book = Daybook.read(store, account.name, day)
        moved = [] if book.movements is None else list(_texts(book.movements))
        _ = book.breaks
    except UNREADABLE as error:
        problems.append(str(error) if isinstance(error, BalanceBridgeError) else f"the day's report: {error!r}")
        book = Daybook(store, account.name, day)
    for name, its in states.items():
        try:
            targets.append(_target(name, its, book.delivery(name)))
        except UNREADABLE as error:
            problems.append(str(error))
            targets.append(_target(name, its, []))
    return DayPage(account, day, Cell(day, state), remedy, book, moved, targets, decided, "\n".join(problems))


def download(store: Store, account: str, day: date, what: What, form: Form) -> Response:
    """A table of the day as a file.

    Raises:
        HTTPException: 404 if the day was not run yet.
        StoreDamaged: If what it is made of cannot be read.
    """
    try:
        table = _table(Daybook.read(store, account, day), what)
    except UNREADABLE as error:
        if isinstance(error, BalanceBridgeError):
            raise
        raise StoreDamaged(f"{account} {day}: its report cannot be read", why=repr(error)) from error
    if table is None:
        raise HTTPException(404, f"{account} {day} was not run yet")
    data = _csv(table) if form == "csv" else _parquet(table)
    disposition = {"Content-Disposition": f'attachment; filename="{account}-{day}-{what}.{form}"'}
    return Response(data, media_type=_TYPES[form], headers=disposition)


def _table(book: Daybook, what: What) -> pd.DataFrame | None:
    import pandas as pd

    if what == "deliveries":
        rows = [asdict(entry) for found in book.deliveries.values() for entry in found]
        table = pd.DataFrame(rows, columns=[field.name for field in fields(Entry)])
        return table.assign(http_status=table["http_status"].astype("Int64"))
    if what == "ledger":
        return book.ledger
    return None if book.movements is None else book.movements.reset_index()


def _csv(table: pd.DataFrame) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(table.columns)
    writer.writerows([_text(value) for value in row] for row in table.itertuples(index=False))
    return text.getvalue().encode()


def _parquet(table: pd.DataFrame) -> bytes:
    data = io.BytesIO()
    table.to_parquet(data, index=False)
    return data.getvalue()


def _text(value: Any) -> str:
    if isinstance(value, Decimal):
        return to_text(value)
    if isinstance(value, datetime):
        return utc_text(value.timestamp())
    import pandas as pd

    # pandas has its own words for nothing.
    return "" if value is None or pd.isna(value) else str(csv_cell(str(value)))


def _texts(movements: pd.DataFrame) -> Iterable[Mapping[str, str]]:
    for asset, row in movements.iterrows():
        yield {"asset": str(asset), **{str(name): to_text(value) for name, value in row.items()}}


def _target(name: str, state: State, found: Sequence[Entry]) -> Target:
    unconfirmed = [entry for entry in found if entry.number and entry.outcome in ("seen", "unknown")]
    return Target(name, state, found, reasons(found), unconfirmed)
