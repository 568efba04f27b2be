"""One HTTP request and what became of it.

The clients of all APIs send through here, so that each of them distinguishes the same three endings: a response,
*nothing was sent* (:class:`ConnectionFailed`) and *sent, but no whole response* (:class:`ResponseLost`). For a read the
last two are alike; for a write they are as different as "send it again" and "its outcome is unknown".
"""

from __future__ import annotations

from balance_bridge.transport.credentials import Credentials
from balance_bridge.transport.redaction import Redactor, credentials, url_secrets
from balance_bridge.transport.response import Response
from balance_bridge.transport.sending import CONNECT_TIMEOUT_S, DEADLINE_S, MAX_RESPONSE_BYTES, Options, Transport

__all__ = [
    "CONNECT_TIMEOUT_S",
    "DEADLINE_S",
    "MAX_RESPONSE_BYTES",
    "Credentials",
    "Options",
    "Redactor",
    "Response",
    "Transport",
    "credentials",
    "url_secrets",
]
