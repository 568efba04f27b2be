"""AscendEX: signed reads that are repeated within reason, and the source that reads one cash or margin account.

A read is repeated within seconds, each attempt signed anew and counted in the budget. What is left after that, or
cannot pass within seconds, is raised as one of the classes in :mod:`balance_bridge.errors`.

Two things that the exchange says are not errors at first. That there were too many requests, although they are counted:
then the budget lets no request start for a window, and its next slot is waited for, once. And that a timestamp is more
than 30 s off its clock: then requests are signed by its time from then on, as read from its Date header.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from datetime import date, timedelta
from enum import StrEnum

from balance_bridge.clock import SYSTEM_CLOCK, Clock
from balance_bridge.errors import (
    BalanceBridgeError,
    BudgetExhausted,
    ConnectionFailed,
    InvalidResponse,
    RateLimited,
    ResponseLost,
    ServerFault,
)
from balance_bridge.extract import ascendex_responses as responses
from balance_bridge.extract.ascendex_errors import (
    CLOCK_TOLERANCE_S,
    NOTED_SKEW_S,
    TimestampRefused,
    how_far,
    refuse_errors,
)
from balance_bridge.extract.budget import WINDOW_S, Budget
from balance_bridge.extract.source import Page, SnapshotResponse, Source
from balance_bridge.transport import DEADLINE_S, Credentials, Response, Transport

DEFAULT_URL = "https://ascendex.com"
API_ROOT = "api/pro"
PAGE_LIMIT = 500
ATTEMPTS = 3
# A longer wait is left to a later try.
MAX_WAIT_S = 600.0


class Category(StrEnum):
    """The account categories whose balances have the shape that is read here."""

    CASH = "cash"
    MARGIN = "margin"


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
        credentials: Where they go, and with which key; messages begin with its name.
        budget: Counts the requests of this key; None for a client that only fetches ``info``.
        clock: Where instants and sleep come from.
        log: Called with what is waited for, and once if the clocks are too far apart.

    Attributes:
        clock_skew_s: Seconds by which the exchange's clock is ahead of ours, as last seen; None if it never was.
    """

    def __init__(
        self,
        transport: Transport,
        credentials: Credentials,
        *,
        budget: Budget | None = None,
        clock: Clock = SYSTEM_CLOCK,
        log: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._transport = transport
        self._credentials = credentials
        self._budget = budget
        self._clock = clock
        self._log = log
        self.clock_skew_s: float | None = None
        # Added to our clock where a request is signed: 0 as long as the exchange takes our time.
        self._signing_skew_s = 0.0
        self._told_about_clocks = False

    def info(self) -> Response:
        """Fetch who the key belongs to: cheap, read-only and outside the request budget."""
        return self._read(f"{API_ROOT}/v1/info", "info", {}, counted=False)

    def get(self, api_path: str, params: Mapping[str, str]) -> Response:
        """Fetch from one of the budgeted data endpoints.

        Args:
            api_path: Path below ``api/pro/``, which is also what is signed.
            params: The query.

        Returns:
            A response with status 200 whose body is JSON and no error.

        Raises:
            NotYetAvailable: The exchange says that there is no such data.
            RateLimited: The exchange refuses requests although the budget was waited for, or asks for more than 600 s.
            BudgetExhausted: The budget's patience is shorter than the wait for a slot. If that is because the exchange
                refused this very call, its ``refusal`` is that error.
            BalanceBridgeError: As :mod:`balance_bridge.errors` groups them.
        """
        return self._read(f"{API_ROOT}/{api_path}", api_path, params, counted=True)

    def _read(self, path: str, signed_path: str, params: Mapping[str, str], *, counted: bool) -> Response:
        left = {"window": int(counted and self._budget is not None), "timestamp": 1, "transient": ATTEMPTS - 1}
        refusal: RateLimited | None = None
        while True:
            try:
                return self._attempt(path, signed_path, params, counted=counted)
            except BudgetExhausted as error:
                error.refusal = error.refusal or refusal
                raise
            except BalanceBridgeError as error:
                refusal = error if isinstance(error, RateLimited) else refusal
                kind = self._worth_repeating(error)
                if not left.get(kind):
                    raise
                left[kind] -= 1
                if kind == "window":
                    # The budget does the waiting, before the next attempt's slot.
                    self._log(f"fetching again when the request budget has a slot: {error}")
                elif kind == "transient":
                    wait_s = 2.0 ** (ATTEMPTS - 2 - left[kind])
                    self._log(f"fetching again in {wait_s:.0f} s: {error}")
                    self._clock.sleep(wait_s)

    def _worth_repeating(self, error: BalanceBridgeError) -> str:
        """Why the same read may succeed within this call; empty if it cannot."""
        if isinstance(error, RateLimited):
            return "window" if (error.wait_s or 0.0) <= MAX_WAIT_S else ""
        if isinstance(error, TimestampRefused):
            return "timestamp" if self.clock_skew_s is not None else ""
        # A page in HTML or a cut response is often a proxy's moment of weakness, and a read can be repeated.
        transient = (ConnectionFailed, ResponseLost, ServerFault, InvalidResponse)
        return "transient" if isinstance(error, transient) else ""

    def _attempt(self, path: str, signed_path: str, params: Mapping[str, str], *, counted: bool) -> Response:
        budget = self._budget if counted else None
        try:
            with budget.slot() if budget is not None else nullcontext():
                response = self._send(path, signed_path, params)
            self._look_at_clocks(response)
            refuse_errors(response)
        except BalanceBridgeError as error:
            if self._credentials.name:
                error.args = (f"{self._credentials.name}: {error.args[0]}",)
            if isinstance(error, RateLimited) and budget is not None:
                # The next attempt waits for its slot, and so does everybody else.
                budget.block_for(max(error.wait_s or 0.0, WINDOW_S))
            if isinstance(error, TimestampRefused) and self.clock_skew_s is not None:
                self._signing_skew_s = self.clock_skew_s
                self._tell_about_clocks(self.clock_skew_s)
            raise
        return response

    def _send(self, path: str, signed_path: str, params: Mapping[str, str]) -> Response:
        # Signed only now: the wait for a slot may have been longer than a signature lives.
        timestamp_ms = int((self._clock.wall() + self._signing_skew_s) * 1000)
        headers = {
            "accept": "application/json",
            "x-auth-key": self._credentials.login,
            "x-auth-timestamp": str(timestamp_ms),
            "x-auth-signature": sign(self._credentials.password, timestamp_ms, signed_path),
        }
        url = f"{self._credentials.url.rstrip('/')}/{path}"
        return self._transport.send(
            "GET", url, headers=headers, params=params, secrets=(self._credentials.password,), deadline_s=DEADLINE_S
        )

    def _look_at_clocks(self, response: Response) -> None:
        skew_s = response.clock_skew_s()
        if skew_s is None:
            return
        self.clock_skew_s = skew_s
        # The header may have been written at any moment of a slow request.
        if abs(skew_s) - (response.ended_at - response.sent_at) / 2 >= NOTED_SKEW_S:
            self._tell_about_clocks(skew_s)

    def _tell_about_clocks(self, skew_s: float) -> None:
        if abs(skew_s) >= NOTED_SKEW_S and not self._told_about_clocks:
            self._told_about_clocks = True
            head = f"{self._credentials.name}: " if self._credentials.name else ""
            self._log(
                f"warning: {head}{how_far(skew_s)}. The exchange refuses timestamps more than {CLOCK_TOLERANCE_S} s "
                "off its own clock; where it does, requests are signed by the exchange's time meanwhile. Set this "
                "machine's clock by NTP"
            )


class AscendexAccount(Source):
    """The balances and changes of one AscendEX account.

    Args:
        client: Fetches with the account's key.
        category: Which of the key's accounts.
        retention_days: Days before today that the exchange still serves.
        settle: How long after a day's end its closing snapshot is first fetched.
        clock: Where instants come from.
    """

    who = "the exchange"
    page_limit = PAGE_LIMIT

    def __init__(
        self,
        client: AscendexClient,
        category: Category,
        *,
        retention_days: int,
        settle: timedelta = timedelta(0),
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._client = client
        self._category = Category(category)
        self._retention_days = retention_days
        self.settle = settle
        self._clock = clock

    def now(self) -> float:
        """See :meth:`Source.now`."""
        return self._clock.wall() + (self._client.clock_skew_s or 0.0)

    def oldest(self) -> date:
        """See :meth:`Source.oldest`."""
        return self.today() - timedelta(days=self._retention_days)

    def fetch_snapshot(self, day: date) -> Response:
        """See :meth:`Source.fetch_snapshot`."""
        return self._client.get(f"data/v1/{self._category}/balance/snapshot", {"date": day.isoformat()})

    def fetch_changes(self, from_sn: int, day: date, closing_sn: int | None) -> Response:  # noqa: ARG002 - one sequence
        """See :meth:`Source.fetch_changes`."""
        params = {"sn": str(from_sn), "limit": str(PAGE_LIMIT)}
        return self._client.get(f"data/v1/{self._category}/balance/history", params)

    def read_snapshot(self, body: bytes, day: date) -> SnapshotResponse:
        """See :meth:`Source.read_snapshot`."""
        return responses.read_snapshot(body, category=self._category, day=day)

    def read_page(self, body: bytes) -> Page:
        """See :meth:`Source.read_page`."""
        return responses.read_page(body, category=self._category)
