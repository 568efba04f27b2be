"""Elven: treasury accounting. Imports balances by ``POST /open/v4/account/treasuryBalance``.

The instant goes out as local text of the Entity's time zone, cut to the second; a batch is accepted or refused as a
whole. A source id is always sent: without one Elven makes a new source for every import.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from balance_bridge.accounts import ElvenAsset, ElvenDestination
from balance_bridge.errors import CredentialsRefused, InvalidResponse, RequestRefused
from balance_bridge.load.destination import Balance, Destination, response_bytes
from balance_bridge.load.documents import ACCEPTED, Result, Said, Word
from balance_bridge.load.replies import describe, document_of, text_of
from balance_bridge.transport import Response

IMPORT_PATH = "/open/v4/account/treasuryBalance"
ACCOUNTS_PATH = "/open/v3/entityAccount"
# A page of a list has far fewer rows; but a server need not obey the limit in a request.
_LISTED = 1000


class Elven(Destination):
    """One account's source of balances at Elven. The connection's key is sent; its secret only signs."""

    kind = "elven"
    path = IMPORT_PATH
    envelope = (b"[", b"]")
    amount_field = "balance"
    # The code of the vendor's own example of a refused import.
    default_bisect_codes = frozenset({"19734"})
    config: ElvenDestination

    def place(self) -> dict[str, str]:
        """See :meth:`Destination.place`."""
        return super().place() | {"entity_account_id": self.config.entity_account_id}

    def key_settings(self) -> dict[str, str]:
        """See :meth:`Destination.key_settings`."""
        return {"source_id": self.config.source_id, "timezone": self.config.timezone}

    def account_at(self, wire: Mapping[str, str]) -> str:
        """See :meth:`Destination.account_at`."""
        return f"{wire['entityAccountId']} {wire['sourceId']}"

    def _times(self, at_ms: Sequence[int]) -> Sequence[str]:
        # Imported here: it needs pandas, and the connection test does not.
        from balance_bridge.localtime import local_texts

        return local_texts(at_ms, self.config.timezone)

    def _record(self, balance: Balance, at: str, digits: str) -> tuple[str, dict[str, str]]:
        config, target = self.config, self.config.assets.get(balance.asset)
        mapped = target if isinstance(target, ElvenAsset) else None
        if mapped is not None and mapped.asset_id is not None:
            name, value = "assetID", mapped.asset_id
        else:
            name, value = "symbol", (mapped and mapped.symbol) or balance.asset
        wire = {"entityAccountId": config.entity_account_id, "sourceId": config.source_id, name: value}
        # An id, a symbol and a source hold no blank, and the text has a fixed length: no two keys are alike.
        return f"{name}:{value} {config.source_id} {at}", wire | {"datetime": at, "balance": digits}

    def _headers(self, body: bytes) -> dict[str, str]:  # noqa: ARG002 - the body is not signed
        return self._signed("POST", IMPORT_PATH)

    def _signed(self, method: str, path: str) -> dict[str, str]:
        # Good for 5 or 30 seconds, depending on the vendor's page: made right before each request.
        timestamp = str(self._clock.now_ms())
        return {
            "elven-api-key": self._credentials.login,
            "elven-api-timestamp": timestamp,
            "elven-api-sign": sign(self._credentials.password, timestamp, method, path),
        }

    def verdict(self, document: Any, numbers: Sequence[str]) -> Result:  # noqa: ARG002 - it judges the request
        """See :meth:`Destination.verdict`."""
        said = _said(document)
        if said is Said.NOTHING:
            raise InvalidResponse("it says neither a clear success nor a clear failure")
        if said is Said.ACCEPTED:
            return Result(whole=ACCEPTED)
        code, text = self.reason(document)
        return Result(whole=Word(said, code or "failed", text or "Elven gave no reason"))

    def reason(self, document: Any) -> tuple[str, str]:
        """See :meth:`Destination.reason`."""
        if not isinstance(document, dict):
            return "", ""
        data = document.get("data")
        source = data if isinstance(data, dict) else document
        return text_of(source.get("code")), text_of(source.get("message")) or text_of(source.get("error"))

    def call(
        self, method: str, path: str, *, params: Mapping[str, str] | None = None, body: Mapping[str, str] | None = None
    ) -> Any:
        """Make a request other than an import of balances.

        Args:
            method: ``GET`` or ``POST``.
            path: From ``/open/`` on.
            params: The query.
            body: What is posted, as JSON.

        Returns:
            The response's document, its texts without secrets.

        Raises:
            CredentialsRefused: 401 or 403.
            RequestRefused: Any other refusal.
            InvalidResponse: What responds is not JSON.
            BalanceBridgeError: As for :meth:`send`.
        """
        # The vendor's page does not say what a GET signs; path and query, as they are sent, is the reading we take.
        query = "&".join(f"{name}={value}" for name, value in (params or {}).items())
        headers = self._signed(method, f"{path}?{query}" if query else path)
        if body is not None:
            headers["content-type"] = "application/json"
        response = self._transport.send(
            method,
            self._credentials.url + path,
            headers=headers,
            params=params,
            body=None if body is None else msgspec.json.encode(dict(body)),
            secrets=self._credentials.secrets,
            max_bytes=response_bytes(_LISTED),
        )
        document, trouble = document_of(response, _LISTED)
        if 200 <= response.status < 300 and trouble:
            raise InvalidResponse(
                f"{self.name}: what responds is not Elven: {response.describe_body()}",
                why=trouble,
                do="Check the connection's host, and look for a proxy in between",
            )
        if 200 <= response.status < 300 and _said(document) is not Said.REJECTED:
            return _cleaned(response, document)
        refusal = CredentialsRefused if response.status in (401, 403) else RequestRefused
        raise refusal(
            f"{self.name}: {describe(response, document, self)}",
            do="Check the connection's host, key and secret, and what the key may do",
        )

    def _check(self) -> tuple[bool, str]:
        document = self.call("GET", ACCOUNTS_PATH, params={"page": "1", "limit": "1"})
        found = data_of(document)
        if not isinstance(found.get("list"), list):
            return False, "what responds is not Elven's list of entity accounts; check host, API key and secret"
        total = found["total"] if isinstance(found.get("total"), int) else len(found["list"])
        return True, (
            f"Elven took key and signature; {total} entity account(s) are visible. Not checked: that the accounts "
            f"file's entity_account_id and source_id exist, and that balances may be imported"
        )


def data_of(document: Any) -> dict[str, Any]:
    """What a document holds: it comes with or without the usual envelope."""
    data = document.get("data", document) if isinstance(document, dict) else None
    return data if isinstance(data, dict) else {}


def sign(secret: str, timestamp: str, method: str, path: str) -> str:
    """Elven's signature: base64 of HMAC-SHA256 over timestamp (ms), method and path, with nothing in between.

    Args:
        secret: The API secret, used as UTF-8 bytes.
        timestamp: As in the header ``elven-api-timestamp``.
        method: In capitals.
        path: From ``/open/`` on, with the query of a GET. The body is not signed.
    """
    digest = hmac.new(secret.encode(), f"{timestamp}{method}{path}".encode(), hashlib.sha256).digest()
    return base64.b64encode(digest).decode()


def _said(document: Any) -> Said:
    """What a document says of its request. Anything that is not clearly a success or a failure says nothing."""
    if not isinstance(document, dict):
        return Said.NOTHING
    status, success, data = document.get("status"), document.get("success"), document.get("data")
    inner = data if isinstance(data, dict) else {"success": data}
    flags = [flag for flag in (success, inner.get("success")) if flag is not None]
    if status not in (None, "success", "failed") or not all(isinstance(flag, bool) for flag in flags):
        return Said.NOTHING
    found = {*flags, False} if status == "failed" else set(flags)
    details = inner.keys() - {"success"} or document.get("code") is not None or document.get("error") is not None
    if found == {True} and not details:
        return Said.ACCEPTED
    # {"status": "success", "data": false} is documented as a failure; the same flag beside the status contradicts it.
    if found == {False} and not (status == "success" and success is False):
        return Said.REJECTED
    return Said.NOTHING


def _cleaned(response: Response, value: Any) -> Any:
    if isinstance(value, str):
        return response.clean(value)
    if isinstance(value, list):
        return [_cleaned(response, each) for each in value]
    return {name: _cleaned(response, each) for name, each in value.items()} if isinstance(value, dict) else value
