"""UTC days: how they are written, and which one a run is about."""

from __future__ import annotations

import re
from collections.abc import Container
from datetime import UTC, date, datetime, timedelta

from balance_bridge.errors import InvalidDay

# Run types with one run for each day.
_ONE_RUN_PER_DAY = ("backfill", "scheduled")


def parse_day(text: object) -> date:
    """Read a day from ``YYYY-MM-DD``.

    Raises:
        ValueError: If it is anything else; the message says what is wrong, and goes on after the text.
    """
    # date.fromisoformat would also take 20261120 and 2026-W47-5.
    if not isinstance(text, str) or not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        raise ValueError("is not of the form YYYY-MM-DD")
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise ValueError("is a date that does not exist") from error


def is_day(text: str) -> bool:
    """Whether :func:`parse_day` takes a text."""
    try:
        parse_day(text)
    except ValueError:
        return False
    return True


def resolve_day(requested: str | None, logical_date: datetime | None, run_after: datetime, *, run_type: str) -> date:
    """The UTC day D that a run delivers: never by the wall clock, never by the data interval.

    Airflow shifts the data interval of manual runs, and gives those without a logical date none at all. What every run
    has is the instant from which it was due.

    Args:
        requested: The parameter ``date``, if it was given. It wins.
        logical_date: The run's logical date, if it has one. Its UTC day counts if that day had ended when the run was
            due.
        run_after: The instant from which the run was due.
        run_type: Airflow's name for what made the run, such as ``manual`` or ``backfill``.

    Returns:
        The day; without a request or a usable logical date the last one that had ended when the run was due.

    Raises:
        InvalidDay: If the requested day is malformed, in the future or not over, or the run has a day of its own.
    """
    last_ended = run_after.astimezone(UTC).date() - timedelta(days=1)
    if requested is not None:
        try:
            day = parse_day(requested)
        except ValueError as error:
            raise InvalidDay(f"date = {requested!r} {error}", do="Give it as in 2026-11-20") from error
        if run_type in _ONE_RUN_PER_DAY:
            raise InvalidDay(
                f"date = {day} cannot be given to a run of a backfill or of the schedule",
                why="each of these runs has a day of its own, and all of them would deliver this one",
                do=f'Trigger the DAG once with {{"date": "{day}"}}, or create the backfill again with '
                "--reprocess-behavior failed --dag-run-conf '{}' (--from-date and --to-date name its days; without the "
                "empty conf Airflow keeps the date)",
            )
        if day > last_ended:
            state = "is not over yet" if day == last_ended + timedelta(days=1) else "lies in the future"
            due = f"{run_after.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
            raise InvalidDay(
                f"date = {day} {state}",
                why=f"when this run was due ({due}) the last UTC day that had ended was {last_ended}",
                do=f"Give {last_ended} or an earlier day",
            )
        return day
    if logical_date is not None and logical_date.astimezone(UTC).date() <= last_ended:
        return logical_date.astimezone(UTC).date()
    return last_ended


def dag_id(account: str, taken: Container[str] = ()) -> str:
    """The id of an account's daily DAG: ``balances_<account>``.

    Args:
        account: The account's name; a wrong one may hold what a DAG id may not.
        taken: Ids of other DAGs, which a wrong name may come down to.
    """
    name = f"balances_{re.sub(r'[^A-Za-z0-9_.-]', '_', account)[:200]}"
    while name in taken:
        name += "_"
    return name


def approval_dag_id(account: str) -> str:
    """The id of the DAG that asks a person about an account's days."""
    return f"balances_{account}_approval"
