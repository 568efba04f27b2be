"""Amlyze: anti-money-laundering monitoring. Imports balances by ``POST /amlyze-ws-rest/batch-account-balances``.

A balance has no currency there: each asset is an account of its own. Each record has a communication number that is
unique for ever and is used up by failed requests as well; each is accepted or rejected for itself, and the results
come in any order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from balance_bridge.errors import BadAnswer, ConfigurationError
from balance_bridge.load.batches import Limits
from balance_bridge.load.destination import (
    IGNORE,
    Balance,
    Candidate,
    Destination,
    LocalRejection,
    Prepared,
    length_problem,
)
from balance_bridge.load.numbers import rfc3339
from balance_bridge.load.outcomes import ACCEPTED, Outcome, Status
from balance_bridge.load.policy import Places, Policy
from balance_bridge.load.replies import NO_RESULT, Verdict, by_number, describe, document_of, text_of
from balance_bridge.money import to_text
from balance_bridge.transport import Answer, Transport

IMPORT_PATH = "/amlyze-ws-rest/batch-account-balances"
MAX_REQUESTER_CHARS = 100
MAX_ID_CHARS = 255
PLACEHOLDER = "{asset}"

# "communicationNumber already used": the number was seen, which is not to say that its balance was taken.
_ALREADY_USED = "O005"


class Amlyze(Destination):
    """One account's balances at an Amlyze tenant.

    Args:
        name: The destination's name in the accounts file.
        transport: Sends the requests.
        base_url: The tenant's.
        token: The bearer token.
        requester: The system's name, up to 100 characters.
        account_ext_id: A pattern with ``{asset}``, or a mapping from asset to account id.
        balance_type: The tenant's classifier; not sent if None.
        business_unit: Only for tenants that are told to send it; not sent if None.
        assets: Per asset ``"ignore"``.
        max_rows: Records of one request.
        max_bytes: Bytes of one request's body. No limit is documented; this one keeps a request of sensible size.
        policy: How what goes wrong is dealt with.
        places: Places in the window of requests; None for as many as one likes.
        timeout_s: Seconds without a byte after which the answer to an empty request counts as lost.

    Raises:
        ConfigurationError: If one of these cannot be used.
    """

    kind = "amlyze"
    envelope = (b'{"accountBalances":[', b"]}")
    amount_field = "value"
    number_fields = ("equivalentValue",)
    # A mandatory field is missing, a currency or account does not exist.
    default_policy = Policy(bisect_codes=frozenset({"O001", "001"}))
    # The vendor's sample takes some 200 ms per record.
    timeout_per_row_s = 1.0

    def __init__(
        self,
        name: str = "amlyze",
        *,
        transport: Transport,
        base_url: str,
        token: str,
        requester: str,
        account_ext_id: str | Mapping[str, str],
        balance_type: str | None = None,
        business_unit: str | None = None,
        assets: Mapping[str, str] | None = None,
        max_rows: int = 100,
        max_bytes: int = 1_000_000,
        policy: Policy | None = None,
        places: Places | None = None,
        timeout_s: float | None = None,
    ) -> None:
        super().__init__(
            name,
            transport=transport,
            base_url=base_url,
            limits=Limits(max_rows, max_bytes),
            ignored=[asset for asset, target in (assets or {}).items() if target == IGNORE],
            secrets={"bearer token (password)": token},
            policy=policy,
            places=places,
            timeout_s=timeout_s,
        )
        self._token = token
        self._account_ext_id = account_ext_id
        if isinstance(account_ext_id, str) and PLACEHOLDER not in account_ext_id:
            raise ConfigurationError(
                f"{name}: account_ext_id {account_ext_id!r} lacks {PLACEHOLDER}: Amlyze's balances have no currency, "
                f"so each asset needs an account of its own"
            )
        self._requester = requester
        self._optional = {
            field: value
            for field, value in (("balanceType", balance_type), ("businessUnit", business_unit))
            if value is not None
        }
        problems = [length_problem("requester", requester, MAX_REQUESTER_CHARS)]
        problems += [length_problem(field, value, MAX_ID_CHARS) for field, value in self._optional.items()]
        if any(problems):
            raise ConfigurationError(f"{name}: {'; '.join(filter(None, problems))}")

    def numbered(self, wire: Mapping[str, str], number: str, *, replaces: str, supersedes: str) -> dict[str, str]:  # noqa: ARG002
        """The record as it is sent under a communication number; the API has no field for what it follows."""
        return {**wire, "communicationNumber": number}

    def _translate(self, sendable: Sequence[tuple[Balance, str]], prepared: Prepared) -> None:
        ids: dict[str, tuple[str, str]] = {}
        for balance, digits in sendable:
            found = ids.get(balance.asset)
            if found is None:
                found = ids[balance.asset] = self._account(balance.asset)
            account, problem = found
            if problem:
                prepared.rejected.append(LocalRejection(balance, problem))
                continue
            at = rfc3339(balance.at_ms)
            wire = {"accountExtId": account, "balanceAt": at, "requester": self._requester, "value": digits}
            wire |= self._optional
            if balance.equivalent is not None:
                wire["equivalentValue"] = to_text(balance.equivalent)
            # The instant has a fixed length, so no two keys run into each other.
            prepared.candidates.append(Candidate(balance, f"{account} {at}", digits, wire))

    def _account(self, asset: str) -> tuple[str, str]:
        if isinstance(self._account_ext_id, str):
            account = self._account_ext_id.replace(PLACEHOLDER, asset)
        elif asset in self._account_ext_id:
            account = self._account_ext_id[asset]
        else:
            return "", "account_ext_id has no entry for this asset; add one, or set the asset to ignore"
        return account, length_problem("the account id", account, MAX_ID_CHARS)

    def _post(self, body: bytes, rows: int) -> Answer:
        return self._transport.send(
            "POST",
            self._base_url + IMPORT_PATH,
            headers={"authorization": f"Bearer {self._token}", "content-type": "application/json"},
            body=body,
            timeout_s=self.timeout_s(rows),
            deadline_s=self.deadline_s(rows),
        )

    def _verdict(self, document: Any, numbers: Sequence[str]) -> Verdict:
        results = document.get("results") if isinstance(document, dict) else None
        if not isinstance(results, list):
            raise BadAnswer(f"Amlyze's answer has no list of results: {document}")
        return by_number(results, numbers, "communicationNumber", self._outcome)

    def _outcome(self, result: Mapping[str, Any]) -> Outcome:
        kind = result.get("resultType")
        if kind == "REQUEST_ACCEPTED":
            return ACCEPTED
        code, text = text_of(result.get("errorCode")), text_of(result.get("errorDescription"))
        if kind != "REQUEST_REJECTED":
            return Outcome(Status.UNKNOWN, NO_RESULT, f"resultType {kind!r} is not documented")
        if code == _ALREADY_USED:
            return Outcome(Status.SEEN, code, text)
        return Outcome(Status.REJECTED, code or "REJECTED", text or "Amlyze gave no reason")

    def _reason(self, document: Any) -> tuple[str, str]:
        if not isinstance(document, dict):
            return "", ""
        error = document.get("error")
        if isinstance(error, dict):
            return text_of(error.get("code")), text_of(error.get("message")) or text_of(error.get("code"))
        errors = document.get("errors")
        listed = "; ".join(map(text_of, errors)) if isinstance(errors, list) else ""
        # Spring's own form has no code: {timestamp, status, error, path}.
        said = text_of(document.get("errorDescription")) or listed or text_of(error)
        return text_of(document.get("errorCode")), said

    def _check(self) -> tuple[bool, str]:
        # No read is documented. An empty batch registers nothing, and its answer shows who answers.
        answer = self._post(self.encode(()), 0)
        document = document_of(answer)
        ours = isinstance(document, dict) and bool({"results", "resultType", "errorCode"} & document.keys())
        unchecked = "Not checked: requester, account ids, balance type and business unit"
        if ours and 200 <= answer.status < 300:
            return True, f"Amlyze took the token and an empty batch; no balance was registered. {unchecked}"
        if ours and answer.status == 400:
            said = self._reader.clean(answer.clean(": ".join(self._reason(document))))
            return (
                True,
                f"Amlyze answers an empty batch in its own form ({said}): it seems to take the token. {unchecked}",
            )
        said = describe(answer, document, self._reader)
        if answer.status == 401 and isinstance(document, dict) and "error" in document:
            return False, f"the base URL leads to Amlyze's API, but the token is not accepted: {said}"
        return False, f"this is not how Amlyze's API answers an empty batch: {said}; check base URL and token"
