"""``balance-bridge receipts`` and ``preview``: what an auditor sees, and what would be sent."""

from __future__ import annotations

import csv
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from balance_bridge import cli, settings
from balance_bridge.errors import PlaceChanged, RecordsRejected
from balance_bridge.load.log import MAX_SKEW_S, VERSION, DayLog, Try


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    capsys.readouterr()
    assert cli.main([*arguments, "--json"]) == 0
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
    told = capsys.readouterr().out
    assert f"{len(sent)} accepted, {len(left_out)} ignored" in told
    assert "elven: 1 ignored, as the accounts file says (SPAM)" in told
    assert "earlier" not in told


def test_all_columns_go_into_a_csv_file(place: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place.deliver("main_cash", place.yesterday)
    file = tmp_path / "receipts.csv"
    assert cli.main(["receipts", "main_cash", str(place.yesterday), "--csv", str(file)]) == 0
    with file.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert f"{len(rows)} rows written to" in capsys.readouterr().out
    assert all(row["amount"] for row in rows)
    assert all(row["number"] and row["response_sha256"] for row in rows if row["outcome"] == "accepted")
    assert not any("E" in row["amount"] for row in rows)


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


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["receipts", "nobody", "2026-11-20"], "there is no account 'nobody'"),
        (["receipts", "main_cash", "2026-11-20", "--destination", "x"], "no destination 'x'; it has amlyze, elven"),
        (["receipts", "main_cash", "2026-11-20", "--outcome", "lost"], "allowed: accepted, rejected, seen, unknown"),
        (["preview", "nobody", "2026-11-20"], "there is no usable account 'nobody'"),
        (["preview", "main_cash", "2026-11-20"], "was not worked out for elven yet: trigger the DAG"),
        (["preview", "main_cash", "2026-11-20", "--destination", "x"], "no destination 'x'"),
    ],
)
def test_what_is_not_there_is_refused_by_name(
    place: Any, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    assert cli.main(arguments) == 1
    assert told in capsys.readouterr().err


def test_a_date_that_is_none_is_refused(place: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["receipts", "main_cash", "yesterday"])
    assert "'yesterday' is not of the form YYYY-MM-DD" in capsys.readouterr().err


def test_a_preview_shows_what_would_be_sent_and_sends_nothing(place: Any, capsys: pytest.CaptureFixture[str]) -> None:
    place.deliver("main_cash", place.yesterday)
    before = len(place.sandbox.journal.requests)
    (elven, amlyze) = shown(capsys, "preview", "main_cash", str(place.yesterday))
    # All was accepted: nothing is left to send.
    assert {row["action"] for row in (*elven["rows"], *amlyze["rows"])} == {"keep", "ignore"}
    assert (elven["other_keys"], amlyze["other_keys"]) == (0, 0)
    assert cli.main(["preview", "main_cash", str(place.yesterday), "--destination", "amlyze"]) == 0
    assert "to amlyze (amlyze): 0 balances in 0 requests would be sent, 0 cannot be" in capsys.readouterr().out
    assert len(place.sandbox.journal.requests) == before


def test_a_preview_of_a_day_that_was_not_delivered_shows_every_record_with_its_number(
    place: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    place.reconcile("main_cash", place.yesterday)
    (amlyze,) = shown(capsys, "preview", "main_cash", str(place.yesterday), "--destination", "amlyze")
    rows = [row for row in amlyze["rows"] if row["action"] == "send"]
    assert rows
    assert all(row["number"].startswith("test-main_cash.amlyze-") and row["batch"] == 1 for row in rows)
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
    (amlyze,) = shown(capsys, "preview", "main_cash", str(place.yesterday), "--destination", "amlyze")
    assert amlyze["other_keys"] == count
    assert {row["text"] for row in amlyze["rows"] if row["action"] == "keep"} == {"delivered under another key"}
    assert not [row for row in amlyze["rows"] if row["action"] == "send"]
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
    assert status["outcomes"] == {"accepted": count, "ignored": 1}
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
    assert capsys.readouterr().err == f"balance-bridge: {caught.value}\n"
    assert cli.main(by_ada("adopt", "--destination", "amlyze")) == 0
    assert f"url: from {old}" in (said := capsys.readouterr().out)
    assert f"to {new}" in said
    place.deliver("main_cash", place.yesterday)
    assert place.arrived() == before
    assert len(place.sandbox.journal.requests) == requests
    assert cli.main(by_ada("adopt", "--destination", "amlyze")) == 1
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
    assert status["outcomes"]["accepted"] == status["other_keys"] == before["elven"]
    assert cli.main(["status", "main_cash", "--days", "1"]) == 0
    held = f"{before['elven']} balances are held under keys or settings that the accounts file no longer has, "
    assert f"{held}for example {status['example']}" in capsys.readouterr().out
    assert cli.main(by_ada("rekey", "--destination", "elven")) == 1
    assert "there is nothing to rekey" in capsys.readouterr().err
    # With redeliver they go out under the new keys; the old ones stay at the destination.
    place.load("main_cash", "elven", proof, redeliver=True)
    assert place.arrived()["elven"] == 2 * before["elven"]
    (status,) = [row for row in shown(capsys, "status", "main_cash", "--days", "1") if row["destination"] == "elven"]
    assert status["outcomes"]["accepted"] == status["other_keys"] == before["elven"]
    assert cli.main(["preview", "main_cash", str(place.yesterday), "--destination", "elven"]) == 0
    said = capsys.readouterr().out
    assert held in said
    assert "redeliver" not in said


@pytest.mark.parametrize("command", ["adopt", "rekey"])
@pytest.mark.parametrize("who", [("", "ticket 4711"), (" ", "ticket 4711"), ("Ada", ""), ("Ada", "\n")])
def test_a_decision_names_who_and_why(
    place: Any, capsys: pytest.CaptureFixture[str], command: str, who: tuple[str, str]
) -> None:
    arguments = ["receipts", command, "main_cash", "--destination", "elven", "--by", who[0], "--reason", who[1]]
    assert cli.main(arguments) == 1
    assert "--by and --reason must not be empty" in capsys.readouterr().err
    assert not (place.folder / "balances" / "receipts").exists()


@pytest.mark.parametrize("command", ["adopt", "rekey"])
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["main_cash", "--destination", "elven"], "elven of main_cash has delivered nothing so far"),
        (["main_cash", "--destination", "x"], "main_cash has no destination 'x'; it has elven, amlyze"),
        (["nobody", "--destination", "elven"], "there is no usable account 'nobody'"),
    ],
)
def test_a_decision_about_what_is_not_there_is_refused(
    place: Any, capsys: pytest.CaptureFixture[str], command: str, arguments: list[str], said: str
) -> None:
    assert cli.main(["receipts", command, *arguments, "--by", "Ada", "--reason", "ticket 4711"]) == 1
    assert said in capsys.readouterr().err
    assert not (place.folder / "balances" / "receipts").exists()


