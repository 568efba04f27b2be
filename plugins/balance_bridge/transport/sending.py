"""Sending single requests."""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping, Sequence
from typing import Required, TypedDict, Unpack

import requests
from requests.utils import select_proxy

from balance_bridge.clock import SYSTEM_CLOCK, Clock
from balance_bridge.errors import BalanceBridgeError, ConnectionFailed, InvalidResponse, PermanentError, ResponseLost
from balance_bridge.transport.redaction import Redactor, credentials, url_secrets
from balance_bridge.transport.response import Response
from balance_bridge.transport.watch import Watch, WatchedAdapter

CONNECT_TIMEOUT_S = 10.0
TIMEOUT_S = 30.0
DEADLINE_S = 60.0
# The largest response is a page of the exchange's: 500 records of some 600 bytes, more where a record has many legs.
# This leaves 32 KiB for each of them.
MAX_RESPONSE_BYTES = 16 * 1024 * 1024
_CHECK_HOST = "Check the host in the connection, then clear this task."


class Options(TypedDict, total=False):
    """What a request has besides its method and URL.

    Attributes:
        headers: Sent as they are; the values of :data:`SECRET_HEADERS` never appear in a message.
        params: The query.
        body: The body, already encoded.
        secrets: What no message may show besides, such as the key that a signature was made with.
        timeout_s: Seconds without a byte after which the response counts as lost; 30 by default.
        deadline_s: Seconds of real time by which the whole response must be there, however busily its bytes come; 60 by
            default.
        max_bytes: The largest response that is read, decompressed; 16 MiB by default.
    """

    headers: Required[Mapping[str, str]]
    params: Mapping[str, str] | None
    body: bytes | None
    secrets: Sequence[str]
    timeout_s: float
    deadline_s: float
    max_bytes: int


class Transport:
    """Sends single requests over a kept-alive session. Never follows a redirect, never repeats a request.

    Args:
        session: The session to use; its adapters must not retry. Of a request through an adapter other than
            :class:`WatchedAdapter` it cannot be known whether it went out: it counts as sent, unless the adapter itself
            raises :class:`ConnectionFailed`. A new one by default.
        clock: Where instants come from.
    """

    def __init__(self, session: requests.Session | None = None, clock: Clock = SYSTEM_CLOCK) -> None:
        self._session = session or _session()
        self._clock = clock

    def send(self, method: str, url: str, **options: Unpack[Options]) -> Response:
        """Send one request and read its whole response, whatever its status.

        Args:
            method: HTTP method.
            url: Absolute URL without a query.
            options: What it has besides.

        Raises:
            ConnectionFailed: Nothing was sent.
            ResponseLost: The request may have arrived; the response did not.
            InvalidResponse: The response is larger than ``max_bytes``.
            PermanentError: The URL or a header cannot be sent, or the server's certificate is not trusted. Nothing was
                sent.
        """
        headers, params, body = options["headers"], options.get("params"), options.get("body")
        hidden = [*options.get("secrets", ()), *credentials(headers), *url_secrets(url)]
        redactor = Redactor(hidden)
        label = redactor.clean(f"{method} {url}", 2000)
        _check_headers(headers, label)
        request = requests.Request(method, url, headers=dict(headers), params=params, data=body, auth=_no_netrc)
        timeout_s, deadline_s = options.get("timeout_s", TIMEOUT_S), options.get("deadline_s", DEADLINE_S)
        timeouts = (min(CONNECT_TIMEOUT_S, deadline_s), timeout_s)
        with Watch(deadline_s) as watch:
            try:
                prepared = self._session.prepare_request(request)
                target = prepared.url or url
                label = redactor.clean(f"{method} {target}", 2000)
                settings = self._session.merge_environment_settings(target, {}, True, None, None)
                verify = True if settings["verify"] is None else settings["verify"]
                cert, proxies = settings["cert"], settings["proxies"]
                hidden += url_secrets(select_proxy(target, proxies) or "")
                adapter = self._session.get_adapter(target)
                watch.sent = not isinstance(adapter, WatchedAdapter)
                sent_at = self._clock.wall()
                # Not by the session: that reads the body of a redirect without limit, resolves it and keeps cookies.
                with adapter.send(prepared, True, timeouts, verify, cert, proxies) as response:
                    content = _read(response, label, options.get("max_bytes", MAX_RESPONSE_BYTES))
                # What was cut may look whole: in a header, and in a body of no stated length, an end is an end.
                if not watch.reached:
                    lower = {name.lower(): value for name, value in response.headers.items()}
                    status, ended_at = response.status_code, self._clock.wall()
                    return Response(label, status, lower, content, sent_at, ended_at, tuple(hidden))
                failure: BalanceBridgeError = ResponseLost(f"{label}: no whole response within {deadline_s:g} s")
            except BalanceBridgeError:
                raise
            except Exception as error:  # whatever it is: once a byte is out, the response is lost
                root = _root(error)
                why = Redactor(hidden).clean(f"{type(root).__name__}: {root}")
                failure = _failure(error, label, watch, timeouts, why)
        # Not in the handler: what it caught may quote a secret, and would be logged along with ours.
        raise failure


def _session() -> requests.Session:
    session = requests.Session()
    adapter = WatchedAdapter(max_retries=0)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session


def _no_netrc(request: requests.PreparedRequest) -> requests.PreparedRequest:
    # Without an auth of its own, requests would put ~/.netrc's credentials in place of our Authorization header.
    return request


def _check_headers(headers: Mapping[str, str], label: str) -> None:
    # The libraries would refuse the value as well, but show it; it may be a key or a token.
    for name, value in headers.items():
        if not re.fullmatch(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?", value):
            raise PermanentError(
                f"{label}: the header {name} cannot be sent",
                why="it is empty or holds a blank, a line break or a letter with an accent",
                do="Enter login and password of the connection again, then clear this task.",
            )


def _read(response: requests.Response, label: str, max_bytes: int) -> bytes:
    content = bytearray()
    for chunk in response.iter_content(64 * 1024):
        content += chunk
        if len(content) > max_bytes:
            raise InvalidResponse(f"{label}: the response is larger than {max_bytes} bytes")
    return bytes(content)


def _failure(error: Exception, label: str, watch: Watch, timeouts: tuple[float, float], why: str) -> BalanceBridgeError:
    """What an exception means for the request."""
    root = _root(error)
    if watch.sent:
        if watch.reached:
            return ResponseLost(f"{label}: no whole response within {watch.seconds:g} s")
        if isinstance(root, TimeoutError):
            return ResponseLost(f"{label}: no response within {timeouts[1]:g} s")
        return ResponseLost(f"{label}: the connection was lost before the whole response", why=why)
    if isinstance(root, ssl.SSLCertVerificationError):
        return PermanentError(f"{label}: the server's TLS certificate is not trusted", why=why, do=_CHECK_HOST)
    if isinstance(error, ValueError):
        return PermanentError(f"{label}: this URL cannot be used", why=why, do=_CHECK_HOST)
    if watch.reached or isinstance(root, TimeoutError):
        waited_s = watch.seconds if watch.reached else timeouts[0]
        return ConnectionFailed(f"{label}: no connection within {waited_s:g} s")
    return ConnectionFailed(f"{label}: no connection", why=why)


def _root(error: BaseException) -> BaseException:
    """The exception that the libraries wrapped: as a reason, as an argument or as the cause."""
    while True:
        wrapped = (getattr(error, "reason", None), *error.args, error.__cause__)
        inner = next((each for each in wrapped if isinstance(each, BaseException)), None)
        if inner is None:
            return error
        error = inner
