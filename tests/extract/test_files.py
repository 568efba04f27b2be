"""Balances and changes out of files: what is read, what is waited for, and what is refused with its place."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from upath import UPath

from balance_bridge import daily, intraday
from balance_bridge.clock import Clock
from balance_bridge.errors import (
    ConnectionFailed,
    Contradiction,
    InvalidResponse,
    NotYetAvailable,
    ReconciliationBroken,
    RequestRefused,
)
from balance_bridge.extract.files import FilesAccount
from balance_bridge.money import EXACT
from balance_bridge.store import Store
from balance_bridge.transform import ledger

DAY = date(2026, 11, 20)
NEXT = date(2026, 11, 21)
AFTER = date(2026, 11, 22)
SNAPSHOT = "account,sn,at,asset,balance\n"
CHANGES = "account,sn,at,event,reference,asset,delta,balance,fee\n"
WANTED = [daily.BalanceRequest("books", ["close", "changes"], "UTC", "instant", DAY)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two days of an account, as a custodian sends them."""
    files = {
        f"snapshots/{DAY}.csv": SNAPSHOT
        + f"4711,1000,{DAY}T00:00:00Z,BTC,1.5\n"
        + f"4711,1000,{DAY}T00:00:00Z,EUR,250000.11\n",
        f"changes/{DAY}.csv": CHANGES
        + f"4711,1001,{DAY}T08:07:34.605Z,Buy,order-9,BTC,0.5,2,\n"
        + f"4711,1001,{DAY}T08:07:34.605Z,Buy,order-9,EUR,-30000,219985.11,\n"
        + f"4711,1001,{DAY}T08:07:34.605Z,Buy,order-9,EUR,-15,219985.11,true\n",
        f"snapshots/{NEXT}.csv": SNAPSHOT
        + f"4711,1001,{NEXT}T00:00:00Z,BTC,2\n"
        + f"4711,1001,{NEXT}T00:00:00Z,EUR,219985.11\n",
        f"changes/{NEXT}.json": json.dumps(
            {
                "account": "4711",
                "changes": [
                    {
                        "sn": 1002,
                        "at": f"{NEXT}T10:00:00+02:00",
                        "event": "Interest",
                        "legs": [
                            {"asset": "EUR", "delta": "0.000000000000000001", "balance": "219985.110000000000000001"}
                        ],
                    }
                ],
            }
        ),
        f"snapshots/{AFTER}.json": json.dumps(
            {
                "account": "4711",
                "sn": 1002,
                "at": f"{AFTER}T00:00:00Z",
                "balances": {"BTC": "2", "EUR": "219985.110000000000000001"},
            }
        ),
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def source(root: Any, **options: Any) -> FilesAccount:
    at = datetime(2026, 11, 22, 12, tzinfo=UTC).timestamp()
    return FilesAccount(root, clock=Clock(wall=lambda: at), **options)


def run(root: Any, store: Store, day: date, *, refetch: bool = False, **options: Any) -> dict[str, Any]:
    job = daily.Job(source(root, **options), store, "custody", day, "run-1", refetch)
    daily.fetch_snapshot(job, "opening")
    daily.fetch_snapshot(job, "closing")
    found = daily.fetch_history(job, {})
    return daily.reconcile(job, found, tolerance={}, on_break="hold", destinations=WANTED)


def test_days_of_files_are_proven_and_become_balances(folder: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    for day, records in ((DAY, 1), (NEXT, 1)):
        done = run(folder, store, day)
        assert (done["status"], done["records"]) == ("proven", records)
    from balance_bridge.transform import balances

    frame = balances.from_parquet(store.read(done["balances"]["books"]))
    assert dict(zip(frame["asset"], frame["balance"], strict=False))["EUR"] == Decimal("219985.110000000000000001")


def test_a_bucket_is_read_as_a_folder_is(folder: Path, tmp_path: Path) -> None:
    bucket = UPath(f"memory://files-{datetime.now(UTC).timestamp()}")
    for path in folder.rglob("*.*"):
        place = bucket / str(path.relative_to(folder))
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(path.read_bytes())
    assert run(bucket, Store(tmp_path / "store"), DAY)["status"] == "proven"
    assert source(bucket).check().endswith("holds 3 snapshots and 2 files of changes")


def test_what_was_read_is_kept_and_files_may_go(folder: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    first = run(folder, store, DAY)
    for path in folder.rglob("*.csv"):
        path.unlink()
    assert run(folder, store, DAY) == first


def test_a_day_may_come_in_several_files_and_late_records_in_the_next_days(folder: Path, tmp_path: Path) -> None:
    for name, sn, asset, delta, balance in (
        (f"{DAY}-evening.csv", 1003, "BTC", "1", "3"),
        (f"{NEXT}-late.csv", 1004, "BTC", "-1", "2"),
    ):
        row = f"4711,{sn},{DAY}T23:59:59Z,Transfer,,{asset},{delta},{balance},\n"
        (folder / "changes" / name).write_text(CHANGES + row)
    for name in (f"snapshots/{NEXT}.csv",):
        path = folder / name
        path.write_text(path.read_text().replace(",1001,", ",1004,"))
    (folder / "changes" / f"{NEXT}.json").unlink()
    done = run(folder, Store(tmp_path / "store"), DAY)
    assert (done["status"], done["records"]) == ("proven", 3)


def test_a_part_that_is_missing_holds_the_day_until_it_is_asked_for_anew(folder: Path, tmp_path: Path) -> None:
    store, path = Store(tmp_path / "store"), folder / "changes" / f"{DAY}.csv"
    text = path.read_text()
    path.write_text("".join(line for line in text.splitlines(keepends=True) if "EUR" not in line))
    with pytest.raises(ReconciliationBroken, match="EUR"):
        run(folder, store, DAY)
    path.write_text(text)
    assert run(folder, store, DAY, refetch=True)["status"] == "proven"


@pytest.mark.parametrize("name", [f".{DAY}.csv", f"_{DAY}.csv", f"{DAY}.csv.tmp", f"{DAY}.part", f"{DAY}1.csv"])
def test_a_file_that_is_being_written_or_is_none_of_the_day_is_not_looked_at(folder: Path, name: str) -> None:
    (folder / "changes" / f"{DAY}.csv").rename(folder / "changes" / name)
    with pytest.raises(NotYetAvailable, match=rf"neither changes/{DAY}\*.csv nor changes/{DAY}\*.json"):
        source(folder).fetch_changes(1001, DAY, 1001)


def test_what_is_not_there_yet_is_waited_for(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(NotYetAvailable, match=r"neither snapshots/2026-11-25.csv nor"):
        source(folder).fetch_snapshot(date(2026, 11, 25))
    with pytest.raises(NotYetAvailable):
        source(tmp_path / "nowhere").fetch_snapshot(DAY)


def test_two_files_of_one_snapshot_are_refused(folder: Path) -> None:
    (folder / "snapshots" / f"{DAY}.json").write_text("{}")
    with pytest.raises(RequestRefused, match=r"has both snapshots/2026-11-20.csv and snapshots/2026-11-20.json"):
        source(folder).fetch_snapshot(DAY)


def test_a_folder_that_cannot_be_reached_is_tried_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(ConnectionFailed, match=r"snapshots/2026-11-20.csv cannot be reached: .*Input/output error"):
        source(folder).fetch_snapshot(DAY)


def test_a_file_that_may_not_be_read_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(RequestRefused, match="may not be read"):
        source(folder).fetch_snapshot(DAY)


def test_how_far_back_files_are_kept_is_configured(folder: Path) -> None:
    assert source(folder).oldest() is None
    assert source(folder, retention_days=30).oldest() == date(2026, 11, 22) - timedelta(days=30)


def bad_snapshot(folder: Path, text: str) -> str:
    (folder / "snapshots" / f"{DAY}.csv").write_text(text)
    found = source(folder)
    with pytest.raises(InvalidResponse) as caught:
        found.read_snapshot(found.fetch_snapshot(DAY).body, DAY)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("account,sn,at,asset\n4711,1,2026-11-20T00:00:00Z,BTC\n", "balance"),
        ("account,sn,at,asset,balance,colour\n", "colour"),
        ("account,sn,at,asset,balance,balance\n", "balance"),
        (f"{SNAPSHOT}4711,1000,2026-11-20T00:00:00Z,BTC,1e400\n", "1E+400 has more than 20 digits"),
        (f'{SNAPSHOT}4711,1000,2026-11-20T00:00:00Z,BTC,"1,5"\n', "1,5"),
        (f"{SNAPSHOT}4711,1000,2026-11-20T00:00:00Z,BTC,NaN\n", "NaN"),
        (f"{SNAPSHOT}4711,1000,2026-11-20T01:00:00Z,BTC,1\n", "2026-11-20"),
        (f"{SNAPSHOT}4711,1000,2026-11-20 00:00:00,BTC,1\n", "2026-11-20 00:00:00"),
        (f"{SNAPSHOT}4711,x,2026-11-20T00:00:00Z,BTC,1\n", "'x'"),
        (f"{SNAPSHOT}4711,1000,2026-11-20T00:00:00Z,BTC,1\n4712,1000,2026-11-20T00:00:00Z,ETH,1\n", "4712"),
        (f"{SNAPSHOT}4711,1000,2026-11-20T00:00:00Z,BTC,1\n4711,1000,2026-11-20T00:00:00Z,BTC,2\n", "BTC"),
        ("", "2026-11-20.csv"),
    ],
)
def test_a_snapshot_that_is_malformed_is_refused_with_file_and_value(folder: Path, text: str, told: str) -> None:
    message = bad_snapshot(folder, text)
    assert told in message
    assert f"{DAY}.csv" in message


def test_a_byte_order_mark_is_let_pass(folder: Path, tmp_path: Path) -> None:
    for path in folder.rglob("*.csv"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert run(folder, Store(tmp_path / "store"), DAY)["status"] == "proven"


def test_a_file_that_is_not_utf_8_is_refused(folder: Path) -> None:
    (folder / "snapshots" / f"{DAY}.csv").write_bytes("account,sn,at,asset,balance\nKäse".encode("latin-1"))
    with pytest.raises(InvalidResponse, match="is not UTF-8"):
        source(folder).fetch_snapshot(DAY)


def test_one_number_with_two_contents_in_two_files_is_refused(folder: Path) -> None:
    row = f"4711,1001,{DAY}T08:07:34.605Z,Buy,order-9,BTC,0.7,2.2,\n"
    (folder / "changes" / f"{DAY}-again.csv").write_text(CHANGES + row)
    found = source(folder)
    with pytest.raises(InvalidResponse, match="1001"):
        found.read_page(found.fetch_changes(1001, DAY, None).body)


def test_a_change_that_is_in_a_csv_and_in_a_json_is_one_change(folder: Path) -> None:
    (folder / "changes" / f"{NEXT}.json").unlink()
    legs = [
        {"asset": "EUR", "delta": "7.50", "balance": 7.5},
        {"asset": "EUR", "delta": "-15.0", "balance": "219985.11", "fee": True},
    ]
    change = {"sn": 1001, "at": f"{DAY}T09:07:34.605+01:00", "event": None, "legs": legs}
    (folder / "changes" / f"{DAY}.json").write_text(json.dumps({"account": "4711", "changes": [change, change]}))
    row = f"4711,1001,{DAY}T08:07:34.605Z,,,EUR"
    (folder / "changes" / f"{DAY}.csv").write_text(
        f"{CHANGES}{row},-15,219985.11,true\n\n{row},7.5,7.5,false\n".replace("\n", "\r\n")
    )
    found = source(folder)
    page = found.read_page(found.fetch_changes(1001, DAY, None).body)
    assert (len(page), page.legs["delta"].to_pylist()) == (1, [Decimal("-15"), Decimal("7.5")])


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ("4711,1001,2026-11-20T08:00:00Z,Buy,,BTC,0.5,2\n", "line 2: 9 fields are expected"),
        (
            "4711,1001,2026-11-20T08:00:00Z,Buy,,BTC,0.5,2,yes\n",
            "line 2 fee: true, false or nothing is expected; the value is 'yes'",
        ),
        ("4711,1001,2026-11-20T08:00:00Z,Buy,,BTC,0x5,2,\n", "line 2 delta: '0x5' is not an amount"),
        ("4711,1001,2026-11-20T08:00:00Z,Buy,,BTC,1,2,\n4711,1001,2026-11-20T08:00:01Z,Buy,,ETH,1,2,\n", "line 3: at"),
        ("4711,1001,2026-11-20T08:00:00Z,Buy,,BTC,1,2,\n4712,1002,2026-11-20T08:00:01Z,Buy,,ETH,1,2,\n", "line 3: acc"),
        (
            "4711,-1,2026-11-20T08:00:00Z,Buy,,BTC,1,2,\n",
            "line 2 sn: a whole number from 0 to 9223372036854775807 is expected; the value is '-1'",
        ),
    ],
)
def test_a_row_of_changes_that_is_malformed_is_refused_with_line_and_column(folder: Path, rows: str, told: str) -> None:
    (folder / "changes" / f"{DAY}.csv").write_text(CHANGES + rows)
    found = source(folder)
    with pytest.raises(InvalidResponse, match=rf"^changes/{DAY}\.csv {told}"):
        found.read_page(found.fetch_changes(1001, DAY, None).body)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"account": "4711", "changes": [], "account": "1"}', "the key 'account' comes twice"),
        ('{"account": "4711", "changes": [{"sn": "1", "at": "2026-11-20T08:00:00Z", "legs": []}]}', "changes.0.sn"),
        ('{"account": "4711", "changes": [{"sn": 1, "at": "2026-11-20T08:00:00Z", "legs": []}]}', "changes.0.legs"),
        ('{"account": "4711", "changes": [{"sn": true, "at": "x", "legs": []}]}', "changes.0.sn"),
        ('{"account": " ", "changes": []}', "account: the account's name"),
        ('{"account": "4711", "changes": [], "colour": 1}', "colour: this key is unknown"),
        ('{"account": "4711"}', "changes: it is missing"),
    ],
)
def test_a_document_of_changes_that_is_malformed_is_refused_with_its_path(folder: Path, text: str, told: str) -> None:
    (folder / "changes" / f"{DAY}.json").write_text(text)
    found = source(folder)
    with pytest.raises(InvalidResponse, match=rf"^changes/{DAY}\.json.*{told}"):
        found.read_page(found.fetch_changes(1001, DAY, None).body)


