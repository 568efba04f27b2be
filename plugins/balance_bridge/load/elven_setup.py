"""What must be there at Elven before balances can go in: the entity account, and a source of its own for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from balance_bridge.errors import BadAnswer, RequestRefused
from balance_bridge.load.elven import ACCOUNTS_PATH, Elven

SOURCES_PATH = "/open/v3/transaction/source"
BALANCE_SOURCE = "OPENAPI_BALANCE"
_PAGE = 100
_MAX_PAGES = 1000


@dataclass(frozen=True)
class BalanceSource:
    """A source at Elven.

    Attributes:
        source_id: Its id.
        name: Its name, unique within the Entity.
        kind: ``OPENAPI_BALANCE`` for one that takes balances.
        entity_account_id: The account that it belongs to.
    """

    source_id: str
    name: str
    kind: str
    entity_account_id: str


def entity_accounts(elven: Elven) -> dict[str, str]:
    """The names of the entity accounts that the key can see, by id.

    Raises:
        BalanceBridgeError: As the request ends.
        BadAnswer: If the answer is not what Elven documents.
    """
    return {_text(row, "entityAccountId"): _text(row, "name") for row in _all(elven, ACCOUNTS_PATH, {})}


def sources(elven: Elven) -> list[BalanceSource]:
    """Every source that the key can see.

    Raises:
        BalanceBridgeError: As the request ends.
        BadAnswer: If the answer is not what Elven documents.
    """
    return [_source(row) for row in _all(elven, SOURCES_PATH, {})]


def create_source(elven: Elven, *, entity_account_id: str, name: str) -> BalanceSource:
    """Make a source that takes balances.

    Args:
        elven: With the connection's key.
        entity_account_id: The account that it belongs to.
        name: Unique within the Entity.

    Raises:
        RequestRefused: If Elven refuses it, or makes something else.
        BalanceBridgeError: As the request ends.
    """
    wanted = {"name": name, "entityAccountId": entity_account_id, "type": BALANCE_SOURCE}
    document = elven.ask("POST", SOURCES_PATH, body=wanted)
    data = document.get("data", document) if isinstance(document, dict) else document
    made = _source(data if isinstance(data, dict) else {})
    if not made.source_id or made.kind not in ("", BALANCE_SOURCE):
        raise RequestRefused(f"{elven.name}: Elven made {made}, which takes no balances; look at its sources")
    return made


def problems(elven: Elven, *, entity_account_id: str, source_id: str) -> list[str]:
    """What is wrong with an account and its source, each with what to do; empty if nothing is.

    Raises:
        BalanceBridgeError: As the requests end.
    """
    accounts = entity_accounts(elven)
    if entity_account_id not in accounts:
        known = ", ".join(f"{key} ({name})" for key, name in list(accounts.items())[:10]) or "none"
        return [
            f"entity_account_id {entity_account_id} is none that this key can see; it sees {known}: correct it in the "
            "accounts file, or let the key see it"
        ]
    found = {source.source_id: source for source in sources(elven)}
    source = found.get(source_id)
    make = f"balance-bridge elven create-source --account {entity_account_id} --name NAME makes one"
    if source is None:
        fitting = [
            f"{each.source_id} ({each.name})"
            for each in found.values()
            if each.entity_account_id == entity_account_id and each.kind == BALANCE_SOURCE
        ]
        return [f"source_id {source_id} does not exist; this account has {', '.join(fitting) or 'none'}; {make}"]
    told = []
    if source.entity_account_id != entity_account_id:
        told.append(f"source_id {source_id} belongs to the account {source.entity_account_id}; {make}")
    if source.kind != BALANCE_SOURCE:
        told.append(f"source_id {source_id} is of type {source.kind}, {BALANCE_SOURCE} is needed; {make}")
    return told


def _all(elven: Elven, path: str, params: Mapping[str, str]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for page in range(1, _MAX_PAGES + 1):
        document = elven.ask("GET", path, params={"page": str(page), "limit": str(_PAGE), **params})
        if isinstance(document, dict) and isinstance(document.get("data"), dict):
            document = document["data"]
        listed = document.get("list") if isinstance(document, dict) else None
        if not isinstance(listed, list) or not all(isinstance(row, dict) for row in listed):
            raise BadAnswer(f"{elven.name}: Elven's answer at {path} has no list of rows")
        rows += listed
        total = document.get("total")
        if not listed or (isinstance(total, int) and len(rows) >= total):
            return rows
    raise BadAnswer(f"{elven.name}: Elven's list at {path} does not end: {len(rows)} rows and still going")


def _source(row: Mapping[str, Any]) -> BalanceSource:
    return BalanceSource(_text(row, "sourceId"), _text(row, "name"), _text(row, "type"), _text(row, "entityAccountId"))


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    return value if isinstance(value, str) else ""
