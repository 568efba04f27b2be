"""Responses of the exchange that are not what it documents: one clear message, no retry, nothing delivered.

That an invalid response ends a run is shown once per kind with Airflow; what the message says, with the task alone.
Every single field is tested with the reading itself.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from balance_bridge.errors import (
    BalanceBridgeError,
    ConfigurationError,
    ConnectionFailed,
    Contradiction,
    CredentialsRefused,
    InvalidResponse,
    ReconciliationBroken,
    RequestRefused,
    ServerFault,
    StoreUnwritable,
    TransientError,
)

# Opening and closing snapshot do not wait for each other.
BOTH = {"opening_snapshot", "closing_snapshot"}

Change = Callable[[Any], Any]


@dataclass(frozen=True)
class Bent:
    """A reply whose body is not the document that was meant."""

    status: int
    raw: bytes

    def body(self) -> bytes:
        return self.raw


def bend(world: Any, endpoint: str, change: Callable[[bytes], bytes], status: int = 200) -> None:
    """From now on, responses of one endpoint come changed; of the snapshots, the one that opens the day."""
    answer = world.sandbox.exchange.answer

    def bent(call: Any) -> Any:
        reply = answer(call)
        if call.path.endswith(f"/balance/{endpoint}") and call.params().get("date") in (None, str(world.yesterday)):
            return Bent(status, change(reply.body()))
        return reply

    world.monkeypatch.setattr(world.sandbox.exchange, "answer", bent)


def bend_document(world: Any, endpoint: str, change: Change) -> None:
    def changed(body: bytes) -> bytes:
        document = json.loads(body)
        found = change(document)
        return json.dumps(document if found is None else found).encode()

    bend(world, endpoint, changed)


def fails(world: Any, task: str, kind: type[BalanceBridgeError]) -> str:
    """Run one task; see that it raises this error, and give the message."""
    with pytest.raises(kind) as caught:
        world.task(task)
    assert type(caught.value) is kind
    return checked(caught.value)


def run_fails(world: Any, tasks: set[str], kind: type[BalanceBridgeError]) -> str:
    """Run the day; see that these tasks are to blame, that nothing arrived, and give what one of them says."""
    ended = world.run()
    assert ended.state == "failed"
    assert set(ended.errors) == tasks, ended.errors
    assert {type(error) for error in ended.errors.values()} == {kind}, ended.errors
    # What is final fails at once; the rest Airflow would try again.
    assert ended.retried == (tasks if issubclass(kind, TransientError) else set())
    assert {ended.tasks[load] for load in ("load_elven", "load_amlyze")} == {"upstream_failed"}
    assert world.requests("elven") == world.requests("amlyze") == 0
    return checked(ended.errors[max(tasks)])


def checked(error: BaseException) -> str:
    message = str(error)
    assert not [secret for secret in ("sandbox-cash-key", "sandbox-cash-secret") if secret in message]
    assert len(message) < 2000
    return message


def first_change(document: Any) -> Any:
    """The first record of a page, of whichever list has one."""
    return (document.get("balance") or document.get("order"))[0]


@pytest.mark.slow  # Airflow runs the day
def test_an_invalid_response_makes_one_red_task_without_a_retry_and_nothing_is_delivered(world: Any) -> None:
    bend(world, "history", lambda _: b"<html><head><title>Maintenance</title></head></html>")
    assert "<html><head><title>Maintenance" in run_fails(world, {"history"}, InvalidResponse)


@pytest.mark.slow  # Airflow runs the day
def test_a_fault_of_the_exchange_makes_a_red_task_that_is_tried_again_later(world: Any) -> None:
    bend_document(world, "snapshot", lambda _: {"code": 100101, "reason": "UNKNOWN_ERROR", "message": "later"})
    assert "UNKNOWN_ERROR later" in run_fails(world, {"opening_snapshot"}, ServerFault)


@pytest.mark.parametrize(
    ("endpoint", "body", "shown"),
    [
        ("snapshot", b"<html><head><title>Maintenance</title></head></html>", "<html><head><title>Maintenance"),
        ("history", b"", "the body is empty"),
        ("snapshot", None, '{"meta": {'),
        ("history", b"[]", "'[]'"),
        ("snapshot", b"\xff\xfe\x00", "not what the exchange documents"),
    ],
    ids=["html", "empty", "cut in two", "a list", "no text"],
)
def test_a_response_that_is_no_document_is_fetched_three_times_and_then_shown(
    world: Any, endpoint: str, body: bytes | None, shown: str
) -> None:
    bend(world, endpoint, lambda whole: whole[: len(whole) // 2] if body is None else body)
    message = fails(world, "opening_snapshot" if endpoint == "snapshot" else "history", InvalidResponse)
    assert shown in message
    assert world.naps[:2] == [1.0, 2.0]
    if endpoint == "snapshot":
        assert world.requests("exchange") == 3


@pytest.mark.parametrize(
    ("document", "status", "kind", "shown"),
    [
        ({"code": 100006, "reason": "INVALID_ARGUMENT", "message": "no"}, 200, RequestRefused, "INVALID_ARGUMENT no"),
        ({"code": "100006", "reason": "INVALID_ARGUMENT", "message": "no"}, 400, RequestRefused, "code 100006"),
        ({"code": 200015, "reason": "PERMISSION_DENIED", "message": "no"}, 200, CredentialsRefused, "PERMISSION"),
        ({"code": 510001, "reason": "SERVER_ERROR", "message": "later"}, 400, ServerFault, "SERVER_ERROR later"),
    ],
    ids=["refused", "refused, as text", "no permission", "its own fault"],
)  # fmt: skip
def test_an_error_of_the_exchange_is_reported_with_code_and_reason(
    world: Any, document: Any, status: int, kind: type[BalanceBridgeError], shown: str
) -> None:
    bend(world, "snapshot", lambda _: json.dumps(document).encode(), status)
    message = fails(world, "opening_snapshot", kind)
    assert shown in message
    assert f"GET {world.sandbox.url}/api/pro/data/v1/cash/balance/snapshot?date={world.yesterday}" in message
    assert f"answered {status}" in message


def set_in(path: str, value: Any) -> Change:
    """Put a value in place of what stands at a path such as ``snapshot.0.asset``; None takes it away."""

    def change(document: Any) -> None:
        *way, last = path.split(".")
        at = document
        for step in way:
            at = at[int(step)] if step.isdigit() else at[step]
        if value is None:
            del at[last]
        else:
            at[last] = value

    return change


SNAPSHOT = [
    ("snapshot.0.totalBalance", 1.5, ["$.snapshot[0].totalBalance", "1.5", "Expected `str`"]),
    ("snapshot.0.totalBalance", "NaN", ["totalBalance", "NaN"]),
    ("snapshot.0.asset", None, ["$.snapshot[0]", "asset"]),
    ("meta.sn", -1, ["$.meta.sn", "-1"]),
    ("meta.ac", "futures", ["meta.ac", "futures", "cash"]),
]


@pytest.mark.parametrize(("path", "value", "shown"), SNAPSHOT, ids=[f"{path}={value!r}" for path, value, _ in SNAPSHOT])
def test_a_snapshot_with_a_wrong_field_is_refused_by_path_and_value(
    world: Any, path: str, value: Any, shown: list[str]
) -> None:
    bend_document(world, "snapshot", set_in(path, value))
    message = fails(world, "opening_snapshot", InvalidResponse)
    assert not [part for part in shown if part not in message], message
    # It came whole and is kept; asking again within seconds would bring the same.
    assert world.requests("exchange") == 1
    assert len(list(world.store.rglob("*.gz"))) == 1


def test_a_snapshot_of_another_day_is_refused_with_both_days(world: Any) -> None:
    def a_day_early(document: Any) -> None:
        document["meta"]["snapshotTime"] -= 86_400_000

    bend_document(world, "snapshot", a_day_early)
    message = fails(world, "opening_snapshot", InvalidResponse)
    assert f"{world.yesterday}T00:00:00.000Z" in message
    assert f"{world.yesterday - timedelta(days=1)}T00:00:00.000Z" in message


def test_a_snapshot_with_an_asset_twice_is_refused_by_its_name(world: Any) -> None:
    bend_document(world, "snapshot", lambda document: document["snapshot"].append(document["snapshot"][0]))
    message = fails(world, "opening_snapshot", InvalidResponse)
    assert "comes twice" in message
    assert str(world.yesterday) in message


CHANGES = [
    ("deltaQty", 1.5, ["Expected `str`", "deltaQty", "1.5"]),
    ("curBalance", "infinity", ["curBalance", "infinity"]),
    ("asset", None, ["asset"]),
]


@pytest.mark.parametrize(("name", "value", "shown"), CHANGES, ids=[f"{name}={value!r}" for name, value, _ in CHANGES])
def test_a_change_with_a_wrong_field_is_refused_by_sequence_number_and_value(
    world: Any, name: str, value: Any, shown: list[str]
) -> None:
    numbers: list[int] = []

    def change(document: Any) -> None:
        record = first_change(document)
        numbers.append(record["sn"])
        if value is None:
            del record["data"][0][name]
        else:
            record["data"][0][name] = value

    bend_document(world, "history", change)
    message = fails(world, "history", InvalidResponse)
    assert not [part for part in shown if part not in message], message
    assert f"sn {numbers[0]}" in message


def test_a_change_that_lacks_a_field_is_refused_by_its_place(world: Any) -> None:
    bend_document(world, "history", lambda document: first_change(document).pop("transactTime") and None)
    message = fails(world, "history", InvalidResponse)
    assert "missing required field `transactTime`" in message
    assert "$.balance[0]" in message or "$.order[0]" in message


def test_a_sequence_number_twice_with_other_content_is_refused_by_its_number(world: Any) -> None:
    numbers: list[int] = []

    def twice(document: Any) -> None:
        rows = document.get("balance") or document["order"]
        other = copy.deepcopy(rows[0])
        other["transactTime"] += 1
        rows.append(other)
        numbers.append(other["sn"])

    bend_document(world, "history", twice)
    message = fails(world, "history", Contradiction)
    assert str(numbers[0]) in message


def leave_out(document: Any) -> Any:
    """Take the first record out of a page: whatever the day, it is one of the day's own."""
    lists = [rows for name in ("order", "balance") if (rows := document.get(name))]
    first = min((row for rows in lists for row in rows), key=lambda row: row["sn"])
    next(rows for rows in lists if first in rows).remove(first)
    return first


