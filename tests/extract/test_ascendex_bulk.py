"""Reading many stored pages at once gives what reading them one by one gives, or nothing."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balance_bridge.errors import BalanceBridgeError, StoreDamaged
from balance_bridge.extract import raw
from balance_bridge.extract.ascendex import AscendexClient, AscendexSource, Category
from balance_bridge.extract.pages import read_legs
from balance_bridge.store import Store
from balance_bridge.transform.schema import LEGS
from balance_bridge.transport import Response, Transport

GENERATION = "raw/a/2026-11-20/history/0001"
OPEN_MS = int(datetime(2026, 11, 20, tzinfo=UTC).timestamp() * 1000)
LIMIT = 5
Document = dict[str, Any]


class SmallPages(AscendexSource):
    """AscendEX with pages of five, so that a few records make many pages."""

    page_limit = LIMIT


class OneByOne(SmallPages):
    """The same without the bulk reading."""

    def legs_of_pages(self, *_: object, **__: object) -> None:
        return None


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("balance_bridge.extract.ascendex.PAGE_LIMIT", LIMIT)


def source(kind: type[AscendexSource]) -> AscendexSource:
    return kind(AscendexClient(Transport(), "http://127.0.0.1:9", "k", "s"), Category.CASH, retention_days=7)


def record(rng: random.Random, sn: int) -> tuple[str, Document]:
    def amount() -> str:
        return rng.choice(
            ["0", "-0.000000007", "1628.51466633", "7E-9", "+5", "12345678901234567890.123456789012345678"]
        )

    assets = rng.sample(["BTC", "USDT", "BTMX-S", "NO", "1INCH"], rng.randint(1, 3))
    legs = [{"asset": asset, "curBalance": amount(), "deltaQty": amount()} for asset in assets]
    common = {"sn": sn, "transactTime": OPEN_MS + rng.randint(0, 86_400_000), "data": legs, "unknown": [1.5]}
    if rng.random() < 0.5:
        for leg in legs:
            leg["dataType"] = rng.choice(["trade", "fee"])
        named = {"orderId": f"r{sn}", "orderType": rng.choice(["Limit", "market"]), "side": rng.choice(["Buy", "SELL"])}
        return "order", {**common, **named, "liquidityInd": "NULL_VAL"}
    return "balance", {**common, "eventType": rng.choice(["Deposit", "Btmxmining"])}


def pages_of(
    rng: random.Random, history: list[tuple[str, Document]], closing_sn: int, *, per_list: bool
) -> dict[int, Document]:
    """What an exchange answers to the cursors that a pager asks from."""
    from balance_bridge.extract.paging import page_end

    pages: dict[int, Document] = {}
    cursor: int | None = 1
    while cursor is not None:
        rest = [(kind, each) for kind, each in history if each["sn"] >= cursor]
        if per_list:
            lists = {name: [each for kind, each in rest if kind == name][:LIMIT] for name in ("order", "balance")}
        else:
            lists = {name: [each for kind, each in rest[:LIMIT] if kind == name] for name in ("order", "balance")}
        for found in lists.values():
            rng.shuffle(found)
        page: Document = {"meta": {"ac": "cash", "accountId": "x"}, **lists}
        for name, found in lists.items():
            if not found:
                page[name] = rng.choice([None, []])
            if not found and rng.random() < 0.3:
                del page[name]
        pages[cursor] = page
        sizes = [len(found) for found in lists.values()]
        tops = [max((each["sn"] for each in found), default=-1) for found in lists.values()]
        end = page_end(sizes, tops, limit=LIMIT, cursor=cursor)
        cursor = end if sum(sizes) >= LIMIT and end <= closing_sn else None
    return pages


def stored(folder: Path, pages: dict[int, Document]) -> Store:
    store = Store(folder)
    for cursor, page in pages.items():
        answer = Response("GET x", 200, {}, json.dumps(page, indent=1).encode(), 0, 0)
        store.put(f"{GENERATION}/{cursor:020d}-0001.gz", raw.pack(answer, asked_by="test"))
    return store


def read(kind: type[AscendexSource], store: Store, closing_sn: int) -> pa.Table:
    table = read_legs(source(kind), store, GENERATION, opening_sn=0, closing_sn=closing_sn)
    columns = [table[field.name].cast(field.type) for field in LEGS]
    return pa.table(columns, schema=LEGS).sort_by([("sn", "ascending"), ("asset", "ascending")])


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(0, 60), per_list=st.booleans(), cut=st.integers(0, 20))
def test_bulk_and_strict_reading_give_the_same_legs(
    tmp_path_factory: pytest.TempPathFactory, seed: int, count: int, per_list: bool, cut: int
) -> None:
    rng = random.Random(seed)
    sns = sorted(rng.sample(range(1, 1000), count))
    history = [record(rng, sn) for sn in sns]
    closing_sn = max([1, *sns]) - cut if sns and cut < len(sns) else max([1, *sns])
    store = stored(tmp_path_factory.mktemp("pages"), pages_of(rng, history, closing_sn, per_list=per_list))
    strict = read(OneByOne, store, closing_sn)
    assert set(strict["sn"].to_pylist()) == {sn for sn in sns if sn <= closing_sn}
    assert read(SmallPages, store, closing_sn).equals(strict)


def plain_pages() -> dict[int, Document]:
    rng = random.Random(5)
    return pages_of(rng, [record(rng, sn) for sn in range(1, 24)], 23, per_list=False)


def test_plain_pages_are_read_in_bulk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def not_needed(*_: object) -> None:
        raise AssertionError("read one by one")

    store = stored(tmp_path, plain_pages())
    monkeypatch.setattr(SmallPages, "read_page", not_needed)
    assert len(read(SmallPages, store, 23)) >= 23


def first(page: Document) -> Document:
    return next(found[0] for found in (page.get("order"), page.get("balance")) if found)


UNUSUAL: dict[str, Callable[[Document], Any]] = {
    "an envelope": lambda page: {"code": 0, "data": page},
    "another category": lambda page: page["meta"].update(ac="margin"),
    "no meta": lambda page: page.pop("meta"),
    "a missing sn": lambda page: first(page).pop("sn"),
    "a missing time": lambda page: first(page).pop("transactTime"),
    "a missing asset": lambda page: first(page)["data"][0].pop("asset"),
    "a null amount": lambda page: first(page)["data"][0].update(deltaQty=None),
    "an amount that is none": lambda page: first(page)["data"][0].update(curBalance="NaN"),
    "an amount with blanks": lambda page: first(page)["data"][0].update(curBalance=" 1.5"),
    "an empty amount": lambda page: first(page)["data"][0].update(curBalance=""),
    "a blank asset": lambda page: first(page)["data"][0].update(asset=" "),
    "19 decimals": lambda page: first(page)["data"][0].update(curBalance="0.0000000000000000001"),
    "a list that is a text": lambda page: page.update(order="none"),
    "the same record twice": lambda page: (page.get("order") or page.get("balance")).append(first(page)),
    "a text for an sn": lambda page: first(page).update(sn="1"),
    "a record that is null": lambda page: (page.get("order") or page.get("balance")).append(None),
}


@pytest.mark.parametrize("what", UNUSUAL)
def test_of_unusual_pages_both_readings_say_the_same(tmp_path: Path, what: str) -> None:
    pages = plain_pages()
    cursor = min(pages)
    changed = UNUSUAL[what](pages[cursor])
    if what == "an envelope":
        pages[cursor] = changed
    store = stored(tmp_path, pages)

    def outcome(kind: type[AscendexSource]) -> Any:
        try:
            return read(kind, store, 23).to_pylist()
        except BalanceBridgeError as error:
            return type(error), str(error)

    assert outcome(SmallPages) == outcome(OneByOne)


def test_a_missing_page_is_named(tmp_path: Path) -> None:
    pages = plain_pages()
    missing = sorted(pages)[2]
    del pages[missing]
    store = stored(tmp_path, pages)
    with pytest.raises(StoreDamaged, match=f"lacks the page from sn {missing}"):
        read(SmallPages, store, 23)
