from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balance_bridge import money
from balance_bridge.errors import Contradiction, InvalidAmount, InvalidResponse
from balance_bridge.extract import ascendex_responses as responses
from balance_bridge.extract.source import Page
from balance_bridge.transform.schema import AMOUNT, LEGS

DAY = date(2021, 3, 31)
MIDNIGHT_MS = 1_617_148_800_000

# In the documentation's shapes, with numbers of our own.
SNAPSHOT = {
    "meta": {"ac": "cash", "accountId": "cshExample", "sn": 10_870_097_597, "snapshotTime": MIDNIGHT_MS},
    "snapshot": [
        {"asset": "AKRO", "totalBalance": "1858"},
        {"asset": "BTMX-S", "totalBalance": "40000.112249159"},
        {"asset": "USDT", "totalBalance": "-12.5"},
    ],
}
TRADE = {
    "data": [
        {"asset": "BTC", "curBalance": "0.0301", "dataType": "trade", "deltaQty": "0.0001"},
        {"asset": "USDT", "curBalance": "-1628.51466633", "dataType": "trade", "deltaQty": "-5.4175"},
        {"asset": "USDT", "curBalance": "-1628.51466633", "dataType": "fee", "deltaQty": "-0.00270875"},
    ],
    "liquidityInd": "RemovedLiquidity",
    "orderId": "rExample",
    "orderType": "Limit",
    "side": "Buy",
    "sn": 16_823_297_563,
    "transactTime": 1_616_852_892_564,
}
REWARD = {
    "data": [{"asset": "BTMX-S", "curBalance": "40000.112249285", "deltaQty": "0.000000007"}],
    "eventType": "Btmxmining",
    "sn": 10_888_843_672,
    "transactTime": 1_617_213_942_176,
}
HISTORY = {"meta": {"ac": "cash", "accountId": "MPXExample"}, "order": [TRADE], "balance": [REWARD]}


def copy(document: Any) -> Any:
    return json.loads(json.dumps(document))


def changed(document: Any, *path: Any, to: Any = ..., drop: bool = False) -> Any:
    """A copy with one place changed, or left out."""
    made = place = copy(document)
    for step in path[:-1]:
        place = place[step]
    if drop:
        del place[path[-1]]
    else:
        place[path[-1]] = to
    return made


def raw(document: Any) -> bytes:
    return document if isinstance(document, bytes) else json.dumps(document).encode()


def snapshot(document: Any, day: date = DAY, category: str = "cash") -> Any:
    return responses.read_snapshot(raw(document), category=category, day=day)


def page(document: Any, category: str = "cash") -> Page:
    return responses.read_page(raw(document), category=category)


