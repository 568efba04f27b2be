"""The pages: what a treasurer sees at a glance, what an approver can do, and what nobody else can."""

from __future__ import annotations

import csv
import io
import re
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pandas as pd
import pytest
from starlette.routing import Mount, Route

from balance_bridge import decisions, index
from balance_bridge.decisions import Act, Decision
from balance_bridge.errors import SupersededRun
from balance_bridge.store import Store, to_json

HTML = re.compile(r"<[^>]+>")


def text(page: str) -> str:
    """What a person reads of a page."""
    return " ".join(HTML.sub(" ", page).split())


def verdict(page: str) -> str:
    found = re.search(r'<h1 class="verdict (good|bad)">(.*?)</h1>', page, re.DOTALL)
    assert found
    return f"{found[1]}: {text(found[2])}"


def cells(page: str, account: str) -> dict[str, str]:
    """By day, the state of an account's cells."""
    found = re.findall(rf'aria-label="{account} ([0-9-]+): ([a-z ]+),', page)
    return dict(found)


def table(page: str) -> list[list[str]]:
    rows = re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL)
    return [[text(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)] for row in rows]


# --- the overview


def test_the_first_sentence_says_that_all_is_delivered_or_what_needs_attention(
    site: Any, delivered: Store, yesterday: date
) -> None:
    site.place.replace(f"start_date: {yesterday - timedelta(days=2)}", f"start_date: {yesterday}")
    index.record(delivered, "main_cash", yesterday)
    site.readable = ("main_cash",)
    page = site.get("/")
    assert verdict(page) == "good: All 1 account-day is delivered."
    site.readable = ("main_cash", "main_margin")
    assert cells(page, "main_cash") == {str(yesterday): "delivered"}
    page = site.get("/?days=2")
    assert verdict(page).startswith("bad: 2 need attention: main_margin ")
    assert cells(page, "main_margin") == {str(yesterday - timedelta(days=ago)): "missing" for ago in (0, 1)}


def test_a_state_can_be_told_without_colour(site: Any, delivered: Store, yesterday: date) -> None:
    site.break_day("main_cash", yesterday)
    page = site.get("/")
    for account, mark in (("main_cash", "■"), ("main_margin", "○7")):
        assert re.search(rf'aria-label="{account} {yesterday}: [^"]*">{mark}<', page), "a sign, and a text"


def test_filters_choose_accounts_and_states_and_keep_the_verdict(site: Any, delivered: Store, yesterday: date) -> None:
    site.break_day("main_cash", yesterday)
    for query, shown in (("state=held", {"main_cash"}), ("state=missing", {"main_cash", "main_margin"})):
        page = site.get(f"/?{query}")
        assert {name for name in ("main_cash", "main_margin") if cells(page, name)} == shown
        assert "need attention" in verdict(page)
    assert cells(site.get("/?account=MARG"), "main_cash") == {}
    assert "No account matches" in text(site.get("/?state=rejected"))


def test_an_account_that_is_wrong_in_the_file_needs_attention(site: Any) -> None:
    site.place.replace("requester:", "requestor:")
    page = site.get("/")
    assert "wrong in the accounts file" in verdict(page)
    assert "requestor" in page


def test_an_accounts_file_that_cannot_be_read_is_named_with_what_runs_meanwhile(site: Any) -> None:
    site.get("/")
    site.place.replace("accounts:", "accounts: [")
    page = text(site.get("/"))
    assert "accounts.yaml:" in page
    assert "runs meanwhile" in page


@pytest.mark.parametrize("query", ["days=0", "days=93", "days=x", "until=yesterday", "until=0001-01-01"])
def test_a_query_that_makes_no_sense_is_answered_with_what_is_wrong(site: Any, query: str) -> None:
    assert query.split("=")[0] in text(site.get(f"/?{query}", status=400))


