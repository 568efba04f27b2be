"""A receiver of balances on this machine, as strict as one should be: signature, age, schema, numbers and keys."""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from balance_bridge.clock import Clock
from balance_bridge.sandbox.wire import (
    Api,
    Call,
    Journal,
    Model,
    Number,
    Refused,
    Reply,
    Row,
    Time,
    fit,
    instant_ms,
    read_json,
    same_signature,
)

PATH = "/webhook/balances"
OLDEST_MS = 300_000
MOST_ROWS = 500
MOST_BYTES = 1_000_000
BAD_RECORD = "BAD_RECORD"

_AT = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z$"
_KEY = re.compile(r"[\x21-\x7e]{1,255}")

Text = Annotated[str, Field(min_length=1)]


class Batch(Model):
    """The body of a request."""

    form: Literal["balance-bridge/balances/1"] = Field(alias="schema")
    account: Text
    destination: Text
    balances: list[Any] = Field(max_length=MOST_ROWS)


class Held(Row):
    """One balance."""

    number: Text
    asset: Text
    at: Annotated[Time, Field(pattern=_AT)]
    points: list[Text]
    replaces: Text = ""
    supersedes: Number = None  # type: ignore[assignment]  # absent, but never null
    _sender: tuple[str, str]

    @property
    def at_ms(self) -> int:
        """The instant in UTC milliseconds."""
        return instant_ms(self.at)

    @property
    def key(self) -> tuple[str, str, str, int]:
        """What must be delivered once."""
        return *self._sender, self.asset, self.at_ms

    def document(self) -> dict[str, Any]:
        """As JSON."""
        account, destination = self._sender
        return super().document() | {"account": account, "destination": destination}


_BATCH, _HELD = TypeAdapter(Batch), TypeAdapter(Held)


class Webhook(Api[Held]):
    """The receiver.

    Args:
        secret: Shared with whoever sends.
        clock: What the server's time is.
        journal: Where requests are written down.

    Attributes:
        refused: Assets that it does not take.
        whole: Refuse a request as a whole for one such asset, instead of saying for each balance what became of it.
        conflicts: Respond with 409 to a key that was used, instead of with the response of then.
        brief: Respond in one word where all were accepted.
    """

    name = "webhook"
    key_name = "signed"
    refused: frozenset[str] = frozenset()
    whole = conflicts = brief = False

    def __init__(self, *, secret: str, clock: Clock, journal: Journal) -> None:
        super().__init__(clock, journal)
        self._secret = secret
        self._replies: dict[str, tuple[bytes, Reply]] = {}
        self._results: dict[str, tuple[Held, dict[str, str]]] = {}

    def _serve(self, call: Call, at_s: float) -> Reply:
        if (call.method, call.path) != ("POST", PATH):
            raise _refused(404, "NOT_FOUND", f"only POST {PATH} is served here")
        self._authenticate(call, int(at_s * 1000))
        key = call.headers.get("idempotency-key", "")
        if not _KEY.fullmatch(key):
            raise _refused(400, "BAD_REQUEST", "the idempotency-key is missing")
        if len(call.body) > MOST_BYTES:
            raise _refused(413, "TOO_LARGE", f"at most {MOST_BYTES} bytes are taken")
        if key in self._replies:
            body, reply = self._replies[key]
            if body != call.body:
                raise _refused(422, "KEY_REUSED", "the idempotency-key came with another body before")
            if self.conflicts:
                raise _refused(409, "SEEN", "the idempotency-key was used before")
            return reply
        reply = self._accept(call.body)
        self._replies[key] = (call.body, reply)
        return reply

    def _authenticate(self, call: Call, now_ms: int) -> None:
        stamp, given = (call.headers.get(f"x-balance-bridge-{name}", "") for name in ("timestamp", "signature"))
        expected = hmac.new(self._secret.encode(), f"{stamp}.".encode() + call.body, hashlib.sha256).hexdigest()
        if not same_signature(expected, given):
            raise _refused(401, "UNAUTHORIZED", "the signature does not match")
        if not re.fullmatch(r"[0-9]{1,15}", stamp) or abs(now_ms - int(stamp)) > OLDEST_MS:
            raise _refused(401, "UNAUTHORIZED", "the timestamp is not within five minutes of the server's clock")

    def _accept(self, body: bytes) -> Reply:
        rows = _rows(body)
        bad = [row.asset for row in rows if row.asset in self.refused]
        if bad and self.whole:
            raise _refused(422, BAD_RECORD, f"{bad[0]} is not taken here")
        results = [self._result(row) for row in rows]
        if self.brief and all(result["status"] == "accepted" for result in results):
            return Reply(200, {"status": "accepted"})
        return Reply(200, {"results": results})

    def _result(self, row: Held) -> dict[str, str]:
        if row.number in self._results:
            before, result = self._results[row.number]
            if (before.asset, before.at, before.balance.text) != (row.asset, row.at, row.balance.text):
                raise _refused(422, "NUMBER_REUSED", f"{row.number} came with other content before")
            return result
        result = {"number": row.number, "status": "accepted"}
        if row.asset in self.refused:
            result |= {"status": "rejected", "code": "UNKNOWN_ASSET", "text": "it is not taken here"}
        else:
            self._keep(row)
        self._results[row.number] = (row, result)
        return result


def _rows(body: bytes) -> list[Held]:
    try:
        batch = fit(_BATCH, read_json(body))
    except ValueError as error:
        raise _refused(400, "BAD_REQUEST", f"the body is not as documented: {error}") from error
    try:
        rows = [fit(_HELD, row) for row in batch.balances]
    except ValueError as error:
        raise _refused(422, BAD_RECORD, f"a balance is not as documented: {error}") from error
    for row in rows:
        row._sender = batch.account, batch.destination
    return rows


def _refused(status: int, code: str, text: str) -> Refused:
    return Refused(Reply(status, {"status": "rejected", "code": code, "text": text}), text)
