from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from balance_bridge.sandbox import server
from balance_bridge.sandbox.server import CREDENTIALS, Sandbox, accounts_yaml, connections
from balance_bridge.sandbox.wire import signature

PACKAGE = Path(server.__file__).resolve().parent


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as running:
        yield running


def get(running: Sandbox, path: str, **params: str) -> Any:
    with requests.get(running.url + path, params=params, timeout=10) as response:
        return response.json()


def exchange(running: Sandbox, endpoint: str, **params: str) -> requests.Response:
    api_path = f"data/v1/cash/balance/{endpoint}"
    stamp = str(int(time.time() * 1000))
    headers = {
        "x-auth-key": "sandbox-cash-key",
        "x-auth-timestamp": stamp,
        "x-auth-signature": signature(CREDENTIALS.exchange["sandbox-cash-key"], f"{stamp}+{api_path}"),
    }
    return requests.get(f"{running.url}/api/pro/{api_path}", params=params, headers=headers, timeout=10)


def test_all_three_apis_and_the_pages_answer_over_a_socket(sandbox: Sandbox) -> None:
    yesterday = (datetime.now(UTC) - timedelta(days=1)).date().isoformat()
    with exchange(sandbox, "snapshot", date=yesterday) as answer:
        assert answer.status_code == 200
        assert answer.headers["date"].endswith("GMT")
        sn = answer.json()["meta"]["sn"]
    with exchange(sandbox, "history", sn=str(sn + 1), limit="500") as answer:
        assert answer.json()["order"]

    stamp = str(int(time.time() * 1000))
    path = "/open/v4/account/treasuryBalance"
    headers = {
        "elven-api-key": "sandbox-elven-key",
        "elven-api-timestamp": stamp,
        "elven-api-sign": signature(CREDENTIALS.elven["sandbox-elven-key"], f"{stamp}POST{path}"),
    }
    row = {
        "entityAccountId": CREDENTIALS.entity_accounts["main_cash"],
        "sourceId": CREDENTIALS.sources["main_cash"],
        "symbol": "NO",
        "datetime": f"{yesterday} 08:00:00",
        "balance": 7,
    }
    with requests.post(sandbox.url + path, json=[row], headers=headers, timeout=10) as answer:
        assert answer.json()["data"] is True

    balance = {
        "accountExtId": "ASCENDEX-CASH-NO",
        "balanceAt": f"{yesterday}T00:00:00.000Z",
        "communicationNumber": "n1",
        "requester": "treasury",
        "value": 7,
    }
    token = {"authorization": f"Bearer {CREDENTIALS.amlyze}"}
    url = sandbox.url + "/amlyze-ws-rest/batch-account-balances"

    def registers() -> bool:
        with requests.post(url, json={"accountBalances": [balance]}, headers=token, timeout=10) as answer:
            return bool(answer.json()["results"][0]["resultType"] == "REQUEST_ACCEPTED")

    assert registers()

    status = get(sandbox, "/sandbox/status")
    assert status["requests"] == {
        "amlyze": {"bearer": 1},
        "elven": {"sandbox-elven-key": 1},
        "exchange": {"sandbox-cash-key": 2},
    }
    assert status["refusals"] == []
    assert status["delivered"] == {
        f"amlyze: main_cash {yesterday}": {"new": 1},
        f"elven: main_cash {yesterday}": {"new": 1},
    }
    delivered = get(sandbox, "/sandbox/delivered")
    assert delivered["elven"][0]["balance"] == delivered["amlyze"][0]["balance"] == "7"
    assert sandbox.lines() == [f"{name}: main_cash {yesterday}: 1 new" for name in ("amlyze", "elven")]
    with requests.post(sandbox.url + "/sandbox/reset", timeout=10) as answer:
        assert answer.status_code == 200
    assert get(sandbox, "/sandbox/status")["delivered"] == {}
    assert registers(), "its number is free again"


def test_the_books_say_what_is_to_be_delivered(sandbox: Sandbox) -> None:
    today = datetime.now(UTC).date()
    first, last = ((today - timedelta(days=ago)).isoformat() for ago in (3, 1))
    asked = {"key": "sandbox-cash-key", "category": "cash", "from": first, "to": last}
    close = get(sandbox, "/sandbox/books", **asked, points="close", zone="Asia/Shanghai", key_kind="local_second")
    book = sandbox.exchange.world.book("sandbox-cash-key", "cash", today)
    at_close = {
        row["asset"]: row["balance"] for row in close["deliveries"] if row["local"].startswith(today.isoformat())
    }
    snapshot = {
        asset: f"{amount:f}".rstrip("0").rstrip(".") if "." in f"{amount:f}" else f"{amount:f}"
        for asset, amount in book.snapshots[today].balances.items()
    }
    assert at_close == snapshot
    many = get(
        sandbox, "/sandbox/books", **asked, points="open,close,changes,local_midnight,every 1h", key_kind="instant"
    )
    assert len(many["deliveries"]) > 1000
    for wrong in (
        {"key": "nobody"},
        {"to": today.isoformat()},
        {"from": "soon"},
        {"zone": "Mars/Base"},
        {"points": "noon"},
    ):
        assert "error" in get(sandbox, "/sandbox/books", **(asked | wrong))
    assert "error" in get(sandbox, "/sandbox/nothing")


