"""A URL of one's own: balances are POSTed to it as JSON, in a schema of this package, and signed.

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

The receiver takes or refuses each balance for itself, or a request as a whole. ``docs/destinations.md`` is written for
whoever builds one.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from balance_bridge.clock import SYSTEM_CLOCK, Clock
from balance_bridge.errors import BadAnswer, ConfigurationError
from balance_bridge.load.batches import Limits
from balance_bridge.load.destination import IGNORE, Balance, Candidate, Destination, Prepared
from balance_bridge.load.numbers import rfc3339
from balance_bridge.load.outcomes import ACCEPTED, Outcome, Status
from balance_bridge.load.policy import Places, Policy
from balance_bridge.load.replies import NO_RESULT, Verdict, by_number, describe, document_of, text_of
from balance_bridge.transport import Answer, Transport

SCHEMA = "balance-bridge/balances/1"
KEY_HEADER = "idempotency-key"
TIMESTAMP_HEADER = "x-balance-bridge-timestamp"
SIGNATURE_HEADER = "x-balance-bridge-signature"
# The code with which a receiver refuses a request as a whole because of one of its balances.
BAD_RECORD = "BAD_RECORD"


class Webhook(Destination):
    """One account's balances at a URL of one's own.

    Args:
        name: The destination's name in the accounts file.
        transport: Sends the requests.
        url: Where to, as a whole: scheme, host, port and path, with a slash at the end only if it is to be sent.
        secret: Shared with the receiver; signs, and is never sent.
        account: The account's name in the accounts file.
        assets: Per asset ``"ignore"``.
        max_rows: Balances of one request.
        max_bytes: Bytes of one request's body.
        policy: How what goes wrong is dealt with.
        places: Places in the window of requests; None for as many as one likes.
        timeout_s: Seconds without a byte after which the answer to an empty request counts as lost.
        clock: Where a signature's timestamp comes from.

    Raises:
        ConfigurationError: If one of these cannot be used.
    """

    kind = "webhook"
    amount_field = "balance"
    number_fields = ("supersedes",)
    # The receiver has had the idempotency key.
    seen_statuses = frozenset({409})
    default_policy = Policy(bisect_codes=frozenset({BAD_RECORD}))

    def __init__(
        self,
        name: str = "webhook",
        *,
        transport: Transport,
        url: str,
        secret: str,
        account: str,
        assets: Mapping[str, str] | None = None,
        max_rows: int = 500,
        max_bytes: int = 1_000_000,
        policy: Policy | None = None,
        places: Places | None = None,
        timeout_s: float | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        super().__init__(
            name,
            transport=transport,
            base_url=url,
            limits=Limits(max_rows, max_bytes),
            ignored=[asset for asset, target in (assets or {}).items() if target == IGNORE],
            secrets={"shared secret (password)": secret},
            policy=policy,
            places=places,
            timeout_s=timeout_s,
        )
        if not account:
            raise ConfigurationError(f"{name}: the account's name is empty; the receiver needs it")
        # Many a server redirects from a path without its last slash, and a redirect is never followed.
        self._url = self._base_url + ("/" if url.strip().endswith("/") else "")
        self._secret = secret
        self._clock = clock
        head = msgspec.json.encode({"schema": SCHEMA, "account": account, "destination": name})
        self.envelope = (head[:-1] + b',"balances":[', b"]}")

    def encode_row(self, wire: Mapping[str, str]) -> bytes:
        """A balance's JSON text: the amounts as bare numbers with their exact digits, the points as a list."""
        fields = dict(wire)
        points = _points(fields.pop("points"))
        return super().encode_row(fields)[:-1] + points

    def numbered(self, wire: Mapping[str, str], number: str, *, replaces: str, supersedes: str) -> dict[str, str]:
        """The balance as it is sent under a number, with what it follows."""
        told = {"replaces": replaces, "supersedes": supersedes}
        return {**wire, "number": number, **{name: value for name, value in told.items() if value}}

    def _translate(self, sendable: Sequence[tuple[Balance, str]], prepared: Prepared) -> None:
        for balance, digits in sendable:
            at = rfc3339(balance.at_ms)
            wire = {"asset": balance.asset, "at": at, "balance": digits, "points": ",".join(balance.points)}
            # The instant has a fixed length, so no two keys run into each other.
            prepared.candidates.append(Candidate(balance, f"{balance.asset} {at}", digits, wire))

    def _post(self, body: bytes, rows: int) -> Answer:
        timestamp = str(self._clock.now_ms())
        return self._transport.send(
            "POST",
            self._url,
            headers={
                "content-type": "application/json",
                KEY_HEADER: hashlib.sha256(body).hexdigest(),
                TIMESTAMP_HEADER: timestamp,
                SIGNATURE_HEADER: sign(self._secret, timestamp, body),
            },
            body=body,
            timeout_s=self.timeout_s(rows),
            deadline_s=self.deadline_s(rows),
        )

    def _verdict(self, document: Any, numbers: Sequence[str]) -> Verdict:
        known = document if isinstance(document, dict) else {}
        results = known.get("results")
        if isinstance(results, list):
            return by_number(results, numbers, "number", self._outcome)
        if results is None and known.get("status") == Status.ACCEPTED:
            return Verdict(dict.fromkeys(numbers, ACCEPTED))
        raise BadAnswer(f"the webhook's answer has neither a list of results nor the status 'accepted': {document}")

    def _outcome(self, result: Mapping[str, Any]) -> Outcome:
        status = result.get("status")
        if status == Status.ACCEPTED:
            return ACCEPTED
        if status == Status.REJECTED:
            code, text = self._reason(result)
            return Outcome(Status.REJECTED, code or "REJECTED", text or "the webhook gave no reason")
        return Outcome(Status.UNKNOWN, NO_RESULT, f"the status {status!r} is not documented")

    def _reason(self, document: Any) -> tuple[str, str]:
        if not isinstance(document, dict):
            return "", ""
        # "text" is ours; the others are what common frameworks call it.
        texts = (text_of(document.get(name)) for name in ("text", "detail", "message", "error", "title"))
        return text_of(document.get("code")), next(filter(None, texts), "")

    def _check(self) -> tuple[bool, str]:
        answer = self._post(self.encode(()), 0)
        document = document_of(answer)
        taken = isinstance(document, dict) and (document.get("status") == "accepted" or document.get("results") == [])
        # The key of an empty batch is always the same: that it came before is as good.
        if answer.status in self.seen_statuses or (200 <= answer.status < 300 and taken):
            return True, (
                "the webhook took a signed empty batch; no balance was sent. Not checked: that it verifies the "
                "signature, and that it takes the account's balances"
            )
        said = describe(answer, document, self._reader)
        what = "the shared secret" if answer.status in (401, 403) else "the URL, and what answers there"
        return False, f"an empty batch should be accepted, but {said}; check {what}"


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