@pytest.mark.parametrize(
    ("name", "old", "new", "told"),
    [
        (f"snapshots/{AFTER}.json", '"account": "4711"', '"account": "47\\ud800"', "account"),
        (f"snapshots/{AFTER}.json", '"BTC"', '"\\ud800"', "balances"),
        (f"snapshots/{AFTER}.json", '"sn"', '"\\ud800": 1, "sn"', "ud800"),
        (f"changes/{NEXT}.json", '"account": "4711"', '"account": "47\\udfff"', "account"),
        (f"changes/{NEXT}.json", '"Interest"', '"Interest \\ud83d"', "event"),
        (f"changes/{NEXT}.json", '"legs"', '"reference": "\\ude00", "legs"', "reference"),
        (f"changes/{NEXT}.json", '"EUR"', '"EUR\\ud800"', "asset"),
    ],
)
def test_text_that_cannot_be_written_down_again_is_refused_with_its_place_until_the_file_is_corrected(
    folder: Path, tmp_path: Path, name: str, old: str, new: str, told: str
) -> None:
    store, text = Store(tmp_path / "store"), (folder / name).read_text()
    assert old in text
    (folder / name).write_text(text.replace(old, new))
    with pytest.raises(InvalidResponse) as caught:
        run(folder, store, NEXT)
    assert str(caught.value).startswith(f"{name}")
    assert told in str(caught.value)
    assert str(caught.value).isprintable()
    (folder / name).write_text(text)
    assert run(folder, store, NEXT)["status"] == "proven"