def test_it_starts_fast_stops_twice_and_frees_its_port() -> None:
    start = time.monotonic()
    running = Sandbox().start()
    snapshot = exchange(running, "snapshot", date=datetime.now(UTC).date().isoformat())
    snapshot.close()
    assert snapshot.status_code == 200
    assert time.monotonic() - start < 3  # under a second where nothing else runs
    port = int(running.url.rsplit(":", 1)[1])
    running.stop()
    running.stop()
    socket.create_server(("127.0.0.1", port)).close()


def test_it_stops_while_a_client_keeps_its_connection() -> None:
    running = Sandbox().start()
    with requests.Session() as session:
        session.get(running.url + "/sandbox/status", timeout=10)
        start = time.monotonic()
        running.stop()
        assert time.monotonic() - start < 5


def test_a_taken_port_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert server.serve(taken.getsockname()[1], 7, True) == 1


def test_a_record_that_is_withheld_is_missing_from_the_history_until_it_is_released(sandbox: Sandbox) -> None:
    yesterday = (datetime.now(UTC) - timedelta(days=1)).date()
    record = sandbox.withhold("sandbox-cash-key", "cash", yesterday)
    assert len(record.legs) == 1, "the break is one asset's"

    def shown() -> int:
        with exchange(sandbox, "history", sn=str(record.sn), limit="1") as answer:
            document = answer.json()
        return int(((document.get("order") or []) + (document.get("balance") or []))[0]["sn"])

    assert shown() > record.sn
    with requests.post(sandbox.url + "/sandbox/release", timeout=10) as answer:
        assert answer.status_code == 200
    assert shown() == record.sn


def test_the_connections_fit_the_credentials() -> None:
    made = connections("http://127.0.0.1:1")
    assert list(made) == ["ascendex_cash", "ascendex_margin", "elven_default", "amlyze_default", "webhook_default"]
    assert made["ascendex_margin"] == {
        "conn_type": "ascendex",
        "host": "http://127.0.0.1:1",
        "login": "sandbox-margin-key",
        "password": "sandbox-margin-secret-not-real",
    }


def test_the_accounts_file_fits_the_sandbox() -> None:
    accounts = yaml.safe_load(accounts_yaml(datetime(2026, 11, 1, tzinfo=UTC).date()))["accounts"]
    assert list(accounts) == ["main_cash", "main_margin"]
    for name, account in accounts.items():
        assert account["source"]["conn_id"] in connections("")
        elven = account["destinations"]["elven"]
        assert elven["entity_account_id"] == CREDENTIALS.entity_accounts[name]
        assert elven["source_id"] == CREDENTIALS.sources[name]
        assert account["destinations"]["amlyze"]["account_ext_id"] == CREDENTIALS.account_ext_ids[name]


def test_only_the_sandbox_needs_what_its_extra_installs() -> None:
    others = [path for path in PACKAGE.parent.rglob("*.py") if PACKAGE not in path.parents]
    assert len(others) > 50
    found = [path.name for path in others if re.search(r"^\s*(import|from) uvicorn\b", path.read_text(), re.M)]
    assert found == []


# A process of its own has to import everything and to be told to stop: a second or two.
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_in_the_foreground_it_shows_how_to_connect_and_stops_cleanly(number: signal.Signals) -> None:
    environment = os.environ | {"PYTHONPATH": str(PACKAGE.parents[1])}
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "balance_bridge.cli", "sandbox"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stdout is not None
        shown = []
        while not shown or "stop with" not in shown[-1]:
            shown.append(process.stdout.readline())
            assert shown[-1], "it ended before it was up"
        process.send_signal(number)
        try:
            rest, errors = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == 0
    assert errors == ""
    assert "sandbox stopped" in rest
    connection = next(line for line in shown if line.startswith("AIRFLOW_CONN_ASCENDEX_CASH="))
    assert json.loads(connection.split("=", 1)[1].strip().strip("'"))["login"] == "sandbox-cash-key"
