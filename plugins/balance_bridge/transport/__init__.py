"""One HTTP request and what became of it.

The clients of all APIs send through here, so that every one of them tells the same three endings apart: an answer,
*nothing was sent* (:class:`ConnectionFailed`) and *sent, but no whole answer* (:class:`ResponseLost`). For a read the
last two are alike; for a write they are as different as "send it again" and "its outcome is unknown".
"""

from __future__ import annotations

from balance_bridge.transport.redaction import SECRET_HEADERS, Redactor, credentials, url_secrets
from balance_bridge.transport.response import Response
from balance_bridge.transport.sending import CONNECT_TIMEOUT_S, DEADLINE_S, MAX_ANSWER_BYTES, Transport

__all__ = [
    "CONNECT_TIMEOUT_S",
    "DEADLINE_S",
    "MAX_ANSWER_BYTES",
    "SECRET_HEADERS",
    "Redactor",
    "Response",
    "Transport",
    "credentials",
    "url_secrets",
]
