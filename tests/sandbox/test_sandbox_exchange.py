from __future__ import annotations

import json
from datetime import date, timedelta
from itertools import pairwise
from typing import Any

import pytest

from balance_bridge.sandbox.wire import Journal, signature

SECRET = "hV8FgjyJtpvVeAcMAgzgAFQCN36wmbWuN7o3WPcYcYhFd8qvE43gzFGVsFcCqMNk"
TODAY = date(2026, 11, 20)


def days_ago(number: int) -> date:
    return TODAY - timedelta(days=number)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1608133910000+info", "/pwaAgWZQ1Xd/J4yZ4ReHSPQxd3ORP/YR8TvAttqqYM="),
        ("1562952827927+user/info", "vBZf8OQuiTJIVbNpNHGY3zcUsK5gJpwb5lgCgarpxYI="),
        ("1608133910000+data/v1/cash/balance/snapshot", "OxKgjMhf/Y/EIHnxg8tsc7NoQnyxlW8JRmKwqhmTsNM="),
        ("1608133910000+data/v1/margin/balance/history", "oUslh2FCP6AUfkm4O9dGjfliz/yK72yYvicecVF/5yQ="),
    ],
)
def test_signatures_are_the_vendors(text: str, expected: str) -> None:
    assert signature(SECRET, text) == expected


def test_a_snapshot_is_bare_and_exact(make_exchange: Any) -> None:
    exchange = make_exchange()
    reply = exchange.snapshot(days_ago(1))
    assert reply.status == 200
    meta = reply.document["meta"]
    assert meta["ac"] == "cash"
    assert meta["snapshotTime"] == 1_795_046_400_000
    rows = {row["asset"]: row["totalBalance"] for row in reply.document["snapshot"]}
    assert all(isinstance(text, str) and "E" not in text for text in rows.values())
    assert json.loads(reply.body()) == reply.document


def test_the_other_spelling_and_the_envelope_hold_the_same(make_exchange: Any) -> None:
    usual = make_exchange().snapshot(days_ago(1)).document
    other = make_exchange(envelope=True, table_spelling=True).snapshot(days_ago(1)).document
    assert other["code"] == 0
    assert other["data"]["balance"] == usual["snapshot"]
    assert other["data"]["meta"]["balanceTime"] == usual["meta"]["snapshotTime"]


def test_the_info_answers_in_an_envelope_and_outside_the_window(make_exchange: Any) -> None:
    exchange = make_exchange()
    assert all(exchange.get("info").document["code"] == 0 for _ in range(20))
    assert exchange.snapshot(TODAY).status == 200


@pytest.mark.parametrize("name", ["key", "timestamp", "signature"])
def test_each_header_is_required(make_exchange: Any, name: str) -> None:
    reply = (
        make_exchange().get("info", **{name: None})
        if name != "timestamp"
        else make_exchange().get("info", signature="")
    )
    assert (reply.status, reply.document["code"]) == (401, 100009)


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"key": "nobody"}, 200001),
        ({"signature": "AAAA"}, 200001),
        ({"signature": "ключ"}, 200001),
        ({"timestamp": "soon"}, 100011),
        ({"timestamp": "-5"}, 100011),
    ],
)
def test_wrong_credentials_are_refused(make_exchange: Any, headers: dict[str, str], code: int) -> None:
    reply = make_exchange().get("data/v1/cash/balance/snapshot", "date=2026-11-20", **headers)
    assert reply.document["code"] == code
    assert set(reply.document) == {"code", "reason", "message"}


@pytest.mark.parametrize(("skew_ms", "good"), [(-30_000, True), (30_000, True), (-30_001, False), (30_001, False)])
def test_a_timestamp_counts_for_30_seconds(make_exchange: Any, hand: Any, skew_ms: int, good: bool) -> None:
    reply = make_exchange().get("info", timestamp=str(hand.ms + skew_ms))
    assert (reply.document["code"] == 0) == good
    assert good or reply.document["code"] == 100011


def test_a_signature_is_for_one_path(make_exchange: Any, hand: Any) -> None:
    exchange = make_exchange()
    stolen = signature("sandbox-cash-secret-not-real", f"{hand.ms}+data/v1/cash/balance/snapshot")
    assert exchange.get("data/v1/margin/balance/snapshot", "date=2026-11-20", signature=stolen).status == 401