def test_a_day_that_is_not_over_is_not_missing(site: Any, delivered: Store, yesterday: date) -> None:
    page = site.get(f"/?days=1&until={site.place.today}")
    assert set(cells(page, "main_cash").values()) == {"running"}
    assert verdict(page).startswith("good: Nothing needs attention.")
    assert "not over yet" in text(site.get(f"/day/main_cash/{site.place.today}"))


def test_an_accounts_file_that_cannot_be_read_needs_attention(site: Any) -> None:
    site.get("/")
    site.place.accounts_file.write_text("accounts: [")
    assert verdict(site.get("/")).startswith("bad: ")
    assert "the accounts file cannot be read" in verdict(site.get("/"))


def test_a_wrong_account_is_shown_whatever_its_name(site: Any) -> None:
    site.place.replace("  main_margin:", "  Main Margin:")
    site.readable = ("main_cash", "Main_Margin")
    assert "Main Margin: wrong in the accounts file" in verdict(site.get("/"))


def test_what_is_undelivered_at_a_destination_that_left_the_file_needs_attention(
    site: Any, yesterday: date, monkeypatch: pytest.MonkeyPatch
) -> None:
    proof = site.place.reconcile("main_cash", yesterday)
    site.place.load("main_cash", "elven", proof)
    whole = site.place.accounts_file.read_text()
    amlyze = whole[whole.index("      amlyze:") : whole.index("  main_margin:")]
    site.place.replace(amlyze, "")
    index.record(site.store, "main_cash", yesterday)
    assert cells(site.get("/"), "main_cash")[str(yesterday)] == "not delivered"
    assert "not in the accounts file any more" in text(site.get(f"/day/main_cash/{yesterday}"))


# --- a day


def test_the_day_shows_what_moved_and_it_adds_up(site: Any, delivered: Store, yesterday: date) -> None:
    page = site.get(f"/day/main_cash/{yesterday}")
    rows = [row for row in table(page) if len(row) == 7 and row[0] != "Asset" and not row[1].startswith("20")]
    assert len(rows) > 5
    for _, opening, received, given, fees, closing, drift in rows:
        assert Decimal(opening) + Decimal(received) + Decimal(given) + Decimal(fees) == Decimal(closing)
        assert drift == "0"
    for name in ("elven", "amlyze"):
        assert f"{name} delivered" in text(page)


def test_a_break_is_shown_with_the_records_around_it(site: Any, delivered: Store, yesterday: date) -> None:
    book = site.get(f"/day/main_cash/{yesterday}/ledger.csv")
    of_btc = [row for row in csv.DictReader(io.StringIO(book)) if row["asset"] == "BTC"]
    first = {"kind": "chain", "asset": "BTC", "amount": "0.5"}
    sns = {"last_good_sn": int(of_btc[3]["sn"]), "first_bad_sn": int(of_btc[4]["sn"])}
    site.break_day("main_cash", yesterday, breaks=[{**first, **sns}])
    page = site.get(f"/day/main_cash/{yesterday}")
    assert "BTC: 0.5 unexplained" in text(page)
    assert f"the first bad one {of_btc[4]['sn']}, at {of_btc[4]['at']}" in text(page)
    assert [row[0] for row in table(page) if row[0].isdigit() and len(row) == 6] == [row["sn"] for row in of_btc[1:7]]


def test_downloads_have_the_exact_digits_in_both_forms(site: Any, delivered: Store, yesterday: date) -> None:
    rows = list(csv.DictReader(io.StringIO(site.get(f"/day/main_cash/{yesterday}/movements.csv"))))
    response = site.client.get(f"/airflow/balances/day/main_cash/{yesterday}/movements.parquet")
    frame = pd.read_parquet(io.BytesIO(response.content), dtype_backend="pyarrow")
    assert [Decimal(row["closing"]) for row in rows] == list(frame["closing"])
    assert max(len(row["closing"].partition(".")[2]) for row in rows) == 18
    assert all("E" not in row["closing"] for row in rows)
    deliveries = list(csv.DictReader(io.StringIO(site.get(f"/day/main_cash/{yesterday}/deliveries.csv"))))
    assert {row["destination"] for row in deliveries} == {"elven", "amlyze"}