def legs(document: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = page(document).legs.to_pylist()
    return found


ENVELOPES = {
    "bare": lambda document: document,
    "enveloped": lambda document: {"code": 0, "data": document},
    "enveloped with text": lambda document: {"code": "0", "data": document, "message": None},
    "with a code and no envelope": lambda document: {"code": 0} | document,
}


@pytest.mark.parametrize("envelope", ENVELOPES)
@pytest.mark.parametrize("rows", ["snapshot", "balance"])
@pytest.mark.parametrize("time", ["snapshotTime", "balanceTime"])
def test_a_snapshot_is_read_in_every_documented_spelling(envelope: str, rows: str, time: str) -> None:
    meta = {"ac": "cash", "accountId": "cshExample", "sn": 10_870_097_597, time: MIDNIGHT_MS}
    read = snapshot(ENVELOPES[envelope]({"meta": meta, rows: SNAPSHOT["snapshot"]}))
    assert read.account_ref == "cshExample"
    assert read.snapshot.sn == 10_870_097_597
    assert read.snapshot.at_ms == MIDNIGHT_MS
    expected = {"AKRO": "1858", "BTMX-S": "40000.112249159", "USDT": "-12.5"}
    assert read.snapshot.balances == {asset: Decimal(amount) for asset, amount in expected.items()}


@pytest.mark.parametrize("envelope", ENVELOPES)
def test_a_page_is_read_in_every_documented_envelope(envelope: str) -> None:
    read = page(ENVELOPES[envelope](HISTORY))
    assert read.account_ref == "MPXExample"
    assert len(read) == 2
    assert [[record.sn for record in records] for records in read.lists] == [[16_823_297_563], [10_888_843_672]]


@pytest.mark.parametrize("empty", [[], None, "missing"])
def test_a_list_of_changes_that_is_empty_may_be_null_or_missing(empty: Any) -> None:
    drop = empty == "missing"
    for name in ("order", "balance"):
        assert len(page(changed(HISTORY, name, to=empty, drop=drop))) == 1
    assert len(page({"meta": HISTORY["meta"]})) == 0


@pytest.mark.parametrize("name", ["snapshot", "balance"])
@pytest.mark.parametrize("empty", [[], None])
def test_a_snapshot_s_list_that_is_empty_is_an_account_without_balances(name: str, empty: Any) -> None:
    assert snapshot({"meta": SNAPSHOT["meta"], name: empty}).snapshot.balances == {}


@pytest.mark.parametrize("name", ["balances", "Snapshot", "data", None])
def test_a_snapshot_without_its_list_is_refused_and_not_read_as_an_empty_account(name: str | None) -> None:
    with pytest.raises(
        InvalidResponse, match=r"has no list of balances|has a list that the exchange does not document"
    ):
        snapshot({"meta": SNAPSHOT["meta"]} | ({} if name is None else {name: SNAPSHOT["snapshot"]}))


@pytest.mark.parametrize("name", ["orders", "balances", "Order"])
def test_a_page_whose_list_has_another_name_is_refused_and_not_read_as_no_changes(name: str) -> None:
    with pytest.raises(InvalidResponse, match=f"a list that the exchange does not document: '{name}'"):
        page({"meta": HISTORY["meta"], name: HISTORY["order"]})


def test_fields_that_are_not_known_are_let_pass() -> None:
    document = changed(HISTORY, "order", 0, "data", 0, "wallet", to={"a": [1.5, None]}) | {"next": 1}
    assert len(legs(document | {"reason": None})) == 4
    assert snapshot(changed(SNAPSHOT, "snapshot", 0, "availableBalance", to="7") | {"total": 3}).snapshot.sn


def test_the_case_of_the_category_does_not_matter() -> None:
    assert snapshot(changed(SNAPSHOT, "meta", "ac", to="CASH")).snapshot.sn
    assert page(changed(HISTORY, "meta", "ac", to="Margin"), category="margin").account_ref


def test_legs_are_exactly_what_the_records_say() -> None:
    at = datetime.fromtimestamp(1_616_852_892, UTC).replace(microsecond=564_000)
    of_trade = {"sn": 16_823_297_563, "at": at, "kind": "order", "event": "buy limit", "order_id": "rExample"}
    assert legs(HISTORY) == [
        of_trade | {"asset": "BTC", "fee": False, "delta": Decimal("0.0001"), "balance": Decimal("0.0301")},
        of_trade | {"asset": "USDT", "fee": False, "delta": Decimal("-5.4175"), "balance": Decimal("-1628.51466633")},
        of_trade
        | {"asset": "USDT", "fee": True, "delta": Decimal("-0.00270875"), "balance": Decimal("-1628.51466633")},
        {
            "sn": 10_888_843_672,
            "at": datetime.fromtimestamp(1_617_213_942, UTC).replace(microsecond=176_000),
            "kind": "balance",
            "event": "Btmxmining",
            "order_id": None,
            "asset": "BTMX-S",
            "fee": False,
            "delta": Decimal("0.000000007"),
            "balance": Decimal("40000.112249285"),
        },
    ]


def test_legs_have_the_schema_that_the_transformation_expects_even_without_records() -> None:
    nothing = page({"meta": HISTORY["meta"]}).legs
    assert (nothing.schema, nothing.num_rows) == (LEGS, 0)
    assert page(HISTORY).legs.schema == LEGS
    assert legs(changed(HISTORY, "order", 0, "data", to=[]))[0]["asset"] == "BTMX-S"


@pytest.mark.parametrize(
    ("side", "kind", "event"),
    [("BUY", "MARKET", "buy market"), ("Sell", None, "sell"), (None, "limit", "limit"), (None, None, "order")],
)
def test_the_event_of_an_order_is_its_side_and_type_in_lower_case(side: Any, kind: Any, event: str) -> None:
    document = changed(changed(HISTORY, "order", 0, "side", to=side), "order", 0, "orderType", to=kind)
    assert legs(document)[0]["event"] == event


def test_records_in_any_order_keep_their_own_legs() -> None:
    many = copy(HISTORY)
    many["balance"] = [
        {**REWARD, "sn": sn, "data": [{"asset": f"A{sn % 7}", "curBalance": str(sn), "deltaQty": f"-{sn}"}] * (sn % 4)}
        for sn in (9, 3, 12, 5, 7, 1, 15)
    ]
    found = [(leg["sn"], leg["asset"], leg["balance"], leg["delta"]) for leg in legs(many) if leg["kind"] == "balance"]
    expected = [(sn, f"A{sn % 7}", sn, -sn) for sn in (9, 3, 12, 5, 7, 1, 15) for _ in range(sn % 4)]
    assert found == expected


LEG = ("order", 0, "data", 1)
AMOUNTS_REFUSED = [
    "NaN",
    "Infinity",
    "",
    " 1",
    "1 ",
    "1,5",
    "1_0",
    "\u0661",
    "1\n",
    "0x1",
    "1e",
    "1e-19",
    "1e20",
    "0." + "1" * 60,
]


@pytest.mark.parametrize("field", ["curBalance", "deltaQty"])
@pytest.mark.parametrize("value", AMOUNTS_REFUSED)
def test_an_amount_that_is_none_is_refused_by_number_field_and_value(field: str, value: str) -> None:
    with pytest.raises(InvalidResponse, match=f"{field} of sn 16823297563") as caught:
        legs(changed(HISTORY, *LEG, field, to=value))
    assert value in str(caught.value) or repr(value) in str(caught.value) or str(Decimal(value)) in str(caught.value)


@pytest.mark.parametrize("value", AMOUNTS_REFUSED)
def test_a_snapshot_s_amount_that_is_none_is_refused_by_asset_and_value(value: str) -> None:
    with pytest.raises(InvalidResponse, match="totalBalance of BTMX-S in the snapshot of 2021-03-31"):
        snapshot(changed(SNAPSHOT, "snapshot", 1, "totalBalance", to=value))


@pytest.mark.parametrize(
    ("document", "told"),
    [
        (changed(HISTORY, *LEG, "curBalance", to=1.5), ["$.order[0].data[1].curBalance", "sn 16823297563", "1.5"]),
        (changed(HISTORY, *LEG, "deltaQty", to=7), ["$.order[0].data[1].deltaQty", "sn 16823297563", "7"]),
        (changed(HISTORY, *LEG, "deltaQty", to=None), ["$.order[0].data[1].deltaQty", "sn 16823297563", "None"]),
        (changed(HISTORY, *LEG, "asset", drop=True), ["$.order[0].data[1]", "`asset`", "sn 16823297563", "-5.4175"]),
        (changed(HISTORY, *LEG, "curBalance", drop=True), ["$.order[0].data[1]", "`curBalance`", "sn 16823297563"]),
        (changed(HISTORY, *LEG, to="USDT"), ["$.order[0].data[1]", "sn 16823297563", "USDT"]),
        (changed(HISTORY, "order", 0, "data", drop=True), ["$.order[0]", "`data`", "sn 16823297563"]),
        (changed(HISTORY, "order", 0, "orderId", drop=True), ["$.order[0]", "`orderId`", "sn 16823297563"]),
        (changed(HISTORY, "balance", 0, "eventType", drop=True), ["$.balance[0]", "`eventType`", "sn 10888843672"]),
        (changed(HISTORY, "balance", 0, "sn", drop=True), ["$.balance[0]", "`sn`", "Btmxmining"]),
        (changed(HISTORY, "balance", 0, "sn", to="12"), ["$.balance[0].sn", "12"]),
        (changed(HISTORY, "balance", 0, "sn", to=True), ["$.balance[0].sn", "bool", "True"]),
        (changed(HISTORY, "balance", 0, "sn", to=-1), ["$.balance[0].sn", "-1"]),
        (changed(HISTORY, "balance", 0, "sn", to=2**63), ["$.balance[0].sn", str(2**63)]),
        (changed(HISTORY, "balance", 0, "sn", to=1.5), ["$.balance[0].sn", "1.5"]),
        (changed(HISTORY, "balance", 0, "sn", to=None), ["$.balance[0].sn", "None"]),
        (
            changed(HISTORY, "balance", 0, "transactTime", to="now"),
            ["$.balance[0].transactTime", "sn 10888843672", "now"],
        ),
        (changed(HISTORY, "balance", 0, "transactTime", to=10**15), ["$.balance[0].transactTime", str(10**15)]),
        (changed(HISTORY, "balance", to={}), ["$.balance", "{}"]),
        (changed(HISTORY, "balance", 0, to=None), ["$.balance[0]", "None"]),
        (changed(HISTORY, "meta", drop=True), ["`meta`"]),
        (changed(HISTORY, "meta", "accountId", drop=True), ["$.meta", "`accountId`"]),
        (changed(HISTORY, "meta", "accountId", to=5), ["$.meta.accountId", "5"]),
        (changed(HISTORY, "meta", "ac", to="margin"), ["meta.ac is 'margin'", "cash"]),
        (changed(HISTORY, "meta", "ac", to="futures"), ["meta.ac is 'futures'", "cash"]),
        ({"code": 0, "data": changed(HISTORY, *LEG, "curBalance", to=1.5)}, ["data[1].curBalance", "sn 16823297563"]),
        ({"code": 0, "data": None}, ["null"]),
        ({"code": 0}, ["`meta`"]),
    ],
)
def test_a_malformed_page_is_refused_by_path_number_and_value(document: Any, told: list[str]) -> None:
    with pytest.raises(InvalidResponse) as caught:
        page(document)
    for part in told:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("document", "told"),
    [
        (changed(SNAPSHOT, "snapshot", 0, "totalBalance", to=1858), ["$.snapshot[0].totalBalance", "1858"]),
        (changed(SNAPSHOT, "snapshot", 0, "totalBalance", drop=True), ["$.snapshot[0]", "`totalBalance`", "AKRO"]),
        (changed(SNAPSHOT, "snapshot", 0, "asset", drop=True), ["$.snapshot[0]", "`asset`", "1858"]),
        *(
            (changed(SNAPSHOT, "snapshot", 0, "asset", to=asset), ["$.snapshot[0].asset", repr(asset)])
            for asset in ("", " ", "A B", "AKRO\n", "\tAKRO", "A\x00", "A" * 65)
        ),
        (changed(SNAPSHOT, "snapshot", 2, "asset", to="AKRO"), ["AKRO comes twice", "2021-03-31"]),
        (SNAPSHOT | {"balance": [{"asset": "AKRO", "totalBalance": "1858"}]}, ["AKRO comes twice"]),
        (changed(SNAPSHOT, "meta", "sn", drop=True), ["meta.sn"]),
        (changed(SNAPSHOT, "meta", "sn", to="10870097597"), ["$.meta.sn", "10870097597"]),
        (changed(SNAPSHOT, "meta", "sn", to=False), ["$.meta.sn", "bool"]),
        (changed(SNAPSHOT, "meta", "sn", to=-5), ["$.meta.sn", "-5"]),
        (changed(SNAPSHOT, "meta", "snapshotTime", drop=True), ["meta.snapshotTime", "balanceTime", "missing"]),
        (changed(SNAPSHOT, "meta", "snapshotTime", to="x"), ["$.meta.snapshotTime", "x"]),
        (changed(SNAPSHOT, "meta", "snapshotTime", to=MIDNIGHT_MS + 1), [str(MIDNIGHT_MS + 1), "2021-03-31 was asked"]),
        (changed(SNAPSHOT, "meta", "snapshotTime", to=MIDNIGHT_MS - 86_400_000), ["2021-03-30T00:00:00.000Z"]),
        (changed(SNAPSHOT, "meta", "ac", to="margin"), ["meta.ac is 'margin'"]),
    ],
)
def test_a_malformed_snapshot_is_refused_by_path_and_value(document: Any, told: list[str]) -> None:
    with pytest.raises(InvalidResponse) as caught:
        snapshot(document)
    for part in told:
        assert part in str(caught.value)


