"""The application behind the page "Balances": its routes, and what all of them have in common.

A page of a plugin inherits nothing of Airflow's security. So each route asks for Airflow's user, shows only accounts
whose DAG that user may read, and sends a policy that lets the browser load and do nothing from elsewhere. Only the
static files are public; they hold no data.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path as FilePath
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, Form, HTTPException, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles
from fastapi.templating import Jinja2Templates
from pydantic import BaseModel, StringConstraints
from starlette.exceptions import HTTPException as AnyHTTPException

from balance_bridge import decisions, index, manual, settings
from balance_bridge.clock import utc_text
from balance_bridge.decisions import Act, Decision
from balance_bridge.errors import BalanceBridgeError, ConfigurationError
from balance_bridge.load.documents import Said
from balance_bridge.money import to_text
from balance_bridge.ui import actions, asset_page, day_page, overview, runs
from balance_bridge.ui.access import SignedIn

_HERE = FilePath(__file__).parent
_PREFIX = "/balances"
_LONGEST = 92
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; object-src 'none'; frame-ancestors 'self'; base-uri 'none'; form-action 'self'"
    ),
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}

app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
app.mount("/static", StaticFiles(directory=_HERE / "static"), name="static")
_templates = Jinja2Templates(directory=_HERE / "templates")
_templates.env.trim_blocks = _templates.env.lstrip_blocks = True
_templates.env.globals.update(MARKS=overview.MARKS)
_templates.env.filters.update(amount=to_text, utc=lambda at: utc_text(at.timestamp()))


_Reason = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)]


class _Answer(BaseModel):
    """Of somebody who was asked whether a day may be delivered although it does not add up."""

    act: Literal["approved", "refused"]
    proof: str
    reason: _Reason


class _Resolved(BaseModel):
    """Of somebody who asked a destination what became of a balance."""

    destination: str
    number: str
    said: Literal["accepted", "rejected"]
    reason: _Reason


Run = Literal["rerun", "refetch", "dry run"]
Answer = Annotated[_Answer, Form()]
Resolved = Annotated[_Resolved, Form()]
_FIRST, _LAST = date(2000, 1, 1), date(2199, 12, 31)
UtcDay = Annotated[date, Path(ge=_FIRST, le=_LAST)]
_ACTING = [Depends(actions.from_this_site), Depends(actions.acting_on)]


@app.middleware("http")
async def _headers(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await call_next(request)
    response.headers.update(_HEADERS)
    return response


def page(request: Request, name: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """A page from its template; ``root`` is where these pages are, ``airflow`` where Airflow's own are."""
    root = _root(request)
    shared = {"root": root, "airflow": root.removesuffix(_PREFIX)}
    return _templates.TemplateResponse(request, name, {**shared, **values}, status_code=status)


def _root(request: Request) -> str:
    return str(request.scope.get("root_path", "")).rstrip("/")


@app.exception_handler(AnyHTTPException)
async def _http_error(request: Request, error: AnyHTTPException) -> HTMLResponse:
    return page(request, "error.html", status=error.status_code, code=error.status_code, what=str(error.detail))


@app.exception_handler(RequestValidationError)
async def _wrong_request(request: Request, error: RequestValidationError) -> HTMLResponse:
    wrong = "; ".join(f"{each['loc'][-1]}: {each['msg']}" for each in error.errors())
    return page(request, "error.html", status=400, code=400, what=wrong)


@app.exception_handler(BalanceBridgeError)
async def _our_error(request: Request, error: BalanceBridgeError) -> HTMLResponse:
    # The store cannot be read, or the accounts file: said here, and the page stays up.
    return page(
        request, "error.html", status=503, code=503, what=error.args[0], why=error.why, do=error.do or error.remedy
    )