def test_a_day_that_was_not_run_has_no_tables_and_says_so(site: Any, yesterday: date) -> None:
    assert "missing" in text(site.get(f"/day/main_cash/{yesterday}"))
    assert "was not run yet" in text(site.get(f"/day/main_cash/{yesterday}/ledger.csv", status=404))


# --- an asset


def test_an_asset_shows_its_balance_over_time_and_what_was_delivered(
    site: Any, delivered: Store, yesterday: date
) -> None:
    page = site.get("/asset/main_cash/BTC?days=2")
    rows = table(page)[1:]
    assert [row[2] for row in rows if row[3] == ""] == [f"opening of {yesterday}", f"closing of {yesterday}"]
    assert rows[-1][4] == "amlyze, elven"
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)
    assert "no balance of NOPE" in text(site.get("/asset/main_cash/NOPE"))
    assert "no balance of A/B" in text(site.get("/asset/main_cash/A%2FB"))


# --- what can be done


@pytest.mark.parametrize(
    ("act", "more"), [("rerun", {}), ("refetch", {"refetch": True}), ("dry run", {"dry_run": True})]
)
def test_an_act_starts_one_run_and_goes_on_record_under_the_users_name(
    site: Any, yesterday: date, act: str, more: dict[str, Any]
) -> None:
    there = site.post(f"/day/main_cash/{yesterday}/run", act=act)
    assert there == f"/airflow/balances/day/main_cash/{yesterday}"
    (run,) = site.started
    assert (run["dag"], run["conf"]) == ("balances_main_cash", {"date": str(yesterday), **more})
    assert str(yesterday) in run["run_id"]
    assert run["triggering_user_name"] == "alice"
    (known,) = decisions.read(site.store, "main_cash", yesterday)
    assert (known.act, known.by, known.run_id) == (act, "alice", run["run_id"])
    assert "alice" in text(site.get(f"/day/main_cash/{yesterday}"))


def test_only_runs_are_started_as_runs(site: Any, yesterday: date) -> None:
    for act in ("approved", "refused", "delete"):
        site.post(f"/day/main_cash/{yesterday}/run", status=400, act=act)
    assert (site.started, decisions.read(site.store, "main_cash", yesterday)) == ([], [])


def held(site: Any, yesterday: date) -> str:
    """A day that somebody is asked about; the digest of its proof."""
    site.place.replace("    start_date:", "    on_break: ask\n    start_date:")
    proof = site.break_day("main_cash", yesterday)
    page = site.get(f"/day/main_cash/{yesterday}")
    assert f'name="proof" value="{proof}"' in page
    return str(proof)


def test_an_approval_goes_on_record_with_its_reason_and_runs_the_day(
    site: Any, delivered: Store, yesterday: date
) -> None:
    proof = held(site, yesterday)
    site.post(f"/day/main_cash/{yesterday}/decide", act="approved", proof=proof, reason="the bank says so")
    found = decisions.about(site.store, "main_cash", yesterday, proof)
    assert found is not None
    assert (found.act, found.by, found.reason) == (Act.APPROVED, "alice", "the bank says so")
    assert [run["conf"] for run in site.started] == [{"date": str(yesterday)}]
    page = site.get(f"/day/main_cash/{yesterday}")
    assert "the bank says so" in text(page)
    assert 'name="proof"' not in page, "nobody is asked twice"


def test_a_refusal_goes_on_record_and_runs_nothing(site: Any, delivered: Store, yesterday: date) -> None:
    proof = held(site, yesterday)
    site.post(f"/day/main_cash/{yesterday}/decide", act="refused", proof=proof, reason="wrong")
    found = decisions.about(site.store, "main_cash", yesterday, proof)
    assert found is not None
    assert (found.act, site.started) == (Act.REFUSED, [])
    # Somebody may know better later.
    site.post(f"/day/main_cash/{yesterday}/decide", act="approved", proof=proof, reason="it is right after all")
    assert len(site.started) == 1


