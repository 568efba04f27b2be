"""What people have done with a day: runs, decisions about breaks, outcomes that they found out. All goes on record.

Starting a run needs Airflow's own database, so this is for its API server and for the command line, not for tasks.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from balance_bridge import decisions
from balance_bridge.accounts import Account
from balance_bridge.accounts.problems import did_you_mean
from balance_bridge.days import dag_id
from balance_bridge.decisions import Act, Decision
from balance_bridge.errors import ConfigurationError
from balance_bridge.load.audit import unconfirmed
from balance_bridge.load.documents import Resolution, Said, Word
from balance_bridge.load.fold import fold
from balance_bridge.load.log import DayLog, time_text
from balance_bridge.store import Store

_PARAMS: dict[Act, dict[str, Any]] = {Act.RERUN: {}, Act.REFETCH: {"refetch": True}, Act.DRY_RUN: {"dry_run": True}}


def start_run(store: Store, account: str, day: date, act: Act, by: str) -> str:
    """Run a day again, and put on record who had it run.

    Args:
        store: The store.
        account: The account's name.
        day: The UTC day.
        act: Rerun, refetch or dry run.
        by: Who wants it.

    Returns:
        The run's id; it begins with the act and the day.

    Raises:
        ConfigurationError: If Airflow does not take it.
    """
    from airflow.api.common.trigger_dag import trigger_dag
    from airflow.utils.types import DagRunTriggeredByType

    # Airflow's run ids have room for 250 characters.
    who = re.sub(r"[^A-Za-z0-9_.+-]", "_", by)[:60]
    run_id = f"{act.replace(' ', '_')}__{day}__by_{who}__{datetime.now(UTC):%Y-%m-%dT%H-%M-%S.%f}"
    try:
        trigger_dag(
            dag_id(account),
            triggered_by=DagRunTriggeredByType.UI,
            triggering_user_name=by,
            run_id=run_id,
            conf={"date": day.isoformat(), **_PARAMS[act]},
            note=f"{account} {day}: {act}, by {by}",
        )
    except Exception as error:  # whatever Airflow, its database or a driver may raise
        raise ConfigurationError(
            f"{account} {day}: Airflow could not start a run of {dag_id(account)}",
            why=str(error).partition("\n")[0] or type(error).__name__,
            do=f'Trigger it yourself, with {{"date": "{day}"}}',
        ) from error
    decisions.record(store, account, day, Decision(act, by, decisions.now(), run_id=run_id))
    return run_id


def decide(store: Store, account: Account, day: date, decision: Decision) -> None:
    """Put on record whether a day may be delivered although it does not add up.

    Args:
        store: The store.
        account: The account.
        day: The UTC day.
        decision: Approved or refused, and which proof.

    Raises:
        ConfigurationError: If there is nothing to decide, or no longer.
    """
    proof, where = open_question(store, account, day), f"{account.name} {day}"
    if decision.proof != proof:
        raise ConfigurationError(f"{where} has another proof by now", do="Look at it again, then decide")
    counts = decisions.decide(store, account.name, day, decision)
    if counts != decision:
        raise ConfigurationError(f"{counts.by} has already decided about {where}: {counts.act}")


def open_question(store: Store, account: Account, day: date) -> str:
    """The digest of the proof of a day that somebody has to decide about.

    Raises:
        ConfigurationError: If there is nothing to decide.
    """
    where = f"{account.name} {day}"
    if account.on_break != "ask":
        raise ConfigurationError(
            f"{where}: nobody is asked about days of this account",
            why=f"It has on_break: {account.on_break}",
            do="Set on_break: ask in the accounts file, then run the day again",
        )
    report = decisions.newest_report(store, account.name, day)
    if report is None or report["status"] != "broken":
        raise ConfigurationError(f"{where} {'was not run yet' if report is None else 'adds up'}: nothing to decide")
    return str(report["proof"])


@dataclass(frozen=True)
class Found:
    """What somebody found out about balances whose outcome nobody has confirmed.

    Attributes:
        destination: The destination's name.
        numbers: Their communication numbers; None for all that are not confirmed.
        said: Whether the destination accepted or rejected them.
        by: Who found it out.
        reason: How.
    """

    destination: str
    numbers: Sequence[str] | None
    said: Said
    by: str
    reason: str


def resolve(store: Store, account: str, day: date, found: Found) -> tuple[int, str]:
    """Put on record what somebody found out.

    Args:
        store: The store.
        account: The account's name.
        day: The UTC day.
        found: What.

    Returns:
        How many balances it is about, and the record's key.

    Raises:
        ConfigurationError: If there is nothing to resolve, a number is not among the unconfirmed ones, or a request may
            still be under way.
    """
    log, wanted = check_unconfirmed(store, account, day, found)
    word = Word(found.said, text=f"{found.by}: {found.reason}")
    now = time_text(datetime.now(UTC).timestamp())
    return len(wanted), log.put_resolution(Resolution(found.by, found.reason, now, dict.fromkeys(wanted, word)))


def check_unconfirmed(store: Store, account: str, day: date, found: Found) -> tuple[DayLog, list[str]]:
    """The log that somebody found something out about, and the numbers; nothing is recorded.

    Raises:
        ConfigurationError: As :func:`resolve`.
    """
    where, now_s = f"{account} {day} to {found.destination}", datetime.now(UTC).timestamp()
    log = DayLog(store, account, day, found.destination)
    events = log.read()
    left_s = max((made.left_s(now_s) for at, made in events.tries.items() if at not in events.results), default=0.0)
    if left_s > 0:
        # What a person has found out would be about less than what may still arrive.
        raise ConfigurationError(f"{where}: a request may still be under way", do=f"try again in {math.ceil(left_s)} s")
    unclear = unconfirmed(fold(events))
    if not unclear:
        raise ConfigurationError(f"{where}: there is nothing to resolve, every outcome is confirmed")
    wanted = unclear if found.numbers is None else list(dict.fromkeys(found.numbers))
    for number in wanted:
        if number not in unclear:
            raise ConfigurationError(
                f"{number} is not among the numbers of {where} that are not confirmed{did_you_mean(number, unclear)}",
                do=f"these are: {', '.join(unclear)}",
            )
    return log, wanted
