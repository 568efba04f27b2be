"""``balance-bridge receipts`` and ``preview``: what an auditor sees, and what would be sent."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from balance_bridge import cli
from balance_bridge.errors import RecordsRejected


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    capsys.readouterr()
    assert cli.main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_every_attempt_is_shown_with_its_evidence(place: Any, capsys: pytest.CaptureFixture[str]) -> None:
    place.deliver("main_cash", place.yesterday)
    rows = shown(capsys, "receipts", "main_cash", str(place.yesterday))
    arrived = place.sandbox.apis.delivered()
    assert len([row for row in rows if row["destination"] == "elven"]) == len(arrived["elven"])
    assert len([row for row in rows if row["destination"] == "amlyze"]) == len(arrived["amlyze"])
    assert {row["outcome"] for row in rows} == {"accepted"}
    assert all(row["http_status"] == 200 and row["run_id"] == "manual__1" and row["sent_at"] for row in rows)
    only = shown(capsys, "receipts", "main_cash", str(place.yesterday), "--destination", "amlyze")
    assert {row["destination"] for row in only} == {"amlyze"}
    assert shown(capsys, "receipts", "main_cash", str(place.yesterday), "--outcome", "rejected") == []
    assert cli.main(["receipts", "main_cash", str(place.yesterday)]) == 0
    told = capsys.readouterr().out
    assert f"{len(rows)} accepted" in told
    assert "elven: 1 ignored, as the accounts file says (SPAM)" in told


def test_all_columns_go_into_a_csv_file(place: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place.deliver("main_cash", place.yesterday)
    file = tmp_path / "receipts.csv"
    assert cli.main(["receipts", "main_cash", str(place.yesterday), "--csv", str(file)]) == 0
    with file.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert f"{len(rows)} attempts written to" in capsys.readouterr().out
    assert all(row["amount"] and row["number"] and row["answer_sha256"] for row in rows)
    assert not any("E" in row["amount"] for row in rows)


def test_a_rejected_balance_is_shown_with_its_reason(place: Any, capsys: pytest.CaptureFixture[str]) -> None:
    place.replace("BTMX-S: {symbol: BTMX}", "BTMX-S: {symbol: BTMX2}")
    with pytest.raises(RecordsRejected, match="1 of"):
        place.deliver("main_cash", place.yesterday)
    rows = shown(capsys, "receipts", "main_cash", str(place.yesterday), "--destination", "elven")
    last = {row["asset"]: row for row in rows}
    assert last["BTMX-S"]["outcome"] == "rejected"
    assert "BTMX2" in last["BTMX-S"]["text"]
    assert {row["outcome"] for asset, row in last.items() if asset != "BTMX-S"} == {"accepted"}


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
def test_what_is_not_there_is_told(
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
    assert (elven["batches"], amlyze["batches"]) == ([], [])
    assert elven["ignored"]
    place.replace('account_ext_id: "', 'account_ext_id: "NEW-')
    (amlyze,) = shown(capsys, "preview", "main_cash", str(place.yesterday), "--destination", "amlyze")
    rows = [row for batch in amlyze["batches"] for row in batch]
    assert rows
    assert all(row["wire"]["accountExtId"].startswith("NEW-") for row in rows)
    assert cli.main(["preview", "main_cash", str(place.yesterday), "--destination", "amlyze"]) == 0
    assert f"{len(rows)} balances in 1 requests would be sent" in capsys.readouterr().out
    assert len(place.sandbox.journal.requests) == before


def test_what_a_person_found_out_is_written_down(
    place: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from balance_bridge.errors import AnswerLost, BalanceBridgeError
    from balance_bridge.transport import Transport

    send = Transport.send

    def lose(self: Any, method: str, url: str, **given: Any) -> Any:
        answer = send(self, method, url, **given)
        if "amlyze-ws-rest" in url:
            raise AnswerLost("cut")
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
    assert "1 accepted, on" in capsys.readouterr().out
    (row,) = [row for row in shown(capsys, "receipts", "main_cash", day) if row["number"] == one]
    assert (row["outcome"], row["resolved_by"], row["text"]) == ("accepted", "Ada", "Ada: ticket 4711")
    # Once it is settled it cannot be settled otherwise.
    assert cli.main([*resolve, "--number", one, "--rejected", "--by", "Eve", "--reason", "x"]) == 1
    assert "these are not confirmed" in capsys.readouterr().err
    assert cli.main([*resolve, "--all", "--rejected", "--by", "Ada", "--reason", "asked them"]) == 0
    assert "Run the day again" in capsys.readouterr().out
    assert shown(capsys, "receipts", "main_cash", day, "--outcome", "unknown") == []
    assert cli.main([*resolve, "--all", "--accepted", "--by", " ", "--reason", "x"]) == 1
    assert "must say who found it out" in capsys.readouterr().err
