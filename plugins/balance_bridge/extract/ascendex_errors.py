"""What AscendEX means by a response that is not data: its codes and statuses as this package's errors."""

from __future__ import annotations

from balance_bridge.errors import (
    BalanceBridgeError,
    CredentialsRefused,
    InvalidResponse,
    NotYetAvailable,
    RateLimited,
    RequestRefused,
    ServerFault,
)
from balance_bridge.extract import ascendex_responses as responses
from balance_bridge.transport import Response

_REFUSED_KEY = {"100009", "200001", "200003", "200014", "200015", "2100"}
_SERVER_FAULT = {"100101", "510001"}
_WINDOW_FULL = "200002"
_NO_DATA = "100002"
_TIMESTAMP = "100011"
# The signature is good for 30 s around the server's clock; a clock that is right to the second is never this far off.
CLOCK_TOLERANCE_S = 30
NOTED_SKEW_S = 5


class TimestampRefused(CredentialsRefused):
    """The server does not accept the signature's timestamp: the two clocks are more than 30 s apart."""


def refuse_errors(response: Response) -> None:
    """Turn whatever is not a response of status 200 without an error code into the error that it means.

    Raises:
        BalanceBridgeError: As :mod:`balance_bridge.errors` groups them; the message holds no credentials.
    """
    try:
        envelope = responses.read_envelope(response.body)
    except InvalidResponse as error:
        if response.status == 200:
            # Not the error's own look at the body: it was cut before any credential in it could be found.
            why = f"the response is not what the exchange documents ({response.clean(str(error.__cause__))})"
            raise InvalidResponse(f"{response.request}: {why}: {response.describe_body()}") from None
        envelope = responses.Envelope(message=response.describe_body())
    if response.status == 200 and not envelope.failed:
        return
    code = str(envelope.code) if envelope.code is not None else ""
    told = response.clean(f"{envelope.reason or ''} {envelope.message or ''}".strip())
    shown = response.clean(code, 50) or "none"
    raise _error(response, code, f"{response.request} answered {response.status}, code {shown}: {told}")


def _error(response: Response, code: str, text: str) -> BalanceBridgeError:
    status = response.status
    if code == _WINDOW_FULL or status == 429:
        why = "whatever uses the same key must share one request budget"
        return RateLimited(text, why=why, wait_s=response.retry_after_s())
    if code == _TIMESTAMP:
        return TimestampRefused(f"{text}; {_about_clocks(response.clock_skew_s())}")
    if code == _NO_DATA:
        return NotYetAvailable(text)
    if code in _REFUSED_KEY or (not code and status in (401, 403)):
        return CredentialsRefused(text, do="check key, secret and permissions in the connection")
    if code in _SERVER_FAULT or status >= 500:
        return ServerFault(text)
    if 300 <= status < 400:
        return RequestRefused(
            text, why="redirects are not followed", do="put the final address into the connection's host"
        )
    return RequestRefused(text)


def _about_clocks(skew_s: float | None) -> str:
    if skew_s is None:
        return "the response does not say the exchange's time: set this machine's clock by NTP"
    if abs(skew_s) < NOTED_SKEW_S:
        return f"{how_far(skew_s)}, which is no reason: look for a proxy that holds requests back"
    return f"{how_far(skew_s)}: set this machine's clock by NTP"


def how_far(skew_s: float) -> str:
    """In words, how far the exchange's clock is ahead of ours (in seconds)."""
    side = "behind" if skew_s > 0 else "ahead of"
    return f"this machine's clock is {abs(skew_s):.0f} s {side} the exchange's"
