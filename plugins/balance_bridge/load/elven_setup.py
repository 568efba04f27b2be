"""What Elven must have before it takes balances: the entity account, and a source for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from balance_bridge.errors import InvalidResponse, RequestRefused
from balance_bridge.load.elven import ACCOUNTS_PATH, Elven, data_of

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
        BalanceBridgeError: As the requests end; InvalidResponse if Elven returns no list.
    """
    return {_text(row, "entityAccountId"): _text(row, "name") for row in _all(elven, ACCOUNTS_PATH)}


def sources(elven: Elven) -> list[BalanceSource]:
    """Every source that the key can see.

    Raises:
        BalanceBridgeError: As the requests end; InvalidResponse if Elven returns no list.
    """
    return [_source(row) for row in _all(elven, SOURCES_PATH)]


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
    made = _source(data_of(elven.call("POST", SOURCES_PATH, body=wanted)))
    if not made.source_id or made.kind not in ("", BALANCE_SOURCE):
        raise RequestRefused(f"{elven.name}: Elven made {made}, which takes no balances; look at its sources")
    return made


def problems(elven: Elven) -> list[str]:
    """What is wrong with the destination's account and source, each with what to do; empty if nothing is.

    Raises:
        BalanceBridgeError: As the requests end.
    """
    account, source_id = elven.config.entity_account_id, elven.config.source_id
    accounts = entity_accounts(elven)
    if account not in accounts:
        known = ", ".join(f"{key} ({name})" for key, name in list(accounts.items())[:10]) or "none"
        return [
            f"entity_account_id {account} is not among those that this key can see ({known}): correct it in the "
            f"accounts file, or let the key see it"
        ]
    found = {source.source_id: source for source in sources(elven)}
    source = found.get(source_id)
    make = f"balance-bridge elven create-source --account {account} --name NAME creates one"
    if source is None:
        fitting = [
            f"{each.source_id} ({each.name})"
            for each in found.values()
            if each.entity_account_id == account and each.kind == BALANCE_SOURCE
        ]
        return [f"source_id {source_id} does not exist; this account has {', '.join(fitting) or 'none'}; {make}"]
    wrong = []
    if source.entity_account_id != account:
        wrong.append(f"source_id {source_id} belongs to the account {source.entity_account_id}; {make}")
    if source.kind != BALANCE_SOURCE:
        wrong.append(f"source_id {source_id} is of type {source.kind}, {BALANCE_SOURCE} is needed; {make}")
    return wrong


def _all(elven: Elven, path: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for page in range(1, _MAX_PAGES + 1):
        data = data_of(elven.call("GET", path, params={"page": str(page), "limit": str(_PAGE)}))
        listed, total = data.get("list"), data.get("total")
        if not isinstance(listed, list) or not all(isinstance(row, dict) for row in listed):
            raise InvalidResponse(f"{elven.name}: Elven's response at {path} has no list of rows")
        rows += listed
        if not listed or (isinstance(total, int) and len(rows) >= total):
            return rows
    raise InvalidResponse(f"{elven.name}: Elven's list at {path} does not end: {len(rows)} rows and still going")


def _source(row: Mapping[str, Any]) -> BalanceSource:
    return BalanceSource(*(_text(row, name) for name in ("sourceId", "name", "type", "entityAccountId")))


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    return value if isinstance(value, str) else ""