def test_a_decision_about_what_has_changed_or_is_decided_is_not_taken(
    site: Any, delivered: Store, yesterday: date
) -> None:
    proof = held(site, yesterday)
    newer = site.break_day("main_cash", yesterday, "0.75")
    path, form = f"/day/main_cash/{yesterday}/decide", {"act": "approved", "reason": "x"}
    assert "another proof" in text(site.post(path, status=409, proof=proof, **form))
    site.post(path, proof=newer, **form)
    assert "already decided" in text(site.post(path, status=409, proof=newer, **form))
    assert len(site.started) == 1
    site.post(path, status=400, proof=newer, act="rerun", reason="x")
    site.post(path, status=400, proof=newer, act="approved", reason="")


def test_what_nobody_has_confirmed_can_be_resolved_under_the_users_name(site: Any, yesterday: date) -> None:
    site.place.deliver_and_lose_responses("main_cash", yesterday, "amlyze-ws-rest")

    def asked() -> list[str]:
        return re.findall(r'name="number" value="([^"]+)"', site.get(f"/day/main_cash/{yesterday}"))

    numbers = asked()
    assert len(numbers) > 5
    path, form = f"/day/main_cash/{yesterday}/resolve", {"destination": "amlyze", "reason": "ticket 4711"}
    site.post(path, number=numbers[0], said="accepted", **form)
    assert asked() == numbers[1:]
    assert "alice: ticket 4711" in text(site.get(f"/day/main_cash/{yesterday}"))
    assert "not among the numbers" in text(site.post(path, status=409, number=numbers[0], said="rejected", **form))
    site.triggerable = ()
    assert asked() == []
    site.post(path, status=403, number=numbers[1], said="accepted", **form)


@pytest.mark.parametrize("on_break", ["hold", "load"])
def test_nobody_approves_where_nobody_is_asked(site: Any, delivered: Store, yesterday: date, on_break: str) -> None:
    site.place.replace("    start_date:", f"    on_break: {on_break}\n    start_date:")
    proof = site.break_day("main_cash", yesterday)
    path = f"/day/main_cash/{yesterday}/decide"
    assert "nobody is asked" in text(site.post(path, status=409, act="approved", proof=proof, reason="x"))
    assert (site.started, decisions.read(site.store, "main_cash", yesterday)) == ([], [])


def test_what_an_earlier_run_worked_out_is_not_delivered_once_the_day_is_held(site: Any, yesterday: date) -> None:
    proof = site.place.reconcile("main_cash", yesterday)
    site.break_day("main_cash", yesterday)
    with pytest.raises(SupersededRun, match="does not add up"):
        site.place.load("main_cash", "elven", proof)
    assert site.place.arrived()["elven"] == 0


