"""A receiver of balances on this machine, as strict as one should be: signature, age, schema, numbers and keys."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from balance_bridge.clock import Clock
from balance_bridge.sandbox.wire import (
    Api,
    Call,
    Journal,
    Number,
    Refused,
    Reply,
    instant_ms,
    is_time,
    read_json,
    same_signature,
)

PATH = "/webhook/balances"
SCHEMA = "balance-bridge/balances/1"
OLDEST_MS = 300_000
MOST_ROWS = 500
MOST_BYTES = 1_000_000
BAD_RECORD = "BAD_RECORD"

_HEAD = {"schema", "account", "destination", "balances"}
_REQUIRED = {"number", "asset", "at", "balance", "points"}
_OPTIONAL = {"replaces", "supersedes"}
_AT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z")
_KEY = re.compile(r"[\x21-\x7e]{1,255}")


@dataclass(frozen=True)
class Held:
    """One balance that was accepted, as it was sent; ``state``: see :meth:`Api._take`."""

    account: str
    destination: str
    asset: str
    at_ms: int
    at: str
    number: str
    balance: Decimal
    state: str


class Webhook(Api):
    """The receiver.

    Args:
        secret: Shared with whoever sends.
        clock: What the server's time is.
        journal: Where requests are written down.
        refused: Assets that it does not take.
        whole: Refuse a request as a whole for one such asset, instead of saying for each balance what became of it.
        conflicts: Respond with 409 to a key that was used, instead of with the response of then.
        brief: Respond in one word where all were accepted.
    """

    name = "webhook"
    key_name = "signed"

    def __init__(
        self,
        *,
        secret: str,
        clock: Clock,
        journal: Journal,
        refused: Collection[str] = (),
        whole: bool = False,
        conflicts: bool = False,
        brief: bool = False,
    ) -> None:
        super().__init__(clock, journal)
        self.refused = set(refused)
        self.held: list[Held] = []
        self._secret = secret
        self._whole = whole
        self._conflicts = conflicts
        self._brief = brief
        self._replies: dict[str, tuple[bytes, Reply]] = {}
        self._results: dict[str, tuple[Any, dict[str, str]]] = {}

    def reset(self) -> None:
        """Forget every balance, every number and every key."""
        super().reset()
        for kept in (self.held, self._replies, self._results):
            kept.clear()

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
            if self._conflicts:
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
        account, destination, rows = _document(body)
        checked = [_check(row) for row in rows]
        bad = [row["asset"] for row in checked if row["asset"] in self.refused]
        if bad and self._whole:
            raise _refused(422, BAD_RECORD, f"{bad[0]} is not taken here")
        results = [self._result(account, destination, row) for row in checked]
        if self._brief and all(result["status"] == "accepted" for result in results):
            return Reply(200, {"status": "accepted"})
        return Reply(200, {"results": results})

    def _result(self, account: str, destination: str, row: Mapping[str, Any]) -> dict[str, str]:
        number = row["number"]
        if number in self._results:
            before, result = self._results[number]
            if any(before[name] != row[name] for name in ("asset", "at", "balance")):
                raise _refused(422, "NUMBER_REUSED", f"{number} came with other content before")
            return result
        result = {"number": number, "status": "accepted"}
        if row["asset"] in self.refused:
            result = {"number": number, "status": "rejected", "code": "UNKNOWN_ASSET", "text": "it is not taken here"}
        else:
            self._keep(account, destination, row)
        self._results[number] = (dict(row), result)
        return result

    def _keep(self, account: str, destination: str, row: Mapping[str, Any]) -> None:
        number: Number = row["balance"]
        key = (account, destination, row["asset"], instant_ms(row["at"]))
        self.held.append(Held(*key, row["at"], row["number"], number.amount, self._take(key, number)))


def _document(body: bytes) -> tuple[str, str, list[Any]]:
    try:
        document = read_json(body)
    except ValueError as error:
        raise _refused(400, "BAD_REQUEST", f"the body is no JSON: {error}") from error
    if not isinstance(document, dict) or set(document) != _HEAD or document["schema"] != SCHEMA:
        raise _refused(400, "BAD_REQUEST", f"the body is no object of the schema {SCHEMA}")
    account, destination, rows = document["account"], document["destination"], document["balances"]
    if not _texts(account, destination) or not isinstance(rows, list) or len(rows) > MOST_ROWS:
        raise _refused(400, "BAD_REQUEST", f"account and destination are text, balances a list of up to {MOST_ROWS}")
    return account, destination, rows


def _check(row: Any) -> dict[str, Any]:
    if not isinstance(row, dict) or not _REQUIRED <= set(row) <= _REQUIRED | _OPTIONAL:
        raise _refused(422, BAD_RECORD, "a balance is no object of the known fields")
    right = (
        _texts(row["number"], row["asset"], row.get("replaces", "none"))
        and isinstance(row["points"], list)
        and _texts(*row["points"])
        and isinstance(row["balance"], Number)
        and isinstance(row.get("supersedes", row["balance"]), Number)
    )
    if not right or not is_time(_AT, row["at"]):
        raise _refused(422, BAD_RECORD, f"a field of the balance {row['number']!r} is not as documented")
    return row


def _texts(*values: Any) -> bool:
    return all(isinstance(value, str) and value for value in values)


def _refused(status: int, code: str, text: str) -> Refused:
    return Refused(Reply(status, {"status": "rejected", "code": code, "text": text}), text)
