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

from balance_bridge.clock import SYSTEM_CLOCK, Clock
from balance_bridge.errors import BadAnswer, ConfigurationError, CredentialsRefused, RequestRefused
from balance_bridge.load.batches import Limits
from balance_bridge.load.destination import IGNORE, Balance, Candidate, Destination, Prepared
from balance_bridge.load.outcomes import ACCEPTED, Outcome, Status
from balance_bridge.load.policy import Places, Policy
from balance_bridge.load.replies import Verdict, describe, document_of, text_of
from balance_bridge.transport import Answer, Transport

IMPORT_PATH = "/open/v4/account/treasuryBalance"
ACCOUNTS_PATH = "/open/v3/entityAccount"
# The vendor's limit of one request.
MAX_ROWS = 1000


class Elven(Destination):
    """One account's source of balances at Elven.

    Args:
        name: The destination's name in the accounts file.
        transport: Sends the requests.
        base_url: ``https://openapi.elven.com``, or another.
        api_key: Sent as it is.
        api_secret: Signs; never sent.
        entity_account_id: The account at Elven.
        source_id: The source of balances within it.
        timezone: The Entity's IANA time zone.
        assets: Per asset ``"ignore"``, ``{"symbol": X}`` or ``{"asset_id": X}``; others go out under their own code
            as the symbol.
        max_rows: Rows of one request, at most 1000.
        max_bytes: Bytes of one request's body.
        policy: How what goes wrong is dealt with.
        places: Places in the window of requests; None for as many as one likes.
        timeout_s: Seconds without a byte after which the answer to an empty request counts as lost.
        clock: Where a signature's timestamp comes from.

    Raises:
        ConfigurationError: If one of these cannot be used.
    """

    kind = "elven"
    envelope = (b"[", b"]")
    amount_field = "balance"
    # The code of the vendor's own example of a refused import.
    default_policy = Policy(bisect_codes=frozenset({"19734"}))

    def __init__(
        self,
        name: str = "elven",
        *,
        transport: Transport,
        base_url: str,
        api_key: str,
        api_secret: str,
        entity_account_id: str,
        source_id: str,
        timezone: str,
        assets: Mapping[str, str | Mapping[str, str]] | None = None,
        max_rows: int = MAX_ROWS,
        max_bytes: int = 100_000,
        policy: Policy | None = None,
        places: Places | None = None,
        timeout_s: float | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        if not entity_account_id or not source_id:
            raise ConfigurationError(f"{name}: entity_account_id and source_id are required")
        if max_rows > MAX_ROWS:
            raise ConfigurationError(f"{name}: max_rows is {max_rows}; Elven takes at most {MAX_ROWS}")
        mapping = dict(assets or {})
        super().__init__(
            name,
            transport=transport,
            base_url=base_url,
            limits=Limits(max_rows, max_bytes),
            ignored=[asset for asset, target in mapping.items() if target == IGNORE],
            secrets={"API key (login)": api_key, "API secret (password)": api_secret},
            policy=policy,
            places=places,
            timeout_s=timeout_s,
        )
        self._key = api_key
        self._secret = api_secret
        self._fixed = {"entityAccountId": entity_account_id, "sourceId": source_id}
        self._timezone = timezone
        self._clock = clock
        self._identities = {
            asset: _identity(name, asset, target) for asset, target in mapping.items() if target != IGNORE
        }

    def _translate(self, sendable: Sequence[tuple[Balance, str]], prepared: Prepared) -> None:
        # Imported here: it needs numpy, and the connection test does not.
        from balance_bridge.localtime import local_texts

        texts = local_texts([balance.at_ms for balance, _ in sendable], self._timezone)
        heads: dict[str, tuple[dict[str, str], str]] = {}
        for (balance, digits), text in zip(sendable, texts, strict=True):
            head = heads.get(balance.asset)
            if head is None:
                field, value = self._identities.get(balance.asset, ("symbol", balance.asset))
                fields = {**self._fixed, field: value}
                head = heads[balance.asset] = (fields, msgspec.json.encode(fields).decode())
            fields, identity = head
            local = str(text)
            # The local text has a fixed length, so no two keys run into each other.
            wire = {**fields, "datetime": local, "balance": digits}
            prepared.candidates.append(Candidate(balance, f"{identity} {local}", digits, wire))

    def _post(self, body: bytes, rows: int) -> Answer:
        return self._transport.send(
            "POST",
            self._base_url + IMPORT_PATH,
            headers={**self._signed("POST", IMPORT_PATH), "content-type": "application/json"},
            body=body,
            timeout_s=self.timeout_s(rows),
            deadline_s=self.deadline_s(rows),
        )

    def _signed(self, method: str, path: str) -> dict[str, str]:
        # Good for 5 or 30 seconds, depending on the vendor's page: made right before each request.
        timestamp = str(self._clock.now_ms())
        return {
            "elven-api-key": self._key,
            "elven-api-timestamp": timestamp,
            "elven-api-sign": sign(self._secret, timestamp, method, path),
        }

    def _verdict(self, document: Any, numbers: Sequence[str]) -> Verdict:
        succeeded = _succeeded(document)
        if succeeded is None:
            raise BadAnswer(f"Elven's answer says neither success nor failure: {document}")
        if succeeded:
            return Verdict(dict.fromkeys(numbers, ACCEPTED))
        code, text = self._reason(document)
        outcome = Outcome(Status.REJECTED, code or "failed", text or "Elven gave no reason")
        return Verdict(dict.fromkeys(numbers, outcome), whole=True)

    def _reason(self, document: Any) -> tuple[str, str]:
        if not isinstance(document, dict):
            return "", ""
        data = document.get("data")
        source = data if isinstance(data, dict) else document
        return text_of(source.get("code")), text_of(source.get("message")) or text_of(source.get("error"))

    def ask(
        self, method: str, path: str, *, params: Mapping[str, str] | None = None, body: Mapping[str, str] | None = None
    ) -> Any:
        """Ask Elven something else than to take balances.

        Args:
            method: ``GET`` or ``POST``.
            path: From ``/open/`` on.
            params: The query.
            body: What is posted, as JSON.

        Returns:
            The answer's document.

        Raises:
            CredentialsRefused: 401 or 403.
            RequestRefused: Any other refusal.
            BalanceBridgeError: As the request ends.
        """
        answer = self._ask(method, path, params, body)
        document = document_of(answer)
        said = f"{self.name}: {describe(answer, document, self._reader)}"
        if answer.status in (401, 403):
            raise CredentialsRefused(f"{said}; check the connection's key and secret, and what they may do")
        if not 200 <= answer.status < 300 or _succeeded(document) is False:
            raise RequestRefused(said)
        return document

    def _ask(self, method: str, path: str, params: Mapping[str, str] | None, body: Mapping[str, str] | None) -> Answer:
        # The vendor's page does not say what a GET signs; path and query, as they are sent, is the reading we take.
        query = "&".join(f"{name}={value}" for name, value in (params or {}).items())
        headers = self._signed(method, f"{path}?{query}" if query else path)
        if body is not None:
            headers["content-type"] = "application/json"
        return self._transport.send(
            method,
            self._base_url + path,
            headers=headers,
            params=params,
            body=None if body is None else msgspec.json.encode(dict(body)),
        )

    def _check(self) -> tuple[bool, str]:
        answer = self._ask("GET", ACCOUNTS_PATH, {"page": "1", "limit": "1"}, None)
        document = document_of(answer)
        total = _total(document)
        if not 200 <= answer.status < 300 or total is None:
            said = describe(answer, document, self._reader)
            return False, f"Elven's list of entity accounts was expected, but {said}; check host, API key and secret"
        return True, (
            f"Elven took key and signature; {total} entity account(s) are visible. Not checked: that the accounts "
            f"file's entity_account_id and source_id exist, and that balances may be imported"
        )


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


def _identity(name: str, asset: str, target: str | Mapping[str, str]) -> tuple[str, str]:
    if isinstance(target, Mapping):
        # With both, Elven only looks at the id: only the id is sent.
        for option, field in (("asset_id", "assetID"), ("symbol", "symbol")):
            if target.get(option):
                return field, target[option]
    raise ConfigurationError(
        f"{name}: assets.{asset}: {target!r}: allowed are ignore, {{symbol: X}} and {{asset_id: X}}"
    )


def _succeeded(document: Any) -> bool | None:
    if not isinstance(document, dict):
        return None
    data = document.get("data")
    flags = [document.get("success"), data.get("success") if isinstance(data, dict) else data]
    status = document.get("status")
    if status == "failed" or any(flag is False for flag in flags):
        return False
    return True if status in ("success", None) and any(flag is True for flag in flags) else None


def _total(document: Any) -> int | None:
    if isinstance(document, dict) and isinstance(document.get("data"), dict):
        document = document["data"]
    if not isinstance(document, dict) or not isinstance(document.get("list"), list):
        return None
    total = document.get("total")
    return total if isinstance(total, int) else len(document["list"])