@pytest.mark.slow  # Airflow runs the day
def test_a_change_that_is_left_out_holds_the_day_and_names_where_it_breaks(world: Any) -> None:
    lost: list[Any] = []
    bend_document(world, "history", lambda document: lost.append(leave_out(document)))
    message = run_fails(world, {"reconcile"}, ReconciliationBroken)
    assert lost[0]["data"][0]["asset"] in message
    assert "nothing of it is delivered" in message
    assert f'{{"date": "{world.yesterday}", "refetch": true}}' in message


@pytest.mark.slow  # Airflow runs the day
def test_a_day_that_does_not_add_up_is_delivered_where_the_file_says_so(world: Any) -> None:
    text = world.accounts_file.read_text()
    world.accounts_file.write_text(text.replace("    start_date:", "    on_break: load\n    start_date:", 1))

    lost: list[Any] = []
    bend_document(world, "history", lambda document: lost.append(leave_out(document)))
    ended = world.run()
    assert ended.state == "success"
    assert ended.handed_on["load_elven"]["reconciliation"] == "broken"
    assert ended.asset_events["balance-bridge://main_cash/elven"]["reconciliation"] == "broken"


@pytest.mark.slow  # Airflow runs the day
def test_a_wrong_secret_fails_at_once_and_airflow_s_log_says_what_to_do_before_the_exception(
    world: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    world.connect("ascendex_cash", password="not-the-secret")
    message = run_fails(world, BOTH, CredentialsRefused)
    assert "200001" in message
    assert "not-the-secret" not in message
    log = capfd.readouterr().out
    entry, instruction = log.index("what: connection 'ascendex_cash'"), log.index("\ndo: ")
    assert entry < instruction < log.index("Task failed with exception")
    assert world.requests("exchange") == 2


def test_a_connection_that_is_missing_is_named_with_what_to_do(world: Any, airflow_db: Any) -> None:
    world.monkeypatch.delenv("AIRFLOW_CONN_ASCENDEX_CASH")
    message = fails(world, "opening_snapshot", ConfigurationError)
    assert "connection 'ascendex_cash' does not exist" in message
    assert "AIRFLOW_CONN_ASCENDEX_CASH" in message


def test_without_a_network_three_attempts_within_seconds_fail_with_the_address(world: Any, closed_port: int) -> None:
    world.connect("ascendex_cash", host=f"http://127.0.0.1:{closed_port}")
    message = fails(world, "opening_snapshot", ConnectionFailed)
    assert "no connection" in message
    assert f"127.0.0.1:{closed_port}" in message
    assert world.naps == [1.0, 2.0]


def test_a_store_that_cannot_be_written_is_tried_again_later(world: Any) -> None:
    world.store.write_text("a file stands where the folder is due")
    message = fails(world, "opening_snapshot", StoreUnwritable)
    assert str(world.store) in message


@pytest.mark.slow  # Airflow runs the day
def test_a_later_run_delivers_the_day_once_the_exchange_responds_correctly(world: Any) -> None:
    right = world.sandbox.exchange.answer
    bend_document(world, "snapshot", set_in("snapshot.0.totalBalance", "NaN"))
    fails(world, "opening_snapshot", InvalidResponse)
    world.monkeypatch.setattr(world.sandbox.exchange, "answer", right)
    ended = world.run()
    assert ended.state == "success"
    assert world.differences() == []


@pytest.mark.slow  # Airflow runs the day twice
def test_a_destination_that_refuses_the_key_leaves_the_other_one_served(world: Any) -> None:
    world.connect("amlyze_default", password="not-the-secret")
    ended = world.run()
    assert ended.state == "failed"
    assert set(ended.errors) == {"load_amlyze"}
    assert isinstance(ended.errors["load_amlyze"], CredentialsRefused)
    assert "not-the-secret" not in str(ended.errors["load_amlyze"])
    assert not ended.retried
    assert [state for name, state in ended.tasks.items() if name != "load_amlyze"] == ["success"] * 6
    # Once the key is right, a run of the day sends what is missing, and that only.
    world.connect("amlyze_default")
    assert world.run().state == "success"
    assert world.differences() == []
