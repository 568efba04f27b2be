"""Amlyze: anti-money-laundering monitoring. Imports balances by ``POST /amlyze-ws-rest/batch-account-balances``.

A balance has no currency there, so each asset needs its own account. Each record has a communication number that is
never used again, not even after a failed request; each is accepted or rejected on its own, and the results come in any
order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from balance_bridge.accounts import AmlyzeDestination
from balance_bridge.errors import InvalidResponse, RecordsRejected
from balance_bridge.load.destination import Balance, Destination
from balance_bridge.load.documents import ACCEPTED, NO_RESULT, Result, Row, Said, Word
from balance_bridge.load.replies import by_number, describe, document_of, text_of
from balance_bridge.money import to_text

IMPORT_PATH = "/amlyze-ws-rest/batch-account-balances"
MAX_ID_CHARS = 255
PLACEHOLDER = "{asset}"

# "communicationNumber already used": the number was seen, which is not to say that its balance was taken.
_ALREADY_USED = "O005"


class Amlyze(Destination):
    """One account's balances at an Amlyze tenant. The connection's password is the bearer token."""

    kind = "amlyze"
    path = IMPORT_PATH
    envelope = (b'{"accountBalances":[', b"]}")
    amount_field = "value"
    number_fields = ("equivalentValue",)
    # A mandatory field is missing, a currency or account does not exist.
    default_bisect_codes = frozenset({"O001", "001"})
    # The vendor's sample takes some 200 ms per record.
    timeout_per_row_s = 0.5
    config: AmlyzeDestination

    def account_at(self, wire: Mapping[str, str]) -> str:
        """See :meth:`Destination.account_at`."""
        return wire["accountExtId"]

    def numbered(self, row: Row) -> dict[str, str]:
        """The record as it is sent under its number; the API has no field for what it follows."""
        return {**row.wire, "communicationNumber": row.number}

    def _record(self, balance: Balance, at: str, digits: str) -> tuple[str, dict[str, str]]:
        ids = self.config.account_ext_id
        account = ids.replace(PLACEHOLDER, balance.asset) if isinstance(ids, str) else ids.get(balance.asset)
        if account is None:
            raise RecordsRejected(
                "account_ext_id has no entry for this asset", do="Add one, or set the asset to ignore"
            )
        if len(account) > MAX_ID_CHARS:
            raise RecordsRejected(
                f"the account id {account[:40]!r}... has {len(account)} characters, {MAX_ID_CHARS} are allowed"
            )
        wire = {"accountExtId": account, "balanceAt": at, "requester": self.config.requester, "value": digits}
        optional = {
            "balanceType": self.config.balance_type,
            "businessUnit": self.config.business_unit,
            "equivalentValue": None if balance.equivalent is None else to_text(balance.equivalent),
        }
        wire |= {name: value for name, value in optional.items() if value is not None}
        # The instant has a fixed length, so no two keys run into each other.
        return f"{account} {at}", wire

    def _headers(self, body: bytes) -> dict[str, str]:  # noqa: ARG002 - nothing is signed
        return {"authorization": f"Bearer {self._credentials.password}"}

    def verdict(self, document: Any, numbers: Sequence[str]) -> Result:
        """See :meth:`Destination.verdict`."""
        results = document.get("results") if isinstance(document, dict) else None
        if not isinstance(results, list):
            raise InvalidResponse("it has no list of results")
        return by_number(results, numbers, "communicationNumber", _word)

    def reason(self, document: Any) -> tuple[str, str]:
        """See :meth:`Destination.reason`."""
        if not isinstance(document, dict):
            return "", ""
        error = document.get("error")
        if isinstance(error, dict):
            return text_of(error.get("code")), text_of(error.get("message")) or text_of(error.get("code"))
        errors = document.get("errors")
        listed = "; ".join(map(text_of, errors)) if isinstance(errors, list) else ""
        # Spring's own form has no code: {timestamp, status, error, path}.
        text = text_of(document.get("errorDescription")) or listed or text_of(error)
        return text_of(document.get("errorCode")), text

    def _check(self) -> tuple[bool, str]:
        # No read is documented. An empty batch registers nothing, and what comes back shows who is there.
        response = self._post(self.encode(()), 0)
        document, _ = document_of(response, 0)
        ours = isinstance(document, dict) and bool({"results", "resultType", "errorCode"} & document.keys())
        found = describe(response, document, self)
        unchecked = "Not checked: requester, account ids, balance type and business unit"
        if ours and 200 <= response.status < 300:
            return True, f"Amlyze took the token and an empty batch; no balance was registered. {unchecked}"
        if ours and response.status == 400:
            seems = "Amlyze refuses an empty batch in its own form, so it seems to take the token"
            return True, f"{seems}: {found}. {unchecked}"
        if response.status == 401 and isinstance(document, dict) and "error" in document:
            return False, f"the base URL leads to Amlyze's API, but the token is not accepted: {found}"
        return False, f"this is not how Amlyze's API responds to an empty batch: {found}; check base URL and token"


def _word(result: Mapping[str, Any]) -> Word:
    kind = text_of(result.get("resultType"))
    code, text = text_of(result.get("errorCode")), text_of(result.get("errorDescription"))
    # An acceptance with any error is neither.
    if kind == "REQUEST_ACCEPTED" and result.get("errorCode") in (None, ""):
        return ACCEPTED
    if kind == "REQUEST_REJECTED" and code == _ALREADY_USED:
        return Word(Said.USED, code, text)
    if kind == "REQUEST_REJECTED":
        return Word(Said.REJECTED, code or "REJECTED", text or "Amlyze gave no reason")
    shown = f"resultType {kind or 'missing'} with errorCode {code or 'missing'} is not documented: {text}"
    return Word(Said.NOTHING, NO_RESULT, shown)
