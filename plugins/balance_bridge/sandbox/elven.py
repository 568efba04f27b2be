"""Elven on this machine: treasury balances, entity accounts and sources. A batch is taken whole or not at all."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from decimal import Decimal
from itertools import count
from typing import Any

from balance_bridge.clock import Clock
from balance_bridge.sandbox.wire import (
    Api,
    Call,
    Journal,
    Number,
    Refused,
    Reply,
    is_time,
    read_json,
    same_signature,
    signature,
)

IMPORT = "/open/v4/account/treasuryBalance"
ENTITY_ACCOUNT = "/open/v3/entityAccount"
SOURCE = "/open/v3/transaction/source"
TIMESTAMP_TOLERANCE_MS = 30_000
MOST_ROWS = 1000
MOST_BYTES = 102_400
REFUSED_CODE = 19734
BALANCE_SOURCE = "OPENAPI_BALANCE"

_FIELDS = {"entityAccountId", "sourceId", "assetID", "symbol", "datetime", "balance"}
_DATETIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}")


@dataclass(frozen=True)
class Source:
    """Where balances of an entity account are kept. A stray one was made by an import that named none."""

    source_id: str
    entity_account_id: str
    name: str
    type: str
    stray: bool = False

    def document(self) -> dict[str, str]:
        """As the API lists it."""
        return {
            "sourceId": self.source_id,
            "type": self.type,
            "name": self.name,
            "entityAccountId": self.entity_account_id,
        }


@dataclass(frozen=True)
class Import:
    """One balance that was accepted, as it was sent; ``state``: see :meth:`Api._take`.

    ``identity`` is ``assetID:X`` or ``symbol:X``, whichever counted.
    """

    entity_account_id: str
    source_id: str
    identity: str
    datetime: str
    balance: Decimal
    text: str
    state: str

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What must be delivered once."""
        return self.entity_account_id, self.source_id, self.identity, self.datetime


