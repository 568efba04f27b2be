"""A whole response to a request: what it says, and what may be shown of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from balance_bridge.clock import http_date
from balance_bridge.transport.redaction import Redactor


@dataclass(frozen=True)
class Response:
    """A whole response. Its ``repr`` shows nothing that came from outside.

    Attributes:
        request: Method and URL with the query, without headers and passwords: fit for messages.
        status: HTTP status.
        headers: Header names in lower case.
        body: The bytes, decompressed, as they came.
        sent_at: Seconds since the epoch (UTC) at which the request went out.
        ended_at: Seconds since the epoch (UTC) at which the response was whole.
        secrets: What no message may show: keys, tokens, signatures, passwords.
    """

    request: str
    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    sent_at: float
    ended_at: float
    secrets: tuple[str, ...] = field(default=(), repr=False)

    def clean(self, text: str, limit: int = 500) -> str:
        """A text of this response as a message may show it: on one line, without secrets, and only then cut.

        Servers quote credentials back now and then, and what is in a message is soon in a log or in the store.
        """
        return self._redactor.clean(text, limit)

    @cached_property
    def _redactor(self) -> Redactor:
        return Redactor(self.secrets)

    def describe_body(self) -> str:
        """What the body looks like, in some 200 characters, for a message."""
        if not self.body:
            return "the body is empty"
        kind = self.clean(self.headers.get("content-type", "no content type"), 100)
        return f"{len(self.body)} bytes of {kind}: {self.clean(self.body.decode('utf-8', 'replace'), 200)!r}"

    def clock_skew_s(self) -> float | None:
        """Seconds by which the server's clock is ahead of ours, by its Date header; None without one."""
        server = http_date(self.headers.get("date"))
        # The header is cut to the second and was written somewhere between sending and the end.
        return None if server is None else server + 0.5 - (self.sent_at + self.ended_at) / 2

    def retry_after_s(self) -> float | None:
        """Seconds that the server asks to wait (Retry-After as seconds or as a date), or None."""
        value = self.headers.get("retry-after", "").strip()
        if re.fullmatch(r"[0-9]{1,9}", value):
            return float(value)
        until = http_date(value)
        return None if until is None else max(0.0, until - self.ended_at)