@app.get("/")
def show_overview(
    request: Request,
    viewer: SignedIn,
    days: Annotated[int, Query(ge=1, le=_LONGEST)] = 14,
    until: Annotated[date | None, Query(ge=_FIRST, le=_LAST)] = None,
    state: str = "",
    account: str = "",
) -> HTMLResponse:
    """The overview of all accounts that the user may see."""
    today = datetime.now(UTC).date()
    last = min(until or today - timedelta(days=1), today)
    shown = overview.days_until(last, days)
    known = [viewer.file.accounts[name] for name in viewer.readable if name in viewer.file.accounts]
    under_way = runs.newest_runs([each.name for each in known], shown[0], shown[-1])
    rows = overview.read_states(settings.open_store(), known, shown, under_way, today)
    wrong = [name for name in viewer.readable if name in viewer.file.broken]
    rows += [overview.Row(name, [], viewer.file.broken[name].message) for name in wrong]
    sentence = overview.verdict(rows, unreadable=viewer.file.error is not None)
    filtered = [row for row in rows if account.strip().lower() in row.account.lower() and _matches(row, state)]
    return page(
        request,
        "overview.html",
        viewer=viewer,
        verdict=sentence,
        good=viewer.file.error is None and not any(row.problem or row.wrong for row in rows),
        rows=filtered,
        hidden=len(rows) - len(filtered),
        shown=shown,
        days=days,
        last=last,
        today=today,
        state=state,
        account=account,
        error=viewer.file.error,
    )


@app.get("/day/{account}/{day}")
def show_day(request: Request, viewer: SignedIn, account: str, day: UtcDay) -> HTMLResponse:
    """All about one account's day."""
    config, today = viewer.account(account), datetime.now(UTC).date()
    run = runs.newest_runs([account], day, day).get((account, day))
    seen = day_page.look(settings.open_store(), config, day, run, today)
    may_trigger = viewer.may_trigger(account)
    return page(request, "day.html", viewer=viewer, seen=seen, run=run, may_trigger=may_trigger, today=today)


@app.get("/day/{account}/{day}/{what}.{form}")
def download(viewer: SignedIn, account: str, day: UtcDay, what: day_page.What, form: day_page.Form) -> Response:
    """A table of the day as a file."""
    viewer.account(account)
    return day_page.download(settings.open_store(), account, day, what, form)


@app.get("/asset/{account}/{asset:path}")
def show_asset(
    request: Request,
    viewer: SignedIn,
    account: str,
    asset: str,
    days: Annotated[int, Query(ge=1, le=_LONGEST)] = 14,
    until: Annotated[date | None, Query(ge=_FIRST, le=_LAST)] = None,
) -> HTMLResponse:
    """An asset's balance over time."""
    config, today = viewer.account(account), datetime.now(UTC).date()
    last = min(until or today - timedelta(days=1), today)
    seen = asset_page.look(settings.open_store(), config, asset, overview.days_until(last, days))
    return page(request, "asset.html", viewer=viewer, seen=seen, days=days, last=last, today=today)


@app.post("/day/{account}/{day}/run", dependencies=_ACTING)
def run_day(
    request: Request, viewer: SignedIn, account: str, day: UtcDay, act: Annotated[Run, Form()]
) -> RedirectResponse:
    """Run a day again: as it is, fetched again, or without sending anything."""
    manual.start_run(settings.open_store(), account, day, Act(act), viewer.name)
    return _back(request, account, day)


@app.post("/day/{account}/{day}/decide", dependencies=_ACTING)
def decide(request: Request, viewer: SignedIn, account: str, day: UtcDay, answer: Answer) -> RedirectResponse:
    """Approve that a day is delivered although it does not add up, or refuse it."""
    store = settings.open_store()
    made = Decision(Act(answer.act), viewer.name, decisions.now(), answer.reason, proof=answer.proof)
    try:
        manual.decide(store, viewer.account(account), day, made)
    except ConfigurationError as error:
        raise HTTPException(409, str(error)) from error
    if made.act is Act.APPROVED:
        manual.start_run(store, account, day, Act.RERUN, viewer.name)
    return _back(request, account, day)


@app.post("/day/{account}/{day}/resolve", dependencies=_ACTING)
def resolve(request: Request, viewer: SignedIn, account: str, day: UtcDay, answer: Resolved) -> RedirectResponse:
    """Put on record what somebody found out about a balance whose outcome nobody has confirmed."""
    store = settings.open_store()
    found = manual.Found(answer.destination, [answer.number], Said(answer.said), viewer.name, answer.reason)
    try:
        manual.resolve(store, account, day, found)
    except ConfigurationError as error:
        raise HTTPException(409, str(error)) from error
    index.record(store, account, day)
    return _back(request, account, day)


def _back(request: Request, account: str, day: date) -> RedirectResponse:
    return RedirectResponse(f"{_root(request)}/day/{account}/{day}", 303)


def _matches(row: overview.Row, state: str) -> bool:
    if not state:
        return True
    if state == "attention":
        return bool(row.problem or row.wrong)
    return any(cell.word == state for cell in row.cells)