@pytest.mark.parametrize("at", ["9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59"])
@pytest.mark.parametrize("name", [f"snapshots/{AFTER}.json", f"changes/{NEXT}.json"])
def test_an_instant_outside_the_years_that_can_be_held_is_refused_with_its_place(
    folder: Path, tmp_path: Path, name: str, at: str
) -> None:
    text = (folder / name).read_text()
    (folder / name).write_text(text.replace(f"{NEXT}T10:00:00+02:00", at).replace(f"{AFTER}T00:00:00Z", at))
    with pytest.raises(InvalidResponse, match=rf"^{name}.*at") as caught:
        run(folder, Store(tmp_path / "store"), NEXT)
    assert at in str(caught.value)


IS = "is expected; the value is"
SN = f"a whole number from 0 to 9223372036854775807 {IS}"
ASSET = f"an asset code of 1 to 64 characters without blanks {IS}"


@pytest.mark.parametrize(
    ("document", "told"),
    [
        (0, f": an object with account, sn, at, balances {IS} 0"),
        ({"account": 1}, f" account: the account's name or number as text in one line {IS} 1"),
        ({"account": "1"}, " sn: it is missing"),
        ({"account": "1", "sn": 1.5}, f" sn: {SN} 1.5"),
        ({"account": "1", "sn": 2**63}, f" sn: {SN} 9223372036854775808"),
        ({"account": "1", "sn": 1, "at": "today"}, " at: an instant such as 2026-11-20T00:00:00Z, with Z or an offset"),
        ({"balances": 7}, f" balances: an object with an amount for each asset {IS} 7"),
        ({"balances": {"B C": "7"}}, f" balances asset: {ASSET} 'B C'"),
        ({"balances": {"BTC": []}}, " balances.BTC: [] is not an amount: digits with an optional sign"),
        ({"balances": {"BTC": "1e-19"}}, " balances.BTC: 1E-19 has more than 18 decimals"),
        ("4711,1,2026-11-20T00:00:00Z,B C,1", f" line 2 asset: {ASSET} 'B C'"),
        ("4711,1,2026-11-20T00:00:00Z,BTC,x", " line 2 balance: 'x' is not an amount: digits with an optional sign"),
        ("4711,one,2026-11-20T00:00:00Z,BTC,1", f" line 2 sn: {SN} 'one'"),
    ],
)
def test_a_message_about_a_snapshot_names_the_column_and_what_is_expected(
    folder: Path, document: object, told: str
) -> None:
    is_row = isinstance(document, str)
    if isinstance(document, dict) and "balances" in document:
        document = {"account": "1", "sn": 1, "at": f"{DAY}T00:00:00Z"} | document
    (folder / f"snapshots/{DAY}.csv").unlink()
    name = f"snapshots/{DAY}.{'csv' if is_row else 'json'}"
    (folder / name).write_text(f"{SNAPSHOT}{document}\n" if is_row else json.dumps(document))
    found = source(folder)
    with pytest.raises(InvalidResponse) as caught:
        found.read_snapshot(found.fetch_snapshot(DAY).body, DAY)
    assert str(caught.value).startswith(f"{name}{told}")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (0, f"changes: a list of changes {IS} 0"),
        ([0], f"changes.0: an object with sn, at, event, reference, legs {IS} 0"),
        ([{"event": 0}], f"changes.0.event: text in one line {IS} 0"),
        ([{"reference": "a\nb"}], f"changes.0.reference: text in one line {IS} 'a\\nb'"),
        ([{"legs": []}], f"changes.0.legs: a list of at least one leg {IS} []"),
        ([{"legs": 0}], f"changes.0.legs: a list of at least one leg {IS} 0"),
        ([{"legs": [0]}], f"changes.0.legs.0: an object with asset, delta, balance, fee {IS} 0"),
        ([{"legs": [{"asset": 0}]}], f"changes.0.legs.0.asset: {ASSET} 0"),
        ([{"legs": [{"asset": "A", "delta": "1", "balance": "1", "fee": 0}]}], "changes.0.legs.0.fee: true, false or"),
        ([{"colour": 0}], "changes.0.colour: this key is unknown"),
    ],
)
def test_a_message_about_changes_names_the_column_and_what_is_expected(folder: Path, changes: Any, told: str) -> None:
    if isinstance(changes, list) and isinstance(changes[0], dict):
        legs = [{"asset": "A", "delta": "1", "balance": "1"}]
        changes = [{"sn": 1, "at": f"{DAY}T08:00:00Z", "legs": legs} | changes[0]]
    (folder / f"changes/{DAY}.json").write_text(json.dumps({"account": "4711", "changes": changes}))
    found = source(folder)
    with pytest.raises(InvalidResponse) as caught:
        found.read_page(found.fetch_changes(1001, DAY, None).body)
    assert str(caught.value).startswith(f"changes/{DAY}.json {told}")