@pytest.mark.parametrize("asset", ["", " ", "A B", "USDT\n", "\tUSDT", "A\x00B", "A" * 65])
def test_an_asset_of_a_record_that_is_none_is_refused_by_number_and_value(asset: str) -> None:
    with pytest.raises(InvalidResponse, match=r"data\[.\]\.asset \(sn 16823297563\)") as caught:
        legs(changed(HISTORY, *LEG, "asset", to=asset))
    assert repr(asset) in str(caught.value)


@pytest.mark.parametrize("read", [page, snapshot])
@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'{"code": 100006, "reason": "INVALID_ARGUMENT", "message": "no"}', "code 100006, INVALID_ARGUMENT: no"),
        (b'{"code": "100002", "reason": "DATA_NOT_AVAILABLE"}', "code 100002, DATA_NOT_AVAILABLE"),
        (b"<html>Bad gateway</html>", "<html>Bad gateway"),
        (b"", "''"),
        (b"null", "null"),
        (b"[]", "[]"),
        (b"7", "7"),
        (raw(HISTORY)[:-20], "MPXExample"),
        (raw(HISTORY) + b"}", "MPXExample"),
        (b'{"meta": {"ac": "cash", "accountId": NaN}}', "NaN"),
        (b'{"meta": {"ac": "cash", "accountId": "\xff"}}', "not what the exchange documents"),
        (b'{"meta": {"ac": "cash", "accountId": "\\ud800"}}', "not what the exchange documents"),
        (b'{"x": "\xff", "meta": {"ac": "cash", "accountId": 1}}', "$.meta.accountId"),
        (b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "recursion"),
        (b'{"meta": {"ac": "cash", "accountId": ' + b"9" * 5000 + b"}}", "999"),
    ],
)
def test_what_is_no_answer_is_refused_with_a_look_at_it(read: Any, body: bytes, told: str) -> None:
    with pytest.raises(InvalidResponse) as caught:
        read(body)
    assert told in str(caught.value)
    assert len(str(caught.value)) < 1000


