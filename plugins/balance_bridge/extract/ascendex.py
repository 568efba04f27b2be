"""AscendEX: signing, error codes, and the source that reads one cash or margin account.

A read is repeated within seconds, each attempt signed anew and counted in the budget. What is left after that, or
cannot pass within seconds, is raised as one of the classes in :mod:`balance_bridge.errors`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import TYPE_CHECKING

import tenacity

from balance_bridge.clock import SYSTEM_CLOCK, Clock
from balance_bridge.errors import (
    AnswerLost,
    BadAnswer,
    BalanceBridgeError,
    CredentialsRefused,
    NotReached,
    NotYetAvailable,
    RequestRefused,
    ServerFault,
    WindowFull,
)
from balance_bridge.extract import ascendex_answers as answers
from balance_bridge.extract.budget import WINDOW_S, Budget
from balance_bridge.extract.source import Page, Record, SnapshotAnswer, Source
from balance_bridge.transport import Answer, Transport

if TYPE_CHECKING:
    import pyarrow as pa

DEFAULT_URL = "https://ascendex.com"
API_ROOT = "api/pro"
PAGE_LIMIT = 500
ATTEMPTS = 3
WINDOW_WAITS = 2
# Who is to wait longer gives up the worker meanwhile.
MAX_WAIT_S = 600.0

_REFUSED_KEY = {"100009", "200001", "200003", "200014", "200015", "2100"}
_SERVER_FAULT = {"100101", "510001"}
_WINDOW_FULL = "200002"
_NO_DATA = "100002"
_TIMESTAMP = "100011"
# The signature is good for 30 s around the server's clock.
_CLOCK_TOLERANCE_S = 30


class Category(StrEnum):
    """The account categories whose balances have the shape that is read here."""

    CASH = "cash"
    MARGIN = "margin"


class TimestampRefused(CredentialsRefused):
    """The server does not accept the signature's timestamp: the two clocks are more than 30 s apart."""


def sign(secret: str, timestamp_ms: int, api_path: str) -> str:
    """The signature of a request: base64(HMAC-SHA256(secret, "<timestamp>+<api path>")).

    Args:
        secret: The API secret; its UTF-8 bytes are the key, it is not decoded.
        timestamp_ms: UTC milliseconds, as sent in ``x-auth-timestamp``.
        api_path: The path without ``api/pro/`` (and without ``v1/`` for ``info``), such as
            ``data/v1/cash/balance/snapshot``. The query is not signed.
    """
    digest = hmac.new(secret.encode(), f"{timestamp_ms}+{api_path}".encode(), hashlib.sha256).digest()
    return base64.b64encode(digest).decode("ascii")


