"""``balance-bridge store check`` finds what is damaged; ``store prune`` removes what can be done without."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd
import pytest

from balance_bridge import cli, settings
from balance_bridge.commands.deliveries import MANIFEST
from balance_bridge.commands.output import Finding
from balance_bridge.commands.store_check import check, folders, gaps
from balance_bridge.commands.store_prune import old_days
from balance_bridge.errors import StoreDamaged
from balance_bridge.load import documents, log
from balance_bridge.load.place import Owners
from balance_bridge.load.place import Place as Leads
from balance_bridge.store import Store, to_json
from balance_bridge.transform import balances


def findings(store: Store, kind: str = "damaged", **only: Any) -> list[Finding]:
    chosen, found = folders(store, **only)
    found += [finding for folder in chosen for finding in check(store, folder)]
    return [finding for finding in (*found, *gaps(chosen)) if finding.state == kind]


def stages(store: Store, **only: Any) -> dict[str, int]:
    """How many objects of each stage are read."""
    counts: Counter[str] = Counter()
    for folder in folders(store, **only)[0]:
        counts[folder.stage] += len(folder.keys)
    return dict(counts)


def test_a_sound_store_is_said_to_be_so_and_left_as_it_is(delivered: Store, capsys: pytest.CaptureFixture[str]) -> None:
    before = {key: delivered.read(key) for key in delivered.list("")}
    assert [findings(delivered, kind) for kind in ("damaged", "gap", "foreign")] == [[], [], []]
    assert set(stages(delivered)) == {"raw", "ledger", "reconciliation", "balances", "receipts"}
    capsys.readouterr()
    assert cli.main(["store", "check"]) == 0
    assert "Nothing is damaged." in capsys.readouterr().out
    assert {key: delivered.read(key) for key in delivered.list("")} == before


def files(place: Any, pattern: str) -> list[Path]:
    found = sorted((place.folder / "balances").glob(pattern))
    assert found
    return found


@contextmanager
def replaced(path: Path, data: bytes | None) -> Iterator[None]:
    """A file with other content, or gone, for a while."""
    before = path.read_bytes()
    path.unlink()
    if data is not None:
        path.write_bytes(data)
    yield
    path.unlink(missing_ok=True)
    path.write_bytes(before)


def one_digit_changed(path: Path) -> bytes:
    data = path.read_bytes()
    if path.suffix == ".gz":
        return gzip.compress(gzip.decompress(data)[:-2] + b"9}")
    if path.suffix == ".json":
        # A digit of an amount or a count, so that it is still JSON.
        at = next(place for place, byte in enumerate(data) if chr(byte) in "12345678" and place > 120)
        return data[:at] + b"9" + data[at + 1 :]
    return data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :]


def test_an_object_that_was_changed_or_is_gone_is_found_by_name(
    place: Any, delivered: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    patterns = {
        "raw/main_cash/*/snapshot/*.gz": "damaged",
        "raw/main_cash/*/history/*/*.gz": "damaged",
        f"raw/main_cash/*/{MANIFEST}/*.json": "not what was written",
        "ledger/main_cash/*/*.parquet": "ledger",
        "balances/main_cash/*/*/*.parquet": "balances",
        "reconciliation/main_cash/*/*.json": "not what was written",
    }
    for pattern, message in patterns.items():
        path = files(place, pattern)[0]
        with replaced(path, one_digit_changed(path)):
            capsys.readouterr()
            assert cli.main(["store", "check", "-o", "json"]) == 1
            found = json.loads(capsys.readouterr().out)
        key = str(path.relative_to(place.folder / "balances"))
        assert any(key.startswith(row["what"]) and message in row["message"] for row in found), found
    with replaced(files(place, "raw/main_cash/*/history/*/*.gz")[0], None):
        (damage,) = findings(delivered)
    assert "what it names is missing: 1 pages in raw/main_cash/" in damage.message
    with replaced(files(place, "receipts/main_cash/*/amlyze/plan-0001.jsonl.gz")[0], None):
        (damage,) = findings(delivered)
    assert "plan-0001.jsonl.gz is missing" in damage.message
    assert findings(delivered) == []


# What a delivery to one destination leaves, and what each is.
LOGGED: dict[str, type[msgspec.Struct]] = {
    "receipts/main_cash/*-*/amlyze/plan-0001.jsonl.gz": documents.Plan,
    "receipts/main_cash/*-*/amlyze/plan-0001/0001.try.jsonl": documents.Try,
    "receipts/main_cash/*-*/amlyze/plan-0001/0001.res.jsonl": documents.Result,
    "receipts/main_cash/places/amlyze/0001.jsonl": Leads,
    "receipts/places/*/0001.jsonl": Owners,
}


def truncated(data: bytes, _: type[msgspec.Struct]) -> bytes:
    return data[:-10]


def changed(data: bytes, kind: type[msgspec.Struct]) -> bytes:
    text = gzip.decompress(data) if kind is documents.Plan else data
    other = text.replace(b"1", b"7", 1)
    assert other != text
    return gzip.compress(other) if kind is documents.Plan else other


def emptied(_: bytes, __: type[msgspec.Struct]) -> bytes:
    return b""


def newer(data: bytes, kind: type[msgspec.Struct]) -> bytes:
    text = gzip.decompress(data) if kind is documents.Plan else data
    body = text.replace(b'"version":2', b'"version":3', 1).rstrip(b"\n").rpartition(b"\n")[0] + b"\n"
    sealed = body + b'{"sha256":"%s"}\n' % hashlib.sha256(body).hexdigest().encode()
    return gzip.compress(sealed) if kind is documents.Plan else sealed


def test_a_log_that_is_not_what_was_written_is_named_and_nothing_is_sent(
    place: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("balance_bridge.commands.status.dag_states", lambda: {})
    proof = place.reconcile("main_cash", place.yesterday)
    place.load("main_cash", "amlyze", proof)
    # So that a run that did not look at the log would have something to send.
    place.replace("requester: ", "requester: new ")
    before, requests = settings.open_store().list("receipts"), len(place.sandbox.journal.requests)
    for pattern, kind in LOGGED.items():
        (path,) = files(place, pattern)
        for damage in (truncated, changed, emptied, newer):
            with replaced(path, damage(path.read_bytes(), kind)):
                with pytest.raises(StoreDamaged) as caught:
                    place.load("main_cash", "amlyze", proof, redeliver=True)
                assert str(path) in str(caught.value)
                capsys.readouterr()
                assert cli.main(["store", "check"]) == 1
                said = capsys.readouterr().out
                assert str(path) in said
                assert "1 damaged." in said
                assert ("format version 3; this release reads 2" in said) == (damage is newer)
                for command in (["receipts", "main_cash", "yesterday"], ["status"]):
                    assert cli.main(command) == 1 or kind in (Leads, Owners)
                    said = capsys.readouterr()
                    assert (str(path) in said.out + said.err) == (kind not in (Leads, Owners)), command
    assert len(place.sandbox.journal.requests) == requests
    assert settings.open_store().list("receipts") == before


def test_a_resolution_that_is_not_what_was_written_is_named(place: Any, delivered: Store) -> None:
    its_log = log.DayLog(delivered, "main_cash", place.yesterday, "amlyze")
    its_log.put_resolution(documents.Resolution("Ada", "ticket 4711", "2026-11-21T00:00:00.000Z", {}))
    assert findings(delivered) == []
    (path,) = files(place, "receipts/main_cash/*/amlyze/resolved-0001.jsonl")
    path.write_bytes(path.read_bytes().replace(b"Ada", b"Eve"))
    (damage,) = findings(delivered)
    assert str(path) in damage.message


def test_an_object_in_a_log_that_is_no_part_of_it_is_damage_since_no_run_delivers_past_it(
    place: Any, delivered: Store
) -> None:
    path = files(place, "receipts/main_cash/*/amlyze/plan-0001.jsonl.gz")[0]
    (path.parent / "planned.json").write_text("{}")
    (damage,) = findings(delivered)
    assert "planned.json is not part of a delivery log of this release" in damage.message


def test_a_dry_run_that_is_not_what_was_written_is_named(place: Any, capsys: pytest.CaptureFixture[str]) -> None:
    place.reconcile("main_cash", place.yesterday)
    assert cli.main(["preview", "main_cash", str(place.yesterday), "--destination", "amlyze"]) == 0
    store = settings.open_store()
    assert findings(store) == []
    (path,) = files(place, "dry/main_cash/*/amlyze/0001.jsonl.gz")
    path.write_bytes(path.read_bytes()[:-10])
    (damage,) = findings(store)
    assert damage.what == str(path.relative_to(place.folder / "balances"))


def test_a_day_that_was_left_out_is_a_gap_and_no_damage(place: Any, delivered: Store) -> None:
    for stage in ("raw", "reconciliation"):
        shutil.copytree(
            *(
                place.folder / "balances" / stage / "main_cash" / str(day)
                for day in (place.yesterday, place.today - timedelta(days=3))
            )
        )
    assert [(gap.what, gap.message) for gap in findings(delivered, "gap")] == [
        (f"main_cash {place.today - timedelta(days=2)}", "no changes, no proof")
    ]
    assert findings(delivered) == []


def test_only_the_accounts_and_days_that_are_wanted_are_read(place: Any, delivered: Store) -> None:
    place.reconcile("main_margin", place.yesterday)
    assert 0 < stages(delivered, accounts=["main_cash"])["raw"] < stages(delivered)["raw"]
    # What is of no day in particular: whose account a key is, and where destinations lead.
    late = stages(delivered, days=[place.today + timedelta(days=2)])
    assert set(late) == {"raw", "receipts"}
    assert late["receipts"] == len(files(place, "receipts/*/places/*/*")) + len(files(place, "receipts/places/*/*"))


def test_foreign_files_are_named_and_are_no_damage(place: Any, delivered: Store) -> None:
    day = place.yesterday
    names = {
        f"raw/main_cash/{day}/notes.txt",
        "raw/main_cash/2026-99-99/x/1.gz",
        "raw/main_cash/notes/x/1.gz",
        f"receipts/main_cash/{day}/notes.txt",
        "receipts/main_cash/places/amlyze/notes.txt",
    }
    for name in names:
        path = place.folder / "balances" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    assert findings(delivered) == []
    assert {finding.what for finding in findings(delivered, "foreign")} == names


def test_an_old_day_that_was_delivered_can_go_and_its_receipts_stay(
    place: Any, delivered: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    (day,) = [each for each in old_days(delivered, place.today) if each.day == str(place.yesterday)]
    assert day.kept == ""
    receipts = {key: delivered.read(key) for key in delivered.list("receipts")}
    order = [key.split("/", 1)[0] for key in day.keys]
    assert order == sorted(order, key=["raw", "ledger", "balances", "reconciliation"].index)
    assert f"/{MANIFEST}/" in day.keys[0]
    # Stopped anywhere, the next time goes on.
    for count, key in enumerate(day.keys):
        delivered.prune(key)
        left = [each for each in old_days(delivered, place.today) if each.day == day.day]
        assert [each.kept for each in left] == ([""] if count + 1 < len(day.keys) else [])
    assert {key: delivered.read(key) for key in delivered.list("receipts")} == receipts
    capsys.readouterr()


def test_nothing_is_removed_without_yes_and_nothing_that_is_young(
    place: Any, delivered: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    before = delivered.list("")
    assert cli.main(["store", "prune", "--keep", "30d"]) == 0
    assert "can be removed. Add --yes" in capsys.readouterr().out
    assert cli.main(["store", "prune", "--keep", "30d", "--yes"]) == 0
    assert "0 objects of 0 days were removed" in capsys.readouterr().out
    assert delivered.list("") == before


def kept(store: Store, day: date, before: date) -> str:
    (found,) = [each for each in old_days(store, before) if each.day == str(day)]
    return found.kept


def test_what_is_undelivered_stays(place: Any, delivered: Store) -> None:
    assert kept(delivered, place.yesterday, place.today) == ""
    (result,) = files(place, "receipts/main_cash/*/amlyze/plan-0001/0001.res.jsonl")
    made = result.with_name("0001.try.jsonl")
    contents = result.read_bytes(), made.read_bytes()
    result.unlink()
    assert "are not delivered to amlyze" in kept(delivered, place.yesterday, place.today)
    made.unlink()
    assert "are not delivered to amlyze" in kept(delivered, place.yesterday, place.today)
    for path, content in zip((result, made), contents, strict=True):
        path.write_bytes(content)
    its_log = result.parents[1]
    its_log.rename(place.folder / "elsewhere")
    assert "are not delivered to amlyze" in kept(delivered, place.yesterday, place.today)
    (place.folder / "elsewhere").rename(its_log)
    assert kept(delivered, place.yesterday, place.today) == ""
    for path in files(place, "reconciliation/main_cash/*/*.json"):
        path.unlink()
    assert kept(delivered, place.yesterday, place.today) == "it was never reconciled"


def test_a_day_that_was_held_stays(place: Any, delivered: Store) -> None:
    for stage in ("balances", "receipts"):
        for path in files(place, f"{stage}/main_cash/{place.yesterday}/**/*.*"):
            path.unlink()
    assert "it is proven, but was not delivered" in kept(delivered, place.yesterday, place.today)


def test_a_day_that_stays_keeps_the_snapshot_that_closes_it(place: Any) -> None:
    days = [place.today - timedelta(days=back) for back in (3, 2)]
    for day in days:
        place.deliver("main_cash", day)
    store = settings.open_store()
    files(place, f"receipts/main_cash/{days[0]}/amlyze/plan-0001/0001.res.jsonl")[0].unlink()
    first, second = old_days(store, place.yesterday)
    assert (bool(first.kept), second.kept) == (True, "")
    assert not any("/snapshot/" in key for key in second.keys)
    for key in second.keys:
        store.prune(key)
    assert findings(store) == []
    assert [each.day for each in old_days(store, place.yesterday) if each.keys and not each.kept] == []


def worked_out_again(place: Any, store: Store, **columns: Callable[[Any], Any]) -> bytes:
    """The newest balances for Amlyze, with other values in some columns."""
    newest = store.newest(f"balances/main_cash/{place.yesterday}/amlyze", ".parquet")
    assert newest is not None
    frame = balances.from_parquet(store.read(newest))
    for name, change in columns.items():
        frame[name] = pd.Series([change(value) for value in frame[name]], dtype=frame[name].dtype)
    return balances.to_parquet(frame)


def test_a_day_that_is_broken_by_now_or_whose_correction_was_never_sent_stays(place: Any, delivered: Store) -> None:
    corrected = worked_out_again(place, delivered, balance=lambda amount: amount + 1)
    delivered.append(f"balances/main_cash/{place.yesterday}/amlyze", ".parquet", corrected)
    assert "are not delivered to amlyze" in kept(delivered, place.yesterday, place.today)
    delivered.append(f"reconciliation/main_cash/{place.yesterday}", ".json", to_json({"status": "broken"}))
    assert kept(delivered, place.yesterday, place.today) == "it does not add up"


@pytest.mark.parametrize("document", [{}, {"status": None}, {"status": ["broken"]}, {"status": "Broken"}, [], None, 7])
def test_a_day_whose_report_is_none_stays_and_the_others_go(place: Any, document: object) -> None:
    days = [place.today - timedelta(days=back) for back in (3, 2)]
    for day in days:
        place.deliver("main_cash", day)
    store = settings.open_store()
    key = store.append(f"reconciliation/main_cash/{days[0]}", ".json", json.dumps(document).encode())
    first, second = old_days(store, place.yesterday)
    assert first.kept == f"it cannot be read ({store.describe(key)} is not a reconciliation report)"
    assert second.kept == ""


def test_a_correction_stays_although_it_has_the_number_of_balances_that_were_delivered_and_pruned(
    place: Any, delivered: Store
) -> None:
    prefix = f"balances/main_cash/{place.yesterday}/amlyze"
    corrected = worked_out_again(place, delivered, balance=lambda amount: amount + 1)
    delivered.prune(first := f"{prefix}/0001.parquet")
    assert delivered.append(prefix, ".parquet", corrected) == first
    assert "are not delivered to amlyze" in kept(delivered, place.yesterday, place.today)


def test_balances_that_were_worked_out_again_and_are_the_same_can_go(place: Any) -> None:
    place.deliver("main_cash", place.yesterday)
    store = settings.open_store()
    same = worked_out_again(place, store, points=lambda points: f"{points},open")
    key = store.append(f"balances/main_cash/{place.yesterday}/amlyze", ".parquet", same)
    assert key.endswith("/0002.parquet")
    place.load("main_cash", "amlyze", {"day": str(place.yesterday), "status": "proven", "balances": {"amlyze": key}})
    assert kept(store, place.yesterday, place.today) == ""


def test_an_object_that_cannot_be_read_is_damage_and_ends_nothing(
    delivered: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Store.read

    def fail(self: Store, key: str) -> bytes:
        if key.startswith("ledger/"):
            raise OSError(5, "Input/output error")
        return read(self, key)

    monkeypatch.setattr(Store, "read", fail)
    (damage,) = findings(delivered)
    assert "Input/output error" in damage.message