@pytest.mark.parametrize("text", ["", "2026-11-31", "20261120", "2026-1-2", "2026-11-20T00:00:00", "\u0662026-11-20"])
def test_a_malformed_date_is_an_invalid_argument(make_exchange: Any, text: str) -> None:
    reply = make_exchange().snapshot(text)
    assert (reply.status, reply.document["code"]) == (400, 100006)


@pytest.mark.parametrize(("ago", "there"), [(-1, False), (0, True), (7, True), (8, False)])
def test_snapshots_are_there_for_seven_days(make_exchange: Any, ago: int, there: bool) -> None:
    reply = make_exchange().snapshot(days_ago(ago))
    assert (reply.status == 200) == there
    assert there or reply.document["code"] == 100002


def test_a_snapshot_appears_when_its_day_begins_or_later_if_so_set(make_exchange: Any, hand: Any) -> None:
    at_once, late = make_exchange(), make_exchange(snapshot_delay_s=600)
    tomorrow = days_ago(-1)
    hand.wait(12 * 3600 - 0.001)
    assert at_once.snapshot(tomorrow).document["code"] == 100002
    hand.wait(0.001)
    assert at_once.snapshot(tomorrow).status == 200
    assert late.snapshot(tomorrow).document["code"] == 100002
    hand.wait(600)
    assert late.snapshot(tomorrow).status == 200


@pytest.mark.parametrize(
    "query",
    ["", "limit=500", "sn=", "sn=x", "sn=1.5", "sn=-1", "sn={sn}&limit=0", "sn={sn}&limit=501", "sn={sn}&limit=a"],
)
def test_malformed_history_requests_are_invalid_arguments(make_exchange: Any, query: str) -> None:
    exchange = make_exchange()
    sn = exchange.snapshot(TODAY).document["meta"]["sn"]
    assert exchange.history(query.format(sn=sn)).document["code"] == 100006


def test_history_older_than_seven_days_is_refused(make_exchange: Any) -> None:
    exchange = make_exchange()
    sn = exchange.snapshot(days_ago(7)).document["meta"]["sn"]
    assert exchange.history(f"sn={sn}&limit=500").document["code"] == 100002
    assert exchange.history(f"sn={sn + 1}&limit=500").status == 200


def test_a_page_holds_the_oldest_records_with_the_newest_first(make_exchange: Any) -> None:
    exchange = make_exchange()
    sn = exchange.snapshot(days_ago(2)).document["meta"]["sn"] + 1
    page = exchange.history(f"sn={sn}&limit=20").document
    first = page["order"] + page["balance"]
    assert len(first) == 20
    for rows in (page["order"], page["balance"]):
        assert [row["sn"] for row in rows] == sorted((row["sn"] for row in rows), reverse=True)
    more = exchange.history(f"sn={sn}&limit=500").document
    rest = sorted(row["sn"] for row in more["order"] + more["balance"])
    assert sorted(row["sn"] for row in first) == rest[:20]
    each = make_exchange(limit_per_list=True, newest_first=False).history(f"sn={sn}&limit=20").document
    assert (len(each["order"]), len(each["balance"])) == (20, 20)
    assert each["order"][0]["sn"] < each["order"][-1]["sn"]


def test_records_look_as_documented(make_exchange: Any) -> None:
    exchange = make_exchange()
    snapshot = exchange.snapshot(days_ago(1)).document["meta"]
    page = exchange.history(f"sn={snapshot['sn'] + 1}&limit=500").document
    order = page["order"][0]
    assert set(order) == {"data", "liquidityInd", "orderId", "orderType", "side", "sn", "transactTime"}
    assert [set(leg) for leg in order["data"]] == [{"asset", "curBalance", "dataType", "deltaQty"}] * 3
    assert [leg["dataType"] for leg in order["data"]] == ["trade", "trade", "fee"]
    assert set(page["balance"][0]) == {"data", "eventType", "sn", "transactTime"}
    assert set(page["balance"][0]["data"][0]) == {"asset", "curBalance", "deltaQty"}
    assert len({order["side"].lower() for order in page["order"]}) == 2
    assert len({order["side"] for order in page["order"]}) > 2
    assert page["meta"]["accountId"] != snapshot["accountId"]