class AscendexClient:
    """Signed reads from AscendEX.

    Args:
        transport: Sends single requests.
        base_url: Scheme, host and port.
        api_key: The API key.
        api_secret: The API secret.
        budget: Counts the requests of this key; None for a client that only asks for ``info``.
        clock: Where instants and sleep come from.
        log: Told what is waited for.
    """

    def __init__(
        self,
        transport: Transport,
        base_url: str,
        api_key: str,
        api_secret: str,
        *,
        budget: Budget | None = None,
        clock: Clock = SYSTEM_CLOCK,
        log: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._transport = transport
        self._base_url = base_url.rstrip("/")
        self._api_key = api_key
        self._api_secret = api_secret
        self._budget = budget
        self._clock = clock
        self._log = log
        self.clock_skew_s: float | None = None

    def info(self) -> Answer:
        """Ask who the key belongs to: cheap, read-only and outside the request budget."""
        return self._read(f"{API_ROOT}/v1/info", "info", {}, counted=False)

    def get(self, api_path: str, params: Mapping[str, str]) -> Answer:
        """Ask one of the budgeted data endpoints.

        Args:
            api_path: Path below ``api/pro/``, which is also what is signed.
            params: The query.

        Returns:
            An answer with status 200 whose body is JSON and no error.

        Raises:
            NotYetAvailable: The exchange says that there is no such data.
            BalanceBridgeError: As :mod:`balance_bridge.errors` groups them.
        """
        return self._read(f"{API_ROOT}/{api_path}", api_path, params, counted=True)

    def _read(self, path: str, signed_path: str, params: Mapping[str, str], *, counted: bool) -> Answer:
        tries = _Tries()
        for attempt in tenacity.Retrying(
            retry=tenacity.retry_if_exception(tries.worth_another),
            wait=tries.wait,
            sleep=self._clock.sleep,
            before_sleep=self._say_why,
            reraise=True,
        ):
            with attempt:
                return self._attempt(path, signed_path, params, counted=counted)
        raise AssertionError("tenacity ends with an answer or an exception")

    def _attempt(self, path: str, signed_path: str, params: Mapping[str, str], *, counted: bool) -> Answer:
        place: AbstractContextManager[None] = nullcontext()
        if counted and self._budget is not None:
            place = self._budget.place()
        with place:
            # Signed only now: the wait for a place may have been longer than a signature lives.
            timestamp_ms = self._clock.now_ms()
            signature = sign(self._api_secret, timestamp_ms, signed_path)
            headers = {
                "accept": "application/json",
                "x-auth-key": self._api_key,
                "x-auth-timestamp": str(timestamp_ms),
                "x-auth-signature": signature,
            }
            answer = self._transport.send("GET", f"{self._base_url}/{path}", headers=headers, params=params)
        skew = answer.clock_skew_s()
        self.clock_skew_s = self.clock_skew_s if skew is None else skew
        try:
            _refuse_errors(answer)
        except WindowFull as error:
            if self._budget is not None:
                self._budget.fill(error.retry_after_s or WINDOW_S)
            raise
        except TimestampRefused as error:
            raise TimestampRefused(f"{error}{_about_clocks(self.clock_skew_s)}") from None
        return answer

    def _say_why(self, state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        wait_s = state.next_action.sleep if state.next_action else 0
        self._log(f"asking again in {wait_s:.0f} s: {error}")


class _Tries:
    """How often which error is worth another attempt within this call, and how long to wait before."""

    def __init__(self) -> None:
        self._left = {"passing": ATTEMPTS - 1, "window": WINDOW_WAITS, "timestamp": 1}
        self._wait_s = 0.0

    def worth_another(self, error: BaseException) -> bool:
        if isinstance(error, WindowFull):
            kind, wait_s = "window", max(error.retry_after_s or 0.0, WINDOW_S)
        elif isinstance(error, TimestampRefused):
            kind, wait_s = "timestamp", 0.0
        # A page in HTML or a cut answer is often a proxy's moment of weakness, and a read can be repeated.
        elif isinstance(error, (NotReached, AnswerLost, ServerFault, BadAnswer)):
            kind, wait_s = "passing", 2.0 ** (ATTEMPTS - 1 - self._left["passing"])
        else:
            return False
        if wait_s > MAX_WAIT_S:
            return False
        self._left[kind] -= 1
        self._wait_s = wait_s
        return self._left[kind] >= 0

    def wait(self, _: tenacity.RetryCallState) -> float:
        return self._wait_s


def _refuse_errors(answer: Answer) -> None:
    """Turn whatever is not an answer of status 200 without an error code into the error that it means."""
    if answer.status == 200:
        try:
            envelope = answers.read_envelope(answer.body)
        except BadAnswer as error:
            # Not the error's own look at the body: it was cut before any credential in it could be found.
            why = f"the answer is not what the exchange documents ({error.__cause__})"
            raise BadAnswer(f"{answer.request}: {why}: {answer.describe_body()}") from None
        if not envelope.failed:
            return
    else:
        try:
            envelope = answers.read_envelope(answer.body)
        except BadAnswer:
            envelope = answers.Envelope(message=answer.describe_body())
    code = str(envelope.code) if envelope.code is not None else ""
    told = answer.clean(f"{envelope.reason or ''} {envelope.message or ''}".strip())
    raise _error(answer, code, f"{answer.request} answered {answer.status}, code {code or 'none'}: {told}")


def _error(answer: Answer, code: str, text: str) -> BalanceBridgeError:
    status = answer.status
    if code == _WINDOW_FULL or status == 429:
        return WindowFull(text, retry_after_s=answer.retry_after_s())
    if code == _TIMESTAMP:
        return TimestampRefused(text)
    if code == _NO_DATA:
        return NotYetAvailable(text)
    if code in _REFUSED_KEY or (not code and status in (401, 403)):
        return CredentialsRefused(f"{text}; check key, secret and permissions in the connection")
    if code in _SERVER_FAULT or status >= 500:
        return ServerFault(text)
    if 300 <= status < 400:
        return RequestRefused(f"{text}; redirects are not followed: put the final address into the connection's host")
    return RequestRefused(text)


def _about_clocks(skew_s: float | None) -> str:
    if skew_s is None or abs(skew_s) < _CLOCK_TOLERANCE_S / 2:
        return "; check this machine's clock"
    ahead = "behind" if skew_s > 0 else "ahead of"
    return f"; this machine's clock is {abs(skew_s):.0f} s {ahead} the exchange's: set it by NTP"


class AscendexSource(Source):
    """The balances and changes of one AscendEX account.

    Args:
        client: Asks with the account's key.
        category: Which of the key's accounts.
        clock: Where instants come from.
    """

    page_limit = PAGE_LIMIT

    def __init__(self, client: AscendexClient, category: Category, clock: Clock = SYSTEM_CLOCK) -> None:
        self._client = client
        self._category = Category(category)
        self._clock = clock

    def today(self) -> date:
        """See :meth:`Source.today`."""
        skew_s = self._client.clock_skew_s or 0.0
        return datetime.fromtimestamp(self._clock.wall() + skew_s, UTC).date()

    def ask_snapshot(self, day: date) -> Answer:
        """See :meth:`Source.ask_snapshot`."""
        return self._client.get(f"data/v1/{self._category}/balance/snapshot", {"date": day.isoformat()})

    def ask_changes(self, from_sn: int) -> Answer:
        """See :meth:`Source.ask_changes`."""
        params = {"sn": str(from_sn), "limit": str(PAGE_LIMIT)}
        return self._client.get(f"data/v1/{self._category}/balance/history", params)

    def read_snapshot(self, body: bytes, day: date) -> SnapshotAnswer:
        """See :meth:`Source.read_snapshot`."""
        return answers.read_snapshot(body, category=self._category, day=day)

    def read_page(self, body: bytes) -> Page:
        """See :meth:`Source.read_page`."""
        return answers.read_page(body, category=self._category)

    def legs(self, records: Sequence[Record]) -> pa.Table:
        """See :meth:`Source.legs`."""
        return answers.legs(records)

    def legs_of_pages(
        self, bodies: Sequence[bytes], cursors: Sequence[int], *, closing_sn: int
    ) -> tuple[pa.Table, int | None] | None:
        """See :meth:`Source.legs_of_pages`."""
        from balance_bridge.extract import ascendex_bulk

        try:
            return ascendex_bulk.legs_of_pages(
                bodies, cursors, category=self._category, limit=PAGE_LIMIT, closing_sn=closing_sn
            )
        except ascendex_bulk.Unusual:
            return None
