"""``balance-bridge receipts`` and ``preview``: what an auditor sees, and what would be sent."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from balance_bridge import cli, settings
from balance_bridge.errors import PlaceChanged, RecordsRejected
from balance_bridge.load.documents import MAX_SKEW_S, Try
from balance_bridge.load.log import DayLog


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    capsys.readouterr()
    cli.main([*arguments, "-o", "json"])
    return json.loads(capsys.readouterr().out)


def test_every_attempt_is_shown_with_its_evidence(place: Any, capsys: pytest.CaptureFixture[str]) -> None:
    place.deliver("main_cash", place.yesterday)
    rows = shown(capsys, "receipts", "main_cash", str(place.yesterday))
    sent = [row for row in rows if row["outcome"] == "accepted"]
    for name, count in place.arrived().items():
        assert len([row for row in sent if row["destination"] == name]) == count
    assert all(row["http_status"] == 200 and row["run_id"] == "manual__1" and row["sent_at"] for row in sent)
    assert all(row["current"] for row in rows)
    left_out = [row for row in rows if row not in sent]
    assert {(row["asset"], row["outcome"], row["number"]) for row in left_out} == {("SPAM", "ignored", "")}
    only = shown(capsys, "receipts", "main_cash", str(place.yesterday), "--destination", "amlyze")
    assert {row["destination"] for row in only} == {"amlyze"}
    assert shown(capsys, "receipts", "main_cash", str(place.yesterday), "--outcome", "rejected") == []
    assert cli.main(["receipts", "main_cash", str(place.yesterday)]) == 0
    said = capsys.readouterr().out
    assert f"{len(sent)} accepted, {len(left_out)} ignored" in said
    assert "elven: 1 ignored, as the accounts file says (SPAM)" in said
    assert "earlier" not in said


def test_csv_has_all_columns_of_each_day(place: Any, capsys: pytest.CaptureFixture[str]) -> None:
    place.deliver("main_cash", place.yesterday)
    before = place.yesterday - timedelta(days=1)
    place.deliver("main_cash", before)
    capsys.readouterr()
    assert cli.main(["receipts", "main_cash", f"{before}..yesterday", "-o", "csv"]) == 0
    said = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(said.out)))
    assert {row["day"] for row in rows} == {str(before), str(place.yesterday)}
    assert all(row["amount"] for row in rows)
    assert all(row["number"] and row["sent_at"] for row in rows if row["outcome"] == "accepted")
    assert not any("E" in row["amount"] for row in rows)
    assert "accepted" in said.err


def test_only_the_assets_that_are_wanted_are_shown(place: Any, capsys: pytest.CaptureFixture[str]) -> None:
    place.deliver("main_cash", place.yesterday)
    day = str(place.yesterday)
    for command in ("receipts", "preview"):
        rows = shown(capsys, command, "main_cash", day, "--asset", "BTC", "--asset", "USDT")
        assert {row["asset"] for row in rows} == {"BTC", "USDT"}
        assert cli.main([command, "main_cash", day, "--asset", "BTCC"]) == 2
        assert "did you mean BTC?" in capsys.readouterr().err


def test_a_rejected_balance_is_shown_with_its_reason(place: Any, capsys: pytest.CaptureFixture[str]) -> None:
    place.replace("BTMX-S: {symbol: BTMX}", "BTMX-S: {symbol: BTMX2}")
    with pytest.raises(RecordsRejected, match="1 of"):
        place.deliver("main_cash", place.yesterday)
    rows = shown(capsys, "receipts", "main_cash", str(place.yesterday), "--destination", "elven")
    now = {row["asset"]: row for row in rows if row["current"]}
    assert now["BTMX-S"]["outcome"] == "rejected"
    assert "BTMX2" in now["BTMX-S"]["text"]
    assert {row["outcome"] for asset, row in now.items() if asset not in ("BTMX-S", "SPAM")} == {"accepted"}


def test_what_was_refused_is_summed_up_by_code(place: Any, capsys: pytest.CaptureFixture[str]) -> None:
    known = {f"ASCENDEX-CASH-{asset}" for asset in ("BTC", "USDT")}
    place.sandbox.amlyze.accounts = frozenset(known)
    with pytest.raises(RecordsRejected) as caught:
        place.deliver("main_cash", place.yesterday)
    capsys.readouterr()
    rows = shown(capsys, "receipts", "main_cash", str(place.yesterday), "--destination", "amlyze")
    refused = [row for row in rows if row["outcome"] == "rejected"]
    assets = {row["asset"] for row in refused}
    assert len(assets) > 5
    assert cli.main(["receipts", "main_cash", str(place.yesterday)]) == 0
    said = capsys.readouterr().out
    (line, ignored) = [line for line in said.splitlines() if line.startswith("amlyze: ")]
    assert line.startswith(f"amlyze: {len(refused)} rejected, 404 (")
    assert line.endswith(f" and {len(assets) - 5} more): business entity does not exist")
    assert ignored == "amlyze: 4 ignored, as the accounts file says (SPAM)"
    # The task's own message sums up in the same way.
    assert f"404 x{len(refused)} (" in str(caught.value)


def test_a_preview_of_a_day_that_was_not_worked_out_says_how_to(place: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["preview", "main_cash", "2026-11-20"]) == 1
    assert "airflow dags trigger balances_main_cash --conf" in capsys.readouterr().err


def test_a_preview_shows_what_would_be_sent_and_sends_nothing(place: Any, capsys: pytest.CaptureFixture[str]) -> None:
    place.deliver("main_cash", place.yesterday)
    before = len(place.sandbox.journal.requests)
    # All was accepted: nothing is left to send.
    assert {row["action"] for row in shown(capsys, "preview", "main_cash", "yesterday")} == {"keep", "ignore"}
    assert cli.main(["preview", "main_cash", str(place.yesterday), "--destination", "amlyze"]) == 0
    assert "to amlyze (amlyze): 0 balances in 0 requests would be sent, 0 cannot be" in capsys.readouterr().out
    assert len(place.sandbox.journal.requests) == before


def test_a_preview_of_a_day_that_was_not_delivered_shows_every_record_with_its_number(
    place: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    place.reconcile("main_cash", place.yesterday)
    rows = shown(capsys, "preview", "main_cash", str(place.yesterday), "--destination", "amlyze")
    rows = [row for row in rows if row["action"] == "send"]
    assert rows
    assert all(row["number"].startswith("test-main_cash.amlyze-") and row["request"] == 1 for row in rows)
    assert cli.main(["preview", "main_cash", str(place.yesterday), "--destination", "amlyze"]) == 0
    said = capsys.readouterr().out
    assert f"{len(rows)} balances in 1 requests would be sent, 0 cannot be; ignored: SPAM x" in said
    assert all(row["number"] in said for row in rows)
    assert place.arrived()["amlyze"] == 0


def test_a_preview_counts_what_was_delivered_under_other_keys_and_does_not_send_it_again(
    place: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    place.deliver("main_cash", place.yesterday)
    count = place.arrived()["amlyze"]
    place.replace('account_ext_id: "', 'account_ext_id: "NEW-')
    rows = shown(capsys, "preview", "main_cash", str(place.yesterday), "--destination", "amlyze")
    assert {row["remark"] for row in rows if row["action"] == "keep"} == {"delivered under another key"}
    assert not [row for row in rows if row["action"] == "send"]
    assert cli.main(["preview", "main_cash", str(place.yesterday), "--destination", "amlyze"]) == 0
    said = capsys.readouterr().out
    assert f"{count} balances are held under keys or settings that the accounts file no longer has" in said
    again = 'to send these again with the new ones, trigger the day with {"redeliver": true}'
    assert f". {count} of them are kept; {again}" in said


def test_a_repaired_rejection_counts_each_balance_once(place: Any, capsys: pytest.CaptureFixture[str]) -> None:
    place.replace("BTMX-S: {symbol: BTMX}", "BTMX-S: {symbol: BTMX2}")
    with pytest.raises(RecordsRejected, match="1 of"):
        place.deliver("main_cash", place.yesterday)
    place.replace("BTMX-S: {symbol: BTMX2}", "BTMX-S: {symbol: BTMX}")
    place.deliver("main_cash", place.yesterday)
    day, count = str(place.yesterday), place.arrived()["elven"]
    (status,) = [row for row in shown(capsys, "status", "main_cash", "--days", "1") if row["destination"] == "elven"]
    assert (status["accepted"], status["ignored"], status["rejected"]) == (count, 1, 0)
    assert shown(capsys, "receipts", "main_cash", day, "--destination", "elven", "--outcome", "rejected") == []
    assert cli.main(["receipts", "main_cash", day, "--destination", "elven"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"{count} accepted, 1 ignored" in lines
    # The evidence of the rejection stays.
    assert [line for line in lines if line.startswith("earlier attempts: ") and "rejected" in line]
    assert not [line for line in lines if line.startswith("elven: ") and "rejected" in line]


def by_ada(command: str, *arguments: str) -> list[str]:
    return ["receipts", command, "main_cash", *arguments, "--by", "Ada", "--reason", "ticket 4711"]


def test_a_changed_address_is_refused_until_somebody_adopts_it(place: Any, capsys: pytest.CaptureFixture[str]) -> None:
    place.deliver("main_cash", place.yesterday)
    before, old = place.arrived(), place.sandbox.url
    new = old.replace("127.0.0.1", "localhost")
    place.connect("amlyze_default", host=new)
    requests = len(place.sandbox.journal.requests)
    with pytest.raises(PlaceChanged) as caught:
        place.load("main_cash", "amlyze", place.reconcile("main_cash", place.yesterday))
    capsys.readouterr()
    assert cli.main(["preview", "main_cash", str(place.yesterday), "--destination", "amlyze"]) == 1
    # The same refusal as in a run.
    refused = capsys.readouterr().err
    assert str(caught.value.args[0]) in refused
    # The command works as it is shown.
    command = refused.strip().rpartition("balance-bridge ")[2]
    assert cli.main(shlex.split(command)) == 0
    assert f"url: from {old}" in (said := capsys.readouterr().out)
    assert f"to {new}" in said
    place.deliver("main_cash", place.yesterday)
    assert place.arrived() == before
    assert len(place.sandbox.journal.requests) == requests
    assert cli.main(by_ada("adopt", "--destination", "amlyze")) == 1
    assert "there is nothing to adopt" in capsys.readouterr().err


def test_a_copied_account_is_refused_although_the_old_one_is_mistyped_until_somebody_hands_the_place_over(
    place: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    place.deliver("main_cash", place.yesterday)
    before = place.arrived()
    text = place.accounts_file.read_text()
    copy = text.split("accounts:\n")[1].split("  main_margin:")[0].replace("main_cash:", "copy:")
    mistyped = text.replace("source_id: ", "source_id: mis", 1).replace('account_ext_id: "', 'account_ext_id: "MIS-', 1)
    place.accounts_file.write_text(mistyped.replace("accounts:\n", f"accounts:\n{copy}"))
    proof = place.reconcile("copy", place.yesterday)
    for destination in ("elven", "amlyze"):
        with pytest.raises(PlaceChanged, match=f"of copy delivers to .*, as does {destination} of main_cash"):
            place.load("copy", destination, proof)
    assert place.arrived() == before
    place.accounts_file.write_text(text.replace("main_cash:", "copy:"))
    adopt = ["receipts", "adopt", "copy", "--destination", "amlyze", "--by", "Ada", "--reason", "renamed"]
    capsys.readouterr()
    assert cli.main(adopt) == 0
    assert "belongs to amlyze of copy now, no longer to amlyze of main_cash" in capsys.readouterr().out
    place.load("copy", "amlyze", proof)
    assert place.arrived()["amlyze"] == 2 * before["amlyze"]
    assert cli.main(adopt) == 1
    assert "there is nothing to adopt" in capsys.readouterr().err


def test_changed_key_settings_are_refused_until_somebody_says_that_what_was_delivered_counts(
    place: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    place.deliver("main_cash", place.yesterday)
    before = place.arrived()
    place.replace("timezone: Asia/Shanghai", "timezone: Europe/Vilnius")
    proof = place.reconcile("main_cash", place.yesterday)
    with pytest.raises(PlaceChanged, match="timezone was Asia/Shanghai, is Europe/Vilnius"):
        place.load("main_cash", "elven", proof)
    capsys.readouterr()
    assert cli.main(["preview", "main_cash", str(place.yesterday), "--destination", "elven"]) == 1
    assert "receipts rekey main_cash --destination elven" in capsys.readouterr().err
    assert cli.main(by_ada("rekey", "--destination", "elven")) == 0
    assert "timezone: from Asia/Shanghai to Europe/Vilnius" in capsys.readouterr().out
    place.load("main_cash", "elven", proof)
    assert place.arrived() == before
    (status,) = [row for row in shown(capsys, "status", "main_cash", "--days", "1") if row["destination"] == "elven"]
    held = f"{before['elven']} balances are held under keys or settings that the accounts file no longer has, "
    assert (status["accepted"], status["problem"]) == (before["elven"], "")
    assert f"{held}for example " in status["state"]
    assert cli.main(by_ada("rekey", "--destination", "elven")) == 1
    assert "there is nothing to rekey" in capsys.readouterr().err
    # With redeliver they go out under the new keys; the old ones stay at the destination.
    place.load("main_cash", "elven", proof, redeliver=True)
    assert place.arrived()["elven"] == 2 * before["elven"]
    (status,) = [row for row in shown(capsys, "status", "main_cash", "--days", "1") if row["destination"] == "elven"]
    assert (status["accepted"], held in status["state"]) == (before["elven"], True)
    assert cli.main(["preview", "main_cash", str(place.yesterday), "--destination", "elven"]) == 0
    said = capsys.readouterr().out
    assert held in said
    assert "redeliver" not in said


@pytest.mark.parametrize("command", ["adopt", "rekey"])
def test_a_decision_names_who_and_why_and_is_about_what_was_delivered(
    place: Any, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    arguments = ["receipts", command, "main_cash", "--destination", "elven"]
    for by, reason in (("", "ticket 4711"), ("Ada", "\n")):
        assert cli.main([*arguments, "--by", by, "--reason", reason]) == 2
        assert "--by and --reason must not be empty" in capsys.readouterr().err
    assert cli.main(by_ada(command, "--destination", "elven")) == 1
    assert "has delivered nothing so far" in capsys.readouterr().err
    assert not (place.folder / "balances" / "receipts").exists()


def test_what_a_person_found_out_is_written_down(place: Any, capsys: pytest.CaptureFixture[str]) -> None:
    place.deliver_and_lose_responses("main_cash", place.yesterday, "amlyze-ws-rest")
    day = str(place.yesterday)
    found = shown(capsys, "receipts", "main_cash", day, "--outcome", "unknown")
    assert found
    resolve = ["receipts", "resolve", "main_cash", day, "--destination", "amlyze"]
    one = found[0]["number"]
    assert cli.main([*resolve, "--number", one, "--accepted", "--by", "Ada", "--reason", "ticket 4711"]) == 0
    assert "1 accepted, written to" in capsys.readouterr().out
    (row,) = [row for row in shown(capsys, "receipts", "main_cash", day) if row["number"] == one]
    assert (row["outcome"], row["resolved_by"], row["text"]) == ("accepted", "Ada", "Ada: ticket 4711")
    # Once it is settled it cannot be settled otherwise.
    assert cli.main([*resolve, "--number", one, "--rejected", "--by", "Eve", "--reason", "x"]) == 1
    assert f"{one} is not among the numbers" in capsys.readouterr().err
    assert cli.main([*resolve, "--all", "--rejected", "--by", "Ada", "--reason", "asked them"]) == 0
    assert "Run the day again" in capsys.readouterr().out
    assert shown(capsys, "receipts", "main_cash", day, "--outcome", "unknown") == []
    assert cli.main([*resolve, "--all", "--accepted", "--by", "Ada", "--reason", "x"]) == 1
    assert "nothing to resolve" in capsys.readouterr().err


def test_many_are_resolved_from_the_csv_of_receipts_or_none_if_a_row_is_wrong(
    place: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    place.deliver_and_lose_responses("main_cash", place.yesterday, "amlyze-ws-rest")
    capsys.readouterr()
    assert cli.main(["receipts", "main_cash", "yesterday", "--outcome", "unknown", "-o", "csv"]) == 0
    made = capsys.readouterr().out
    count, file = made.count(",unknown,"), tmp_path / "unknown.csv"
    assert count > 5
    resolve = ["receipts", "resolve-file", str(file), "--by", "Ada", "--reason", "ticket 4711"]

    def resolved() -> Counter[str]:
        return Counter(row["outcome"] for row in shown(capsys, "receipts", "main_cash", "yesterday") if row["current"])

    before = resolved()
    for wrong, said in (
        (made.replace("unknown", "accepted").replace("amlyze-", "else-"), "not among the numbers"),
        (made.replace("unknown", "accepted").replace(str(place.yesterday), "yesterday", 1), "cannot be read"),
        (made.replace("number", "no"), "has no column number"),
    ):
        file.write_text(wrong)
        assert cli.main(resolve) == 1
        assert said in capsys.readouterr().err
        assert resolved() == before
    file.write_text(made.replace("unknown", "rejected", 1).replace("unknown", "accepted", 2))
    assert cli.main(resolve) == 0
    assert "1 rejected, written to" in capsys.readouterr().out
    assert resolved() == before + Counter(rejected=1, accepted=2) - Counter(unknown=3)
    file.write_text(made)
    assert cli.main(resolve) == 0
    assert "nothing was recorded" in capsys.readouterr().out


def test_nothing_is_resolved_while_a_request_may_still_be_under_way(
    place: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    place.deliver("main_cash", place.yesterday)
    day = place.yesterday
    log = DayLog(settings.open_store(), "main_cash", day, "amlyze")
    log.read()
    resolve = ["receipts", "resolve", "main_cash", str(day), "--destination", "amlyze", "--all", "--accepted"]
    by = ["--by", "Ada", "--reason", "asked them"]

    def tried(ago_s: float) -> None:
        log.put_try(1, Try(1, time.time() - ago_s, 60.0, "00"))

    tried(61 + MAX_SKEW_S)
    assert cli.main([*resolve, *by]) == 1
    # That request is over; its balances had been accepted before.
    assert "nothing to resolve" in capsys.readouterr().err
    tried(30)
    assert cli.main([*resolve, *by]) == 1
    said = capsys.readouterr().err
    waited = re.search(r"main_cash .* to amlyze: a request may still be under way\s+try again in ([0-9]+) s", said)
    assert waited is not None
    assert 30 + MAX_SKEW_S - 10 < int(waited[1]) <= 31 + MAX_SKEW_S
    assert log.read().resolutions == []