def test_an_index_that_cannot_be_written_fails_no_delivery(
    site: Any, yesterday: date, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise PermissionError("made by somebody else")

    monkeypatch.setattr(index, "record", fail)
    site.place.deliver("main_cash", yesterday)
    assert site.place.arrived()["elven"] > 0


# --- who may


def routes() -> list[tuple[str, str]]:
    from balance_bridge.ui.app import app

    found = []
    for route in app.routes:
        if isinstance(route, Route):
            path = route.path.replace("{asset:path}", "BTC")
            for name, value in (("account", "main_cash"), ("day", "2026-11-20"), ("what", "ledger"), ("form", "csv")):
                path = path.replace(f"{{{name}}}", value)
            found += [(method, path) for method in route.methods or () if method != "HEAD"]
        else:
            assert isinstance(route, Mount)
            assert route.name == "static"
    return found


def test_nobody_who_is_not_signed_in_sees_anything_but_how_to_sign_in(site: Any) -> None:
    site.user = None
    assert len(routes()) >= 6
    for method, path in routes():
        response = site.client.request(method, f"/airflow/balances{path}", headers={"Sec-Fetch-Site": "same-origin"})
        assert response.status_code == 401, path
        assert "/airflow/auth/login?next=" in response.text
        assert "main_cash" not in response.text


def test_an_account_that_the_user_may_not_read_does_not_exist(site: Any, delivered: Store, yesterday: date) -> None:
    site.readable = ("main_margin",)
    assert cells(site.get("/"), "main_cash") == {}
    assert "main_cash" not in site.get("/")
    for path in (f"/day/main_cash/{yesterday}", f"/day/main_cash/{yesterday}/ledger.csv", "/asset/main_cash/BTC"):
        hidden, missing = site.get(path, status=404), site.get(path.replace("main_cash", "nowhere"), status=404)
        assert hidden.replace("main_cash", "nowhere") == missing, "not even whether it exists"
    site.post(f"/day/main_cash/{yesterday}/run", status=404, act="rerun")
    assert site.started == []


def test_who_may_only_look_has_no_buttons_and_starts_nothing(site: Any, delivered: Store, yesterday: date) -> None:
    proof = held(site, yesterday)
    site.triggerable = ()
    assert "<button" not in site.get(f"/day/main_cash/{yesterday}")
    site.post(f"/day/main_cash/{yesterday}/run", status=403, act="rerun")
    site.post(f"/day/main_cash/{yesterday}/decide", status=403, act="approved", proof=proof, reason="x")
    assert site.started == []
    assert decisions.read(site.store, "main_cash", yesterday) == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "https://evil.test"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "https://airflow.test"},
        {},
    ],
    ids=str,
)
def test_a_request_that_another_site_makes_does_nothing(site: Any, yesterday: date, headers: dict[str, str]) -> None:
    site.post(f"/day/main_cash/{yesterday}/run", status=403, headers=headers, act="rerun")
    assert (site.started, decisions.read(site.store, "main_cash", yesterday)) == ([], [])


def test_a_browser_that_only_says_its_origin_may_act(site: Any, yesterday: date) -> None:
    site.post(f"/day/main_cash/{yesterday}/run", headers={"Origin": "https://airflow.test"}, act="rerun")
    assert len(site.started) == 1


# --- what never happens


def test_every_response_forbids_what_comes_from_elsewhere_and_is_not_kept(site: Any) -> None:
    for path in ("/", "/day/main_cash/2026-11-20", "/nowhere", "/static/page.css"):
        headers = site.client.get(f"/airflow/balances{path}").headers
        assert "default-src 'self'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["cache-control"] == "no-store"


def test_a_text_from_outside_is_text_on_the_page(site: Any, delivered: Store, yesterday: date) -> None:
    evil = "<script>alert(1)</script>"
    first = {"kind": "chain", "asset": evil, "amount": "1", "last_good_sn": 1, "first_bad_sn": 2}
    site.break_day("main_cash", yesterday, breaks=[first], drift={evil: "1"})
    decisions.record(site.store, "main_cash", yesterday, Decision(Act.REFUSED, evil, "x", evil))
    site.user = evil
    for page in (site.get("/"), site.get(f"/day/main_cash/{yesterday}"), site.get(f"/asset/main_cash/{evil}")):
        assert evil not in page
        assert "&lt;script&gt;" in page
    assert evil not in site.get(f"/?account={evil}")


def test_a_store_that_cannot_be_read_is_named_and_the_page_stays_up(
    site: Any, delivered: Store, yesterday: date
) -> None:
    index.record(delivered, "main_cash", yesterday)
    key = delivered.list("index")[-1]
    site.place.folder.joinpath("balances", key).chmod(0o600)
    site.place.folder.joinpath("balances", key).write_bytes(to_json({"version": 99}))
    page = text(site.get("/", status=503))
    assert key in page
    assert "balance-bridge store index" in page
    report = delivered.newest(f"reconciliation/main_cash/{yesterday}", ".json")
    site.place.folder.joinpath("balances", str(report)).chmod(0o600)
    site.place.folder.joinpath("balances", str(report)).write_bytes(b"torn")
    page = text(site.get(f"/day/main_cash/{yesterday}"))
    assert "unreadable" in page
    assert "0001.json is not JSON" in page