def test_an_empty_list_comes_as_a_list_as_null_or_not_at_all(make_exchange: Any) -> None:
    exchange = make_exchange()
    pages = [exchange.history(f"sn={99 * 10**15 + offset}").document for offset in range(3)]
    assert all(not page.get("order") and not page.get("balance") for page in pages)
    shapes = {repr(page.get(name, "missing")) for page in pages for name in ("order", "balance")}
    assert shapes == {"[]", "None", "'missing'"}


def test_what_has_not_happened_yet_is_not_shown(make_exchange: Any, hand: Any) -> None:
    exchange = make_exchange()
    sn = exchange.snapshot(TODAY).document["meta"]["sn"] + 1
    before = exchange.history(f"sn={sn}&limit=500").document
    shown = {row["sn"]: row["transactTime"] for row in before["order"] + before["balance"]}
    assert max(shown.values()) <= hand.ms
    hand.wait(6 * 3600)
    after = exchange.history(f"sn={sn}&limit=500").document
    later = {row["sn"]: row["transactTime"] for row in after["order"] + after["balance"]}
    assert len(later) > len(shown)
    assert sorted(later)[: len(shown)] == sorted(shown)


def test_the_ninth_request_in_any_minute_is_refused_and_does_not_count(
    make_exchange: Any, hand: Any, journal: Journal
) -> None:
    exchange = make_exchange()
    start = hand.now
    for number in range(8):
        assert exchange.snapshot(TODAY, "cash" if number % 2 else "margin").status == 200
        hand.wait(5)
    for _ in range(3):
        reply = exchange.history("sn=1")
        assert (reply.status, reply.document["code"], reply.document["reason"]) == (429, 200002, "TOO_MANY_ATTEMPTS")
    hand.now = start + 59.999
    assert exchange.snapshot(TODAY).status == 429
    hand.now = start + 60
    assert exchange.snapshot(TODAY).status == 200
    assert exchange.snapshot(TODAY).status == 429
    assert len(journal.refusals(429)) == 5
    assert journal.requests[-2].at_s == start + 60


def test_each_key_has_its_own_window(make_exchange: Any) -> None:
    exchange = make_exchange()
    for _ in range(8):
        exchange.snapshot(TODAY)
    exchange.key = "sandbox-margin-key"
    assert exchange.snapshot(TODAY).status == 200


@pytest.mark.parametrize(("key", "category"), [("sandbox-cash-key", "cash"), ("sandbox-margin-key", "margin")])
def test_three_days_fit_into_one_window(make_exchange: Any, journal: Journal, key: str, category: str) -> None:
    exchange = make_exchange(key=key)
    sns = [exchange.snapshot(days_ago(ago), category).document["meta"]["sn"] for ago in (3, 2, 1, 0)]
    for opening, closing in pairwise(sns):
        cursor = opening
        while cursor < closing:
            page = exchange.history(f"sn={cursor + 1}&limit=500", category).document
            rows = (page.get("order") or []) + (page.get("balance") or [])
            cursor = max(row["sn"] for row in rows)
            if len(rows) < 500:
                break
        assert cursor >= closing
    assert journal.refusals() == []
    assert len(journal.requests) <= 8


def test_errors_can_come_with_status_200_and_a_code_as_text(make_exchange: Any) -> None:
    reply = make_exchange(errors_with_status_200=True, code_as_text=True).snapshot("nonsense")
    assert (reply.status, reply.document["code"]) == (200, "100006")


def test_neither_a_secret_nor_a_signature_is_in_the_journal(make_exchange: Any, journal: Journal, hand: Any) -> None:
    exchange = make_exchange()
    exchange.snapshot("nonsense")
    exchange.get("info", signature="c2VjcmV0")
    written = json.dumps(journal.document())
    assert "not-real" not in written
    assert "c2VjcmV0" not in written


@pytest.mark.parametrize("path", ["data/v1/futures/balance/snapshot", "data/v1/cash/balance", "nothing"])
def test_unknown_paths_are_refused(make_exchange: Any, path: str) -> None:
    assert make_exchange().get(path).status == 404
