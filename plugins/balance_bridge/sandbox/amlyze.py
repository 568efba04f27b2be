"""Amlyze on this machine: batches of account balances, each record with a result of its own."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from balance_bridge.clock import Clock
from balance_bridge.sandbox.wire import (
    Api,
    Call,
    Journal,
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

PATH = "/amlyze-ws-rest/batch-account-balances"
USED = "O005"
MOST_CHARACTERS = 255

_MANDATORY = {
    "accountExtId": ("O001", "extId is mandatory"),
    "communicationNumber": ("001", "communicationNumber is mandatory"),
    "requester": ("001", "requester is mandatory"),
    "balanceAt": ("001", "balanceAt is mandatory"),
    "value": ("001", "value is mandatory"),
}
_RFC3339 = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})$"

Text = Annotated[str, Field(max_length=MOST_CHARACTERS)]


class Registered(Row):
    """One balance; all that is optional may also be null."""

    account_ext_id: Text
    balance_at: Annotated[Time, Field(pattern=_RFC3339)]
    number: Text = Field(alias="communicationNumber")
    requester: str = Field(max_length=100)
    balance: Number = Field(alias="value")
    balance_type: Text | None = None
    business_unit: Text | None = None
    equivalent_value: Number | None = None

    @property
    def at_ms(self) -> int:
        """The instant in UTC milliseconds."""
        return instant_ms(self.balance_at)

    @property
    def key(self) -> tuple[str, int]:
        """What must be delivered once."""
        return self.account_ext_id, self.at_ms


_RECORD = TypeAdapter(Registered)
_FIELDS = {field.alias for field in Registered.model_fields.values()}


class Amlyze(Api[Registered]):
    """Amlyze's API.

    Args:
        token: The bearer token.
        clock: What the server's time is.
        journal: Where requests are written down.
        accounts: Account ids that exist; None takes every id.
        seed: Shuffles the results.

    Attributes:
        rejected: What became of each record that was rejected.
        used: Every communication number that came.
    """

    name = "amlyze"
    key_name = "bearer"

    def __init__(
        self, *, token: str, clock: Clock, journal: Journal, accounts: Collection[str] | None = None, seed: int = 7
    ) -> None:
        super().__init__(clock, journal)
        self.accounts = None if accounts is None else frozenset(accounts)
        self.rejected: list[dict[str, str]] = []
        self.used: set[str] = set()
        self._token = token
        self._random = random.Random(seed)

    def _serve(self, call: Call, at_s: float) -> Reply:
        if not same_signature(f"Bearer {self._token}", call.headers.get("authorization", "")):
            raise Refused(Reply(401, {"error": {"code": "unauthorized"}}), "unauthorized")
        if call.path != PATH:
            raise _spring(404, "Not Found", call, at_s)
        if call.method != "POST":
            raise _spring(405, "Method Not Allowed", call, at_s)
        if not call.headers.get("content-type", "").lower().startswith("application/json"):
            raise _spring(415, "Unsupported Media Type", call, at_s)
        try:
            document = read_json(call.body)
        except ValueError:
            raise _spring(400, "Bad Request", call, at_s) from None
        rows = self._rows(document)
        results = [self._register(row) for row in rows]
        # Nobody promises the order of results.
        self._random.shuffle(results)
        return Reply(200, {"results": results, "timeElapsedMs": sum(result["timeElapsedMs"] for result in results)})

    def _rows(self, document: Any) -> list[dict[str, Any]]:
        rows = document.get("accountBalances") if isinstance(document, dict) else None
        if not isinstance(rows, list):
            raise _malformed("400", "accountBalances is a mandatory list")
        for row in rows:
            if not isinstance(row, dict) or not row.keys() <= _FIELDS:
                raise _malformed("400", "a record is no object of the known fields")
            for name, (code, description) in _MANDATORY.items():
                if row.get(name) in (None, ""):
                    raise _malformed(code, description)
            if not isinstance(row["communicationNumber"], str):
                raise _malformed("001", "communicationNumber is no text")
        return rows

    def _register(self, row: Mapping[str, Any]) -> dict[str, Any]:
        number = row["communicationNumber"]
        code, description = (USED, "CommunicationNumber already used in AMLYZE") if number in self.used else ("", "")
        # A number is used up whatever becomes of the record.
        self.used.add(number)
        if not code:
            code, description = self._take(row)
        result: dict[str, Any] = {
            "resultType": "REQUEST_REJECTED" if code else "REQUEST_ACCEPTED",
            # A result has no room for a longer one; such a record is rejected.
            "communicationNumber": number[:MOST_CHARACTERS],
            "timeElapsedMs": self._random.randint(1, 250),
        }
        # A result holds texts only: what came as something else is left out.
        result |= {name: row[name] for name in ("accountExtId", "businessUnit") if isinstance(row.get(name), str)}
        if code:
            self.rejected.append({"communicationNumber": number, "errorCode": code, "errorDescription": description})
            return result | {"errorCode": code, "errorDescription": description}
        return result

    def _take(self, row: Mapping[str, Any]) -> tuple[str, str]:
        """Keep a record, or say with which code and why it is rejected."""
        try:
            registered = fit(_RECORD, row)
        except ValueError as error:
            return "500", f"failed processing account balance: {error}"
        if self.accounts is not None and registered.account_ext_id not in self.accounts:
            return "404", "business entity does not exist"
        self._keep(registered)
        return "", ""


def _malformed(code: str, description: str) -> Refused:
    document = {"resultType": "REQUEST_REJECTED", "errorCode": code, "errorDescription": description}
    return Refused(Reply(400, document), f"{code} {description}")


def _spring(status: int, error: str, call: Call, at_s: float) -> Refused:
    stamp = datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds")
    return Refused(Reply(status, {"timestamp": stamp, "status": status, "error": error, "path": call.path}), error)
