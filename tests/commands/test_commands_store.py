"""``balance-bridge store check`` finds what is damaged; ``store prune`` removes what can be done without."""

from __future__ import annotations

import gzip
import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from balance_bridge import cli, settings
from balance_bridge.commands.store_check import check
from balance_bridge.commands.store_prune import old_days
from balance_bridge.store import Store


@pytest.fixture
def delivered(place: Any) -> Store:
    place.deliver("main_cash", place.yesterday)
    return settings.open_store()


def test_a_sound_store_is_told_to_be_so(delivered: Store, capsys: pytest.CaptureFixture[str]) -> None:
    before = {key: delivered.read(key) for key in delivered.list("")}
    report = check(delivered)
    assert (report.damaged, report.gaps, report.foreign) == ([], [], [])
    assert set(report.objects) == {"raw", "ledger", "reconciliation", "balances", "receipts"}
    capsys.readouterr()
    assert cli.main(["store", "check"]) == 0
    assert "Every object is what was written." in capsys.readouterr().out
    assert {key: delivered.read(key) for key in delivered.list("")} == before


def files(place: Any, pattern: str) -> list[Path]:
    found = sorted((place.folder / "balances").glob(pattern))
    assert found
    return found


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        ("raw/main_cash/*/snapshot/*.gz", "damaged"),
        ("raw/main_cash/*/history/*/*.gz", "damaged"),
        ("raw/main_cash/*/whole/*.json", "not JSON|digest|not what was written"),
        ("ledger/main_cash/*/*.parquet", "ledger"),
        ("balances/main_cash/*/*/*.parquet", "balances"),
        ("reconciliation/main_cash/*/*.json", "not JSON|digest"),
        ("receipts/main_cash/*/*/*/planned.json", "not the receipt that was written"),
        ("receipts/main_cash/*/*/*/answered/*.json", "not the receipt that was written"),
    ],
)
def test_an_object_that_was_changed_is_found_by_name(
    place: Any, delivered: Store, pattern: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = files(place, pattern)[0]
    data = path.read_bytes()
    if path.suffix == ".gz":
        changed = gzip.compress(gzip.decompress(data)[:-2] + b"9}")
    elif path.suffix == ".json":
        # A digit of an amount or a count, so that it is still JSON.
        at = next(place for place, byte in enumerate(data) if chr(byte) in "12345678" and place > 120)
        changed = data[:at] + b"9" + data[at + 1 :]
    else:
        changed = data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :]
    path.write_bytes(changed)
    report = check(delivered)
    assert report.damaged
    key = str(path.relative_to(place.folder / "balances"))
    assert any(damage.key == key or key.startswith(damage.key) for damage in report.damaged)
    capsys.readouterr()
    assert cli.main(["store", "check", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert any(word in document["damaged"][0]["told"] for word in told.split("|"))


def test_what_a_manifest_names_must_be_there(place: Any, delivered: Store) -> None:
    files(place, "raw/main_cash/*/history/*/*.gz")[0].unlink()
    (damage,) = check(delivered).damaged
    assert "what it names is missing: 1 pages in raw/main_cash/" in damage.told
    assert "/whole/" in damage.key


def test_answers_without_a_plan_are_damage(place: Any, delivered: Store) -> None:
    files(place, "receipts/main_cash/*/amlyze/*/planned.json")[0].unlink()
    assert any("missing" in damage.told for damage in check(delivered).damaged)


def test_a_day_that_was_left_out_is_a_gap_and_no_damage(place: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for back in (3, 1):
        place.deliver("main_cash", place.today - timedelta(days=back))
    capsys.readouterr()
    assert cli.main(["store", "check"]) == 0
    missing = place.today - timedelta(days=2)
    assert f"gap main_cash {missing}: no changes, no proof" in capsys.readouterr().out


def test_only_what_is_asked_for_is_read(place: Any, delivered: Store) -> None:
    place.deliver("main_margin", place.yesterday)
    both, one = check(delivered), check(delivered, ["main_cash"])
    assert 0 < one.objects["raw"] < both.objects["raw"]
    assert check(delivered, since=place.today + timedelta(days=2)).objects.total() <= 2 * 2


def test_foreign_files_are_told_and_are_no_damage(place: Any, delivered: Store) -> None:
    path = place.folder / "balances" / "raw" / "main_cash" / str(place.yesterday) / "notes.txt"
    path.write_text("mine")
    report = check(delivered)
    assert (report.damaged, len(report.foreign)) == ([], 1)


def test_an_old_day_that_was_delivered_can_go_and_its_receipts_stay(
    place: Any, delivered: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    (day,) = [each for each in old_days(delivered, place.today) if each.day == str(place.yesterday)]
    assert day.kept == ""
    receipts = {key: delivered.read(key) for key in delivered.list("receipts")}
    order = [key.split("/", 1)[0] for key in day.keys]
    assert order == sorted(order, key=["raw", "ledger", "balances", "reconciliation"].index)
    assert "/whole/" in day.keys[0]
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
    assert "Nothing was removed" in capsys.readouterr().out
    assert cli.main(["store", "prune", "--keep", "30d", "--yes"]) == 0
    assert "0 objects of 0 days were removed" in capsys.readouterr().out
    assert delivered.list("") == before
    with pytest.raises(SystemExit):
        cli.main(["store", "prune", "--keep", "29d", "--yes"])


def kept(store: Store, day: date, before: date) -> str:
    (found,) = [each for each in old_days(store, before) if each.day == str(day)]
    return found.kept


def test_what_is_undelivered_stays(place: Any, delivered: Store) -> None:
    assert kept(delivered, place.yesterday, place.today) == ""
    answered = files(place, "receipts/main_cash/*/amlyze/*/answered/0001.json")[0]
    content = answered.read_bytes()
    answered.unlink()
    assert "are planned at amlyze" in kept(delivered, place.yesterday, place.today)
    answered.write_bytes(content)
    planned = answered.parents[1]
    planned.rename(place.folder / "elsewhere")
    assert "were never sent to amlyze" in kept(delivered, place.yesterday, place.today)
    (place.folder / "elsewhere").rename(planned)
    for path in files(place, "reconciliation/main_cash/*/*.json"):
        path.unlink()
    assert kept(delivered, place.yesterday, place.today) == "it was never worked out"


def test_a_day_that_was_held_stays(place: Any, delivered: Store) -> None:
    for stage in ("balances", "receipts"):
        for path in files(place, f"{stage}/main_cash/{place.yesterday}/**/*.*"):
            path.unlink()
    assert "it was not delivered: its proof is proven" in kept(delivered, place.yesterday, place.today)


def test_a_day_that_stays_keeps_the_snapshot_that_closes_it(place: Any) -> None:
    days = [place.today - timedelta(days=back) for back in (3, 2)]
    for day in days:
        place.deliver("main_cash", day)
    store = settings.open_store()
    files(place, f"receipts/main_cash/{days[0]}/amlyze/*/answered/0001.json")[0].unlink()
    first, second = old_days(store, place.yesterday)
    assert (bool(first.kept), second.kept) == (True, "")
    assert not any("/snapshot/" in key for key in second.keys)
    for key in second.keys:
        store.prune(key)
    assert check(store, since=None).damaged == []
    assert [each.day for each in old_days(store, place.yesterday) if each.keys and not each.kept] == []


def test_a_day_that_is_broken_by_now_or_whose_correction_was_never_sent_stays(place: Any, delivered: Store) -> None:

    import pandas as pd

    from balance_bridge.store import to_json
    from balance_bridge.transform import balances

    prefix = f"balances/main_cash/{place.yesterday}/amlyze"
    newest = delivered.newest(prefix, ".parquet")
    assert newest is not None
    frame = balances.from_parquet(delivered.read(newest))
    frame["balance"] = pd.Series([amount + 1 for amount in frame["balance"]], dtype=frame["balance"].dtype)
    delivered.append(prefix, ".parquet", balances.to_parquet(frame))
    assert "were never sent to amlyze" in kept(delivered, place.yesterday, place.today)
    delivered.append(f"reconciliation/main_cash/{place.yesterday}", ".json", to_json({"status": "broken"}))
    assert kept(delivered, place.yesterday, place.today) == "its last proof is broken"


def test_an_object_that_cannot_be_read_is_damage_and_ends_nothing(
    delivered: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Store.read

    def fail(self: Store, key: str) -> bytes:
        if key.startswith("ledger/"):
            raise OSError(5, "Input/output error")
        return read(self, key)

    monkeypatch.setattr(Store, "read", fail)
    (damage,) = check(delivered).damaged
    assert "Input/output error" in damage.told


def test_a_folder_that_is_no_day_is_foreign(place: Any, delivered: Store) -> None:
    for name in ("2026-99-99", "2026-02-30", "notes"):
        path = place.folder / "balances" / "raw" / "main_cash" / name / "x" / "1.gz"
        path.parent.mkdir(parents=True)
        path.write_text("mine")
    report = check(delivered)
    assert (report.damaged, len(report.foreign)) == ([], 3)
