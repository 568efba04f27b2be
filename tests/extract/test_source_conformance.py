from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
from source_conformance import DAY, Harness, SourceConformance

from balance_bridge.extract.ascendex import AscendexAccount, AscendexClient, Category
from balance_bridge.extract.files import FilesAccount
from balance_bridge.extract.files_responses import CHANGE_COLUMNS, SNAPSHOT_COLUMNS
from balance_bridge.extract.source import Source
from balance_bridge.sandbox.exchange import Exchange, ExchangeOptions
from balance_bridge.sandbox.wire import Call, Journal
from balance_bridge.sandbox.world import Book, Record, World, utc_day
from balance_bridge.transport import Credentials, Response


class InProcess:
    """A transport to the sandbox without a socket."""

    def __init__(self, exchange: Exchange, wall: Any) -> None:
        self.exchange = exchange
        self.wall = wall

    def send(
        self, method: str, url: str, *, headers: Mapping[str, str], params: Mapping[str, str] | None = None, **_: Any
    ) -> Response:
        names = {name.lower(): value for name, value in headers.items()}
        reply = self.exchange.answer(Call(method, urlsplit(url).path, urlencode(params or {}), names))
        return Response(f"{method} {url}", reply.status, {}, reply.body(), self.wall(), self.wall())


class AscendexHarness(Harness):
    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__()
        self.options = options

    def source(self, book: Book, *, retention_days: int = 7) -> Source:
        options = ExchangeOptions(requests=10**6, retention_days=retention_days, **self.options)
        world = World(1, DAY, {("key", "cash"): book})
        exchange = Exchange({"key": "secret"}, world, self.clock.clock, Journal(), options)
        transport: Any = InProcess(exchange, self.clock.wall)
        client = AscendexClient(
            transport, Credentials("https://exchange.test", "key", "secret"), clock=self.clock.clock
        )
        return AscendexAccount(client, Category.CASH, retention_days=retention_days, clock=self.clock.clock)


class FilesHarness(Harness):
    """Each source gets a folder of its own."""

    def __init__(self, root: Path, ending: str) -> None:
        super().__init__()
        self.root = root
        self.ending = ending

    def source(self, book: Book, *, retention_days: int = 7) -> Source:
        root = self.root / str(len(list(self.root.iterdir())))
        for snapshot in book.snapshots.values():
            head = {"account": book.snapshot_account_id, "sn": snapshot.sn, "at": f"{snapshot.day}T00:00:00Z"}
            balances = {asset: format(amount, "f") for asset, amount in snapshot.balances.items()}
            listed = [head | {"asset": asset, "balance": amount} for asset, amount in balances.items()]
            self._write(
                root / "snapshots" / str(snapshot.day),
                SNAPSHOT_COLUMNS,
                listed or [head],
                head | {"balances": balances},
            )
        for day in sorted({utc_day(record.at_ms) for record in book.records}):
            self._write_changes(root, book, day)
        return FilesAccount(root, retention_days=retention_days, clock=self.clock.clock)

    def _write_changes(self, root: Path, book: Book, day: date) -> None:
        changes = [_change(record) for record in book.records if utc_day(record.at_ms) == day]
        head = {"account": book.snapshot_account_id}
        listed = [
            head
            | {name: value for name, value in change.items() if name != "legs"}
            | leg
            | {"fee": str(leg["fee"]).lower()}
            for change in changes
            for leg in change["legs"]
        ]
        self._write(root / "changes" / f"{day}-all", CHANGE_COLUMNS, listed, head | {"changes": changes})

    def _write(self, path: Path, columns: tuple[str, ...], listed: list[dict[str, Any]], document: Any) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns)
        writer.writeheader()
        writer.writerows(listed)
        content = text.getvalue() if self.ending == ".csv" else json.dumps(document)
        path.with_name(path.name + self.ending).write_bytes(content.encode())


def _change(record: Record) -> dict[str, Any]:
    legs = [
        {"asset": leg.asset, "delta": format(leg.delta, "f"), "balance": format(leg.balance, "f"), "fee": leg.fee}
        for leg in record.legs
    ]
    seconds, ms = divmod(record.at_ms % 86_400_000, 1000)
    time = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{ms:03}"
    at = f"{utc_day(record.at_ms)}T{time}Z"
    return {"sn": record.sn, "at": at, "event": record.event, "reference": record.order_id, "legs": legs}


class TestAscendex(SourceConformance):
    @pytest.fixture(params=[{}, {"limit_per_list": True}, {"envelope": True, "newest_first": False}])
    def harness(self, request: pytest.FixtureRequest) -> Harness:
        return AscendexHarness(request.param)


class TestFiles(SourceConformance):
    @pytest.fixture(params=[".csv", ".json"])
    def harness(self, request: pytest.FixtureRequest, tmp_path: Path) -> Harness:
        return FilesHarness(tmp_path, request.param)
