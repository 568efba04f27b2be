"""Elven on this machine: treasury balances, entity accounts and sources. A batch is taken whole or not at all."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from balance_bridge.clock import Clock
from balance_bridge.sandbox.wire import (
    Api,
    Call,
    Form,
    Journal,
    Model,
    Refused,
    Reply,
    Row,
    Time,
    fit,
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

_DATETIME = r"^[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}$"


@dataclass(frozen=True)
class Source:
    """Where balances of an entity account are kept."""

    source_id: str
    entity_account_id: str
    name: str
    type: str

    def document(self) -> dict[str, str]:
        """As the API lists it."""
        return {
            "sourceId": self.source_id,
            "type": self.type,
            "name": self.name,
            "entityAccountId": self.entity_account_id,
        }


class NewSource(Model):
    """A source that is to be made."""

    name: str = Field(min_length=1)
    entity_account_id: str
    type: str = ""


class Import(Row):
    """One balance. An empty text, as in the vendor's sample, counts as not sent."""

    entity_account_id: str
    source_id: str = ""
    asset_id: str = Field("", alias="assetID")
    symbol: str = ""
    datetime: Annotated[Time, Field(pattern=_DATETIME)]

    @property
    def identity(self) -> str:
        """``assetID:X`` or ``symbol:X``, whichever counts."""
        return f"assetID:{self.asset_id}" if self.asset_id else f"symbol:{self.symbol}"

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What must be delivered once."""
        return self.entity_account_id, self.source_id, self.identity, self.datetime

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return super().document() | {"identity": self.identity}


_NEW_SOURCE = TypeAdapter(NewSource)
_BATCH = TypeAdapter(Annotated[list[Import], Field(min_length=1, max_length=MOST_ROWS)])


class Elven(Api[Import]):
    """Elven's API.

    Args:
        users: Secret by API key.
        accounts: Name by entity account id.
        sources: The sources that exist at the start.
        symbols: Asset symbols and ids that the entity knows.
        clock: What the server's time is.
        journal: Where requests are written down.
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
    ) -> None:
        super().__init__(clock, journal)
        self.users = users
        self.accounts = accounts
        self.symbols = frozenset(symbols)
        self.sources = {source.source_id: source for source in sources}
        self._numbers = count(1)

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
        return Reply(200, {"total": len(rows), "list": rows[start : start + int(limit)]})

    def _success(self, data: Any) -> Reply:
        request_id = f"sandbox-request-{next(self._numbers):06d}"
        return Reply(200, {"status": "success", "data": data, "requestId": request_id})

    def _make_source(self, body: bytes) -> Reply:
        wanted = _read(_NEW_SOURCE, body)
        if wanted.entity_account_id not in self.accounts:
            raise _refused("entityAccountId must be known")
        if any(source.name == wanted.name for source in self.sources.values()):
            raise _refused(f"a source named {wanted.name!r} exists")
        made = self._add_source(wanted.entity_account_id, wanted.name, wanted.type or "TRANSACTION")
        return self._success(made.document())

    def _add_source(self, account: str, name: str, kind: str) -> Source:
        source = Source(f"sandbox-made-source-{len(self.sources):04d}", account, name, kind)
        self.sources[source.source_id] = source
        return source

    def _import(self, body: bytes) -> Reply:
        if len(body) > MOST_BYTES:
            raise _refused(f"the body has {len(body)} bytes; at most {MOST_BYTES} are taken", status=413)
        rows = _read(_BATCH, body)
        # All are checked before the first is kept: the batch counts as a whole.
        for index, row in enumerate(rows):
            self._check(f"record {index}", row)
        made: dict[str, str] = {}
        for row in rows:
            account = row.entity_account_id
            if not row.source_id and account not in made:
                made[account] = self._add_source(account, f"{account} {len(self.sources)}", BALANCE_SOURCE).source_id
                self.oddities["source made by an import"] += 1
            row.source_id = row.source_id or made[account]
            self._keep(row)
        return self._success(True)

    def _check(self, where: str, row: Import) -> None:
        if row.entity_account_id not in self.accounts:
            raise _refused(f"{where}: entityAccountId {row.entity_account_id!r} is unknown")
        source = self.sources.get(row.source_id)
        if row.source_id and (
            source is None or (source.entity_account_id, source.type) != (row.entity_account_id, BALANCE_SOURCE)
        ):
            raise _refused(f"{where}: sourceId {row.source_id!r} is no balance source of the account")
        if (row.asset_id or row.symbol) not in self.symbols or ("-" in row.symbol and not row.asset_id):
            raise _refused(f"{where}: {row.identity} is unknown")


def _refused(message: str, *, status: int = 400, code: int = REFUSED_CODE) -> Refused:
    return Refused(Reply(status, {"status": "failed", "data": {"code": code, "message": message}}), message)


def _read(form: TypeAdapter[Form], body: bytes) -> Form:
    try:
        return fit(form, read_json(body))
    except ValueError as error:
        raise _refused(f"the body is not as documented: {error}") from error
