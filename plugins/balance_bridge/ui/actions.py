"""What a user may have done from the page, and where such a request may come from."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from airflow.configuration import conf
from fastapi import Header, HTTPException, Request

from balance_bridge.accounts import Account
from balance_bridge.ui.access import SignedIn


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


def acting_on(viewer: SignedIn, account: str) -> Account:
    """The account, if the user may see it and start runs of its DAG.

    Raises:
        HTTPException: 404 if there is none that the user may see, 403 if the user may only look at it.
    """
    found = viewer.account(account)
    if not viewer.may_trigger(account):
        raise HTTPException(403, f"{viewer.name} may view {account}, but not start its runs")
    return found
