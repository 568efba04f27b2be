"""One HTTP request and what became of it.

The clients of all three APIs send through here, so that every one of them tells the same three endings apart: an
answer, *nothing was sent* (:class:`NotReached`) and *sent, but no whole answer* (:class:`AnswerLost`). For a read the
last two are alike; for a write they are as different as "send it again" and "its outcome is unknown".
"""

from __future__ import annotations

import json
import re
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any

import requests
import urllib3.exceptions
from requests.adapters import HTTPAdapter

from balance_bridge.clock import SYSTEM_CLOCK, Clock
from balance_bridge.errors import AnswerLost, BadAnswer, FinalError, NotReached

CONNECT_TIMEOUT_S = 10.0
MAX_ANSWER_BYTES = 64 * 1024 * 1024
MAX_TOLD_CHARS = 500
SECRET_HEADERS = ("x-auth-key", "x-auth-signature", "elven-api-key", "elven-api-sign", "authorization")
# What the parser of HTTP dates raises for text that is none; which one depends on the text.
_NO_DATE = (ValueError, OverflowError, TypeError, IndexError)

_UNUSABLE_URL = (
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
    requests.exceptions.MissingSchema,
)


@dataclass(frozen=True)
class Answer:
    """A whole answer.

    Attributes:
        request: Method and URL with the query, without headers: fit for messages.
        status: HTTP status.
        headers: Header names in lower case.
        body: The bytes, decompressed, as they came.
        sent_at: Seconds since the epoch (UTC) at which the request went out.
        ended_at: Seconds since the epoch (UTC) at which the answer was whole.
        secrets: The credentials that were sent, keys and signatures alike.
    """

    request: str
    status: int
    headers: Mapping[str, str]
    body: bytes
    sent_at: float
    ended_at: float
    secrets: tuple[str, ...] = field(default=(), repr=False)

    def clean(self, text: str) -> str:
        """A text that came from outside, in at most 500 characters and without the credentials that were sent.

        Servers quote them back now and then, and what is in a message is soon in a log or on a receipt.
        """
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text if len(text) <= MAX_TOLD_CHARS else f"{text[:MAX_TOLD_CHARS]}…"

    def json(self) -> Any:
        """The body as JSON, its numbers with a point as ``Decimal``.

        Raises:
            BadAnswer: If the body is not JSON (an HTML page, a cut or an empty answer).
        """
        try:
            return json.loads(self.body.decode("utf-8"), parse_float=Decimal, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise BadAnswer(f"{self.request} answered {self.status} with no JSON: {self.describe_body()}") from error

    def describe_body(self) -> str:
        """What the body looks like, in at most 200 characters, for a message."""
        if not self.body:
            return "the body is empty"
        kind = self.headers.get("content-type", "no content type")
        # Cleaned before it is cut: half a secret would not be found.
        look = self.clean(self.body[:MAX_TOLD_CHARS].decode("utf-8", "replace"))[:200]
        return f"{len(self.body)} bytes of {kind}: {look!r}"

    def clock_skew_s(self) -> float | None:
        """Seconds by which the server's clock is ahead of ours, by its Date header; None without one."""
        try:
            server = parsedate_to_datetime(self.headers["date"]).timestamp()
        except (KeyError, *_NO_DATE):
            return None
        # The header is cut to the second and was written somewhere between sending and the end.
        return server + 0.5 - (self.sent_at + self.ended_at) / 2

    def retry_after_s(self) -> float | None:
        """Seconds that the server asks to wait (Retry-After as seconds or as a date), or None."""
        value = self.headers.get("retry-after", "").strip()
        if re.fullmatch(r"[0-9]{1,9}", value):
            return float(value)
        try:
            return max(0.0, parsedate_to_datetime(value).timestamp() - self.ended_at)
        except _NO_DATE:
            return None


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


class Transport:
    """Sends single requests over a kept-alive session. Never follows a redirect, never repeats by itself.

    Args:
        session: The session to use; its adapters must not retry. A new one by default.
        clock: Where instants come from.
    """

    def __init__(self, session: requests.Session | None = None, clock: Clock = SYSTEM_CLOCK) -> None:
        self._session = session or _session()
        self._clock = clock

    def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        params: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout_s: float = 30.0,
    ) -> Answer:
        """Send one request and read its whole answer, whatever its status.

        Args:
            method: HTTP method.
            url: Absolute URL without a query.
            headers: Sent as they are; they never appear in a message.
            params: The query.
            body: The body, already encoded.
            timeout_s: Seconds without a byte after which the answer counts as lost.

        Raises:
            NotReached: Nothing was sent.
            AnswerLost: The request may have arrived; the answer did not.
            BadAnswer: The answer is larger than 64 MiB.
            FinalError: The URL or a header cannot be sent, or the server's certificate is not trusted.
        """
        _check_headers(headers, f"{method} {url}")
        request = requests.Request(method, url, headers=dict(headers), params=params, data=body, auth=_no_netrc)
        try:
            prepared = self._session.prepare_request(request)
        except (requests.exceptions.RequestException, ValueError) as error:
            raise FinalError(f"{method} {url}: this URL cannot be used ({error}); check the host") from error
        label = f"{method} {prepared.url}"
        sent_at = self._clock.wall()
        try:
            settings = self._session.merge_environment_settings(prepared.url, {}, True, None, None)
            with self._session.send(
                prepared, timeout=(CONNECT_TIMEOUT_S, timeout_s), allow_redirects=False, **settings
            ) as response:
                content = _read(response, label)
                lower = {name.lower(): value for name, value in response.headers.items()}
                return Answer(
                    label, response.status_code, lower, content, sent_at, self._clock.wall(), credentials(headers)
                )
        except requests.exceptions.SSLError as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise FinalError(f"{label}: the server's TLS certificate is not trusted ({_reason(error)})") from error
            if not _in_handshake(error):
                raise AnswerLost(f"{label}: TLS failed before the whole answer ({_reason(error)})") from error
            raise NotReached(f"{label}: TLS failed ({_reason(error)})") from error
        except requests.exceptions.ConnectTimeout as error:
            raise NotReached(f"{label}: no connection within {CONNECT_TIMEOUT_S:g} s") from error
        except requests.exceptions.ReadTimeout as error:
            raise AnswerLost(f"{label}: no answer within {timeout_s:g} s") from error
        except (*_UNUSABLE_URL, urllib3.exceptions.LocationValueError) as error:
            # Some names are only found to be none where they are looked up, and then not by requests.
            raise FinalError(f"{label}: this URL cannot be used ({error}); check the host") from error
        except requests.exceptions.RequestException as error:
            if _never_connected(error):
                raise NotReached(f"{label}: no connection ({_reason(error)})") from error
            raise AnswerLost(f"{label}: the connection was lost before the whole answer ({_reason(error)})") from error

    def close(self) -> None:
        """Close the session's connections."""
        self._session.close()


