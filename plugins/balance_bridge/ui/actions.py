"""What a user can have done from the page. Each act goes on record, under the user's name, before it is done."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from typing import Annotated
from urllib.parse import urlsplit

from airflow.api.common.trigger_dag import trigger_dag
from airflow.configuration import conf
from airflow.utils.types import DagRunTriggeredByType
from fastapi import Header, HTTPException, Request

from balance_bridge import decisions
from balance_bridge.days import dag_id
from balance_bridge.decisions import Act, Decision
from balance_bridge.store import Store
from balance_bridge.ui.access import Viewer

_PARAMS = {Act.RERUN: {}, Act.REFETCH: {"refetch": True}, Act.DRY_RUN: {"dry_run": True}}


def from_this_site(
    request: Request,
    sec_fetch_site: Annotated[str | None, Header()] = None,
    origin: Annotated[str | None, Header()] = None,
) -> None:
    """Refuse a request that another site makes in the user's name.

    Browsers say where a request comes from: ``Sec-Fetch-Site`` where the connection is safe, ``Origin`` with any POST.

    Raises:
        HTTPException: 403 unless it comes from these pages.
    """
    if sec_fetch_site is not None:
        same = sec_fetch_site == "same-origin"
    else:
        ours = {request.headers.get("host", ""), urlsplit(conf.get("api", "base_url", fallback="")).netloc}
        same = origin is not None and urlsplit(origin).netloc in ours - {""}
    if not same:
        raise HTTPException(403, "This request comes from another site")


def start_run(store: Store, viewer: Viewer, account: str, day: date, act: Act) -> str:
    """Run a day again, and put on record who had it run.

    Args:
        store: The store.
        viewer: The user.
        account: The account's name; the user may see it.
        day: The UTC day.
        act: Rerun, refetch or dry run.

    Returns:
        The run's id.

    Raises:
        HTTPException: 403 if the user may not trigger the account's DAG.
    """
    check_may_trigger(viewer, account)
    now = datetime.now(UTC)
    who = re.sub(r"[^A-Za-z0-9_.+-]", "_", viewer.name)
    run_id = f"{act.replace(' ', '_')}__{day}__by_{who}__{now:%Y-%m-%dT%H-%M-%S.%f}"
    decisions.record(store, account, day, Decision(act, viewer.name, decisions.now(), run_id=run_id))
    trigger_dag(
        dag_id(account),
        triggered_by=DagRunTriggeredByType.UI,
        triggering_user_name=viewer.name,
        run_id=run_id,
        conf={"date": day.isoformat(), **_PARAMS[act]},
        note=f"{account} {day}: {act}, by {viewer.name}",
    )
    return run_id


def decide(store: Store, viewer: Viewer, account: str, day: date, decision: Decision) -> None:
    """Put on record whether a day may be delivered although it does not add up; after an approval, run it.

    Args:
        store: The store.
        viewer: The user.
        account: The account's name; the user may see it.
        day: The UTC day.
        decision: Approved or refused, and which proof.

    Raises:
        HTTPException: 403 if the user may not trigger the account's DAG, 409 if there is nothing to decide any more.
    """
    check_may_trigger(viewer, account)
    report = decisions.newest_report(store, account, day)
    if report is None or report["proof"] != decision.proof or report["status"] != "broken":
        raise HTTPException(409, f"{account} {day} has another proof by now: look at it again, then decide")
    known = decisions.about(store, account, day, decision.proof)
    if known is not None:
        raise HTTPException(409, f"{known.by} has decided about {account} {day} already: {known.act}")
    decisions.record(store, account, day, decision)
    if decision.act is Act.APPROVED:
        start_run(store, viewer, account, day, Act.RERUN)


def check_may_trigger(viewer: Viewer, account: str) -> None:
    """Refuse those who may only look.

    Raises:
        HTTPException: 403 if the user may not trigger the account's DAG.
    """
    if not viewer.may_trigger(account):
        raise HTTPException(403, f"{viewer.name} may look at {account}, but not start runs of it")