class Elven(Api):
    """Elven's API.

    Args:
        users: Secret by API key.
        accounts: Name by entity account id.
        sources: The sources that exist at the start.
        symbols: Asset symbols and ids that the entity knows.
        clock: What the server's time is.
        journal: Where requests are written down.
        list_envelope: Lists come as ``{"status": "success", "data": {...}}`` instead of bare.
    """

    name = "elven"
    key_header = "elven-api-key"

    def __init__(
        self,
        *,
        users: Mapping[str, str],
        accounts: Mapping[str, str],
        sources: Collection[Source],
        symbols: Collection[str],
        clock: Clock,
        journal: Journal,
        list_envelope: bool = False,
    ) -> None:
        super().__init__(clock, journal)
        self.users = users
        self.accounts = accounts
        self.symbols = frozenset(symbols)
        self.sources = {source.source_id: source for source in sources}
        self.imports: list[Import] = []
        self.list_envelope = list_envelope
        self._first_sources = dict(self.sources)
        self._numbers = count(1)

    def reset(self) -> None:
        """Forget every import and every source that was made since the start."""
        super().reset()
        self.imports.clear()
        self.sources = dict(self._first_sources)

    def stray_sources(self) -> list[Source]:
        """Sources that imports without a ``sourceId`` have made."""
        return [source for source in self.sources.values() if source.stray]

    def _serve(self, call: Call, at_s: float) -> Reply:
        self._authenticate(call, int(at_s * 1000))
        asked = call.method, call.path
        if asked == ("POST", IMPORT):
            return self._import(call.body)
        if asked == ("POST", SOURCE):
            return self._make_source(call.body)
        if asked == ("GET", ENTITY_ACCOUNT):
            accounts = [
                {"entityAccountId": key, "name": name, "platformId": "ascendex", "identity": "", "memo": ""}
                for key, name in self.accounts.items()
            ]
            return self._page(call, accounts)
        if asked == ("GET", SOURCE):
            wanted = call.params().get("type")
            sources = [source.document() for source in self.sources.values() if wanted in (None, source.type)]
            return self._page(call, sources)
        raise _refused(f"no such path: {call.method} {call.path}", status=404, code=404)

    def _authenticate(self, call: Call, now_ms: int) -> None:
        key, stamp, given = (call.headers.get(f"elven-api-{name}", "") for name in ("key", "timestamp", "sign"))
        if key not in self.users or not given:
            raise _refused("the API key is unknown or the signature is missing", status=401, code=401)
        if not re.fullmatch(r"[0-9]{13}", stamp) or abs(now_ms - int(stamp)) > TIMESTAMP_TOLERANCE_MS:
            raise _refused("elven-api-timestamp is not within 30 seconds of the server's clock", status=401, code=401)
        target = f"{call.path}?{call.query}" if call.query else call.path
        if not same_signature(signature(self.users[key], f"{stamp}{call.method}{target}"), given):
            raise _refused("the signature does not match", status=401, code=401)

    def _page(self, call: Call, rows: list[dict[str, str]]) -> Reply:
        params = call.params()
        page, limit = params.get("page", "1"), params.get("limit", "20")
        if not (re.fullmatch(r"[1-9][0-9]{0,6}", page) and re.fullmatch(r"[1-9][0-9]{0,2}", limit)):
            raise _refused(f"page {page!r} and limit {limit!r} are numbers from 1")
        start = (int(page) - 1) * int(limit)
        document = {"total": len(rows), "list": rows[start : start + int(limit)]}
        return self._success(document) if self.list_envelope else Reply(200, document)

    def _success(self, data: Any) -> Reply:
        return Reply(
            200, {"status": "success", "data": data, "requestId": f"sandbox-request-{next(self._numbers):06d}"}
        )

    def _make_source(self, body: bytes) -> Reply:
        wanted = _json(body)
        if not isinstance(wanted, dict) or set(wanted) - {"name", "entityAccountId", "type"}:
            raise _refused("the body is an object of name, entityAccountId and type")
        name, account = _text(wanted, "name"), _text(wanted, "entityAccountId")
        kind = _text(wanted, "type") or "TRANSACTION"
        if not name or account not in self.accounts:
            raise _refused("name is required, and entityAccountId must be known")
        if any(source.name == name for source in self.sources.values()):
            raise _refused(f"a source named {name!r} exists")
        return self._success(self._add_source(account, name, kind, stray=False).document())

    def _add_source(self, account: str, name: str, kind: str, *, stray: bool) -> Source:
        source = Source(f"sandbox-made-source-{len(self.sources):04d}", account, name, kind, stray)
        self.sources[source.source_id] = source
        return source

    def _import(self, body: bytes) -> Reply:
        if len(body) > MOST_BYTES:
            raise _refused(f"the body has {len(body)} bytes; at most {MOST_BYTES} are taken", status=413)
        rows = _json(body)
        if not isinstance(rows, list) or not 1 <= len(rows) <= MOST_ROWS:
            raise _refused(f"the body is an array of 1 to {MOST_ROWS} records")
        # All are checked before the first is kept: the batch counts as a whole.
        checked = [self._check(index, row) for index, row in enumerate(rows)]
        made: dict[str, str] = {}
        for account, source_id, identity, text, number in checked:
            if not source_id and account not in made:
                name = f"{account} {len(self.sources)}"
                made[account] = self._add_source(account, name, BALANCE_SOURCE, stray=True).source_id
            key = (account, source_id or made[account], identity, text)
            self.imports.append(Import(*key, number.amount, number.text, self._take(key, number)))
        return self._success(True)

    def _check(self, index: int, row: Any) -> tuple[str, str, str, str, Number]:
        where = f"record {index}"
        if not isinstance(row, dict) or set(row) - _FIELDS:
            raise _refused(f"{where} is no object of the known fields")
        account, source_id = _text(row, "entityAccountId"), _text(row, "sourceId")
        if account not in self.accounts:
            raise _refused(f"{where}: entityAccountId {account!r} is missing or unknown")
        source = self.sources.get(source_id)
        if source_id and (source is None or (source.entity_account_id, source.type) != (account, BALANCE_SOURCE)):
            raise _refused(f"{where}: sourceId {source_id!r} is no balance source of the account")
        text = _text(row, "datetime")
        if not is_time(_DATETIME, text):
            raise _refused(f"{where}: datetime {text!r} is not YYYY-MM-DD HH:mm:ss")
        number = row.get("balance")
        if not isinstance(number, Number):
            raise _refused(f"{where}: balance is missing or no number")
        return account, source_id, self._identity(where, row), text, number

    def _identity(self, where: str, row: Mapping[str, Any]) -> str:
        asset_id, symbol = _text(row, "assetID"), _text(row, "symbol")
        if not asset_id and not symbol:
            raise _refused(f"{where}: assetID or symbol is required")
        if asset_id:
            if asset_id not in self.symbols:
                raise _refused(f"{where}: assetID {asset_id!r} is unknown")
            return f"assetID:{asset_id}"
        if "-" in symbol or symbol not in self.symbols:
            raise _refused(f"{where}: symbol {symbol!r} is unknown")
        return f"symbol:{symbol}"


def _refused(message: str, *, status: int = 400, code: int = REFUSED_CODE) -> Refused:
    return Refused(Reply(status, {"status": "failed", "data": {"code": code, "message": message}}), message)


def _json(body: bytes) -> Any:
    try:
        return read_json(body)
    except ValueError as error:
        raise _refused(f"the body is no JSON: {error}") from error


def _text(row: Mapping[str, Any], name: str) -> str:
    """A field's text; an empty one, as in the vendor's sample, counts as not sent."""
    value = row.get(name, "")
    if not isinstance(value, str):
        raise _refused(f"{name} is no text")
    return value
