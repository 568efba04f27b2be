"""Amlyze on this machine: batches of account balances, each record with a result of its own."""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
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

PATH = "/amlyze-ws-rest/batch-account-balances"
USED = "O005"

_REQUIRED = {
    "accountExtId": ("O001", "extId is mandatory"),
    "communicationNumber": ("001", "communicationNumber is mandatory"),
    "requester": ("001", "requester is mandatory"),
    "balanceAt": ("001", "balanceAt is mandatory"),
    "value": ("001", "value is mandatory"),
}
_OPTIONAL = {"balanceType", "businessUnit", "equivalentValue"}
_LENGTHS = {"accountExtId": 255, "communicationNumber": 255, "requester": 100, "balanceType": 255, "businessUnit": 255}
_RFC3339 = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Registered:
    """One balance that was accepted, as it was sent; ``state``: see :meth:`Api._take`."""

    account_ext_id: str
    balance_at: str
    at_ms: int
    number: str
    value: Decimal
    text: str
    balance_type: str
    business_unit: str
    state: str

    @property
    def key(self) -> tuple[str, int]:
        """What must be delivered once."""
        return self.account_ext_id, self.at_ms


class Amlyze(Api):
    """Amlyze's API.

    Args:
        token: The bearer token.
        clock: What the server's time is.
        journal: Where requests are written down.
        accounts: Account ids that exist; None takes every id.
        groups: An account's name by the prefix of its ids, for the counts.
        seed: Shuffles the results.
    """

    name = "amlyze"
    key_name = "bearer"

    def __init__(
        self,
        *,
        token: str,
        clock: Clock,
        journal: Journal,
        accounts: Collection[str] | None = None,
        groups: Mapping[str, str] | None = None,
        seed: int = 7,
    ) -> None:
        super().__init__(clock, journal)
        self.accounts = None if accounts is None else frozenset(accounts)
        self.groups = dict(groups or {})
        self.registered: list[Registered] = []
        self.rejected: list[dict[str, str]] = []
        self.used: set[str] = set()
        self._token = token
        self._random = random.Random(seed)

    def reset(self) -> None:
        """Forget every balance and every number."""
        super().reset()
        for kept in (self.registered, self.rejected, self.used):
            kept.clear()

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
            if not isinstance(row, dict) or set(row) - set(_REQUIRED) - _OPTIONAL:
                raise _malformed("400", "a record is no object of the known fields")
            for name, (code, description) in _REQUIRED.items():
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
            code, description = self._fault(row)
        result: dict[str, Any] = {
            "resultType": "REQUEST_REJECTED" if code else "REQUEST_ACCEPTED",
            # A result has no room for a longer one; such a record is rejected.
            "communicationNumber": number[: _LENGTHS["communicationNumber"]],
            "timeElapsedMs": self._random.randint(1, 250),
        }
        # A result holds texts only: what came as something else is left out.
        result |= {name: row[name] for name in ("accountExtId", "businessUnit") if isinstance(row.get(name), str)}
        if code:
            self.rejected.append({"communicationNumber": number, "errorCode": code, "errorDescription": description})
            return result | {"errorCode": code, "errorDescription": description}
        self._keep(row)
        return result

    def _fault(self, row: Mapping[str, Any]) -> tuple[str, str]:
        for name, most in _LENGTHS.items():
            value = row.get(name)
            if value is not None and (not isinstance(value, str) or len(value) > most):
                return "500", f"failed processing account balance: {name} is a text of at most {most} characters"
        for name in ("value", "equivalentValue"):
            if row.get(name) is not None and not isinstance(row[name], Number):
                return "500", f"failed processing account balance: {name} is no number"
        if not is_time(_RFC3339, row["balanceAt"]):
            return "500", "failed processing account balance: balanceAt is not RFC 3339"
        if self.accounts is not None and row["accountExtId"] not in self.accounts:
            return "404", "business entity does not exist"
        return "", ""

    def _keep(self, row: Mapping[str, Any]) -> None:
        number: Number = row["value"]
        key = (row["accountExtId"], instant_ms(row["balanceAt"]))
        self.registered.append(
            Registered(
                account_ext_id=key[0],
                balance_at=row["balanceAt"],
                at_ms=key[1],
                number=row["communicationNumber"],
                value=number.amount,
                text=number.text,
                balance_type=row.get("balanceType") or "",
                business_unit=row.get("businessUnit") or "",
                state=self._take(key, number),
            )
        )

    def account(self, account_ext_id: str) -> str:
        """The account that an id belongs to, by the longest prefix; the id itself if none fits."""
        fitting = [prefix for prefix in self.groups if account_ext_id.startswith(prefix)]
        return self.groups[max(fitting, key=len)] if fitting else account_ext_id


def _malformed(code: str, description: str) -> Refused:
    document = {"resultType": "REQUEST_REJECTED", "errorCode": code, "errorDescription": description}
    return Refused(Reply(400, document), f"{code} {description}")


def _spring(status: int, error: str, call: Call, at_s: float) -> Refused:
    stamp = (_EPOCH + timedelta(seconds=at_s)).isoformat(timespec="milliseconds")
    return Refused(Reply(status, {"timestamp": stamp, "status": status, "error": error, "path": call.path}), error)