names = st.sampled_from(["meta", "ac", "accountId", "sn", "order", "balance", "data", "code", "snapshot"])
documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
    max_leaves=8,
)


@settings(deadline=None)
@given(documents)
def test_no_document_is_more_than_refused(document: Any) -> None:
    for read in (page, snapshot):
        try:
            read(document)
        except InvalidResponse:
            continue
        assert document["meta"]["ac"].lower() == "cash"


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_are_more_than_refused(body: bytes) -> None:
    for read in (page, snapshot):
        with pytest.raises(InvalidResponse):
            read(body)


amounts = st.one_of(
    st.integers(-(10**38) + 1, 10**38 - 1).map(lambda units: money.to_text(Decimal(units).scaleb(-18, money.EXACT))),
    st.from_regex(r"[+-]?[0-9]{1,25}(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,3})?", fullmatch=True),
    st.from_regex(r"-?0*[0-9]{1,20}\.[0-9]{1,18}0*", fullmatch=True),
    st.sampled_from(
        ["7E-9", "-0", "0e-30", "1e-999", "1" + "0" * 50 + "e-50", "99999999999999999999.999999999999999999"]
    ),
    st.from_regex(r"[0-9]{39,90}(\.[0-9]{0,90})?", fullmatch=True),
)


@settings(deadline=None)
@given(st.lists(amounts, min_size=1, max_size=5))
def test_a_column_of_amounts_is_exact_or_refused(texts: list[str]) -> None:
    document = changed(
        HISTORY, "order", 0, "data", to=[{"asset": "A", "curBalance": text, "deltaQty": "1"} for text in texts]
    )
    try:
        expected = [money.parse(text) for text in texts]
    except InvalidAmount:
        with pytest.raises(InvalidResponse, match="curBalance of sn 16823297563"):
            legs(document)
        return
    table = page(document).legs.slice(0, len(texts))
    assert table.schema.field("balance").type == AMOUNT
    assert table["balance"].to_pylist() == expected