AMOUNTS = st.integers(-(10**38) + 1, 10**38 - 1).map(lambda units: EXACT.scaleb(Decimal(units), -18))


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(AMOUNTS, AMOUNTS), min_size=1, max_size=6),
    where=st.lists(st.integers(0, 2), min_size=6, max_size=6),
)
def test_amounts_come_exactly_however_the_records_are_divided_over_files(
    rows: list[tuple[Decimal, Decimal]], where: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("files")
    (folder / "changes").mkdir()
    for number in range(3):
        listed = [
            {"sn": 10 + at, "at": f"{DAY}T01:00:00Z", "event": "x", "legs": [
                {"asset": "BTC", "delta": format(delta, "f"), "balance": format(balance, "f")}]}
            for at, (delta, balance) in enumerate(rows)
            if where[at] == number
        ]  # fmt: skip
        (folder / "changes" / f"{DAY}-{number}.json").write_text(json.dumps({"account": "1", "changes": listed}))
    found = source(folder)
    page = found.read_page(found.fetch_changes(0, DAY, None).body)
    table = page.legs.sort_by("sn")
    assert table["delta"].to_pylist() == [delta for delta, _ in rows]
    assert table["balance"].to_pylist() == [balance for _, balance in rows]


def evening(folder: Path, name: str = f"{DAY}-evening.csv") -> Path:
    """A sum that arrives and leaves again within one file; the day closes with its last change."""
    rows = f"4711,1002,{DAY}T19:00:00Z,In,,BTC,5,7,\n4711,1003,{DAY}T20:00:00Z,Out,,BTC,-5,2,\n"
    path = folder / "changes" / name
    path.write_text(CHANGES + rows)
    closing = folder / "snapshots" / f"{NEXT}.csv"
    closing.write_text(closing.read_text().replace(",1001,", ",1003,"))
    (folder / "changes" / f"{NEXT}.json").unlink()
    return path


@pytest.mark.parametrize("following", [False, True], ids=["last day", "the next day's file is there"])
@pytest.mark.parametrize("retention_days", [None, 30])
def test_a_day_whose_last_change_is_not_there_is_waited_for_and_never_proven_without_it(
    folder: Path, tmp_path: Path, retention_days: int | None, following: bool
) -> None:
    path, store = evening(folder), Store(tmp_path / "store")
    text = path.read_text()
    path.unlink()
    if following:
        late = f"4711,1004,{NEXT}T08:00:00Z,In,,BTC,1,3,\n"
        (folder / "changes" / f"{NEXT}.csv").write_text(CHANGES + late)
    for _ in range(2):
        with pytest.raises(NotYetAvailable, match="sn 1003, which closes the day"):
            run(folder, store, DAY, retention_days=retention_days)
    path.write_text(text)
    done = run(folder, store, DAY, retention_days=retention_days)
    assert (done["status"], done["records"]) == ("proven", 3)


@pytest.mark.parametrize("which", ["snapshots", "changes"])
def test_a_missing_file_is_waited_for_although_files_are_taken_away_after_a_while(
    folder: Path, tmp_path: Path, which: str
) -> None:
    (folder / which / f"{DAY}.csv").unlink()
    with pytest.raises(NotYetAvailable):
        run(folder, Store(tmp_path / "store"), DAY, retention_days=30)


@pytest.mark.parametrize("run_before", [False, True])
def test_a_change_filed_under_the_day_before_is_found_whether_or_not_that_day_was_run(
    folder: Path, tmp_path: Path, run_before: bool
) -> None:
    early = json.loads((folder / "changes" / f"{NEXT}.json").read_text())
    (folder / "changes" / f"{NEXT}.json").unlink()
    (folder / "changes" / f"{DAY}-late.json").write_text(json.dumps(early))
    store = Store(tmp_path / "store")
    if run_before:
        assert run(folder, store, DAY)["status"] == "proven"
    done = run(folder, store, NEXT)
    assert (done["status"], done["records"]) == ("proven", 1)


def test_a_file_that_comes_after_its_day_was_followed_is_not_hidden_by_the_page_of_then(
    folder: Path, tmp_path: Path
) -> None:
    def replace(name: str, old: str, new: str) -> None:
        (folder / name).write_text((folder / name).read_text().replace(old, new))

    store = Store(tmp_path / "store")
    (folder / f"changes/{NEXT}.json").unlink()
    replace(f"changes/{DAY}.csv", "4711,1001,", "4711,1004,")
    noon = Clock(wall=lambda: datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp())
    intraday.run(daily.Job(FilesAccount(folder, clock=noon), store, "custody", DAY, "followed"), WANTED)
    # A sum that comes and goes before what was there at noon, by number; and the change that closes the day.
    (folder / f"changes/{DAY}-late.csv").write_text(
        CHANGES
        + f"4711,1002,{DAY}T06:00:00Z,In,,USD,1000000,1000000,\n"
        + f"4711,1003,{DAY}T06:30:00Z,Out,,USD,-1000000,0,\n"
        + f"4711,1005,{DAY}T20:00:00Z,Interest,,EUR,1,219986.11,\n"
    )
    replace(f"snapshots/{NEXT}.csv", "4711,1001,", "4711,1005,")
    replace(f"snapshots/{NEXT}.csv", "219985.11", "219986.11")
    done = run(folder, store, DAY)
    assert sorted(set(ledger.from_parquet(store.read(done["ledger"]))["sn"])) == [1002, 1003, 1004, 1005]


def test_changes_of_another_account_than_the_snapshots_are_refused(folder: Path, tmp_path: Path) -> None:
    (folder / f"changes/{NEXT}.json").unlink()
    changes = (folder / f"changes/{DAY}.csv").read_text()
    (folder / f"changes/{DAY}.csv").write_text(changes.replace("4711,", "0815,"))
    with pytest.raises(Contradiction, match="0815"):
        run(folder, Store(tmp_path / "store"), DAY)
