"""A webhook: balances are POSTed as JSON to a URL that the user names, in a schema of this package, and signed.

::

    {"schema": "balance-bridge/balances/1", "account": "main_cash", "destination": "ledger", "balances": [
      {"number": "bb-main_cash.ledger-BTC-20261121T000000000Z-2", "asset": "BTC", "at": "2026-11-21T00:00:00.000Z",
       "balance": 1.5, "replaces": "bb-main_cash.ledger-BTC-20261121T000000000Z-1", "supersedes": 1.25,
       "points": ["close"]}]}

============================ ===========================================================================
header                       value
============================ ===========================================================================
idempotency-key              the same for the same body
x-balance-bridge-timestamp   UTC milliseconds since the epoch, at which the request was signed
x-balance-bridge-signature   hexadecimal HMAC-SHA256 of ``<timestamp>.<body>`` with the shared secret
============================ ===========================================================================

The receiver takes or refuses each balance on its own, or a request as a whole: see ``docs/destinations.md``.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from balance_bridge.accounts import WebhookDestination
from balance_bridge.errors import InvalidResponse
from balance_bridge.load.destination import Balance, Destination
from balance_bridge.load.documents import ACCEPTED, NO_RESULT, Result, Row, Said, Word
from balance_bridge.load.replies import by_number, describe, document_of, text_of

SCHEMA = "balance-bridge/balances/1"
KEY_HEADER = "idempotency-key"
TIMESTAMP_HEADER = "x-balance-bridge-timestamp"
SIGNATURE_HEADER = "x-balance-bridge-signature"
# The code with which a receiver refuses a request as a whole because of one of its balances.
BAD_RECORD = "BAD_RECORD"


class Webhook(Destination):
    """One account's balances at a webhook.

    The connection's URL is posted to as it is, with a slash at its end only if it was given with one; its password is
    the secret shared with the receiver, which signs and is never sent.
    """

    kind = "webhook"
    amount_field = "balance"
    number_fields = ("supersedes",)
    # The receiver has had the idempotency key.
    used_statuses = frozenset({409})
    default_bisect_codes = frozenset({BAD_RECORD})
    config: WebhookDestination

    @property
    def envelope(self) -> tuple[bytes, bytes]:
        """See :meth:`Destination.envelope`."""
        head = msgspec.json.encode({"schema": SCHEMA, "account": self._account, "destination": self.name})
        return head[:-1] + b',"balances":[', b"]}"

    def encode_row(self, wire: Mapping[str, str]) -> bytes:
        """A balance's JSON text: the amounts as bare numbers with their exact digits, the points as a list."""
        fields = dict(wire)
        points = _points(fields.pop("points"))
        return super().encode_row(fields)[:-1] + points

    def numbered(self, row: Row) -> dict[str, str]:
        """The balance as it is sent under its number, with what it follows."""
        follows = {"replaces": row.replaces, "supersedes": row.supersedes}
        return {**row.wire, "number": row.number, **{name: value for name, value in follows.items() if value}}

    def _record(self, balance: Balance, at: str, digits: str) -> tuple[str, dict[str, str]]:
        # The instant has a fixed length, so no two keys run into each other.
        key = f"{balance.asset} {at}"
        return key, {"asset": balance.asset, "at": at, "balance": digits, "points": balance.points}

    def _headers(self, body: bytes) -> dict[str, str]:
        timestamp = str(self._clock.now_ms())
        return {
            KEY_HEADER: hashlib.sha256(body).hexdigest(),
            TIMESTAMP_HEADER: timestamp,
            SIGNATURE_HEADER: sign(self._credentials.password, timestamp, body),
        }

    def verdict(self, document: Any, numbers: Sequence[str]) -> Result:
        """See :meth:`Destination.verdict`."""
        known = document if isinstance(document, dict) else {}
        results, status, code = known.get("results"), known.get("status"), known.get("code")
        if results is None and status == "accepted" and code is None:
            return Result(whole=ACCEPTED)
        if not isinstance(results, list):
            raise InvalidResponse("it has neither a list of results nor just the status 'accepted'")
        reading = by_number(results, numbers, "number", self._word)
        found = {word.said for word in reading.records.values()}
        if (status == "accepted" and found - {Said.ACCEPTED}) or (status == "rejected" and Said.ACCEPTED in found):
            raise InvalidResponse("its status and its results contradict each other")
        return reading

    def _word(self, result: Mapping[str, Any]) -> Word:
        status = text_of(result.get("status"))
        code, text = self.reason(result)
        if status == "accepted" and not code:
            return ACCEPTED
        if status == "rejected":
            return Word(Said.REJECTED, code or "REJECTED", text or "the webhook gave no reason")
        shown = f"the status {status or 'missing'} with the code {code or 'missing'} is not documented: {text}"
        return Word(Said.NOTHING, NO_RESULT, shown)

    def reason(self, document: Any) -> tuple[str, str]:
        """See :meth:`Destination.reason`."""
        if not isinstance(document, dict):
            return "", ""
        # "text" is ours; the others are what common frameworks call it.
        texts = (text_of(document.get(name)) for name in ("text", "detail", "message", "error", "title"))
        return text_of(document.get("code")), next(filter(None, texts), "")

    def _check(self) -> tuple[bool, str]:
        response = self._post(self.encode(()), 0)
        document, _ = document_of(response, 0)
        taken = isinstance(document, dict) and (document.get("status") == "accepted" or document.get("results") == [])
        # The key of an empty batch is always the same: that it came before is as good.
        if response.status in self.used_statuses or (200 <= response.status < 300 and taken):
            return True, (
                "the webhook took a signed empty batch; no balance was sent. Not checked: that it verifies the "
                "signature, and that it takes the account's balances"
            )
        found = describe(response, document, self)
        what = "the shared secret" if response.status in (401, 403) else "the URL, and what responds there"
        return False, f"an empty batch should be accepted, but {found}; check {what}"


@lru_cache(maxsize=256)
def _points(text: str) -> bytes:
    return b',"points":' + msgspec.json.encode(text.split(",")) + b"}"


def sign(secret: str, timestamp: str, body: bytes) -> str:
    """The signature of a request: hexadecimal HMAC-SHA256.

    Args:
        secret: The shared secret, used as UTF-8 bytes.
        timestamp: As in the header, UTC milliseconds since the epoch.
        body: The body's bytes, as they are sent.
    """
    return hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