def test_an_order_of_one_list_and_a_change_of_the_other_may_be_the_same_length(kit: SimpleNamespace) -> None:
    document = kit.page_document([kit.order(1, 5, kit.leg("A", 1, 1))], [kit.change(2, 6, kit.leg("B", 2, 2))])
    assert page(document).legs.select(["sn", "asset", "kind"]).to_pylist() == [
        {"sn": 1, "asset": "A", "kind": "order"},
        {"sn": 2, "asset": "B", "kind": "balance"},
    ]


def transfer(*assets: str, sn: int = 7, at_ms: int = 5, delta: str = "1") -> dict[str, Any]:
    legs = [{"asset": asset, "curBalance": "3", "deltaQty": delta} for asset in assets]
    return {"sn": sn, "transactTime": at_ms, "eventType": "Transfer", "data": legs}


@pytest.mark.parametrize(
    "records",
    [
        [transfer("A", "B")],
        [transfer("A"), transfer("B")],
        [transfer("B"), transfer("A")],
        [transfer("A"), transfer("A", "B")],
        [transfer("A", "B"), transfer("A"), transfer("A", "B")],
    ],
    ids=["one", "two", "the other order", "a leg repeated", "records repeated"],
)
def test_balance_records_that_share_a_number_are_one_event_and_repeats_count_once(records: list[Any]) -> None:
    found = legs({"meta": HISTORY["meta"], "balance": [*records, transfer("A", sn=8)]})
    assert sorted((leg["sn"], leg["asset"], leg["delta"]) for leg in found) == [(7, "A", 1), (7, "B", 1), (8, "A", 1)]


@pytest.mark.parametrize(
    "document",
    [
        {"balance": [transfer("A"), transfer("A", delta="2")]},
        {"balance": [transfer("A"), transfer("B", at_ms=6)]},
        {"order": [TRADE, TRADE | {"orderId": "another"}]},
        {"order": [TRADE], "balance": [transfer("A", sn=16_823_297_563, at_ms=1_616_852_892_564)]},
    ],
    ids=["another change", "another time", "two orders", "an order and another change"],
)
def test_one_number_with_contents_that_are_not_one_event_is_a_contradiction(document: Any) -> None:
    with pytest.raises(Contradiction, match=r"sn \d+ comes twice with different content"):
        page({"meta": HISTORY["meta"]} | document)