def credentials(headers: Mapping[str, str]) -> tuple[str, ...]:
    """The values of headers that no message may show; of ``Bearer X`` it is X."""
    return tuple(
        value.removeprefix("Bearer ") for name, value in headers.items() if name.lower() in SECRET_HEADERS and value
    )


def _session() -> requests.Session:
    session = requests.Session()
    adapter = HTTPAdapter(max_retries=0)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session


def _no_netrc(request: requests.PreparedRequest) -> requests.PreparedRequest:
    # Without an auth of its own, requests would put ~/.netrc's credentials in place of our Authorization header.
    return request


def _check_headers(headers: Mapping[str, str], label: str) -> None:
    # Whoever would refuse the value later on would show it, and it may be a key or a token.
    for name, value in headers.items():
        if not re.fullmatch(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?", value):
            raise FinalError(
                f"{label}: the header {name} is empty or holds a character that cannot be sent; look for blanks, line "
                "breaks and letters with accents in the connection's login and password"
            )


def _read(response: requests.Response, label: str) -> bytes:
    content = bytearray()
    for chunk in response.iter_content(64 * 1024):
        content += chunk
        if len(content) > MAX_ANSWER_BYTES:
            raise BadAnswer(f"{label}: the answer is larger than {MAX_ANSWER_BYTES} bytes")
    return bytes(content)


def _cause(error: BaseException) -> BaseException:
    inner = error.args[0] if error.args and isinstance(error.args[0], BaseException) else None
    if isinstance(inner, urllib3.exceptions.MaxRetryError) and inner.reason is not None:
        return inner.reason
    return inner or error


def _never_connected(error: requests.exceptions.RequestException) -> bool:
    # NewConnectionError covers a refused connection and, as NameResolutionError, a name that does not resolve.
    cause = _cause(error)
    return isinstance(cause, (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ProxyError))


def _in_handshake(error: BaseException) -> bool:
    # The exceptions are the same before and after the request went out; only where they were raised tells them apart.
    inner: BaseException | None = error
    while inner is not None:
        if any(frame.f_code.co_name == "do_handshake" for frame, _ in traceback.walk_tb(inner.__traceback__)):
            return True
        inner = inner.__cause__ or inner.__context__
    return False


def _reason(error: BaseException) -> str:
    text = str(_cause(error))
    return text.split("): ", 1)[-1] if "): " in text else text
