"""AscendEX on this machine: balance snapshots, history, and the account's info.

Where the vendor leaves something open, an option chooses; the defaults are what public client code suggests.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from balance_bridge.clock import Clock
from balance_bridge.sandbox.wire import Api, Call, Journal, Refused, Reply, Row, same_signature, signature
from balance_bridge.sandbox.world import Book, Leg, Record, World, utc_day

PREFIX = "/api/pro/"
CATEGORIES = ("cash", "margin")
TIMESTAMP_TOLERANCE_MS = 30_000
MOST_RECORDS = 500

_REASONS = {
    100001: "INVALID_HTTP_INPUT",
    100002: "DATA_NOT_AVAILABLE",
    100006: "INVALID_ARGUMENT",
    100009: "AUTHORIZATION_NEEDED",
    100011: "INVALID_TIMESTAMP",
    200001: "AUTHENTICATION_FAILED",
    200002: "TOO_MANY_ATTEMPTS",
}
_INTEGER = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True)
class ExchangeOptions:
    """What the vendor does not say, or says in two ways.

    Attributes:
        envelope: Response ``{"code": 0, "data": ...}`` instead of the bare document.
        table_spelling: ``balance`` and ``balanceTime`` instead of ``snapshot`` and ``snapshotTime``.
        limit_per_list: ``limit`` counts for each of the two lists instead of for both together.
        newest_first: Order inside a page.
        code_as_text: Error codes as strings.
        errors_with_status_200: Errors come with HTTP 200 (429 stays).
        default_limit: Records in a page if ``limit`` is not sent.
        snapshot_delay_s: Seconds after midnight before the day's snapshot is there.
        retention_days: How many days back are served.
        requests: How many are admitted in a window.
        window_s: Length of the rolling window in seconds.
    """

    envelope: bool = False
    table_spelling: bool = False
    limit_per_list: bool = False
    newest_first: bool = True
    code_as_text: bool = False
    errors_with_status_200: bool = False
    default_limit: int = 100
    snapshot_delay_s: float = 0.0
    retention_days: int = 7
    requests: int = 8
    window_s: float = 60.0


class Exchange(Api[Row]):
    """The exchange's API.

    Args:
        users: Secret by API key.
        world: What happened.
        clock: What the server's time is.
        journal: Where requests are written down.
        options: See :class:`ExchangeOptions`.

    Attributes:
        withheld: Sequence numbers of records that its history leaves out, as if it had lost them.
    """

    name = "exchange"
    key_header = "x-auth-key"

    def __init__(
        self,
        users: Mapping[str, str],
        world: World,
        clock: Clock,
        journal: Journal,
        options: ExchangeOptions | None = None,
    ) -> None:
        super().__init__(clock, journal)
        self.users = users
        self.world = world
        self.options = options or ExchangeOptions()
        self.withheld: set[int] = set()
        self._admitted: dict[str, deque[float]] = {}

    def _serve(self, call: Call, at_s: float) -> Reply:
        now_ms = int(at_s * 1000)
        parts = call.path.removeprefix(PREFIX).split("/")
        if call.method != "GET":
            raise self._refused(100001, f"{call.method} is not allowed here", 405)
        if parts == ["v1", "info"]:
            self._authenticate(call, "info", now_ms)
            return Reply(
                200, {"code": 0, "data": {"accountGroup": 6, "email": "sandbox@example.com", "expireTime": -1}}
            )
        match parts:
            case ["data", "v1", category, "balance", ("snapshot" | "history") as endpoint] if category in CATEGORIES:
                key = self._authenticate(call, f"data/v1/{category}/balance/{endpoint}", now_ms)
                self._admit(key, at_s)
                book = self.world.book(key, category, utc_day(now_ms))
                serve = self._snapshot if endpoint == "snapshot" else self._history
                document = serve(book, call.params(), now_ms)
                document["meta"]["ac"] = category
                return Reply(200, {"code": 0, "data": document} if self.options.envelope else document)
            case _:
                raise self._refused(100001, f"no such path: {call.path}", 404)

    def _refused(self, code: int, message: str, status: int = 400) -> Refused:
        if self.options.errors_with_status_200 and status != 429:
            status = 200
        shown = str(code) if self.options.code_as_text else code
        document = {"code": shown, "reason": _REASONS[code], "message": message}
        return Refused(Reply(status, document), f"{code} {message}")

    def _authenticate(self, call: Call, api_path: str, now_ms: int) -> str:
        key, stamp, given = (call.headers.get(f"x-auth-{name}", "") for name in ("key", "timestamp", "signature"))
        if not (key and stamp and given):
            raise self._refused(100009, "x-auth-key, x-auth-timestamp and x-auth-signature are required", 401)
        if key not in self.users:
            raise self._refused(200001, "unknown API key", 401)
        if not _INTEGER.fullmatch(stamp) or abs(now_ms - int(stamp)) > TIMESTAMP_TOLERANCE_MS:
            raise self._refused(100011, "x-auth-timestamp is not within 30 seconds of the server's clock")
        if not same_signature(signature(self.users[key], f"{stamp}+{api_path}"), given):
            raise self._refused(200001, "the signature does not match", 401)
        return key

    def _admit(self, key: str, at_s: float) -> None:
        window = self._admitted.setdefault(key, deque())
        while window and at_s - window[0] >= self.options.window_s:
            window.popleft()
        if len(window) >= self.options.requests:
            raise self._refused(200002, f"more than {self.options.requests} requests a minute", 429)
        window.append(at_s)

    def _snapshot(self, book: Book, params: Mapping[str, str], now_ms: int) -> dict[str, Any]:
        text = params.get("date", "")
        try:
            day = date.fromisoformat(text)
        except ValueError:
            raise self._refused(100006, "date is required as YYYY-mm-dd") from None
        if text != day.isoformat():
            raise self._refused(100006, "date is required as YYYY-mm-dd")
        if day < self._oldest(now_ms):
            raise self._refused(100002, f"{text} is older than {self.options.retention_days} days")
        snapshot = book.snapshots.get(day)
        if snapshot is None or snapshot.at_ms + int(self.options.snapshot_delay_s * 1000) > now_ms:
            raise self._refused(100002, f"no snapshot of {text} yet")
        rows, time = ("balance", "balanceTime") if self.options.table_spelling else ("snapshot", "snapshotTime")
        return {
            "meta": {"accountId": book.snapshot_account_id, "sn": snapshot.sn, time: snapshot.at_ms},
            rows: [
                {"asset": asset, "totalBalance": format(amount, "f")} for asset, amount in snapshot.balances.items()
            ],
        }

    def _oldest(self, now_ms: int) -> date:
        return utc_day(now_ms) - timedelta(days=self.options.retention_days)

    def _history(self, book: Book, params: Mapping[str, str], now_ms: int) -> dict[str, Any]:
        sn = self._integer(params, "sn")
        limit = self._integer(params, "limit") if "limit" in params else self.options.default_limit
        if not 1 <= limit <= MOST_RECORDS:
            raise self._refused(100006, f"limit is 1 to {MOST_RECORDS}, not {limit}")
        oldest = book.snapshots.get(self._oldest(now_ms))
        if oldest is not None and sn <= oldest.sn:
            raise self._refused(100002, f"sn {sn} is older than {self.options.retention_days} days")
        records = [record for record in book.visible(sn, now_ms) if record.sn not in self.withheld]
        orders = [record for record in records if record.kind == "order"][:limit]
        changes = [record for record in records if record.kind == "balance"][:limit]
        if not self.options.limit_per_list:
            page = {record.sn for record in records[:limit]}
            orders = [record for record in orders if record.sn in page]
            changes = [record for record in changes if record.sn in page]
        document: dict[str, Any] = {"meta": {"accountId": book.history_account_id}}
        for index, (name, rows) in enumerate((("order", orders), ("balance", changes))):
            shown = [_record(row) for row in (reversed(rows) if self.options.newest_first else rows)]
            # An empty list may come as a list, as null, or not at all.
            if shown or (sn + index) % 3 == 0:
                document[name] = shown
            elif (sn + index) % 3 == 1:
                document[name] = None
        return document

    def _integer(self, params: Mapping[str, str], name: str) -> int:
        text = params.get(name, "")
        if not _INTEGER.fullmatch(text):
            raise self._refused(100006, f"{name} is required as a number" if not text else f"{name} is no number")
        return int(text)


def _record(record: Record) -> dict[str, Any]:
    document: dict[str, Any] = {"sn": record.sn, "transactTime": record.at_ms}
    if record.kind == "balance":
        return document | {"eventType": record.event, "data": [_leg(leg) for leg in record.legs]}
    return document | {
        "liquidityInd": "RemovedLiquidity",
        "orderId": record.order_id,
        "orderType": record.event,
        "side": record.side,
        "data": [{**_leg(leg), "dataType": "fee" if leg.fee else "trade"} for leg in record.legs],
    }


def _leg(leg: Leg) -> dict[str, str]:
    return {"asset": leg.asset, "curBalance": format(leg.balance, "f"), "deltaQty": format(leg.delta, "f")}
