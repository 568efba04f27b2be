"""Sending single requests."""

from __future__ import annotations

import re
import traceback
from collections.abc import Mapping

import requests
import urllib3.exceptions

from balance_bridge.clock import SYSTEM_CLOCK, Clock
from balance_bridge.errors import AnswerLost, BadAnswer, BalanceBridgeError, FinalError, NotReached
from balance_bridge.transport.answer import Answer, credentials
from balance_bridge.transport.deadline import Deadline, DeadlineAdapter

CONNECT_TIMEOUT_S = 10.0
DEADLINE_S = 60.0
MAX_ANSWER_BYTES = 64 * 1024 * 1024

_UNUSABLE_URL = (
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
    requests.exceptions.MissingSchema,
    # Some names are only found to be none where they are looked up, and then not by requests.
    urllib3.exceptions.LocationValueError,
)


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
        deadline_s: float = DEADLINE_S,
    ) -> Answer:
        """Send one request and read its whole answer, whatever its status.

        Args:
            method: HTTP method.
            url: Absolute URL without a query.
            headers: Sent as they are; they never appear in a message.
            params: The query.
            body: The body, already encoded.
            timeout_s: Seconds without a byte after which the answer counts as lost.
            deadline_s: Seconds of real time from now on by which the whole answer must be there, however busily its
                bytes come.

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
        timeouts = (min(CONNECT_TIMEOUT_S, deadline_s), timeout_s)
        with Deadline(deadline_s) as deadline:
            sent_at = self._clock.wall()
            try:
                settings = self._session.merge_environment_settings(prepared.url, {}, True, None, None)
                with self._session.send(prepared, timeout=timeouts, allow_redirects=False, **settings) as response:
                    content = _read(response, label)
            except (requests.exceptions.RequestException, *_UNUSABLE_URL) as error:
                raise _too_late(label, deadline) or _meaning(error, label, timeouts) from error
            # What was cut may look whole: in a header, and in a body of no stated length, an end is an end.
            if deadline.reached:
                raise _lost(label, deadline)
            lower = {name.lower(): value for name, value in response.headers.items()}
            return Answer(
                label, response.status_code, lower, content, sent_at, self._clock.wall(), credentials(headers)
            )

    def close(self) -> None:
        """Close the session's connections."""
        self._session.close()


def _session() -> requests.Session:
    session = requests.Session()
    adapter = DeadlineAdapter(max_retries=0)
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


def _too_late(label: str, deadline: Deadline) -> BalanceBridgeError | None:
    """The error if it was the deadline that ended the request; None if it had nothing to do with it."""
    if not deadline.reached or deadline.may_have_sent is None:
        return None
    if deadline.may_have_sent:
        return _lost(label, deadline)
    return NotReached(f"{label}: no connection within {deadline.seconds:g} s")


def _lost(label: str, deadline: Deadline) -> AnswerLost:
    return AnswerLost(f"{label}: no whole answer within {deadline.seconds:g} s")


def _meaning(error: Exception, label: str, timeouts: tuple[float, float]) -> BalanceBridgeError:
    if isinstance(error, requests.exceptions.SSLError):
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            return FinalError(f"{label}: the server's TLS certificate is not trusted ({_reason(error)})")
        if not _in_handshake(error):
            return AnswerLost(f"{label}: TLS failed before the whole answer ({_reason(error)})")
        return NotReached(f"{label}: TLS failed ({_reason(error)})")
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return NotReached(f"{label}: no connection within {timeouts[0]:g} s")
    if isinstance(error, requests.exceptions.ReadTimeout):
        return AnswerLost(f"{label}: no answer within {timeouts[1]:g} s")
    if isinstance(error, _UNUSABLE_URL):
        return FinalError(f"{label}: this URL cannot be used ({error}); check the host")
    if _never_connected(error):
        return NotReached(f"{label}: no connection ({_reason(error)})")
    return AnswerLost(f"{label}: the connection was lost before the whole answer ({_reason(error)})")


def _cause(error: BaseException) -> BaseException:
    inner = error.args[0] if error.args and isinstance(error.args[0], BaseException) else None
    if isinstance(inner, urllib3.exceptions.MaxRetryError) and inner.reason is not None:
        return inner.reason
    return inner or error


def _never_connected(error: Exception) -> bool:
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
