"""The reason of a red task, out of its log."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from balance_bridge.commands.task_logs import explain_failures, last_error


def line(kind: str | None = None, value: str = "") -> str:
    details = {"error_detail": [{"exc_type": kind, "exc_value": value, "frames": []}]} if kind else {}
    return json.dumps({"event": "x", "level": "error", **details})


ENTRY = "what: the day does not add up\nwhy: BTC: 1 unexplained\ndo: fetch it again"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], None),
        (["", "no JSON", "[]", "12", '"text"', "null", line()], None),
        ([line("InvalidResponse", "sn 12: no")], "InvalidResponse: sn 12: no"),
        (
            [line("ConnectionFailed", "first"), line(), line("InvalidResponse", "last"), "cut {"],
            "InvalidResponse: last",
        ),
        ([json.dumps({"error_detail": []}), json.dumps({"error_detail": None})], None),
        ([json.dumps({"event": ENTRY}), line("ReconciliationBroken", "all in one text")], ENTRY),
        (
            [json.dumps({"event": f"{ENTRY} and ..."}), line("ReconciliationBroken", "all in one text")],
            "ReconciliationBroken: all in one text",
        ),
    ],
    ids=["empty", "no error", "one", "the last of two", "empty details", "an entry in lines", "an entry that was cut"],
)
def test_the_last_error_of_a_log_is_its_reason(tmp_path: Path, lines: list[str], expected: str | None) -> None:
    log = tmp_path / "attempt=1.log"
    log.write_text("\n".join(lines))
    assert last_error(log) == expected


def test_a_log_that_is_no_text_still_has_its_reason(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"\xff\xfe\n" + line("InvalidResponse", "told").encode())
    assert last_error(tmp_path / "log") == "InvalidResponse: told"


def test_a_failed_task_is_explained_by_its_newest_attempt(tmp_path: Path) -> None:
    folder = tmp_path / "logs" / "dag_id=d" / "run_id=r" / "task_id=t"
    folder.mkdir(parents=True)
    for number, told in enumerate(("first", "second"), start=1):
        (folder / f"attempt={number}.log").write_text(line("InvalidResponse", told))
    shown = list(explain_failures(tmp_path, [("d", "r", "t")]))
    assert shown == ["d r t:", "InvalidResponse: second", f"log: {folder}/attempt=2.log"]


def test_a_failed_task_without_a_log_is_named_with_the_place_where_it_should_be(tmp_path: Path) -> None:
    _, reason, log = explain_failures(tmp_path, [("d", "r", "t")])
    assert reason == "no message found"
    assert log.endswith("task_id=t")