def test_what_a_person_found_out_is_written_down(
    place: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from balance_bridge.errors import BalanceBridgeError, ResponseLost
    from balance_bridge.transport import Transport

    send = Transport.send

    def lose(self: Any, method: str, url: str, **given: Any) -> Any:
        answer = send(self, method, url, **given)
        if "amlyze-ws-rest" in url:
            raise ResponseLost("cut")
        return answer

    with monkeypatch.context() as patch:
        patch.setattr(Transport, "send", lose)
        with pytest.raises(BalanceBridgeError):
            place.deliver("main_cash", place.yesterday)
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
    assert "these are not confirmed" in capsys.readouterr().err
    assert cli.main([*resolve, "--all", "--rejected", "--by", "Ada", "--reason", "asked them"]) == 0
    assert "Run the day again" in capsys.readouterr().out
    assert shown(capsys, "receipts", "main_cash", day, "--outcome", "unknown") == []
    assert cli.main([*resolve, "--all", "--accepted", "--by", " ", "--reason", "x"]) == 1
    assert "--by and --reason must not be empty" in capsys.readouterr().err


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
        log.put_try(1, Try(VERSION, 1, time.time() - ago_s, 60.0, "00"))

    tried(61 + MAX_SKEW_S)
    assert cli.main([*resolve, *by]) == 1
    # That request is over; its balances had been accepted before.
    assert "these are not confirmed: none" in capsys.readouterr().err
    tried(30)
    assert cli.main([*resolve, *by]) == 1
    said = capsys.readouterr().err
    waited = re.search(r"main_cash .* to amlyze: a request may still be under way: try again in ([0-9]+) s", said)
    assert waited is not None
    assert 30 + MAX_SKEW_S - 10 < int(waited[1]) <= 31 + MAX_SKEW_S
    assert log.read().resolutions == []
